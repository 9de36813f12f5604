"""Download the source files of a set, from the public bucket or a mirror, into the raw folder.

Existing files are not fetched again; partial files are resumed. Threads fetch; the calling thread schedules.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crc32c

from gqn_data.download.bucket import Bucket, BucketFile, file_numbers, format_files
from gqn_data.download.partial_file import partial_size, remove_partial
from gqn_data.download.retry import RetryPolicy
from gqn_data.errors import (
    CorruptRecord,
    FetchError,
    OptionError,
    RemoteChanged,
    RemoteDamaged,
    RemoteMissing,
    RemoteRefused,
)
from gqn_data.io import atomic, regular
from gqn_data.io.paths import AnyPath
from gqn_data.io.threads import DaemonThreadPool
from gqn_data.progress import bar
from gqn_data.schema import origin as origins
from gqn_data.schema.catalog import SPLITS, SceneSet, Split
from gqn_data.schema.origin import Origin
from gqn_data.tfrecord.framing import check_records, count_records

_MAX_LISTED = 5  # failures listed in the error of a run
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """Result of a download.

    Attributes:
        scene_set: name of the set.
        folder: its raw folder.
        url: address of the server.
        origin: origin of the scenes.
        fetched: names of the fetched source files, in order.
        kept: number of source files that already existed.
        bytes: bytes transferred.
        scenes: number of records in the fetched files.
        seconds: time spent fetching, without the listing of files.
    """

    scene_set: str
    folder: Path
    url: str
    origin: Origin
    fetched: tuple[str, ...]
    kept: int
    bytes: int
    scenes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Convert to a JSON-compatible dict."""
        return {**self.__dict__, "folder": str(self.folder), "origin": self.origin.to_json()}


