"""mirror: layout of the public numpy mirror, with one array of images and one of viewpoints per split; read-only.

`train_images.npy` is uint8 (scene, view, height, width, 3), `train_viewpoints.npy` float32 (scene, view, camera
number). Either may be gzipped, and is then read through seek points (`sources.gzip_index`).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np

from gqn_data.errors import ArrayFileError, ManifestError, OptionError
from gqn_data.formats.contract import Format, OpenShard, ShardLocation, no_metadata
from gqn_data.formats.shards import PixelShard
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath
from gqn_data.io.ranged import RangedFile, Rows
from gqn_data.schema.layout import SceneLayout
from gqn_data.schema.manifest import Encoding, FileRow, ShardRow
from gqn_data.schema.scene import Scene
from gqn_data.sources.gzip_index import GzippedFile
from gqn_data.sources.npy_mirror import GZIPPED, ArrayHeader, read_header

PIXELS, NUMBERS = np.dtype("u1"), np.dtype("<f4")


def points_name(name: str) -> str:
    """Return the name of the seek-point file of a gzipped array."""
    return f"{name}.points"


def _open_shard(location: ShardLocation, row: ShardRow) -> OpenShard:
    if len(row.files) < 2:
        raise ManifestError(f"{location.folder}: found {len(row.files)} files, expected images and viewpoints")
    frames = _rows(location, row, 0, PIXELS, location.layout.frames_shape)
    return PixelShard(frames, _rows(location, row, 1, NUMBERS, location.layout.cameras_shape))


def _rows(location: ShardLocation, row: ShardRow, number: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Rows:
    """Open the rows of one of the shard's two arrays."""
    file = row.files[number]
    path = location.folder / file.name
    header = read_header(path)
    if (header.dtype, header.shape) != (dtype, (row.scenes, *shape)):
        raise ArrayFileError(f"{path}: changed since it was indexed; rerun the command")
    if not file.name.endswith(GZIPPED):
        return Rows(RangedFile(path, file.bytes, location.guard), header.start, dtype, shape, row.scenes)
    points = next((other for other in row.files[2:] if other.name == points_name(file.name)), None)
    if points is None or location.index_folder is None:
        raise ArrayFileError(f"{path}: gzipped and not indexed; convert it with gqn-data convert")
    return Rows(
        _gzipped(location.folder, file, location.index_folder, points, header), header.start, dtype, shape, row.scenes
    )


@lru_cache(maxsize=4)
def _gzipped(
    folder: AnyPath, file: FileRow, index_folder: AnyPath, points: FileRow, header: ArrayHeader
) -> GzippedFile:
    """Open a gzipped array once per worker, so that consecutive shards continue decompressing where it stopped."""
    return GzippedFile(
        atomic.on_disk(folder / file.name, "gzipped arrays belong"),
        file.bytes,
        header.bytes,
        atomic.on_disk(index_folder / points.name, "seek points belong"),
        points.sha256 or "",
    )


def _write_shard(location: ShardLocation, scenes: Iterable[Scene]) -> ShardRow:  # noqa: ARG001
    raise OptionError(f"{location.folder}: the format mirror is read-only; pass --format numpy")


def _stored_bytes(scenes: int, encoded: int, layout: SceneLayout, encoding: Encoding) -> int:  # noqa: ARG001
    return scenes * (layout.views * layout.frame_bytes + NUMBERS.itemsize * int(np.prod(layout.cameras_shape)))


FORMAT = Format(
    name="mirror",
    encodings=("raw",),
    names=lambda _: (),
    write_shard=_write_shard,
    finish=no_metadata,
    open_shard=_open_shard,
    stored_bytes=_stored_bytes,
)
