"""A scene set on a server: which of its source files are there, where they come from, and one of them fetched.

Names come from the catalogue, so nothing need be listed. The server is the public bucket that the catalogue names, or
a mirror of it. Imports `fetch`, `http_remote`, `json_files`, `origin`, `scene_sets`, `stores`, `tfrecords`
and what lies below them.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from gqn_data.download.fetch import fetch_file
from gqn_data.download.http_remote import HTTPRemote
from gqn_data.download.remote import Remote, RemoteFile, ask
from gqn_data.download.retry import RetryPolicy
from gqn_data.errors import OptionError, OriginError, RemoteRefused
from gqn_data.io import strict_json
from gqn_data.io.threads import DaemonThreadPool
from gqn_data.schema.catalog import SPLITS, SceneSet, Split
from gqn_data.schema.origin import SOURCE_FILE, Origin
from gqn_data.tfrecord.framing import RecordChecker

BASE_URL = "GQN_BASE_URL"
_DEEPMINDS = "gqn-dataset"
_ASKERS = 16  # questions under way at once
_LARGEST_ORIGIN = 1 << 16


@dataclass(frozen=True, kw_only=True)
class BucketFile:
    """One source file as the catalogue names it.

    Attributes:
        split: that it belongs to.
        number: of it, as its name says.
        name: from the set's folder, with forward slashes: `train/0001-of-2160.tfrecord`.
        expected_scenes: what the catalogue announces for it.
        remote: what the server says of it; None where it has no such file.
        required: whether its absence would be a fault; see `Bucket.listing`.
    """

    split: Split
    number: int
    name: str
    expected_scenes: int
    remote: RemoteFile | None
    required: bool = True

    @property
    def size(self) -> int:
        """Its bytes; 0 where it is not there."""
        return 0 if self.remote is None else self.remote.size


@dataclass(frozen=True, kw_only=True)
class FetchedSource:
    """A source file that was fetched, and all of whose records were checked.

    Attributes:
        file: which.
        path: where it lies now.
        scenes: records in it, counted.
        crc32c: of its bytes.
        received: bytes that came over the wire.
    """

    file: BucketFile
    path: Path
    scenes: int
    crc32c: int
    received: int


def missing(files: Iterable[BucketFile]) -> tuple[BucketFile, ...]:
    """Those whose absence is a fault."""
    return tuple(file for file in files if file.remote is None and file.required)


def parse_files(text: str) -> tuple[int, ...]:
    """The numbers in `1-20` or `3,7-9`, in order, each once.

    Raises:
        OptionError: it is no such list.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", part, re.ASCII)
        first = int(match[1]) if match else 0
        last = int(match[2] or match[1]) if match else 0
        if not 0 < first <= last:
            raise OptionError(f"--files {text!r}: {part.strip()!r} is no number and no range; expected such as 3,7-9")
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


def format_files(numbers: Iterable[int]) -> str:
    """Numbers as `parse_files` reads them: `3,7-9`."""
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges)


def file_numbers(
    scene_set: SceneSet, splits: Sequence[Split] = SPLITS, files: Sequence[int] | None = None
) -> dict[Split, tuple[int, ...]]:
    """The numbers of the source files of each split: all, or those of `files` that the split has.

    Raises:
        OptionError: no split has one of `files`.
    """
    numbers = {split: scene_set.split(split).numbers for split in splits}
    for number in files or ():
        if not any(number in those for those in numbers.values()):
            has = "; ".join(f"{split} has files {those[0]} to {those[-1]}" for split, those in numbers.items())
            raise OptionError(f"{scene_set.name}: there is no source file {number}; {has}")
    return {
        split: tuple(those) if files is None else tuple(number for number in sorted(set(files)) if number in those)
        for split, those in numbers.items()
    }


