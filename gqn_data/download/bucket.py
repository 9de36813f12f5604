"""A scene set on a server: list its source files, read their origin, fetch one of them.

The catalogue gives the file names, so the server need not support listing. The server is the public bucket of the
catalogue, or a mirror of it.
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
from gqn_data.download.remote import Remote, RemoteFile, stat_file
from gqn_data.download.retry import RetryPolicy
from gqn_data.errors import OptionError, OriginError, RemoteRefused
from gqn_data.io import strict_json
from gqn_data.io.threads import DaemonThreadPool
from gqn_data.schema.catalog import SPLITS, SceneSet, Split
from gqn_data.schema.origin import SOURCE_FILE, Origin
from gqn_data.tfrecord.framing import RecordChecker

BASE_URL = "GQN_BASE_URL"
_DEEPMIND_BUCKET = "gqn-dataset"
_STAT_THREADS = 16
_MAX_ORIGIN_BYTES = 1 << 16
_REPORT = "Report it to the owner of the mirror, or choose another with --base-url"


@dataclass(frozen=True, kw_only=True)
class BucketFile:
    """A source file of the catalogue.

    Attributes:
        split: its split.
        number: its number, part of the name.
        name: path below the set's folder, with forward slashes: `train/0001-of-2160.tfrecord`.
        expected_scenes: scenes that it holds according to the catalogue.
        remote: the server's description of it; None if the server does not have it.
        required: whether it is an error if the server does not have it; see `Bucket.listing`.
    """

    split: Split
    number: int
    name: str
    expected_scenes: int
    remote: RemoteFile | None
    required: bool = True

    @property
    def size(self) -> int:
        """Size in bytes; 0 if the server does not have the file."""
        return 0 if self.remote is None else self.remote.size


@dataclass(frozen=True, kw_only=True)
class FetchedSource:
    """A fetched source file; the checksums of all records were verified.

    Attributes:
        file: the source file.
        path: where it lies now.
        scenes: number of records.
        crc32c: CRC32C of its bytes.
        received: bytes transferred.
    """

    file: BucketFile
    path: Path
    scenes: int
    crc32c: int
    received: int


def missing(files: Iterable[BucketFile]) -> tuple[BucketFile, ...]:
    """Return the required files that the server does not have."""
    return tuple(file for file in files if file.remote is None and file.required)


def parse_files(text: str) -> tuple[int, ...]:
    """Parse a list of file numbers such as `1-20` or `3,7-9`; return them sorted, without duplicates.

    Raises:
        OptionError: `text` is not such a list.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", part, re.ASCII)
        first = int(match[1]) if match else 0
        last = int(match[2] or match[1]) if match else 0
        if not 0 < first <= last:
            raise OptionError(f"--files {text!r}: {part.strip()!r}, expected numbers and ranges such as 3,7-9")
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


def format_files(numbers: Iterable[int]) -> str:
    """Format file numbers the way `parse_files` reads them: `3,7-9`."""
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
    """Return the source file numbers per split: all, or those in `files`.

    Raises:
        OptionError: a number in `files` belongs to none of the splits.
    """
    valid = {split: scene_set.split(split).numbers for split in splits}
    for number in files or ():
        if not any(number in numbers for numbers in valid.values()):
            ranges = " or ".join(f"{numbers[0]} to {numbers[-1]} ({split})" for split, numbers in valid.items())
            raise OptionError(f"--files: {scene_set.name} does not have source file {number}, expected {ranges}")
    return {
        split: tuple(numbers) if files is None else tuple(number for number in sorted(set(files)) if number in numbers)
        for split, numbers in valid.items()
    }


