"""Progress and messages on stderr: bars on a terminal, lines in a log. Without a usable stderr they are dropped."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

_LINE_EVERY = 30.0  # seconds between lines in a log; shorter work logs none


class _Lines(tqdm):  # type: ignore[misc]
    """Progress as whole lines, for a log."""

    last_print_t: float  # seconds since the epoch

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:  # noqa: ARG004
        """Return a function that prints a line."""
        return lambda line: message(line) if line else None

    @classmethod
    def external_write_mode(cls, *_: Any, **__: Any) -> Any:
        """Return a context for other output: lines need not be cleared."""
        return contextlib.nullcontext()

    def moveto(self, n: int) -> None:
        """Keep the cursor where it is."""

    def close(self) -> None:
        """Print the last line if there were others."""
        if not self.disable and self.last_print_t >= self.start_t + self.delay:
            if self.n > self.last_print_n:
                self.display()
            self.last_print_t = -self.delay  # otherwise tqdm would clear a bar
        super().close()


def bar(total: int | None, unit: str, label: str, **options: Any) -> Any:
    """Return a tqdm progress bar with rate and remaining time; if stderr is not a terminal, a line every 30 seconds.

    Args:
        total: number of units; None if unknown.
        unit: name of one unit.
        label: text before the bar.
        options: further options of `tqdm`.
    """
    options = {"total": total, "unit": unit, "desc": label, "file": sys.stderr, "smoothing": 0.1, **options}
    if sys.stderr is None or sys.stderr.isatty():
        return tqdm(disable=sys.stderr is None, dynamic_ncols=True, **options)
    return _Lines(ncols=0, miniters=1, mininterval=_LINE_EVERY, delay=_LINE_EVERY, **options)


def message(line: str) -> None:
    """Write a line on stderr. A closed or vanished stderr is ignored: it must not end a run."""
    if sys.stderr is not None:  # None if the process was started without one
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
