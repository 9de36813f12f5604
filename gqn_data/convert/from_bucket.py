"""Conversion of a set straight from its bucket, with a bounded window of source files on disk.

Files are downloaded in source order, counted, and removed when all shards with their scenes are written
(`incremental_run`).
"""

from __future__ import annotations

import contextlib
import threading
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
from gqn_data.convert.incremental_plan import IncomingFile
from gqn_data.convert.incremental_run import IncrementalRun
from gqn_data.convert.index import IndexedFile
from gqn_data.convert.plan import Options, Source
from gqn_data.download.bucket import Bucket, BucketFile, missing
from gqn_data.errors import RemoteMissing
from gqn_data.executors.pool import check_workers, open_pool
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath
from gqn_data.progress import bar
from gqn_data.schema.catalog import SPLITS
from gqn_data.schema.manifest import Manifest
from gqn_data.schema.origin import claim, read_origin
from gqn_data.sources.raw_folder import RawFolder, SourceFile, converted_folder
from gqn_data.units import count_of

_DOWNLOADS = 4  # at a time
_WINDOW_SHARDS = 2  # shards per worker on disk, and two more, unless `window` is given


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
    """Convert a set straight from its bucket, with bounded disk space.

    Args:
        bucket: bucket of the source files.
        root: data root of the datasets.
        options: options of the conversion.
        log: called with a line about what is going to be done.
        raw_folder: raw folder of the set on this machine; source files in it are not downloaded.
        keep_raw: download into the raw folder and keep the files.
        window: approximate bytes of source files on disk at a time; None for a few shards.
        files: numbers (from 1) of the source files; None for all.
        whole_set: fail if some of them are missing.
        executor: runs the tasks instead of local processes.

    Raises:
        GQNError: any fault of the server, the source, the destination or the disk; finished files are kept.
    """
    if executor is not None:
        root = root.absolute()  # its workers may run in other directories
        raw_folder = None if raw_folder is None else raw_folder.absolute()
    splits = options.splits or SPLITS
    listed = bucket.listing(splits, files)
    absent = missing(listed) if whole_set else ()
    if absent:
        names = ", ".join(file.name for file in absent[:5]) + (" ..." if len(absent) > 5 else "")
        raise RemoteMissing(
            f"{bucket.url}: {count_of(len(absent), 'source file')} missing: {names}; choose others with --files"
        )
    present = [file for file in listed if file.remote is not None]
    origin = bucket.origin()
    work = root / WORK_FOLDER / bucket.scene_set.name
    scratch = scratch_folder(work)
    folder = raw_folder if keep_raw and raw_folder is not None else scratch / "raw"
    raw = RawFolder(
        folder=folder,
        scene_set=bucket.scene_set,
        origin=origin,
        files={
            split: tuple(
                SourceFile(
                    path=folder / file.name,
                    name=file.name,
                    bytes=file.size,
                    expected_scenes=file.expected_scenes,
                )
                for file in present
                if file.split == split
            )
            for split in splits
            if any(file.split == split for file in present)
        },
    )
    if not raw.files:
        raise RemoteMissing(
            f"{bucket.url}: found 0 source files of {bucket.scene_set.name}, expected at least 1; check the address"
        )

    def source_from(recorded: Manifest) -> Source | None:
        return recorded_raw_source(raw, recorded, options)

    destinations = {name: converted_folder(root, name, bucket.scene_set) for name in options.formats}
    with lock_work_folder(work), atomic.exclusive_writer(folder) if keep_raw else contextlib.nullcontext():
        done = finished_conversions(destinations, source_from, work, options, log)
        remaining = {name: path for name, path in destinations.items() if name not in done}
        if remaining:
            if keep_raw:
                claim(folder, origin)
            atomic.remove_temporaries(scratch)
            download = _Download(bucket, raw, present, remaining, work, options, window=window, keep_raw=keep_raw)
            if raw_folder is not None:
                download.use_local_files(raw_folder)
            log(download.announcement())
            atomic.make_folder(raw.folder)
            with open_pool(options.processes, executor, shared=(raw.folder,)) as workers:
                download.run(workers)
            if executor is not None:
                for path in remaining.values():
                    atomic.remove_temporaries(path)  # of workers that were lost
            done |= download.complete()
        atomic.remove_folder(work / "index")
        atomic.remove_folder(work / "counted")
        if not keep_raw:
            atomic.remove_folder(scratch / "raw")
    return [done[name] for name in options.formats]


