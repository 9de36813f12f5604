"""Decorators that compile the ray caster with numba, and its on-disk cache.

numba's cache checks only the file of the cached function, so a change in `shapes.py` would leave stale machine code
in its callers. Here only the entry point is cached, and `SOURCES`, a checksum of all the sources, is part of its key.
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
    """Compile a function on its first call, for use inside the entry point and in tests."""
    # No fastmath: it may reorder sums, and the same seed must give the same bytes.
    return cast("Function", njit(nogil=True, error_model="numpy")(function))


def compiled_entry(function: Function) -> Function:
    """Compile a function like `compiled`, and cache the machine code on disk for later processes.

    `SOURCES` must be in the closure of a function that calls compiled ones. If neither the folder of the
    sources, nor the user's cache, nor `$NUMBA_CACHE_DIR` is writable, every process compiles.
    """
    try:
        return cast("Function", njit(nogil=True, error_model="numpy", cache=True)(function))
    except RuntimeError:  # numba cannot find a writable folder
        return compiled(function)


class _CompileListener(event.Listener):
    """Listener that runs a callback once, when compilation starts."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def on_start(self, event: Any) -> None:  # noqa: ARG002  numba's interface
        if self._callback is not None:
            self._callback()
        self._callback = None

    def on_end(self, event: Any) -> None:
        """Ignore the end of the compilation."""


def on_compile(callback: Callable[[], None]) -> AbstractContextManager[Any]:
    """Return a context in which `callback` runs once, when numba starts to compile.

    It does not run if the machine code is loaded from disk.
    """
    return cast("AbstractContextManager[Any]", event.install_listener("numba:compile", _CompileListener(callback)))
