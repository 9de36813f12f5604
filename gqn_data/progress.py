"""Progress bars and messages on stderr. Without a usable stderr they are dropped, and the work continues."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from tqdm import tqdm


def bar(total: int | None, unit: str, label: str, **options: Any) -> Any:
    """Return a tqdm progress bar with rate and remaining time. It is shown only if stderr is a terminal.

    Args:
        total: number of units; None if unknown.
        unit: name of one unit.
        label: text before the bar.
        options: further options of `tqdm`.
    """
    return tqdm(
        total=total,
        unit=unit,
        desc=label,
        file=sys.stderr,
        disable=sys.stderr is None or not sys.stderr.isatty(),
        dynamic_ncols=True,
        smoothing=0.1,
        **options,
    )


def message(line: str) -> None:
    """Write a line on stderr. A closed or vanished stderr is ignored: it must not end a run."""
    if sys.stderr is not None:  # None if the process was started without one
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
