"""The `Remote` protocol: a place that describes its files and sends their bytes.

`http_remote` and `store_remote` implement it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, Self

from gqn_data.download.retry import Retries, RetryPolicy
from gqn_data.errors import RemoteFault


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A server's description of one of its files.

    Attributes:
        name: path below the remote's base, with forward slashes.
        size: bytes.
        etag: entity tag, which identifies a version of the file; weak tags begin with `W/`.
        modified: time of the last change, as the server writes it.
        crc32c: checksum of all bytes.
    """

    name: str
    size: int
    etag: str | None = None
    modified: str | None = None
    crc32c: int | None = None

    @property
    def has_version(self) -> bool:
        """Whether a later version of the file would be recognised as another one."""
        return not (self.etag is None and self.modified is None and self.crc32c is None)

    def is_same(self, other: RemoteFile) -> bool | None:
        """Compare two descriptions: True if both are of one version, None if that cannot be decided."""
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
    """The bytes of a file in transfer; a context manager that releases the connection.

    Attributes:
        file: the file as this response describes it.
        offset: position of the first byte in the file: the requested one, or 0 if the server sends the whole file.
    """

    file: RemoteFile
    offset: int

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes as they arrive.

        There may be fewer or more than the file has: the caller counts.

        Raises:
            RemoteFault: the connection broke or timed out.
        """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Remote(Protocol):
    """A place to fetch files from. Thread-safe."""

    def url(self, name: str) -> str:
        """Return the address of a file for display, without credentials."""

    def stat(self, name: str) -> RemoteFile | None:
        """Describe a file; return None if it is missing.

        Raises:
            RemoteFault: the request failed; a retry may help.
            RemoteRefused: the request failed; a retry will not help.
        """

    def open(self, name: str, *, offset: int = 0, like: RemoteFile | None = None) -> Body:
        """Open a file for reading from `offset`, if it is still the version that `like` describes.

        Raises:
            RemoteChanged: it is another version, or ends before `offset`.
            RemoteMissing: it does not exist.
            RemoteFault: the request failed; a retry may help.
            RemoteRefused: the request failed; a retry will not help.
        """


def stat_file(
    remote: Remote,
    name: str,
    *,
    retry: RetryPolicy | None = None,
    stop: threading.Event | None = None,
    log: Callable[[str], None] | None = None,
) -> RemoteFile | None:
    """Describe a remote file, with retries; return None if it is missing.

    Raises:
        FetchError: the server does not answer, or refuses to.
    """
    retries = Retries(retry or RetryPolicy(), stop, log, "Try again later")
    while True:
        retries.check_stop()
        try:
            return remote.stat(name)
        except RemoteFault as fault:
            retries.wait_after(fault, progressed=False)
