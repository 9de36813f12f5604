"""webdataset: `<split>-000000.tar` with one sample per scene, and an index for each tar for random access.

A sample is KEY.cameras.npy, KEY.00.jpg, KEY.01.jpg ..., where KEY is the number of the scene in the split. JPEG
bytes are copied from the source. The tars are plain USTAR with all variable metadata set to zero, so that two runs
give equal bytes; they equal what Python's `tarfile` writes, which a test compares.

The `webdataset` package reads them, but takes 1.5 ms per scene to write, hence this writer.
Source: POSIX.1-1988 (USTAR).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from gqn_data.formats.contract import Format, OpenShard, ShardLocation, no_metadata
from gqn_data.formats.shards import IndexedShard, encoded_frames, index_dtype, write_npy
from gqn_data.io import atomic
from gqn_data.io.ranged import npy_header, npy_rows
from gqn_data.schema.layout import SceneLayout
from gqn_data.schema.manifest import Encoding, FileRow, ShardRow
from gqn_data.schema.scene import Encoded, Scene

_BLOCK = 512
_RECORD = 20 * _BLOCK  # tar and tarfile pad archives to whole records
_KEY_DIGITS = 10

# The fields of a USTAR header that vary, in bytes from its start.
_SIZE = slice(124, 135)  # eleven octal digits
_CHECKSUM = slice(148, 154)  # six octal digits, before a NUL and a space
# Constant fields: mode 0644, owner and time zero, regular file, USTAR; device fields stay empty.
_FIELDS = {100: b"0000644", 108: b"0000000", 116: b"0000000", 136: b"00000000000", 155: b" ", 156: b"0"}
_FIELDS |= {257: b"ustar", 263: b"00"}

_HEADERS_AT_ONCE = 512  # small enough that a group and its part of the tar stay in the CPU cache


def _names(location: ShardLocation) -> tuple[str, str]:
    stem = f"{location.split}-{location.number:06d}"
    return f"{stem}.tar", f"{stem}.index.npy"


class _Headers:
    """Vectorized writer of the USTAR headers of many samples.

    Args:
        suffixes: names of a sample's members, without the key.
    """

    def __init__(self, suffixes: list[bytes]) -> None:
        template = np.zeros((len(suffixes), _BLOCK), np.uint8)
        for row, suffix in zip(template, suffixes):
            row[_KEY_DIGITS : _KEY_DIGITS + len(suffix)] = np.frombuffer(suffix, np.uint8)
            for at, value in _FIELDS.items():
                row[at : at + len(value)] = np.frombuffer(value, np.uint8)
        self._template = template
        # In the sum, the eight bytes of the checksum count as spaces; one of them is in the template.
        self._sums = template.sum(axis=1, dtype=np.int64) + 7 * ord(" ")

    def make(self, keys: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the headers (S, members, 512) of samples with `keys` (S,) and member `sizes` (S, members)."""
        headers = np.repeat(self._template[None], len(keys), axis=0)
        key_digits = _digits(keys, 10, _KEY_DIGITS)
        size_digits = _digits(sizes, 8, 11)
        sums = self._sums + key_digits.sum(axis=-1)[:, None] + size_digits.sum(axis=-1)
        headers[..., :_KEY_DIGITS] = key_digits[:, None]
        headers[..., _SIZE] = size_digits
        headers[..., _CHECKSUM] = _digits(sums, 8, 6)
        return headers


def _digits(numbers: NDArray[np.int64], base: int, count: int) -> NDArray[np.int64]:
    """Return the last `count` digits of each number as ASCII: (..., count)."""
    powers = base ** np.arange(count - 1, -1, -1, dtype=np.int64)
    return numbers[..., None] // powers % base + ord("0")


def _write_shard(location: ShardLocation, scenes: Iterable[Scene]) -> ShardRow:
    tar_name, index_name = _names(location)
    layout = location.layout
    index = np.zeros(location.scenes, index_dtype(layout))
    digits = max(2, len(str(layout.views - 1)))
    headers = _Headers([b".cameras.npy", *(b".%0*d.jpg" % (digits, view) for view in range(layout.views))])
    camera_header = npy_header(np.dtype("<f4"), layout.cameras_shape)
    at_once = max(1, _HEADERS_AT_ONCE // layout.views)
    remaining = iter(scenes)
    written = 0
    with atomic.writing(location.folder / tar_name) as file, atomic.ChecksummedFile(file) as out:
        while group := list(islice(remaining, at_once)):
            members: list[Encoded] = []
            for scene in group:
                members.append(camera_header + scene.cameras.astype("<f4", copy=False).tobytes())
                members += encoded_frames(scene, location.frames.jpeg_quality)
            sizes = np.fromiter(map(len, members), np.int64, len(members)).reshape(len(group), -1)
            ends = np.cumsum(_BLOCK + sizes + -sizes % _BLOCK).reshape(sizes.shape)
            starts = ends - sizes - -sizes % _BLOCK  # of the members' contents, from the start of the group
            rows = index[written : written + len(group)]
            rows["record"] = out.position + starts[:, 0] - _BLOCK
            rows["size"] = np.diff(ends[:, -1], prepend=0)
            rows["offset"] = out.position + starts[:, 1:]
            rows["length"] = sizes[:, 1:]
            rows["cameras"] = [scene.cameras for scene in group]
            # Headers and contents start on blocks, so numpy can place all headers; unfilled bytes are padding.
            blocks = np.zeros((int(ends[-1, -1]) // _BLOCK, _BLOCK), np.uint8)
            blocks[starts // _BLOCK - 1] = headers.make(location.first_scene + written + np.arange(len(group)), sizes)
            tar = blocks.data.cast("B")
            for start, member in zip(starts.ravel().tolist(), members):
                tar[start : start + len(member)] = member
            out.write(tar)
            written += len(group)
        out.write(bytes(2 * _BLOCK))
        out.write(bytes(-out.position % _RECORD))
        row = FileRow(name=tar_name, sha256=out.finish(), bytes=out.position)
    return ShardRow(scenes=location.scenes, files=(row, write_npy(location.folder, index_name, index)))


def _open_shard(location: ShardLocation, row: ShardRow) -> OpenShard:
    tar, index = location.open(row.files[0]), location.open(row.files[1], cache_from=0)
    return IndexedShard(tar, npy_rows(index, index_dtype(location.layout), (), row.scenes), location.layout)


def _stored_bytes(scenes: int, encoded: int, layout: SceneLayout, encoding: Encoding) -> int:  # noqa: ARG001
    # Per view and for the cameras: a header, and half a block of padding on average. Plus the index.
    members = layout.views + 1
    cameras = 128 + 4 * int(np.prod(layout.cameras_shape))
    return encoded + scenes * (members * (_BLOCK + _BLOCK // 2) + cameras + index_dtype(layout).itemsize)


FORMAT = Format(
    name="webdataset",
    encodings=("jpeg",),
    names=_names,
    write_shard=_write_shard,
    finish=no_metadata,
    open_shard=_open_shard,
    stored_bytes=_stored_bytes,
)