def download(
    scene_set: SceneSet,
    root: AnyPath,
    *,
    split: Split | None = None,
    files: Sequence[int] | None = None,
    limit: int | None = None,
    workers: int = 4,
    base_url: str | None = None,
    recheck: bool = False,
    timeout: float = 60.0,
    retry: RetryPolicy | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Downloaded:
    """Download source files to `<root>/raw/<set>/`; each appears complete and checked, or not at all.

    A file that the server does not have, refuses to send, or has damaged does not stop the others. All such failures
    are raised as one error at the end.

    Args:
        scene_set: the set.
        root: the data root, on a disk.
        split: the split to download; None for both.
        files: numbers of the source files; None for all.
        limit: scenes per split: download only as many files as hold this many, counted in the files.
        workers: number of concurrent downloads.
        base_url: URL of a mirror; None for `$GQN_BASE_URL`, else the public bucket.
        recheck: also verify every record of existing files, and fetch the damaged ones again.
        timeout: seconds without a byte after which a connection counts as dead.
        retry: how often to retry.
        log: called with a line for each step and each fault.

    Raises:
        OptionError: a file number that the set does not have, or an invalid URL.
        OriginError: the folder holds scenes of another origin.
        DestinationError: another run is writing to the folder.
        NoSpace: the disk does not have enough space.
        FetchError: some files could not be fetched; the others are complete.
    """
    for name, value in (("workers", workers), ("limit", limit)):
        if value is not None and value < 1:
            raise OptionError(f"--{name}: {value}, expected at least 1")
    folder = atomic.on_disk(root, "source files are downloaded") / "raw" / scene_set.name
    numbers = file_numbers(scene_set, (split,) if split else SPLITS, files)
    run: _Run | None = None
    with Bucket(
        scene_set, base_url, timeout=timeout, retry=retry, log=lambda line: run.log(line) if run else log(line)
    ) as bucket:
        run = _Run(bucket, folder, numbers, named=files is not None, limit=limit, recheck=recheck, log=log)
        with atomic.exclusive_writer(folder):
            atomic.remove_temporaries(folder)
            with _unclaim_if_empty(folder):
                run.fetch_all(workers)
        run.raise_failures()
        return Downloaded(
            scene_set=scene_set.name,
            folder=folder,
            url=bucket.url,
            origin=bucket.origin(),
            fetched=tuple(
                file.name for split in numbers for file in sorted(run.fetched, key=_number) if file.split == split
            ),
            kept=run.kept,
            bytes=run.received,
            scenes=run.scenes,
            seconds=run.seconds,
        )


@contextmanager
def _unclaim_if_empty(folder: Path) -> Iterator[None]:
    """Remove a new `source.json` if no byte was received: the next run may use another origin."""
    was_claimed = (folder / origins.SOURCE_FILE).exists()
    try:
        yield
    finally:
        if not was_claimed and not any(folder.rglob("*.tfrecord*")):
            (folder / origins.SOURCE_FILE).unlink(missing_ok=True)


@dataclass(kw_only=True)
class _SplitState:
    """Progress in one split."""

    pending: deque[int]
    scenes: int = 0  # in the finished files before the first unfinished one


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """Result of the task of one file."""

    scenes: int = 0
    received: int = 0
    was_fetched: bool = False


@dataclass(kw_only=True, eq=False)
class _Task:
    """A file that a thread is checking or fetching."""

    file: BucketFile
    future: Future[_Outcome]


class _Run:
    """One run: rounds of files, each listed, checked for disk space, and fetched."""

    def __init__(
        self,
        bucket: Bucket,
        folder: Path,
        numbers: dict[Split, tuple[int, ...]],
        *,
        named: bool,
        limit: int | None,
        recheck: bool,
        log: Callable[[str], None],
    ) -> None:
        self._bucket = bucket
        self._folder = folder
        self._splits = {split: _SplitState(pending=deque(in_split)) for split, in_split in numbers.items()}
        self._named = named
        self._limit = limit
        self._recheck = recheck
        self._log = log
        self._bar: Any = None
        self._lock = threading.Lock()
        self._requested = 0
        self._failures: list[tuple[str, FetchError]] = []
        self._missing: list[BucketFile] = []
        self.fetched: list[BucketFile] = []
        self.kept = 0
        self.received = 0
        self.scenes = 0
        self.seconds = 0.0

    def log(self, line: str) -> None:
        """Log a line without garbling the progress bar."""
        with self._lock:
            if self._bar is None:
                self._log(line)
                return
            with self._bar.external_write_mode():
                self._log(line)

    def fetch_all(self, workers: int) -> None:
        """Run rounds until all files are processed or the limit is reached."""
        while listed := self._next_round():
            files = []
            for file in listed:
                if file.remote is not None or self._exists(file):  # a local file is kept if the server lost it
                    files.append(file)
                elif file.required:
                    self._requested += 1
                    self._missing.append(file)
            if files:
                origins.claim(self._folder, self._bucket.origin())
                self._fetch(files, workers)

    def _next_round(self) -> list[BucketFile]:
        """List the next files: all, or with a limit as many as reach it if they hold the expected scenes."""
        listed: list[BucketFile] = []
        for split, state in self._splits.items():
            facts = self._bucket.scene_set.split(split)
            chosen: list[int] = []
            expected = state.scenes
            while state.pending and (self._limit is None or expected < self._limit):
                chosen.append(state.pending.popleft())
                expected += facts.scenes_in_file(chosen[-1]) or (self._limit or 0)
            if chosen:
                found = self._bucket.listing((split,), chosen, named=self._named)
                if all(file.remote is None for file in found):
                    state.pending.clear()  # the server ends before these files
                listed += found
        return listed

    def _path(self, file: BucketFile) -> Path:
        return self._folder / file.name

    def _exists(self, file: BucketFile) -> bool:
        path = self._path(file)
        return path.is_file() and (file.remote is None or path.stat().st_size == file.size)

    def _fetch(self, files: list[BucketFile], workers: int) -> None:
        existing = {file.name for file in files if self._exists(file)}
        absent = [file for file in files if file.name not in existing]
        total = sum(file.size for file in absent)
        atomic.check_free_space(self._folder, total - sum(partial_size(self._path(file)) for file in absent))
        self._log(
            f"{self._bucket.scene_set.name}: {_files(len(absent))} to fetch from {self._bucket.url}, "
            f"{atomic.human_bytes(total)}; {_files(len(existing))} already present"
            + (", rechecked" if self._recheck and existing else "")
        )
        if self._recheck:
            total += sum(self._path(file).stat().st_size for file in files if file.name in existing)
        with (
            DaemonThreadPool(min(workers, len(files))) as threads,
            bar(total, "B", "download", unit_scale=True) as progress,
        ):
            self._bar = progress
            try:
                start = time.perf_counter()
                self._run_tasks(deque(files), threads, workers)
                self.seconds += time.perf_counter() - start
            finally:
                self._bar = None

    def _run_tasks(self, waiting: deque[BucketFile], threads: DaemonThreadPool, workers: int) -> None:
        """Process files concurrently.

        With a limit, tasks are collected in order and at most `workers` files run ahead of the first unfinished one.
        """
        count, done = len(waiting), 0
        running: deque[_Task] = deque()
        while waiting or running:
            while waiting and len(running) < workers:
                file = waiting.popleft()
                if self._limit is None or self._splits[file.split].scenes < self._limit:
                    self._requested += 1
                    running.append(_Task(file=file, future=threads.submit(self._fetch_one, file, threads.stop)))
                else:
                    count -= 1
            if self._limit is None:
                wait([task.future for task in running], return_when=FIRST_COMPLETED)
                finished = [task for task in running if task.future.done()]
            else:
                wait([task.future for task in running][:1])
                finished = list(running)[:1]
            for task in finished:
                running.remove(task)
                self._collect(task)
                done += 1
            self._bar.set_postfix_str(f"{done:,}/{count:,} files", refresh=False)

    def _collect(self, task: _Task) -> None:
        """Record the outcome of a task."""
        try:
            outcome = task.future.result()
        except RemoteMissing:
            self._missing.append(task.file)
            return
        except (RemoteRefused, RemoteDamaged) as error:
            self._failures.append((task.file.name, error))
            self.log(str(error))
            return
        self._splits[task.file.split].scenes += outcome.scenes
        self.received += outcome.received
        if outcome.was_fetched:
            self.fetched.append(task.file)
            self.scenes += outcome.scenes
        else:
            self.kept += 1

    def _progress(self, count: int) -> None:
        with self._lock:
            if self._bar is not None:
                self._bar.update(count)

    def _fetch_one(self, file: BucketFile, stop: threading.Event) -> _Outcome:
        """Fetch a file unless it exists and is intact. Runs in a thread."""
        path = self._path(file)
        if self._exists(file):
            try:
                scenes = self._check_existing(file, path)
            except (CorruptRecord, RemoteChanged) as error:
                self.log(f"{path}: damaged ({error}); fetching it again")
                with self._lock:
                    if self._bar is not None:
                        self._bar.total += file.size
            else:
                remove_partial(path)  # left if the file was completed by other means
                return _Outcome(scenes=scenes)
        fetched = self._bucket.fetch(file, path, progress=self._progress, stop=stop)
        return _Outcome(scenes=fetched.scenes, received=fetched.received, was_fetched=True)

    def _check_existing(self, file: BucketFile, path: Path) -> int:
        """Check an existing file as far as the options ask; return its scenes, or 0 if they are not counted.

        Raises:
            CorruptRecord: the file is damaged.
            RemoteChanged: the file is valid, but differs from the server's.
        """
        if not self._recheck:
            return count_records(path) if self._limit is not None else 0
        self._progress(path.stat().st_size)
        scenes = check_records(path)
        expected = None if file.remote is None else file.remote.crc32c
        if expected is not None and (found := _crc32c_of(path)) != expected:
            raise RemoteChanged(f"CRC32C is {found:08x}, expected {expected:08x} from the server")
        return scenes

    def raise_failures(self) -> None:
        """Raise one error for all files that could not be fetched, if there are any.

        Raises:
            FetchError: the server refused or damaged some files, or lacks them (`RemoteMissing`).
        """
        name = self._bucket.scene_set.name
        if not self._requested:
            raise RemoteMissing(f"{self._bucket.url}: source files of {name} not found. Check --base-url")
        if not self._failures and not self._missing:
            return
        missing = {split: [file.number for file in self._missing if file.split == split] for split in self._splits}
        parts = [f"{split} {format_files(numbers)} not found" for split, numbers in missing.items() if numbers]
        parts += [f"{file}: {str(error).rpartition(file + ': ')[2]}" for file, error in self._failures[:_MAX_LISTED]]
        if len(self._failures) > _MAX_LISTED:
            parts.append(f"{len(self._failures) - _MAX_LISTED:,} more listed above")
        failed = len(self._failures) + len(self._missing)
        raise (FetchError if self._failures else RemoteMissing)(
            f"{self._bucket.url}: failed to fetch {failed:,} of {_files(self._requested)} of {name}: "
            f"{'; '.join(parts)}. The other files are complete"
        )


def _number(file: BucketFile) -> int:
    return file.number


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def _crc32c_of(path: Path) -> int:
    block, crc = memoryview(bytearray(_BLOCK)), 0
    with regular.open_read(path) as file:
        while count := file.readinto(block):
            crc = crc32c.crc32c(block[:count], crc)
    return crc
