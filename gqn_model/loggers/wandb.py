"""Weights & Biases: a run there for a run here. Needs the package `wandb`, and an account or `WANDB_MODE=offline`.

Where the service cannot be reached when the training begins, or nobody is logged in, the run is written to `wandb/` in
the run's folder, and `wandb sync` sends it later.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from gqn_model.loggers.record import Opening, Record
from gqn_model.loggers.tracked import Tracked

if TYPE_CHECKING:
    from PIL.Image import Image

# Seconds until a run is begun offline. Figures wait meanwhile; the training does not.
INIT_TIMEOUT = 20.0


class WandB:
    """Figures under their names, pictures under `predictions`, the configuration once.

    A training that goes on continues the run; steps that are done again are not sent again.
    """

    def __init__(self, opening: Opening) -> None:
        import wandb

        self._wandb = wandb
        self._tracked = Tracked(opening.run, "wandb")
        settings: dict[str, Any] = {
            "project": str(opening.training.get("project", "gqn")),
            "name": opening.label,
            "id": self._tracked.identity,
            "dir": str(opening.run),
            "config": {part: dict(fields) for part, fields in opening.config.items()},
            "resume": "allow",
            # What the training prints is nobody's to capture; what it has learned is in its own table.
            "settings": wandb.Settings(console="off", quiet=True, init_timeout=INIT_TIMEOUT),
        }
        try:
            self._run = wandb.init(**settings)
        except Exception as error:  # noqa: BLE001  of whatever kind: no account, no network, no answer
            sys.stderr.write(
                f"warning: wandb: {_first_line(error)}; the run is written to {opening.run / 'wandb'}, "
                "send it with `wandb sync` (training goes on)\n"
            )
            wandb.teardown()  # which holds the name of the run that was not begun
            self._run = wandb.init(mode="offline", **settings)

    def log(self, record: Record) -> None:
        """Takes one line."""
        if record.step > self._tracked.step:
            self._run.log(dict(record.figures()), step=record.step)
            self._tracked.sent(record.step)

    def picture(self, step: int, image: Image) -> None:
        """Takes a picture of predictions."""
        # W&B takes steps in order: a picture belongs to the line of its step, or to a step between two lines.
        if step >= self._tracked.step:
            self._run.log({"predictions": self._wandb.Image(image, caption=f"step {step}")}, step=step)

    def close(self) -> None:
        """Ends the run there, which sends what is held back."""
        self._run.finish()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
