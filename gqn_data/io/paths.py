"""Places: where files lie, on a disk or in an object store, behind one small interface.

A `AnyPath` is a `pathlib.Path`, or a `StorePath` that offers the part of its interface that the project uses. Stores
are reached through `obstore`; their credentials and endpoints come from where each store's users expect them
(environment variables, files of the vendors' tools). A URL scheme is a line of `SCHEMES`. Imports `errors`, `threads`.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from gqn_data.errors import SourceMissing, StoreChanged, StoreError, StoreRefused
from gqn_data.io.threads import DaemonThreadPool

if TYPE_CHECKING:
    from obstore import GetOptions, PutMode, UpdateVersion
    from obstore.store import ObjectStore

BLOCK = 8 << 20  # bytes of one request when a whole object is read
_AHEAD = 4  # of them under way at once
_CLIENT = {
    "connect_timeout": timedelta(seconds=10),
    "read_timeout": timedelta(seconds=60),  # a stalled connection is given up and asked again
    "timeout": timedelta(hours=6),  # of one whole request; large uploads take their time
}
_RETRY = {"max_retries": 8, "retry_timeout": timedelta(minutes=3)}

# Where a test or another vendor's service says that it speaks plain HTTP.
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "GOOGLE_BASE_URL")
_AWS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")


@dataclass(frozen=True, kw_only=True)
class Stat:
    """What a store tells of an object.

    Attributes:
        st_size: its bytes; named as `os.stat` names it.
        e_tag: the store's name for this version of it, if it has one.
        version: its number in stores that count versions.
    """

    st_size: int
    e_tag: str | None
    version: str | None = None


def _options(url: str) -> dict[str, Any]:
    plain = url.startswith("http://") or any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS)
    return {"client_options": {**_CLIENT, "allow_http": plain}, "retry_config": _RETRY}


def _plain_store(url: str) -> ObjectStore:
    from obstore.store import from_url

    return from_url(url, **_options(url))


def _s3_store(url: str) -> ObjectStore:
    """S3, with the profile of `~/.aws` where the environment carries no key and boto3 is there to read it."""
    from obstore.store import S3Store

    folder = Path("~/.aws").expanduser()
    profile = "AWS_PROFILE" in os.environ or (folder / "credentials").exists() or (folder / "config").exists()
    unsigned = os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true", "yes")
    if profile and not unsigned and not any(name in os.environ for name in _AWS_KEYS):
        with contextlib.suppress(ImportError):
            from obstore.auth.boto3 import Boto3CredentialProvider

            return S3Store.from_url(url, credential_provider=Boto3CredentialProvider(), **_options(url))
    return S3Store.from_url(url, **_options(url))


# How a store of each URL scheme is opened.
SCHEMES: dict[str, Callable[[str], ObjectStore]] = {
    "s3": _s3_store,
    "gs": _plain_store,
    "az": _plain_store,
    "http": _plain_store,
    "https": _plain_store,
}
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://([^/]*)/*(.*)", re.DOTALL)


# The process that asked a store first: the client's threads are not in those that are forked from it afterwards.
_asked_by: int | None = None


@lru_cache(maxsize=64)
def _store(root: str, process: int) -> ObjectStore:
    global _asked_by  # noqa: PLW0603  it is one client for all stores of a process
    if _asked_by not in (None, process):
        raise StoreError(
            f"{root}: this process was forked from one that had asked a store, and would wait for ever; "
            "start processes afresh (multiprocessing's method spawn or forkserver)"
        )
    _asked_by = process
    scheme = root.split(":", 1)[0]
    from obstore.exceptions import BaseError

    try:
        return SCHEMES[scheme](root)
    except (ValueError, BaseError) as error:
        raise StoreError(f"{root}: {_first_line(error)}; {_remedy(scheme)}") from error


def _first_line(error: Exception) -> str:
    line = str(error).split("\n", 1)[0].strip()
    return line if len(line) <= 300 else line[:300] + "..."


_CREDENTIALS = {
    "s3": "credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE with boto3 installed; "
    "AWS_ENDPOINT_URL for another service, AWS_REGION; AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "credentials: GOOGLE_APPLICATION_CREDENTIALS, or gcloud auth application-default login; "
    "GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "az": "credentials: AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN; "
    "AZURE_SKIP_SIGNATURE=true for a public container",
}


def _remedy(scheme: str) -> str:
    return _CREDENTIALS.get(scheme, "check the address, and that the server answers")


class StorePath:
    """A place in an object store: `s3://bucket/folder/file`. Immutable; nothing is asked of the store but by methods.

    Args:
        root: scheme and bucket, `s3://bucket`.
        key: of the object in it, or of a folder; parts joined by slashes, none at either end.
    """

    __slots__ = ("_key", "_root")

    def __init__(self, root: str, key: str = "") -> None:
        self._root = root
        self._key = key

    # --- names, as pathlib gives them ---

    def __truediv__(self, name: str | PurePosixPath) -> StorePath:
        more = str(name).strip("/")
        return StorePath(self._root, f"{self._key}/{more}" if self._key else more)

    def __str__(self) -> str:
        return f"{self._root}/{self._key}"

    def __repr__(self) -> str:
        return f"StorePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StorePath) and (self._root, self._key) == (other._root, other._key)

    def __hash__(self) -> int:
        return hash((self._root, self._key))

    def __lt__(self, other: StorePath) -> bool:
        return (self._root, self._key) < (other._root, other._key)

    def __reduce__(self) -> tuple[type[StorePath], tuple[str, str]]:
        return type(self), (self._root, self._key)

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self._key.rsplit("/", 1)[-1]

    @property
    def parent(self) -> StorePath:
        """The folder above."""
        return StorePath(self._root, self._key.rpartition("/")[0])

    @property
    def scheme(self) -> str:
        """`s3`, `gs`, `az`, `http` or `https`."""
        return self._root.split(":", 1)[0]

    @property
    def can_be_listed(self) -> bool:
        """Whether the store tells what lies in it; a plain web server does not."""
        return self.scheme not in ("http", "https")

    def resolve(self) -> StorePath:
        """The place itself: stores know no links."""
        return self

    def absolute(self) -> StorePath:
        """The place itself."""
        return self

    # --- what is there ---

    @contextlib.contextmanager
    def _told(self) -> Iterator[ObjectStore]:
        """The store; its errors as ours, but for an absent object, which is a FileNotFoundError as on a disk."""
        from obstore.exceptions import (
            BaseError,
            NotFoundError,
            PermissionDeniedError,
            PreconditionError,
            UnauthenticatedError,
        )

        try:
            yield _store(self._root, os.getpid())
        except (FileNotFoundError, NotFoundError) as error:
            raise FileNotFoundError(2, "no such object", str(self)) from error
        except PreconditionError as error:
            raise StoreChanged(f"{self}: was replaced meanwhile; run the same command again") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise StoreRefused(f"{self}: {_first_line(error)}; {_remedy(self.scheme)}") from error
        except BaseError as error:
            raise StoreError(f"{self}: {_first_line(error)}; {_remedy(self.scheme)}") from error

    def stat(self) -> Stat:
        """Size and version of the object.

        Raises:
            FileNotFoundError: there is none.
            StoreError: the store cannot be asked.
        """
        import obstore

        with self._told() as store:
            meta = obstore.head(store, self._key)
        return Stat(st_size=meta["size"], e_tag=meta["e_tag"], version=meta["version"])

    def is_file(self) -> bool:
        """Whether there is an object of that key."""
        if not self._key:
            return False
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    exists = is_file

    def is_dir(self) -> bool:
        """Whether anything lies below the key; true for a server that cannot be listed."""
        return not self.can_be_listed or next(iter(self.files()), None) is not None

    def files(self) -> Iterator[tuple[str, int]]:
        """Names (from here, with slashes) and sizes of all objects below, in order of their names.

        Raises:
            StoreError: the store cannot be asked, or a server that cannot be listed.
        """
        import obstore

        if not self.can_be_listed:
            raise StoreError(f"{self}: a web server does not tell what lies on it; name a dataset's folder")
        prefix = f"{self._key}/" if self._key else ""
        with self._told() as store:
            found = [
                (meta["path"].removeprefix(prefix), meta["size"])
                for page in obstore.list(store, prefix=self._key or None)
                for meta in page
                if meta["path"].startswith(prefix)
            ]
        yield from sorted(found)

    # --- reading ---

    def read_bytes(self) -> bytes:
        """The whole object; for small ones."""
        import obstore

        with self._told() as store:
            return bytes(obstore.get(store, self._key).bytes())

    def read_range(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on; fewer where the object ends before."""
        import obstore

        if not length:
            return b""
        with self._told() as store:
            return bytes(obstore.get_range(store, self._key, start=offset, length=length))

    def read_ranges(self, extents: list[tuple[int, int]], gap: int = 1 << 20) -> list[bytes]:
        """The bytes of several extents (offset, length), fetched at once; those up to `gap` apart by one request."""
        import obstore

        with self._told() as store:
            starts, lengths = [offset for offset, _ in extents], [length for _, length in extents]
            parts = obstore.get_ranges(store, self._key, starts=starts, lengths=lengths, coalesce=gap)
            return [bytes(part) for part in parts]

    def blocks(self, start: int = 0, e_tag: str | None = None) -> Generator[bytes]:
        """All bytes from `start` on, in blocks, some of them fetched ahead; of one version of the object.

        Args:
            start: the first byte.
            e_tag: of the version wanted; None for the present one.

        Raises:
            FileNotFoundError: there is no such object.
            StoreError: the store cannot be asked, or the object was replaced meanwhile.
        """
        import obstore

        with self._told() as store:
            stat = self.stat()
            options: GetOptions = {}
            tag = e_tag or stat.e_tag
            if tag is not None and not tag.startswith("W/"):
                options["if_match"] = tag
            elif e_tag is not None and e_tag != stat.e_tag:
                raise StoreChanged(f"{self}: was replaced meanwhile; run the same command again")

            def fetch(first: int) -> bytes:
                last = min(first + BLOCK, stat.st_size)
                data = bytes(obstore.get(store, self._key, options={**options, "range": (first, last)}).bytes())
                if len(data) != last - first:
                    raise StoreError(f"{self}: gave {len(data)} bytes from {first} on, expected {last - first}")
                return data

            with DaemonThreadPool(_AHEAD) as threads:
                under_way: deque[Future[bytes]] = deque()
                for first in range(start, stat.st_size, BLOCK):
                    under_way.append(threads.submit(fetch, first))
                    if len(under_way) >= _AHEAD:
                        yield under_way.popleft().result()
                while under_way:
                    yield under_way.popleft().result()

    def open_reader(self) -> io.BufferedReader:
        """The object as a binary file, read from its beginning to its end."""
        return io.BufferedReader(_Blocks(self.blocks()), 1 << 20)

    # --- writing ---

    def put(self, source: IO[bytes] | bytes) -> None:
        """Writes the object from an open file's or these bytes, whole or not at all.

        Raises:
            StoreError: the store does not take it.
        """
        import obstore

        with self._told() as store:
            obstore.put(store, self._key, source, chunk_size=BLOCK)

    def create(self, data: bytes) -> Stat | None:
        """Writes the object if there is none of that key; None where there is one."""
        return self._put_if("create", data)

    def replace(self, data: bytes, version: Stat) -> Stat | None:
        """Writes the object if it still is of that version; None where it is not."""
        mode: UpdateVersion = {}
        if version.e_tag is not None:
            mode["e_tag"] = version.e_tag
        if version.version is not None:
            mode["version"] = version.version
        return self._put_if(mode, data)

    def _put_if(self, mode: PutMode, data: bytes) -> Stat | None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotFoundError, PreconditionError

        with self._told() as store:
            try:
                written = obstore.put(store, self._key, data, mode=mode)
            except (AlreadyExistsError, PreconditionError, NotFoundError, FileNotFoundError):
                return None
        return Stat(st_size=len(data), e_tag=written["e_tag"], version=written["version"])

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes the object."""
        import obstore

        try:
            with self._told() as store:
                obstore.delete(store, self._key)
        except FileNotFoundError:
            if not missing_ok:
                raise


class _Blocks(io.RawIOBase):
    """Blocks as a raw file."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._left = blocks
        self._block = memoryview(b"")
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves on; what is behind is gone."""
        if whence != os.SEEK_SET or offset < self._at:
            raise io.UnsupportedOperation("an object in a store is read from its beginning to its end")
        while self._at < offset and self._fill():
            self._take(min(offset - self._at, len(self._block)))
        return self._at

    def _fill(self) -> bool:
        while not self._block:
            block = next(self._left, None)
            if block is None:
                return False
            self._block = memoryview(block)
        return True

    def _take(self, count: int) -> memoryview:
        taken, self._block = self._block[:count], self._block[count:]
        self._at += count
        return taken

    def readinto(self, out: Any) -> int:
        if not self._fill():
            return 0
        count = min(len(out), len(self._block))
        out[:count] = self._take(count)
        return count

    def close(self) -> None:
        if not self.closed:
            close = getattr(self._left, "close", None)
            if close is not None:
                close()
        super().close()


AnyPath = Path | StorePath


def parse_path(text: str | os.PathLike[str] | StorePath) -> AnyPath:
    """The place that a text names: a URL of a scheme that we know, else a path on a disk.

    Raises:
        SourceMissing: a URL of another scheme, or without a bucket.
    """
    if isinstance(text, StorePath):
        return text
    found = _URL.fullmatch(os.fspath(text))
    if found is None:
        return Path(text)
    scheme, bucket, key = found[1].lower(), found[2], found[3]
    if scheme == "file":
        return Path("/" + key)
    if scheme not in SCHEMES:
        raise SourceMissing(f"{text}: unknown kind of address {scheme!r}; known: a path, {', '.join(SCHEMES)}")
    if not bucket:
        raise SourceMissing(f"{text}: names no bucket or host; expected {scheme}://NAME/folder")
    parts = [part for part in key.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise SourceMissing(f"{text}: '..' has no meaning in a store; give the folder itself")
    return StorePath(f"{scheme}://{bucket}", "/".join(parts))
