"""Paths in local file systems and object stores, behind one interface.

An `AnyPath` is a `pathlib.Path`, or a `StorePath` with the subset of its methods that the project uses. Stores are
accessed through `obstore`. Credentials and endpoints come from the usual places of each vendor: environment variables
and the files of its tools. To support a URL scheme, add an entry to `SCHEMES`.
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

BLOCK = 8 << 20  # bytes per request when a whole object is read
_AHEAD = 4  # concurrent requests
_CLIENT = {
    "connect_timeout": timedelta(seconds=10),
    "read_timeout": timedelta(seconds=60),  # a stalled request is retried
    "timeout": timedelta(hours=6),  # per request; large uploads are slow
}
_RETRY = {"max_retries": 8, "retry_timeout": timedelta(minutes=3)}

# An endpoint with http:// in one of these allows plain HTTP, for tests and other vendors' services.
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "GOOGLE_BASE_URL")
_AWS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")


@dataclass(frozen=True, kw_only=True)
class Stat:
    """Metadata of an object.

    Attributes:
        st_size: size in bytes, named as in `os.stat_result`.
        e_tag: entity tag of this version; None if the store does not use entity tags.
        version: version identifier in stores with versioning.
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
    """Open an S3 store. Profiles in `~/.aws` are used if the environment lacks a key and boto3 is installed."""
    from obstore.store import S3Store

    folder = Path("~/.aws").expanduser()
    profile = "AWS_PROFILE" in os.environ or (folder / "credentials").exists() or (folder / "config").exists()
    unsigned = os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true", "yes")
    if profile and not unsigned and not any(name in os.environ for name in _AWS_KEYS):
        with contextlib.suppress(ImportError):
            from obstore.auth.boto3 import Boto3CredentialProvider

            return S3Store.from_url(url, credential_provider=Boto3CredentialProvider(), **_options(url))
    return S3Store.from_url(url, **_options(url))


# Opener per URL scheme.
SCHEMES: dict[str, Callable[[str], ObjectStore]] = {
    "s3": _s3_store,
    "gs": _plain_store,
    "az": _plain_store,
    "http": _plain_store,
    "https": _plain_store,
}
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://([^/]*)/*(.*)", re.DOTALL)


# Process that opened the first store. The threads of the client do not survive a fork.
_client_process: int | None = None


@lru_cache(maxsize=64)
def _store(root: str, process: int) -> ObjectStore:
    global _client_process  # noqa: PLW0603  all stores of a process share one client
    if _client_process not in (None, process):
        raise StoreError(
            f"{root}: this process was forked from one that had opened a store, so requests would hang. "
            "Use multiprocessing's start method spawn or forkserver"
        )
    _client_process = process
    scheme = root.split(":", 1)[0]
    from obstore.exceptions import BaseError

    try:
        return SCHEMES[scheme](root)
    except (ValueError, BaseError) as error:
        raise StoreError(f"{root}: {_first_line(error)}. {_remedy(scheme)}") from error


def _first_line(error: Exception) -> str:
    line = str(error).split("\n", 1)[0].strip()
    return line if len(line) <= 300 else line[:300] + "..."


_CREDENTIALS = {
    "s3": "Credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE with boto3 installed; "
    "AWS_ENDPOINT_URL for another service, AWS_REGION; AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "Credentials: GOOGLE_APPLICATION_CREDENTIALS, or gcloud auth application-default login; "
    "GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "az": "Credentials: AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN; "
    "AZURE_SKIP_SIGNATURE=true for a public container",
}


def _remedy(scheme: str) -> str:
    return _CREDENTIALS.get(scheme, "Check the URL, and whether the server is up")


