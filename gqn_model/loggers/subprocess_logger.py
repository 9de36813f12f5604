"""A logger in a process of its own, so that nothing it does or meets can stop a training or make it wait.

Clients of servers wait for answers that never come, ask for passwords, hold back the end of a program until all is
sent. Here they may: the training hands a line over and goes on. What cannot be handed over in time is left out, which
is told once; `log.jsonl` has every line.

The process reads lines of JSON from its standard input, `{"record": ...}`, `{"picture": ...}`, `{"end": true}`, and
ends with them, or with whoever wrote them.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import importlib
import io
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gqn_model.loggers.record import Logger, LoggerContext, Record

if TYPE_CHECKING:
    from PIL.Image import Image

# Lines and pictures that may wait to be handed over.
_WAITING = 100
# Seconds for which a logger that failed is left alone before it is opened anew.
PAUSE = 10.0


class SubprocessLogger:
    """Hands figures and pictures over to a logger in another process.

    Args:
        name: the logger's, for messages.
        maker: `module:class`, imported there; called with the opening.
        opening: what it is opened with.
        patience: seconds that the end of the training waits for what is held back there.
    """

    def __init__(self, name: str, maker: str, opening: LoggerContext, *, patience: float = 10.0) -> None:
        self._name, self._patience, self._told = name, patience, False
        self._telling = threading.Lock()
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue(_WAITING)
        message = {**dataclasses.asdict(opening), "run": str(opening.run.absolute()), "name": name, "maker": maker}
        # A session of its own: Ctrl-C and the terminal are the training's.
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=2,  # results go to stdout, and what a logger says is none
            bufsize=0,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self._put(message)
        self._feeder = threading.Thread(target=self._feed, name=f"logger {name}", daemon=True)
        self._feeder.start()

    def log(self, record: Record) -> None:
        """Takes one line; never waits."""
        self._put({"record": dataclasses.asdict(record)})

    def picture(self, step: int, image: Image) -> None:
        """Takes a picture of predictions; never waits."""
        self._put({"picture": step, "image": image})

    def close(self) -> None:
        """Gives the logger some time to send what it holds back, then ends it."""
        end = time.monotonic() + self._patience
        with contextlib.suppress(queue.Full):
            self._messages.put({"end": True}, timeout=self._patience)
        try:
            if self._process.wait(max(0.0, end - time.monotonic())):
                self._tell("ended before the training; log.jsonl has every line")
        except subprocess.TimeoutExpired:
            self._tell(f"did not take everything within {self._patience:g} s and was ended; log.jsonl has every line")
            # With whatever it has started itself.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        # What waits is waited for by nobody now; the last word must find room.
        with contextlib.suppress(queue.Empty):
            while True:
                self._messages.get_nowait()
        self._messages.put(None)
        self._feeder.join()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _put(self, message: dict[str, Any]) -> None:
        try:
            self._messages.put_nowait(message)
        except queue.Full:
            self._tell("does not keep up: lines and pictures are left out there; log.jsonl has every line")

    def _feed(self) -> None:
        """Writes what waits to the process; in a thread, for a full pipe waits."""
        stream = self._process.stdin
        assert stream is not None  # noqa: S101  for mypy; it was opened as a pipe
        broken = False
        while (message := self._messages.get()) is not None:
            if broken:
                continue  # until the last word, so that nobody waits for room
            image = message.get("image")
            if image is not None:
                message["image"] = _to_text(image)
            data = memoryview(json.dumps(message).encode() + b"\n")
            try:
                while data:
                    data = data[stream.write(data) :]
            except OSError:
                broken = True
                self._tell("ended before the training; log.jsonl has every line")
            if "end" in message:
                return

    def _tell(self, what: str) -> None:
        with self._telling:  # the training's thread and the one that feeds may both have something to say
            told, self._told = self._told, True
        if not told:
            sys.stderr.write(f"warning: {self._name}: {what} (training goes on)\n")


class _Receiver:
    """The logger in its process: opened when the first message comes, opened anew some time after it failed."""

    def __init__(self, name: str, maker: str, opening: LoggerContext) -> None:
        self._name, self._opening = name, opening
        module, _, attribute = maker.partition(":")
        self._module, self._attribute = module, attribute
        self._logger: Logger | None = None
        self._told = False
        self._rests_until = 0.0

    def take(self, message: dict[str, Any]) -> None:
        """Hands a message to the logger; a failure is told once."""
        if time.monotonic() < self._rests_until:
            return
        try:
            if self._logger is None:
                self._logger = getattr(importlib.import_module(self._module), self._attribute)(self._opening)
            if "record" in message:
                fields = message["record"]
                self._logger.log(Record(**{**fields, "kl_steps": tuple(fields["kl_steps"])}))
            elif "picture" in message:
                self._logger.picture(int(message["picture"]), _to_image(message["image"]))
            elif "end" in message:
                self._logger.close()
        except Exception as error:  # noqa: BLE001  of whatever kind: it is not the training's
            self._logger = None
            self._rests_until = time.monotonic() + PAUSE
            if not self._told:
                reason = (str(error).splitlines() or [""])[0] or type(error).__name__
                sys.stderr.write(f"warning: {self._name}: {reason} (training goes on; tried again now and then)\n")
                sys.stderr.flush()
            self._told = True


def _to_text(image: Image) -> str:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def _to_image(text: str) -> Image:
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(text)))
    image.load()
    return image


def _receive() -> None:
    # The training decides when it is over, whoever else is told to end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Visdom's client would import it, hundreds of megabytes, to know a tensor if it saw one.
    sys.modules["torch"] = None  # type: ignore[assignment]
    lines = os.fdopen(os.dup(0), "rb")
    # Nobody is there to answer a question.
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    opened = json.loads(lines.readline())
    opening = LoggerContext(run=Path(opened["run"]), start=opened["start"], config=opened["config"])
    receiver = _Receiver(opened["name"], opened["maker"], opening)
    message: dict[str, Any] = {"begin": True}
    receiver.take(message)
    for line in lines:
        if not line.endswith(b"\n"):
            break  # the training was killed in the middle of a line
        message = json.loads(line)
        receiver.take(message)
        if "end" in message:
            return
    receiver.take({"end": True})


if __name__ == "__main__":
    _receive()
