"""Memory for batches that workers write and the consumer reads: no copy, no pipe, and used again and again.

A page of new memory costs more than decoding into an old one, so a few blocks go round. The memory has no name: nothing
in `/dev/shm` can outlive a run, and its size limit (64 MB in containers) does not count. numpy only.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections import deque
from multiprocessing import reduction
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAME = "gqn-batches"  # in /proc/PID/maps, and nowhere else
_PAGE = 4096


class _Lent(weakref.ref[NDArray[np.uint8]]):
    """A block that the consumer holds an array on."""

    __slots__ = ("number",)
    number: int


class Ring:
    """Blocks of memory shared with worker processes, forked or spawned.

    The consumer takes a block for each task under way, and hands it out when a worker has filled it. What was handed
    out comes back by itself when the last array on it is gone. Who holds on to more than `spare` of them gets
    copies, so that there is always a block for the next task.

    Args:
        under_way: the most blocks that are taken and not yet handed out.
        spare: blocks beside those, for what the consumer holds.
        size: bytes of each block.
    """

    def __init__(self, *, under_way: int, spare: int, size: int) -> None:
        self._spare = spare
        self._count = under_way + spare
        self._stride = -(-size // _PAGE) * _PAGE
        self._number = _nameless(self._count * self._stride)
        weakref.finalize(self, os.close, self._number)
        self._map()
        self._free: deque[int] = deque(range(self._count))
        self._lent: dict[int, _Lent] = {}
        self._back: deque[Any] = deque()  # of those lent, what nobody holds any more
        self._taken = 0

    def _map(self) -> None:
        size = self._count * self._stride
        # Arrays on it keep the mapping alive, and the mapping the memory.
        self._blocks = np.frombuffer(mmap.mmap(self._number, size), np.uint8).reshape(self._count, self._stride)

    def __getstate__(self) -> dict[str, Any]:
        # For a worker that is being spawned: it gets the memory, and no say in who holds which block.
        memory = reduction.DupFd(self._number)
        return {"_count": self._count, "_stride": self._stride, "memory": memory}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._number = state.pop("memory").detach()
        self.__dict__.update(state)
        self._map()
        os.close(self._number)

    def block(self, number: int) -> NDArray[np.uint8]:
        """A block, for whoever has been told its number."""
        block: NDArray[np.uint8] = self._blocks[number]
        return block

    def take(self) -> int:
        """The number of a free block: the one that came back last, which the caches may still hold."""
        self._collect()
        self._taken += 1
        return self._free.pop()

    def hand_out(self, number: int) -> NDArray[np.uint8]:
        """A block that was taken, as an array; or a copy of it, where too many are held."""
        self._collect()
        self._taken -= 1
        array = self.block(number)
        if self._count - len(self._free) - self._taken > self._spare:
            array = array.copy()
            self._free.append(number)
        else:
            # No Python code may run where an array ends: a Ctrl-C that comes in the middle of such code is printed and
            # forgotten. So the deque's own method is called, and takes the reference.
            self._lent[number] = lent = _Lent(array, self._back.append)
            lent.number = number
        return array

    def _collect(self) -> None:
        """Frees the blocks that came back."""
        while self._back:
            number = self._back.popleft().number
            del self._lent[number]
            self._free.append(number)


def _nameless(size: int) -> int:
    """The descriptor of a file in memory that no path leads to; it is gone with its last user."""
    if hasattr(os, "memfd_create"):
        number = os.memfd_create(NAME)
    else:
        with tempfile.TemporaryFile() as file:
            number = os.dup(file.fileno())
    os.ftruncate(number, size)
    return number
