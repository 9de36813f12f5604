"""Check a dataset or a raw folder: checksums of files and records and, if `deep`, every frame and camera.

Writes nothing and reports every fault, not only the first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gqn_data.convert.index import note_fault, note_name
from gqn_data.convert.mirror import MirrorArray, array_fault, open_mirror
from gqn_data.counts import as_count
from gqn_data.dataset import Dataset
from gqn_data.download import refetch
from gqn_data.errors import CorruptFrame, CorruptRecord, GQNError, IrregularFile, OriginError, ShardChecksumError
from gqn_data.executors.job_array import Part
from gqn_data.executors.pool import map_in_order, open_pool, usable_cores
from gqn_data.formats.shards import index_dtype
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath, StorePath
from gqn_data.io.ranged import RangedFile, npy_header
from gqn_data.io.strict_json import MAX_BYTES
from gqn_data.progress import bar
from gqn_data.schema.cameras import check_finite
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
from gqn_data.tfrecord.example import ScannedScene, SceneScanner
from gqn_data.tfrecord.framing import HEADER_BYTES, Record, read_records


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The result of `verify`.

    Attributes:
        files: number of files read.
        bytes: number of bytes read.
        scenes: number of scenes in them.
        frames: number of frames decoded; 0 unless `deep`.
        faults: one line per fault, with the file, the record or scene, and the remedy.
        fetch_again: commands that fetch the damaged source files again.
    """

    files: int
    bytes: int
    scenes: int
    frames: int
    faults: tuple[str, ...]
    fetch_again: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Found:
    """The result of one check; fields as in `Verification`."""

    bytes: int = 0
    files: int = 0
    scenes: int = 0
    frames: int = 0
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Check:
    """One unit of work of `verify`; pickled for workers.

    Attributes:
        work: does the check.
        bytes: bytes that it reads, for the progress bar.
        witness: a file that every worker must see. A worker without it would report sound data as missing.
        source_file: name of the source file that it reads, relative to the raw folder; None for other checks.
    """

    work: Callable[[], _Found]
    bytes: int
    witness: AnyPath
    source_file: str | None = None

    def run(self) -> _Found:
        """Run the check."""
        try:
            return self.work()
        except IrregularFile as fault:
            return _Found(faults=(str(fault),))


def verify(
    folder: AnyPath,
    scene_set: SceneSet,
    *,
    deep: bool = False,
    workers: int | None = None,
    executor: Executor | None = None,
    part: Part | None = None,
) -> Verification:
    """Check a dataset or a raw folder.

    Args:
        folder: the folder of the dataset, or a raw folder.
        scene_set: the scene set in it.
        deep: also decode every frame and check every camera.
        workers: number of processes; None for one per core.
        executor: runs the checks instead of new processes; it is not shut down.
        part: check every n-th file and shard only; None for all.

    Raises:
        GQNError: the folder holds nothing to check, or the manifest cannot be used.
    """
    workers = None if workers is None else as_count("workers", workers, 1)
    if executor is not None:
        folder = folder.absolute()  # its workers may run in other directories
    checks = list(_checks(folder, scene_set, deep))
    if part is not None:
        checks = part.of(checks)
    processes = workers or usable_cores()
    found: list[_Found] = []
    damaged: list[str] = []
    with (
        open_pool(min(processes, len(checks)), executor, shared=[check.witness for check in checks[:1]]) as running,
        bar(sum(check.bytes for check in checks), "B", "verify", unit_scale=True) as progress,
    ):
        for check, result in zip(checks, map_in_order(running, Check.run, checks, 2 * processes)):
            found.append(result)
            if result.faults and check.source_file is not None:
                damaged.append(check.source_file)
            progress.update(check.bytes)
    return Verification(
        files=sum(result.files for result in found),
        bytes=sum(result.bytes for result in found),
        scenes=sum(result.scenes for result in found),
        frames=sum(result.frames for result in found),
        faults=tuple(fault for result in found for fault in result.faults),
        fetch_again=refetch.commands(folder, scene_set, damaged),
    )


def _checks(folder: AnyPath, scene_set: SceneSet, deep: bool) -> Iterator[Check]:
    """Yield the checks of a folder, in the order in which faults are reported."""
    if not atomic.is_present(folder / MANIFEST_FILE):
        if is_mirror(folder):
            for arrays in open_mirror(folder, scene_set).splits.values():
                for array in arrays:
                    yield Check(work=partial(_check_array, array, deep), bytes=array.bytes, witness=array.path)
            return
        raw = open_raw_folder(folder, scene_set)
        for files in raw.files.values():
            for file in files:
                yield _records_check(folder, file.path, raw.layout, deep)
        return
    manifest = read_manifest(folder)
    witness = folder / MANIFEST_FILE
    yield Check(work=partial(_check_manifest, folder, manifest), bytes=0, witness=witness)
    for row in manifest.all_files():
        size = row.bytes if row.sha256 else 0
        yield Check(work=partial(_check_file, folder, row), bytes=size, witness=witness, source_file=row.name)
    for split, split_row in manifest.splits.items():
        if manifest.in_place:
            for shard in split_row.shards:
                path = folder / shard.files[0].name
                if atomic.is_present(path):
                    yield _records_check(folder, path, manifest.layout, deep, folder / shard.files[-1].name)
        elif deep:
            for number, shard in enumerate(split_row.shards):
                work = partial(_check_shard, folder, manifest, split, number)
                yield Check(work=work, bytes=sum(file.bytes for file in shard.files), witness=witness)


