"""The cache directory: copies of files, shared by processes, bounded in size, evicted in LRU order.

A copy is fetched to a temporary name, locked by the fetching process. If that process is killed, the system releases
the lock and the next process starts over. Pinned copies are evicted last. A copy may be evicted while it is read: the
open file stays readable, and takes disk space until its reader closes it at the end of a window.

    <folder>/files/<address>            a copy
    <folder>/files/<address>.partial    a copy in transfer, locked
    <folder>/files/<address>.sha256     checksum of a copy whose address is not its checksum
    <folder>/pins/<name>                addresses that a running process needs, locked
    <folder>/lock                       held during eviction and pinning
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gqn_data.errors import IrregularFile
from gqn_data.io import atomic, regular

try:
    import fcntl
except ImportError:  # not on Windows, where two processes may fetch the same file at once
    fcntl = None  # type: ignore[assignment]

_PARTIAL = ".partial"
_CHECKSUM = ".sha256"
_SHA256_DIGITS = 64
_MAX_PINS = 64 << 20  # a million addresses
# Backup programs skip folders with this file (bford.info/cachedir).
_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# Copies of remote files, made by gqn-toolkit; may be removed.\n"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A copy.

    Attributes:
        path: its file.
        size: bytes.
        used: time of the last use, in nanoseconds.
    """

    path: Path
    size: int
    used: int


