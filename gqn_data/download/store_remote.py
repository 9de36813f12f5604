"""Files fetched from an object store, as `fetch` wants them. Imports `errors`, `remote`, `stores`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from gqn_data.download.remote import RemoteFile
from gqn_data.errors import (
    FetchError,
    RemoteChanged,
    RemoteFault,
    RemoteMissing,
    RemoteRefused,
    StoreChanged,
    StoreError,
    StoreRefused,
)
from gqn_data.io.paths import StorePath


class StoreRemote:
    """A folder in an object store.

    Args:
        folder: the folder.
        prefix: that names begin with and the folder's keys do not: a raw folder is asked for `mazes/train/...`.
    """

    def __init__(self, folder: StorePath, prefix: str = "") -> None:
        self._folder = folder
        self._prefix = prefix

    def _path(self, name: str) -> StorePath:
        return self._folder / name.removeprefix(self._prefix)

    def url(self, name: str) -> str:
        """Where a file lies."""
        return str(self._path(name))

    def ask(self, name: str) -> RemoteFile | None:
        """What there is under a name; None where there is nothing.

        Raises:
            RemoteFault: asking again may help.
            RemoteRefused: it will not.
        """
        try:
            stat = self._path(name).stat()
        except FileNotFoundError:
            return None
        except StoreError as error:
            raise _as_remote(error) from error
        return RemoteFile(name=name, size=stat.st_size, etag=stat.e_tag)

    def open(self, name: str, *, offset: int = 0, like: RemoteFile | None = None) -> StoreBody:
        """The bytes of a file from `offset` on, provided that it is still the one that `like` describes.

        Raises:
            RemoteChanged: it is another one.
            RemoteMissing: it is not there.
            RemoteFault: asking again may help.
            RemoteRefused: it will not.
        """
        file = self.ask(name)
        if file is None:
            raise RemoteMissing(f"{self.url(name)}: not there; check the address")
        if like is not None and like.is_same(file) is False:
            raise RemoteChanged(f"{self.url(name)}: was replaced meanwhile; run the same command again")
        return StoreBody(self._path(name), file, offset)


class StoreBody:
    """Bytes under way; a context manager.

    Args:
        path: of the object.
        file: what the store says of it.
        offset: of the first byte.
    """

    def __init__(self, path: StorePath, file: RemoteFile, offset: int) -> None:
        self.file = file
        self.offset = offset
        self._path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def blocks(self) -> Iterator[bytes]:
        """The bytes, in blocks.

        Raises:
            RemoteFault: they stopped coming.
            RemoteChanged: the object was replaced meanwhile.
        """
        try:
            yield from self._path.blocks(self.offset, self.file.etag)
        except FileNotFoundError as error:
            raise RemoteChanged(f"{self._path}: was removed meanwhile") from error
        except StoreError as error:
            raise _as_remote(error) from error


def _as_remote(error: StoreError) -> FetchError:
    if isinstance(error, StoreRefused):
        return RemoteRefused(str(error))
    if isinstance(error, StoreChanged):
        return RemoteChanged(str(error))
    return RemoteFault(str(error))
