"""Downloading: the source files of a set, from the public bucket or a mirror, into the raw folder.

What is there already is not fetched again; what a run left behind is gone on with. Threads fetch, and this one decides.
Imports `fetching`, `origin`, `storage`, `stores`, `tfrecords` and what lies below them.
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
from gqn_data.download.partial_file import remove_part, size_of_part
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
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath
from gqn_data.io.threads import DaemonThreadPool
from gqn_data.progress import bar
from gqn_data.schema import origin as origins
from gqn_data.schema.catalog import SPLITS, SceneSet, Split
from gqn_data.schema.origin import Origin
from gqn_data.tfrecord.framing import check_records, count_records

_NAMED_IN_ERRORS = 5
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """What a run did.

    Attributes:
        scene_set: name of the set.
        folder: its raw folder.
        url: where the files came from.
        origin: of the scenes.
        fetched: the source files that this run fetched, in order.
        kept: source files that were there already.
        bytes: what came over the wire.
        scenes: records in the files that were fetched, counted.
        seconds: that fetching took, without asking what there is.
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
        """The same as JSON."""
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
    patience: RetryPolicy | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Downloaded:
    """Fetches source files into `<root>/raw/<set>/`, each whole and all its records checked, or not at all.

    Files that the server does not have, refuses, or has damaged do not stop the others; they are told in the end.

    Args:
        scene_set: the set.
        root: the data root, on a disk.
        split: one alone; None for both.
        files: their numbers, as the names tell them; None for all.
        limit: no more files of a split than hold so many scenes, counted in the files themselves.
        workers: files fetched at once.
        base_url: of a mirror; None for `$GQN_BASE_URL`, else the public bucket.
        recheck: read every record of the files that are there, too, and fetch the damaged ones again.
        timeout: seconds without a byte after which a connection counts as dead.
        patience: how often is tried again.
        log: called what is about to be done and what goes wrong, a line at a time.

    Raises:
        OptionError: a number that no file has, or a URL that is none.
        OriginError: the folder holds scenes of another origin.
        DestinationError: another run writes there.
        NoSpace: the disk has not the room.
        FetchError: some files could not be fetched; the others are whole.
    """
    if workers < 1 or (limit is not None and limit < 1):
        raise OptionError(f"{workers} workers, a limit of {limit} scenes: expected 1 or more")
    folder = atomic.on_disk(root, "source files are downloaded") / "raw" / scene_set.name
    numbers = file_numbers(scene_set, (split,) if split else SPLITS, files)
    run: _Run | None = None
    with Bucket(
        scene_set, base_url, timeout=timeout, patience=patience, tell=lambda line: run.tell(line) if run else log(line)
    ) as bucket:
        run = _Run(bucket, folder, numbers, named=files is not None, limit=limit, recheck=recheck, log=log)
        with atomic.exclusive_writer(folder):
            atomic.remove_temporaries(folder)
            with _claimed_if_used(folder):
                run.fetch_all(workers)
        run.tell_faults()
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
def _claimed_if_used(folder: Path) -> Iterator[None]:
    """A folder that no byte came to is not marked: the next try may come from elsewhere."""
    was_marked = (folder / origins.SOURCE_FILE).exists()
    try:
        yield
    finally:
        if not was_marked and not any(folder.rglob("*.tfrecord*")):
            (folder / origins.SOURCE_FILE).unlink(missing_ok=True)


