"""Conversion: a raw folder, or any dataset, into another container.

Source files are counted, the shards are planned from the counts that were found, workers write whole shards and
check every record on the way, the manifest comes last. A run can be cut off at any moment; the same command then
goes on where it was, and ends with the same bytes.

Imports `dataset`, `formats`, `index`, `manifest`, `plan`, `publishing`, `sources`, `work`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gqn_data import storage
from gqn_data.copying import ShardTask, write_shard
from gqn_data.errors import DestinationError, ManifestError, SourceMissing
from gqn_data.index import index_source_files
from gqn_data.manifest import (
    CHECKSUM_FILE,
    DESCRIPTION_FILES,
    MANIFEST_FILE,
    FileRow,
    Manifest,
    ShardRow,
    SourceRow,
    read_manifest,
)
from gqn_data.places import Place
from gqn_data.plan import Options, Plan, Source, identity, limited, make_plan
from gqn_data.progress import bar
from gqn_data.publishing import descriptions
from gqn_data.scene_sets import SceneSet, Split
from gqn_data.sources import RawFolder, converted_folder, open_raw_folder
from gqn_data.work import WorkFolder, is_there
from gqn_data.workers import map_in_order, pool

_WORK = ".work"

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

    folder: Place
    manifest: Manifest
    written: int
    kept: int
    seconds: float


def convert(
    folder: Place, scene_set: SceneSet, root: Place, options: Options, say: Say = lambda _: None
) -> list[Conversion]:
    """Converts a raw folder or a dataset into the containers asked for, below the data root.

    Args:
        folder: a raw folder, or the folder of a dataset.
        scene_set: the set that it holds.
        root: the data root for what is written: `<root>/<format>/<set>/`.
        options: how.
        say: told what is about to be done, a line at a time.

    Raises:
        GQNError: any fault of the source, of the destination or of the disk; nothing whole is lost by it.
    """
    work = root / _WORK / scene_set.name
    destinations = {name: converted_folder(root, name, scene_set) for name in options.formats}
    for destination in destinations.values():
        if destination.resolve() == folder.resolve():
            raise DestinationError(f"{folder}: would be converted into itself; write elsewhere with --out")
    if isinstance(folder, Path) and not folder.is_dir():
        open_raw_folder(folder, scene_set)  # says what is missing, before anything is made
    done: dict[str, Conversion] = {}
    with _working_in(work):
        for name, destination in destinations.items():
            whole = None if options.overwrite else _already_whole(folder, scene_set, name, destination, options)
            if whole is not None:
                say(f"{name}: {destination} is whole already; nothing to do")
                WorkFolder(work / name).remove()  # of a run that was cut off when all was written
                done[name] = whole
        if len(done) < len(destinations):
            source = _open_source(folder, scene_set, work / "index", options)
            for name, destination in destinations.items():
                if name not in done:
                    plan = make_plan(source, name, destination, options)
                    done[name] = _write(plan, source, WorkFolder(work / name), options, say)
        storage.remove_folder(work / "index")
    return [done[name] for name in options.formats]


@contextlib.contextmanager
def _working_in(work: Place) -> Iterator[None]:
    """Holds the work folder for this process; removes it at the end, however that comes, where it is empty."""
    try:
        with storage.sole_writer(work):
            yield
    finally:
        if isinstance(work, Path):
            with contextlib.suppress(OSError):  # not empty: another set is being converted, or this one in part
                work.rmdir()
                work.parent.rmdir()


def plan_only(folder: Place, scene_set: SceneSet, root: Place, options: Options) -> list[Plan]:
    """What `convert` would write, with nothing written; raw files are counted by their framing alone.

    Raises:
        GQNError: the source cannot be read at all, or not converted that way.
    """
    source = _open_source(folder, scene_set, None, options)
    return [make_plan(source, name, converted_folder(root, name, scene_set), options) for name in options.formats]


def _open_source(folder: Place, scene_set: SceneSet, index_folder: Place | None, options: Options) -> Source:
    """The source. Raw files without an index are counted by their framing, and checked when they are copied.

    Where corrupt records are to be skipped, the counts are known only after a look at every record: the files are
    then indexed first, into `index_folder`.
    """
    if (folder / MANIFEST_FILE).exists():
        manifest = read_manifest(folder)
        if manifest.format != "tfrecord" or _index_fits(open_raw_folder(folder, scene_set), manifest, options):
            return Source(folder=folder, manifest=limited(manifest, options))
    look_at_all = options.on_corrupt == "skip" and index_folder is not None
    manifest = index_source_files(
        open_raw_folder(folder, scene_set),
        index_folder if look_at_all else None,
        splits=options.splits,
        limit=options.limit,
        on_corrupt=options.on_corrupt,
        workers=options.processes,
    )
    return Source(folder=folder, manifest=limited(manifest, options), index_folder=index_folder, indexed=look_at_all)


def _index_fits(raw: RawFolder, manifest: Manifest, options: Options) -> bool:
    """Whether the source files that are there are those that were indexed in place, with skips only if wanted."""
    there = [(file.name, file.bytes) for files in raw.files.values() for file in files]
    rows = [row for split in manifest.splits.values() for row in split.sources]
    skipped = any(row.skipped for row in rows)
    return there == [(row.name, row.bytes) for row in rows] and (not skipped or options.on_corrupt == "skip")


def _already_whole(
    folder: Place, scene_set: SceneSet, format_name: str, destination: Place, options: Options
) -> Conversion | None:
    """The conversion that this command would give, where it is there and whole; None where there is work to do.

    Raises:
        DestinationError: the destination holds another dataset.
    """
    if not (destination / MANIFEST_FILE).exists():
        return None
    try:
        manifest = read_manifest(destination)
        source = _source_as_noted(folder, scene_set, manifest, options)
    except SourceMissing:
        raise
    except Exception as error:
        raise DestinationError(f"{destination}: holds a dataset that cannot be used ({error}); {_REPLACE}") from error
    if source is None or identity(make_plan(source, format_name, destination, options).manifest) != identity(manifest):
        raise DestinationError(
            f"{destination}: holds a dataset of other source files or options "
            f"({_scenes(manifest)} by {manifest.tool}); {_REPLACE}"
        )
    beside = all((destination / name).exists() for name in (*DESCRIPTION_FILES, CHECKSUM_FILE))
    whole = beside and all(is_there(destination, row) for row in manifest.all_files())
    if not whole:
        return None  # what is missing is made again
    shards = sum(len(split.shards) for split in manifest.splits.values())
    return Conversion(folder=destination, manifest=manifest, written=0, kept=shards, seconds=0.0)


_REPLACE = "replace it with --overwrite, or write elsewhere with --out"


def _source_as_noted(folder: Place, scene_set: SceneSet, noted: Manifest, options: Options) -> Source | None:
    """The source as a destination's manifest remembers it, if the source still is that; without reading it."""
    if (folder / MANIFEST_FILE).exists():
        manifest = read_manifest(folder)
        if manifest.format != "tfrecord":
            return Source(folder=folder, manifest=limited(manifest, options))
    raw = open_raw_folder(folder, scene_set)
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
    return Source(folder=folder, manifest=limited(dataclasses.replace(manifest, limit=None), options))


