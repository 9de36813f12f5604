"""trackio: runs kept on this machine, or at a Hugging Face Space. Needs the package `trackio`.

Where it keeps them and where it sends them is said by its own environment (`TRACKIO_DIR`, `TRACKIO_SPACE_ID`,
`TRACKIO_SERVER_URL`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gqn_model.loggers.record import Opening, Record
from gqn_model.loggers.tracked import Tracked

if TYPE_CHECKING:
    from PIL.Image import Image


class Trackio:
    """Figures under their names, pictures under `predictions`, the configuration once.

    A training that goes on continues the run, which trackio knows by its name: the folder's, and a few letters, for
    folders in two places may be called alike. Steps that are done again are not sent again.
    """

    def __init__(self, opening: Opening) -> None:
        import trackio

        self._trackio = trackio
        self._tracked = Tracked(opening.run, "trackio")
        self._run = trackio.init(
            project=str(opening.training.get("project", "gqn")),
            name=f"{opening.label}-{self._tracked.identity}",
            resume="allow",
            config={part: dict(fields) for part, fields in opening.config.items()},
            embed=False,
        )

    def log(self, record: Record) -> None:
        """Takes one line."""
        if record.step > self._tracked.step:
            self._run.log(dict(record.figures()), step=record.step)
            self._tracked.sent(record.step)

    def picture(self, step: int, image: Image) -> None:
        """Takes a picture of predictions."""
        if step >= self._tracked.step:
            self._run.log({"predictions": self._trackio.Image(image, caption=f"step {step}")}, step=step)

    def close(self) -> None:
        """Ends the run, which sends what is held back."""
        self._run.finish()
