"""webdataset: `<split>-000000.tar`, one sample a scene, with an index beside each tar for random access.

A sample is KEY.cameras.npy, KEY.00.jpg, KEY.01.jpg ...; KEY is the number of the scene in the split. The JPEG
bytes are the source's. The tars are plain USTAR with every field that could vary set to zero, so that two runs
give the same bytes; they are what Python's `tarfile` would write (the tests compare them).

Written by hand because the `webdataset` package takes 1.5 ms a scene; it reads them as they are.
Source: POSIX.1-1988 (USTAR).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gqn_data import storage
from gqn_data.formats.contract import Format, OpenShard, ShardPlace, no_metadata
from gqn_data.formats.shards import IndexedShard, encoded_frames, index_dtype
from gqn_data.layout import SceneLayout
from gqn_data.manifest import Encoding, FileRow, ShardRow
from gqn_data.reading import RangedFile, npy_header, npy_rows
from gqn_data.scene import Encoded, Scene

_BLOCK = 512
_RECORD = 20 * _BLOCK  # tars end on a whole record, as tar and tarfile write them
_KEY_DIGITS = 10

# The fields of a USTAR header before the size, between size and checksum, and behind the checksum.
_MODE_AND_OWNER = b"\x00".join((b"0000644", b"0000000", b"0000000", b""))
_NO_TIME = b"00000000000\x00"
_KIND = b"0" + bytes(100)  # a regular file, no link
_DEVICE = b"\x00".join((b"0000000", b"0000000", b""))
_AFTER = _KIND + b"ustar\x00" + b"00" + bytes(64) + _DEVICE + bytes(155 + 12)
_SUM_AFTER = sum(_AFTER)


def _names(place: ShardPlace) -> tuple[str, str]:
    stem = f"{place.split}-{place.number:06d}"
    return f"{stem}.tar", f"{stem}.index.npy"


def _header(name: bytes, size: int) -> bytes:
    """The USTAR header of a file of that name and size: mode 0644, owner and time zero."""
    before = name.ljust(100, b"\x00") + _MODE_AND_OWNER + b"%011o\x00" % size + _NO_TIME
    checksum = sum(before) + _SUM_AFTER + 8 * ord(" ")
    return before + b"%06o\x00 " % checksum + _AFTER


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def _write_shard(place: ShardPlace, scenes: Iterable[Scene]) -> ShardRow:
    tar_name, index_name = _names(place)
    layout = place.layout
    index = np.zeros(place.scenes, index_dtype(layout))
    digits = max(2, len(str(layout.views - 1)))
    endings = [b".%0*d.jpg" % (digits, view) for view in range(layout.views)]
    camera_header = npy_header(np.dtype("<f4"), layout.cameras_shape)
    with storage.writing(place.folder / tar_name) as file, storage.ChecksummedFile(file) as out:
        for number, scene in enumerate(scenes):
            key = b"%0*d" % (_KEY_DIGITS, place.first_scene + number)
            cameras = camera_header + scene.cameras.astype("<f4").tobytes()
            parts: list[Encoded] = [_header(key + b".cameras.npy", len(cameras)), cameras, _padding(len(cameras))]
            start = at = out.position
            at += sum(map(len, parts))
            offsets, lengths = [], []
            for ending, frame in zip(endings, encoded_frames(scene, place.frames.jpeg_quality), strict=True):
                size = len(frame)
                parts += (_header(key + ending, size), frame, _padding(size))
                offsets.append(at + _BLOCK)
                lengths.append(size)
                at += _BLOCK + size + -size % _BLOCK
            out.write(b"".join(parts))
            index[number] = (start, at - start, offsets, lengths, scene.cameras)
        out.write(bytes(2 * _BLOCK))
        out.write(bytes(-out.position % _RECORD))
        tar = FileRow(name=tar_name, sha256=out.finish(), bytes=out.position)
    return ShardRow(scenes=place.scenes, files=(tar, write_index(place, index_name, index)))


def write_index(place: ShardPlace, name: str, index: NDArray[np.void]) -> FileRow:
    """Writes the rows of an index as `.npy`, below the dataset's folder; returns its row of the manifest."""
    with storage.writing(place.folder / name) as file, storage.ChecksummedFile(file) as out:
        out.write(npy_header(index.dtype, index.shape))
        out.write(index.tobytes())
        return FileRow(name=name, sha256=out.finish(), bytes=out.position)


def _open_shard(place: ShardPlace, row: ShardRow) -> OpenShard:
    tar, index = (RangedFile(place.folder / file.name, file.bytes) for file in row.files)
    return IndexedShard(tar, npy_rows(index, index_dtype(place.layout), (), row.scenes), place.layout)


def _stored_bytes(scenes: int, encoded: int, layout: SceneLayout, encoding: Encoding) -> int:  # noqa: ARG001
    # a header, and half a block of padding on the average, for each view and for the cameras; the index
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
