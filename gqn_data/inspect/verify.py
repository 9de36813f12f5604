"""Checking what lies on the disk: checksums of shards and records, and, `deep`, every frame decoded.

Nothing is written. Every fault is found and told, not only the first one. Imports `converting`, `dataset`,
`fetching`, `index`, `manifest`, `source_files`, `tfrecords`, `workers`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from gqn_data.convert.index import note_fault, note_name
from gqn_data.convert.mirror import MirrorArray, array_fault, open_mirror
from gqn_data.dataset import Dataset
from gqn_data.download import refetch
from gqn_data.errors import CorruptFrame, CorruptRecord, GQNError, OriginError, ShardChecksumError
from gqn_data.executors.job_array import Part
from gqn_data.executors.pool import map_in_order, open_pool, usable_cores
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath, StorePath
from gqn_data.io.ranged import RangedFile
from gqn_data.io.strict_json import MAX_BYTES
from gqn_data.progress import bar
from gqn_data.schema.catalog import SceneSet, Split
from gqn_data.schema.layout import SceneLayout
from gqn_data.schema.manifest import (
    CHECKSUM_FILE,
    DESCRIPTION_FILES,
    MANIFEST_FILE,
    FileRow,
    Manifest,
    file_fault,
    read_manifest,
)
from gqn_data.schema.origin import SOURCE_FILE, read_origin
from gqn_data.schema.scene import Scene
from gqn_data.sources.npy_mirror import is_mirror
from gqn_data.sources.raw_folder import open_raw_folder
from gqn_data.tfrecord.example import SceneScanner
from gqn_data.tfrecord.framing import read_records


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was checked, and what is wrong.

    Attributes:
        files: files that were read.
        bytes: bytes that were read.
        scenes: scenes in them.
        frames: frames that were decoded; 0 unless `deep`.
        faults: one line a fault, naming file, record or scene, and what to do.
        fetch_again: the commands that fetch the damaged source files again.
    """

    files: int
    bytes: int
    scenes: int
    frames: int
    faults: tuple[str, ...]
    fetch_again: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _FileTask:
    """One file against its size and checksum."""

    folder: AnyPath
    row: FileRow


@dataclass(frozen=True, kw_only=True)
class _ManifestTask:
    """The manifest and `SHA256SUMS` against each other."""

    folder: AnyPath
    manifest: Manifest


@dataclass(frozen=True, kw_only=True)
class _RecordsTask:
    """One TFRecord, record by record."""

    path: AnyPath
    layout: SceneLayout
    deep: bool


@dataclass(frozen=True, kw_only=True)
class _ShardTask:
    """One shard, frame by frame."""

    folder: AnyPath
    manifest: Manifest
    split: Split
    number: int


@dataclass(frozen=True, kw_only=True)
class _ArrayTask:
    """One array of the numpy mirror."""

    array: MirrorArray
    deep: bool


@dataclass(frozen=True, kw_only=True)
class _Found:
    bytes: int = 0
    files: int = 0
    scenes: int = 0
    frames: int = 0
    faults: tuple[str, ...] = ()


def verify(
    folder: AnyPath,
    scene_set: SceneSet,
    *,
    deep: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    part: Part | None = None,
) -> Verification:
    """Checks a dataset, or a raw folder.

    Args:
        folder: of the dataset, or a raw folder.
        scene_set: the set that it holds.
        deep: decode every frame and look at every camera, too.
        workers: processes; None for one a core.
        executor: does the work instead of processes of this run's own; is not shut down.
        part: check every n-th file and shard only; None for all.

    Raises:
        GQNError: there is nothing to check, or the manifest cannot be used.
    """
    if executor is not None:
        folder = folder.absolute()  # its workers may be anywhere
    tasks = list(_tasks(folder, scene_set, deep))
    if part is not None:
        tasks = part.of(tasks)
    total = sum(_size(task) for task in tasks)
    processes = workers or usable_cores()
    found: list[_Found] = []
    damaged: list[str] = []
    with (
        open_pool(min(processes, len(tasks)), executor, shared=_seen_by_all(tasks)) as running,
        bar(total, "B", "verify", unit_scale=True) as progress,
    ):
        for task, result in zip(tasks, map_in_order(running, _check, tasks, 2 * processes)):
            found.append(result)
            damaged += _source_files(task, folder) if result.faults else []
            progress.update(_size(task))
    return Verification(
        files=sum(result.files for result in found),
        bytes=sum(result.bytes for result in found),
        scenes=sum(result.scenes for result in found),
        frames=sum(result.frames for result in found),
        faults=tuple(fault for result in found for fault in result.faults),
        fetch_again=refetch.commands(folder, scene_set, damaged),
    )


_Task = _ManifestTask | _FileTask | _RecordsTask | _ShardTask | _ArrayTask