class _Download:
    """Downloads, counts, writes and removes files until all shards are written.

    One thread decides; threads download and count, and an executor writes shards.
    """

    def __init__(
        self,
        bucket: Bucket,
        raw: RawFolder,
        remotes: list[BucketFile],
        destinations: dict[str, AnyPath],
        work: AnyPath,
        options: Options,
        *,
        window: int | None,
        keep_raw: bool,
    ) -> None:
        self._bucket, self._raw, self._keep = bucket, raw, keep_raw
        self._remotes = {file.name: file for file in remotes}
        sources = [
            [split, source.name, source.bytes, self._version(source)]
            for split, files in raw.files.items()
            for source in files
        ]
        self._run = IncrementalRun(
            raw,
            destinations,
            work=work,
            counts=work / "counted",
            options=options,
            request={"sources": sources},
            version=self._version,
            keep=keep_raw,
        )
        self._files, self._plan = self._run.files, self._run.plan
        largest = max(file.source.bytes for file in self._files)
        shards = _WINDOW_SHARDS * (options.processes + 1)
        self._window = window or shards * max(options.shard_bytes, largest)
        self._fetching: dict[Future[IndexedFile], IncomingFile] = {}
        self._stop = threading.Event()

    def use_local_files(self, raw_folder: Path) -> None:
        """Link source files from a raw folder of the same origin instead of downloading them."""
        if not raw_folder.is_dir() or read_origin(raw_folder) != self._raw.origin:
            return
        for file in self._files:
            path = raw_folder / file.source.name
            if path.is_file() and path.stat().st_size == file.source.bytes:
                link = self._run.path(file)
                if link != path:
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.unlink(missing_ok=True)
                    link.symlink_to(path.absolute())
                file.is_here = True

    def announcement(self) -> str:
        """Describe the run for the user."""
        size = atomic.human_bytes(sum(file.source.bytes for file in self._files))
        kept = "kept" if self._keep else f"about {atomic.human_bytes(self._window)} of them on disk at a time"
        files = count_of(len(self._files), "source file")
        return f"{self._bucket.url}: {files}, {size}; downloaded while converting, {kept}"

    def run(self, executor: Executor | None) -> None:
        """Run until every shard is written.

        Raises:
            GQNError: any fault; finished shards are recorded, and downloaded files stay for the next run.
        """
        total = sum(file.source.bytes for file in self._files)
        wanted = sum(file.source.bytes for file in self._files if not file.is_here)
        atomic.check_free_space(self._raw.folder, wanted if self._keep else min(wanted, self._window))
        with (
            bar(total, "B", "fetch and convert", unit_scale=True) as self._progress,
            self._downloads() as self._threads,
        ):
            while True:
                self._plan.advance()
                self._run.drop_written()
                self._fetch()
                self._run.write_ready(executor)
                pending: set[Future[Any]] = {*self._fetching, *self._run.running}
                if not pending:
                    if self._plan.is_whole and not self._plan.ready:
                        return
                    continue
                self._collect(executor, pending)

    def complete(self) -> dict[str, Conversion]:
        """Write the manifests once all shards are written."""
        return self._run.complete()

    @contextlib.contextmanager
    def _downloads(self) -> Iterator[ThreadPoolExecutor]:
        threads = ThreadPoolExecutor(_DOWNLOADS)
        try:
            yield threads
        finally:
            self._stop.set()
            threads.shutdown(wait=True, cancel_futures=True)

    def _collect(self, executor: Executor | None, pending: set[Future[Any]]) -> None:
        """Wait for a download or a shard, and take what has finished."""
        finished = wait(pending, timeout=1.0, return_when=FIRST_COMPLETED).done
        if self._run.running:
            check_workers(executor)
        for future in [future for future in self._fetching if future in finished]:
            file = self._fetching.pop(future)
            file.counted = future.result()
            file.is_here = True
        for task in [task for task in self._run.running if task in finished]:
            assert executor is not None  # noqa: S101  only an executor has running tasks
            self._run.collect(executor, task)

    def _fetch(self) -> None:
        """Start the next downloads, as far as the window allows."""
        while len(self._fetching) < _DOWNLOADS:
            file = self._next()
            if file is None:
                return
            on_disk = sum(
                other.source.bytes for other in self._files if other.is_here or other in self._fetching.values()
            )
            busy = (
                self._fetching or self._run.running or any(self._run.can_write(shard) for _, shard in self._plan.ready)
            )
            if busy and not self._keep and on_disk + file.source.bytes > self._window:
                return
            self._fetching[self._threads.submit(self._bring, file)] = file

    def _next(self) -> IncomingFile | None:
        """Return the file to download next: one that a planned shard needs, else the first that is not counted."""
        fetching = list(self._fetching.values())
        for _, shard in self._plan.ready:
            for file in self._plan.holding(shard):
                if not file.is_here and file not in fetching:
                    return file
        for file in self._files:
            if file.counted is None and not file.beyond_limit and file not in fetching:
                return file
        return None

    def _bring(self, file: IncomingFile) -> IndexedFile:
        """Download a file unless it is on disk, and count it; runs in a thread."""
        if not file.is_here:
            remote = self._remotes[file.source.name]
            self._bucket.fetch(remote, self._run.path(file), progress=self._progress.update, stop=self._stop)
        return self._run.count(file) if file.counted is None else file.counted

    def _version(self, source: SourceFile) -> str | None:
        remote = self._remotes[source.name].remote
        return None if remote is None else remote.etag or remote.modified
