"""Progress for people: a bar on stderr where that is a terminal, silence elsewhere.

Imports nothing of the project.
"""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def bar(total: int | None, unit: str, label: str, **options: Any) -> Any:
    """A tqdm bar over `total` units with rate and time left; shown on a terminal only."""
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
