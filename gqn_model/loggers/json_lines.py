"""`log.jsonl` in the run's folder: every metric of every line."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gqn_data.errors import NoSpace
from gqn_data.io import atomic, regular
from gqn_data.progress import message
from gqn_model.loggers.record import Record

if TYPE_CHECKING:
    from PIL.Image import Image

LOG_FILE = "log.jsonl"

_MOST_BYTES = 1 << 20  # of a line; one of a thousand generation steps has 25 kB


class JsonLines:
    """Write one line of JSON per record.

    Args:
        run: the run's folder.
        start: step at which the training starts or resumes; lines of later steps, which are repeated, are removed.
    """

    def __init__(self, run: Path, start: int) -> None:
        path = run / LOG_FILE
        if path.exists():
            with atomic.writing(path) as file:
                file.writelines(line.text for line in log_lines(path) if line.values["step"] <= start)
        self._path = path
        self._file = io.TextIOWrapper(regular.open_append(path), encoding="utf-8")
        self._warned = False

    def log(self, record: Record) -> None:
        """Write one line. On a full disk it stays buffered, and is written first once there is space."""
        with self._warn_if_full():
            print(json.dumps(record.to_json()), file=self._file, flush=True)

    def picture(self, step: int, image: Image) -> None:
        """Ignore the picture: the trainer writes it into the run's folder."""

    def close(self) -> None:
        """Close the file."""
        with self._warn_if_full():
            self._file.close()

    @contextlib.contextmanager
    def _warn_if_full(self) -> Iterator[None]:
        try:
            with atomic.report_full_disk(self._path):
                yield
        except NoSpace as error:
            if not self._warned:  # and continue: hours of training must not end because of a log line
                message(f"warning: {error} (training continues)")
            self._warned = True


class LogLine(NamedTuple):
    """One line of a log.

    Attributes:
        text: the line with its end.
        values: what it says; `step` is a finite number.
    """

    text: bytes
    values: dict[str, Any]


def read_lines(run: Path) -> list[dict[str, Any]]:
    """Read the lines of a run's log, oldest first, without damaged ones."""
    path = run / LOG_FILE
    return [line.values for line in log_lines(path)] if path.exists() else []


def log_lines(path: Path) -> Iterator[LogLine]:
    """Yield the lines of a log, oldest first, without damaged ones, such as one cut short by a kill.

    A line that is too long ends the log: a crash may leave zeros, and a file of zeros may be larger than any memory.

    Raises:
        IrregularFile: the path is not a regular file, whose reading might never end.
    """
    with regular.open_read(path) as file:
        while (text := file.readline(_MOST_BYTES)).endswith(b"\n"):
            with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
                values = json.loads(text)
                if math.isfinite(values["step"]):
                    yield LogLine(text, values)
