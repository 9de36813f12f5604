"""Conversion of a raw folder or a dataset into other containers.

Source files are counted, shards are planned from the counts, workers write complete shards and check every record, and
the manifest is written last. An interrupted run resumes with the same command and ends with the same bytes.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from gqn_data.convert.destination import (
    WORK_FOLDER,
    Conversion,
    Log,
    finished_conversion,
    finished_conversions,
    lock_work_folder,
    put_in_place,
    recorded_raw_source,
    remove_if_empty,
    scenes_text,
    stage,
)
from gqn_data.convert.engine import Supplier, publish_output, write_shards
from gqn_data.convert.incremental_plan import IncrementalPlan, Output
from gqn_data.convert.index import index_source_files
from gqn_data.convert.journal import WorkFolder
from gqn_data.convert.mirror import mirror_manifest, open_mirror, write_mirror_points
from gqn_data.convert.plan import Options, Plan, Source, identity, limited, make_plan
from gqn_data.errors import DestinationError, OptionError
from gqn_data.executors.job_array import Part, hold_part
from gqn_data.executors.pool import open_pool
from gqn_data.formats.contract import ShardLocation
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath
from gqn_data.progress import bar
from gqn_data.schema.catalog import SceneSet
from gqn_data.schema.manifest import MANIFEST_FILE, Manifest, read_manifest
from gqn_data.sources.npy_mirror import is_mirror
from gqn_data.sources.raw_folder import RawFolder, converted_folder, open_raw_folder
from gqn_data.units import count_of


def convert(
    folder: AnyPath,
    scene_set: SceneSet,
    root: AnyPath,
    options: Options,
    log: Log = lambda _: None,
    *,
    executor: Executor | None = None,
) -> list[Conversion]:
    """Convert a raw folder or a dataset into containers below the data root.

    Args:
        folder: a raw folder, or the folder of a dataset.
        scene_set: the scene set in it.
        root: data root of the datasets: `<root>/<format>/<set>/`.
        options: options of the conversion.
        log: called with a line about what is going to be done.
        executor: runs the tasks instead of new processes; it is not shut down.

    Raises:
        GQNError: any fault of the source, the destination or the disk; finished files are kept.
    """
    if executor is not None:
        folder, root = folder.absolute(), root.absolute()  # its workers may run in other directories
    work = root / WORK_FOLDER / scene_set.name
    destinations = _destinations(folder, scene_set, root, options)
    source_from = functools.partial(_recorded_source, folder, scene_set, options)
    with lock_work_folder(work):
        for destination in destinations.values():
            put_in_place(destination)
        done = finished_conversions(destinations, source_from, work, options, log)
        if len(done) < len(destinations):
            source = _open_source(folder, scene_set, work / "index", options, executor)
            for name, destination in destinations.items():
                if name not in done:
                    plan = make_plan(source, name, stage(destination, options), options)
                    found = _convert_to(plan, source, WorkFolder(work / name), options, log, executor)
                    put_in_place(destination)
                    done[name] = dataclasses.replace(found, folder=destination.absolute())
        atomic.remove_folder(work / "index")
    return [done[name] for name in options.formats]


@dataclass(frozen=True, kw_only=True)
class PartDone:
    """Result of one part of a job array for one container.

    Attributes:
        folder: folder of the dataset.
        written: number of shards that this run wrote.
        kept: number of shards of this part that existed before.
        done: number of finished shards of all parts.
        shards: number of shards of all parts.
        seconds: duration of the writing.
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
    """Write every n-th shard of a conversion without the manifest; other parts may run at the same time.

    `convert` with the same options joins the parts: it keeps their shards, writes missing ones, then the manifest.

    Args:
        folder: a raw folder, or the folder of a dataset.
        scene_set: the scene set in it.
        root: data root of the datasets.
        options: options of the conversion; the same for all parts.
        part: the part to write.
        log: called with a line about what is going to be done.
        executor: runs the tasks instead of new processes; it is not shut down.

    Raises:
        OptionError: `overwrite` is set.
        DestinationError: the part is running already, or parts with other options are unfinished.
        GQNError: any fault of the source, the destination or the disk; finished files are kept.
    """
    if options.overwrite:
        raise OptionError("--overwrite with --shard: each part would remove what the others wrote; omit one of them")
    if executor is not None:
        folder, root = folder.absolute(), root.absolute()  # its workers may run in other directories
    work = root / WORK_FOLDER / scene_set.name
    destinations = _destinations(folder, scene_set, root, options)
    source_from = functools.partial(_recorded_source, folder, scene_set, options)
    # If the whole source must be read first, one part does so while the others wait for its notes.
    read_first = options.on_corrupt == "skip" or is_mirror(folder)
    counted = None if read_first else _open_source(folder, scene_set, None, options, executor)

    def begin() -> list[tuple[Plan, Supplier]]:
        source = counted or _open_source(folder, scene_set, work / "index", options, executor)
        begun = []
        for name, destination in destinations.items():
            plan = make_plan(source, name, destination, options)
            if finished_conversion(source_from, name, destination, options):
                log(f"{name}: {destination} is already complete; nothing to do")
                continue
            container_work = WorkFolder(work / name)
            container_work.begin_part(plan)
            begun.append((plan, _supplier(plan, part.of(plan.shards), source, container_work, options, executor)))
        return begun

    found = []
    with remove_if_empty(work), atomic.own_temporaries(), hold_part(work, part, begin, log) as begun:
        for plan, supplier in begun:
            started = time.monotonic()
            shards = len(part.of(plan.shards))
            what = f"part {part}, {shards} of {count_of(len(plan.shards), 'shard')}"
            _write(plan, supplier, what, options, log, executor)
            (output,) = supplier.plan.outputs
            found.append(
                PartDone(
                    folder=plan.folder.absolute(),
                    written=output.written,
                    kept=shards - output.written,
                    done=output.work.shards_done(),
                    shards=len(plan.shards),
                    seconds=time.monotonic() - started,
                )
            )
    return found


