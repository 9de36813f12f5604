"""mirror: layout of the public numpy mirror, with one array of images and one of viewpoints per split.

`train_images.npy` is uint8 (scene, view, height, width, 3), `train_viewpoints.npy` float32 (scene, view, camera
number). Arrays of others may be gzipped, and are then read through seek points (`sources.gzip_index`).

Workers write pieces of the arrays in place, into files of an unfinished name without a header. When all pieces are
there, the files are read once and compared with the checksums of the pieces, get their headers and their names.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from gqn_data.errors import ArrayFileError, DestinationError, ManifestError, ShardChecksumError
from gqn_data.formats.contract import Format, OpenShard, Pieces, ShardLocation, no_metadata
from gqn_data.formats.shards import PixelShard, write_pixels
from gqn_data.io import atomic, regular
from gqn_data.io.paths import AnyPath
from gqn_data.io.ranged import RangedFile, Rows, npy_header, npy_rows
from gqn_data.progress import bar
from gqn_data.schema.catalog import Split
from gqn_data.schema.layout import SceneLayout
from gqn_data.schema.manifest import Encoding, FileRow, Manifest, ShardRow
from gqn_data.schema.scene import Scene
from gqn_data.sources.gzip_index import GzippedFile
from gqn_data.sources.npy_mirror import GZIPPED, IMAGES, VIEWPOINTS, ArrayHeader, read_header

PIXELS, NUMBERS = np.dtype("u1"), np.dtype("<f4")

_START = 128  # offset of the first scene: numpy pads headers to a multiple of 64, and shapes of five numbers need 128
_UNFINISHED = ".unfinished"
_BLOCK = 1 << 20


def points_name(name: str) -> str:
    """Return the name of the seek-point file of a gzipped array."""
    return f"{name}.points"


def _open_shard(location: ShardLocation, row: ShardRow) -> OpenShard:
    names = [file.name for file in row.files]
    wanted = [array.name for array in _arrays(location.split, location.layout)]
    points = [points_name(name) for name in names[:2] if name.endswith(GZIPPED)]
    if [name.removesuffix(GZIPPED) for name in names[:2]] != wanted or not {*names[2:]} <= {*points}:
        raise ManifestError(
            f"{location.folder}: {location.split} has the files {', '.join(names)}, expected {', '.join(wanted)}. "
            "Copy or convert the dataset again"
        )
    frames = _rows(location, row, 0, PIXELS, location.layout.frames_shape)
    return PixelShard(frames, _rows(location, row, 1, NUMBERS, location.layout.cameras_shape))


def _rows(location: ShardLocation, row: ShardRow, number: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Rows:
    """Open the rows of one of the shard's two arrays."""
    file = row.files[number]
    if file.sha256 is not None:  # written by this project
        return npy_rows(location.open(file, cache_from=0 if number else None), dtype, shape, row.scenes)
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