class Bucket:
    """A scene set on a server. Any number of threads may use one; a context manager.

    Args:
        scene_set: the set.
        base_url: of a mirror; None for `$GQN_BASE_URL`, else the public bucket. A file lies at
            `<base>/<set>/<split>/<file>`.
        timeout: seconds without a byte after which a connection counts as dead.
        patience: how often is tried again.
        remote: what to fetch from in place of a web server; it is a mirror, and has files named
            `<set>/<split>/<file>`.
        tell: told of every fault that is passed over.

    Attributes:
        scene_set: the set.
        url: where the server is, for people to read: without credentials.

    Raises:
        OptionError: the base URL is none.
    """

    def __init__(
        self,
        scene_set: SceneSet,
        base_url: str | None = None,
        *,
        timeout: float = 60.0,
        patience: RetryPolicy | None = None,
        remote: Remote | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        base = base_url or os.environ.get(BASE_URL) or scene_set.bucket_url
        self._own = HTTPRemote(base, timeout=timeout) if remote is None else None
        self._remote: Remote = remote or self._own or HTTPRemote(base)
        self._is_the_bucket = remote is None and base.rstrip("/") == scene_set.bucket_url
        self._patience = patience or RetryPolicy()
        self._tell = tell
        self._origin: Origin | None = None
        self.scene_set = scene_set
        self.url = self._remote.url("").rstrip("/")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        if self._own is not None:
            self._own.close()

    def _name(self, name: str) -> str:
        return f"{self.scene_set.name}/{name}"

    def origin(self) -> Origin:
        """Where the scenes come from: the public bucket, or what a mirror's `source.json` says.

        A mirror without one is no more than a place that scenes were imported from.

        Raises:
            OriginError: the mirror's `source.json` cannot be understood.
            FetchError: the server does not answer.
        """
        if self._origin is None:
            self._origin = self._bucket_origin() if self._is_the_bucket else self._mirror_origin()
        return self._origin

    def _bucket_origin(self) -> Origin:
        bucket = self.scene_set.bucket
        return Origin(kind="deepmind" if bucket == _DEEPMINDS else "imported", details={"bucket": f"gs://{bucket}"})

    def _mirror_origin(self) -> Origin:
        name = self._name(SOURCE_FILE)
        where = self._remote.url(name)
        try:
            found = ask(self._remote, name, patience=self._patience, tell=self._tell)
        except RemoteRefused:  # so some stores answer where they have no such file
            found = None
        if found is None:
            return Origin(kind="imported", details={"from": self.url})
        if found.size > _LARGEST_ORIGIN:
            raise OriginError(f"{where}: {found.size} bytes, expected {_LARGEST_ORIGIN} at most; it is not ours")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / SOURCE_FILE
            fetch_file(self._remote, name, path, known=found, patience=self._patience, tell=self._tell)
            try:
                value = strict_json.read_note(path, needs_checksum=False)
            except ValueError as error:
                raise OriginError(f"{where}: {error}; its owner has to write it anew") from error
        return Origin.from_json(value, where)

    def listing(
        self,
        splits: Sequence[Split] = SPLITS,
        files: Sequence[int] | None = None,
        *,
        named: bool | None = None,
    ) -> tuple[BucketFile, ...]:
        """The source files, split by split, in order, each asked for; also those that the server has not.

        A mirror of rendered scenes holds as many files as were rendered: those behind its last one are no fault, unless
        they are asked for by number. Everywhere else each file is required.

        Args:
            splits: which.
            files: their numbers; None for all.
            named: whether somebody asked for them by number; None where `files` says so.

        Raises:
            OptionError: no split has such a number.
            FetchError: the server does not answer.
        """
        wanted = [
            (split, number)
            for split, numbers in file_numbers(self.scene_set, splits, files).items()
            for number in numbers
        ]
        with DaemonThreadPool(min(_ASKERS, len(wanted))) as threads:
            futures = [threads.submit(self._asked, split, number, threads.stop) for split, number in wanted]
            listed = tuple(future.result() for future in futures)
        if named is None:
            named = files is not None
        if not named and any(file.remote is None for file in listed) and self.origin().kind == "rendered":
            last = {file.split: file.number for file in listed if file.remote is not None}
            listed = tuple(replace(file, required=file.number <= last.get(file.split, 0)) for file in listed)
        return listed

    def _asked(self, split: Split, number: int, stop: threading.Event) -> BucketFile:
        name = self.scene_set.source_name(split, number)
        remote = ask(self._remote, self._name(name), patience=self._patience, stop=stop, tell=self._tell)
        expected = self.scene_set.split(split).scenes_in_file(number)
        return BucketFile(split=split, number=number, name=name, expected_scenes=expected, remote=remote)

    def fetch(
        self,
        file: BucketFile,
        path: Path,
        *,
        progress: Callable[[int], None] | None = None,
        stop: threading.Event | None = None,
    ) -> FetchedSource:
        """Fetches a file to `path`, whole, both checksums of every record tested; goes on with a part that is there.

        Args:
            file: which.
            path: where it is to lie.
            progress: told the bytes that have come, one time with another; fewer than none where some are thrown away.
            stop: when set, fetching ends with `FetchStopped`.

        Raises:
            FetchError, NoSpace: as `fetch.fetch_file`.
        """
        checkers: list[RecordChecker] = []

        def check(size: int) -> RecordChecker:
            checkers[:] = [RecordChecker(path, size)]
            return checkers[0]

        fetched = fetch_file(
            self._remote,
            self._name(file.name),
            path,
            known=file.remote,
            check=check,
            progress=progress,
            patience=self._patience,
            stop=stop,
            tell=self._tell,
        )
        return FetchedSource(
            file=file, path=path, scenes=checkers[0].finish(), crc32c=fetched.crc32c, received=fetched.received
        )
