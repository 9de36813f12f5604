"""Visdom: live curves and pictures on a Visdom server. Needs the package `visdom`.

Opening the logger draws the curves of `log.jsonl` again, and the newest picture unless the server shows one. A logger
that lost its server is opened again. So a run has one set of curves after any number of stops, and the server may
start late or restart.
"""

from __future__ import annotations

import html
import json
import logging
import re
from typing import TYPE_CHECKING, Any

from gqn_data.progress import message
from gqn_model.loggers.json_lines import read_lines
from gqn_model.loggers.record import LoggerContext, Record

if TYPE_CHECKING:
    from PIL.Image import Image

# Seconds to connect, and to answer. The package sets no timeout.
TIMEOUT = (3.0, 5.0)

_SIDE = 320  # width and height of a window with curves, in pixels


class Visdom:
    """Draw one window per metric, one for the KL of all generation steps, one for pictures and one for the settings.

    The environment has the name of the run's folder, unless the setting `visdom_env` gives another. Every method may
    raise ConnectionError.

    Raises:
        ConnectionError: the server cannot be reached.
    """

    def __init__(self, context: LoggerContext) -> None:
        import visdom

        logging.getLogger("visdom").setLevel(logging.ERROR)  # it logs every session and socket
        training = context.training
        self._context = context
        # The server uses the environment's name in paths and URLs.
        environment = re.sub(r"[^\w.-]", "-", str(training.get("visdom_env") or context.label))
        self._client = _with_timeouts(visdom.Visdom)(
            server=str(training.get("visdom_server", "localhost")),
            port=int(training.get("visdom_port", 8097)),
            env=environment,
            raise_exceptions=True,
            use_incoming_socket=False,
        )
        message(f"visdom: {self._client.server}:{self._client.port}/env/{environment}")
        self._draw_all()

    def log(self, record: Record) -> None:
        """Draw the metrics of one line."""
        if self._last and not self._client.win_exists("excess"):  # the server was restarted
            self._draw_all()
        if record.step > self._last:
            self._draw_lines([record.to_json()], "append")

    def picture(self, step: int, image: Image) -> None:
        """Show a picture of predictions; the window keeps the earlier ones."""
        import numpy as np

        pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        options = {"title": "predictions", "caption": f"step {step}", "store_history": True}
        self._client.image(pixels, win="predictions", opts=options)

    def close(self) -> None:
        """Do nothing: every call sends at once."""

    def _draw_all(self) -> None:
        from PIL import Image

        self._last = 0
        text = html.escape(json.dumps(self._context.config, indent=2))
        self._client.text(f"<pre>{text}</pre>", win="config", opts={"title": "config"})
        self._draw_lines(read_lines(self._context.run), None)
        pictures = sorted((self._context.run / "pictures").glob("[0-9]*.png"))
        if pictures and not self._client.win_exists("predictions"):
            with Image.open(pictures[-1]) as image:
                self.picture(int(pictures[-1].stem), image)

    def _draw_lines(self, lines: list[dict[str, Any]], update: str | None) -> None:
        import numpy as np

        for name in {name: None for line in lines for name in line if name not in ("step", "steps")}:
            points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
            if not points:
                continue
            values = np.array([value for _, value in points], dtype=np.float64)
            options: dict[str, Any] = {"title": name, "xlabel": "step", "width": _SIDE, "height": _SIDE}
            if values.ndim == 2:
                options["legend"] = [f"{name}/{index:02d}" for index in range(values.shape[1])]
            steps = np.array([step for step, _ in points], dtype=np.float64)
            self._client.line(Y=values, X=steps, win=name, opts=options, update=update)
        self._last = max([self._last, *(line["step"] for line in lines)])


def _with_timeouts(client: Any) -> Any:
    """Return a subclass of the package's client whose requests have a timeout."""

    class ClientWithTimeouts(client):  # type: ignore[misc]
        def _handle_post(self, url: str, data: Any = None) -> str:
            response = self.session.post(url, data={} if data is None else data, timeout=TIMEOUT)
            response.raise_for_status()
            return str(response.text)

    return ClientWithTimeouts