class StorePath:
    """Path of an object or folder in an object store, such as `s3://bucket/folder/file`. Immutable.

    Creating one does not access the store.

    Args:
        root: scheme and bucket, such as `s3://bucket`.
        key: key of the object or folder, without slashes at either end.
    """

    __slots__ = ("_key", "_root")

    def __init__(self, root: str, key: str = "") -> None:
        self._root = root
        self._key = key

    # --- names, as in pathlib ---

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
        """Last part of the key."""
        return self._key.rsplit("/", 1)[-1]

    @property
    def parent(self) -> StorePath:
        """Parent folder."""
        return StorePath(self._root, self._key.rpartition("/")[0])

    @property
    def scheme(self) -> str:
        """URL scheme: `s3`, `gs`, `az`, `http` or `https`."""
        return self._root.split(":", 1)[0]

    @property
    def can_be_listed(self) -> bool:
        """Whether the store can list its objects. A web server cannot."""
        return self.scheme not in ("http", "https")

    def resolve(self) -> StorePath:
        """Return the path itself: stores do not have links."""
        return self

    def absolute(self) -> StorePath:
        """Return the path itself."""
        return self

    # --- queries ---

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[ObjectStore]:
        """Yield the store, and translate its errors.

        Raises:
            FileNotFoundError: the object does not exist.
            StoreChanged: the object was replaced.
            StoreRefused: access was denied.
            StoreError: the request failed for another reason.
        """
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
            raise StoreChanged(self._replaced()) from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise StoreRefused(f"{self}: {_first_line(error)}. {_remedy(self.scheme)}") from error
        except BaseError as error:
            raise StoreError(f"{self}: {_first_line(error)}. {_remedy(self.scheme)}") from error

    def _replaced(self) -> str:
        return f"{self}: was replaced while it was read. Run the same command again"

    def stat(self) -> Stat:
        """Return size and version of the object.

        Raises:
            FileNotFoundError: the object does not exist.
            StoreError: the request failed.
        """
        import obstore

        with self._translate_errors() as store:
            meta = obstore.head(store, self._key)
        return Stat(st_size=meta["size"], e_tag=meta["e_tag"], version=meta["version"])

    def is_file(self) -> bool:
        """Return whether an object of this key exists."""
        if not self._key:
            return False
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    exists = is_file

    def is_dir(self) -> bool:
        """Return whether any object lies below the key; True if the store cannot be listed."""
        return not self.can_be_listed or next(iter(self.files()), None) is not None

    def files(self) -> Iterator[tuple[str, int]]:
        """Yield (name, bytes) of all objects below this folder, sorted. Names are relative, with slashes.

        Raises:
            StoreError: the request failed, or the store cannot be listed.
        """
        import obstore

        if not self.can_be_listed:
            raise StoreError(f"{self}: a web server cannot be listed. Pass the URL of a dataset's folder")
        prefix = f"{self._key}/" if self._key else ""
        with self._translate_errors() as store:
            found = [
                (meta["path"].removeprefix(prefix), meta["size"])
                for page in obstore.list(store, prefix=self._key or None)
                for meta in page
                if meta["path"].startswith(prefix)
            ]
        yield from sorted(found)

    # --- reading ---

    def read_bytes(self) -> bytes:
        """Return the bytes of the object, fetched by one request."""
        import obstore

        with self._translate_errors() as store:
            return bytes(obstore.get(store, self._key).bytes())

    def read_range(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, or fewer at the end of the object."""
        import obstore

        if not length:
            return b""
        with self._translate_errors() as store:
            return bytes(obstore.get_range(store, self._key, start=offset, length=length))

    def read_ranges(self, extents: list[tuple[int, int]], gap: int = 1 << 20) -> list[bytes]:
        """Return the bytes of several extents (offset, length), fetched concurrently.

        Extents at most `gap` bytes apart are fetched by one request.
        """
        import obstore

        with self._translate_errors() as store:
            starts, lengths = [offset for offset, _ in extents], [length for _, length in extents]
            parts = obstore.get_ranges(store, self._key, starts=starts, lengths=lengths, coalesce=gap)
            return [bytes(part) for part in parts]

    def blocks(self, start: int = 0, e_tag: str | None = None) -> Generator[bytes]:
        """Yield all bytes from `start` in blocks of one version of the object, prefetching up to 4 blocks.

        Args:
            start: offset of the first byte.
            e_tag: entity tag of the version to read; None for the current one.

        Raises:
            FileNotFoundError: the object does not exist.
            StoreChanged: the object was replaced.
            StoreError: the request failed.
        """
        import obstore

        with self._translate_errors() as store:
            stat = self.stat()
            options: GetOptions = {}
            tag = e_tag or stat.e_tag
            if tag is not None and not tag.startswith("W/"):
                options["if_match"] = tag
            elif e_tag is not None and e_tag != stat.e_tag:
                raise StoreChanged(self._replaced())

            def fetch(first: int) -> bytes:
                last = min(first + BLOCK, stat.st_size)
                data = bytes(obstore.get(store, self._key, options={**options, "range": (first, last)}).bytes())
                if len(data) != last - first:
                    raise StoreError(f"{self}: {len(data)} bytes at offset {first}, expected {last - first}")
                return data

            with DaemonThreadPool(_AHEAD) as threads:
                pending: deque[Future[bytes]] = deque()
                for first in range(start, stat.st_size, BLOCK):
                    pending.append(threads.submit(fetch, first))
                    if len(pending) >= _AHEAD:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()

    def open_reader(self) -> io.BufferedReader:
        """Open the object as a binary file for sequential reading."""
        return io.BufferedReader(_Blocks(self.blocks()), 1 << 20)

    # --- writing ---

    def put(self, source: IO[bytes] | bytes) -> None:
        """Upload the object from bytes or an open file. An object appears only when it is complete.

        Raises:
            StoreError: the upload failed.
        """
        import obstore

        with self._translate_errors() as store:
            obstore.put(store, self._key, source, chunk_size=BLOCK)

    def create(self, data: bytes) -> Stat | None:
        """Upload the object if it does not exist; otherwise return None."""
        return self._put_if("create", data)

    def replace(self, data: bytes, version: Stat) -> Stat | None:
        """Upload the object if its current version is `version`; otherwise return None."""
        mode: UpdateVersion = {}
        if version.e_tag is not None:
            mode["e_tag"] = version.e_tag
        if version.version is not None:
            mode["version"] = version.version
        return self._put_if(mode, data)

    def _put_if(self, mode: PutMode, data: bytes) -> Stat | None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotFoundError, PreconditionError

        with self._translate_errors() as store:
            try:
                written = obstore.put(store, self._key, data, mode=mode)
            except (AlreadyExistsError, PreconditionError, NotFoundError, FileNotFoundError):
                return None
        return Stat(st_size=len(data), e_tag=written["e_tag"], version=written["version"])

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object."""
        import obstore

        try:
            with self._translate_errors() as store:
                obstore.delete(store, self._key)
        except FileNotFoundError:
            if not missing_ok:
                raise


class _Blocks(io.RawIOBase):
    """Raw file over an iterator of blocks. Seeks forward only."""

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
        """Skip forward to `offset`."""
        if whence != os.SEEK_SET or offset < self._at:
            raise io.UnsupportedOperation("an object in a store can only be read sequentially")
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
    """Parse a URL with a scheme of `SCHEMES`, or else a local path.

    Raises:
        SourceMissing: the URL has an unknown scheme, lacks a bucket, or contains `..`.
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
        raise SourceMissing(f"{text}: scheme is {scheme!r}, expected a path or one of {', '.join(SCHEMES)}")
    if not bucket:
        raise SourceMissing(f"{text}: bucket or host is missing, expected {scheme}://NAME/folder")
    parts = [part for part in key.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise SourceMissing(f"{text}: found '..', expected the key of a folder in the store")
    return StorePath(f"{scheme}://{bucket}", "/".join(parts))
