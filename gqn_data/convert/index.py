"""Indexes of source files: the position of every frame, found in one pass that checks every record.

`index_raw_folder` makes a raw folder trainable in place. `convert` runs the same pass, with the indexes in its work
folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gqn_data.errors import CorruptRecord, DestinationError, OptionError, SourceMissing
from gqn_data.executors.job_array import check_no_parts_running
from gqn_data.executors.pool import map_in_order, open_pool
from gqn_data.formats.shards import write_npy
from gqn_data.formats.tfrecord_files import IndexBuilder, index_name
from gqn_data.io import atomic, regular, strict_json
from gqn_data.io.paths import AnyPath, Stat
from gqn_data.progress import bar
from gqn_data.schema.catalog import Split
from gqn_data.schema.geometry import geometry_of
from gqn_data.schema.layout import SceneLayout
from gqn_data.schema.manifest import (
    MANIFEST_FILE,
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
from gqn_data.schema.origin import SOURCE_FILE
from gqn_data.sources.raw_folder import RawFolder, SourceFile, open_raw_folder
from gqn_data.tfrecord.example import SceneScanner
from gqn_data.tfrecord.framing import FOOTER_BYTES, count_records, read_records, report_fault
from gqn_data.version import TOOL

OnCorrupt = Literal["fail", "skip"]


@dataclass(frozen=True, kw_only=True)
class IndexedFile:
    """Result of one pass over a source file.

    Attributes:
        source: row of the source file.
        index: row of its index; of 0 bytes if records were only counted.
        tail: see `FileRow.tail`.
    """

    source: SourceRow
    index: FileRow
    tail: str | None = None


@dataclass(frozen=True, kw_only=True)
class IndexTask:
    """One source file to index or count.

    Attributes:
        file: source file.
        layout: expected layout of every scene.
        index_folder: folder for the index; None to count records by their framing and write nothing.
        on_corrupt: `fail` on corrupt records or `skip` them.
    """

    file: SourceFile
    layout: SceneLayout
    index_folder: AnyPath | None
    on_corrupt: OnCorrupt


def index_file(task: IndexTask) -> IndexedFile:
    """Read a source file once, check every record, and write its index.

    Without an index folder, records are counted by their framing and not read. If the file has not changed since an
    earlier call, the recorded result is returned.

    Raises:
        CorruptRecord: a record is corrupt, and corrupt records are not skipped.
    """
    if task.index_folder is None:
        return _count_file(task)
    name = index_name(task.file.name)
    note = task.index_folder / note_name(name)
    stat = task.file.path.stat()
    version: dict[str, object] = {
        "bytes": stat.st_size,
        "version": stat.e_tag if isinstance(stat, Stat) else stat.st_mtime_ns,
        "layout": [*task.layout.frames_shape, *task.layout.camera_fields],
        "on_corrupt": task.on_corrupt,
        "tool": TOOL,
    }
    recorded = _recorded_index(note, task.index_folder / name, version)
    if recorded is not None and recorded.tail == tail_of(task.file.path):
        return recorded
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
        row = write_npy(task.index_folder, name, index.rows())
        found = IndexedFile(source=source, index=row, tail=tail_of(task.file.path))
        strict_json.write_note(note, {**version, **dataclasses.asdict(found)})
    return found


def tail_of(path: AnyPath) -> str | None:
    """Return the last four bytes of a local TFRecord in hexadecimal; None in a store, where that is a request."""
    if not isinstance(path, Path):
        return None
    with regular.open_read(path) as file:
        file.seek(max(0, path.stat().st_size - FOOTER_BYTES))
        data: bytes = file.read(FOOTER_BYTES)
    return data.hex()


def _count_file(task: IndexTask) -> IndexedFile:
    scenes = count_records(task.file.path)
    return IndexedFile(
        source=SourceRow(
            name=task.file.name, bytes=task.file.bytes, scenes=scenes, expected_scenes=task.file.expected_scenes
        ),
        index=FileRow(name=index_name(task.file.name), bytes=0, sha256=None),
    )


def note_name(index: str) -> str:
    """Return the name of the note beside an index, which records the pass for the next run."""
    return index + ".json"


def note_fault(note: AnyPath) -> str | None:
    """Return the fault of a note beside an index; None if it is valid or missing."""
    try:
        strict_json.read_note(note)
    except FileNotFoundError:
        return None
    except ValueError as error:
        return f"{note}: damaged ({error}); remove it, or rerun gqn-data index on the folder"
    return None


def _recorded_index(note: AnyPath, index: AnyPath, version: dict[str, object]) -> IndexedFile | None:
    try:
        recorded = recorded_pass(note, version)
        return recorded if recorded is not None and index.stat().st_size == recorded.index.bytes else None
    except OSError:
        return None  # unreadable: index the file again


def recorded_pass(note: AnyPath, version: Mapping[str, object]) -> IndexedFile | None:
    """Return the result of a pass that a note records; None if the note is missing, damaged or of another version.

    Args:
        note: path of the note.
        version: values that the note must also hold; they identify the version of the source file.
    """
    try:
        value = strict_json.read_note(note)
        if any(value.get(key) != expected for key, expected in version.items()):
            return None
        index = FileRow(**value["index"])
        return IndexedFile(source=parse_source(value["source"]), index=index, tail=value.get("tail"))
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
    """Index the source files of a raw folder, and return a manifest that reads them in place.

    Args:
        raw: raw folder.
        index_folder: folder for the indexes, below `train/` and `test/`; None to count records only.
        splits: splits to index; None for all in the folder.
        limit: maximum number of scenes per split; files past it are not read.
        on_corrupt: `fail`, or `skip` corrupt records and record them.
        workers: number of processes.
        executor: executor that runs the tasks instead of local processes; it is not shut down.

    Raises:
        CorruptRecord: a record is corrupt, and corrupt records are not skipped.
        SourceMissing: a split is without scenes.
    """
    if executor is not None:
        raw, index_folder = _with_absolute_paths(raw), index_folder and index_folder.absolute()
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
            kept[split] = _up_to_limit(limit, found, files, split)
    if not kept:
        raise SourceMissing(
            f"{raw.folder}: found the split {' and '.join(raw.files)}, expected source files of "
            f"the split {' or '.join(splits or ())}"
        )
    return manifest_of(raw, kept, limit)


def _with_absolute_paths(raw: RawFolder) -> RawFolder:
    """Return the raw folder with absolute paths, for workers in other working directories."""
    files = {
        split: tuple(dataclasses.replace(file, path=file.path.absolute()) for file in files)
        for split, files in raw.files.items()
    }
    return dataclasses.replace(raw, folder=raw.folder.absolute(), files=files)


def manifest_of(raw: RawFolder, found: Mapping[Split, Sequence[IndexedFile]], limit: int | None) -> Manifest:
    """Return a manifest that reads indexed or counted source files in place.

    Args:
        raw: raw folder of the files.
        found: results of the passes per split, in source order; empty for a manifest without splits.
        limit: limit that the passes stopped at.

    Raises:
        SourceMissing: a split is without scenes.
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
        geometry=geometry_of(raw.scene_set.name, raw.origin),
    )


