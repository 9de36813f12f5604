"""trackio: runs on this machine or at a Hugging Face Space. Needs the package `trackio`.

Its environment variables set where runs are kept and sent: `TRACKIO_DIR`, `TRACKIO_SPACE_ID`, `TRACKIO_SERVER_URL`.
"""

from __future__ import annotations

from gqn_model.loggers.hosted import HostedLogger, HostedRun
from gqn_model.loggers.record import LoggerContext


class Trackio(HostedLogger):
    """Log to a run of trackio."""

    service = "trackio"

    def _begin(self, context: LoggerContext, identity: str) -> HostedRun:
        """Begin or continue the run with this id in its name.

        trackio identifies a run by its name. The folder's name is not enough: two folders may share it.
        """
        import trackio

        run = trackio.init(
            project=str(context.training.get("project", "gqn")),
            name=f"{context.label}-{identity}",
            resume="allow",
            config={part: dict(fields) for part, fields in context.config.items()},
            embed=False,
        )
        return HostedRun(run, trackio.Image)