def _destinations(folder: AnyPath, scene_set: SceneSet, root: AnyPath, options: Options) -> dict[str, AnyPath]:
    """Return the folder of the dataset of each container.

    Raises:
        DestinationError: one of them is the source.
        SourceMissing: the source is missing.
    """
    destinations = {name: converted_folder(root, name, scene_set) for name in options.formats}
    for destination in destinations.values():
        if destination.resolve() == folder.resolve():
            raise DestinationError(f"{folder}: is source and destination, expected another folder; pass --out")
    if isinstance(folder, Path) and not folder.is_dir():
        open_raw_folder(folder, scene_set)  # reports what is missing before a file is written
    return destinations


def plan_only(folder: AnyPath, scene_set: SceneSet, root: AnyPath, options: Options) -> list[Plan]:
    """Return the plans of `convert` without writing; raw files are only counted by their framing.

    Raises:
        GQNError: the source cannot be read, or cannot be converted with these options.
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
    """Open the source. Raw files without an index are counted by their framing, and checked when they are copied.

    If corrupt records are skipped, the counts are known only after reading every record, so the files are first
    indexed into `index_folder`.
    """
    if atomic.is_present(folder / MANIFEST_FILE):
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
    read_first = options.on_corrupt == "skip" and index_folder is not None
    manifest = index_source_files(
        open_raw_folder(folder, scene_set),
        index_folder if read_first else None,
        splits=options.splits,
        limit=options.limit,
        on_corrupt=options.on_corrupt,
        workers=options.processes,
        executor=executor,
    )
    return Source(folder=folder, manifest=limited(manifest, options), index_folder=index_folder, indexed=read_first)


def _index_fits(raw: RawFolder, manifest: Manifest, options: Options) -> bool:
    """Return whether the present source files are those indexed in place, with skipped records only if allowed."""
    present = [(file.name, file.bytes) for files in raw.files.values() for file in files]
    rows = [row for split in manifest.splits.values() for row in split.sources]
    skipped = any(row.skipped for row in rows)
    return present == [(row.name, row.bytes) for row in rows] and (not skipped or options.on_corrupt == "skip")


def _recorded_source(folder: AnyPath, scene_set: SceneSet, options: Options, recorded: Manifest) -> Source | None:
    """Return the source as a destination's manifest records it, without reading it; None if it has changed."""
    if atomic.is_present(folder / MANIFEST_FILE):
        manifest = read_manifest(folder)
        if not manifest.in_place:
            return Source(folder=folder, manifest=limited(manifest, options))
    elif is_mirror(folder):
        manifest = mirror_manifest(open_mirror(folder, scene_set, options.splits))
        return Source(folder=folder, manifest=limited(manifest, options))
    return recorded_raw_source(open_raw_folder(folder, scene_set), options, recorded)


def _convert_to(
    plan: Plan, source: Source, work: WorkFolder, options: Options, log: Log, executor: Executor | None
) -> Conversion:
    """Write the missing shards of a planned dataset, then the manifest."""
    started = time.monotonic()
    work.begin(plan.folder, identity(plan.manifest), plan, overwrite=options.overwrite)
    supplier = _supplier(plan, plan.shards, source, work, options, executor)
    what = f"{scenes_text(plan.manifest)} in {count_of(len(plan.shards), 'shard')}"
    _write(plan, supplier, what, options, log, executor)
    return publish_output(supplier.plan.outputs[0], plan, started)


def _supplier(
    plan: Plan,
    shards: Sequence[ShardLocation],
    source: Source,
    work: WorkFolder,
    options: Options,
    executor: Executor | None,
) -> Supplier:
    """Return a supplier of the shards of a plan, once its destination is prepared."""
    token = None if executor is None else work.token()  # our processes end with us
    output = Output(kind=plan.format, folder=plan.folder, frames=plan.manifest.frames, work=work, token=token)
    queue = IncrementalPlan([output], options, source.manifest)
    queue.add(output, shards)
    return Supplier(queue, source)


def _write(plan: Plan, supplier: Supplier, what: str, options: Options, log: Log, executor: Executor | None) -> None:
    """Write the queued shards of a supplier; `what` describes the plan for the user."""
    (output,) = supplier.plan.outputs
    missing = [shard for _, shard in supplier.plan.queue]
    size = sum(plan.shard_bytes(shard) for shard in missing)
    exist = f", {len(output.rows)} of them already written" if output.rows else ""
    log(f"{output.kind.name}: {what}{exist}; writing about {atomic.human_bytes(size)} to {plan.folder}")
    atomic.check_free_space(plan.folder, size)
    workers = min(options.processes, max(1, len(missing)))
    shared = () if output.token is None else (output.token.path, supplier.source.first_file)
    kept, left = sum(row.scenes for row in output.rows.values()), sum(shard.scenes for shard in missing)
    with (
        open_pool(workers, executor, shared) as running,
        bar(kept + left, "scene", output.kind.name, initial=kept) as progress,
    ):
        for shard in write_shards(supplier, running, workers):
            progress.update(shard.scenes)