@dataclass(kw_only=True)
class _SplitState:
    """What is still to be done in a split, and what is there for sure."""

    left: deque[int]
    scenes: int = 0  # in the files before the first that is still under way


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What became of one file."""

    scenes: int = 0
    received: int = 0
    was_fetched: bool = False


@dataclass(kw_only=True, eq=False)
class _Task:
    """A file under way."""

    file: BucketFile
    future: Future[_Outcome]


class _Run:
    """One run: rounds of files, each asked about, given room, and fetched."""

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
        self._splits = {split: _SplitState(left=deque(those)) for split, those in numbers.items()}
        self._named = named
        self._limit = limit
        self._recheck = recheck
        self._log = log
        self._bar: Any = None
        self._lock = threading.Lock()
        self._asked = 0
        self._faults: list[tuple[str, FetchError]] = []
        self._absent: list[BucketFile] = []
        self.fetched: list[BucketFile] = []
        self.kept = 0
        self.received = 0
        self.scenes = 0
        self.seconds = 0.0

    def tell(self, line: str) -> None:
        """Says a line beside the bar."""
        with self._lock:
            if self._bar is None:
                self._log(line)
                return
            with self._bar.external_write_mode():
                self._log(line)

    def fetch_all(self, workers: int) -> None:
        """Round after round, until all is there that is wanted."""
        while listed := self._next_round():
            files = []
            for file in listed:
                if file.remote is not None or self._is_there(file):  # no less there for being gone from the server
                    files.append(file)
                elif file.required:
                    self._asked += 1
                    self._absent.append(file)
            if files:
                origins.claim(self._folder, self._bucket.origin())
                self._fetch(files, workers)

    def _next_round(self) -> list[BucketFile]:
        """The next files: all, or, with a limit, as many as make it up if they hold what is expected of them."""
        listed: list[BucketFile] = []
        for split, state in self._splits.items():
            facts = self._bucket.scene_set.split(split)
            chosen: list[int] = []
            expected = state.scenes
            while state.left and (self._limit is None or expected < self._limit):
                chosen.append(state.left.popleft())
                expected += facts.scenes_in_file(chosen[-1]) or (self._limit or 0)
            if chosen:
                found = self._bucket.listing((split,), chosen, named=self._named)
                if all(file.remote is None for file in found):
                    state.left.clear()  # what comes behind them is not there either
                listed += found
        return listed

    def _path(self, file: BucketFile) -> Path:
        return self._folder / file.name

    def _is_there(self, file: BucketFile) -> bool:
        path = self._path(file)
        return path.is_file() and (file.remote is None or path.stat().st_size == file.size)

    def _fetch(self, files: list[BucketFile], workers: int) -> None:
        there = {file.name for file in files if self._is_there(file)}
        wanted = [file for file in files if file.name not in there]
        total = sum(file.size for file in wanted)
        atomic.check_free_space(self._folder, total - sum(size_of_part(self._path(file)) for file in wanted))
        self._log(
            f"{self._bucket.scene_set.name}: {len(wanted):,} files to fetch from {self._bucket.url}, "
            f"{atomic.human_bytes(total)}; {len(there):,} are there"
            + (", read again" if self._recheck and there else "")
        )
        if self._recheck:
            total += sum(self._path(file).stat().st_size for file in files if file.name in there)
        with (
            DaemonThreadPool(min(workers, len(files))) as threads,
            bar(total, "B", "download", unit_scale=True) as progress,
        ):
            self._bar = progress
            try:
                begun = time.perf_counter()
                self._work_through(deque(files), threads, workers)
                self.seconds += time.perf_counter() - begun
            finally:
                self._bar = None

    def _work_through(self, waiting: deque[BucketFile], threads: DaemonThreadPool, workers: int) -> None:
        """Files side by side; where a limit counts, none further ahead of the first unfinished one than workers are."""
        count, done = len(waiting), 0
        ahead: deque[_Task] = deque()
        while waiting or ahead:
            while waiting and len(ahead) < workers:
                file = waiting.popleft()
                if self._limit is None or self._splits[file.split].scenes < self._limit:
                    self._asked += 1
                    ahead.append(_Task(file=file, future=threads.submit(self._fetch_one, file, threads.stop)))
                else:
                    count -= 1
            if self._limit is None:
                wait([task.future for task in ahead], return_when=FIRST_COMPLETED)
                finished = [task for task in ahead if task.future.done()]
            else:
                wait([task.future for task in ahead][:1])
                finished = list(ahead)[:1]
            for task in finished:
                ahead.remove(task)
                self._take(task)
                done += 1
            self._bar.set_postfix_str(f"{done:,}/{count:,} files", refresh=False)

    def _take(self, task: _Task) -> None:
        """Notes what became of a file."""
        try:
            outcome = task.future.result()
        except RemoteMissing:
            self._absent.append(task.file)
            return
        except (RemoteRefused, RemoteDamaged) as error:
            self._faults.append((task.file.name, error))
            self.tell(str(error))
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
        """Fetches a file where it is not there, or not good; in a thread."""
        path = self._path(file)
        if self._is_there(file):
            try:
                scenes = self._looked_through(file, path)
            except (CorruptRecord, RemoteChanged) as error:
                self.tell(f"{path}: damaged, and fetched again: {error}")
                with self._lock:
                    if self._bar is not None:
                        self._bar.total += file.size
            else:
                remove_part(path)  # of a file that came another way meanwhile
                return _Outcome(scenes=scenes)
        fetched = self._bucket.fetch(file, path, progress=self._progress, stop=stop)
        return _Outcome(scenes=fetched.scenes, received=fetched.received, was_fetched=True)

    def _looked_through(self, file: BucketFile, path: Path) -> int:
        """The scenes of a file that is there; 0 where nobody wants to know.

        Raises:
            CorruptRecord: the file is damaged.
            RemoteChanged: it is whole, and not the server's.
        """
        if not self._recheck:
            return count_records(path) if self._limit is not None else 0
        self._progress(path.stat().st_size)
        scenes = check_records(path)
        expected = None if file.remote is None else file.remote.crc32c
        if expected is not None and (found := _crc32c_of(path)) != expected:
            raise RemoteChanged(f"CRC32C is {found:08x}, the server says {expected:08x}")
        return scenes

    def tell_faults(self) -> None:
        """Returns where nothing went wrong.

        Raises:
            FetchError: something did.
        """
        name = self._bucket.scene_set.name
        if not self._asked:
            raise RemoteMissing(f"{self._bucket.url}: holds no source file of {name}; look at --base-url")
        if not self._faults and not self._absent:
            return
        absent = {split: [file.number for file in self._absent if file.split == split] for split in self._splits}
        told = [f"{split} {format_files(numbers)} not there" for split, numbers in absent.items() if numbers]
        told += [f"{file}: {str(error).rpartition(file + ': ')[2]}" for file, error in self._faults[:_NAMED_IN_ERRORS]]
        if len(self._faults) > _NAMED_IN_ERRORS:
            told.append(f"{len(self._faults) - _NAMED_IN_ERRORS:,} more are told above")
        failed = len(self._faults) + len(self._absent)
        raise (FetchError if self._faults else RemoteMissing)(
            f"{self._bucket.url}: {failed:,} of {self._asked:,} files of {name} could not be fetched: "
            f"{'; '.join(told)}. The others are whole"
        )


def _number(file: BucketFile) -> int:
    return file.number


def _crc32c_of(path: Path) -> int:
    block, crc = memoryview(bytearray(_BLOCK)), 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            crc = crc32c.crc32c(block[:count], crc)
    return crc
