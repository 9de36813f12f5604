"""Conversion: a raw folder, or any dataset, into another container.

Source files are counted, the shards are planned from the counts that were found, workers write whole shards and
check every record on the way, the manifest comes last. A run can be cut off at any moment; the same command then
goes on where it was, and ends with the same bytes.

Imports `converting`, `index`, `manifest`, `parts`, `plan`, `source_files`, `workers`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from gqn_data.convert.destination import (
    WORK_FOLDER,
    Conversion,
    Log,
    dataset_bytes,
    finished_conversion,
    finished_conversions,
    lock_work_folder,
    publish,
    recorded_raw_source,
    remove_if_empty,
    scenes_text,
)
from gqn_data.convert.index import index_source_files
from gqn_data.convert.journal import Done, WorkFolder
from gqn_data.convert.mirror import mirror_manifest, open_mirror, write_mirror_points
from gqn_data.convert.plan import Options, Plan, Source, limited, make_plan
from gqn_data.convert.shard_task import ShardTask, write_shard
from gqn_data.errors import DestinationError, OptionError
from gqn_data.executors.job_array import Part, hold_part
from gqn_data.executors.pool import map_in_order, open_pool
from gqn_data.formats.contract import ShardLocation
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath
from gqn_data.progress import bar
from gqn_data.schema.catalog import SceneSet
from gqn_data.schema.manifest import MANIFEST_FILE, Manifest, read_manifest
from gqn_data.sources.npy_mirror import is_mirror
from gqn_data.sources.raw_folder import RawFolder, converted_folder, open_raw_folder


def convert(
    folder: AnyPath,
    scene_set: SceneSet,
    root: AnyPath,
    options: Options,
    log: Log = lambda _: None,
    *,
    executor: Executor | None = None,
) -> list[Conversion]:
    """Converts a raw folder or a dataset into the containers asked for, below the data root.

    Args:
        folder: a raw folder, or the folder of a dataset.
        scene_set: the set that it holds.
        root: the data root for what is written: `<root>/<format>/<set>/`.
        options: how.
        log: called what is about to be done, a line at a time.
        executor: does the work instead of processes of this run's own; is not shut down.

    Raises:
        GQNError: any fault of the source, of the destination or of the disk; nothing whole is lost by it.
    """
    if executor is not None:
        folder, root = folder.absolute(), root.absolute()  # its workers may be anywhere
    work = root / WORK_FOLDER / scene_set.name
    destinations = _destinations(folder, scene_set, root, options)

    def as_noted(noted: Manifest) -> Source | None:
        return _source_as_noted(folder, scene_set, noted, options)

    with lock_work_folder(work):
        done = finished_conversions(destinations, as_noted, work, options, log)
        if len(done) < len(destinations):
            source = _open_source(folder, scene_set, work / "index", options, executor)
            for name, destination in destinations.items():
                if name not in done:
                    plan = make_plan(source, name, destination, options)
                    done[name] = _write(plan, source, WorkFolder(work / name), options, log, executor)
        atomic.remove_folder(work / "index")
    return [done[name] for name in options.formats]


@dataclass(frozen=True, kw_only=True)
class PartDone:
    """What became of one part of one container.

    Attributes:
        folder: of the dataset to be.
        written: shards that this run wrote.
        kept: shards of this part that were there already.
        done: shards that are whole, of all parts.
        shards: of all parts.
        seconds: that this run took for writing.
    """

    folder: AnyPath
    written: int
    kept: int
    done: int
    shards: int
    seconds: float


def convert_part(
    folder: AnyPath,
    scene_set: SceneSet,
    root: AnyPath,
    options: Options,
    part: Part,
    log: Log = lambda _: None,
    *,
    executor: Executor | None = None,
) -> list[PartDone]:
    """Writes every n-th shard of a conversion, and no manifest; other parts may be at work at the same time.

    `convert` with the same options joins the parts: it finds the shards, makes those that are missing, and writes
    the manifest.

    Args:
        folder: a raw folder, or the folder of a dataset.
        scene_set: the set that it holds.
        root: the data root for what is written.
        options: how; the same for all parts.
        part: which.
        log: called what is about to be done, a line at a time.
        executor: does the work instead of processes of this run's own; is not shut down.

    Raises:
        OptionError: parts do not replace a dataset.
        DestinationError: the part is at work already, or parts with other options are under way.
        GQNError: any fault of the source, of the destination or of the disk; nothing whole is lost by it.
    """
    if options.overwrite:
        raise OptionError("parts do not replace a dataset that is there: each would remove what the others wrote")
    if executor is not None:
        folder, root = folder.absolute(), root.absolute()  # its workers may be anywhere
    work = root / WORK_FOLDER / scene_set.name
    destinations = _destinations(folder, scene_set, root, options)
    # Where all of the source is looked at first, one part does it, and the others wait and find what it noted.
    look_at_all = options.on_corrupt == "skip" or is_mirror(folder)
    counted = None if look_at_all else _open_source(folder, scene_set, None, options, executor)

    def begin() -> list[tuple[Plan, Source, Done]]:
        source = counted or _open_source(folder, scene_set, work / "index", options, executor)
        begun = []
        for name, destination in destinations.items():
            plan = make_plan(source, name, destination, options)
            if finished_conversion(
                lambda noted: _source_as_noted(folder, scene_set, noted, options), name, destination, options
            ):
                log(f"{name}: {destination} is whole already; nothing to do")
                continue
            begun.append((plan, source, WorkFolder(work / name).begin_part(plan, part.of(plan.shards))))
        return begun

    found = []
    with remove_if_empty(work), atomic.own_temporaries(), hold_part(work, part, begin, log) as begun:
        for plan, source, done in begun:
            started = time.monotonic()
            places, kept = part.of(plan.shards), len(done)
            log(
                f"{plan.manifest.format}: part {part}, {len(places)} of {len(plan.shards)} shards"
                f"{f', {kept} of them there already' if kept else ''}; "
                f"writing about {atomic.human_bytes(_missing_bytes(plan, places, done))} to {plan.folder}"
            )
            of_container = WorkFolder(work / plan.manifest.format)
            _write_shards(plan, places, done, source, of_container, options, executor)
            found.append(
                PartDone(
                    folder=plan.folder,
                    written=len(places) - kept,
                    kept=kept,
                    done=of_container.shards_done(),
                    shards=len(plan.shards),
                    seconds=time.monotonic() - started,
                )
            )
    return found


def _destinations(folder: AnyPath, scene_set: SceneSet, root: AnyPath, options: Options) -> dict[str, AnyPath]:
    """The folders of the datasets to be, by container.

    Raises:
        DestinationError: one of them is the source.
        SourceMissing: there is no source.
    """
    destinations = {name: converted_folder(root, name, scene_set) for name in options.formats}
    for destination in destinations.values():
        if destination.resolve() == folder.resolve():
            raise DestinationError(f"{folder}: would be converted into itself; write elsewhere with --out")
    if isinstance(folder, Path) and not folder.is_dir():
        open_raw_folder(folder, scene_set)  # says what is missing, before anything is made
    return destinations


def plan_only(folder: AnyPath, scene_set: SceneSet, root: AnyPath, options: Options) -> list[Plan]:
    """What `convert` would write, with nothing written; raw files are counted by their framing alone.

    Raises:
        GQNError: the source cannot be read at all, or not converted that way.
    """
    source = _open_source(folder, scene_set, None, options)
    return [make_plan(source, name, converted_folder(root, name, scene_set), options) for name in options.formats]


def _open_source(
    folder: AnyPath,
    scene_set: SceneSet,
    index_folder: AnyPath | None,
    options: Options,
    executor: Executor | None = None,
) -> Source:
    """The source. Raw files without an index are counted by their framing, and checked when they are copied.

    Where corrupt records are to be skipped, the counts are known only after a look at every record: the files are
    then indexed first, into `index_folder`.
    """
    if (folder / MANIFEST_FILE).exists():
        manifest = read_manifest(folder)
        if not manifest.in_place or _index_fits(open_raw_folder(folder, scene_set), manifest, options):
            return Source(folder=folder, manifest=limited(manifest, options))
    elif is_mirror(folder):
        mirror = open_mirror(folder, scene_set, options.splits)
        if index_folder is None or not mirror.gzipped:
            return Source(folder=folder, manifest=limited(mirror_manifest(mirror), options))
        points = write_mirror_points(mirror, index_folder, workers=options.processes, executor=executor)
        manifest = limited(mirror_manifest(mirror, points), options)
        return Source(folder=folder, manifest=manifest, index_folder=index_folder)
    look_at_all = options.on_corrupt == "skip" and index_folder is not None
    manifest = index_source_files(
        open_raw_folder(folder, scene_set),
        index_folder if look_at_all else None,
        splits=options.splits,
        limit=options.limit,
        on_corrupt=options.on_corrupt,
        workers=options.processes,
        executor=executor,
    )
    return Source(folder=folder, manifest=limited(manifest, options), index_folder=index_folder, indexed=look_at_all)


def _index_fits(raw: RawFolder, manifest: Manifest, options: Options) -> bool:
    """Whether the source files that are there are those that were indexed in place, with skips only if wanted."""
    there = [(file.name, file.bytes) for files in raw.files.values() for file in files]
    rows = [row for split in manifest.splits.values() for row in split.sources]
    skipped = any(row.skipped for row in rows)
    return there == [(row.name, row.bytes) for row in rows] and (not skipped or options.on_corrupt == "skip")


def _source_as_noted(folder: AnyPath, scene_set: SceneSet, noted: Manifest, options: Options) -> Source | None:
    """The source as a destination's manifest remembers it, if the source still is that; without reading it."""
    if (folder / MANIFEST_FILE).exists():
        manifest = read_manifest(folder)
        if not manifest.in_place:
            return Source(folder=folder, manifest=limited(manifest, options))
    elif is_mirror(folder):
        manifest = mirror_manifest(open_mirror(folder, scene_set, options.splits))
        return Source(folder=folder, manifest=limited(manifest, options))
    return recorded_raw_source(open_raw_folder(folder, scene_set), noted, options)


