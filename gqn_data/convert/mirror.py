"""The public numpy mirror as a source: one array a split, found by its name, held against what is known of the set.

Gzipped arrays are looked through once before anything is copied: gzip's checksum is tested, and seek points are made
from which workers read on their own. Imports `formats`, `layout`, `manifest`, `source_files`, `workers`.
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
        path: of the file.
        header: what it says.
        bytes: its size as it is.
    """

    path: AnyPath
    header: ArrayHeader
    bytes: int

    @property
    def gzipped(self) -> bool:
        """Whether it is gzipped."""
        return self.path.name.endswith(GZIPPED)


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """A folder of the mirror's arrays.

    Attributes:
        folder: where they are.
        scene_set: the set that they hold.
        origin: where its scenes come from.
        layout: what every scene looks like.
        splits: images and viewpoints of the splits that are there.
    """

    folder: AnyPath
    scene_set: SceneSet
    origin: Origin
    layout: SceneLayout
    splits: dict[Split, tuple[MirrorArray, MirrorArray]]

    @property
    def gzipped(self) -> list[MirrorArray]:
        """The arrays that have to be looked through."""
        return [array for arrays in self.splits.values() for array in arrays if array.gzipped]


def open_mirror(folder: AnyPath, scene_set: SceneSet, splits: tuple[Split, ...] | None = None) -> Mirror:
    """The mirror's arrays in a folder, by their headers.

    Args:
        folder: holds them.
        scene_set: the set that they should hold.
        splits: which splits; None for all that are there.

    Raises:
        ArrayFileError: an array that cannot be read as it is, or holds another set.
        SourceMissing: images without viewpoints, or the other way; none of the splits asked for.
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
            there, absent = (names[0], VIEWPOINTS) if names[0] else (names[1], IMAGES)
            raise SourceMissing(f"{folder}: {there} is there, and {split}_{absent}.npy[.gz] is not; copy it beside")
        images, viewpoints = (_array(folder / str(name)) for name in names)
        _check(images, viewpoints, layout, scene_set)
        found[split] = images, viewpoints
    if not found:
        raise SourceMissing(f"{folder}: no arrays of the split {' or '.join(splits or SPLITS)}")
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
            raise ArrayFileError(f"{array.path}: of {found.dtype}, expected {dtype} {what}")
        if len(found.shape) != len(shape) + 1 or not found.shape[0]:
            raise ArrayFileError(f"{array.path}: of shape {found.shape}, expected {what}")
        if found.shape[1:] != shape:
            raise ArrayFileError(
                f"{array.path}: scenes of {found.shape[1:]}, expected {shape} ({layout.because}, "
                f"cameras of {len(layout.camera_fields)} numbers); name the right set with --set, not {scene_set.name}"
            )
    if images.header.shape[0] != viewpoints.header.shape[0]:
        raise ArrayFileError(
            f"{images.path}: {images.header.shape[0]} scenes, and {viewpoints.path.name} has "
            f"{viewpoints.header.shape[0]}; they are not of one copy: copy both again"
        )


def mirror_manifest(mirror: Mirror, points: dict[str, FileRow] | None = None) -> Manifest:
    """The manifest of a mirror, read in place; one shard a split.

    Args:
        mirror: the arrays.
        points: the rows of the seek points, by the name of their array; None where nothing will be read.
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
    )


@dataclass(frozen=True, kw_only=True)
class _LookTask:
    """A gzipped array to check (where `points` is None), or to make the seek points of."""

    path: Path
    length: int
    points: Path | None


def look_through(
    mirror: Mirror, index_folder: AnyPath, *, workers: int = 1, executor: Executor | None = None
) -> dict[str, FileRow]:
    """Checks the gzipped arrays and makes their seek points; what an earlier run did is not done again.

    Args:
        mirror: the arrays.
        index_folder: where the seek points go.
        workers: processes.
        executor: does the work instead of processes of this run's own; is not shut down.

    Returns:
        The rows of the seek points, by the name of their array.

    Raises:
        ArrayFileError: an array is damaged or cut short.
        OptionError: the index folder is in a store.
    """
    if mirror.gzipped and isinstance(index_folder, StorePath):
        raise OptionError(
            f"{mirror.folder}: gzipped arrays are converted to a disk, where their seek points lie meanwhile; "
            "write to one with --out, and copy the dataset to the store"
        )
    found: dict[str, FileRow] = {}
    tasks: list[_LookTask] = []
    for array in mirror.gzipped:
        known = _remembered(array, index_folder)
        if known is not None:
            found[array.path.name] = known
            continue
        path = atomic.on_disk(array.path, "gzipped arrays belong").absolute()
        points = atomic.on_disk(index_folder / points_name(path.name), "seek points belong").absolute()
        length = array.header.bytes
        # Two passes, at the same time where there are two cores: the one that makes seek points checks no checksum.
        tasks += [_LookTask(path=path, length=length, points=to) for to in (None, points)]
    total = sum(task.path.stat().st_size for task in tasks)
    with (
        open_pool(min(workers, max(1, len(tasks))), executor, shared=[task.path for task in tasks[:1]]) as running,
        bar(total, "B", "looking through", unit_scale=True) as progress,
    ):
        for task, row in zip(tasks, map_in_order(running, _look, tasks, 2 * workers)):
            progress.update(task.path.stat().st_size)
            if row is not None:
                found[task.path.name] = row
    for array in mirror.gzipped:
        row = found[array.path.name]
        strict_json.write_note(_note(array, index_folder), {**_seen(array), "row": dataclasses.asdict(row)})
    return found


def _look(task: _LookTask) -> FileRow | None:
    if task.points is None:
        check_gzip(task.path, task.length)
        return None
    with atomic.own_temporaries():
        write_seek_points(task.path, task.length, task.points)
    return FileRow(name=task.points.name, bytes=task.points.stat().st_size, sha256=atomic.sha256_of(task.points))


def _seen(array: MirrorArray) -> dict[str, object]:
    stat = array.path.stat()
    version = stat.e_tag if isinstance(stat, Stat) else stat.st_mtime_ns
    return {"bytes": array.bytes, "version": version, "length": array.header.bytes, "tool": TOOL}


def _note(array: MirrorArray, index_folder: AnyPath) -> AnyPath:
    return index_folder / f"{points_name(array.path.name)}.json"


def _remembered(array: MirrorArray, index_folder: AnyPath) -> FileRow | None:
    try:
        note = strict_json.read_note(_note(array, index_folder))
        row = FileRow(**note.pop("row"))
        return row if note == _seen(array) and (index_folder / row.name).stat().st_size == row.bytes else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or not ours: it is looked through again


def array_fault(array: MirrorArray, *, deep: bool) -> str | None:
    """What is wrong with an array's bytes, as far as that can be told; None where nothing is.

    A gzipped one carries a checksum of its own; of another nothing is known but its size, and, `deep`, that
    viewpoints are numbers.
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