def _tasks(folder: AnyPath, scene_set: SceneSet, deep: bool) -> Iterator[_Task]:
    if not (folder / MANIFEST_FILE).exists():
        if is_mirror(folder):
            for arrays in open_mirror(folder, scene_set).splits.values():
                yield from (_ArrayTask(array=array, deep=deep) for array in arrays)
            return
        raw = open_raw_folder(folder, scene_set)
        for files in raw.files.values():
            for file in files:
                yield _RecordsTask(path=file.path, layout=raw.layout, deep=deep)
        return
    manifest = read_manifest(folder)
    yield _ManifestTask(folder=folder, manifest=manifest)
    for row in manifest.all_files():
        yield _FileTask(folder=folder, row=row)
    for split, split_row in manifest.splits.items():
        if manifest.in_place:
            for shard in split_row.shards:
                path = folder / shard.files[0].name
                if path.exists():
                    yield _RecordsTask(path=path, layout=manifest.layout, deep=deep)
        elif deep:
            for number in range(len(split_row.shards)):
                yield _ShardTask(folder=folder, manifest=manifest, split=split, number=number)


def _seen_by_all(tasks: Sequence[_Task]) -> list[AnyPath]:
    """A file that every worker must see: what one does not see would be told as a fault of the data."""
    if not tasks:
        return []
    first = tasks[0]
    if isinstance(first, _ArrayTask):
        return [first.array.path]
    return [first.path if isinstance(first, _RecordsTask) else first.folder / MANIFEST_FILE]


def _source_files(task: _Task, folder: AnyPath) -> list[str]:
    """The source file that a task reads, as it is called in the raw folder; none for other tasks."""
    if isinstance(task, _FileTask):
        return [task.row.name]
    if isinstance(task, _RecordsTask) and isinstance(task.path, Path) and isinstance(folder, Path):
        return [task.path.relative_to(folder).as_posix()]
    return []


def _size(task: _Task) -> int:
    if isinstance(task, _ManifestTask):
        return 0
    if isinstance(task, _FileTask):
        return task.row.bytes if task.row.sha256 else 0
    if isinstance(task, _RecordsTask):
        return task.path.stat().st_size
    if isinstance(task, _ArrayTask):
        return task.array.bytes
    shard = task.manifest.splits[task.split].shards[task.number]
    return sum(file.bytes for file in shard.files)


def _check(task: _Task) -> _Found:
    if isinstance(task, _ManifestTask):
        return _check_manifest(task)
    if isinstance(task, _FileTask):
        return _check_file(task)
    if isinstance(task, _RecordsTask):
        return _check_records(task)
    if isinstance(task, _ArrayTask):
        fault = array_fault(task.array, deep=task.deep)
        return _Found(files=1, bytes=task.array.bytes, faults=() if fault is None else (fault,))
    return _check_shard(task)


def _check_manifest(task: _ManifestTask) -> _Found:
    sums = task.folder / CHECKSUM_FILE
    try:
        text = atomic.read_bounded(sums, MAX_BYTES)
    except FileNotFoundError:
        return _Found(faults=(f"{sums}: absent; convert, index or copy it again",))
    except ValueError as error:
        return _Found(faults=(f"{sums}: {error}; convert, index or copy it again",))
    # Descriptions are checked where they are listed: indexed source files have none, nor have older datasets.
    names = [name for name in DESCRIPTION_FILES if f"  {name}\n".encode() in text]
    found: dict[str, str] = {}
    size = len(text)
    for name in (*names, MANIFEST_FILE):
        path = task.folder / name
        try:
            found[name] = atomic.sha256_of(path)
            size += path.stat().st_size
        except FileNotFoundError:
            found[name] = _NO_CHECKSUM
    faults = _compare_sums(task, text, found) + _beside_source_files(task)
    read = 1 + sum(checksum != _NO_CHECKSUM for checksum in found.values())
    return _Found(files=read, bytes=size, faults=faults)


_NO_CHECKSUM = "-" * 64  # of a file that is absent


def _compare_sums(task: _ManifestTask, text: bytes, found: dict[str, str]) -> tuple[str, ...]:
    """What is wrong with `SHA256SUMS`, and with the files in its last lines, which no manifest lists.

    Args:
        task: whose folder it is.
        text: of `SHA256SUMS`.
        found: the checksums of the files that no manifest lists, by name.
    """
    sums = task.folder / CHECKSUM_FILE
    lines, expected = text.split(b"\n"), task.manifest.checksums(found).encode().split(b"\n")
    own = slice(len(expected) - 1 - len(found), len(expected) - 1)  # the lines of those files; behind them is nothing
    others_agree = lines[: own.start] == expected[: own.start] and lines[own.stop :] == expected[own.stop :]
    if not others_agree or [line[64:] for line in lines[own]] != [line[64:] for line in expected[own]]:
        manifest = task.folder / MANIFEST_FILE
        return (f"{sums}: does not list what {manifest} lists; convert, index or copy both again",)
    faults = []
    for (name, checksum), line, wanted in zip(found.items(), lines[own], expected[own]):
        if line == wanted:
            continue
        path, again = task.folder / name, "convert, index or copy both again"
        if name in DESCRIPTION_FILES:
            again = "copy both again, or remove it and convert again; if you changed it, note its checksum there"
        what = "absent" if checksum == _NO_CHECKSUM else f"SHA-256 is {checksum}"
        faults.append(f"{path}: {what}, {sums} says otherwise; {again}")
    return tuple(faults)


