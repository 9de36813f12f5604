"""trackio: runs kept on this machine, or at a Hugging Face Space. Needs the package `trackio`.

Where it keeps them and where it sends them is said by its own environment (`TRACKIO_DIR`, `TRACKIO_SPACE_ID`,
`TRACKIO_SERVER_URL`).
"""

from __future__ import annotations

from gqn_model.loggers.hosted import HostedClient, HostedLogger
from gqn_model.loggers.record import LoggerContext


class Trackio(HostedLogger):
    """Figures under their names, pictures under `predictions`, the configuration once.

    A training that goes on continues the run, which trackio knows by its name: the folder's, and a few letters, for
    folders in two places may be called alike. Steps that are done again are not sent again.
    """

    def __init__(self, opening: LoggerContext) -> None:
        import trackio

        tracked = HostedClient(opening.run, "trackio")
        run = trackio.init(
            project=str(opening.training.get("project", "gqn")),
            name=f"{opening.label}-{tracked.identity}",
            resume="allow",
            config={part: dict(fields) for part, fields in opening.config.items()},
            embed=False,
        )
        super().__init__(tracked, run, trackio.Image)