class _Array(NamedTuple):
    """One of the two arrays of a split.

    Attributes:
        name: name of its file.
        dtype: type of an element.
        shape: shape of a scene.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def scene_bytes(self) -> int:
        """Bytes of a scene."""
        return self.dtype.itemsize * math.prod(self.shape)

    def unfinished(self, folder: Path) -> Path:
        """Return the name of the file while pieces are written."""
        return folder / (self.name + _UNFINISHED)

    def header(self, scenes: int) -> bytes:
        """Return the header of the whole array."""
        header = npy_header(self.dtype, (scenes, *self.shape))
        if len(header) != _START:
            raise DestinationError(f"{self.name}: a header of {len(header)} bytes, expected {_START}")
        return header


def _arrays(split: Split, layout: SceneLayout) -> tuple[_Array, _Array]:
    return (
        _Array(f"{split}_{IMAGES}.npy", PIXELS, layout.frames_shape),
        _Array(f"{split}_{VIEWPOINTS}.npy", NUMBERS, layout.cameras_shape),
    )


def _names(location: ShardLocation) -> tuple[str, ...]:
    """Return the unfinished files: only these may be removed if the conversion is given up."""
    return tuple(array.name + _UNFINISHED for array in _arrays(location.split, location.layout))


def _write_piece(location: ShardLocation, scenes: Iterable[Scene]) -> ShardRow:
    folder = atomic.on_disk(location.folder, "the arrays of mirror are written")
    images, viewpoints = _arrays(location.split, location.layout)
    for array in (images, viewpoints):
        if (folder / array.name).exists():
            raise DestinationError(
                f"{folder / array.name}: found an array, expected none before all its scenes are written; move it away"
            )
    first = location.first_scene
    with atomic.writing_part(images.unfinished(folder), _START + first * images.scene_bytes) as out:
        cameras = write_pixels(out, scenes, location)
        written = [FileRow(name=_names(location)[0], sha256=out.finish(), bytes=_end(location, images))]
    with atomic.writing_part(viewpoints.unfinished(folder), _START + first * viewpoints.scene_bytes) as out:
        out.write(cameras.astype(NUMBERS, copy=False).tobytes())
        written.append(FileRow(name=_names(location)[1], sha256=out.finish(), bytes=_end(location, viewpoints)))
    return ShardRow(scenes=location.scenes, files=tuple(written))


def _end(location: ShardLocation, array: _Array) -> int:
    """Return the end of a piece in its file, in bytes."""
    return _START + (location.first_scene + location.scenes) * array.scene_bytes


def _are_written(location: ShardLocation, row: ShardRow) -> bool:
    folder = atomic.on_disk(location.folder, "the arrays of mirror are written")
    arrays = _arrays(location.split, location.layout)
    ends = [_end(location, array) for array in arrays]
    if (row.scenes, [file.bytes for file in row.files]) != (location.scenes, ends):
        return False  # a piece of other scenes
    paths = [_present(array, folder) for array in arrays]
    return all(path is not None and path.stat().st_size >= end for path, end in zip(paths, ends))


def _present(array: _Array, folder: Path) -> Path | None:
    """Return the file of an array; it has its final name if a run ended between the last renames and the manifest."""
    return next((path for path in (array.unfinished(folder), folder / array.name) if path.exists()), None)


def _join(folder: AnyPath, manifest: Manifest) -> dict[Split, ShardRow]:
    """Check all pieces, write the headers, then give the files their names."""
    folder = atomic.on_disk(folder, "the arrays of mirror are written")
    joined: dict[Split, ShardRow] = {}
    total = sum(files[number].bytes for files in _last_files(manifest) for number in (0, 1))
    with bar(total, "B", "checking arrays", unit_scale=True) as progress:
        for split, row in manifest.splits.items():
            files = []
            for number, array in enumerate(_arrays(split, manifest.layout)):
                path = _present(array, folder)
                if path is None:
                    raise DestinationError(f"{folder / array.name}: the unfinished array is gone; rerun the command")
                with atomic.report_full_disk(path), regular.open_update(path, create=False) as file:
                    digest = hashlib.sha256()
                    for block in _checked(file, path, array, number, row.shards):
                        digest.update(block)
                        progress.update(len(block))
                    file.flush()
                    os.fsync(file.fileno())
                    files.append(FileRow(name=array.name, sha256=digest.hexdigest(), bytes=file.tell()))
            joined[split] = ShardRow(scenes=row.scenes, files=tuple(files))
    for split in manifest.splits:
        for array in _arrays(split, manifest.layout):
            if array.unfinished(folder).exists():
                array.unfinished(folder).replace(folder / array.name)
    atomic.sync_folder(folder)
    return joined


def _last_files(manifest: Manifest) -> list[tuple[FileRow, ...]]:
    return [split.shards[-1].files for split in manifest.splits.values()]


def _checked(file: IO[bytes], path: Path, array: _Array, number: int, pieces: tuple[ShardRow, ...]) -> Iterator[bytes]:
    """Write the header of an array, then yield its bytes while comparing each piece with its checksum.

    Raises:
        ShardChecksumError: a piece is not as it was written. The file is removed, so that a rerun writes it again.
    """
    header = array.header(sum(piece.scenes for piece in pieces))
    file.seek(0)
    file.write(header)
    yield header
    first = 0
    for piece in pieces:
        digest, left = hashlib.sha256(), piece.scenes * array.scene_bytes
        while left and (block := file.read(min(_BLOCK, left))):
            digest.update(block)
            left -= len(block)
            yield block
        if left or digest.hexdigest() != piece.files[number].sha256:
            path.unlink(missing_ok=True)
            raise ShardChecksumError(
                f"{path}: scenes {first} to {first + piece.scenes - 1} differ from what was written; the array is "
                "removed. Rerun the command; if it fails again, check the disk"
            )
        first += piece.scenes
    if file.read(1):
        path.unlink(missing_ok=True)
        raise ShardChecksumError(f"{path}: found bytes after {first} scenes; the array is removed. Rerun the command")


def _stored_bytes(scenes: int, encoded: int, layout: SceneLayout, encoding: Encoding) -> int:  # noqa: ARG001
    return scenes * (layout.views * layout.frame_bytes + NUMBERS.itemsize * int(np.prod(layout.cameras_shape)))


FORMAT = Format(
    name="mirror",
    encodings=("raw",),
    names=_names,
    write_shard=_write_piece,
    finish=no_metadata,
    open_shard=_open_shard,
    stored_bytes=_stored_bytes,
    pieces=Pieces(are_written=_are_written, join=_join),
)
