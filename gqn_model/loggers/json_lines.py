"""`log.jsonl` in the run's folder: every figure of every line, whatever other loggers there are."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gqn_data.errors import NoSpace
from gqn_data.io import atomic
from gqn_model.loggers.record import Record

if TYPE_CHECKING:
    from PIL.Image import Image

LOG_FILE = "log.jsonl"


class JsonLines:
    """A line a record; pictures are files beside it.

    Args:
        run: the run's folder.
        start: step from which the training goes on; later lines are of steps that are done again, and go.
    """

    def __init__(self, run: Path, start: int) -> None:
        path = run / LOG_FILE
        if path.exists():
            lines = path.read_bytes().splitlines(keepends=True)
            with atomic.writing(path) as file:
                file.writelines(line for line in lines if _step_of(line) <= start)
        self._path = path
        self._file = path.open("a", encoding="utf-8")
        self._told = False

    def log(self, record: Record) -> None:
        """Takes one line; where the disk is full it waits for room, and goes first when there is some."""
        with self._unless_full():
            print(json.dumps(record.to_json()), file=self._file, flush=True)

    def picture(self, step: int, image: Image) -> None:
        """Nothing: the picture is a file of the run already."""

    def close(self) -> None:
        """Closes the file."""
        with self._unless_full():
            self._file.close()

    @contextlib.contextmanager
    def _unless_full(self) -> Iterator[None]:
        try:
            with atomic.report_full_disk(self._path):
                yield
        except NoSpace as error:
            if not self._told:  # once: hours of training are not to be lost to a line of a log
                sys.stderr.write(f"warning: {error} (training goes on)\n")
            self._told = True


def read_lines(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, oldest first; what is no line of figures, as the last one after a kill, is left out."""
    path = run / LOG_FILE
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if _step_of(line) < float("inf")]


def _step_of(line: bytes) -> float:
    """The step of a line; infinity where it was cut short by a kill."""
    if not line.endswith(b"\n"):
        return float("inf")
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
