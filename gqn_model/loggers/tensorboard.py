"""TensorBoard: event files in `tensorboard/` of the run's folder. Needs the package `tensorboard`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gqn_model.loggers.record import LoggerContext, Record

if TYPE_CHECKING:
    from PIL.Image import Image


class TensorBoard:
    """Write metrics as scalars, the KL of generation steps under `kl_steps/`, pictures, and the configuration as text.

    A resumed training hides events of steps that it repeats.
    """

    def __init__(self, context: LoggerContext) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(context.run / "tensorboard", purge_step=context.start + 1)
        if context.config:
            text = json.dumps(context.config, indent=2)
            self._writer.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()), context.start + 1)

    def log(self, record: Record) -> None:
        """Write the metrics of one line."""
        for name, value in record.metrics():
            self._writer.add_scalar(name, value, record.step)

    def picture(self, step: int, image: Image) -> None:
        """Write a picture of predictions."""
        import numpy as np

        self._writer.add_image("predictions", np.asarray(image), step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()
