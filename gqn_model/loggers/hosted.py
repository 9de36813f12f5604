"""Loggers of services that host runs: one class, whose subclasses only begin the service's run."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from gqn_data.errors import GQNError
from gqn_data.io import atomic, strict_json
from gqn_model.loggers.record import LoggerContext, Record

if TYPE_CHECKING:
    from PIL.Image import Image


class HostedRun(NamedTuple):
    """A run at a service.

    Attributes:
        run: the service's object, with `log(values, step=)` and `finish()`.
        as_image: converts a Pillow image, with `caption=`, to the service's image.
    """

    run: Any
    as_image: Callable[..., Any]


class HostedLogger(ABC):
    """Send metrics under their names, pictures under `predictions`, and the configuration once.

    A note in the run's folder, `SERVICE.json`, holds the run's id at the service and the last step sent. So a resumed
    training continues the same hosted run, and repeated steps are not sent again.

    Attributes:
        service: name of the service and of the note.
    """

    service: ClassVar[str]

    def __init__(self, context: LoggerContext) -> None:
        self._path = context.run / f"{self.service}.json"
        try:
            note = strict_json.read_json(self._path)
            self._id, self._step = str(note["id"]), int(note["step"])
        except (GQNError, OSError, ValueError, KeyError, TypeError):
            # Missing or damaged: begin another run there.
            self._id, self._step = secrets.token_hex(4), 0
            self._write_note()
        self._hosted = self._begin(context, self._id)

    @abstractmethod
    def _begin(self, context: LoggerContext, identity: str) -> HostedRun:
        """Begin the service's run with this id, or continue it if the service has it."""

    def log(self, record: Record) -> None:
        """Send the metrics of one line, unless the step was sent before."""
        if record.step > self._step:
            self._hosted.run.log(dict(record.metrics()), step=record.step)
            self._step = record.step
            self._write_note()

    def picture(self, step: int, image: Image) -> None:
        """Send a picture of predictions, unless a later step was sent before."""
        # Services accept steps in order; a picture has the step of the last line, or one between two lines.
        if step >= self._step:
            self._hosted.run.log({"predictions": self._hosted.as_image(image, caption=f"step {step}")}, step=step)

    def close(self) -> None:
        """Finish the service's run, which sends the rest."""
        self._hosted.run.finish()

    def _write_note(self) -> None:
        atomic.write_json(self._path, {"id": self._id, "step": self._step})
