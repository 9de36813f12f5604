"""Ranged reads: any number of files, a bounded number of them open.

A read names its offset and its length, so the same plan serves local files and object stores. Local files are read
with `pread`: no shared position, so threads and forked workers may read at once; no mapping, so memory stays flat
and a file that was cut short is an error here and not a signal. Pixels alone are mapped, which cost too much to copy
twice. Imports `errors`, `places`.
"""

from __future__ import annotations

import io
import mmap
import os
import stat
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import ShardChecksumError
from gqn_data.io.paths import AnyPath, StorePath

_MOST_OPEN = 256  # of the 1024 that systems commonly allow a process
_GAP = 32 << 10  # bytes that come along between two extents of an object cost about what another request does

# Windows would else translate line ends; a child process has its own files; a pipe would be waited for.
_OPEN = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)


class OpenFile(Protocol):
    """A file that is open."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset` on."""

    def read_into(self, offset: int, out: NDArray[np.uint8]) -> int:
        """Fills the beginning of `out`; returns how many bytes."""

    def read_many(self, extents: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each extent (offset, length), or fewer."""


class _Handle:
    """An open file on a disk; closed when nobody uses it any more."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, _OPEN)
        found = os.fstat(self.number)
        if not stat.S_ISREG(found.st_mode):
            raise ShardChecksumError(f"{path}: no regular file; convert or copy the dataset again")
        self.size = found.st_size
        self._mapped: NDArray[np.uint8] | None = None

    def mapped(self) -> NDArray[np.uint8] | None:
        """All bytes; None where the file was cut short since it was opened: touching what is gone would kill us."""
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
    """An object in a store."""

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
        wanted = [extent for extent in extents if extent[1]]  # a store cannot be asked for no bytes
        parts = iter(self._path.read_ranges(wanted, gap=_GAP) if wanted else ())
        return [next(parts) if length else b"" for _, length in extents]


def open_file(path: AnyPath) -> OpenFile:
    """A file, opened for ranged reads.

    Raises:
        FileNotFoundError: there is none.
        ShardChecksumError: no regular file.
    """
    return _Handle(path) if isinstance(path, Path) else _Object(path)


# The files that are open, the one opened first at the head. Weak: those of a dataset that is gone are closed.
_open_files: deque[weakref.ref[RangedFile]] = deque()
_lock = threading.Lock()


def _after_fork() -> None:
    global _lock  # noqa: PLW0603  a lock held by another thread at the fork would stay held for ever
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class RangedFile:
    """A file to read ranges of, on a disk or in an object store.

    Args:
        path: the file.
        size: the bytes it must have (from the manifest); None to take what it has.

    Raises:
        ShardChecksumError: on the first read, where the file is absent or has another size.
    """

    def __init__(self, path: AnyPath, size: int | None = None) -> None:
        self.path = path
        self._expected = size
        self._handle: OpenFile | None = None
        self._closed = 0  # how often it was closed because it is another file now

    def __reduce__(self) -> tuple[type[RangedFile], tuple[AnyPath, int | None]]:
        return type(self), (self.path, self._expected)

    @property
    def is_remote(self) -> bool:
        """Whether every read is a request to a store, so that several are better made at once."""
        return not isinstance(self.path, Path)

    def reopened(self) -> bool:
        """Whether the file was a local copy that had been damaged, and is a new one now."""
        return False

    def _opened(self) -> OpenFile:
        return open_file(self.path)

    def _close(self) -> None:
        """Has the file opened anew, by threads that are opening it just now as well."""
        with _lock:
            self._closed += 1
            self._handle = None

    def _open(self) -> OpenFile:
        closed = self._closed
        try:
            handle = self._opened()  # without the lock: a remote file may have to be fetched first
        except FileNotFoundError as error:
            raise ShardChecksumError(
                f"{self.path}: listed in the manifest and absent; convert or copy the dataset again"
            ) from error
        if self._expected is not None and handle.size != self._expected:
            raise ShardChecksumError(
                f"{self.path}: {handle.size} bytes, the manifest says {self._expected}; convert, index or copy it again"
            )
        with _lock:
            if self._handle is None and self._closed == closed:  # not opened by another thread meanwhile
                self._handle = handle
                if isinstance(handle, _Handle):
                    _open_files.append(weakref.ref(self))
                while len(_open_files) > _MOST_OPEN:
                    oldest = _open_files.popleft()()
                    if oldest is not None:
                        oldest._handle = None  # whoever reads from it now still holds it
        return handle

    @property
    def size(self) -> int:
        """The size in bytes."""
        return (self._handle or self._open()).size

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on.

        Raises:
            ShardChecksumError: the file does not hold that range.
        """
        handle = self._handle or self._open()
        if offset + length > handle.size:
            raise self._outside(offset, length, handle.size)
        data = handle.read(offset, length)
        while len(data) < length:  # the system may give less than asked for, 2 GiB at the most
            more = handle.read(offset + len(data), length - len(data))
            if not more:
                raise self._outside(offset, length, offset + len(data))
            data += more
        return data

    def read_many(self, extents: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of each extent (offset, length); of a file in a store, all asked for at once.

        Raises:
            ShardChecksumError: the file does not hold one of them.
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
        """Fills the contiguous array `out` with the bytes from `offset` on.

        Raises:
            ShardChecksumError: the file does not hold that range.
        """
        handle = self._handle or self._open()
        length = out.nbytes
        if offset + length > handle.size:
            raise self._outside(offset, length, handle.size)
        done = handle.read_into(offset, out)
        if done < length:
            out.reshape(-1)[done:] = np.frombuffer(self.read(offset + done, length - done), np.uint8)

    def mapped(self, offset: int, length: int) -> NDArray[np.uint8]:
        """`length` bytes from `offset` on of a file on a disk, where they lie: uint8 (length,), read-only.

        Raises:
            ShardChecksumError: the file does not hold that range, or no longer.
        """
        handle = self._handle or self._open()
        assert isinstance(handle, _Handle)  # noqa: S101  a file in a store cannot be mapped
        data = handle.mapped() if offset + length <= handle.size else None
        if data is None:
            raise self._outside(offset, length, os.fstat(handle.number).st_size)
        return data[offset : offset + length]

    def _outside(self, offset: int, length: int, size: int) -> ShardChecksumError:
        return ShardChecksumError(
            f"{self.path}: {length} bytes at {offset} were asked for, the file has {size}; "
            "it is cut short or its index is not its own: run gqn-data verify on the dataset"
        )


class Rows:
    """A table of equal rows in a file, read row by row.

    Args:
        file: where they are.
        start: the byte at which the first row begins.
        dtype: of one element of a row.
        shape: of one row.
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
        """One row, read-only."""
        return np.frombuffer(self.bytes_of(row), self.dtype).reshape(self.shape)

    def bytes_of(self, row: int) -> bytes:
        """One row, as it is stored."""
        return self.file.read(self.start + row * self.row_bytes, self.row_bytes)

    def mapped(self) -> NDArray[Any]:
        """All rows of a file on a disk, where they lie: (count, *shape), read-only."""
        data = self.file.mapped(self.start, self.count * self.row_bytes)
        return data.view(self.dtype).reshape(self.count, *self.shape)

    def some(self, first: int, count: int) -> NDArray[Any]:
        """Rows from `first` on: (count, *shape), read-only."""
        data = self.file.read(self.start + first * self.row_bytes, count * self.row_bytes)
        return np.frombuffer(data, self.dtype).reshape(count, *self.shape)

    def all(self) -> NDArray[Any]:
        """All rows: (count, *shape), read-only."""
        return self.some(0, self.count)


def npy_rows(file: RangedFile, dtype: np.dtype[Any], shape: tuple[int, ...], count: int) -> Rows:
    """The rows of a `.npy` file, whose header must say what is expected of it.

    Raises:
        ShardChecksumError: the header says something else, or the file has another size.
    """
    head = file.read(0, min(file.size, 10))
    length = int.from_bytes(head[8:10], "little")
    expected = npy_header(dtype, (count, *shape))
    found = file.read(0, min(file.size, 10 + length))
    if found != expected:
        raise ShardChecksumError(
            f"{file.path}: its header is not that of {dtype} ({count}, {', '.join(map(str, shape))}); "
            "it was not written by this version for this dataset: convert or index again"
        )
    rows = Rows(file, len(expected), dtype, shape, count)
    if file.size != len(expected) + count * rows.row_bytes:
        raise ShardChecksumError(
            f"{file.path}: {file.size} bytes, expected {len(expected) + count * rows.row_bytes}; convert again"
        )
    return rows


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The header of a `.npy` file (numpy's format 1.0) of that type and shape."""
    head = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, description)
    return head.getvalue()
