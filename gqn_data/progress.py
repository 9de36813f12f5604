"""Progress bars on stderr."""

from __future__ import annotations

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
        disable=not sys.stderr.isatty(),
        dynamic_ncols=True,
        smoothing=0.1,
        **options,
    )