def _records_check(
    folder: AnyPath, path: AnyPath, layout: SceneLayout, deep: bool, index: AnyPath | None = None
) -> Check:
    """Return the check of one TFRecord, also against its index if it has one."""
    name = path.relative_to(folder).as_posix() if isinstance(path, Path) and isinstance(folder, Path) else None
    work = partial(_check_records, path, layout, deep, index)
    return Check(work=work, bytes=path.stat().st_size, witness=path, source_file=name)


def _check_array(array: MirrorArray, deep: bool) -> _Found:
    """Check one array of the numpy mirror."""
    fault = array_fault(array, deep=deep)
    return _Found(files=1, bytes=array.bytes, faults=() if fault is None else (fault,))


def _check_manifest(folder: AnyPath, manifest: Manifest) -> _Found:
    """Check the manifest and `SHA256SUMS` against each other."""
    sums = folder / CHECKSUM_FILE
    try:
        text = atomic.read_bounded(sums, MAX_BYTES)
    except FileNotFoundError:
        return _Found(faults=(f"{sums}: missing; convert, index or copy it again",))
    except ValueError as error:
        return _Found(faults=(f"{sums}: {error}; convert, index or copy it again",))
    # Only if listed: indexed source files and older datasets come without descriptions.
    names = [name for name in DESCRIPTION_FILES if f"  {name}\n".encode() in text]
    found: dict[str, str] = {}
    size = len(text)
    for name in (*names, MANIFEST_FILE):
        path = folder / name
        try:
            found[name] = atomic.sha256_of(path)
            size += path.stat().st_size
        except FileNotFoundError:
            found[name] = _NO_CHECKSUM
    faults = _compare_sums(folder, manifest, text, found) + _check_notes(folder, manifest)
    read = 1 + sum(checksum != _NO_CHECKSUM for checksum in found.values())
    return _Found(files=read, bytes=size, faults=faults)


_NO_CHECKSUM = "-" * 64  # of a missing file


def _compare_sums(folder: AnyPath, manifest: Manifest, text: bytes, found: dict[str, str]) -> tuple[str, ...]:
    """Return the faults of `SHA256SUMS` and of the files in its last lines, which the manifest does not list.

    Args:
        folder: the folder of the dataset.
        manifest: its manifest.
        text: content of `SHA256SUMS`.
        found: checksums, by name, of the files that the manifest does not list.
    """
    sums = folder / CHECKSUM_FILE
    lines, expected = text.split(b"\n"), manifest.checksums(found).encode().split(b"\n")
    own = slice(len(expected) - 1 - len(found), len(expected) - 1)  # the lines of those files, which come last
    others_agree = lines[: own.start] == expected[: own.start] and lines[own.stop :] == expected[own.stop :]
    if not others_agree or [line[64:] for line in lines[own]] != [line[64:] for line in expected[own]]:
        return (f"{sums}: does not match {folder / MANIFEST_FILE}; convert, index or copy both again",)
    faults = []
    for (name, checksum), line, wanted in zip(found.items(), lines[own], expected[own]):
        if line == wanted:
            continue
        path, again = folder / name, "convert, index or copy both again"
        if name in DESCRIPTION_FILES:
            again = "copy both again, or remove it and convert again; if you edited it, put its checksum there"
        what = "missing" if checksum == _NO_CHECKSUM else f"SHA-256 is {checksum}"
        faults.append(f"{path}: {what}, not as listed in {sums}; {again}")
    return tuple(faults)


def _check_notes(folder: AnyPath, manifest: Manifest) -> tuple[str, ...]:
    """Return the faults of the files beside indexed source files that no manifest lists."""
    if not manifest.in_place:
        return ()
    faults = []
    origin = folder / SOURCE_FILE
    try:
        if origin.exists() and (found := read_origin(folder)) != manifest.origin:
            faults.append(f"{origin}: origin is {found.kind}, not the one in the manifest; index the folder again")
    except OriginError as error:
        faults.append(str(error))
    for split in manifest.splits.values():
        notes = (folder / note_name(file.name) for shard in split.shards for file in shard.files[1:])
        faults += [fault for fault in map(note_fault, notes) if fault is not None]
    return tuple(faults)


def _damaged_records(path: AnyPath) -> list[str]:
    """Return the faults of the records in a damaged file; empty unless it is a TFRecord."""
    faults: list[str] = []
    if path.name.endswith(".tfrecord") and path.is_file():
        for _ in read_records(path, lambda fault: faults.append(str(fault))):
            pass
    return faults


