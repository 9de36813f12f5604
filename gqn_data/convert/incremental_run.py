"""Conversion of source files that arrive one after another: the part that a bucket and a renderer share.

A supplier brings the files in source order. The run counts each, writes the shards that the files on disk fill, and
removes files that no shard needs any more. Shards and manifests have the bytes of a conversion of the complete folder.
An interrupted run resumes: counts are recorded, and files whose shards are complete are not needed again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from gqn_data.convert.destination import Conversion
from gqn_data.convert.incremental_plan import IncomingFile, IncrementalPlan, Target
from gqn_data.convert.index import IndexedFile, IndexTask, index_file, manifest_of, recorded_pass
from gqn_data.convert.journal import WorkFolder
from gqn_data.convert.plan import Options, convert_frames_row, identity
from gqn_data.convert.shard_task import ShardTask, write_shard
from gqn_data.executors.pool import max_pending, submit_task, wait_for_result
from gqn_data.formats import FORMATS
from gqn_data.formats.contract import ShardLocation
from gqn_data.io import atomic, strict_json
from gqn_data.io.paths import AnyPath
from gqn_data.schema.manifest import ShardRow
from gqn_data.sources.raw_folder import RawFolder, SourceFile
from gqn_data.version import TOOL


class IncrementalRun:
    """Source files on their way, and the shards that they fill.

    Args:
        raw: the raw folder as it would be; the size of a file that is not rendered yet is 0.
        destinations: folder of the dataset of each container.
        work: work folder of the scene set.
        counts: folder of the notes of what was counted.
        options: options of the conversion.
        request: values that identify the conversion, besides the manifest and the options.
        version: returns what identifies the version of a source file, as JSON.
        keep: keep source files whose shards are written.

    Attributes:
        files: the source files, in source order.
        plan: the shards known so far.
        targets: the containers.
        running: shards that an executor is writing.
        started: `time.monotonic` at the start of the work, for the duration of the conversion.
    """

    def __init__(
        self,
        raw: RawFolder,
        destinations: Mapping[str, AnyPath],
        *,
        work: AnyPath,
        counts: AnyPath,
        options: Options,
        request: Mapping[str, Any],
        version: Callable[[SourceFile], Any],
        keep: bool = False,
    ) -> None:
        self.started = time.monotonic()
        self._raw, self._options, self._keep = raw, options, keep
        self._counts, self._version = counts, version
        self._index = work / "index" if options.on_corrupt == "skip" else None
        manifest = manifest_of(raw, {}, options.limit)  # without splits, which are not known yet
        self.targets = [
            Target(
                kind=FORMATS[name],
                folder=folder,
                frames=convert_frames_row(manifest.frames, FORMATS[name], options),
                work=WorkFolder(work / name),
            )
            for name, folder in destinations.items()
        ]
        self.files = [
            IncomingFile(split=split, source=source) for split, sources in raw.files.items() for source in sources
        ]
        self.running: dict[Future[ShardRow], tuple[Target, ShardLocation]] = {}
        self.plan = IncrementalPlan(self.files, self.targets, manifest, options)
        for target in self.targets:
            planned = dataclasses.replace(manifest, format=target.kind.name, frames=target.frames, tool=TOOL)
            this = {
                **identity(planned),
                **request,
                "shard_bytes": options.shard_bytes,
                "on_corrupt": options.on_corrupt,
            }
            target.work.begin_unplanned(target.folder, json.loads(json.dumps(this)))
        for file in self.files:
            file.counted = self._recorded_count(file)
            if file.counted is not None:
                # An interrupted run counted only complete files. A missing one has its shards, or is brought again.
                with contextlib.suppress(FileNotFoundError):
                    file.is_here = self.path(file).stat().st_size == file.bytes

    def path(self, file: IncomingFile) -> Path:
        """Return the path of a source file, which is always local."""
        return atomic.on_disk(file.source.path, "source files of a conversion lie")

    def count(self, file: IncomingFile) -> IndexedFile:
        """Check and count a file that has arrived, and record the result; safe to call in a thread.

        Raises:
            CorruptRecord: a record is corrupt and must not be skipped.
        """
        task = IndexTask(
            file=file.source, layout=self._raw.layout, index_folder=self._index, on_corrupt=self._options.on_corrupt
        )
        found = index_file(task)
        strict_json.write_note(
            self._note_of(file), {**dataclasses.asdict(found), "version": self._version(file.source)}
        )
        return found

    def _note_of(self, file: IncomingFile) -> AnyPath:
        return self._counts / f"{file.source.name}.json"

    def _recorded_count(self, file: IncomingFile) -> IndexedFile | None:
        """Return what an earlier run counted in a file; None if it did not, or if the file is another now."""
        if self._index is not None:
            return None  # with `skip` the index is made again: what it omits depends on every record
        found = recorded_pass(self._note_of(file), {"version": self._version(file.source)})
        if found is None or file.source.bytes not in (0, found.source.bytes):
            return None
        return found

    def can_write(self, shard: ShardLocation) -> bool:
        """Return whether all source files of a shard are on disk."""
        return all(file.is_here for file in self.plan.holding(shard))

    def write_ready(self, executor: Executor | None = None) -> None:
        """Write the shards whose source files are on disk, or submit them to an executor up to its limit."""
        limit = max_pending(executor, 2 * self._options.processes)
        for target, shard in list(self.plan.ready):
            if len(self.running) >= limit:
                return
            if not self.can_write(shard):
                continue
            self.plan.ready.remove((target, shard))
            target.work.begin_shard(shard, target.kind.names(shard))
            token = None if executor is None else target.work.token()
            source = self.plan.source_of(shard, self._raw, self._index)
            task = ShardTask(source=source, location=shard, format_name=target.kind.name, token=token)
            if executor is None:
                self._record(target, shard, write_shard(task))
            else:
                self.running[submit_task(executor, write_shard, task)] = target, shard

    def collect(self, executor: Executor, future: Future[ShardRow]) -> None:
        """Record a shard that an executor has written.

        Raises:
            GQNError: it could not be written.
        """
        target, shard = self.running.pop(future)
        self._record(target, shard, wait_for_result(executor, future))

    @staticmethod
    def _record(target: Target, shard: ShardLocation, row: ShardRow) -> None:
        target.work.mark(shard, row)
        target.rows[shard.split, shard.number] = row
        target.written += 1

    def drop_written(self) -> None:
        """Remove the source files whose scenes are all written."""
        for file in self.plan.numbered:
            if file.is_here and not self.plan.is_needed(file):
                file.is_here = False
                if not self._keep:
                    self.path(file).unlink(missing_ok=True)

    def complete(self) -> dict[str, Conversion]:
        """Write the manifests once all shards are written.

        Raises:
            DestinationError: the shards are not those of a plan for all files.
        """
        return self.plan.complete(self._raw, self.started)