class Bucket:
    """A scene set on a server; a context manager. Thread-safe.

    Args:
        scene_set: the set.
        base_url: URL of a mirror; None for `$GQN_BASE_URL`, else the public bucket. A file lies at
            `<base>/<set>/<split>/<file>`.
        timeout: seconds after which a connection counts as dead if it sends nothing, or less than 1 kB per second.
        retry: how often to retry.
        remote: mirror to fetch from instead of a web server, with files named `<set>/<split>/<file>`.
        log: called with a line for each fault that is retried.

    Attributes:
        scene_set: the set.
        url: address of the server for display, without credentials.

    Raises:
        OptionError: the base URL is not the URL of a web server.
    """

    def __init__(
        self,
        scene_set: SceneSet,
        base_url: str | None = None,
        *,
        timeout: float = 60.0,
        retry: RetryPolicy | None = None,
        remote: Remote | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        base = base_url or os.environ.get(BASE_URL) or scene_set.bucket_url
        self._http = HTTPRemote(base, timeout=timeout) if remote is None else None
        self._remote: Remote = remote or self._http or HTTPRemote(base)
        self._is_public_bucket = remote is None and base.rstrip("/") == scene_set.bucket_url
        self._retry = retry or RetryPolicy()
        self._log = log
        self._origin: Origin | None = None
        self.scene_set = scene_set
        self.url = self._remote.url("").rstrip("/")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            self._http.close()

    def _name(self, name: str) -> str:
        return f"{self.scene_set.name}/{name}"

    def origin(self) -> Origin:
        """Return the origin of the scenes: the public bucket, or the one in a mirror's `source.json`.

        Scenes of a mirror without `source.json` count as imported from its address.

        Raises:
            OriginError: the mirror's `source.json` is not valid.
            FetchError: the server does not answer.
        """
        if self._origin is None:
            self._origin = self._bucket_origin() if self._is_public_bucket else self._mirror_origin()
        return self._origin

    def _bucket_origin(self) -> Origin:
        bucket = self.scene_set.bucket
        return Origin(
            kind="deepmind" if bucket == _DEEPMIND_BUCKET else "imported", details={"bucket": f"gs://{bucket}"}
        )

    def _mirror_origin(self) -> Origin:
        name = self._name(SOURCE_FILE)
        url = self._remote.url(name)
        try:
            remote_file = stat_file(self._remote, name, retry=self._retry, log=self._log)
        except RemoteRefused:  # some stores refuse requests for missing files
            remote_file = None
        if remote_file is None:
            return Origin(kind="imported", details={"from": self.url})
        if remote_file.size > _MAX_ORIGIN_BYTES:
            raise OriginError(f"{url}: {remote_file.size} bytes, expected at most {_MAX_ORIGIN_BYTES}. {_REPORT}")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / SOURCE_FILE
            fetch_file(self._remote, name, path, known=remote_file, retry=self._retry, log=self._log)
            try:
                value = strict_json.read_note(path, needs_checksum=False)
            except ValueError as error:
                raise OriginError(f"{url}: {error}. {_REPORT}") from error
        return Origin.from_json(value, url)

    def listing(
        self,
        splits: Sequence[Split] = SPLITS,
        files: Sequence[int] | None = None,
        *,
        named: bool | None = None,
    ) -> tuple[BucketFile, ...]:
        """Describe the source files, split by split, in order, including files that the server lacks.

        A mirror of rendered scenes may end early: files after its last one are required only if the user chose them by
        number. On other servers every file is required.

        Args:
            splits: the splits to list.
            files: file numbers; None for all.
            named: whether the user chose the files by number; None to infer it from `files`.

        Raises:
            OptionError: a number in `files` belongs to none of the splits.
            FetchError: the server does not answer.
        """
        wanted = [
            (split, number)
            for split, numbers in file_numbers(self.scene_set, splits, files).items()
            for number in numbers
        ]
        with DaemonThreadPool(min(_STAT_THREADS, len(wanted))) as threads:
            futures = [threads.submit(self._stat, split, number, threads.stop) for split, number in wanted]
            listed = tuple(future.result() for future in futures)
        if named is None:
            named = files is not None
        if not named and any(file.remote is None for file in listed) and self.origin().kind == "rendered":
            last = {file.split: file.number for file in listed if file.remote is not None}
            listed = tuple(replace(file, required=file.number <= last.get(file.split, 0)) for file in listed)
        return listed

    def _stat(self, split: Split, number: int, stop: threading.Event) -> BucketFile:
        name = self.scene_set.source_name(split, number)
        remote = stat_file(self._remote, self._name(name), retry=self._retry, stop=stop, log=self._log)
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
        """Fetch a file to `path`, verifying both checksums of every record; resume a partial file.

        Args:
            file: the source file.
            path: where to write it.
            progress: called with the number of bytes received, negative if bytes were discarded.
            stop: when set, the fetch ends with `FetchStopped`.

        Raises:
            FetchError, NoSpace: see `fetch.fetch_file`.
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
            retry=self._retry,
            stop=stop,
            log=self._log,
        )
        return FetchedSource(
            file=file, path=path, scenes=checkers[0].finish(), crc32c=fetched.crc32c, received=fetched.received
        )
