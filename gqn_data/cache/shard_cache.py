"""Local copies of remote files: checked on arrival, shared by all runs on a machine, bounded in size.

    cache = open_cache()
    path = cache.get(parse_path("s3://bucket/set/train-000000.tar"), row)

A copy is named by its SHA-256, so that datasets share equal files. Source files have checksums in their records only;
their copies are named by URL, size and version. `directory` stores and evicts the copies.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gqn_data.cache.directory import CacheDirectory
from gqn_data.errors import FetchStopped, NoSpace, OptionError, ShardChecksumError, StoreChanged
from gqn_data.io import atomic
from gqn_data.io.paths import StorePath, local_path
from gqn_data.schema.manifest import FileRow

DEFAULT_BYTES = 50_000_000_000
_ATTEMPTS = 3  # fetches of a file whose bytes differ from the manifest
_POLL = 0.05  # seconds between two checks for a file that another process fetches


def default_folder() -> Path:
    """Return the cache folder: `$GQN_CACHE`, else `gqn-toolkit` in `$XDG_CACHE_HOME`, else in `~/.cache`.

    Raises:
        OptionError: `$GQN_CACHE` is a URL, or the home folder is unknown.
    """
    folder = os.environ.get("GQN_CACHE")
    if folder:
        return local_path(folder, "copies are kept")
    parent = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(parent) if Path(parent).is_absolute() else local_path("~/.cache", "copies are kept")) / "gqn-toolkit"


def open_cache(folder: str | os.PathLike[str] | None = None, gigabytes: float | None = None) -> ShardCache:
    """Open the cache in a folder; create the folder if it does not exist.

    Args:
        folder: the folder; None for `default_folder()`.
        gigabytes: maximum size of all copies; None for 50, or half of the disk space if that is less.

    Raises:
        OptionError: the folder cannot be created, or the size is not positive.
    """
    path = local_path(folder, "copies are kept") if folder else default_folder()
    if gigabytes is not None and not gigabytes > 0:
        raise OptionError(f"--cache-gb: {gigabytes}, expected more than 0")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{path}: cannot create the cache folder ({error.strerror}). Change --cache") from error
    cache = ShardCache(path, int((gigabytes or 0) * 1e9))
    if gigabytes is None:
        space = shutil.disk_usage(path).free + sum(entry.size for entry in cache.directory.entries())
        cache = ShardCache(path, min(DEFAULT_BYTES, space // 2))
    return cache


@dataclass(frozen=True, kw_only=True)
class _Request:
    """A file to copy.

    Attributes:
        address: its name in the cache.
        size: bytes.
        sha256: its checksum; None if unknown.
        blocks: yields its bytes.
        label: its name in messages.
    """

    address: str
    size: int
    sha256: str | None
    blocks: Callable[[], Generator[bytes]]
    label: str


class ShardCache:
    """A cache of remote files. Safe for use by several threads and processes.

    Args:
        folder: the folder of the copies.
        limit: maximum bytes of all copies.

    Attributes:
        directory: the copies in the folder.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder.absolute()  # copies are opened later, when the working directory may have changed
        self.limit = limit
        self.directory = CacheDirectory(self.folder, limit)

    def __reduce__(self) -> tuple[type[ShardCache], tuple[Path, int]]:
        return type(self), (self.folder, self.limit)

    def get(self, path: StorePath, row: FileRow) -> Path:
        """Return the local copy of a remote file; fetch and check it first if it is not cached.

        Waits if another process is fetching the file. Evicts copies that other runs pinned if necessary. Another
        process may evict the copy at any time: a caller that cannot open it calls `get` again.

        Args:
            path: the remote file.
            row: its size and checksum.

        Raises:
            ShardChecksumError: the remote file is missing, or differs from the manifest.
            StoreError: the store does not answer.
            OptionError: the file is larger than the cache.
            NoSpace: the disk is full.
        """
        return self._get(lambda: self._request(path, row), path)

    def get_tail(self, path: StorePath, row: FileRow, start: int) -> Path:
        """Return the local copy of the end of a remote file, from byte `start` on. See `get`."""

        def tail() -> _Request:
            return _Request(
                address=f"{self._request(path, row).address}-from-{start}",
                size=row.bytes - start,
                sha256=None,
                blocks=lambda: path.blocks(start),
                label=f"{path} from byte {start} on",
            )

        return self._get(tail, path)

    def fetch_ahead(self, path: StorePath, row: FileRow, stop: threading.Event) -> bool:
        """Fetch a remote file unless it is cached; return whether it is cached now.

        Returns False if another process is fetching the file, or pinned copies leave too little space.

        Args:
            path: the remote file.
            row: its size and checksum.
            stop: when set, the fetch ends.

        Raises:
            FetchStopped: `stop` was set.
            GQNError: see `get`.
        """
        with self._translate_errors(path):
            return self._ensure(self._request(path, row), urgent=False, stop=stop) is not None

    def address(self, path: StorePath, row: FileRow) -> str:
        """Return the name of a file's copy. Asks the store if the manifest does not contain a checksum."""
        with self._translate_errors(path):
            return self._request(path, row).address

    def _get(self, request: Callable[[], _Request], path: StorePath) -> Path:
        while True:
            with self._translate_errors(path):
                copy = self._ensure(request(), urgent=True, stop=None)
            if copy is not None:
                return copy
            time.sleep(_POLL)

    @contextlib.contextmanager
    def _translate_errors(self, path: StorePath) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if error.filename != str(path):
                raise
            raise ShardChecksumError(
                f"{path}: listed in the manifest, but missing. Convert or copy the dataset again"
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise NoSpace(
                f"{self.folder}: the disk of the cache is full. Free some space, lower --cache-gb, or change --cache"
            ) from error

    def _request(self, path: StorePath, row: FileRow) -> _Request:
        tag = None
        if row.sha256 is not None:
            address = row.sha256
        else:
            tag = path.stat().e_tag
            address = "source-" + hashlib.sha256(f"{path}\n{row.bytes}\n{tag}".encode()).hexdigest()
        return _Request(
            address=address,
            size=row.bytes,
            sha256=row.sha256,
            blocks=lambda: path.blocks(e_tag=tag),
            label=str(path),
        )

    def _ensure(self, request: _Request, *, urgent: bool, stop: threading.Event | None) -> Path | None:
        """Return the copy, fetched if necessary; None if another process fetches it or space is short."""
        if request.size > self.limit:
            raise OptionError(
                f"{request.label}: {atomic.human_bytes(request.size)}, but the cache in {self.folder} is limited to "
                f"{atomic.human_bytes(self.limit)}. Raise --cache-gb, or read by range with --remote range"
            )
        copy = self.directory.files / request.address
        if self.directory.touch(copy, request.size):
            return copy
        with self.directory.claim(copy) as partial:
            if partial is None:
                return None
            if self.directory.touch(copy, request.size):  # fetched by the previous holder of the claim
                return copy
            if not self.directory.reserve(copy, partial, request.size, urgent=urgent):
                return None
            self._fetch(request, copy, partial, stop)
            return copy

    def _fetch(self, request: _Request, copy: Path, partial: IO[bytes], stop: threading.Event | None) -> None:
        for _ in range(_ATTEMPTS):
            try:
                fault, found = _fetch_once(request, partial, stop)
            except StoreChanged as error:
                fault = str(error)
                continue
            if fault is None:
                self.directory.publish(copy, partial, found)
                return
        raise ShardChecksumError(
            f"{request.label}: {fault}, in {_ATTEMPTS} attempts. Convert or copy the dataset again"
        )


def _fetch_once(request: _Request, file: IO[bytes], stop: threading.Event | None) -> tuple[str | None, str]:
    """Fetch a file once; return what is wrong with it, or None, and its SHA-256."""
    digest = hashlib.sha256()
    count = 0
    file.seek(0)
    with contextlib.closing(request.blocks()) as blocks:
        for block in blocks:
            if stop is not None and stop.is_set():
                raise FetchStopped(f"{request.label}: fetch stopped on request")
            count += len(block)
            if count > request.size:
                return f"more bytes than the expected {request.size}", ""
            digest.update(block)
            file.write(block)
    found = digest.hexdigest()
    if count != request.size:
        return f"{count} bytes, expected {request.size}", found
    if request.sha256 not in (None, found):
        return f"SHA-256 is {found}, expected {request.sha256}", found
    return None, found