def _up_to_limit(
    limit: int | None, found: Iterator[IndexedFile], files: tuple[SourceFile, ...], split: Split
) -> list[IndexedFile]:
    """Return the results up to the file that reaches the limit."""
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
            files=(FileRow(name=row.source.name, bytes=row.source.bytes, sha256=None, tail=row.tail), row.index),
        )
        for row in found
        if row.source.scenes
    )
    total = sum(shard.scenes for shard in shards)
    if not total:
        raise SourceMissing(
            f"{raw.folder / split}: found 0 valid scenes in {len(found)} source files, expected 1 or more; "
            "download them again"
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
    """Make a raw folder trainable in place: write an index beside each source file, then the manifest.

    Files that have not changed since the last run are not read again.

    Raises:
        CorruptRecord: a record is corrupt, and corrupt records are not skipped.
        DestinationError: another run is writing in the folder.
        SourceMissing: a split is without scenes.
    """
    atomic.is_present(raw.folder / MANIFEST_FILE)  # raises for a link that leads nowhere
    with atomic.exclusive_writer(raw.folder):
        check_no_parts_running(raw.folder)
        atomic.remove_temporaries(raw.folder)
        manifest = index_source_files(raw, raw.folder, on_corrupt=on_corrupt, workers=workers, executor=executor)
        atomic.remove_temporaries(raw.folder)  # of lost workers
        manifest.write(raw.folder)
    return manifest


def link_raw_folder(raw: RawFolder, folder: Path) -> RawFolder:
    """Make a folder of symbolic links to the source files, to index files on read-only storage; return it.

    Links that are there already stay. The source files must keep their place.

    Args:
        raw: raw folder on a disk.
        folder: folder of the links; created if missing.

    Raises:
        OptionError: the source files are in a store.
        DestinationError: the folder holds something else under the name of a source file.
    """
    if not isinstance(raw.folder, Path):
        raise OptionError(f"{raw.folder}: in a store, expected source files on a disk. Convert them: gqn-data convert")
    names = [file.name for files in raw.files.values() for file in files]
    if atomic.is_present(raw.folder / SOURCE_FILE):
        names.append(SOURCE_FILE)
    for name in names:
        source, link = raw.folder.resolve() / name, folder / name
        atomic.make_folder(link.parent)
        with contextlib.suppress(FileExistsError):
            link.symlink_to(source)
        if not link.is_symlink() or link.readlink() != source:
            raise DestinationError(f"{link}: exists, expected a link to {source}. Pass another --out")
    return open_raw_folder(folder, raw.scene_set)


@contextlib.contextmanager
def temporary_index(raw: RawFolder, splits: tuple[Split, ...] | None, scenes: int) -> Iterator[Path]:
    """Index the first scenes of a raw folder on a disk into a temporary folder, for a look at them.

    Args:
        raw: raw folder.
        splits: splits to index; None for the first one that has files.
        scenes: number of scenes of each split; files past them are not read.
    """
    with tempfile.TemporaryDirectory(prefix="gqn-index-") as name:
        linked = link_raw_folder(raw, Path(name) / "links")
        chosen = splits if splits is not None else (next(iter(raw.files)),)
        index_source_files(linked, linked.folder, splits=chosen, limit=scenes).write(linked.folder)
        yield Path(name) / "links"
