"""A part: what has come of a file that is being fetched. Imports `json_files`, `remote`, `storage`.

Bytes lie in `<path>.part`; `<path>.part.json` notes what they are part of, so that a run that was killed is gone on
with only where the remote file is still the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

import crc32c

from gqn_data import json_files, storage
from gqn_data.remote import RemoteFile

PART = ".part"
_NOTE = ".part.json"
_BLOCK = 1 << 20


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


class PartFile:
    """What has come of a file so far: bytes on the disk, their checksum, and a note of what they are part of.

    Args:
        path: the final name.
        url: where the file lies, as people read it.
        progress: told of bytes that are there now, or, below zero, no longer.

    Attributes:
        path: of the part.
        size: bytes that have come.
        crc: CRC32C of them.
    """

    def __init__(self, path: Path, url: str, progress: Callable[[int], None] | None) -> None:
        self._final = path
        self.path = path.with_name(path.name + PART)
        self.size = 0
        self.crc = 0
        self._note = path.with_name(path.name + _NOTE)
        self._url = url
        self._tell = progress
        self._file: IO[bytes] | None = None
        self._of: RemoteFile | None = None

    def take_up(self, file: RemoteFile) -> None:
        """Goes on with what is there of `file`, or begins it."""
        if self._file is not None and self._of == file:
            return
        self.close()
        if self._is_of(file):
            self._file = self.path.open("r+b", buffering=0)
            self._hash_what_is_there(file.size)
        else:
            self.remove()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # The note comes first: bytes never lie beside a note of another version of the file.
            json_files.write_note(self._note, self._note_of(file))
            self._file = self.path.open("wb", buffering=0)
        self._of = file

    def _is_of(self, file: RemoteFile) -> bool:
        try:
            note = json_files.read_note(self._note)
            there = self.path.stat().st_size
        except (OSError, ValueError):
            return False
        return file.can_be_told_apart and note == self._note_of(file) and there <= file.size

    def _note_of(self, file: RemoteFile) -> dict[str, object]:
        tag = {"etag": file.etag, "modified": file.modified, "crc32c": file.crc32c}
        return {"url": self._url, "size": file.size, **tag}

    def _hash_what_is_there(self, most: int) -> None:
        block = memoryview(bytearray(_BLOCK))
        self.size = self.crc = 0
        there = min(most, os.fstat(self._opened.fileno()).st_size)
        while count := self._opened.readinto(block[: there - self.size]):  # type: ignore[attr-defined]
            self.crc = crc32c.crc32c(block[:count], self.crc)
            self.size += count
        self._progress(self.size)

    def _progress(self, count: int) -> None:
        if self._tell is not None and count:
            self._tell(count)

    @property
    def _opened(self) -> IO[bytes]:
        if self._file is None:
            raise ValueError("the part is not open")
        return self._file

    def write(self, block: bytes) -> None:
        """Appends bytes."""
        rest = memoryview(block)
        while rest:
            count = self._opened.write(rest)  # may be less than was given, where the disk is nearly full
            self.crc = crc32c.crc32c(rest[:count], self.crc)
            self.size += count
            rest = rest[count:]
        self._progress(len(block))

    def empty(self) -> None:
        """Forgets the bytes, not the file that they are part of."""
        self._opened.seek(0)
        self._opened.truncate()
        self._progress(-self.size)
        self.size = self.crc = 0

    def remove(self) -> None:
        """Forgets everything."""
        self.close()
        remove_part(self._final)
        self._progress(-self.size)
        self.size = self.crc = 0

    def finish(self) -> None:
        """Gives the part its final name, all of it being on the disk."""
        os.fsync(self._opened.fileno())
        self.close()
        self.path.replace(self._final)
        self._note.unlink(missing_ok=True)
        storage.sync_folder(self._final.parent)

    def close(self) -> None:
        """Closes the file; what has come stays."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._of = None
