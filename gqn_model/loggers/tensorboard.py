"""TensorBoard: event files in `tensorboard/` of the run's folder. Needs the package of that name, and torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gqn_model.loggers.record import LoggerContext, Record

if TYPE_CHECKING:
    from PIL.Image import Image


class TensorBoard:
    """Scalars, the KL of each generation step under `kl_steps/`, pictures, and the configuration as a text.

    Later events of an earlier try are hidden where a training goes on.
    """

    def __init__(self, opening: LoggerContext) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(opening.run / "tensorboard", purge_step=opening.start + 1)
        if opening.config:
            text = json.dumps(opening.config, indent=2)
            self._writer.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()), opening.start + 1)

    def log(self, record: Record) -> None:
        """Takes one line."""
        for name, value in record.figures():
            self._writer.add_scalar(name, value, record.step)

    def picture(self, step: int, image: Image) -> None:
        """Takes a picture of predictions."""
        import numpy as np

        self._writer.add_image("predictions", np.asarray(image), step, dataformats="HWC")

    def close(self) -> None:
        """Writes out what is held back."""
        self._writer.close()
