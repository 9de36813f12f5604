"""`log.jsonl` in the run's folder: every metric of every line."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gqn_data.errors import NoSpace
from gqn_data.io import atomic, regular
from gqn_model.loggers.record import Record

if TYPE_CHECKING:
    from PIL.Image import Image

LOG_FILE = "log.jsonl"


class JsonLines:
    """Write one line of JSON per record.

    Args:
        run: the run's folder.
        start: step at which the training starts or resumes; lines of later steps, which are repeated, are removed.
    """

    def __init__(self, run: Path, start: int) -> None:
        path = run / LOG_FILE
        if path.exists():
            with regular.open_read(path) as file:
                lines = file.read().splitlines(keepends=True)
            with atomic.writing(path) as file:
                file.writelines(line for line in lines if _step_of(line) <= start)
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
                sys.stderr.write(f"warning: {error} (training continues)\n")
            self._warned = True


def read_lines(run: Path) -> list[dict[str, Any]]:
    """Read the lines of a run's log, oldest first; skip damaged lines, such as one cut short by a kill."""
    path = run / LOG_FILE
    if not path.exists():
        return []
    with regular.open_read(path) as file:
        lines = file.read().splitlines(keepends=True)
    return [json.loads(line) for line in lines if _step_of(line) < float("inf")]


def _step_of(line: bytes) -> float:
    """Return the step of a line; infinity if the line is damaged."""
    if not line.endswith(b"\n"):
        return float("inf")
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
