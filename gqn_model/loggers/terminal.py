"""The table of metrics on stderr."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from gqn_model.loggers.record import Record

if TYPE_CHECKING:
    from PIL.Image import Image


class _Column(NamedTuple):
    """One column of the table.

    Attributes:
        head: text above the column.
        width: characters.
        write: formats a value.
        rank: 0 for columns that are always shown; others are added in order of rank while they fit.
        elbo: a column for models with a likelihood.
    """

    head: str
    width: int
    write: Callable[[Any], str]
    rank: int = 0
    elbo: bool = False


def clock(seconds: float) -> str:
    """Format a duration: `1:05` for minutes, `2:01:05` for hours, `3d 04h` for days; `?` if it is not finite."""
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    if whole >= 2 * 86400:
        return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def _percent(value: float) -> str:
    """Format a share in percent, with a decimal below 10 %."""
    return f"{value:.1%}" if value < 0.0995 else f"{value:.0%}"


def _loss(value: float) -> str:
    """Format nats, or an error below 1."""
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.5f}"


# In the order of the table. The columns of rank 0 fit into 72 characters.
_COLUMNS = {
    "step": _Column("step", 8, str),
    "rate": _Column("steps/s", 8, "{:.2f}".format),
    "wait": _Column("wait", 5, _percent),
    "loss": _Column("loss", 9, _loss, 4),
    "excess": _Column("excess", 8, "{:.2f}".format, elbo=True),
    "kl": _Column("KL", 7, "{:.2f}".format, elbo=True),
    "mse": _Column("MSE", 8, "{:.5f}".format),
    "psnr": _Column("PSNR", 6, "{:.2f}".format),
    "prior_mean": _Column("prior", 6, "{:.2f}".format),
    "prior_sample": _Column("sample", 6, "{:.2f}".format, 1, elbo=True),
    "sigma": _Column("sigma", 6, "{:.3f}".format, 2, elbo=True),
    "learning_rate": _Column("lr", 8, "{:.2g}".format, 3),
    "left": _Column("left", 8, clock),
}
# Covered by other columns: `steps` by the time left, the KL per step by the sum.
_HIDDEN = ("steps", "kl_steps")
_OTHER_RANK = 5


class Terminal:
    """Print a table that fits the terminal, with the head every 20 lines.

    Args:
        stream: stream to write to; None for stderr.
        width: characters per line; None for the terminal's width, unlimited if the stream is not a terminal.
    """

    _HEAD_EVERY = 20

    def __init__(self, stream: TextIO | None = None, width: int | None = None) -> None:
        self._stream: TextIO | None = stream or sys.stderr  # None in a process without stderr
        self._width = width
        self._shown: dict[str, _Column] = {}
        self._lines = 0

    def log(self, record: Record) -> None:
        """Print the metrics of one line. A stream whose reader has gone is not written again."""
        if self._stream is None:
            return
        try:
            self._print(record, self._stream)
        except (OSError, ValueError):
            self._stream = None

    def _print(self, record: Record, stream: TextIO) -> None:
        shown = self._fitting(record)
        if self._lines % self._HEAD_EVERY == 0 or shown.keys() != self._shown.keys():
            self._shown, self._lines = shown, 0
            print(" ".join(f"{column.head:>{column.width}}" for column in shown.values()), file=stream)
        self._lines += 1
        cells = (_cell(column, getattr(record, name)) for name, column in shown.items())
        print(" ".join(cells), file=stream, flush=True)

    def picture(self, step: int, image: Image) -> None:
        """Ignore the picture: a terminal cannot show it."""

    def close(self) -> None:
        """Do nothing: every line is flushed."""

    def _fitting(self, record: Record) -> dict[str, _Column]:
        columns = {name: column for name, column in _COLUMNS.items() if record.kl is not None or not column.elbo}
        for one in fields(record):
            # A field that is measured only sometimes keeps its column until the next head.
            measured = getattr(record, one.name) is not None or one.name in self._shown
            if one.name not in columns and one.name not in _HIDDEN and measured:
                columns[one.name] = _Column(one.name, max(len(one.name), 9), "{:.4g}".format, _OTHER_RANK)
        columns["left"] = columns.pop("left")
        width = self._width
        if width is None and self._stream is not None and self._stream.isatty():
            width = shutil.get_terminal_size().columns
        if width is None:
            return columns
        space = width - sum(column.width + 1 for column in columns.values() if not column.rank) + 1
        chosen = {name for name, column in columns.items() if not column.rank}
        for name, column in sorted(columns.items(), key=lambda item: item[1].rank):
            if column.rank:
                space -= column.width + 1
                if space < 0:
                    break
                chosen.add(name)
        return {name: column for name, column in columns.items() if name in chosen}


def _cell(column: _Column, value: Any) -> str:
    text = "" if value is None else column.write(value)
    if len(text) > column.width and isinstance(value, float):  # a huge value must not shift the other columns
        text = f"{value:.{max(1, column.width - 6)}g}"
    return f"{text:>{column.width}}"
