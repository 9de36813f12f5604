"""Conversion of a set straight from its bucket, with a bounded window of source files on disk.

Files are downloaded in source order, counted, and removed when all shards with their scenes are written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from gqn_data.convert.destination import (
    WORK_FOLDER,
    Conversion,
    Log,
    finished_conversions,
    lock_work_folder,
    put_in_place,
    recorded_raw_source,
    scratch_folder,
    stage,
)
from gqn_data.convert.engine import RawSupplier, expected_raw_folder, has_size, write_shards
from gqn_data.convert.incremental_plan import IncomingFile
from gqn_data.convert.index import IndexedFile
from gqn_data.convert.plan import Options
from gqn_data.download.bucket import Bucket, BucketFile, missing
from gqn_data.errors import RemoteMissing
from gqn_data.executors.pool import open_pool
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath
from gqn_data.progress import bar
from gqn_data.schema.catalog import SPLITS
from gqn_data.schema.origin import claim, read_origin
from gqn_data.sources.raw_folder import RawFolder, converted_folder
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
    listed = bucket.listing(options.splits or SPLITS, files)
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
    if not present:
        raise RemoteMissing(
            f"{bucket.url}: found 0 source files of {bucket.scene_set.name}, expected at least 1; check the address"
        )
    raw = expected_raw_folder(
        folder,
        bucket.scene_set,
        origin,
        [(file.split, file.name, file.size, file.expected_scenes) for file in present],
    )
    source_from = functools.partial(recorded_raw_source, raw, options)
    destinations = {name: converted_folder(root, name, bucket.scene_set) for name in options.formats}
    with lock_work_folder(work), atomic.exclusive_writer(folder) if keep_raw else contextlib.nullcontext():
        for destination in destinations.values():
            put_in_place(destination)
        done = finished_conversions(destinations, source_from, work, options, log)
        remaining = {name: stage(path, options) for name, path in destinations.items() if name not in done}
        if remaining:
            if keep_raw:
                claim(folder, origin)
            atomic.make_folder(folder)
            atomic.remove_temporaries(scratch)
            sizes = [file.size for file in present]
            window = window or _WINDOW_SHARDS * (options.processes + 1) * max(options.shard_bytes, *sizes)
            kept = "kept" if keep_raw else f"about {atomic.human_bytes(window)} of them on disk at a time"
            count, size = count_of(len(sizes), "source file"), atomic.human_bytes(sum(sizes))
            log(f"{bucket.url}: {count}, {size}; downloaded while converting, {kept}")
            downloads = _Downloads(
                bucket,
                raw,
                present,
                remaining,
                work,
                options,
                local_folder=raw_folder,
                window=None if keep_raw else window,
                outlived=executor is not None,
            )
            with (
                contextlib.closing(downloads),
                open_pool(options.processes, executor, shared=(folder,)) as workers,
            ):
                for _ in write_shards(downloads, workers, options.processes):
                    pass
            for name, found in downloads.publish().items():
                put_in_place(destinations[name])
                done[name] = dataclasses.replace(found, folder=destinations[name].absolute())
        atomic.remove_folder(work / "index")
        atomic.remove_folder(work / "counted")
        if not keep_raw:
            atomic.remove_folder(scratch / "raw")
    return [done[name] for name in options.formats]


class _Downloads(RawSupplier):
    """Downloads source files in threads, as far as the window allows; see `RawSupplier` for other arguments.

    Args:
        bucket: bucket of the source files.
        remotes: source files in the bucket.
        local_folder: raw folder whose source files are used instead of downloading them; None without one.
        window: approximate bytes of source files on disk at a time; None to keep all files.

    Raises:
        NoSpace: the disk lacks the space for the window.
    """

    def __init__(
        self,
        bucket: Bucket,
        raw: RawFolder,
        remotes: Sequence[BucketFile],
        destinations: Mapping[str, AnyPath],
        work: AnyPath,
        options: Options,
        *,
        local_folder: Path | None,
        window: int | None,
        outlived: bool,
    ) -> None:
        versions = {file.name: [file.size, *_version(file)] for file in remotes}
        super().__init__(
            raw,
            destinations,
            work,
            work / "counted",
            options,
            versions=versions,
            this={"sources": [[file.split, file.name, versions[file.name]] for file in remotes]},
            outlived=outlived,
        )
        self._bucket = bucket
        self._remotes = {file.name: file for file in remotes}
        self._window = window
        if local_folder is not None:
            self._link_files(local_folder)
        missing_bytes = sum(file.source.bytes for file in self.files if not file.is_here)
        atomic.check_free_space(raw.folder, missing_bytes if window is None else min(missing_bytes, window))
        self._progress = bar(sum(file.size for file in remotes), "B", "fetch and convert", unit_scale=True)
        self._threads = ThreadPoolExecutor(_DOWNLOADS)
        self._stop = threading.Event()

    def close(self) -> None:
        """Stop the downloads."""
        self._stop.set()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._progress.close()

    def _link_files(self, folder: Path) -> None:
        """Link source files from a raw folder, if it is of the same origin."""
        if not folder.is_dir() or read_origin(folder) != self.raw.origin:
            return
        for file in self.files:
            local, path = folder / file.source.name, self.path(file)
            if has_size(local, file.source.bytes):
                if local != path:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.unlink(missing_ok=True)
                    path.symlink_to(local.absolute())
                file.is_here = True

    def bring(self, *, busy: bool) -> None:
        """Start the next downloads, as far as the window allows."""
        while len(self.pending) < _DOWNLOADS:
            file = self._next()
            if file is None:
                return
            if self._window is not None and (busy or self.pending):
                arriving = list(self.pending.values())
                on_disk = sum(other.source.bytes for other in self.files if other.is_here or other in arriving)
                if on_disk + file.source.bytes > self._window:
                    return
            self.pending[self._threads.submit(self._bring, file)] = file

    def _next(self) -> IncomingFile | None:
        """Return the file to download next: one that a planned shard needs, else the first that is not counted."""
        arriving = list(self.pending.values())
        for _, shard in self.plan.queue:
            for file in self.plan.files_of(shard):
                if not file.is_here and file not in arriving:
                    return file
        for file in self.files:
            if file.counted is None and not file.beyond_limit and file not in arriving:
                return file
        return None

    def _bring(self, file: IncomingFile) -> IndexedFile:
        """Download a file unless it is on disk, and count it; runs in a thread."""
        if not file.is_here:
            remote = self._remotes[file.source.name]
            self._bucket.fetch(remote, self.path(file), progress=self._progress.update, stop=self._stop)
        return self.count(file) if file.counted is None else file.counted

    def drop(self, file: IncomingFile) -> None:
        """Remove a file whose shards are all finished, unless files are kept."""
        if self._window is None:
            file.is_here = False
        else:
            super().drop(file)


def _version(file: BucketFile) -> tuple[str | None, ...]:
    return () if file.remote is None else (file.remote.etag or file.remote.modified,)
