"""Local copies of remote files: checked when they arrive, shared by all runs on a machine, bounded in size.

    cache = open_cache()
    path = cache.get(place("s3://bucket/set/train-000000.tar"), row)

A copy is named by its SHA-256, so that datasets share what they have in common; source files, whose checksums lie
in their records, by URL, size and version. Where copies lie and which of them go is in `copies`.
Imports `copies`, `errors`, `manifest`, `storage`, `stores`.
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
from gqn_data.io.paths import StorePath
from gqn_data.schema.manifest import FileRow

DEFAULT_BYTES = 50_000_000_000
_TRIES = 3  # fetches of a file whose bytes are not those of the manifest
_POLL = 0.05  # seconds between two looks at a file that another process fetches


def default_folder() -> Path:
    """Where copies lie: `$GQN_CACHE`, else `gqn-toolkit` in `$XDG_CACHE_HOME`, else in `~/.cache`."""
    given = os.environ.get("GQN_CACHE")
    if given:
        return Path(given)
    above = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(above) if Path(above).is_absolute() else Path("~/.cache").expanduser()) / "gqn-toolkit"


def open_cache(folder: str | os.PathLike[str] | None = None, gigabytes: float | None = None) -> ShardCache:
    """The cache in a folder.

    Args:
        folder: None for the default.
        gigabytes: the most that copies may take; None for 50, or half of the disk's room where that is less.

    Raises:
        OptionError: the folder cannot be made, or no size at all.
    """
    place = Path(folder).expanduser() if folder else default_folder()
    if gigabytes is not None and not gigabytes > 0:
        raise OptionError(f"the cache may hold {gigabytes} GB; possible: more than 0")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{place}: no folder for copies ({error.strerror}); give another one") from error
    cache = ShardCache(place, int((gigabytes or 0) * 1e9))
    if gigabytes is None:
        room = shutil.disk_usage(place).free + sum(entry.size for entry in cache.copies.entries())
        cache = ShardCache(place, min(DEFAULT_BYTES, room // 2))
    return cache


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """A file to have here.

    Attributes:
        address: its name in the cache.
        size: in bytes.
        sha256: its checksum; None where nobody knows it.
        blocks: fetches it.
        told: what it is, for messages.
    """

    address: str
    size: int
    sha256: str | None
    blocks: Callable[[], Generator[bytes]]
    told: str


class ShardCache:
    """Copies of remote files.

    Args:
        folder: where they lie.
        limit: bytes that all of them together may have.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self.copies = CacheDirectory(folder, limit)

    def __reduce__(self) -> tuple[type[ShardCache], tuple[Path, int]]:
        return type(self), (self.folder, self.limit)

    def get(self, place: StorePath, row: FileRow) -> Path:
        """The path of the copy of a remote file, fetched and checked if there is none, or once another process has it.

        What other runs pinned is removed where nothing else makes room. Another process may remove the name at any
        time: who finds it gone asks again.

        Args:
            place: of the file.
            row: its size and checksum.

        Raises:
            ShardChecksumError: what the store has is not what the manifest says, or absent.
            StoreError: the store cannot be asked.
            OptionError: the file is larger than the cache may be.
            NoSpace: the disk is full.
        """
        return self._get(lambda: self._whole(place, row), place)

    def get_tail(self, place: StorePath, row: FileRow, start: int) -> Path:
        """The path of a copy of the end of a remote file, from the byte `start` on; as `get`."""

        def tail() -> _Wanted:
            return _Wanted(
                address=f"{self._whole(place, row).address}-from-{start}",
                size=row.bytes - start,
                sha256=None,
                blocks=lambda: place.blocks(start),
                told=f"{place} from byte {start} on",
            )

        return self._get(tail, place)

    def fetch_ahead(self, place: StorePath, row: FileRow, stop: threading.Event) -> bool:
        """Whether a copy is there now, fetched if there was none; not if others fetch it or pin too much.

        Args:
            place: of the file.
            row: its size and checksum.
            stop: ends the fetch when it is set.

        Raises:
            FetchStopped: `stop` was set.
            GQNError: as of `get`.
        """
        with self._told(place):
            return self._have(self._whole(place, row), urgent=False, stop=stop) is not None

    def address(self, place: StorePath, row: FileRow) -> str:
        """The name of a file's copy; asks the store where the manifest knows no checksum."""
        with self._told(place):
            return self._whole(place, row).address

    def _get(self, wanted: Callable[[], _Wanted], place: StorePath) -> Path:
        while True:
            with self._told(place):
                path = self._have(wanted(), urgent=True, stop=None)
            if path is not None:
                return path
            time.sleep(_POLL)

    @contextlib.contextmanager
    def _told(self, place: StorePath) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if error.filename != str(place):
                raise
            raise ShardChecksumError(
                f"{place}: listed in the manifest and absent; convert or copy the dataset again"
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise NoSpace(
                f"{self.folder}: the disk of the cache is full; make room, allow the cache less with --cache-gb, "
                "or place it elsewhere with --cache"
            ) from error

    def _whole(self, place: StorePath, row: FileRow) -> _Wanted:
        tag = None
        if row.sha256 is not None:
            address = row.sha256
        else:
            tag = place.stat().e_tag
            address = "source-" + hashlib.sha256(f"{place}\n{row.bytes}\n{tag}".encode()).hexdigest()
        return _Wanted(
            address=address,
            size=row.bytes,
            sha256=row.sha256,
            blocks=lambda: place.blocks(e_tag=tag),
            told=str(place),
        )

    def _have(self, wanted: _Wanted, *, urgent: bool, stop: threading.Event | None) -> Path | None:
        """The path of a copy; None where another process fetches it, or there is no room for it now."""
        if wanted.size > self.limit:
            raise OptionError(
                f"{wanted.told}: {atomic.human_bytes(wanted.size)}, and the cache in {self.folder} may hold "
                f"{atomic.human_bytes(self.limit)}; allow it more with --cache-gb, or read by range: --remote range"
            )
        path = self.copies.files / wanted.address
        if self.copies.use(path, wanted.size):
            return path
        with self.copies.claimed(path) as partial:
            if partial is None:
                return None
            if self.copies.use(path, wanted.size):  # whoever held the claim before has fetched it
                return path
            if not self.copies.reserve(path, partial, wanted.size, urgent=urgent):
                return None
            self._fetch(wanted, path, partial, stop)
            return path

    def _fetch(self, wanted: _Wanted, path: Path, partial: IO[bytes], stop: threading.Event | None) -> None:
        for _ in range(_TRIES):
            try:
                fault, found = _take_in(wanted, partial, stop)
            except StoreChanged as error:
                fault = str(error)
                continue
            if fault is None:
                self.copies.keep(path, partial, found)
                return
        raise ShardChecksumError(f"{wanted.told}: {fault}, in {_TRIES} fetches; convert or copy the dataset again")


def _take_in(wanted: _Wanted, file: IO[bytes], stop: threading.Event | None) -> tuple[str | None, str]:
    """Fetches a file once; what is wrong with it, if anything, and its SHA-256."""
    digest = hashlib.sha256()
    count = 0
    file.seek(0)
    with contextlib.closing(wanted.blocks()) as blocks:
        for block in blocks:
            if stop is not None and stop.is_set():
                raise FetchStopped(f"{wanted.told}: no longer wanted")
            count += len(block)
            if count > wanted.size:
                return f"more than the {wanted.size} bytes that the manifest says", ""
            digest.update(block)
            file.write(block)
    found = digest.hexdigest()
    if count != wanted.size:
        return f"{count} bytes, the manifest says {wanted.size}", found
    if wanted.sha256 not in (None, found):
        return f"SHA-256 is {found}, the manifest says {wanted.sha256}", found
    return None, found
