"""Conversion of source files while they arrive: a window of them lies on the disk, whatever the size of the set.

Files are fetched in source order, counted, and dropped when all shards that hold scenes of them are written. Scenes
have the numbers, and shards the bytes, that a conversion of a whole raw folder gives. A run that was cut off goes on:
what was counted stays known, and files whose shards are whole are not fetched again.

Imports `converting`, `fetching`, `growing_plan`, `index`, `plan`, `workers`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from gqn_data.convert.destination import (
    WORK_FOLDER,
    Conversion,
    Log,
    finished_conversions,
    lock_work_folder,
    recorded_raw_source,
    scratch_folder,
)
from gqn_data.convert.incremental_plan import IncomingFile, IncrementalPlan, Target
from gqn_data.convert.index import IndexedFile, IndexTask, index_file, manifest_of, recorded_pass
from gqn_data.convert.journal import WorkFolder
from gqn_data.convert.plan import Options, Source, convert_frames_row, identity
from gqn_data.convert.shard_task import ShardTask, write_shard
from gqn_data.download.bucket import Bucket, BucketFile, missing
from gqn_data.errors import RemoteMissing
from gqn_data.executors.pool import check_workers, max_pending, open_pool, submit_task, wait_for_result
from gqn_data.formats import FORMATS
from gqn_data.formats.contract import ShardLocation
from gqn_data.io import atomic, strict_json
from gqn_data.io.paths import AnyPath
from gqn_data.progress import bar
from gqn_data.schema.catalog import SPLITS
from gqn_data.schema.manifest import Manifest, ShardRow
from gqn_data.schema.origin import claim, read_origin
from gqn_data.sources.raw_folder import RawFolder, SourceFile, converted_folder
from gqn_data.version import TOOL

_FETCHERS = 4
_WINDOW_SHARDS = 2  # of each worker, and two more: so much lies on the disk at once unless told otherwise


def convert_from_bucket(
    bucket: Bucket,
    root: AnyPath,
    options: Options,
    log: Log = lambda _: None,
    *,
    raw_folder: Path | None = None,
    keep_raw: bool = False,
    window: int | None = None,
    files: tuple[int, ...] | None = None,
    whole_set: bool = True,
    executor: Executor | None = None,
) -> list[Conversion]:
    """Converts a set straight from where it is fetched, with bounded disk.

    Args:
        bucket: where the source files are.
        root: the data root for what is written.
        options: how.
        log: called what is about to be done, a line at a time.
        raw_folder: the raw folder of the set on this machine; source files that are there are not fetched.
        keep_raw: fetch into the raw folder, and drop nothing.
        window: bytes of source files that lie on the disk at once, about; None for some shards' worth.
        files: numbers (from 1) of the source files; None for all.
        whole_set: whether it is a fault that some of them are not there.
        executor: of tasks, in place of local processes.

    Raises:
        GQNError: any fault of the server, the source, the destination or the disk; nothing whole is lost by it.
    """
    if executor is not None:
        root = root.absolute()  # its workers may be anywhere
        raw_folder = None if raw_folder is None else raw_folder.absolute()
    splits = options.splits or SPLITS
    listed = bucket.listing(splits, files)
    absent = missing(listed) if whole_set else ()
    if absent:
        names = ", ".join(file.name for file in absent[:5]) + (" ..." if len(absent) > 5 else "")
        raise RemoteMissing(
            f"{bucket.url}: {len(absent)} source files are not there: {names}; choose others with --files"
        )
    there = [file for file in listed if file.remote is not None]
    origin = bucket.origin()
    work = root / WORK_FOLDER / bucket.scene_set.name
    scratch = scratch_folder(work)
    held = raw_folder if keep_raw and raw_folder is not None else scratch / "raw"
    raw = RawFolder(
        folder=held,
        scene_set=bucket.scene_set,
        origin=origin,
        files={
            split: tuple(
                SourceFile(
                    path=held / file.name,
                    name=file.name,
                    bytes=file.size,
                    expected_scenes=file.expected_scenes,
                )
                for file in there
                if file.split == split
            )
            for split in splits
            if any(file.split == split for file in there)
        },
    )
    if not raw.files:
        raise RemoteMissing(f"{bucket.url}: not one source file of {bucket.scene_set.name} is there; check the address")

    def as_noted(noted: Manifest) -> Source | None:
        return recorded_raw_source(raw, noted, options)

    destinations = {name: converted_folder(root, name, bucket.scene_set) for name in options.formats}
    with lock_work_folder(work), atomic.exclusive_writer(held) if keep_raw else contextlib.nullcontext():
        done = finished_conversions(destinations, as_noted, work, options, log)
        left = {name: place for name, place in destinations.items() if name not in done}
        if left:
            if keep_raw:
                claim(held, origin)
            arrivals = _Arrivals(bucket, raw, there, left, work, scratch, options, window=window, keep_raw=keep_raw)
            if raw_folder is not None:
                arrivals.take_over(raw_folder)
            log(arrivals.announcement())
            atomic.make_folder(raw.folder)
            with open_pool(options.processes, executor, shared=(raw.folder,)) as workers:
                arrivals.run(workers)
            if executor is not None:
                for place in left.values():
                    atomic.remove_temporaries(place)  # of workers that were lost on the way
            done |= arrivals.complete()
        atomic.remove_folder(work / "index")
        atomic.remove_folder(work / "counted")
        if not keep_raw:
            atomic.remove_folder(scratch / "raw")
    return [done[name] for name in options.formats]


class _Arrivals:
    """Fetches, plans, writes and drops, until all is written. One thread decides; others fetch and write."""

    def __init__(
        self,
        bucket: Bucket,
        raw: RawFolder,
        remotes: list[BucketFile],
        destinations: dict[str, AnyPath],
        work: AnyPath,
        scratch: Path,
        options: Options,
        *,
        window: int | None,
        keep_raw: bool,
    ) -> None:
        self._started = time.monotonic()
        self._bucket = bucket
        self._raw = raw
        self._options = options
        self._keep = keep_raw
        self._counted = work / "counted"
        self._index = work / "index" if options.on_corrupt == "skip" else None
        self._layout = raw.layout
        self._remotes = {file.name: file for file in remotes}
        self._files = [
            IncomingFile(split=split, source=source) for split, sources in raw.files.items() for source in sources
        ]
        self._manifest = manifest_of(raw, {}, options.limit)  # the splits are not known yet
        self._targets = [
            Target(
                kind=FORMATS[name],
                folder=folder,
                frames=convert_frames_row(self._manifest.frames, FORMATS[name], options),
                work=WorkFolder(work / name),
            )
            for name, folder in destinations.items()
        ]
        largest = max(file.source.bytes for file in self._files)
        shards = _WINDOW_SHARDS * (options.processes + 1)
        self._window = window or shards * max(options.shard_bytes, largest)
        self._folder = raw.folder
        atomic.remove_temporaries(scratch)
        self._plan = IncrementalPlan(self._files, self._targets, self._manifest, options)
        self._fetching: dict[Future[IndexedFile], IncomingFile] = {}
        self._running: dict[Future[ShardRow], tuple[Target, ShardLocation]] = {}
        self._stop = threading.Event()
        self._begin()

    def _begin(self) -> None:
        """Readies the work folders; what an earlier run of the same conversion counted is known again."""
        sources = [[file.split, file.source.name, file.source.bytes, self._version(file)] for file in self._files]
        for target in self._targets:
            manifest = dataclasses.replace(self._manifest, format=target.kind.name, frames=target.frames, tool=TOOL)
            this = {
                **identity(manifest),
                "sources": sources,
                "shard_bytes": self._options.shard_bytes,
                "on_corrupt": self._options.on_corrupt,
            }
            target.work.begin_unplanned(target.folder, json.loads(json.dumps(this)))
        for file in self._files:
            file.counted = self._remembered(file)
            path = self._path(file)
            if file.counted is not None and path.is_file() and path.stat().st_size == file.source.bytes:
                file.is_here = True  # of a run that was cut off: it was whole when it was counted

    def take_over(self, raw_folder: Path) -> None:
        """Uses source files that lie in a raw folder of the same origin, as they are."""
        if not raw_folder.is_dir() or read_origin(raw_folder) != self._raw.origin:
            return
        for file in self._files:
            path = raw_folder / file.source.name
            if path.is_file() and path.stat().st_size == file.source.bytes:
                here = self._path(file)
                if here != path:
                    here.parent.mkdir(parents=True, exist_ok=True)
                    here.unlink(missing_ok=True)
                    here.symlink_to(path.absolute())
                file.is_here = True

    def announcement(self) -> str:
        """What is about to be done."""
        size = atomic.human_bytes(sum(file.source.bytes for file in self._files))
        kept = "kept" if self._keep else f"about {atomic.human_bytes(self._window)} of them on the disk at once"
        return f"{self._bucket.url}: {len(self._files)} source files, {size}; fetched while they are converted, {kept}"

    def run(self, executor: Executor | None) -> None:
        """Until every shard is written.

        Raises:
            GQNError: any fault; what is whole is noted, and fetched files stay for the next run.
        """
        total = sum(file.source.bytes for file in self._files)
        wanted = sum(file.source.bytes for file in self._files if not file.is_here)
        atomic.check_free_space(self._folder, wanted if self._keep else min(wanted, self._window))
        with bar(total, "B", "fetch and convert", unit_scale=True) as self._progress, self._fetchers() as self._threads:
            while True:
                self._plan.advance()
                self._drop()
                self._fetch()
                self._write(executor)
                pending: set[Future[Any]] = {*self._fetching, *self._running}
                if not pending:
                    if self._plan.is_whole and not self._plan.ready:
                        return
                    continue
                self._collect(executor, pending)

    @contextlib.contextmanager
    def _fetchers(self) -> Iterator[ThreadPoolExecutor]:
        threads = ThreadPoolExecutor(_FETCHERS)
        try:
            yield threads
        finally:
            self._stop.set()
            threads.shutdown(wait=True, cancel_futures=True)

    def _collect(self, executor: Executor | None, pending: set[Future[Any]]) -> None:
        ended = wait(pending, timeout=1.0, return_when=FIRST_COMPLETED).done
        if self._running:
            check_workers(executor)
        for future in [future for future in self._fetching if future in ended]:
            file = self._fetching.pop(future)
            file.counted = future.result()
            file.is_here = True
        for task in [task for task in self._running if task in ended]:
            target, place = self._running.pop(task)
            assert executor is not None  # noqa: S101  nothing runs elsewhere without one
            self._note(target, place, wait_for_result(executor, task))

    # --- fetching and dropping ---

    def _fetch(self) -> None:
        """Starts fetching what is wanted next, as far as the window allows."""
        while len(self._fetching) < _FETCHERS:
            file = self._next()
            if file is None:
                return
            held = sum(other.source.bytes for other in self._files if other.is_here or other in self._fetching.values())
            busy = self._fetching or self._running or any(self._can_run(place) for _, place in self._plan.ready)
            if busy and not self._keep and held + file.source.bytes > self._window:
                return
            with_bytes = self._threads.submit(self._bring, file)
            self._fetching[with_bytes] = file

    def _next(self) -> IncomingFile | None:
        """The file to fetch next: one that a planned shard waits for, else the first that is not counted."""
        under_way = list(self._fetching.values())
        for _, place in self._plan.ready:
            for file in self._plan.holding(place):
                if not file.is_here and file not in under_way:
                    return file
        for file in self._files:
            if file.counted is None and not file.beyond and file not in under_way:
                return file
        return None

    def _bring(self, file: IncomingFile) -> IndexedFile:
        """Fetches a file where it is not there, and looks through it; runs in a thread."""
        path = self._path(file)
        if not file.is_here:
            self._bucket.fetch(self._remotes[file.source.name], path, progress=self._progress.update, stop=self._stop)
        if file.counted is not None:
            return file.counted
        task = IndexTask(
            file=file.source, layout=self._layout, index_folder=self._index, on_corrupt=self._options.on_corrupt
        )
        found = index_file(task)
        strict_json.write_note(self._note_of(file), {**dataclasses.asdict(found), "version": self._version(file)})
        return found

    def _drop(self) -> None:
        """Removes files whose scenes are all written."""
        for file in self._plan.numbered:
            if file.is_here and not self._plan.is_needed(file):
                file.is_here = False
                if not self._keep:
                    self._path(file).unlink(missing_ok=True)

    def _path(self, file: IncomingFile) -> Path:
        return atomic.on_disk(file.source.path, "source files are fetched")

    def _note_of(self, file: IncomingFile) -> AnyPath:
        return self._counted / f"{file.source.name}.json"

    def _remembered(self, file: IncomingFile) -> IndexedFile | None:
        """What an earlier run found in a file; None where it did not get to it."""
        if self._index is not None:
            return None  # indexes are looked at again: what they leave out depends on every record
        found = recorded_pass(self._note_of(file), {"version": self._version(file)})
        return found if found is not None and found.source.bytes == file.source.bytes else None

    # --- writing ---

    def _can_run(self, place: ShardLocation) -> bool:
        return all(file.is_here for file in self._plan.holding(place))

    def _write(self, executor: Executor | None) -> None:
        """Hands over the shards whose files are all there."""
        most = max_pending(executor, 2 * self._options.processes)
        for target, place in list(self._plan.ready):
            if len(self._running) >= most:
                return
            if not self._can_run(place):
                continue
            self._plan.ready.remove((target, place))
            target.work.begin_shard(place, target.kind.names(place))
            token = None if executor is None else target.work.token()
            source = self._plan.source_of(place, self._raw, self._index)
            task = ShardTask(source=source, location=place, format_name=target.kind.name, token=token)
            if executor is None:
                self._note(target, place, write_shard(task))
            else:
                self._running[submit_task(executor, write_shard, task)] = target, place

    def _note(self, target: Target, place: ShardLocation, row: ShardRow) -> None:
        target.work.mark(place, row)
        target.rows[place.split, place.number] = row
        target.written += 1

    def complete(self) -> dict[str, Conversion]:
        """Writes the manifests, all shards being there."""
        return self._plan.complete(self._raw, self._started)

    def _version(self, file: IncomingFile) -> str | None:
        found = self._remotes[file.source.name].remote
        return None if found is None else found.etag or found.modified