def _write(
    plan: Plan, source: Source, work: WorkFolder, options: Options, log: Log, executor: Executor | None
) -> Conversion:
    """Writes what is missing of a planned dataset, the manifest last."""
    started = time.monotonic()
    if options.overwrite:  # before the dataset that is there goes, and with the room that it leaves
        atomic.check_free_space(plan.folder, plan.stored_bytes - dataset_bytes(plan.folder))
    done = work.begin(plan, overwrite=options.overwrite)
    kept = len(done)
    log(
        f"{plan.manifest.format}: {scenes_text(plan.manifest)} in {len(plan.shards)} shards"
        f"{f', {kept} of them there already' if kept else ''}; "
        f"writing about {atomic.human_bytes(_missing_bytes(plan, plan.shards, done))} to {plan.folder}"
    )
    _write_shards(plan, plan.shards, done, source, work, options, executor)
    if executor is not None:
        atomic.remove_temporaries(plan.folder)  # of workers that were lost on the way
    manifest = publish(plan, done, work)
    return Conversion(
        folder=plan.folder,
        manifest=manifest,
        written=len(plan.shards) - kept,
        kept=kept,
        seconds=time.monotonic() - started,
    )


def _missing(places: Sequence[ShardLocation], done: Done) -> list[ShardLocation]:
    return [place for place in places if (place.split, place.number) not in done]


def _missing_bytes(plan: Plan, places: Sequence[ShardLocation], done: Done) -> int:
    return sum(plan.shard_bytes(place) for place in _missing(places, done))


def _write_shards(
    plan: Plan,
    places: Sequence[ShardLocation],
    done: Done,
    source: Source,
    work: WorkFolder,
    options: Options,
    executor: Executor | None,
) -> None:
    """Writes the shards among `places` that are not done; notes each in `done` and in the work folder."""
    name = plan.manifest.format
    missing = _missing(places, done)
    atomic.check_free_space(plan.folder, _missing_bytes(plan, places, done))
    token = None if executor is None else work.token()  # processes of our own do not outlive us
    tasks = (ShardTask(source=source, location=place, format_name=name, token=token) for place in missing)
    total = sum(place.scenes for place in places)
    workers = min(options.processes, max(1, len(missing)))
    with (
        open_pool(workers, executor, shared=() if token is None else (token.path, source.first_file)) as running,
        bar(total, "scene", name, initial=total - sum(place.scenes for place in missing)) as progress,
    ):
        for place, row in zip(missing, map_in_order(running, write_shard, tasks, 2 * workers)):
            work.mark(place, row)
            done[place.split, place.number] = row
            progress.update(place.scenes)
