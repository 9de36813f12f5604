"""Weights & Biases: a run there for a run here. Needs the package `wandb`, and an account or `WANDB_MODE=offline`.

Where the service cannot be reached when the training begins, or nobody is logged in, the run is written to `wandb/` in
the run's folder, and `wandb sync` sends it later.
"""

from __future__ import annotations

import sys
from typing import Any

from gqn_model.loggers.hosted import HostedClient, HostedLogger
from gqn_model.loggers.record import LoggerContext

# Seconds until a run is begun offline. Figures wait meanwhile; the training does not.
INIT_TIMEOUT = 20.0


class WandB(HostedLogger):
    """Figures under their names, pictures under `predictions`, the configuration once.

    A training that goes on continues the run; steps that are done again are not sent again.
    """

    def __init__(self, opening: LoggerContext) -> None:
        import wandb

        tracked = HostedClient(opening.run, "wandb")
        settings: dict[str, Any] = {
            "project": str(opening.training.get("project", "gqn")),
            "name": opening.label,
            "id": tracked.identity,
            "dir": str(opening.run),
            "config": {part: dict(fields) for part, fields in opening.config.items()},
            "resume": "allow",
            # What the training prints is nobody's to capture; what it has learned is in its own table.
            "settings": wandb.Settings(console="off", quiet=True, init_timeout=INIT_TIMEOUT),
        }
        try:
            run = wandb.init(**settings)
        except Exception as error:  # noqa: BLE001  of whatever kind: no account, no network, no answer
            sys.stderr.write(
                f"warning: wandb: {_first_line(error)}; the run is written to {opening.run / 'wandb'}, "
                "send it with `wandb sync` (training goes on)\n"
            )
            wandb.teardown()  # which holds the name of the run that was not begun
            run = wandb.init(mode="offline", **settings)
        super().__init__(tracked, run, wandb.Image)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
