"""Memory shared with worker processes: an array, and a ring of blocks that batches are decoded into.

Blocks are reused: touching a page of new memory costs more than decoding into an old one. The memory is anonymous, so
nothing in `/dev/shm` can outlive a run, and the size limit there (64 MB in containers) does not apply. numpy only.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections import deque
from multiprocessing import reduction
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

NAME = "gqn-batches"  # shown in /proc/PID/maps only
_PAGE = 4096


class SharedArray:
    """An array in anonymous memory, shared with forked or spawned processes; zeros at first.

    Args:
        shape: shape of the array, not empty.
        dtype: type of its elements.

    Attributes:
        array: the array. It keeps the memory alive, also after this object is gone.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._size = math.prod(shape) * self._dtype.itemsize
        self._descriptor = _anonymous_file(self._size)
        weakref.finalize(self, os.close, self._descriptor)
        self._map()

    def _map(self) -> None:
        memory = mmap.mmap(self._descriptor, self._size)
        self.array: NDArray[Any] = np.frombuffer(memory, self._dtype).reshape(self._shape)

    def __getstate__(self) -> dict[str, Any]:
        duplicate = reduction.DupFd(self._descriptor)
        return {"_shape": self._shape, "_dtype": self._dtype, "_size": self._size, "_descriptor": duplicate}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _descriptor=state["_descriptor"].detach())
        self._map()
        os.close(self._descriptor)


class _Lease(weakref.ref[NDArray[np.uint8]]):
    """A reference to the array that the consumer holds on a block."""

    __slots__ = ("number",)
    number: int


class Ring:
    """Blocks of memory shared with worker processes, forked or spawned.

    The consumer takes a block per task and hands it out once a worker has filled it. A block that was handed out is
    free again when the last array on it is gone. A consumer that holds more than `spare` of them gets copies, so that
    a block is always free for the next task.

    Args:
        under_way: maximum number of blocks taken and not yet handed out.
        spare: further blocks, for arrays that the consumer holds.
        size: bytes per block.
    """

    def __init__(self, *, under_way: int, spare: int, size: int) -> None:
        self._spare = spare
        self._count = under_way + spare
        stride = -(-size // _PAGE) * _PAGE
        self._memory = SharedArray((self._count, stride), np.uint8)
        self._free: deque[int] = deque(range(self._count))
        self._leases: dict[int, _Lease] = {}
        self._returned: deque[Any] = deque()  # leases whose arrays are gone
        self._taken = 0

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker gets the memory only; the consumer decides which block is free.
        return {"_memory": self._memory}

    def block(self, number: int) -> NDArray[np.uint8]:
        """Return a block by its number."""
        block: NDArray[np.uint8] = self._memory.array[number]
        return block

    def take(self) -> int:
        """Take a free block and return its number; the one returned last may still be in the CPU's caches."""
        self._collect()
        self._taken += 1
        return self._free.pop()

    def hand_out(self, number: int) -> NDArray[np.uint8]:
        """Return a taken block as an array, or as a copy if the consumer holds `spare` blocks already."""
        self._collect()
        self._taken -= 1
        array = self.block(number)
        if self._count - len(self._free) - self._taken > self._spare:
            array = array.copy()
            self._free.append(number)
        else:
            # The callback must not be Python code: a Ctrl-C that arrives in it would be printed and ignored. The
            # deque's own method takes the reference instead.
            self._leases[number] = lease = _Lease(array, self._returned.append)
            lease.number = number
        return array

    def _collect(self) -> None:
        """Free the blocks whose arrays are gone."""
        while self._returned:
            number = self._returned.popleft().number
            del self._leases[number]
            self._free.append(number)


def _anonymous_file(size: int) -> int:
    """Open a file in memory without a path and return its descriptor; it vanishes with its last user."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(NAME)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor
