"""Fetching: one remote file to a local path, whole and checked, however often it takes.

Bytes go to `<path>.part`; beside it `<path>.part.json` notes what they are part of, so that a run that was killed is
gone on with only where the remote file is still the same. No protocol is known here: a `Remote` says what it has and
sends bytes (`http_remote` is one). Imports `errors`, `json_files`, `storage`.
"""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Protocol, Self

import crc32c

from gqn_data import json_files, storage
from gqn_data.errors import (
    CorruptRecord,
    FetchError,
    FetchStopped,
    GQNError,
    NoSpace,
    RemoteChanged,
    RemoteDamaged,
    RemoteFault,
    RemoteMissing,
)

PART = ".part"
_NOTE = ".part.json"
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """What a server says of one of its files.

    Attributes:
        name: below the remote's base, with forward slashes.
        size: in bytes.
        etag: its entity tag, which tells two versions of the file apart; `W/` in front where it is a weak one.
        modified: when it was changed, in the server's words.
        crc32c: of all its bytes.
    """

    name: str
    size: int
    etag: str | None = None
    modified: str | None = None
    crc32c: int | None = None

    @property
    def can_be_told_apart(self) -> bool:
        """Whether a later version of the file would be known for one."""
        return not (self.etag is None and self.modified is None and self.crc32c is None)

    def is_same(self, other: RemoteFile) -> bool | None:
        """Whether both are one version of the file; None where nothing tells."""
        if self.size != other.size:
            return False
        if self.etag is not None and other.etag is not None:
            return self.etag.removeprefix("W/") == other.etag.removeprefix("W/")
        if self.modified is not None and other.modified is not None:
            return self.modified == other.modified
        if self.crc32c is not None and other.crc32c is not None:
            return self.crc32c == other.crc32c
        return None


class Body(Protocol):
    """The bytes of a file on their way; a context manager that lets go of the connection.

    Attributes:
        file: the file as this answer describes it.
        offset: where the first byte belongs in the file: where it was asked for, or 0 where the server sends all of it.
    """

    file: RemoteFile
    offset: int

    def blocks(self) -> Iterator[bytes]:
        """The bytes, as they come. They may end early, or be too many: whoever takes them counts.

        Raises:
            RemoteFault: the connection was cut, or nothing came for too long.
        """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Remote(Protocol):
    """A place that files are fetched from. Used by several threads at once."""

    def url(self, name: str) -> str:
        """Where a file lies, for people to read: without credentials."""

    def ask(self, name: str) -> RemoteFile | None:
        """What there is under a name; None where there is nothing.

        Raises:
            RemoteFault: asking again may help.
            RemoteRefused: it will not.
        """

    def open(self, name: str, *, offset: int = 0, like: RemoteFile | None = None) -> Body:
        """The bytes of a file from `offset` on, provided that it is still the one that `like` describes.

        Raises:
            RemoteChanged: it is another one, or does not reach as far.
            RemoteMissing: it is not there.
            RemoteFault: asking again may help.
            RemoteRefused: it will not.
        """


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often something is tried again, and after how long.

    Attributes:
        tries: tries in a row that bring nothing new before it is given up.
        anew: times that a file is begun because it changed meanwhile or came with wrong bytes.
        first_wait: seconds after the first fault; each fault in a row doubles it.
        most_wait: seconds at the most, of our own choice.
        most_told: seconds at the most where the server asks for more.
        sleep: waits so many seconds; None to wait by the clock.
        chance: a number from 0 to 1; waits differ by up to half, so that many clients do not come back at once.
    """

    tries: int = 8
    anew: int = 4
    first_wait: float = 1.0
    most_wait: float = 60.0
    most_told: float = 300.0
    sleep: Callable[[float], object] | None = None
    chance: Callable[[], float] = random.random

    def wait(self, faults: int, told: float | None) -> float:
        """Seconds to wait after so many faults in a row, the server having asked for `told`."""
        own = min(self.most_wait, self.first_wait * 2.0 ** (min(faults, 30) - 1)) * (1 - self.chance() / 2)
        return max(own, min(told or 0.0, self.most_told))


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A file that was fetched.

    Attributes:
        path: where it lies now.
        file: what the server said of it.
        crc32c: of its bytes, computed as they came.
        resumed_at: the bytes that were there from an earlier run.
        received: the bytes that came over the wire, those that had to be thrown away included.
    """

    path: Path
    file: RemoteFile
    crc32c: int
    resumed_at: int
    received: int