def _beside_source_files(task: _ManifestTask) -> tuple[str, ...]:
    """What is wrong with the files beside indexed source files that no manifest can list."""
    manifest, faults = task.manifest, []
    if manifest.in_place:
        origin = task.folder / SOURCE_FILE
        try:
            if origin.exists() and (found := read_origin(task.folder)) != manifest.origin:
                faults.append(f"{origin}: another origin ({found.kind}) than the manifest says; index the folder again")
        except OriginError as error:
            faults.append(str(error))
        for split in manifest.splits.values():
            notes = (task.folder / note_name(file.name) for shard in split.shards for file in shard.files[1:])
            faults += [fault for fault in map(note_fault, notes) if fault is not None]
    return tuple(faults)


def _damaged_records(path: AnyPath) -> list[str]:
    """The records of a damaged file that do not fit their checksums, where it has records at all."""
    faults: list[str] = []
    if path.name.endswith(".tfrecord") and path.is_file():
        for _ in read_records(path, lambda fault: faults.append(str(fault))):
            pass
    return faults


def _check_file(task: _FileTask) -> _Found:
    path, row = task.folder / task.row.name, task.row
    fault = file_fault(task.folder, row)
    faults = () if fault is None else (fault, *_damaged_records(path))
    if not path.is_file() or (fault is None and row.sha256 is None):
        return _Found(faults=faults)  # nothing was read; the records of a source file are checked one by one
    return _Found(files=1, bytes=path.stat().st_size, faults=faults)


def _check_records(task: _RecordsTask) -> _Found:
    faults: list[str] = []
    scanner = SceneScanner(task.layout)
    size = task.layout.height, task.layout.width
    scenes = frames = 0
    for record in read_records(task.path, lambda fault: faults.append(str(fault))):
        try:
            scene = scanner.scan(record, task.path)
            scenes += 1
            if task.deep:
                views = zip(scene.offsets, scene.lengths)
                encoded = [record.payload[offset : offset + length] for offset, length in views]
                frames += _decode_all(Scene(scene.cameras, encoded=encoded, size=size))
        except CorruptRecord as fault:
            faults.append(str(fault))
        except CorruptFrame as fault:
            faults.append(str(CorruptRecord(task.path, record.number, record.offset, str(fault))))
    return _Found(files=1, bytes=task.path.stat().st_size, scenes=scenes, frames=frames, faults=tuple(faults))


def _check_shard(task: _ShardTask) -> _Found:
    dataset = Dataset(task.folder, task.manifest, task.split)
    if not isinstance(task.folder, StorePath):
        return _decode_shard(dataset, task)
    with tempfile.TemporaryDirectory() as here:  # read as a whole, once, in place of scene by scene
        dataset.read_through(partial(_copied, Path(here)))
        return _decode_shard(dataset, task)


def _copied(folder: Path, path: AnyPath, row: FileRow, _: int | None) -> RangedFile:
    """Opens a copy of a file in a store, made when it is first asked for."""
    copy = folder / row.name
    if isinstance(path, StorePath) and not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            with copy.open("wb") as file:
                file.writelines(path.blocks())
        except FileNotFoundError as error:
            raise ShardChecksumError(f"{path}: listed in the manifest and absent; convert or copy it again") from error
    return RangedFile(copy, row.bytes)


def _decode_shard(dataset: Dataset, task: _ShardTask) -> _Found:
    row = task.manifest.splits[task.split].shards[task.number]
    name = task.folder / row.files[0].name
    faults: list[str] = []
    frames = 0
    try:
        shard = dataset.shard(task.number)
    except GQNError as fault:
        return _Found(faults=(str(fault),))
    for scene in range(row.scenes):
        try:
            frames += _decode_all(shard.scene(scene))
        except CorruptFrame as fault:
            faults.append(f"{name}: scene {scene} of the file: {fault}; convert it again")
        except GQNError as fault:
            faults.append(str(fault))
            break  # the file cannot be read; its other scenes would only say so again
    return _Found(scenes=row.scenes, frames=frames, faults=tuple(faults))


def _decode_all(scene: Scene) -> int:
    """Decodes every view; returns how many.

    Raises:
        CorruptFrame: a frame cannot be decoded, or a camera is not a number.
    """
    if not np.isfinite(scene.cameras).all():
        view = int(np.argwhere(~np.isfinite(scene.cameras))[0][0])
        raise CorruptFrame(f"view {view}: its camera {scene.cameras[view].tolist()} is not finite")
    for view in range(len(scene)):
        try:
            scene.frame(view)
        except CorruptFrame as error:
            raise CorruptFrame(f"view {view}: {error}") from error
    return len(scene)
