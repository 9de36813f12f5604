"""How the ray caster is compiled: numba, no fast maths, and a cache that notices every change of its sources.

numba's own cache looks at the file of the cached function alone, so a change in `shapes.py` would leave the old
machine code of its caller in use. Here only the entry point is cached, and `SOURCES` is part of its key.
Imports numba alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit
from numba.core import event

Function = TypeVar("Function", bound=Callable[..., Any])

_FILES = ("compiled.py", "shapes.py", "surfaces.py", "raycast.py", "maze_cast.py")
SOURCES = zlib.crc32(b"".join((Path(__file__).parent / name).read_bytes() for name in _FILES))


def compiled(function: Function) -> Function:
    """The function, compiled when first called, for use inside the entry point (and by tests)."""
    # No fastmath: it may reorder sums, and the same seed is to give the same bytes.
    return cast("Function", njit(nogil=True, error_model="numpy")(function))


def compiled_entry(function: Function) -> Function:
    """The same, kept on the disk for the next process; the function must have `SOURCES` in its closure.

    Where no folder can be written to, neither beside the sources nor the user's own nor `$NUMBA_CACHE_DIR`, nothing
    is kept, and every process compiles.
    """
    try:
        return cast("Function", njit(nogil=True, error_model="numpy", cache=True)(function))
    except RuntimeError:  # numba's word for no such folder
        return compiled(function)


class _Teller(event.Listener):
    """Calls a function when compiling begins, once."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell: Callable[[], None] | None = tell

    def on_start(self, event: Any) -> None:  # noqa: ARG002  numba's interface
        if self._tell is not None:
            self._tell()
        self._tell = None

    def on_end(self, event: Any) -> None:
        """Nothing is said at the end."""


def telling(tell: Callable[[], None]) -> AbstractContextManager[Any]:
    """In the block, `tell` is called when numba begins to compile; not where the machine code is on the disk."""
    return cast("AbstractContextManager[Any]", event.install_listener("numba:compile", _Teller(tell)))
