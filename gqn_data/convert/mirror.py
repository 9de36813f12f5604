"""The public numpy mirror as a source: one pair of arrays per split, found by name and checked against the scene set.

A gzipped array is read twice before it is converted: one pass checks gzip's checksum, the other writes seek points,
from which workers read independently.
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gqn_data.errors import ArrayFileError, OptionError, SourceMissing
from gqn_data.executors.pool import map_in_order, open_pool
from gqn_data.formats.mirror_arrays import FORMAT, NUMBERS, PIXELS, points_name
from gqn_data.io import atomic, strict_json
from gqn_data.io.paths import AnyPath, Stat, StorePath
from gqn_data.io.ranged import RangedFile, Rows
from gqn_data.progress import bar
from gqn_data.schema.catalog import SPLITS, SceneSet, Split
from gqn_data.schema.geometry import geometry_of
from gqn_data.schema.layout import SceneLayout, layout_of
from gqn_data.schema.manifest import CamerasRow, FileRow, FramesRow, Manifest, ShardRow, SourceRow, SplitRow
from gqn_data.schema.origin import SOURCE_FILE, Origin, read_origin
from gqn_data.sources.gzip_index import check_gzip, write_seek_points
from gqn_data.sources.npy_mirror import GZIPPED, IMAGES, VIEWPOINTS, ArrayHeader, mirror_file, read_header
from gqn_data.version import TOOL

_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True, kw_only=True)
class MirrorArray:
    """One array file.

    Attributes:
        path: path of the file.
        header: header of the array.
        bytes: size of the file, compressed if it is gzipped.
    """

    path: AnyPath
    header: ArrayHeader
    bytes: int

    @property
    def gzipped(self) -> bool:
        """Whether the file is gzipped."""
        return self.path.name.endswith(GZIPPED)


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """Folder of the mirror's arrays.

    Attributes:
        folder: path of the folder.
        scene_set: scene set of the arrays.
        origin: origin of the scenes.
        layout: layout of every scene.
        splits: images and viewpoints of each split in the folder.
    """

    folder: AnyPath
    scene_set: SceneSet
    origin: Origin
    layout: SceneLayout
    splits: dict[Split, tuple[MirrorArray, MirrorArray]]

    @property
    def gzipped(self) -> list[MirrorArray]:
        """Gzipped arrays, which need seek points."""
        return [array for arrays in self.splits.values() for array in arrays if array.gzipped]


def open_mirror(folder: AnyPath, scene_set: SceneSet, splits: tuple[Split, ...] | None = None) -> Mirror:
    """Open the mirror's arrays in a folder; only their headers are read.

    Args:
        folder: folder of the arrays.
        scene_set: expected scene set.
        splits: splits to open; None for all in the folder.

    Raises:
        ArrayFileError: an array cannot be read in place, or is of another scene set.
        SourceMissing: images or viewpoints are missing, or all arrays of the splits are.
    """
    origin = read_origin(folder)
    if not (folder / SOURCE_FILE).exists():
        origin = Origin(kind="imported", details={"layout": "numpy mirror"})
    layout = layout_of(scene_set, origin)
    found: dict[Split, tuple[MirrorArray, MirrorArray]] = {}
    for split in splits or SPLITS:
        names = [mirror_file(folder, split, what) for what in (IMAGES, VIEWPOINTS)]
        if names == [None, None]:
            continue
        if None in names:
            present, absent = (names[0], VIEWPOINTS) if names[0] else (names[1], IMAGES)
            raise SourceMissing(
                f"{folder}: found only {present}, expected {split}_{absent}.npy[.gz] too; copy it there"
            )
        images, viewpoints = (_array(folder / str(name)) for name in names)
        _check(images, viewpoints, layout, scene_set)
        found[split] = images, viewpoints
    if not found:
        raise SourceMissing(f"{folder}: no arrays of the split {' or '.join(splits or SPLITS)}; copy them there")
    return Mirror(folder=folder, scene_set=scene_set, origin=origin, layout=layout, splits=found)


def _array(path: AnyPath) -> MirrorArray:
    return MirrorArray(path=path, header=read_header(path), bytes=path.stat().st_size)


def _check(images: MirrorArray, viewpoints: MirrorArray, layout: SceneLayout, scene_set: SceneSet) -> None:
    for array, dtype, shape, what in (
        (images, PIXELS, layout.frames_shape, "(scenes, views, height, width, 3)"),
        (viewpoints, NUMBERS, layout.cameras_shape, "(scenes, views, camera numbers)"),
    ):
        found = array.header
        if found.dtype != dtype:
            raise ArrayFileError(f"{array.path}: found {found.dtype}, expected {dtype} {what}")
        if len(found.shape) != len(shape) + 1 or not found.shape[0]:
            raise ArrayFileError(f"{array.path}: found shape {found.shape}, expected {what}")
        if found.shape[1:] != shape:
            raise ArrayFileError(
                f"{array.path}: found scenes of {found.shape[1:]}, expected {shape} for {scene_set.name} "
                f"({layout.because}, cameras of {len(layout.camera_fields)} numbers); name the right set with --set"
            )
    if images.header.shape[0] != viewpoints.header.shape[0]:
        raise ArrayFileError(
            f"{images.path}: found {images.header.shape[0]} scenes, expected {viewpoints.header.shape[0]} "
            f"as in {viewpoints.path.name}; copy both files again"
        )


def mirror_manifest(mirror: Mirror, points: dict[str, FileRow] | None = None) -> Manifest:
    """Return a manifest that reads a mirror in place, with one shard per split.

    Args:
        mirror: arrays of the mirror.
        points: rows of the seek points, by array name; None if nothing will be read.
    """
    layout = mirror.layout
    splits: dict[Split, SplitRow] = {}
    for split, arrays in mirror.splits.items():
        scenes = arrays[0].header.shape[0]
        files = [FileRow(name=array.path.name, bytes=array.bytes, sha256=None) for array in arrays]
        expected = mirror.scene_set.split(split).scenes
        splits[split] = SplitRow(
            scenes=scenes,
            scenes_per_shard=scenes,
            expected_scenes=expected,
            expected_files=len(arrays),
            shards=(
                ShardRow(
                    scenes=scenes,
                    files=(*files, *(points[file.name] for file in files if points and file.name in points)),
                ),
            ),
            sources=tuple(
                SourceRow(name=file.name, bytes=file.bytes, scenes=scenes, expected_scenes=expected) for file in files
            ),
        )
    return Manifest(
        scene_set=mirror.scene_set.name,
        format=FORMAT.name,
        frames=FramesRow(encoding="raw", views=layout.views, height=layout.height, width=layout.width),
        cameras=CamerasRow.of(layout.camera_fields, mirror.scene_set.angles),
        origin=mirror.origin,
        splits=splits,
        tool=TOOL,
        geometry=geometry_of(mirror.scene_set.name, mirror.origin),
    )


@dataclass(frozen=True, kw_only=True)
class _GzipTask:
    """Gzipped array to check if `points` is None, or to write the seek points of."""

    path: Path
    length: int
    points: Path | None


def write_mirror_points(
    mirror: Mirror, index_folder: AnyPath, *, workers: int = 1, executor: Executor | None = None
) -> dict[str, FileRow]:
    """Check the gzipped arrays and write their seek points, unless an earlier run has.

    Args:
        mirror: arrays of the mirror.
        index_folder: folder for the seek points.
        workers: number of processes.
        executor: executor that runs the tasks instead of local processes; it is not shut down.

    Returns:
        Rows of the seek points, by array name.

    Raises:
        ArrayFileError: an array is damaged or truncated.
        OptionError: the index folder is in a store.
    """
    if mirror.gzipped and isinstance(index_folder, StorePath):
        raise OptionError(
            f"{index_folder}: found an object store, expected a local disk for the seek points of the gzipped arrays "
            f"in {mirror.folder}; give a path with --out, then copy the dataset to the store"
        )
    found: dict[str, FileRow] = {}
    tasks: list[_GzipTask] = []
    for array in mirror.gzipped:
        recorded = _recorded_row(array, index_folder)
        if recorded is not None:
            found[array.path.name] = recorded
            continue
        path = atomic.on_disk(array.path, "gzipped arrays belong").absolute()
        points = atomic.on_disk(index_folder / points_name(path.name), "seek points belong").absolute()
        length = array.header.bytes
        # Two passes, in parallel if there are two cores: the one that writes seek points skips the checksum.
        tasks += [_GzipTask(path=path, length=length, points=output) for output in (None, points)]
    total = sum(task.path.stat().st_size for task in tasks)
    with (
        open_pool(min(workers, max(1, len(tasks))), executor, shared=[task.path for task in tasks[:1]]) as running,
        bar(total, "B", "checking arrays", unit_scale=True) as progress,
    ):
        for task, row in zip(tasks, map_in_order(running, _run_gzip_task, tasks, 2 * workers)):
            progress.update(task.path.stat().st_size)
            if row is not None:
                found[task.path.name] = row
    for array in mirror.gzipped:
        row = found[array.path.name]
        strict_json.write_note(_note_path(array, index_folder), {**_version(array), "row": dataclasses.asdict(row)})
    return found


def _run_gzip_task(task: _GzipTask) -> FileRow | None:
    if task.points is None:
        check_gzip(task.path, task.length)
        return None
    with atomic.own_temporaries():
        write_seek_points(task.path, task.length, task.points)
    return FileRow(name=task.points.name, bytes=task.points.stat().st_size, sha256=atomic.sha256_of(task.points))


def _version(array: MirrorArray) -> dict[str, object]:
    stat = array.path.stat()
    version = stat.e_tag if isinstance(stat, Stat) else stat.st_mtime_ns
    return {"bytes": array.bytes, "version": version, "length": array.header.bytes, "tool": TOOL}


def _note_path(array: MirrorArray, index_folder: AnyPath) -> AnyPath:
    return index_folder / f"{points_name(array.path.name)}.json"


def _recorded_row(array: MirrorArray, index_folder: AnyPath) -> FileRow | None:
    try:
        note = strict_json.read_note(_note_path(array, index_folder))
        row = FileRow(**note.pop("row"))
        return row if note == _version(array) and (index_folder / row.name).stat().st_size == row.bytes else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # missing or invalid: check the array again


def array_fault(array: MirrorArray, *, deep: bool) -> str | None:
    """Return the fault of an array's bytes; None if none is found.

    A gzipped array is checked against its checksum. A plain one lacks a checksum: `deep` checks that its viewpoints
    are finite.

    Args:
        array: array to check.
        deep: also read the viewpoints of plain arrays.
    """
    try:
        if array.gzipped:
            check_gzip(atomic.on_disk(array.path, "gzipped arrays belong"), array.header.bytes)
        elif deep and array.header.dtype == NUMBERS:
            file = RangedFile(array.path, array.bytes)
            scenes, *shape = array.header.shape
            rows = Rows(file, array.header.start, NUMBERS, tuple(shape), scenes)
            for first in range(0, scenes, _ROWS_AT_ONCE):
                bad = ~np.isfinite(rows.slice(first, min(_ROWS_AT_ONCE, scenes - first)))
                if bad.any():
                    scene, view, _ = (int(at) for at in np.argwhere(bad)[0])
                    return f"{array.path}: scene {first + scene}: the camera of view {view} is not finite"
    except ArrayFileError as error:
        return str(error)
    return None
