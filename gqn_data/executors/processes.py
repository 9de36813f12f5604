"""Worker processes of this machine: how they start, how they are awaited, and how they end.

Every wait ends or is announced. A process that was stopped (SIGSTOP) neither works nor exits, and does not react to
SIGTERM.
"""

from __future__ import annotations

import multiprocessing
import time
import warnings
from collections.abc import Iterable, Sequence
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from gqn_data.errors import OptionError
from gqn_data.main_guard import WORKER_NAME, check_main_guard

GLANCE = 1.0  # seconds between two looks at processes that are awaited
_STALLED = 30.0  # seconds without any processor time until it is said

_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting for a disk or network file system",
    "T": "stopped",
    "t": "stopped by a debugger",
    "Z": "ended",
}


class _Worker(SpawnProcess):
    """A spawned process that knows its name before it imports the main module."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "name": WORKER_NAME})


class _WorkerContext(SpawnContext):
    Process = _Worker


SPAWN = _WorkerContext()


def check_can_start(workers: int, instead: int) -> None:
    """Raise unless this process may start worker processes.

    Args:
        workers: number of workers that were asked for.
        instead: number of workers to pass if it may not.

    Raises:
        OptionError: this is a daemonic process, or a spawned one that still imports its script.
    """
    check_main_guard()
    if multiprocessing.current_process().daemon:
        raise OptionError(
            f"workers is {workers}, expected {instead} in a daemonic process, such as a worker of multiprocessing.Pool "
            f"or of torch's DataLoader, which may not start processes. Pass workers={instead}"
        )


class StallWarning:
    """Warn once if worker processes use no processor time while their result is awaited."""

    def __init__(self) -> None:
        self._used: dict[int, str] | None = None
        self._since = 0.0
        self._was_given = False

    def check(self, processes: Iterable[int | None]) -> None:
        """Look at the processes; call it regularly during a wait.

        Args:
            processes: ids of the processes.
        """
        now = time.monotonic()
        statuses = {process: _status(process) for process in processes if process is not None}
        used = {process: time for process, (_, time) in statuses.items()}
        if used != self._used:
            self._used, self._since = used, now
        elif not self._was_given and now - self._since >= _STALLED:
            self._was_given = True
            states = ", ".join(f"{process} ({_STATES.get(state, state)})" for process, (state, _) in statuses.items())
            stopped = " ".join(str(process) for process, (state, _) in statuses.items() if state == "T")
            remedy = f"`kill -CONT {stopped}` continues the stopped" if stopped else "Ctrl-C ends the wait"
            warnings.warn(
                f"no progress for {_STALLED:.0f} s: waiting for worker process {states}. {remedy}",
                RuntimeWarning,
                stacklevel=2,
            )


def stopped_among(processes: Iterable[BaseProcess]) -> set[BaseProcess]:
    """Return the processes that are stopped by a signal; none where the system does not report it."""
    return {process for process in processes if process.pid is not None and _status(process.pid)[0] == "T"}


def end_processes(processes: Sequence[BaseProcess], patience: float) -> None:
    """End processes that were asked to exit: wait, terminate, then kill, which also ends stopped ones.

    Args:
        processes: the processes.
        patience: seconds to wait for them after each attempt.
    """
    left = list(processes)
    for end in (None, BaseProcess.terminate, BaseProcess.kill):
        for process in left:
            if end is not None:
                end(process)
        until = time.monotonic() + patience
        for process in left:
            process.join(max(0.0, until - time.monotonic()))
        left = [process for process in left if process.is_alive()]


def _status(process: int) -> tuple[str, str]:
    """Return the state of a process as a letter, and its processor time; of an unknown state without /proc."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return "state unknown", ""
    return fields[0], " ".join(fields[11:13])
