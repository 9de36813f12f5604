"""What files are fetched from: any place that says what it has, and sends bytes. No protocol is known here.

`http_remote` is one, `store_remote` another. Imports `errors`, `patience`.
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


def ask(
    remote: Remote,
    name: str,
    *,
    patience: RetryPolicy | None = None,
    stop: threading.Event | None = None,
    tell: Callable[[str], None] | None = None,
) -> RemoteFile | None:
    """What a remote has under a name, asked until it answers; None where there is nothing.

    Raises:
        FetchError: it does not answer, or refuses to.
    """
    retries = Retries(patience or RetryPolicy(), stop, tell, "try again later")
    while True:
        retries.check_stop()
        try:
            return remote.ask(name)
        except RemoteFault as fault:
            retries.after(fault, progressed=False)
