"""What a run is called at a service that keeps runs, and the last step sent there: a small file of the run's folder.

A training that goes on so goes on in the same run there, and what is done again is not sent twice. The services know
the same three calls, so their loggers differ in how a run is begun, and in that alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gqn_data.errors import GQNError
from gqn_data.io import atomic, strict_json
from gqn_model.loggers.record import Record

if TYPE_CHECKING:
    from PIL.Image import Image


class HostedClient:
    """The identity of a run at one service.

    Args:
        run: the run's folder.
        service: the service's name, part of the file's.

    Attributes:
        identity: eight letters and digits, the same as long as the file is there.
        step: the last step that was sent.
        known: whether the run was there before.
    """

    def __init__(self, run: Path, service: str) -> None:
        self._path = run / f"{service}.json"
        self.identity, self.step, self.known = secrets.token_hex(4), 0, False
        try:
            note = strict_json.read_json(self._path)
            self.identity, self.step, self.known = str(note["id"]), int(note["step"]), True
        except FileNotFoundError:
            self._write()
        except (GQNError, OSError, ValueError, KeyError, TypeError):
            self._write()  # damaged: another run there is better than none

    def sent(self, step: int) -> None:
        """Notes a step that was sent."""
        if step > self.step:
            self.step = step
            self._write()

    def _write(self) -> None:
        atomic.write_json(self._path, {"id": self.identity, "step": self.step})


class HostedLogger:
    """Figures under their names, pictures under `predictions`; steps that are done again are not sent again.

    Args:
        tracked: the run's identity at the service.
        run: the service's own run, with `log(values, step=)` and `finish()`.
        as_image: makes the service's own picture of one of Pillow's and a caption.
    """

    def __init__(self, tracked: HostedClient, run: Any, as_image: Callable[..., Any]) -> None:
        self._tracked, self._run, self._as_image = tracked, run, as_image

    def log(self, record: Record) -> None:
        """Takes one line."""
        if record.step > self._tracked.step:
            self._run.log(dict(record.figures()), step=record.step)
            self._tracked.sent(record.step)

    def picture(self, step: int, image: Image) -> None:
        """Takes a picture of predictions."""
        # Steps are taken in order: a picture belongs to the line of its step, or to a step between two lines.
        if step >= self._tracked.step:
            self._run.log({"predictions": self._as_image(image, caption=f"step {step}")}, step=step)

    def close(self) -> None:
        """Ends the run there, which sends what is held back."""
        self._run.finish()
