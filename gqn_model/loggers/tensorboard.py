"""TensorBoard: event files in `tensorboard/` of the run's folder. Needs the package `tensorboard`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
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

        self._hook, self._hook_before = _quiet(threading.excepthook), threading.excepthook
        threading.excepthook = self._hook
        try:
            self._writer = SummaryWriter(context.run / "tensorboard", purge_step=context.start + 1)
        except BaseException:
            self._restore_hook()
            raise
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
        try:
            self._writer.close()
        finally:
            self._restore_hook()

    def _restore_hook(self) -> None:
        if threading.excepthook is self._hook:
            threading.excepthook = self._hook_before


def _quiet(hook: Callable[[threading.ExceptHookArgs], object]) -> Callable[[threading.ExceptHookArgs], object]:
    """Return a hook that ignores errors in TensorBoard's threads, whose next call raises them again.

    Without it, a full disk prints the traceback of the thread that writes.
    """

    def report(failure: threading.ExceptHookArgs) -> None:
        if not type(failure.thread).__module__.startswith("tensorboard."):
            hook(failure)

    return report