class _Wrong(Exception):
    """The bytes that came are not those of the file; `lasting` where the server surely has them so itself."""

    def __init__(self, reason: str, *, lasting: bool = False) -> None:
        self.lasting = lasting
        super().__init__(reason)


class _Retries:
    """Counts faults in a row, waits after each, and gives up in the end."""

    def __init__(
        self, patience: Patience, stop: threading.Event | None, tell: Callable[[str], None] | None, remedy: str
    ) -> None:
        self._patience, self._stop, self._tell, self._remedy = patience, stop, tell, remedy
        self._faults = 0

    def check_stop(self) -> None:
        """Returns where nobody asked to stop."""
        if self._stop is not None and self._stop.is_set():
            raise FetchStopped("told to stop; what has come is kept")

    def after(self, fault: RemoteFault, *, progressed: bool) -> None:
        """Waits after a fault.

        Raises:
            FetchError: there were enough of them.
        """
        self._faults = 0 if progressed else self._faults + 1
        if self._faults >= self._patience.tries:
            raise FetchError(f"{fault}; {self._faults} tries brought nothing more; {self._remedy}") from fault
        self.pause(str(fault), max(1, self._faults), fault.after)

    def pause(self, reason: str, faults: int, told: float | None = None) -> None:
        """Says why, and waits."""
        seconds = self._patience.wait(faults, told)
        if self._tell is not None:
            self._tell(f"{reason}; trying again in {seconds:.0f} s")
        if self._patience.sleep is not None:
            self._patience.sleep(seconds)
        elif self._stop is not None:
            self._stop.wait(seconds)
        else:
            time.sleep(seconds)
        self.check_stop()


def ask(
    remote: Remote,
    name: str,
    *,
    patience: Patience | None = None,
    stop: threading.Event | None = None,
    tell: Callable[[str], None] | None = None,
) -> RemoteFile | None:
    """What a remote has under a name, asked until it answers; None where there is nothing.

    Raises:
        FetchError: it does not answer, or refuses to.
    """
    retries = _Retries(patience or Patience(), stop, tell, "try again later")
    while True:
        retries.check_stop()
        try:
            return remote.ask(name)
        except RemoteFault as fault:
            retries.after(fault, progressed=False)