class CacheDirectory:
    """A folder of copies. Safe for use by several processes.

    Args:
        folder: the folder.
        limit: maximum bytes of all copies; a copy in transfer counts with its full size.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self.files = folder / "files"
        self._pins = folder / "pins"

    # --- one copy ---

    def touch(self, path: Path, size: int) -> bool:
        """Return whether the copy exists, and mark it as used. Remove it if it has another size."""
        try:
            found = path.stat().st_size
            if found == size:
                os.utime(path)
                return True
        except FileNotFoundError:
            return False
        _remove(path)
        return False

    @contextlib.contextmanager
    def claim(self, path: Path) -> Iterator[IO[bytes] | None]:
        """Open and lock the temporary file of a copy; yield None if another process holds it."""
        self._prepare()
        partial = _partial_of(path)
        with regular.open_update(partial) as file, _lock(file) as locked:
            if not (locked and _is_at(file, partial)):
                yield None
                return
            file.truncate(0)  # drop the bytes of a killed process
            try:
                yield file
            finally:
                if _is_at(file, partial):
                    partial.unlink(missing_ok=True)

    def publish(self, path: Path, partial: IO[bytes], sha256: str) -> None:
        """Flush a completed copy to the disk and move it to its final name.

        Args:
            path: the final name.
            partial: the file that `claim` yielded.
            sha256: checksum of its bytes, computed as they arrived.
        """
        partial.flush()
        os.fsync(partial.fileno())
        if not _is_checksum(path.name):
            with regular.open_new(_checksum_of(path)) as file:
                file.write(sha256.encode())
        _partial_of(path).replace(path)
        atomic.sync_folder(path.parent)

    # --- eviction ---

    def reserve(self, path: Path, partial: IO[bytes], size: int, *, urgent: bool) -> bool:
        """Reserve space for a copy by extending its temporary file; return False if the limit does not allow it.

        The least recently used copies are evicted; pinned copies last, and only if the request is urgent.
        """
        with self.lock():
            # In this order, a copy that is published between the two scans is counted by both rather than by neither.
            fetching = self._fetching(_partial_of(path))
            entries = sorted(self.entries(), key=lambda entry: entry.used)
            for entry in entries:
                fetching.pop(entry.path, None)
            pinned = self._pinned()
            evictable = [entry for entry in entries if entry.path.name not in pinned]
            if urgent:
                evictable += [entry for entry in entries if entry.path.name in pinned]
            total = size + sum(fetching.values()) + sum(entry.size for entry in entries)
            if total - sum(entry.size for entry in evictable) > self.limit:
                return False  # until other processes finish their transfers or release their pins
            for entry in evictable:
                if total <= self.limit:
                    break
                _remove(entry.path)
                total -= entry.size
            partial.truncate(size)
            return True

    def _fetching(self, mine: Path | None = None) -> dict[Path, int]:
        """Return the copies that other processes are fetching, with their sizes; remove those of killed processes."""
        found: dict[Path, int] = {}
        for partial in self.files.glob("*" + _PARTIAL):
            if partial == mine:
                continue
            with (
                contextlib.suppress(FileNotFoundError),
                regular.open_update(partial, create=False) as file,
                _lock(file) as is_stale,
            ):
                if not is_stale:
                    found[partial.with_name(partial.name.removesuffix(_PARTIAL))] = os.fstat(file.fileno()).st_size
                elif _is_at(file, partial):
                    partial.unlink(missing_ok=True)
        return found

    def entries(self) -> list[Entry]:
        """List all copies, sorted by name."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in sorted(self.files.iterdir()):
                if path.suffix in (_PARTIAL, _CHECKSUM):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    stat = path.stat()
                    found.append(Entry(path=path, size=stat.st_size, used=stat.st_mtime_ns))
        return found

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the directory: one process at a time counts, evicts and pins."""
        self._prepare()
        with regular.open_update(self.folder / "lock") as file, _lock(file, wait=True):
            yield

    def _prepare(self) -> None:
        for folder in (self.files, self._pins):
            folder.mkdir(parents=True, exist_ok=True)
        tag = self.folder / "CACHEDIR.TAG"
        if not tag.exists():
            # Another process may create it at the same time.
            with contextlib.suppress(FileExistsError), regular.open_new(tag) as file:
                file.write(_TAG)

    # --- pins ---

    def pins(self) -> Pins:
        """Create an empty set of pins for this process."""
        self._prepare()
        return Pins(self)

    def remove_stale(self) -> None:
        """Remove the temporary files and pins of killed processes. The caller holds `lock`."""
        self._fetching()
        self._pinned()

    def _pinned(self) -> set[str]:
        """Return the addresses that running processes pinned; remove the pins of killed ones."""
        pinned: set[str] = set()
        for path in self._pins.iterdir():
            with (
                contextlib.suppress(FileNotFoundError),
                regular.open_update(path, create=False) as file,
                _lock(file) as is_stale,
            ):
                if is_stale:
                    path.unlink(missing_ok=True)
                else:
                    pinned.update(file.read(_MAX_PINS).decode(errors="replace").split())
        return pinned

    # --- maintenance ---

    def clear(self) -> tuple[int, int]:
        """Remove all copies; return the number of files and bytes. Open copies stay readable."""
        with self.lock():
            self.remove_stale()
            entries = self.entries()
            for entry in entries:
                _remove(entry.path)
            for checksum in self.files.glob("*" + _CHECKSUM):
                checksum.unlink(missing_ok=True)
        return len(entries), sum(entry.size for entry in entries)

    def verify(self) -> list[str]:
        """Verify the checksum of every copy; remove the damaged ones and return a message for each."""
        return [fault for entry in self.entries() if (fault := self.remove_if_damaged(entry.path)) is not None]

    def remove_if_damaged(self, path: Path) -> str | None:
        """Remove a copy if its checksum is wrong; return a message, or None if the copy is intact or gone."""
        try:
            found = atomic.sha256_of(path)
        except FileNotFoundError:
            return None  # removed by another process
        except IrregularFile as error:
            found = error.kind
        expected = path.name
        if not _is_checksum(expected):
            with contextlib.suppress(FileNotFoundError, ValueError):
                expected = atomic.read_bounded(_checksum_of(path), _SHA256_DIGITS).decode()
        if found == expected:
            return None
        _remove(path)
        return f"{path}: SHA-256 is {found}, expected {expected}; removed, will be fetched again when needed"


class Pins:
    """Copies that a process needs soon, which others evict last. Released when the process ends, even by a kill."""

    def __init__(self, directory: CacheDirectory) -> None:
        self._directory = directory
        self._path = directory.folder / "pins" / f"{os.getpid()}-{uuid.uuid4().hex}"
        self._held = contextlib.ExitStack()
        with directory.lock():  # before it is locked, the new file looks like one of a killed process
            directory.remove_stale()
            self._file = self._held.enter_context(regular.open_update(self._path))
            self._held.enter_context(_lock(self._file))

    def set(self, addresses: Iterable[str]) -> None:
        """Replace the pinned addresses."""
        text = "\n".join(addresses).encode()
        with self._directory.lock():  # other processes never read a half-written list
            self._file.seek(0)
            self._file.truncate(0)
            self._file.write(text)
            self._file.flush()

    def close(self) -> None:
        """Release all pins."""
        self._path.unlink(missing_ok=True)
        self._held.close()


def _partial_of(path: Path) -> Path:
    return path.with_name(path.name + _PARTIAL)


def _checksum_of(path: Path) -> Path:
    return path.with_name(path.name + _CHECKSUM)


def _is_checksum(name: str) -> bool:
    return len(name) == _SHA256_DIGITS and set(name) <= set("0123456789abcdef")


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    if not _is_checksum(path.name):
        _checksum_of(path).unlink(missing_ok=True)


@contextlib.contextmanager
def _lock(file: IO[bytes], *, wait: bool = False) -> Iterator[bool]:
    """Lock a file until the block or the process ends; yield False if another process holds it."""
    if fcntl is None:
        yield True
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        # Closing is not enough: a child forked in the meantime has the file open as well.
        fcntl.flock(file, fcntl.LOCK_UN)


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Return whether an open file is still at its path: it may be renamed or removed before it is locked."""
    try:
        return path.lstat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False
