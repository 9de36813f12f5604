"""Ranged reads from any number of files, with a bounded number of open file descriptors.

A read has an offset and a length, so the same plan works for local files and object stores. Local files are read
with `pread`. It does not share a position, so threads and forked workers may read concurrently. It does not map the
file, so memory stays flat, and a truncated file raises an error instead of a signal. Only pixels are memory-mapped,
because copying them twice is too slow.
"""

from __future__ import annotations

import io
import mmap
import os
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import ShardChecksumError
from gqn_data.io import regular
from gqn_data.io.paths import AnyPath, StorePath

_MAX_OPEN_FILES = 256  # a process may commonly open 1024
_GAP = 32 << 10  # fetching this many unused bytes between two extents costs about as much as another request


class OpenFile(Protocol):
    """Open file for ranged reads."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`."""

    def read_into(self, offset: int, out: NDArray[np.uint8]) -> int:
        """Read bytes from `offset` into `out`, and return their number."""

    def read_many(self, extents: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of each extent (offset, length), or fewer at the end of the file."""


class _Handle:
    """Open local file. It is closed when the last reference is deleted."""

    def __init__(self, path: Path) -> None:
        self.number = regular.descriptor(path)
        self.size = os.fstat(self.number).st_size
        self._mapped: NDArray[np.uint8] | None = None

    def mapped(self) -> NDArray[np.uint8] | None:
        """Return all bytes, memory-mapped; None if the file was truncated after it was opened.

        Reading a truncated part of a mapping would kill the process.
        """
        if os.fstat(self.number).st_size < self.size:
            return None
        if self._mapped is None:
            self._mapped = np.frombuffer(mmap.mmap(self.number, self.size, access=mmap.ACCESS_READ), np.uint8)
        return self._mapped

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self.number, length, offset)

    def read_into(self, offset: int, out: NDArray[np.uint8]) -> int:
        return os.preadv(self.number, [out.data], offset)

    def read_many(self, extents: Sequence[tuple[int, int]]) -> list[bytes]:
        return [self.read(offset, length) for offset, length in extents]

    def __del__(self) -> None:
        number = getattr(self, "number", None)
        if number is not None:
            os.close(number)


class _Object:
    """Object in a store."""

    def __init__(self, path: StorePath) -> None:
        self._path = path
        self.size = path.stat().st_size

    def read(self, offset: int, length: int) -> bytes:
        return self._path.read_range(offset, length)

    def read_into(self, offset: int, out: NDArray[np.uint8]) -> int:
        data = self._path.read_range(offset, out.nbytes)
        out.reshape(-1)[: len(data)] = np.frombuffer(data, np.uint8)
        return len(data)

    def read_many(self, extents: Sequence[tuple[int, int]]) -> list[bytes]:
        wanted = [extent for extent in extents if extent[1]]  # stores reject empty ranges
        parts = iter(self._path.read_ranges(wanted, gap=_GAP) if wanted else ())
        return [next(parts) if length else b"" for _, length in extents]


def open_file(path: AnyPath) -> OpenFile:
    """Open a file for ranged reads.

    Raises:
        FileNotFoundError: the file does not exist.
        IrregularFile: it is not a regular file.
    """
    return _Handle(path) if isinstance(path, Path) else _Object(path)


# Open files, oldest first. Weak references, so that the files of a deleted dataset are closed.
_open_files: deque[weakref.ref[RangedFile]] = deque()
_lock = threading.Lock()


def _after_fork() -> None:
    global _lock  # noqa: PLW0603  another thread may have held the lock at the fork, and would never release it
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class RangedFile:
    """File for ranged reads, local or in an object store. It is opened by the first read.

    Args:
        path: file to read.
        size: expected size in bytes, from the manifest; None for any size.

    Raises:
        ShardChecksumError: the file is missing or has another size. Raised by the first read.
    """

    def __init__(self, path: AnyPath, size: int | None = None) -> None:
        self.path = path
        self._expected = size
        self._handle: OpenFile | None = None
        self._closed = 0  # times that `_close` was called

    def __reduce__(self) -> tuple[type[RangedFile], tuple[AnyPath, int | None]]:
        return type(self), (self.path, self._expected)

    @property
    def is_remote(self) -> bool:
        """Whether each read is a request to a store, so that reads should be batched."""
        return not isinstance(self.path, Path)

    def reopened(self) -> bool:
        """Return whether a damaged local copy was replaced by a new one. Overridden by cached files."""
        return False

    def _opened(self) -> OpenFile:
        return open_file(self.path)

    def _close(self) -> None:
        """Make the next read reopen the file, also in threads that are opening it now."""
        with _lock:
            self._closed += 1
            self._handle = None

    def _open(self) -> OpenFile:
        closed = self._closed
        try:
            handle = self._opened()  # outside the lock: it may have to download the file
        except FileNotFoundError as error:
            raise ShardChecksumError(
                f"{self.path}: listed in the manifest and absent. Convert or copy the dataset again"
            ) from error
        if self._expected is not None and handle.size != self._expected:
            raise ShardChecksumError(
                f"{self.path}: {handle.size} bytes, the manifest says {self._expected}. Convert, index or copy it again"
            )
        with _lock:
            if self._handle is None and self._closed == closed:  # another thread neither opened nor closed it
                self._handle = handle
                if isinstance(handle, _Handle):
                    _open_files.append(weakref.ref(self))
                while len(_open_files) > _MAX_OPEN_FILES:
                    oldest = _open_files.popleft()()
                    if oldest is not None:
                        oldest._handle = None  # a thread that is reading from it keeps it open
        return handle

    @property
    def size(self) -> int:
        """Size in bytes."""
        return (self._handle or self._open()).size

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`.

        Raises:
            ShardChecksumError: the file ends before.
        """
        handle = self._handle or self._open()
        if offset + length > handle.size:
            raise self._outside(offset, length, handle.size)
        data = handle.read(offset, length)
        while len(data) < length:  # a system call may return less than requested, and at most 2 GiB
            more = handle.read(offset + len(data), length - len(data))
            if not more:
                raise self._outside(offset, length, offset + len(data))
            data += more
        return data

    def read_many(self, extents: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of each extent (offset, length). Extents in a store are fetched concurrently.

        Raises:
            ShardChecksumError: the file ends before.
        """
        handle = self._handle or self._open()
        for offset, length in extents:
            if offset + length > handle.size:
                raise self._outside(offset, length, handle.size)
        parts = handle.read_many(extents)
        for (offset, length), part in zip(extents, parts, strict=True):
            if len(part) != length:
                raise self._outside(offset, length, offset + len(part))
        return parts

    def read_into(self, offset: int, out: NDArray[np.uint8]) -> None:
        """Fill the contiguous array `out` with the bytes from `offset`.

        Raises:
            ShardChecksumError: the file ends before.
        """
        handle = self._handle or self._open()
        length = out.nbytes
        if offset + length > handle.size:
            raise self._outside(offset, length, handle.size)
        done = handle.read_into(offset, out)
        if done < length:
            out.reshape(-1)[done:] = np.frombuffer(self.read(offset + done, length - done), np.uint8)

    def mapped(self, offset: int, length: int) -> NDArray[np.uint8]:
        """Return `length` bytes from `offset` of a local file, memory-mapped: uint8 (length,), read-only.

        Raises:
            ShardChecksumError: the file ends before, or was truncated after it was opened.
        """
        handle = self._handle or self._open()
        assert isinstance(handle, _Handle)  # noqa: S101  objects in a store cannot be mapped
        data = handle.mapped() if offset + length <= handle.size else None
        if data is None:
            raise self._outside(offset, length, os.fstat(handle.number).st_size)
        return data[offset : offset + length]

    def _outside(self, offset: int, length: int, size: int) -> ShardChecksumError:
        return ShardChecksumError(
            f"{self.path}: {length} bytes at {offset} were asked for, the file has {size}. "
            "It is cut short, or its index belongs to another file. Run gqn-data verify on the dataset"
        )


class Rows:
    """Array in a file, read by rows.

    Args:
        file: file that contains the rows.
        start: offset of the first row in bytes.
        dtype: type of the elements.
        shape: shape of one row.
        count: number of rows.
    """

    def __init__(self, file: RangedFile, start: int, dtype: np.dtype[Any], shape: tuple[int, ...], count: int) -> None:
        self.file = file
        self.start = start
        self.dtype = dtype
        self.shape = shape
        self.count = count
        self.row_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))

    def __getitem__(self, row: int) -> NDArray[Any]:
        """Return one row, read-only."""
        return np.frombuffer(self.bytes_of(row), self.dtype).reshape(self.shape)

    def bytes_of(self, row: int) -> bytes:
        """Return the bytes of one row."""
        return self.file.read(self.start + row * self.row_bytes, self.row_bytes)

    def mapped(self) -> NDArray[Any]:
        """Return all rows of a local file, memory-mapped: (count, *shape), read-only."""
        data = self.file.mapped(self.start, self.count * self.row_bytes)
        return data.view(self.dtype).reshape(self.count, *self.shape)

    def slice(self, first: int, count: int) -> NDArray[Any]:
        """Return `count` rows from `first`: (count, *shape), read-only."""
        data = self.file.read(self.start + first * self.row_bytes, count * self.row_bytes)
        return np.frombuffer(data, self.dtype).reshape(count, *self.shape)

    def all(self) -> NDArray[Any]:
        """Return all rows: (count, *shape), read-only."""
        return self.slice(0, self.count)


def npy_rows(file: RangedFile, dtype: np.dtype[Any], shape: tuple[int, ...], count: int) -> Rows:
    """Return the rows of a `.npy` file after checking its header.

    Args:
        file: the `.npy` file.
        dtype: expected type.
        shape: expected shape of one row.
        count: expected number of rows.

    Raises:
        ShardChecksumError: the header has another type or shape, or the file another size.
    """
    head = file.read(0, min(file.size, 10))
    length = int.from_bytes(head[8:10], "little")
    expected = npy_header(dtype, (count, *shape))
    found = file.read(0, min(file.size, 10 + length))
    if found != expected:
        raise ShardChecksumError(
            f"{file.path}: unexpected header, expected {dtype} ({count}, {', '.join(map(str, shape))}). "
            "Convert or index the dataset again"
        )
    rows = Rows(file, len(expected), dtype, shape, count)
    if file.size != len(expected) + count * rows.row_bytes:
        raise ShardChecksumError(
            f"{file.path}: {file.size} bytes, expected {len(expected) + count * rows.row_bytes}. Convert it again"
        )
    return rows


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return the header of a `.npy` file (format 1.0) of this type and shape."""
    head = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, description)
    return head.getvalue()