class _Part:
    """What has come of a file so far: bytes on the disk, their checksum, and a note of what they are part of."""

    def __init__(self, path: Path, url: str, progress: Callable[[int], None] | None) -> None:
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
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self._progress(-self.size)
        self.size = self.crc = 0

    def finish(self, path: Path) -> None:
        """Gives the part its final name, all of it being on the disk."""
        os.fsync(self._opened.fileno())
        self.close()
        self.path.replace(path)
        self._note.unlink(missing_ok=True)
        storage.sync_folder(path.parent)

    def close(self) -> None:
        """Closes the file; what has come stays."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._of = None


def fetch_file(
    remote: Remote,
    name: str,
    path: Path,
    *,
    known: RemoteFile | None = None,
    check: Callable[[Path], object] | None = None,
    progress: Callable[[int], None] | None = None,
    patience: Patience | None = None,
    stop: threading.Event | None = None,
    tell: Callable[[str], None] | None = None,
) -> Fetched:
    """Fetches a remote file; under `path` there is all of it in the end, or what was there before.

    Args:
        remote: where it lies.
        name: its name there.
        path: where it is to lie; a part left by an earlier run is gone on with where the file is still the same.
        known: what `ask` said of it, if it was asked.
        check: looks at the whole file under its temporary name, and raises a `GQNError` where it is not right.
        progress: told the bytes that have come, one time with another; fewer than none where some are thrown away.
        patience: how often is tried again.
        stop: when set, fetching ends with `FetchStopped`.
        tell: told of every fault that is passed over.

    Raises:
        RemoteMissing: there is no such file.
        RemoteRefused: the server will not give it.
        RemoteDamaged: its bytes were wrong each time.
        FetchError: the server does not answer, or the file changes all the time.
        NoSpace: the disk is full; the part is kept.
    """
    fetch = _Fetch(remote, name, path, known, check, progress, patience or Patience(), stop, tell)
    try:
        return fetch.run()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoSpace(
            f"{fetch.part.path}: the disk is full after {fetch.part.size} bytes; they are kept. "
            "Make room and run the same command again"
        ) from error
    finally:
        fetch.part.close()


class _Fetch:
    """One file under way."""

    def __init__(
        self,
        remote: Remote,
        name: str,
        path: Path,
        known: RemoteFile | None,
        check: Callable[[Path], object] | None,
        progress: Callable[[int], None] | None,
        patience: Patience,
        stop: threading.Event | None,
        tell: Callable[[str], None] | None,
    ) -> None:
        self._remote, self._name, self._path, self._known, self._check = remote, name, path, known, check
        self._url = remote.url(name)
        self._anew = patience.anew
        self._retries = _Retries(patience, stop, tell, "what has come is kept: run the same command again to go on")
        self._resumed_at: int | None = None
        self._received = 0
        self._farthest = 0
        self.part = _Part(path, self._url, progress)

    def run(self) -> Fetched:
        begun = 0
        while True:
            self._retries.check_stop()
            try:
                file = self._receive(self._file())
                self._accept(file)
                self.part.finish(self._path)
                return Fetched(
                    path=self._path,
                    file=file,
                    crc32c=self.part.crc,
                    resumed_at=self._resumed_at or 0,
                    received=self._received,
                )
            except RemoteFault as fault:
                # A server that knows no ranges sends the same bytes each time: only what is new counts.
                progressed, self._farthest = self.part.size > self._farthest, max(self.part.size, self._farthest)
                self._retries.after(fault, progressed=progressed)
            except (RemoteChanged, _Wrong) as fault:
                begun += 1
                self.part.remove()
                self._known, self._farthest = None, 0
                if begun >= self._anew or (isinstance(fault, _Wrong) and fault.lasting):
                    raise self._given_up(fault, begun) from fault
                self._retries.pause(f"{self._url}: {fault}; begun anew", begun)

    def _given_up(self, fault: RemoteChanged | _Wrong, begun: int) -> FetchError:
        if isinstance(fault, RemoteChanged):
            return FetchError(f"{self._url}: changed {begun} times while it was fetched ({fault}); try again later")
        if fault.lasting:
            return RemoteDamaged(f"{self._url}: {fault}; the server has it so, by its own checksum: tell its owner")
        times = "once" if begun == 1 else f"{begun} times"
        return RemoteDamaged(f"{self._url}: fetched {times}, and the bytes were wrong: {fault}; fetch it elsewhere")

    def _file(self) -> RemoteFile:
        if self._known is None:
            self._known = self._remote.ask(self._name)
        if self._known is None:
            raise RemoteMissing(f"{self._url}: not there")
        return self._known

    def _receive(self, file: RemoteFile) -> RemoteFile:
        """Fetches what is missing; the file, with all that is known of it now."""
        self.part.take_up(file)
        if self._resumed_at is None:
            self._resumed_at = self._farthest = self.part.size
        if self.part.size == file.size > 0:
            return file
        if self.part.size and not file.can_be_told_apart:
            self.part.empty()
        with self._remote.open(self._name, offset=self.part.size, like=file) as body:
            same = file.is_same(body.file)
            if same is False or (same is None and body.offset > 0):
                raise RemoteChanged(f"it was {_described(file)}, now it is {_described(body.file)}")
            if body.offset != self.part.size:
                if body.offset:
                    raise RemoteFault(
                        f"{self._url}: bytes from {self.part.size} on were asked for, those from {body.offset} on came"
                    )
                self.part.empty()
            for block in body.blocks():
                self._retries.check_stop()
                self._received += len(block)
                if self.part.size + len(block) > file.size:
                    raise _Wrong(f"more than the {file.size} bytes came that it has")
                self.part.write(block)
            if self.part.size < file.size:
                raise RemoteFault(f"{self._url}: the connection ended at byte {self.part.size} of {file.size}")
            return file if file.crc32c is not None else replace(file, crc32c=body.file.crc32c)

    def _accept(self, file: RemoteFile) -> None:
        """Returns where all the bytes are right."""
        if file.crc32c is not None and self.part.crc != file.crc32c:
            raise _Wrong(f"CRC32C is {self.part.crc:08x}, expected {file.crc32c:08x}")
        if self._check is None:
            return
        try:
            self._check(self.part.path)
        except CorruptRecord as error:
            reason = f"record {error.record} at byte {error.offset}: {error.reason}"
            raise _Wrong(reason, lasting=file.crc32c is not None) from error
        except GQNError as error:
            raise _Wrong(str(error), lasting=file.crc32c is not None) from error


def _described(file: RemoteFile) -> str:
    tag = file.etag or file.modified
    return f"{file.size} bytes" + (f", {tag}" if tag else "")
