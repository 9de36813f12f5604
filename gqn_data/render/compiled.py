"""How the ray caster is compiled: numba, no fast maths, and a cache that notices every change of its sources.

numba's own cache looks at the file of the cached function alone, so a change in `shapes.py` would leave the old
machine code of its caller in use. Here only the entry point is cached, and `SOURCES` is part of its key.
Imports numba alone.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

_FILES = ("compiled.py", "shapes.py", "surfaces.py", "raycast.py", "maze_cast.py")
SOURCES = zlib.crc32(b"".join((Path(__file__).parent / name).read_bytes() for name in _FILES))


def compiled(function: Function) -> Function:
    """The function, compiled when first called, for use inside the entry point (and by tests)."""
    # No fastmath: it may reorder sums, and the same seed is to give the same bytes.
    return cast("Function", njit(nogil=True, error_model="numpy")(function))


def compiled_entry(function: Function) -> Function:
    """The same, kept on the disk for the next process; the function must have `SOURCES` in its closure."""
    return cast("Function", njit(nogil=True, error_model="numpy", cache=True)(function))


def is_cached(entry: Any) -> bool:
    """Whether an entry point needs no compiling any more, as far as file times tell."""
    newest = max((Path(__file__).parent / name).stat().st_mtime for name in _FILES)
    return any(path.stat().st_mtime >= newest for path in _indexes(entry))


def note_cached(entry: Any) -> None:
    """Makes `is_cached` say yes from now on: sources that were only touched are newer than good machine code."""
    for path in _indexes(entry):
        with contextlib.suppress(OSError):
            path.touch()


def _indexes(entry: Any) -> list[Path]:
    return list(Path(entry.stats.cache_path).glob(f"*{entry.__name__}*.nbi"))
