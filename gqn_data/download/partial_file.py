"""Partial files: the received bytes of a file whose download is incomplete.

The bytes lie in `<path>.part`. `<path>.part.json` identifies the remote file, so that a killed download resumes only
if the remote file is unchanged.
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
from gqn_data.io import atomic, regular, strict_json

_PARTIAL = ".part"
_NOTE = ".part.json"
_BLOCK = 1 << 18  # bytes checked at a time; a larger block leaves the CPU cache in between
_SYNC_EVERY = 32 << 20


def partial_size(path: Path) -> int:
    """Return the bytes of a file that an earlier run received; `path` is the final name."""
    try:
        return path.with_name(path.name + _PARTIAL).stat().st_size
    except OSError:
        return 0


def remove_partial(path: Path) -> None:
    """Remove the partial file and its note, if they exist; `path` is the final name."""
    for suffix in (_PARTIAL, _NOTE):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


class Check(Protocol):
    """Validates the bytes of a file as they arrive."""

    def feed(self, block: bytes | memoryview) -> None:
        """Check the next bytes; raise `CorruptRecord` if they cannot be right."""

    def finish(self) -> object:
        """Check that the file is complete; raise `CorruptRecord` if it is not."""


class ChecksumMismatch(Exception):
    """The received bytes are not those of the file."""


class PartialFile:
    """The received bytes of a file: their data on the disk, their checksum, and a note of the remote file.

    Args:
        path: the final name.
        url: address of the remote file, for display.
        progress: called with the number of bytes received, negative if bytes were discarded.
        check: makes a validator for a file of the given size; called again whenever the file starts over.

    Attributes:
        path: name of the partial file.
        size: bytes received.
        crc: CRC32C of the bytes received.
    """

    def __init__(
        self,
        path: Path,
        url: str,
        progress: Callable[[int], None] | None = None,
        check: Callable[[int], Check] | None = None,
    ) -> None:
        self._final = path
        self.path = path.with_name(path.name + _PARTIAL)
        self.size = 0
        self.crc = 0
        self._note = path.with_name(path.name + _NOTE)
        self._url = url
        self._on_progress = progress
        self._make_check = check
        self._check: Check | None = None
        self._file: IO[bytes] | None = None
        self._remote_file: RemoteFile | None = None
        self._unsynced = 0
        self._syncing: Future[None] | None = None
        self._syncer = ThreadPoolExecutor(1)

    def open(self, file: RemoteFile) -> None:
        """Resume from the bytes of an earlier run if they belong to `file`; otherwise start empty.

        Raises:
            ChecksumMismatch: the existing bytes cannot be right.
        """
        if self._file is not None and self._remote_file == file:
            return
        self.close()
        resumes = self._belongs_to(file)
        if not resumes:
            self.remove()
            atomic.make_folder(self.path.parent)
            # The note comes first: bytes never lie beside a note of another version of the file.
            strict_json.write_note(self._note, self._note_for(file))
        self._file = regular.open_update(self.path, buffering=0) if resumes else regular.open_new(self.path, 0)
        self._remote_file = file
        self._reset(file)
        if resumes:
            self._check_existing(file.size)

    def _reset(self, file: RemoteFile) -> None:
        self.size = self.crc = 0
        self._check = None if self._make_check is None else self._make_check(file.size)

    def _belongs_to(self, file: RemoteFile) -> bool:
        try:
            note = strict_json.read_note(self._note)
            size = self.path.stat().st_size
        except (OSError, ValueError):
            return False
        return file.has_version and note == self._note_for(file) and size <= file.size

    def _note_for(self, file: RemoteFile) -> dict[str, object]:
        version = {"etag": file.etag, "modified": file.modified, "crc32c": file.crc32c}
        return {"url": self._url, "size": file.size, **version}

    def _check_existing(self, limit: int) -> None:
        block = memoryview(bytearray(_BLOCK))
        size = min(limit, os.fstat(self._opened.fileno()).st_size)
        while count := self._opened.readinto(block[: size - self.size]):  # type: ignore[attr-defined]
            self._check_block(block[:count])

    def _check_block(self, block: memoryview) -> None:
        self.crc = crc32c.crc32c(block, self.crc)
        self.size += len(block)
        self._report(len(block))
        if self._check is not None:
            try:
                self._check.feed(block)
            except CorruptRecord as error:
                raise ChecksumMismatch(_reason(error)) from error

    def _report(self, count: int) -> None:
        if self._on_progress is not None and count:
            self._on_progress(count)

    @property
    def _opened(self) -> IO[bytes]:
        if self._file is None:
            raise ValueError("the partial file is not open")
        return self._file

    def write(self, block: bytes) -> None:
        """Append bytes.

        Raises:
            ChecksumMismatch: they cannot be right.
        """
        rest = memoryview(block)
        while rest:
            count = self._opened.write(rest)  # may be fewer bytes than given, on a disk that is nearly full
            self._check_block(rest[:count])
            rest = rest[count:]
        self._unsynced += len(block)
        # Syncing along the way leaves the final flush little to wait for.
        if self._unsynced >= _SYNC_EVERY and (self._syncing is None or self._syncing.done()):
            self._join_sync()
            self._syncing = self._syncer.submit(_sync_data, self._opened.fileno())
            self._unsynced = 0

    def _join_sync(self) -> None:
        """Wait for the background sync. The system reports a write error once: it must not be lost."""
        if self._syncing is not None:
            self._syncing.result()
            self._syncing = None

    def truncate(self) -> None:
        """Discard the received bytes; keep the note."""
        self._opened.seek(0)
        self._opened.truncate()
        self._report(-self.size)
        if self._remote_file is not None:
            self._reset(self._remote_file)

    def remove(self) -> None:
        """Discard the received bytes and the note."""
        self.close()
        remove_partial(self._final)
        self._report(-self.size)
        self.size = self.crc = 0

    def publish(self) -> None:
        """Flush the completed download to the disk and move it to its final name.

        Raises:
            ChecksumMismatch: the file is not complete and valid.
        """
        if self._check is not None:
            try:
                self._check.finish()
            except CorruptRecord as error:
                raise ChecksumMismatch(_reason(error)) from error
        self._join_sync()
        os.fsync(self._opened.fileno())
        self.close()
        self.path.replace(self._final)
        self._note.unlink(missing_ok=True)
        atomic.sync_folder(self._final.parent)

    def close(self) -> None:
        """Close the file; keep the received bytes. `open` reopens it."""
        if self._syncing is not None:
            wait([self._syncing])
            self._syncing = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def shutdown(self) -> None:
        """Close the file and end the sync thread."""
        self.close()
        self._syncer.shutdown()


def _sync_data(handle: int) -> None:
    getattr(os, "fdatasync", os.fsync)(handle)


def _reason(error: CorruptRecord) -> str:
    return f"record {error.record} at byte {error.offset}: {error.reason}"
