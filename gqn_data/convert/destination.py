"""The destination of a conversion: whether the dataset is there already, and how it becomes one.

Imports `manifest`, `plan`, `publishing`, `source_files`, `work`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gqn_data.convert.journal import Done, WorkFolder, is_there
from gqn_data.convert.plan import Options, Plan, Source, identity, limited, make_plan
from gqn_data.errors import DestinationError, ManifestError, SourceMissing
from gqn_data.executors.job_array import check_no_parts_running
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath
from gqn_data.publish import descriptions
from gqn_data.schema.manifest import (
    CHECKSUM_FILE,
    DESCRIPTION_FILES,
    MANIFEST_FILE,
    FileRow,
    Manifest,
    ShardRow,
    SourceRow,
    read_manifest,
)
from gqn_data.sources.raw_folder import RawFolder

WORK_FOLDER = ".work"

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What became of one container.

    Attributes:
        folder: of the dataset.
        manifest: what it says.
        written: shards that this run wrote.
        kept: shards that were there already.
        seconds: that this run took for writing.
    """

    folder: AnyPath
    manifest: Manifest
    written: int
    kept: int
    seconds: float


@contextlib.contextmanager
def working_in(work: AnyPath) -> Iterator[None]:
    """Holds the work folder for this process, while no part is at work in it."""
    with remove_if_empty(work), atomic.exclusive_writer(work):
        check_no_parts_running(work)
        yield


@contextlib.contextmanager
def remove_if_empty(work: AnyPath) -> Iterator[None]:
    """Removes the work folder at the end, however that comes, where it is empty."""
    try:
        yield
    finally:
        if isinstance(work, Path):
            with contextlib.suppress(OSError):  # not empty: another set is being converted, or this one in part
                work.rmdir()
                work.parent.rmdir()


def scratch_folder(work: AnyPath) -> Path:
    """Where source files lie while they are needed: in the work folder, or on this machine if that is in a store."""
    if isinstance(work, Path):
        return work
    from gqn_data.cache.shard_cache import default_folder

    return default_folder() / "arriving" / str(work).replace("/", "_").replace(":", "")


_REPLACE = "replace it with --overwrite, or write elsewhere with --out or --root"


def find_complete(
    destinations: Mapping[str, AnyPath],
    source_as_noted: Callable[[Manifest], Source | None],
    work: AnyPath,
    options: Options,
    log: Say,
) -> dict[str, Conversion]:
    """Of several containers those that are there and whole; nothing is, where datasets are to be replaced.

    Args:
        destinations: where each would be written, by the name of its format.
        source_as_noted: as for `completed`.
        work: the work folder of the set; what a run left there that was cut off when all was written is removed.
        options: how.
        log: called of each that is whole.

    Raises:
        DestinationError: a destination holds another dataset.
    """
    done: dict[str, Conversion] = {}
    for name, destination in destinations.items():
        whole = None if options.overwrite else completed(source_as_noted, name, destination, options)
        if whole is not None:
            log(f"{name}: {destination} is whole already; nothing to do")
            WorkFolder(work / name).remove()
            done[name] = whole
    return done


def completed(
    source_as_noted: Callable[[Manifest], Source | None], format_name: str, destination: AnyPath, options: Options
) -> Conversion | None:
    """The conversion that this command would give, where it is there and whole; None where there is work to do.

    Args:
        source_as_noted: gives the source as the destination's manifest remembers it, or None if it is another now.
        format_name: of the container.
        destination: where it would be written.
        options: how.

    Raises:
        DestinationError: the destination holds another dataset.
    """
    if not (destination / MANIFEST_FILE).exists():
        return None
    try:
        manifest = read_manifest(destination)
        source = source_as_noted(manifest)
    except SourceMissing:
        raise
    except Exception as error:
        raise DestinationError(f"{destination}: holds a dataset that cannot be used ({error}); {_REPLACE}") from error
    if source is None or identity(make_plan(source, format_name, destination, options).manifest) != identity(manifest):
        raise DestinationError(
            f"{destination}: holds a dataset of other source files or options "
            f"({scenes_text(manifest)} by {manifest.tool}); {_REPLACE}"
        )
    beside = all((destination / name).exists() for name in (*DESCRIPTION_FILES, CHECKSUM_FILE))
    whole = beside and all(is_there(destination, row) for row in manifest.all_files())
    if not whole:
        return None  # what is missing is made again
    shards = sum(len(split.shards) for split in manifest.splits.values())
    return Conversion(folder=destination, manifest=manifest, written=0, kept=shards, seconds=0.0)


def raw_as_noted(raw: RawFolder, noted: Manifest, options: Options) -> Source | None:
    """Source files as a destination's manifest remembers them, if they still are those; without reading them."""
    splits = {}
    for name, split in noted.splits.items():
        there = [(file.name, file.bytes) for file in raw.files.get(name, ())]
        known = [(row.name, row.bytes) for row in split.sources]
        if options.limit is not None:
            there = there[: len(known)]
        skipped = any(row.skipped for row in split.sources)
        if there != known or (skipped and options.on_corrupt == "fail"):
            return None
        shards = tuple(_as_shard(row) for row in split.sources if row.scenes)
        scenes = sum(shard.scenes for shard in shards)
        splits[name] = dataclasses.replace(split, scenes=scenes, shards=shards, files=())
    wanted = set(raw.files) if options.splits is None else set(raw.files) & set(options.splits)
    if set(splits) != wanted:
        return None
    frames = dataclasses.replace(noted.frames, encoding="jpeg", decoder=None, jpeg_quality=None)
    manifest = dataclasses.replace(noted, format="tfrecord", frames=frames, origin=raw.origin, splits=splits)
    return Source(folder=raw.folder, manifest=limited(dataclasses.replace(manifest, limit=None), options))


def _as_shard(row: SourceRow) -> ShardRow:
    return ShardRow(scenes=row.scenes, files=(FileRow(name=row.name, bytes=row.bytes, sha256=None),))


def scenes_text(manifest: Manifest) -> str:
    """The scenes of each split, as text."""
    return " + ".join(f"{row.scenes} {name}" for name, row in manifest.splits.items()) + " scenes"


def held_bytes(folder: AnyPath) -> int:
    """The bytes of the dataset in a folder; 0 where there is none that can be read."""
    try:
        return sum(row.bytes for row in read_manifest(folder).all_files())
    except ManifestError:
        return 0


def complete(plan: Plan, done: Done, work: WorkFolder) -> Manifest:
    """Writes the manifest, all shards being there; the folder is a dataset from here on."""
    manifest = _with_rows(plan, done)
    manifest.write(plan.folder, descriptions(manifest))
    work.remove()
    return manifest


def _with_rows(plan: Plan, done: Done) -> Manifest:
    """The whole manifest, when all shards are there; writes the container's own metadata."""
    splits = {}
    for name, split in plan.manifest.splits.items():
        rows = tuple(done[name, place.number] for place in plan.places if place.split == name)
        splits[name] = dataclasses.replace(split, shards=rows)
    manifest = dataclasses.replace(plan.manifest, splits=splits)
    files = plan.format.finish(plan.folder, manifest)
    for name, split in splits.items():
        splits[name] = dataclasses.replace(split, files=files.get(name, ()))
    return dataclasses.replace(manifest, splits=splits)
