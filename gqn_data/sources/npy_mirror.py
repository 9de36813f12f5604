"""Array files that others wrote: the names of the public numpy mirror, and headers of `.npy`, plain or gzipped.

A header is parsed strictly and nothing is unpickled: an array of objects is refused before anything of it is read.
Source: numpy.org/doc/stable/reference/generated/numpy.lib.format.html. Imports `errors`, `stores`.
"""

from __future__ import annotations

import gzip
import io
import math
import tokenize
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gqn_data.errors import ArrayFileError
from gqn_data.io.paths import AnyPath, StorePath
from gqn_data.io.ranged import RangedFile
from gqn_data.schema.catalog import SPLITS, Split

# The mirror keeps one array a split: `train_images.npy`, `train_viewpoints.npy`, each perhaps gzipped.
IMAGES, VIEWPOINTS = "images", "viewpoints"
GZIPPED = ".gz"
_ENDINGS = (".npy", ".npy" + GZIPPED)  # where both are there, the one that need not be unpacked

_MAGIC = b"\x93NUMPY"
_VERSIONS = {(1, 0): (2, np.lib.format.read_array_header_1_0), (2, 0): (4, np.lib.format.read_array_header_2_0)}
_MOST_HEADER = 10_000  # numpy's own limit
_MOST_EXPANSION = 1040  # deflate makes no more of a byte (RFC 1951: 258 bytes of two bits, and headers)

# What numpy raises where a header is none: it is a Python literal, and may be anything.
_NO_HEADER = (ValueError, TypeError, KeyError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError)


@dataclass(frozen=True, kw_only=True)
class ArrayHeader:
    """What the header of an array file says.

    Attributes:
        dtype: of an element.
        shape: of the array, in C order.
        start: the byte at which the first element begins, unpacked.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int

    @property
    def bytes(self) -> int:
        """Bytes of the whole file, unpacked."""
        return self.start + self.dtype.itemsize * math.prod(self.shape)


def mirror_file(folder: AnyPath, split: Split, what: str) -> str | None:
    """The name of one of the mirror's arrays in a folder; None where it is not there."""
    names = (f"{split}_{what}{ending}" for ending in _ENDINGS)
    return next((name for name in names if (folder / name).is_file()), None)


def is_mirror(folder: AnyPath) -> bool:
    """Whether a folder holds arrays under the mirror's names."""
    if isinstance(folder, StorePath) and not folder.can_be_listed:
        return False  # a web server is not asked for a dozen names
    return any(mirror_file(folder, split, what) for split in SPLITS for what in (IMAGES, VIEWPOINTS))


def read_header(path: AnyPath) -> ArrayHeader:
    """The header of an array file, gzipped if its name says so; the file's size is held against it.

    Raises:
        ArrayFileError: no array file, one of Python objects, in Fortran order, or of another size.
        FileNotFoundError: there is none.
    """
    if path.name.endswith(GZIPPED):
        if isinstance(path, StorePath):
            raise ArrayFileError(f"{path}: gzipped arrays are unpacked from a disk only; copy the folder to one")
        size = path.stat().st_size
        head = _unpacked_head(path)
        header = _parse(head, path)
        if header.bytes > size * _MOST_EXPANSION:
            raise ArrayFileError(
                f"{path}: {size} bytes cannot hold the {header.bytes} that its header tells of {header.shape}: "
                "cut short; copy it again"
            )
        return header
    file = RangedFile(path)
    size = file.size
    header = _parse(file.read(0, min(size, _MOST_HEADER + 12)), path)
    if size != header.bytes:
        what = "cut short" if size < header.bytes else "more than the array"
        raise ArrayFileError(f"{path}: {size} bytes, expected {header.bytes} of {header.shape}: {what}; copy it again")
    return header


def _unpacked_head(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(_MOST_HEADER + 12)
    except EOFError as error:
        raise ArrayFileError(f"{path}: cut short ({error}); copy it again") from error
    except (OSError, zlib.error) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ArrayFileError(f"{path}: cannot be unpacked ({error}); copy it again") from error


def _parse(head: bytes, path: AnyPath) -> ArrayHeader:
    if not head.startswith(_MAGIC):
        raise ArrayFileError(f"{path}: no array file of numpy: begins with {head[:6].hex()}, expected {_MAGIC.hex()}")
    known = _VERSIONS.get((head[6], head[7])) if len(head) > 8 else None
    if known is None:
        raise ArrayFileError(f"{path}: a header of version {tuple(head[6:8])}, expected (1, 0) or (2, 0)")
    width, read = known
    length = int.from_bytes(head[8 : 8 + width], "little")
    start = 8 + width + length
    if start > len(head):
        raise ArrayFileError(f"{path}: a header of {length} bytes, expected {_MOST_HEADER} at most, in the file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            shape, fortran, dtype = read(io.BytesIO(head[8:start]), max_header_size=_MOST_HEADER)
    except _NO_HEADER as error:
        what = " ".join(str(error).split())[:200]
        raise ArrayFileError(f"{path}: its header cannot be understood ({what}); copy it again") from error
    if dtype.hasobject:
        raise ArrayFileError(
            f"{path}: holds Python objects (a pickle), which are not read: they may run any code; "
            "write plain arrays with numpy.save(..., allow_pickle=False)"
        )
    if fortran and len(shape) > 1:
        raise ArrayFileError(
            f"{path}: in Fortran order, so that no scene lies in one piece; write it anew: "
            "numpy.save(new, numpy.ascontiguousarray(numpy.load(old, mmap_mode='r')))"
        )
    if not all(type(number) is int and number >= 0 for number in shape):
        raise ArrayFileError(f"{path}: a shape {shape} that cannot be; copy it again")
    return ArrayHeader(dtype=dtype, shape=shape, start=start)