def _check_file(folder: AnyPath, row: FileRow) -> _Found:
    """Check one file against its size and checksum."""
    path = folder / row.name
    fault = file_fault(folder, row)
    faults = () if fault is None else (fault, *_damaged_records(path))
    if not path.is_file() or (fault is None and row.sha256 is None):
        return _Found(faults=faults)  # nothing was read; the records of a source file have their own check
    return _Found(files=1, bytes=path.stat().st_size, faults=faults)


def _check_records(path: AnyPath, layout: SceneLayout, deep: bool, index: AnyPath | None = None) -> _Found:
    """Check one TFRecord, record by record, also against its index."""
    faults: list[str] = []
    scanner = SceneScanner(layout)
    size = layout.height, layout.width
    scenes = frames = 0
    rows = None if index is None else _read_rows(index, layout)
    for record in read_records(path, lambda fault: faults.append(str(fault))):
        try:
            scene = scanner.scan(record, path)
            if rows is not None and not _is_indexed(record, scene, rows):
                faults.append(f"{path}: {index} describes other scenes; index the folder again")
                rows = None
            scenes += 1
            if deep:
                views = zip(scene.offsets, scene.lengths)
                encoded = [record.payload[offset : offset + length] for offset, length in views]
                frames += _decode_all(Scene(scene.cameras, encoded=encoded, size=size))
        except CorruptRecord as fault:
            faults.append(str(fault))
        except CorruptFrame as fault:
            faults.append(str(CorruptRecord(path, record.number, record.offset, str(fault))))
    return _Found(files=1, bytes=path.stat().st_size, scenes=scenes, frames=frames, faults=tuple(faults))


def _read_rows(index: AnyPath, layout: SceneLayout) -> NDArray[np.void] | None:
    """Return the rows of an index; None if it cannot be read, which the check of its file reports."""
    dtype = index_dtype(layout)
    try:
        file = RangedFile(index)
        head = len(npy_header(dtype, (0,)))
        return np.frombuffer(file.read(head, file.size - head), dtype)
    except (GQNError, OSError, ValueError):
        return None


def _is_indexed(record: Record, scene: ScannedScene, rows: NDArray[np.void]) -> bool:
    """Return whether a row of the index describes a record. Rows are in the order of the records."""
    number = int(np.searchsorted(rows["record"], record.offset))
    if number >= len(rows):
        return False
    row = rows[number]
    starts = np.asarray(scene.offsets) + record.offset + HEADER_BYTES
    return bool(
        row["record"] == record.offset
        and (row["offset"] == starts).all()
        and (row["length"] == scene.lengths).all()
        and (row["cameras"] == scene.cameras).all()
    )


def _check_shard(folder: AnyPath, manifest: Manifest, split: Split, number: int) -> _Found:
    """Check one shard, frame by frame."""
    dataset = Dataset(folder, manifest, split)
    if not isinstance(folder, StorePath):
        return _decode_shard(folder, dataset, number)
    with tempfile.TemporaryDirectory() as here:  # one download of the whole file instead of a request per scene
        dataset.read_through(partial(_open_copy, Path(here)))
        return _decode_shard(folder, dataset, number)


def _open_copy(folder: Path, path: AnyPath, row: FileRow, _: int | None) -> RangedFile:
    """Open a local copy of a file in a store; download it on first use."""
    copy = folder / row.name
    if isinstance(path, StorePath) and not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            with copy.open("wb") as file:
                file.writelines(path.blocks())
        except FileNotFoundError as error:
            raise ShardChecksumError(f"{path}: listed in the manifest and absent; convert or copy it again") from error
    return RangedFile(copy, row.bytes)


def _decode_shard(folder: AnyPath, dataset: Dataset, number: int) -> _Found:
    """Decode every frame of a shard."""
    row = dataset.shards[number]
    name = folder / row.files[0].name
    faults: list[str] = []
    frames = 0
    try:
        shard = dataset.shard(number)
    except GQNError as fault:
        return _Found(faults=(str(fault),))
    for scene in range(row.scenes):
        try:
            frames += _decode_all(shard.scene(scene))
        except CorruptFrame as fault:
            faults.append(f"{name}: scene {scene} of the file: {fault}; convert it again")
        except GQNError as fault:
            faults.append(str(fault))
            break  # the file cannot be read; its other scenes would repeat the fault
    return _Found(scenes=row.scenes, frames=frames, faults=tuple(faults))


def _decode_all(scene: Scene) -> int:
    """Decode every view and return their number.

    Raises:
        CorruptFrame: a frame cannot be decoded, or a camera is not finite.
    """
    check_finite(scene.cameras)
    for view in range(len(scene)):
        try:
            scene.frame(view)
        except CorruptFrame as error:
            raise CorruptFrame(f"view {view}: {error}") from error
    return len(scene)
