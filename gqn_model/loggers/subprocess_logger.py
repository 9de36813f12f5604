"""A logger in a separate process, so that it can neither stop a training nor make it wait.

Clients of servers wait for answers without a timeout, ask for passwords, and delay the exit until everything is sent.
Here the training queues a line and continues. Lines that the process cannot take in time are dropped, with one warning;
`log.jsonl` has every line.

The process reads lines of JSON from its standard input: `{"record": ...}`, `{"picture": ...}`, `{"end": true}`. It ends
after the last one, or when its input is closed because the training died.
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

from gqn_data.progress import message as warn
from gqn_model.loggers.record import Logger, LoggerContext, Record

if TYPE_CHECKING:
    from PIL.Image import Image

# Lines and pictures in the queue.
_QUEUE_SIZE = 100
# Seconds after which a failed logger is opened again.
RETRY_AFTER = 10.0


class SubprocessLogger:
    """Send metrics and pictures to a logger in another process.

    Args:
        name: name of the logger, for warnings.
        factory: class of the logger, as `module:class`; it is called with the context in the process.
        context: the run.
        timeout: seconds that `close` waits for the logger to send the rest.
    """

    def __init__(self, name: str, factory: str, context: LoggerContext, *, timeout: float = 10.0) -> None:
        self._name, self._timeout, self._warned = name, timeout, False
        self._warning = threading.Lock()
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue(_QUEUE_SIZE)
        message = {**dataclasses.asdict(context), "run": str(context.run.absolute()), "name": name, "factory": factory}
        # A separate session: Ctrl-C in the terminal reaches only the training.
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=2,  # stdout is for results, not for what a logger prints
            bufsize=0,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self._put(message)
        self._feeder = threading.Thread(target=self._feed, name=f"logger {name}", daemon=True)
        self._feeder.start()

    def log(self, record: Record) -> None:
        """Queue the metrics of one line, without waiting."""
        self._put({"record": dataclasses.asdict(record)})

    def picture(self, step: int, image: Image) -> None:
        """Queue a picture of predictions, without waiting."""
        self._put({"picture": step, "image": image})

    def close(self) -> None:
        """Wait until the logger has sent the rest, at most `timeout` seconds; then kill it."""
        end = time.monotonic() + self._timeout
        with contextlib.suppress(queue.Full):
            self._messages.put({"end": True}, timeout=self._timeout)
        try:
            if self._process.wait(max(0.0, end - time.monotonic())):
                self._warn("ended before the training; log.jsonl has every line")
        except subprocess.TimeoutExpired:
            self._warn(f"did not send everything within {self._timeout:g} s and was killed; log.jsonl has every line")
            # The whole group, with the processes that the logger started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        # Nothing reads the rest of the queue; empty it, so that the end marker fits.
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
            self._warn("does not keep up: some lines and pictures are missing there; log.jsonl has every line")

    def _feed(self) -> None:
        """Write the queue to the process; in a thread, because writing to a full pipe blocks."""
        stream = self._process.stdin
        assert stream is not None  # noqa: S101  for mypy; it was opened as a pipe
        broken = False
        while (message := self._messages.get()) is not None:
            if broken:
                continue  # empty the queue until the end marker, so that `close` finds space in it
            image = message.get("image")
            if image is not None:
                message["image"] = _encode(image)
            data = memoryview(json.dumps(message).encode() + b"\n")
            try:
                while data:
                    data = data[stream.write(data) :]
            except OSError:
                broken = True
                self._warn("ended before the training; log.jsonl has every line")
            if "end" in message:
                return

    def _warn(self, what: str) -> None:
        """Write a warning, only the first time."""
        with self._warning:  # called by the training's thread and by the feeder
            warned, self._warned = self._warned, True
        if not warned:
            warn(f"warning: {self._name}: {what} (training continues)")


class _Receiver:
    """The logger in its process, opened at the first message, and again some time after a failure."""

    def __init__(self, name: str, factory: str, context: LoggerContext) -> None:
        self._name, self._context = name, context
        module, _, attribute = factory.partition(":")
        self._module, self._attribute = module, attribute
        self._logger: Logger | None = None
        self._warned = False
        self._retry_at = 0.0

    def handle(self, message: dict[str, Any]) -> None:
        """Pass a message to the logger; only the first failure is a warning."""
        if time.monotonic() < self._retry_at:
            return
        try:
            if self._logger is None:
                self._logger = getattr(importlib.import_module(self._module), self._attribute)(self._context)
            if "record" in message:
                fields = message["record"]
                self._logger.log(Record(**{**fields, "kl_steps": tuple(fields["kl_steps"])}))
            elif "picture" in message:
                self._logger.picture(int(message["picture"]), _decode(message["image"]))
            elif "end" in message:
                self._logger.close()
        except Exception as error:  # noqa: BLE001  any: the training does not depend on it
            self._logger = None
            self._retry_at = time.monotonic() + RETRY_AFTER
            if not self._warned:
                reason = (str(error).splitlines() or [""])[0] or type(error).__name__
                warn(f"warning: {self._name}: {reason}; retried every {RETRY_AFTER:g} s (training continues)")
            self._warned = True


def _encode(image: Image) -> str:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def _decode(text: str) -> Image:
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(text)))
    image.load()
    return image


def _receive() -> None:
    """Run the logger with the messages on standard input."""
    # Only the training decides when the logger ends, also if both processes are signalled.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Visdom's client imports torch, hundreds of megabytes, only to recognise tensors.
    sys.modules["torch"] = None  # type: ignore[assignment]
    lines = os.fdopen(os.dup(0), "rb")
    # A client that asks a question reads the end of the file.
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    opened = json.loads(lines.readline())
    context = LoggerContext(run=Path(opened["run"]), start=opened["start"], config=opened["config"])
    receiver = _Receiver(opened["name"], opened["factory"], context)
    message: dict[str, Any] = {"begin": True}
    receiver.handle(message)
    for line in lines:
        if not line.endswith(b"\n"):
            break  # the training was killed while it wrote the line
        message = json.loads(line)
        receiver.handle(message)
        if "end" in message:
            return
    receiver.handle({"end": True})


if __name__ == "__main__":
    _receive()
