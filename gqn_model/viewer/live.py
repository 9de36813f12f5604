"""The viewer of a run that is training: `gqn train --viewer`.

It is `gqn explore RUN` in a process that follows the run's checkpoints. It opens with the first line of metrics, when
there is a checkpoint to show, and ends with the training. Once the page can be opened, it has the lowest priority.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from gqn_model.loggers.record import LoggerContext, Record

_NICE = 19  # lowest priority: it computes when the training leaves a core idle
_AUTOGROUP = Path("/proc/self/autogroup")


class LiveViewer:
    """A logger that shows the run in the browser; it runs in a separate process, as `SubprocessLogger` starts it."""

    def __init__(self, context: LoggerContext) -> None:
        self._run = context.run
        self._process: subprocess.Popen[str] | None = None

    def log(self, record: Record) -> None:  # noqa: ARG002  the page shows checkpoints, not metrics
        """Open the viewer at the first line.

        Raises:
            RuntimeError: it has ended before the training; it has printed why.
        """
        if self._process is None:
            # In the process group of the logger, which is killed as a whole if it does not end in time.
            command = [sys.executable, "-m", "gqn_model", "explore", str(self._run), "--device", "cpu"]
            self._process = subprocess.Popen(
                command,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
            )
            threading.Thread(target=_follow, args=(self._process,), daemon=True).start()
            atexit.register(self.close)  # also if the training is killed, and its end is never announced
        elif self._process.poll() is not None:
            raise RuntimeError("the viewer has ended")

    def picture(self, step: int, image: Image) -> None:
        """Ignore pictures: the page draws predictions when it is asked for them."""

    def close(self) -> None:
        """Kill the viewer: it does not hold anything to save, and with busy cores it takes long to answer."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()


def _follow(process: subprocess.Popen[str]) -> None:
    """Pass on the address, and lower the priority of a viewer that has one; starting at it would take minutes."""
    assert process.stdout is not None  # noqa: S101  for mypy; it was opened as a pipe
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        # Linux with autogroups weighs sessions against each other, and `nice` only within one. This process leads a
        # session, which is made nice as well: without it a page in use slows the training tenfold.
        with contextlib.suppress(OSError):
            _AUTOGROUP.write_text(str(_NICE))
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
            for thread in Path(f"/proc/{process.pid}/task").iterdir():  # a priority is a thread's on Linux
                os.setpriority(os.PRIO_PROCESS, int(thread.name), _NICE)
