"""A part: what has come of a file that is being fetched. Imports `errors`, `json_files`, `remote`, `storage`.

Bytes lie in `<path>.part`; `<path>.part.json` notes what they are part of, so that a run that was killed is gone on
with only where the remote file is still the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, Protocol

import crc32c

from gqn_data.download.remote import RemoteFile
from gqn_data.errors import CorruptRecord
from gqn_data.io import atomic, strict_json

PART = ".part"
_NOTE = ".part.json"
_BLOCK = 1 << 18  # looked at at once; more would leave the cache in between
_SYNC_EVERY = 32 << 20


def size_of_part(path: Path) -> int:
    """The bytes that have come of the file of that final name, by a run before this one."""
    try:
        return path.with_name(path.name + PART).stat().st_size
    except OSError:
        return 0


def remove_part(path: Path) -> None:
    """Removes the part of the file of that final name, if there is one."""
    for ending in (PART, _NOTE):
        path.with_name(path.name + ending).unlink(missing_ok=True)


class Check(Protocol):
    """Looks at the bytes of a file as they come."""

    def feed(self, block: bytes | memoryview) -> None:
        """Takes the next bytes; raises `CorruptRecord` where they cannot be right."""

    def finish(self) -> object:
        """All have come; raises `CorruptRecord` where they are not a whole file."""


class ChecksumMismatch(Exception):
    """The bytes that came are not those of the file."""


class PartialFile:
    """What has come of a file so far: bytes on the disk, their checksum, and a note of what they are part of.

    Args:
        path: the final name.
        url: where the file lies, as people read it.
        progress: told of bytes that are there now, or, below zero, no longer.
        check: makes what looks at the bytes of a file of so many bytes; again each time that it is begun.

    Attributes:
        path: of the part.
        size: bytes that have come.
        crc: CRC32C of them.
    """

    def __init__(
        self,
        path: Path,
        url: str,
        progress: Callable[[int], None] | None = None,
        check: Callable[[int], Check] | None = None,
    ) -> None:
        self._final = path
        self.path = path.with_name(path.name + PART)
        self.size = 0
        self.crc = 0
        self._note = path.with_name(path.name + _NOTE)
        self._url = url
        self._tell = progress
        self._make_check = check
        self._check: Check | None = None
        self._file: IO[bytes] | None = None
        self._of: RemoteFile | None = None
        self._unsynced = 0
        self._syncing: Future[None] | None = None
        self._syncer = ThreadPoolExecutor(1)

    def take_up(self, file: RemoteFile) -> None:
        """Goes on with what is there of `file`, or begins it.

        Raises:
            WrongBytes: what is there cannot be right.
        """
        if self._file is not None and self._of == file:
            return
        self.close()
        whole = self._is_of(file)
        if not whole:
            self.remove()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # The note comes first: bytes never lie beside a note of another version of the file.
            strict_json.write_note(self._note, self._note_of(file))
        self._file = self.path.open("r+b" if whole else "wb", buffering=0)
        self._of = file
        self._begin(file)
        if whole:
            self._look_at_what_is_there(file.size)

    def _begin(self, file: RemoteFile) -> None:
        self.size = self.crc = 0
        self._check = None if self._make_check is None else self._make_check(file.size)

    def _is_of(self, file: RemoteFile) -> bool:
        try:
            note = strict_json.read_note(self._note)
            there = self.path.stat().st_size
        except (OSError, ValueError):
            return False
        return file.can_be_told_apart and note == self._note_of(file) and there <= file.size

    def _note_of(self, file: RemoteFile) -> dict[str, object]:
        tag = {"etag": file.etag, "modified": file.modified, "crc32c": file.crc32c}
        return {"url": self._url, "size": file.size, **tag}

    def _look_at_what_is_there(self, most: int) -> None:
        block = memoryview(bytearray(_BLOCK))
        there = min(most, os.fstat(self._opened.fileno()).st_size)
        while count := self._opened.readinto(block[: there - self.size]):  # type: ignore[attr-defined]
            self._look_at(block[:count])

    def _look_at(self, block: memoryview) -> None:
        self.crc = crc32c.crc32c(block, self.crc)
        self.size += len(block)
        self._progress(len(block))
        if self._check is not None:
            try:
                self._check.feed(block)
            except CorruptRecord as error:
                raise ChecksumMismatch(_reason(error)) from error

    def _progress(self, count: int) -> None:
        if self._tell is not None and count:
            self._tell(count)

    @property
    def _opened(self) -> IO[bytes]:
        if self._file is None:
            raise ValueError("the part is not open")
        return self._file

    def write(self, block: bytes) -> None:
        """Appends bytes.

        Raises:
            WrongBytes: they cannot be right.
        """
        rest = memoryview(block)
        while rest:
            count = self._opened.write(rest)  # may be less than was given, where the disk is nearly full
            self._look_at(rest[:count])
            rest = rest[count:]
        self._unsynced += len(block)
        # Sent to the disk bit by bit, the last flush finds little to wait for.
        if self._unsynced >= _SYNC_EVERY and (self._syncing is None or self._syncing.done()):
            self._synced()
            self._syncing = self._syncer.submit(_sync_data, self._opened.fileno())
            self._unsynced = 0

    def _synced(self) -> None:
        """Waits for what was sent to the disk; what went wrong there is told once, and must not be lost."""
        if self._syncing is not None:
            self._syncing.result()
            self._syncing = None

    def empty(self) -> None:
        """Forgets the bytes, not the file that they are part of."""
        self._opened.seek(0)
        self._opened.truncate()
        self._progress(-self.size)
        if self._of is not None:
            self._begin(self._of)

    def remove(self) -> None:
        """Forgets everything."""
        self.close()
        remove_part(self._final)
        self._progress(-self.size)
        self.size = self.crc = 0

    def finish(self) -> None:
        """Gives the part its final name, all of it being on the disk.

        Raises:
            WrongBytes: it is not a whole file of its kind.
        """
        if self._check is not None:
            try:
                self._check.finish()
            except CorruptRecord as error:
                raise ChecksumMismatch(_reason(error)) from error
        self._synced()
        os.fsync(self._opened.fileno())
        self.close()
        self.path.replace(self._final)
        self._note.unlink(missing_ok=True)
        atomic.sync_folder(self._final.parent)

    def close(self) -> None:
        """Closes the file; what has come stays."""
        if self._syncing is not None:
            wait([self._syncing])
            self._syncing = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def end(self) -> None:
        """Closes the file for good."""
        self.close()
        self._syncer.shutdown()


def _sync_data(handle: int) -> None:
    getattr(os, "fdatasync", os.fsync)(handle)


def _reason(error: CorruptRecord) -> str:
    return f"record {error.record} at byte {error.offset}: {error.reason}"
