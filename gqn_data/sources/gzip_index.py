"""Gzipped files: checked in one pass, and read at any place with the help of seek points.

Unpacking can begin at a seek point, which takes 32 KiB of what comes before it; the package `indexed_gzip` makes them
and reads from them. So workers unpack their own parts of one large file at the same time, a run that was cut off goes
on where it was, and nothing is unpacked to the disk. Imports `errors`, `storage`, `stores`.
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
from gqn_data.io import atomic
from gqn_data.io.ranged import OpenFile, RangedFile

_BLOCK = 1 << 20
_STEP = 64 << 20  # bytes made of seek points between two looks at Ctrl-C
_POINTS = 2048  # about so many in a file, as long as that keeps them apart by:
_SPACING = (4 << 20, 64 << 20)
_MOST_BUFFER = 64 << 20


def check_gzip(path: Path, length: int, progress: Callable[[int], object] = lambda _: None) -> None:
    """Returns where the file unpacks to so many bytes that fit gzip's own checksum.

    Args:
        path: the file.
        length: what it must have, unpacked.
        progress: told the bytes that were unpacked, bit by bit.

    Raises:
        ArrayFileError: it does not.
    """
    done = 0
    try:
        with gzip.open(path) as file:
            while block := file.read(_BLOCK):
                done += len(block)
                if done > length:
                    raise ArrayFileError(f"{path}: more than the {length} bytes that its header tells; copy it again")
                progress(len(block))
    except EOFError as error:
        raise ArrayFileError(f"{path}: cut short behind {done} of {length} bytes; copy it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ArrayFileError(f"{path}: damaged, behind {done} of {length} bytes ({error}); copy it again") from error
    if done < length:
        raise ArrayFileError(f"{path}: {done} bytes, unpacked; its header tells {length}: cut short; copy it again")


def write_seek_points(path: Path, length: int, to: Path) -> None:
    """Writes the seek points of a gzipped file of so many bytes, unpacked.

    Raises:
        ArrayFileError: it cannot be unpacked, or to another length.
    """
    try:
        with indexed_gzip.IndexedGzipFile(str(path), spacing=_spacing(length)) as file:
            for at in range(_STEP, length, _STEP):
                file.seek(at)
            file.seek(length)
            if file.tell() != length or file.read(1):
                raise ArrayFileError(f"{path}: does not unpack to {length} bytes; copy it again")
            points = io.BytesIO()
            file.export_index(fileobj=points)
    except (OSError, EOFError) as error:
        raise ArrayFileError(f"{path}: cannot be unpacked ({error}); copy it again") from error
    with atomic.writing(to) as out:
        out.write(points.getbuffer())


def _spacing(length: int) -> int:
    low, high = _SPACING
    return min(max(length // _POINTS, low), high)


class GzippedFile(RangedFile):
    """A gzipped file to read ranges of, as if it were unpacked.

    Args:
        path: the file.
        size: the bytes that it must have as it is.
        length: the bytes that it has, unpacked.
        points: its seek points.
        points_sha256: their checksum: with others, other bytes would be read.

    Raises:
        ShardChecksumError: on the first read, where one of the files is absent or not what it was.
    """

    def __init__(self, path: Path, size: int, length: int, points: Path, points_sha256: str) -> None:
        super().__init__(path, length)
        self._arguments = path, size, length, points, points_sha256

    def __reduce__(self) -> tuple[type[GzippedFile], tuple[Path, int, int, Path, str]]:  # type: ignore[override]
        return type(self), self._arguments

    def _opened(self) -> OpenFile:
        path, size, length, points, expected = self._arguments
        if path.stat().st_size != size:
            raise ShardChecksumError(f"{path}: has changed since it was looked at; run the same command again")
        found = atomic.sha256_of(points)
        if found != expected:
            raise ShardChecksumError(f"{points}: SHA-256 is {found}, expected {expected}; run the same command again")
        return _Unpacking(path, length, points)


class _Unpacking:
    """A gzipped file that is open; one reader at a time."""

    def __init__(self, path: Path, length: int, points: Path) -> None:
        self.size = length
        self._path = path
        self._lock = threading.Lock()
        # Each fill of the buffer begins at a seek point: so large that little is unpacked twice.
        buffer = min(max(_spacing(length), _BLOCK), _MOST_BUFFER)
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
                f"{self._path}: cannot be unpacked at byte {offset} ({error}); run the same command again"
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
