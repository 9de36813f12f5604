"""Weights & Biases. Needs the package `wandb`, and an account or `WANDB_MODE=offline`.

If the service cannot be reached at the start, or the user is not logged in, the run is written to `wandb/` in the run's
folder. `wandb sync` sends it later.
"""

from __future__ import annotations

from typing import Any

from gqn_data.progress import message
from gqn_model.loggers.hosted import HostedLogger, HostedRun
from gqn_model.loggers.record import LoggerContext

# Seconds until the run begins offline. Metrics wait meanwhile; the training does not.
INIT_TIMEOUT = 20.0


class WandB(HostedLogger):
    """Log to a run of Weights & Biases."""

    service = "wandb"

    def _begin(self, context: LoggerContext, identity: str) -> HostedRun:
        """Begin or continue the run with this id; offline if the service fails."""
        import wandb

        settings: dict[str, Any] = {
            "project": str(context.training.get("project", "gqn")),
            "name": context.label,
            "id": identity,
            "dir": str(context.run),
            "config": {part: dict(fields) for part, fields in context.config.items()},
            "resume": "allow",
            # Do not capture the terminal's output, and do not print a summary.
            "settings": wandb.Settings(console="off", quiet=True, init_timeout=INIT_TIMEOUT),
        }
        try:
            run = wandb.init(**settings)
        except Exception as error:  # noqa: BLE001  any: a missing account, the network, a timeout
            message(
                f"warning: wandb: {_first_line(error)}; the run is written to {context.run / 'wandb'}, "
                "send it with `wandb sync` (training continues)"
            )
            wandb.teardown()  # it still holds the id of the run that failed
            run = wandb.init(mode="offline", **settings)
        return HostedRun(run, wandb.Image)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
