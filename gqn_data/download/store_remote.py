"""A `Remote` over a folder in an object store."""

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
        prefix: removed from the front of names, which begin with the set: `mazes/train/...` is `train/...` here.
    """

    def __init__(self, folder: StorePath, prefix: str = "") -> None:
        self._folder = folder
        self._prefix = prefix

    def _path(self, name: str) -> StorePath:
        return self._folder / name.removeprefix(self._prefix)

    def url(self, name: str) -> str:
        """Return the address of a file."""
        return str(self._path(name))

    def stat(self, name: str) -> RemoteFile | None:
        """Describe a file; return None if it is missing. See `remote.Remote`."""
        try:
            stat = self._path(name).stat()
        except FileNotFoundError:
            return None
        except StoreError as error:
            raise _to_fetch_error(error) from error
        return RemoteFile(name=name, size=stat.st_size, etag=stat.e_tag)

    def open(self, name: str, *, offset: int = 0, like: RemoteFile | None = None) -> StoreBody:
        """Open a file for reading from `offset`, if it is still the version of `like`. See `remote.Remote`."""
        file = self.stat(name)
        if file is None:
            raise RemoteMissing(f"{self.url(name)}: file not found. Check the address")
        if like is not None and like.is_same(file) is False:
            raise RemoteChanged(f"{self.url(name)}: replaced during the transfer. Run the same command again")
        return StoreBody(self._path(name), file, offset)


class StoreBody:
    """The bytes of an object in transfer; a context manager. See `remote.Body`.

    Args:
        path: address of the object.
        file: the store's description of it.
        offset: position of the first byte.
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
        """Yield the bytes in blocks.

        Raises:
            RemoteFault: the transfer broke.
            RemoteChanged: the object was replaced during the transfer.
        """
        try:
            yield from self._path.blocks(self.offset, self.file.etag)
        except FileNotFoundError as error:
            raise RemoteChanged(f"{self._path}: removed during the transfer. Run the same command again") from error
        except StoreError as error:
            raise _to_fetch_error(error) from error


def _to_fetch_error(error: StoreError) -> FetchError:
    if isinstance(error, StoreRefused):
        return RemoteRefused(str(error))
    if isinstance(error, StoreChanged):
        return RemoteChanged(str(error))
    return RemoteFault(str(error))
