"""Copies of files in a folder that many processes share, bounded in size; how they come there is in `cache`.

A copy that is being fetched has a temporary name, on which the process that fetches holds a lock; the system lets go
of it when that process is killed, and the next one begins anew. What was not used for longest goes first, what living
processes pinned goes last. Names of copies may be removed while they are read: open files live on, and take room, until
their readers close them at the end of a window.

    <folder>/files/<address>            the copies
    <folder>/files/<address>.partial    one that is being fetched, locked
    <folder>/files/<address>.sha256     the checksum of a copy whose address is none
    <folder>/pins/<name>                what a living process needs, locked
    <folder>/lock                       held while room is made

Imports `storage`.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gqn_data.io import atomic

try:
    import fcntl
except ImportError:  # Windows has no fcntl; two processes may then fetch the same file at once
    fcntl = None  # type: ignore[assignment]

_PARTIAL = ".partial"
_CHECKSUM = ".sha256"
# backup programs leave out folders with this file (bford.info/cachedir)
_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# Copies of remote files, made by gqn-toolkit; may be removed.\n"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A copy.

    Attributes:
        path: of the file.
        size: in bytes.
        used: when it was last asked for, in nanoseconds.
    """

    path: Path
    size: int
    used: int


class CacheDirectory:
    """A folder of copies.

    Args:
        folder: the folder.
        limit: bytes that all copies together may have; those being fetched count whole.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self.files = folder / "files"
        self._pins = folder / "pins"

    # --- one copy ---

    def use(self, path: Path, size: int) -> bool:
        """Whether the copy is there; notes that it is used. One of another size is removed."""
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
    def claimed(self, path: Path) -> Iterator[IO[bytes] | None]:
        """The temporary file of a copy, for this process alone; None where another one has it."""
        self._prepare()
        partial = _partial_of(path)
        with _opened(partial) as file, _locked(file) as locked:
            if not (locked and _still_named(file, partial)):
                yield None
                return
            file.truncate(0)  # anything in it is what a killed process had fetched
            try:
                yield file
            finally:
                if _still_named(file, partial):
                    partial.unlink(missing_ok=True)

    def keep(self, path: Path, partial: IO[bytes], sha256: str) -> None:
        """Gives what was fetched whole its name.

        Args:
            path: the name.
            partial: of `claimed`.
            sha256: of its bytes, as computed when they came.
        """
        partial.flush()
        os.fsync(partial.fileno())
        if not _is_checksum(path.name):
            _checksum_of(path).write_bytes(sha256.encode())
        _partial_of(path).replace(path)
        atomic.sync_folder(path.parent)

    # --- room ---

    def reserve(self, path: Path, partial: IO[bytes], size: int, *, urgent: bool) -> bool:
        """Whether there is room for a copy, which is then taken: the temporary file is as large as the copy will be.

        What was not used for longest is removed; what living processes pinned last, and only where it is urgent.
        """
        with self.making_room():
            # In this order: a copy that gets its name between the two looks is seen by both, and not by none.
            fetched = self._being_fetched(_partial_of(path))
            entries = sorted(self.entries(), key=lambda entry: entry.used)
            for entry in entries:
                fetched.pop(entry.path, None)
            pinned = self._pinned()
            removable = [entry for entry in entries if entry.path.name not in pinned]
            if urgent:
                removable += [entry for entry in entries if entry.path.name in pinned]
            total = size + sum(fetched.values()) + sum(entry.size for entry in entries)
            if total - sum(entry.size for entry in removable) > self.limit:
                return False  # until others are done with what they fetch, or with what they pinned
            for entry in removable:
                if total <= self.limit:
                    break
                _remove(entry.path)
                total -= entry.size
            partial.truncate(size)
            return True

    def _being_fetched(self, mine: Path | None = None) -> dict[Path, int]:
        """The copies that others fetch now, and their bytes; what killed processes left is removed."""
        found: dict[Path, int] = {}
        for partial in self.files.glob("*" + _PARTIAL):
            if partial == mine:
                continue
            with contextlib.suppress(FileNotFoundError), partial.open("r+b") as file, _locked(file) as left:
                if not left:
                    found[partial.with_name(partial.name.removesuffix(_PARTIAL))] = os.fstat(file.fileno()).st_size
                elif _still_named(file, partial):
                    partial.unlink(missing_ok=True)
        return found

    def entries(self) -> list[Entry]:
        """All copies, in order of their names."""
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
    def making_room(self) -> Iterator[None]:
        """Holds the folder: one process at a time counts, removes and pins."""
        self._prepare()
        with _opened(self.folder / "lock") as file, _locked(file, wait=True):
            yield

    def _prepare(self) -> None:
        for folder in (self.files, self._pins):
            folder.mkdir(parents=True, exist_ok=True)
        tag = self.folder / "CACHEDIR.TAG"
        if not tag.exists():
            tag.write_bytes(_TAG)

    # --- what is needed ---

    def pins(self) -> Pins:
        """A new set of pins of this process, with nothing pinned."""
        self._prepare()
        return Pins(self)

    def remove_leftovers(self) -> None:
        """Removes what killed processes left: half-fetched files, and pins. To be called in `making_room`."""
        self._being_fetched()
        self._pinned()

    def _pinned(self) -> set[str]:
        """Addresses that living processes pinned; pins of killed ones are removed."""
        pinned: set[str] = set()
        for path in self._pins.iterdir():
            with contextlib.suppress(FileNotFoundError), path.open("r+b") as file, _locked(file) as left:
                if left:
                    path.unlink(missing_ok=True)
                else:
                    pinned.update(file.read().decode().split())
        return pinned

    # --- by hand ---

    def clear(self) -> tuple[int, int]:
        """Removes all copies; who reads one goes on reading. Returns how many files and bytes."""
        with self.making_room():
            self.remove_leftovers()
            entries = self.entries()
            for entry in entries:
                _remove(entry.path)
            for left in self.files.glob("*" + _CHECKSUM):
                left.unlink(missing_ok=True)
        return len(entries), sum(entry.size for entry in entries)

    def verify(self) -> list[str]:
        """Computes the checksum of every copy; removes those that are damaged, and tells them."""
        return [fault for entry in self.entries() if (fault := self.removed_if_damaged(entry.path)) is not None]

    def removed_if_damaged(self, path: Path) -> str | None:
        """What is wrong with a copy, which is removed then; None where it is as it came."""
        try:
            found = atomic.sha256_of(path)
        except FileNotFoundError:
            return None  # removed by another process
        expected = path.name
        if not _is_checksum(expected):
            with contextlib.suppress(FileNotFoundError):
                expected = _checksum_of(path).read_bytes().decode(errors="replace")
        if found == expected:
            return None
        _remove(path)
        return f"{path}: SHA-256 is {found}, expected {expected}; removed, so that it is fetched again"


class Pins:
    """What a process needs soon, so that others remove it last; let go of when the process ends, however it ends."""

    def __init__(self, copies: CacheDirectory) -> None:
        self._copies = copies
        self._path = copies.folder / "pins" / f"{os.getpid()}-{uuid.uuid4().hex}"
        self._held = contextlib.ExitStack()
        with copies.making_room():  # else it might be taken for a killed process's, before it is locked
            copies.remove_leftovers()
            self._file = self._held.enter_context(_opened(self._path))
            self._held.enter_context(_locked(self._file))

    def set(self, addresses: Iterable[str]) -> None:
        """Pins these addresses, and no others."""
        text = "\n".join(addresses).encode()
        with self._copies.making_room():  # nobody reads it half-written
            self._file.seek(0)
            self._file.truncate(0)
            self._file.write(text)
            self._file.flush()

    def close(self) -> None:
        """Lets go of all."""
        self._path.unlink(missing_ok=True)
        self._held.close()


def _partial_of(path: Path) -> Path:
    return path.with_name(path.name + _PARTIAL)


def _checksum_of(path: Path) -> Path:
    return path.with_name(path.name + _CHECKSUM)


def _is_checksum(name: str) -> bool:
    return len(name) == 64 and set(name) <= set("0123456789abcdef")


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    if not _is_checksum(path.name):
        _checksum_of(path).unlink(missing_ok=True)


def _opened(path: Path) -> IO[bytes]:
    """A file to read and write, made where it is absent and left as it is where it is not."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666), "r+b")


@contextlib.contextmanager
def _locked(file: IO[bytes], *, wait: bool = False) -> Iterator[bool]:
    """Whether the file is locked for this holder alone, until the block ends or the process does."""
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
        # Closing is not enough: a process that was forked meanwhile has the file open as well.
        fcntl.flock(file, fcntl.LOCK_UN)


def _still_named(file: IO[bytes], path: Path) -> bool:
    """Whether an open file is what the path names: it may have been renamed or removed before it was locked."""
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False
