"""Gzipped files: a one-pass check, and random access through seek points.

Decompression can start at a seek point, which stores the preceding 32 KiB of output; the package `indexed_gzip` writes
and reads them. Workers thus decompress different parts of one large file in parallel, an interrupted run resumes where
it stopped, and nothing is decompressed to the disk.
"""

from __future__ import annotations

import gzip
import io
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import indexed_gzip
import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import ArrayFileError, ShardChecksumError
from gqn_data.io import atomic, regular
from gqn_data.io.ranged import OpenFile, RangedFile

_BLOCK = 1 << 20
_STEP = 64 << 20  # bytes indexed between two checks for Ctrl-C
_POINTS = 2048  # seek points per file, within these bounds of their distance in bytes:
_SPACING = (4 << 20, 64 << 20)
_MAX_BUFFER = 64 << 20


def check_gzip(path: Path, length: int, progress: Callable[[int], object] = lambda _: None) -> None:
    """Raise unless a file decompresses to `length` bytes that match gzip's checksum.

    Args:
        path: the file.
        length: expected decompressed size in bytes.
        progress: called with the number of bytes of each decompressed block.

    Raises:
        ArrayFileError: the file is damaged, truncated, or of another decompressed size.
    """
    done = 0
    try:
        with regular.open_read(path) as packed, gzip.GzipFile(fileobj=packed) as file:
            while block := file.read(_BLOCK):
                done += len(block)
                if done > length:
                    raise ArrayFileError(f"{path}: decompresses to more than {length} bytes; copy it again")
                progress(len(block))
    except EOFError as error:
        raise ArrayFileError(f"{path}: cut short after {done} of {length} bytes; copy it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ArrayFileError(f"{path}: damaged after {done} of {length} bytes ({error}); copy it again") from error
    if done < length:
        raise ArrayFileError(f"{path}: cut short: decompresses to {done} bytes, expected {length}; copy it again")


def write_seek_points(path: Path, length: int, points: Path) -> None:
    """Write the seek points of a gzipped file.

    Args:
        path: the gzipped file.
        length: its decompressed size in bytes.
        points: file to write.

    Raises:
        ArrayFileError: the file cannot be decompressed, or not to `length` bytes.
    """
    regular.check_regular(path)
    try:
        with indexed_gzip.IndexedGzipFile(str(path), spacing=_spacing(length)) as file:
            for at in range(_STEP, length, _STEP):
                file.seek(at)
            file.seek(length)
            if file.tell() != length or file.read(1):
                raise ArrayFileError(f"{path}: does not decompress to {length} bytes; copy it again")
            buffer = io.BytesIO()
            file.export_index(fileobj=buffer)
    except (OSError, EOFError) as error:
        raise ArrayFileError(f"{path}: cannot be decompressed ({error}); copy it again") from error
    with atomic.writing(points) as out:
        out.write(buffer.getbuffer())


def _spacing(length: int) -> int:
    low, high = _SPACING
    return min(max(length // _POINTS, low), high)


class GzippedFile(RangedFile):
    """Gzipped file with ranged reads of its decompressed bytes.

    Args:
        path: the gzipped file.
        size: its expected size in bytes, compressed.
        length: its size in bytes, decompressed.
        points: file of its seek points.
        points_sha256: expected SHA-256 of `points`; wrong seek points would give wrong bytes.

    Raises:
        ShardChecksumError: on the first read, if one of the files is missing or has changed.
    """

    def __init__(self, path: Path, size: int, length: int, points: Path, points_sha256: str) -> None:
        super().__init__(path, length)
        self._arguments = path, size, length, points, points_sha256

    def __reduce__(self) -> tuple[type[GzippedFile], tuple[Path, int, int, Path, str]]:  # type: ignore[override]
        return type(self), self._arguments

    def _opened(self) -> OpenFile:
        path, size, length, points, expected = self._arguments
        regular.check_regular(path)
        if path.stat().st_size != size:
            raise ShardChecksumError(f"{path}: changed since it was indexed; rerun the command")
        found = atomic.sha256_of(points)
        if found != expected:
            raise ShardChecksumError(f"{points}: SHA-256 is {found}, expected {expected}; rerun the command")
        return _OpenGzip(path, length, points)


class _OpenGzip:
    """Open gzipped file; reads from several threads are serialized."""

    def __init__(self, path: Path, length: int, points: Path) -> None:
        self.size = length
        self._path = path
        self._lock = threading.Lock()
        # Each fill of the buffer starts at a seek point; a buffer of their distance decompresses little twice.
        buffer = min(max(_spacing(length), _BLOCK), _MAX_BUFFER)
        self._file = indexed_gzip.IndexedGzipFile(
            str(path), index_file=str(points), buffer_size=buffer, drop_handles=False
        )

    def read(self, offset: int, length: int) -> bytes:
        try:
            with self._lock:
                self._file.seek(offset)
                return bytes(self._file.read(length))
        except (OSError, EOFError) as error:
            raise ShardChecksumError(
                f"{self._path}: cannot be decompressed at byte {offset} ({error}); rerun the command"
            ) from error

    def read_into(self, offset: int, out: NDArray[np.uint8]) -> int:
        data = self.read(offset, out.nbytes)
        out.reshape(-1)[: len(data)] = np.frombuffer(data, np.uint8)
        return len(data)

    def read_many(self, extents: Sequence[tuple[int, int]]) -> list[bytes]:
        return [self.read(offset, length) for offset, length in extents]

    def __del__(self) -> None:
        file = getattr(self, "_file", None)
        if file is not None:
            file.close()
