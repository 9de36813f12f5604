"""numpy: `<split>/frames-00000.npy` and `<split>/cameras-00000.npy`, decoded and memory-mappable.

Frames are uint8 (scene, view, height, width, 3), cameras float32 (scene, view, camera number). This is the fastest
container on a local disk, at six times the size of the JPEGs.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gqn_data.formats.contract import Format, OpenShard, ShardLocation, no_metadata
from gqn_data.formats.shards import PixelShard, write_npy, write_pixels
from gqn_data.io import atomic
from gqn_data.io.ranged import npy_header, npy_rows
from gqn_data.schema.layout import SceneLayout
from gqn_data.schema.manifest import Encoding, FileRow, ShardRow
from gqn_data.schema.scene import Scene


def _names(location: ShardLocation) -> tuple[str, str]:
    return f"{location.split}/frames-{location.number:05d}.npy", f"{location.split}/cameras-{location.number:05d}.npy"


def _write_shard(location: ShardLocation, scenes: Iterable[Scene]) -> ShardRow:
    frames_name, cameras_name = _names(location)
    layout = location.layout
    with atomic.writing(location.folder / frames_name) as file, atomic.ChecksummedFile(file) as out:
        out.write(npy_header(np.dtype(np.uint8), (location.scenes, *layout.frames_shape)))
        cameras = write_pixels(out, scenes, location)
        frames = FileRow(name=frames_name, sha256=out.finish(), bytes=out.position)
    return ShardRow(scenes=location.scenes, files=(frames, write_npy(location.folder, cameras_name, cameras)))


def _open_shard(location: ShardLocation, row: ShardRow) -> OpenShard:
    frames, cameras = location.open(row.files[0]), location.open(row.files[1], cache_from=0)
    layout = location.layout
    return PixelShard(
        npy_rows(frames, np.dtype(np.uint8), layout.frames_shape, row.scenes),
        npy_rows(cameras, np.dtype("<f4"), layout.cameras_shape, row.scenes),
    )


def _stored_bytes(scenes: int, encoded: int, layout: SceneLayout, encoding: Encoding) -> int:  # noqa: ARG001
    return scenes * (layout.views * layout.frame_bytes + 4 * int(np.prod(layout.cameras_shape)))


FORMAT = Format(
    name="numpy",
    encodings=("raw",),
    names=_names,
    write_shard=_write_shard,
    finish=no_metadata,
    open_shard=_open_shard,
    stored_bytes=_stored_bytes,
)
