"""Engine of every conversion: it writes shards as soon as their source files are here.

A supplier brings the files: a folder has them all, a bucket downloads them, a renderer renders them.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from pathlib import Path
from typing import Any

from gqn_data.convert.destination import Conversion, publish
from gqn_data.convert.incremental_plan import IncomingFile, IncrementalPlan, Output
from gqn_data.convert.index import IndexedFile, IndexTask, index_file, manifest_of, recorded_pass
from gqn_data.convert.journal import WorkFolder
from gqn_data.convert.plan import (
    Options,
    Plan,
    Source,
    check_destination,
    convert_frames_row,
    identity,
    limited,
    make_plan,
)
from gqn_data.convert.shard_task import ShardTask, write_shard
from gqn_data.errors import DestinationError
from gqn_data.executors.pool import check_workers, max_pending, submit_task, wait_for_result
from gqn_data.formats import FORMATS
from gqn_data.formats.contract import ShardLocation
from gqn_data.io import atomic, strict_json
from gqn_data.io.paths import AnyPath
from gqn_data.schema.catalog import SceneSet, Split
from gqn_data.schema.manifest import ShardRow
from gqn_data.schema.origin import Origin
from gqn_data.sources.raw_folder import RawFolder, SourceFile
from gqn_data.version import TOOL

_POLL = 1.0  # seconds between two checks of a cluster while waiting


class Supplier:
    """Source of a conversion whose files are all here. Subclasses bring files while shards are written.

    Args:
        plan: shards to write.
        source: source of all shards.

    Attributes:
        plan: shards to write.
        source: source of all shards.
        pending: files on their way.
    """

    def __init__(self, plan: IncrementalPlan, source: Source) -> None:
        self.plan = plan
        self.source = source
        self.pending: dict[Future[IndexedFile], IncomingFile] = {}

    def bring(self, *, busy: bool) -> None:
        """Start to bring further files, if they cannot wait.

        Args:
            busy: whether shards are being written, or can be.
        """

    def drop(self, file: IncomingFile) -> None:
        """Release a file whose shards are all finished."""

    def source_of(self, shard: ShardLocation) -> Source:  # noqa: ARG002  one source has all scenes
        """Return a source that holds the scenes of a shard."""
        return self.source


class RawSupplier(Supplier):
    """Source files of a raw folder that arrive one after another, and are removed when their shards are finished.

    The counts of each file are recorded, so that an interrupted run resumes.

    Args:
        raw: raw folder on the local disk; its files may be missing.
        destinations: folder of each dataset to write, by the name of its format.
        work: work folder of the set.
        notes: folder for the counts of the files.
        options: options of the conversion.
        versions: version of each file, by name; JSON values.
        this: further JSON values that are equal for two runs of the same conversion.
        outlived: whether workers may outlive the run.

    Attributes:
        raw: raw folder.
        files: source files.
        started: start of the conversion, from `time.monotonic`.
    """

    def __init__(
        self,
        raw: RawFolder,
        destinations: Mapping[str, AnyPath],
        work: AnyPath,
        notes: AnyPath,
        options: Options,
        *,
        versions: Mapping[str, Any],
        this: Mapping[str, Any],
        outlived: bool = False,
    ) -> None:
        self.started = time.monotonic()
        self.raw = raw
        self.files = [
            IncomingFile(split=split, source=source) for split, sources in raw.files.items() for source in sources
        ]
        self._options = options
        self._notes = notes
        self._versions = versions
        self._index_folder = work / "index" if options.on_corrupt == "skip" else None
        manifest = manifest_of(raw, {}, options.limit)
        outputs = []
        for name, folder in destinations.items():
            check_destination(FORMATS[name], folder)
            frames = convert_frames_row(manifest.frames, FORMATS[name], options)
            same = identity(dataclasses.replace(manifest, format=name, frames=frames, tool=TOOL))
            same |= {**this, "shard_bytes": options.shard_bytes, "on_corrupt": options.on_corrupt}
            output = Output(kind=FORMATS[name], folder=folder, frames=frames, work=WorkFolder(work / name))
            output.work.begin(folder, json.loads(json.dumps(same)))
            if outlived:
                output.token = output.work.token()
            outputs.append(output)
        super().__init__(
            IncrementalPlan(outputs, options, manifest, self.files), Source(folder=raw.folder, manifest=manifest)
        )
        for file in self.files:
            file.counted = self._recorded(file)
            # A file that was counted and is missing was dropped, or will be brought again.
            file.is_here = file.counted is not None and has_size(self.path(file), file.counted.source.bytes)
        self.plan.advance()

    def path(self, file: IncomingFile) -> Path:
        """Return the path of a source file, which may be missing."""
        return atomic.on_disk(file.source.path, "source files are converted")

    def count(self, file: IncomingFile) -> IndexedFile:
        """Count or index a file that has arrived, and record the result."""
        source = dataclasses.replace(file.source, bytes=self.path(file).stat().st_size)
        task = IndexTask(
            file=source,
            layout=self.raw.layout,
            index_folder=self._index_folder,
            on_corrupt=self._options.on_corrupt,
        )
        counted = index_file(task)
        note = {**dataclasses.asdict(counted), "version": self._versions[file.source.name]}
        strict_json.write_note(self._note_of(file), note)
        return counted

    def _recorded(self, file: IncomingFile) -> IndexedFile | None:
        if self._index_folder is not None:
            return None  # the index is checked when the file is here
        return recorded_pass(self._note_of(file), {"version": self._versions[file.source.name]})

    def _note_of(self, file: IncomingFile) -> AnyPath:
        return self._notes / f"{file.source.name}.json"

    def drop(self, file: IncomingFile) -> None:
        """Remove a file whose shards are all finished."""
        file.is_here = False
        self.path(file).unlink(missing_ok=True)

    def source_of(self, shard: ShardLocation) -> Source:
        """Return a source that holds the files of a shard only."""
        files = self.plan.files_of(shard)
        counted = [file.counted for file in files if file.counted is not None]
        return Source(
            folder=self.raw.folder,
            manifest=manifest_of(self.raw, {shard.split: counted}, None),
            index_folder=self._index_folder,
            indexed=self._index_folder is not None,
            first_scene=files[0].first_scene or 0,
        )

    def publish(self) -> dict[str, Conversion]:
        """Publish the datasets; all shards must be finished.

        Raises:
            DestinationError: the source changed during the conversion.
        """
        counted: dict[Split, list[IndexedFile]] = {}
        for file in self.files:
            if file.counted is not None and not file.beyond_limit:
                counted.setdefault(file.split, []).append(file.counted)
        manifest = manifest_of(self.raw, counted, self._options.limit)
        source = Source(folder=self.raw.folder, manifest=limited(manifest, self._options))
        plans = [make_plan(source, output.kind.name, output.folder, self._options) for output in self.plan.outputs]
        return {
            output.kind.name: publish_output(output, plan, self.started)
            for output, plan in zip(self.plan.outputs, plans)
        }


def expected_raw_folder(
    folder: Path, scene_set: SceneSet, origin: Origin, files: Iterable[tuple[Split, str, int, int]]
) -> RawFolder:
    """Return a raw folder whose files may be missing.

    Args:
        folder: path of the folder.
        scene_set: scene set of the files.
        origin: origin of the scenes.
        files: (split, name, bytes, expected scenes) of each file, in source order; 0 bytes if unknown.
    """
    splits: dict[Split, list[SourceFile]] = {}
    for split, name, size, scenes in files:
        source = SourceFile(path=folder / name, name=name, bytes=size, expected_scenes=scenes)
        splits.setdefault(split, []).append(source)
    return RawFolder(
        folder=folder,
        scene_set=scene_set,
        origin=origin,
        files={split: tuple(sources) for split, sources in splits.items()},
    )


def has_size(path: Path, size: int) -> bool:
    """Return whether a file exists with this size."""
    return path.is_file() and path.stat().st_size == size


def write_shards(supplier: Supplier, executor: Executor | None, processes: int) -> Iterator[ShardLocation]:
    """Write all shards of a supplier's plan, and yield each when it is finished.

    One thread decides what happens next. Executors write the shards, and threads or processes of the supplier bring
    the files.

    Args:
        supplier: supplier of the source files.
        executor: executor of `open_pool`; None to write the shards in this process.
        processes: number of processes of the executor.

    Raises:
        GQNError: a fault of the source, the destination or the disk; finished shards are recorded.
    """
    plan = supplier.plan
    running: dict[Future[ShardRow], tuple[Output, ShardLocation]] = {}
    while True:
        for arrival in [future for future in supplier.pending if future.done()]:
            file = supplier.pending.pop(arrival)
            file.counted, file.is_here = arrival.result(), True
        for task in [future for future in running if future.done()]:
            assert executor is not None  # noqa: S101  it runs the tasks
            yield _finish(*running.pop(task), wait_for_result(executor, task))
        plan.advance()
        for file in plan.unneeded_files():
            supplier.drop(file)
        if plan.is_finished and not running and not supplier.pending:
            return
        supplier.bring(busy=bool(running) or plan.has_ready())
        if executor is None:
            ready = plan.take_ready()
            if ready is not None:
                yield _finish(*ready, write_shard(_task(supplier, *ready)))
                continue
        else:
            while len(running) < max_pending(executor, 2 * processes):
                ready = plan.take_ready()
                if ready is None:
                    break
                running[submit_task(executor, write_shard, _task(supplier, *ready))] = ready
        pending: set[Future[Any]] = {*running, *supplier.pending}
        if pending:
            wait(pending, _POLL, FIRST_COMPLETED)  # with a timeout: a cancelled task does not end it
        if running:
            check_workers(executor)


def _task(supplier: Supplier, output: Output, shard: ShardLocation) -> ShardTask:
    if supplier.plan.files:  # otherwise the recorded plan names the files of all shards
        output.work.begin_shard(shard, output.kind.names(shard))
    source = supplier.source_of(shard)
    return ShardTask(source=source, location=shard, format_name=output.kind.name, token=output.token)


def _finish(output: Output, shard: ShardLocation, row: ShardRow) -> ShardLocation:
    output.work.mark(shard, row)
    output.rows[shard.split, shard.number] = row
    output.written += 1
    return shard


def publish_output(output: Output, plan: Plan, started: float) -> Conversion:
    """Publish a dataset whose shards are all finished.

    Args:
        output: dataset to publish.
        plan: plan of the dataset.
        started: start of the conversion, from `time.monotonic`.

    Raises:
        DestinationError: the finished shards are not those of the plan.
    """
    if {(shard.split, shard.number) for shard in plan.shards} != set(output.rows):
        raise DestinationError(f"{output.folder}: the source changed during the conversion; rerun the command")
    if output.token is not None:
        atomic.remove_temporaries(output.folder)  # of lost workers
    return Conversion(
        folder=output.folder.absolute(),
        manifest=publish(plan, output.rows, output.work),
        written=output.written,
        kept=len(output.rows) - output.written,
        seconds=time.monotonic() - started,
    )
