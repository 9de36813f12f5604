"""Array files written by others: names of the public numpy mirror, and `.npy` headers, plain or gzipped.

Headers are parsed strictly and nothing is unpickled: an array of objects is rejected before its data is read.
Source: numpy.org/doc/stable/reference/generated/numpy.lib.format.html.
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
from gqn_data.io import regular
from gqn_data.io.paths import AnyPath, StorePath
from gqn_data.io.ranged import RangedFile
from gqn_data.schema.catalog import SPLITS, Split

# The mirror has two arrays per split, `train_images.npy` and `train_viewpoints.npy`, each optionally gzipped.
IMAGES, VIEWPOINTS = "images", "viewpoints"
GZIPPED = ".gz"
_SUFFIXES = (".npy", ".npy" + GZIPPED)  # by preference: a plain file needs no decompression

_MAGIC = b"\x93NUMPY"
_VERSIONS = {(1, 0): (2, np.lib.format.read_array_header_1_0), (2, 0): (4, np.lib.format.read_array_header_2_0)}
_MAX_HEADER = 10_000  # numpy's own limit
_MAX_EXPANSION = 1040  # upper bound of deflate's ratio (RFC 1951: 258 bytes from two bits, and headers)

# What numpy may raise for a malformed header, which is an arbitrary Python literal.
_HEADER_ERRORS = (ValueError, TypeError, KeyError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError)


@dataclass(frozen=True, kw_only=True)
class ArrayHeader:
    """Header of an array file.

    Attributes:
        dtype: type of an element.
        shape: shape of the array, in C order.
        start: offset of the first element in the decompressed file, in bytes.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int

    @property
    def bytes(self) -> int:
        """Size of the decompressed file in bytes."""
        return self.start + self.dtype.itemsize * math.prod(self.shape)


def mirror_file(folder: AnyPath, split: Split, what: str) -> str | None:
    """Return the name of the split's array of `what` (`IMAGES` or `VIEWPOINTS`) in a folder; None if missing."""
    names = (f"{split}_{what}{suffix}" for suffix in _SUFFIXES)
    return next((name for name in names if (folder / name).is_file()), None)


def is_mirror(folder: AnyPath) -> bool:
    """Return whether a folder holds arrays under the mirror's names."""
    if isinstance(folder, StorePath) and not folder.can_be_listed:
        return False  # avoids a dozen requests to a web server
    return any(mirror_file(folder, split, what) for split in SPLITS for what in (IMAGES, VIEWPOINTS))


def read_header(path: AnyPath) -> ArrayHeader:
    """Read the header of an array file, gzipped if its name ends in `.gz`, and check the file's size against it.

    Raises:
        ArrayFileError: the file is not an array, holds Python objects, is in Fortran order, or has another size.
        FileNotFoundError: the file is missing.
    """
    if path.name.endswith(GZIPPED):
        if isinstance(path, StorePath):
            raise ArrayFileError(f"{path}: gzipped arrays can only be read from a local disk; copy the folder to one")
        size = path.stat().st_size
        head = _decompressed_head(path)
        header = _parse(head, path)
        if header.bytes > size * _MAX_EXPANSION:
            raise ArrayFileError(
                f"{path}: cut short: {size} bytes cannot decompress to the {header.bytes} bytes of an array of shape "
                f"{header.shape}; copy it again"
            )
        return header
    file = RangedFile(path)
    size = file.size
    header = _parse(file.read(0, min(size, _MAX_HEADER + 12)), path)
    if size != header.bytes:
        what = "cut short" if size < header.bytes else "longer than its array"
        raise ArrayFileError(
            f"{path}: {what}: {size} bytes, expected {header.bytes} for shape {header.shape}; copy it again"
        )
    return header


def _decompressed_head(path: Path) -> bytes:
    try:
        with regular.open_read(path) as packed, gzip.GzipFile(fileobj=packed) as file:
            return file.read(_MAX_HEADER + 12)
    except EOFError as error:
        raise ArrayFileError(f"{path}: cut short ({error}); copy it again") from error
    except (OSError, zlib.error) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ArrayFileError(f"{path}: cannot be decompressed ({error}); copy it again") from error


def _parse(head: bytes, path: AnyPath) -> ArrayHeader:
    if not head.startswith(_MAGIC):
        raise ArrayFileError(f"{path}: not an array file: begins with {head[:6].hex()}, expected {_MAGIC.hex()}")
    known = _VERSIONS.get((head[6], head[7])) if len(head) > 8 else None
    if known is None:
        raise ArrayFileError(f"{path}: header version {tuple(head[6:8])}, expected (1, 0) or (2, 0)")
    width, read = known
    length = int.from_bytes(head[8 : 8 + width], "little")
    start = 8 + width + length
    if start > len(head):
        raise ArrayFileError(f"{path}: a header of {length} bytes, expected at most {_MAX_HEADER} within the file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about headers written by Python 2
            shape, fortran, dtype = read(io.BytesIO(head[8:start]), max_header_size=_MAX_HEADER)
    except _HEADER_ERRORS as error:
        what = " ".join(str(error).split())[:200]
        raise ArrayFileError(f"{path}: cannot parse its header ({what}); copy it again") from error
    if dtype.hasobject:
        raise ArrayFileError(
            f"{path}: holds Python objects (a pickle), expected plain numbers; "
            "write the array with numpy.save(..., allow_pickle=False)"
        )
    if fortran and len(shape) > 1:
        raise ArrayFileError(
            f"{path}: an array in Fortran order, expected C order; rewrite it: "
            "numpy.save(new, numpy.ascontiguousarray(numpy.load(old, mmap_mode='r')))"
        )
    if not all(type(number) is int and number >= 0 for number in shape):
        raise ArrayFileError(f"{path}: shape {shape}, expected whole numbers from 0; copy it again")
    return ArrayHeader(dtype=dtype, shape=shape, start=start)
