"""Indexes of source files: where every frame lies, found in one pass that checks every record.

`index_raw_folder` makes a raw folder trainable in place; `convert` uses the same pass, with the indexes in its
own work folder. Imports `formats`, `manifest`, `source_files`, `tfrecords`, `workers`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Literal

from gqn_data.errors import CorruptRecord, SourceMissing
from gqn_data.executors.job_array import check_no_parts_running
from gqn_data.executors.pool import map_in_order, open_pool
from gqn_data.formats.shards import write_npy
from gqn_data.formats.tfrecord_files import IndexBuilder, index_name
from gqn_data.io import atomic, strict_json
from gqn_data.io.paths import AnyPath, Stat
from gqn_data.progress import bar
from gqn_data.schema.catalog import Split
from gqn_data.schema.layout import SceneLayout
from gqn_data.schema.manifest import (
    CamerasRow,
    FileRow,
    FramesRow,
    Manifest,
    ShardRow,
    SkippedRecord,
    SourceRow,
    SplitRow,
    parse_source,
)
from gqn_data.sources.raw_folder import RawFolder, SourceFile
from gqn_data.tfrecord.example import SceneScanner
from gqn_data.tfrecord.framing import count_records, read_records, report_fault
from gqn_data.version import TOOL

OnCorrupt = Literal["fail", "skip"]


@dataclass(frozen=True, kw_only=True)
class IndexedFile:
    """What one pass over a source file gave."""

    source: SourceRow
    index: FileRow


@dataclass(frozen=True, kw_only=True)
class IndexTask:
    """One source file to look through.

    Attributes:
        file: the source file.
        layout: what every scene should look like.
        index_folder: where its index goes; None to count records by their framing and write nothing.
        on_corrupt: what to do with records that cannot be trusted.
    """

    file: SourceFile
    layout: SceneLayout
    index_folder: AnyPath | None
    on_corrupt: OnCorrupt


def index_file(task: IndexTask) -> IndexedFile:
    """Reads a source file once, checking every record, and writes its index.

    Without an index folder the records are counted by their framing, and none is read.
    A second call returns at once what the first one found, as long as the file has not changed.

    Raises:
        CorruptRecord: a record cannot be trusted, and corrupt ones are not skipped.
    """
    if task.index_folder is None:
        return _count_file(task)
    name = index_name(task.file.name)
    memo = task.index_folder / note_name(name)
    stat = task.file.path.stat()
    seen: dict[str, object] = {
        "bytes": stat.st_size,
        "version": stat.e_tag if isinstance(stat, Stat) else stat.st_mtime_ns,
        "layout": [*task.layout.frames_shape, *task.layout.camera_fields],
        "on_corrupt": task.on_corrupt,
        "tool": TOOL,
    }
    known = _remembered(memo, task.index_folder / name, seen)
    if known is not None:
        return known
    skipped: list[SkippedRecord] = []

    def skip(fault: CorruptRecord) -> None:
        skipped.append(SkippedRecord(record=fault.record, offset=fault.offset, reason=fault.reason))

    on_fault = skip if task.on_corrupt == "skip" else None
    scanner = SceneScanner(task.layout)
    index = IndexBuilder(task.layout)
    for record in read_records(task.file.path, on_fault):
        try:
            scene = scanner.scan(record, task.file.path)
        except CorruptRecord as fault:
            report_fault(fault, on_fault)
            continue
        index.add(record, scene)
    source = SourceRow(
        name=task.file.name,
        bytes=stat.st_size,
        scenes=index.scenes,
        expected_scenes=task.file.expected_scenes,
        skipped=tuple(skipped),
    )
    with atomic.own_temporaries():
        found = IndexedFile(source=source, index=write_npy(task.index_folder, name, index.rows()))
        strict_json.write_note(memo, {**seen, **dataclasses.asdict(found)})
    return found


def _count_file(task: IndexTask) -> IndexedFile:
    scenes = count_records(task.file.path)
    return IndexedFile(
        source=SourceRow(
            name=task.file.name, bytes=task.file.bytes, scenes=scenes, expected_scenes=task.file.expected_scenes
        ),
        index=FileRow(name=index_name(task.file.name), bytes=0, sha256=None),
    )


def note_name(index: str) -> str:
    """The name of the note beside an index: what the indexer saw, for its next run."""
    return index + ".json"


def note_fault(note: AnyPath) -> str | None:
    """What is wrong with a note beside an index; None where it is absent, or what was written."""
    try:
        strict_json.read_note(note)
    except FileNotFoundError:
        return None
    except ValueError as error:
        return f"{note}: damaged ({error}); remove it, or run gqn-data index on the folder again"
    return None


def _remembered(memo: AnyPath, index: AnyPath, seen: dict[str, object]) -> IndexedFile | None:
    try:
        found = found_before(memo, seen)
        return found if found is not None and index.stat().st_size == found.index.bytes else None
    except OSError:
        return None  # not to be read: look at the file again


def found_before(memo: AnyPath, seen: Mapping[str, object]) -> IndexedFile | None:
    """What a note says that a pass over a source file gave; None where there is none, or it is not ours.

    Args:
        memo: the note.
        seen: what it must say beside that: how the file was to be told from another of the same name.
    """
    try:
        value = strict_json.read_note(memo)
        if any(value.get(key) != expected for key, expected in seen.items()):
            return None
        return IndexedFile(source=parse_source(value["source"]), index=FileRow(**value["index"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def index_source_files(
    raw: RawFolder,
    index_folder: AnyPath | None,
    *,
    splits: tuple[Split, ...] | None = None,
    limit: int | None = None,
    on_corrupt: OnCorrupt = "fail",
    workers: int = 1,
    executor: Executor | None = None,
) -> Manifest:
    """Indexes the source files of a raw folder; returns the manifest of them, read in place.

    Args:
        raw: the folder.
        index_folder: where the indexes go, below `train/` and `test/`; None to count records only.
        splits: which splits; None for all that are there.
        limit: at most so many scenes of each split; files beyond are not read.
        on_corrupt: `fail`, or `skip` corrupt records and note them.
        workers: processes.
        executor: does the work instead of processes of this run's own; is not shut down.

    Raises:
        CorruptRecord: a record cannot be trusted, and corrupt ones are not skipped.
        SourceMissing: a split has no scenes at all.
    """
    if executor is not None:
        raw, index_folder = _told_elsewhere(raw), index_folder and index_folder.absolute()
    layout = raw.layout
    first = [files[0].path for files in raw.files.values()]
    kept: dict[Split, list[IndexedFile]] = {}
    with open_pool(workers, executor, shared=first) as running:
        for split, files in raw.files.items():
            if splits is not None and split not in splits:
                continue
            tasks = (
                IndexTask(file=file, layout=layout, index_folder=index_folder, on_corrupt=on_corrupt) for file in files
            )
            found = map_in_order(running, index_file, tasks, 2 * workers)
            kept[split] = _until(limit, found, files, split)
    if not kept:
        raise SourceMissing(f"{raw.folder}: no source files of the split {' or '.join(splits or ())}")
    return manifest_of(raw, kept, limit)


def _told_elsewhere(raw: RawFolder) -> RawFolder:
    """The raw folder as workers must be told of it that may be anywhere: no path depends on where they run."""
    files = {
        split: tuple(dataclasses.replace(file, path=file.path.absolute()) for file in files)
        for split, files in raw.files.items()
    }
    return dataclasses.replace(raw, folder=raw.folder.absolute(), files=files)


def manifest_of(raw: RawFolder, found: Mapping[Split, Sequence[IndexedFile]], limit: int | None) -> Manifest:
    """The manifest of source files that were looked through, read in place.

    Raises:
        SourceMissing: a split has no scenes at all.
    """
    layout = raw.layout
    return Manifest(
        scene_set=raw.scene_set.name,
        format="tfrecord",
        frames=FramesRow(encoding="jpeg", views=layout.views, height=layout.height, width=layout.width),
        cameras=CamerasRow.of(layout.camera_fields, raw.scene_set.angles),
        origin=raw.origin,
        splits={split: _split_row(raw, split, files) for split, files in found.items()},
        limit=limit,
        tool=TOOL,
    )


def _until(
    limit: int | None, found: Iterator[IndexedFile], files: tuple[SourceFile, ...], split: Split
) -> list[IndexedFile]:
    """The results up to the file in which the last scene within the limit lies."""
    kept = []
    scenes = 0
    with bar(sum(file.bytes for file in files), "B", f"checking {split}", unit_scale=True) as progress:
        for result in found:
            kept.append(result)
            scenes += result.source.scenes
            progress.update(result.source.bytes)
            if limit is not None and scenes >= limit:
                break
    return kept


def _split_row(raw: RawFolder, split: Split, found: Sequence[IndexedFile]) -> SplitRow:
    shards = tuple(
        ShardRow(
            scenes=row.source.scenes,
            files=(FileRow(name=row.source.name, bytes=row.source.bytes, sha256=None), row.index),
        )
        for row in found
        if row.source.scenes
    )
    total = sum(shard.scenes for shard in shards)
    if not total:
        raise SourceMissing(
            f"{raw.folder / split}: {len(found)} source files and not one good scene in them; fetch them again"
        )
    facts = raw.scene_set.split(split)
    return SplitRow(
        scenes=total,
        scenes_per_shard=0,
        expected_scenes=facts.scenes,
        expected_files=facts.files,
        shards=shards,
        sources=tuple(row.source for row in found),
    )


def index_raw_folder(
    raw: RawFolder, *, on_corrupt: OnCorrupt = "fail", workers: int = 1, executor: Executor | None = None
) -> Manifest:
    """Makes a raw folder trainable in place: an index beside each source file, and the manifest last.

    Files that did not change since the last run are not read again.

    Raises:
        CorruptRecord: a record cannot be trusted, and corrupt ones are not skipped.
    """
    with atomic.exclusive_writer(raw.folder):
        check_no_parts_running(raw.folder)
        atomic.remove_temporaries(raw.folder)
        manifest = index_source_files(raw, raw.folder, on_corrupt=on_corrupt, workers=workers, executor=executor)
        atomic.remove_temporaries(raw.folder)  # of workers that were lost on the way
        manifest.write(raw.folder)
    return manifest
