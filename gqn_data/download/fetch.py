"""Fetching: one remote file to a local path, whole and checked, however often it takes.

Imports `errors`, `part_file`, `patience`, `remote`.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from gqn_data.download.partial_file import Check, ChecksumMismatch, PartialFile
from gqn_data.download.remote import Remote, RemoteFile
from gqn_data.download.retry import Retries, RetryPolicy
from gqn_data.errors import FetchError, NoSpace, RemoteChanged, RemoteDamaged, RemoteFault, RemoteMissing

# The names that those who fetch need, in one place.
__all__ = ["Check", "Fetched", "Remote", "RemoteFile", "RetryPolicy", "fetch_file"]


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


def fetch_file(
    remote: Remote,
    name: str,
    path: Path,
    *,
    known: RemoteFile | None = None,
    check: Callable[[int], Check] | None = None,
    progress: Callable[[int], None] | None = None,
    patience: RetryPolicy | None = None,
    stop: threading.Event | None = None,
    tell: Callable[[str], None] | None = None,
) -> Fetched:
    """Fetches a remote file; under `path` there is all of it in the end, or what was there before.

    Args:
        remote: where it lies.
        name: its name there.
        path: where it is to lie; a part left by an earlier run is gone on with where the file is still the same.
        known: what `ask` said of it, if it was asked.
        check: makes what looks at the bytes of a file of so many bytes as they come, besides size and CRC32C.
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
    fetch = _Fetch(remote, name, path, known, check, progress, patience or RetryPolicy(), stop, tell)
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
        fetch.part.end()


class _Fetch:
    """One file under way."""

    def __init__(
        self,
        remote: Remote,
        name: str,
        path: Path,
        known: RemoteFile | None,
        check: Callable[[int], Check] | None,
        progress: Callable[[int], None] | None,
        patience: RetryPolicy,
        stop: threading.Event | None,
        tell: Callable[[str], None] | None,
    ) -> None:
        self._remote, self._name, self._path, self._known = remote, name, path, known
        self._url = remote.url(name)
        self._anew = patience.anew
        self._retries = Retries(patience, stop, tell, "what has come is kept: run the same command again to go on")
        self._resumed_at: int | None = None
        self._received = 0
        self._farthest = 0
        self.part = PartialFile(path, self._url, progress, check)

    def run(self) -> Fetched:
        begun = 0
        while True:
            self._retries.check_stop()
            try:
                file = self._receive(self._file())
                if file.crc32c is not None and self.part.crc != file.crc32c:
                    raise ChecksumMismatch(f"CRC32C is {self.part.crc:08x}, expected {file.crc32c:08x}")
                self.part.finish()
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
            except (RemoteChanged, ChecksumMismatch) as fault:
                begun += 1
                self.part.remove()
                self._known, self._farthest = None, 0
                if begun >= self._anew:
                    raise self._given_up(fault, begun) from fault
                self._retries.pause(f"{self._url}: {fault}; begun anew", begun)

    def _given_up(self, fault: RemoteChanged | ChecksumMismatch, begun: int) -> FetchError:
        if isinstance(fault, RemoteChanged):
            return FetchError(f"{self._url}: changed {begun} times while it was fetched ({fault}); try again later")
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
                    raise ChecksumMismatch(f"more than the {file.size} bytes came that it has")
                self.part.write(block)
            if self.part.size < file.size:
                raise RemoteFault(f"{self._url}: the connection ended at byte {self.part.size} of {file.size}")
            return file if file.crc32c is not None else replace(file, crc32c=body.file.crc32c)


def _described(file: RemoteFile) -> str:
    tag = file.etag or file.modified
    return f"{file.size} bytes" + (f", {tag}" if tag else "")
