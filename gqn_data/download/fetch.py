"""Fetch one remote file to a local path: complete, checked, with retries."""

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

_LEAST_PROGRESS = 64 << 10  # bytes

# The names that callers of `fetch_file` need, in one place.
__all__ = ["Check", "Fetched", "Remote", "RemoteFile", "RetryPolicy", "fetch_file"]


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A fetched file.

    Attributes:
        path: where it lies now.
        file: the server's description of it.
        crc32c: CRC32C of its bytes, computed as they arrived.
        resumed_at: bytes that an earlier run had received.
        received: bytes transferred, discarded ones included.
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
    retry: RetryPolicy | None = None,
    stop: threading.Event | None = None,
    log: Callable[[str], None] | None = None,
) -> Fetched:
    """Fetch a remote file to `path`, atomically: on an error, the file under `path` is unchanged.

    Args:
        remote: where the file lies.
        name: its name there.
        path: where to write it. A partial file of an earlier run is resumed if the remote file is unchanged.
        known: result of `remote.stat`, if the caller has it.
        check: makes a validator for a file of the given size; size and CRC32C are checked anyway.
        progress: called with the number of bytes received, negative if bytes were discarded.
        retry: how often to retry.
        stop: when set, the fetch ends with `FetchStopped`.
        log: called with a line for each fault that is retried.

    Raises:
        RemoteMissing: the file does not exist.
        RemoteRefused: the server refuses to send it.
        RemoteDamaged: the bytes were wrong in every attempt.
        FetchError: the server does not answer, or the file keeps changing.
        NoSpace: the disk is full; the partial file is kept.
    """
    fetch = _Fetch(remote, name, path, known, check, progress, retry or RetryPolicy(), stop, log)
    try:
        return fetch.run()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoSpace(
            f"{fetch.partial.path}: the disk is full after {fetch.partial.size} bytes, which are kept. "
            "Free some space and run the same command again"
        ) from error
    finally:
        fetch.partial.shutdown()


class _Fetch:
    """The transfer of one file."""

    def __init__(
        self,
        remote: Remote,
        name: str,
        path: Path,
        known: RemoteFile | None,
        check: Callable[[int], Check] | None,
        progress: Callable[[int], None] | None,
        retry: RetryPolicy,
        stop: threading.Event | None,
        log: Callable[[str], None] | None,
    ) -> None:
        self._remote, self._name, self._path, self._known = remote, name, path, known
        self._url = remote.url(name)
        self._max_restarts = retry.restarts
        self._retries = Retries(retry, stop, log, "The received bytes are kept; run the same command again to resume")
        self._resumed_at: int | None = None
        self._received = 0
        self._farthest = 0
        self.partial = PartialFile(path, self._url, progress, check)

    def run(self) -> Fetched:
        restarts = 0
        while True:
            self._retries.check_stop()
            try:
                file = self._receive(self._stat())
                if file.crc32c is not None and self.partial.crc != file.crc32c:
                    raise ChecksumMismatch(f"CRC32C is {self.partial.crc:08x}, expected {file.crc32c:08x}")
                self.partial.publish()
                return Fetched(
                    path=self._path,
                    file=file,
                    crc32c=self.partial.crc,
                    resumed_at=self._resumed_at or 0,
                    received=self._received,
                )
            except RemoteFault as fault:
                # A server without range support sends the same bytes each time: only new ones are progress. A few of
                # them are not, or a server that sends a byte per attempt would be asked for ever.
                least = min(_LEAST_PROGRESS, (self._known.size if self._known else 0) // 1000)
                progressed = self.partial.size > self._farthest + least
                if progressed:
                    self._farthest = self.partial.size
                self._retries.wait_after(fault, progressed=progressed)
            except (RemoteChanged, ChecksumMismatch) as fault:
                restarts += 1
                self.partial.remove()
                self._known, self._farthest = None, 0
                if restarts >= self._max_restarts:
                    raise self._final_error(fault, restarts) from fault
                self._retries.pause(f"{self._url}: {fault}; discarded the received bytes", restarts)

    def _final_error(self, fault: RemoteChanged | ChecksumMismatch, restarts: int) -> FetchError:
        times = "once" if restarts == 1 else f"{restarts} times"
        if isinstance(fault, RemoteChanged):
            return FetchError(f"{self._url}: changed {times} during the transfer ({fault}). Try again later")
        return RemoteDamaged(f"{self._url}: fetched {times}, with wrong bytes: {fault}. Try another server")

    def _stat(self) -> RemoteFile:
        if self._known is None:
            self._known = self._remote.stat(self._name)
        if self._known is None:
            raise RemoteMissing(f"{self._url}: file not found")
        return self._known

    def _receive(self, file: RemoteFile) -> RemoteFile:
        """Fetch the missing bytes; return the description of the file with all that is known of it now."""
        self.partial.open(file)
        if self._resumed_at is None:
            self._resumed_at = self._farthest = self.partial.size
        if self.partial.size == file.size > 0:
            return file
        if self.partial.size and not file.has_version:
            self.partial.truncate()
        with self._remote.open(self._name, offset=self.partial.size, like=file) as body:
            same = file.is_same(body.file)
            if same is False or (same is None and body.offset > 0):
                raise RemoteChanged(f"was {_describe(file)}, is now {_describe(body.file)}")
            if body.offset != self.partial.size:
                if body.offset:
                    raise RemoteFault(
                        f"{self._url}: received bytes from {body.offset} on, expected those from {self.partial.size} on"
                    )
                self.partial.truncate()
            for block in body.blocks():
                self._retries.check_stop()
                self._received += len(block)
                if self.partial.size + len(block) > file.size:
                    raise ChecksumMismatch(f"more bytes than the expected {file.size}")
                self.partial.write(block)
            if self.partial.size < file.size:
                raise RemoteFault(f"{self._url}: the connection ended at byte {self.partial.size} of {file.size}")
            return file if file.crc32c is not None else replace(file, crc32c=body.file.crc32c)


def _describe(file: RemoteFile) -> str:
    version = file.etag or file.modified
    return f"{file.size} bytes" + (f", {version}" if version else "")