def _as_shard(row: SourceRow) -> ShardRow:
    return ShardRow(scenes=row.scenes, files=(FileRow(name=row.name, bytes=row.bytes, sha256=None),))


def _scenes(manifest: Manifest) -> str:
    return " + ".join(f"{row.scenes} {name}" for name, row in manifest.splits.items()) + " scenes"


def _write(plan: Plan, source: Source, work: WorkFolder, options: Options, say: Say) -> Conversion:
    """Writes what is missing of a planned dataset, the manifest last."""
    started = time.monotonic()
    name = plan.manifest.format
    if options.overwrite:  # before the dataset that is there goes, and with the room that it leaves
        storage.need_room(plan.folder, plan.stored_bytes - _held_bytes(plan.folder))
    done = work.begin(plan, overwrite=options.overwrite)
    missing = [place for place in plan.places if (place.split, place.number) not in done]
    wanted = sum(plan.shard_bytes(place) for place in missing)
    kept = f", {len(done)} of them there already" if done else ""
    say(
        f"{name}: {_scenes(plan.manifest)} in {len(plan.places)} shards{kept}; "
        f"writing about {storage.human_bytes(wanted)} to {plan.folder}"
    )
    storage.need_room(plan.folder, wanted)
    tasks = (ShardTask(source=source, place=place, format_name=name) for place in missing)
    total = sum(place.scenes for place in plan.places)
    workers = min(options.processes, max(1, len(missing)))
    with (
        pool(workers) as executor,
        bar(total, "scene", name, initial=total - sum(place.scenes for place in missing)) as progress,
    ):
        for place, row in zip(missing, map_in_order(executor, write_shard, tasks, 2 * workers)):
            work.mark(place, row)
            done[place.split, place.number] = row
            progress.update(place.scenes)
    manifest = _with_rows(plan, done)
    manifest.write(plan.folder, descriptions(manifest))
    work.remove()
    seconds = time.monotonic() - started
    return Conversion(
        folder=plan.folder,
        manifest=manifest,
        written=len(missing),
        kept=len(plan.places) - len(missing),
        seconds=seconds,
    )


def _held_bytes(folder: Place) -> int:
    """The bytes of the dataset in a folder; 0 where there is none that can be read."""
    try:
        return sum(row.bytes for row in read_manifest(folder).all_files())
    except ManifestError:
        return 0


def _with_rows(plan: Plan, done: dict[tuple[Split, int], ShardRow]) -> Manifest:
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
