"""Visdom: curves and pictures on a Visdom server, live. Needs the package `visdom`, whose client it is.

What is drawn is always what the run's folder holds: opening draws the curves of `log.jsonl` and the newest picture in
place of what the server had, and a server that was away is met by opening anew. So a run has one set of curves however
often it was stopped, and the server may be started late, or again.
"""

from __future__ import annotations

import html
import json
import logging
import re
import sys
from typing import TYPE_CHECKING, Any

from gqn_model.loggers.json_lines import read_lines
from gqn_model.loggers.record import LoggerContext, Record

if TYPE_CHECKING:
    from PIL.Image import Image

# Seconds: to connect, and for an answer. The package itself would wait for ever.
TIMEOUT = (3.0, 5.0)

_SIDE = 320  # pixels of a window of curves


class Visdom:
    """A window a figure, one for the KL of all generation steps, one for pictures, one for the configuration.

    The environment is named after the run's folder, or as the setting `visdom_env` says.

    Raises:
        ConnectionError: the server is away, here and in every method.
    """

    def __init__(self, opening: LoggerContext) -> None:
        import visdom

        logging.getLogger("visdom").setLevel(logging.ERROR)  # it announces every session and socket
        training = opening.training
        self._opening = opening
        # The server makes paths and addresses of an environment's name.
        environment = re.sub(r"[^\w.-]", "-", str(training.get("visdom_env") or opening.label))
        self._client = _with_timeouts(visdom.Visdom)(
            server=str(training.get("visdom_server", "localhost")),
            port=int(training.get("visdom_port", 8097)),
            env=environment,
            raise_exceptions=True,
            use_incoming_socket=False,
        )
        sys.stderr.write(f"visdom: {self._client.server}:{self._client.port}/env/{environment}\n")
        self._draw_all()

    def log(self, record: Record) -> None:
        """Takes one line."""
        if self._last and not self._client.win_exists("excess"):  # the server was started anew
            self._draw_all()
        if record.step > self._last:
            self._draw_lines([record.to_json()], "append")

    def picture(self, step: int, image: Image) -> None:
        """Takes a picture of predictions; the window keeps those before."""
        import numpy as np

        pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        options = {"title": "predictions", "caption": f"step {step}", "store_history": True}
        self._client.image(pixels, win="predictions", opts=options)

    def close(self) -> None:
        """Nothing is held back."""

    def _draw_all(self) -> None:
        from PIL import Image

        self._last = 0
        text = html.escape(json.dumps(self._opening.config, indent=2))
        self._client.text(f"<pre>{text}</pre>", win="config", opts={"title": "config"})
        self._draw_lines(read_lines(self._opening.run), None)
        pictures = sorted((self._opening.run / "pictures").glob("[0-9]*.png"))
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
                options["legend"] = [f"{name}/{place:02d}" for place in range(values.shape[1])]
            steps = np.array([step for step, _ in points], dtype=np.float64)
            self._client.line(Y=values, X=steps, win=name, opts=options, update=update)
        self._last = max([self._last, *(line["step"] for line in lines)])


def _with_timeouts(client: Any) -> Any:
    """The package's client with an end to its patience, in the one place that it offers for that."""

    class Impatient(client):  # type: ignore[misc]
        def _handle_post(self, url: str, data: Any = None) -> str:
            response = self.session.post(url, data={} if data is None else data, timeout=TIMEOUT)
            response.raise_for_status()
            return str(response.text)

    return Impatient
