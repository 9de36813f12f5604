"""Paths in local file systems and object stores, behind one interface.

An `AnyPath` is a `pathlib.Path`, or a `StorePath` with the subset of its methods that the project uses. Stores are
accessed through `obstore`. Credentials and endpoints come from the usual places of each vendor: environment variables
and the files of its tools. Those of a web server come from its URL, or from `~/.netrc`. They are never printed or
stored. To support a URL scheme, add an entry to `SCHEMES`. `hub` describes the addresses of the Hugging Face hub.

A `DatasetPath` may also be a `RenderAddress`, for scenes that are rendered on demand and are not stored anywhere.
"""

from __future__ import annotations

import base64
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
from typing import IO, TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from gqn_data.errors import OptionError, SourceMissing, StoreChanged, StoreError, StoreMissing, StoreRefused
from gqn_data.io import hub
from gqn_data.io.threads import DaemonThreadPool

if TYPE_CHECKING:
    from obstore import GetOptions, PutMode, UpdateVersion
    from obstore.store import ObjectStore

BLOCK = 8 << 20  # bytes per request when a whole object is read
_AHEAD = 4  # concurrent requests
_UPLOADS = 12  # concurrent requests of an upload
_CLIENT = {
    "connect_timeout": timedelta(seconds=10),
    "read_timeout": timedelta(seconds=60),  # a stalled request is retried
}
_RETRY = {"max_retries": 8, "retry_timeout": timedelta(minutes=3)}
_LEAST_RATE = 10_000  # bytes per second; a slower request is retried like a stalled one
_LISTING_TIMEOUT = 300.0  # seconds for one page of a listing, retries included
_MAX_OBJECTS = 5_000_000  # objects of a listing
_PAGE = 512 << 10  # bytes of a page of a listing
_PROBE = ".is-there-such-a-bucket"  # key of a request that only shows whether its bucket exists

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


class Access(NamedTuple):
    """The secret parts of a web server's URL, or server and token of the hub.

    Attributes:
        login: user name and password as in the URL, percent-encoded and separated by a colon.
        query: query that is sent with each request, such as a signature.
        server: URL of the hub.
        token: token that the hub, and no other host, receives.
    """

    login: str = ""
    query: str = ""
    server: str = ""
    token: str = ""


def _options(root: str) -> dict[str, Any]:
    plain = root.startswith("http://") or any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS)
    return {"client_options": {**_CLIENT, "allow_http": plain}, "retry_config": _RETRY}


def _plain_store(root: str, access: Access, options: dict[str, Any]) -> ObjectStore:  # noqa: ARG001  as in SCHEMES
    from obstore.store import from_url

    return from_url(root, **options)


def _web_store(root: str, access: Access, options: dict[str, Any]) -> ObjectStore:
    """Open a web server as a store. The login comes from the URL, or else from `~/.netrc`."""
    from obstore.store import from_url
    from requests.utils import get_netrc_auth

    user, _, password = map(unquote, access.login.partition(":"))
    login = (user, password) if access.login else None if access.query else get_netrc_auth(f"{root}/")
    if login is not None:
        basic = base64.b64encode(":".join(login).encode()).decode()
        options["client_options"]["default_headers"] = {"authorization": f"Basic {basic}"}
    return from_url(f"{root}?{access.query}" if access.query else root, **options)


def _hub_store(root: str, access: Access, options: dict[str, Any]) -> ObjectStore:
    """Open a repository of the hub as a store. The client drops the token when it is redirected to another host."""
    from obstore.store import from_url

    repository, _ = hub.parse_repository(root.partition("://")[2])
    headers = {"accept-encoding": "identity"}  # compressed, a file would have another size and no ranges
    if access.token:
        headers["authorization"] = f"Bearer {access.token}"
    client = {**options["client_options"], "default_headers": headers, "allow_http": access.server.startswith("http:")}
    return from_url(repository.files_url(access.server), **{**options, "client_options": client})


def _s3_store(root: str, access: Access, options: dict[str, Any]) -> ObjectStore:  # noqa: ARG001  as in SCHEMES
    """Open an S3 store. Profiles in `~/.aws` are used if the environment lacks a key and boto3 is installed."""
    from obstore.store import S3Store

    folder = Path(os.path.expanduser("~/.aws"))  # noqa: PTH111  never raises, unlike Path.expanduser
    profile = "AWS_PROFILE" in os.environ or (folder / "credentials").exists() or (folder / "config").exists()
    unsigned = os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true", "yes")
    if profile and not unsigned and not any(name in os.environ for name in _AWS_KEYS):
        with contextlib.suppress(ImportError):
            from obstore.auth.boto3 import Boto3CredentialProvider

            return S3Store.from_url(root, credential_provider=Boto3CredentialProvider(), **options)
    return S3Store.from_url(root, **options)


# Opener per URL scheme.
SCHEMES: dict[str, Callable[[str, Access, dict[str, Any]], ObjectStore]] = {
    "s3": _s3_store,
    "gs": _plain_store,
    "az": _plain_store,
    "http": _web_store,
    "https": _web_store,
    hub.SCHEME: _hub_store,
}
_WEB = ("http", "https")
_READ_ONLY = (*_WEB, hub.SCHEME)  # neither written to nor listed
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://([^/]*)/*(.*)", re.DOTALL)


# Process that opened the first store. The threads of the client do not survive a fork.
_client_process: int | None = None


@lru_cache(maxsize=64)
def _store(root: str, access: Access, process: int, timeout: timedelta) -> ObjectStore:
    global _client_process  # noqa: PLW0603  all stores of a process share one client
    if _client_process not in (None, process):
        raise StoreError(
            f"{root}: this process was forked from one that had opened a store, so requests would hang. "
            "Use multiprocessing's start method spawn or forkserver"
        )
    _client_process = process
    scheme = root.split(":", 1)[0]
    options = _options(root)
    options["client_options"]["timeout"] = timeout
    from obstore.exceptions import BaseError

    try:
        return SCHEMES[scheme](root, access, options)
    except (ValueError, BaseError) as error:
        raise StoreError(f"{root}: {_first_line(error)}. {_remedy(scheme)}") from None


def _timeout_of(size: int) -> timedelta:
    """Return the longest duration of a request that transfers `size` bytes.

    Durations are few, since each has its own client with its own connections.
    """
    most = 32 << 10
    while most < size:
        most <<= 4
    return _CLIENT["read_timeout"] + timedelta(seconds=most / _LEAST_RATE)


# Addresses that clients ask for credentials if the environment does not have them.
_METADATA_SERVERS = ("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "metadata.google.internal")
_NO_BUCKET = ("<Code>NoSuchBucket</Code>", "<Code>ContainerNotFound</Code>")
_SECRETS = re.compile(
    r"\b([A-Za-z][A-Za-z0-9+.-]*://)"
    r"(?:[^\s/?#]*@|[^\s/?#@\[]*:(?!\d*(?:[/?#\s]|$))\S*@)?"  # a login; the second form has an unencoded / or ?
    r"([^\s?]*)(?:\?\S*)?"
)


_STATUS = re.compile(r"status code: (\d{3})((?: [A-Za-z'-]+)*)")


def redact(text: str) -> str:
    """Return a text without logins and queries of the URLs in it: they may hold passwords and signatures."""
    return _SECRETS.sub(r"\1\2", text)


def _fault(error: Exception, scheme: str) -> tuple[str, str]:
    """Return what failed in a request, and what helps; an empty string for what helps with the scheme."""
    text = str(error)
    network = "Check the network, and HF_ENDPOINT if it is set" if scheme == hub.SCHEME else ""
    if "kind: Timeout" in text:
        return f"no answer in time, or less than {_LEAST_RATE / 1000:g} kB/s", ""
    if status := _STATUS.search(text):
        limited = "The server limits requests: wait some minutes, or use fewer workers"
        remedy = limited if status[1] == "429" else "Try again later" if status[1].startswith("5") else ""
        return f"the server answered {status[1]}{status[2]}", remedy
    if "error sending request" in text:
        return "no connection to the server", network
    if "Range request not supported" in text:
        return "found a whole file or a page, expected the range that was asked for", network
    return _first_line(error), ""


def _first_line(error: Exception) -> str:
    """Return what a client says, without secrets, and without the page that the server sent."""
    line = str(error).split("\n", 1)[0].partition(": <")[0].strip()
    line = redact(line)
    return line if len(line) <= 300 else line[:300] + "..."


_CREDENTIALS = {
    "s3": "Credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE with boto3 installed; "
    "AWS_ENDPOINT_URL for another service, AWS_REGION; AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "Credentials: GOOGLE_APPLICATION_CREDENTIALS, or gcloud auth application-default login; "
    "GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "az": "Credentials: AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN; "
    "AZURE_SKIP_SIGNATURE=true for a public container",
    hub.SCHEME: hub.REMEDY,
}


def _remedy(scheme: str) -> str:
    return _CREDENTIALS.get(scheme, "Check the URL, and whether the server is up")


def _lacks_bucket(error: Exception) -> bool:
    return any(code in str(error) for code in _NO_BUCKET)


@lru_cache(maxsize=64)
def _check_bucket(path: StorePath, process: int) -> None:  # noqa: ARG001  once per process
    """Raise if the bucket does not exist. A key that is not in the bucket is fine.

    Raises:
        StoreMissing: the bucket does not exist.
    """
    try:
        path.read_range(0, 1)
    except StoreMissing:
        raise
    except (FileNotFoundError, StoreError):
        pass


_check_repository = lru_cache(maxsize=64)(hub.check_repository)


class StorePath:
    """Path of an object or folder in an object store, such as `s3://bucket/folder/file`. Immutable.

    Creating one does not access the store.

    Args:
        root: scheme and bucket, such as `s3://bucket`.
        key: key of the object or folder, without slashes at either end.
        access: secret parts of the URL, which `str` leaves out.
    """

    __slots__ = ("_access", "_key", "_root")

    def __init__(self, root: str, key: str = "", access: Access = Access()) -> None:  # noqa: B008  immutable
        self._root = root
        self._key = key
        self._access = access

    # --- names, as in pathlib ---

    def __truediv__(self, name: str | PurePosixPath) -> StorePath:
        more = str(name).strip("/")
        return StorePath(self._root, f"{self._key}/{more}" if self._key else more, self._access)

    def __str__(self) -> str:
        return f"{self._root}/{self._key}" if self._key or self.scheme != hub.SCHEME else self._root

    def __repr__(self) -> str:
        return f"StorePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StorePath) and self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash((self._root, self._key))

    def __lt__(self, other: StorePath) -> bool:
        return (self._root, self._key) < (other._root, other._key)

    def __reduce__(self) -> tuple[type[StorePath], tuple[str, str, Access]]:
        return type(self), (self._root, self._key, self._access)

    @property
    def name(self) -> str:
        """Last part of the key."""
        return self._key.rsplit("/", 1)[-1]

    @property
    def parent(self) -> StorePath:
        """Parent folder."""
        return StorePath(self._root, self._key.rpartition("/")[0], self._access)

    @property
    def scheme(self) -> str:
        """URL scheme: `s3`, `gs`, `az`, `http`, `https` or `hf`."""
        return self._root.split(":", 1)[0]

    @property
    def can_be_listed(self) -> bool:
        """Whether the store can list its objects. A web server cannot, nor the hub by the addresses of its files."""
        return self.scheme not in _READ_ONLY

    @property
    def repository(self) -> hub.Repository | None:
        """Repository of the hub; None in other stores."""
        return hub.parse_repository(self._root.partition("://")[2])[0] if self.scheme == hub.SCHEME else None

    def resolve(self) -> StorePath:
        """Return the path itself: stores do not have links."""
        return self

    def absolute(self) -> StorePath:
        """Return the path itself."""
        return self

    # --- queries ---

    @contextlib.contextmanager
    def _translate_errors(self, size: int = 0) -> Iterator[ObjectStore]:
        """Yield the store, and translate its errors.

        Args:
            size: bytes that the request transfers, which decide how long it may take.

        Raises:
            FileNotFoundError: the object does not exist.
            StoreMissing: the bucket does not exist.
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

        # The causes are hidden: their text repeats the URL with its secrets.
        try:
            yield _store(self._root, self._current_access(), os.getpid(), _timeout_of(size))
        except (FileNotFoundError, NotFoundError) as error:
            if _lacks_bucket(error):
                raise self._no_bucket() from None
            raise FileNotFoundError(2, "no such object", str(self)) from None
        except PreconditionError:
            raise StoreChanged(self._replaced()) from None
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise StoreRefused(f"{self}: {self._refusal(error)}. {self._remedy()}") from None
        except NotImplementedError as error:
            raise StoreError(f"{self}: {_first_line(error)}. Use another store, or a local folder") from None
        except BaseError as error:
            if _lacks_bucket(error):
                raise self._no_bucket() from None
            if any(server in str(error) for server in _METADATA_SERVERS):
                raise StoreRefused(f"{self}: found no credentials. {self._remedy()}") from None
            reason, remedy = _fault(error, self.scheme)
            raise StoreError(f"{self}: {reason}. {remedy or self._remedy()}") from None

    def _current_access(self) -> Access:
        """Return the access; for the hub from the environment, so that a login counts from the next request on."""
        if self.scheme != hub.SCHEME:
            return self._access
        return Access(server=hub.endpoint(), token=hub.token())

    def _refusal(self, error: Exception) -> str:
        if self.scheme != hub.SCHEME:
            return _first_line(error)
        found = "the token was refused" if self._current_access().token else "access was refused without a token"
        return f"{found}, expected a public repository, or a token that may read it"

    def _remedy(self) -> str:
        return _remedy(self.scheme)

    def _no_bucket(self) -> StoreMissing:
        endpoint = {"s3": " and AWS_ENDPOINT_URL", "az": " and AZURE_STORAGE_ACCOUNT_NAME"}.get(self.scheme, "")
        return StoreMissing(
            f"{self._root}: no such bucket, expected an existing one. Check the name{endpoint}, or create the bucket"
        )

    def check_writable(self) -> None:
        """Raise if the store is read-only.

        Raises:
            OptionError: it is a web server.
        """
        if self.scheme in _READ_ONLY:
            push = " To publish on the hub, write a local folder, then gqn-data push it"
            raise OptionError(
                f"{self}: found a web server, which cannot be written to, expected a local folder or a bucket. "
                f"Write there, or work on a local copy.{push if self.scheme == hub.SCHEME else ''}"
            )

    def _endless_listing(self) -> StoreError:
        return StoreError(f"{self}: the listing does not end, expected at most {_MAX_OBJECTS:,} objects. Check the URL")

    def _replaced(self) -> str:
        return f"{self}: was replaced while it was read. Run the same command again"

    def stat(self) -> Stat:
        """Return size and version of the object.

        Raises:
            FileNotFoundError: the object does not exist.
            StoreError: the request failed.
        """
        import obstore

        try:
            with self._translate_errors() as store:
                meta = obstore.head(store, self._key)
        except FileNotFoundError:
            # The answer to HEAD does not distinguish a missing bucket from a missing object.
            if (repository := self.repository) is not None:
                access = self._current_access()
                _check_repository(repository, access.server, access.token)
            elif self.scheme not in _READ_ONLY:
                _check_bucket(StorePath(self._root, _PROBE), os.getpid())
            raise
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
            StoreMissing: the bucket does not exist.
            StoreError: the request failed, or the store cannot be listed, or the listing does not end.
        """
        import obstore

        if not self.can_be_listed:
            raise StoreError(f"{self}: a web server cannot be listed. Pass the URL of a dataset's folder")
        prefix = f"{self._key}/" if self._key else ""
        found: dict[str, int] = {}
        # A store may answer with empty pages forever, inside one call of the client. A thread can be left behind.
        with self._translate_errors(_PAGE) as store, DaemonThreadPool(1) as threads:
            pages = iter(obstore.list(store, prefix=self._key or None, chunk_size=1000))
            while True:
                try:
                    page = threads.submit(next, pages, None).result(_LISTING_TIMEOUT)
                except TimeoutError:
                    raise self._endless_listing() from None
                if not page:
                    break
                known = len(found)
                found.update((meta["path"], meta["size"]) for meta in page)
                if len(found) == known or known > _MAX_OBJECTS:
                    raise self._endless_listing()
        names = ((name.removeprefix(prefix), size) for name, size in found.items() if name.startswith(prefix))
        yield from sorted(names)

    # --- reading ---

    def read_bytes(self) -> bytes:
        """Return the bytes of the object."""
        return self.read_range(0, self.stat().st_size)

    def read_range(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, or fewer at the end of the object."""
        return self._get(offset, length) if length else b""

    def _get(self, offset: int, length: int, e_tag: str | None = None) -> bytes:
        """Return `length` bytes from `offset`, or fewer at the end; stop reading if the server sends more.

        Args:
            offset: first byte.
            length: number of bytes.
            e_tag: entity tag of the version to read; None for any.

        Raises:
            StoreChanged: the object has another entity tag.
            StoreError: the server sent more, or the request failed.
        """
        import obstore

        with self._translate_errors(length) as store:
            options: GetOptions = {"range": (offset, offset + length)}
            # The hub redirects to another host, whose tags it does not know: those of the answers are compared.
            if e_tag is not None and self.scheme != hub.SCHEME:
                options["if_match"] = e_tag
            found = obstore.get(store, self._key, options=options)
            if e_tag is not None and self.scheme == hub.SCHEME and found.meta["e_tag"] != e_tag:
                raise StoreChanged(self._replaced())
            data = bytes(next(found.stream(min_chunk_size=length), b""))
        if len(data) > length:
            raise StoreError(f"{self}: more than the {length} bytes asked for at offset {offset}. {self._remedy()}")
        return data

    def read_ranges(self, extents: list[tuple[int, int]], gap: int = 1 << 20) -> list[bytes]:
        """Return the bytes of several extents (offset, length), fetched concurrently.

        Extents at most `gap` bytes apart are fetched by one request.

        Raises:
            FileNotFoundError: the object does not exist.
            StoreChanged: the object ends before an extent begins.
            StoreError: the request failed.
        """
        import obstore

        with self._translate_errors(sum(length + gap for _, length in extents)) as store:
            starts, lengths = [offset for offset, _ in extents], [length for _, length in extents]
            try:
                parts = obstore.get_ranges(store, self._key, starts=starts, lengths=lengths, coalesce=gap)
            except BaseException as error:
                # The client panics if the object ends before an extent begins. It raises a BaseException.
                if type(error).__name__ != "PanicException":
                    raise
                raise StoreChanged(
                    f"{self}: shorter than expected, {max(map(sum, extents))} bytes or more. It was "
                    "replaced while it was read. Run the same command again"
                ) from None
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
        stat = self.stat()
        tag = e_tag or stat.e_tag
        if tag is not None and tag.startswith("W/"):  # cannot be asked for
            if tag != stat.e_tag:
                raise StoreChanged(self._replaced())
            tag = None

        def fetch(first: int) -> bytes:
            last = min(first + BLOCK, stat.st_size)
            data = self._get(first, last - first, tag)
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
            OptionError: the store is read-only.
            StoreMissing: the bucket does not exist.
            StoreError: the upload failed.
        """
        import obstore

        self.check_writable()
        if isinstance(source, bytes):
            size = len(source)
        else:
            start = source.tell()
            size = source.seek(0, os.SEEK_END) - start
            source.seek(start)
        try:
            with self._translate_errors(min(size, _UPLOADS * BLOCK)) as store:
                obstore.put(store, self._key, source, chunk_size=BLOCK, max_concurrency=_UPLOADS)
        except FileNotFoundError:
            raise self._no_bucket() from None

    def create(self, data: bytes) -> Stat | None:
        """Upload the object if it does not exist; otherwise return None.

        Raises:
            StoreMissing: the bucket does not exist.
            StoreError: the upload failed.
        """
        try:
            return self._put_if("create", data)
        except FileNotFoundError:  # nothing but the bucket can be missing
            raise self._no_bucket() from None

    def replace(self, data: bytes, version: Stat) -> Stat | None:
        """Upload the object if its current version is `version`; otherwise return None.

        Raises:
            StoreMissing: the bucket does not exist.
            StoreError: the upload failed.
        """
        mode: UpdateVersion = {}
        if version.e_tag is not None:
            mode["e_tag"] = version.e_tag
        if version.version is not None:
            mode["version"] = version.version
        try:
            return self._put_if(mode, data)
        except FileNotFoundError:
            return None

    def _put_if(self, mode: PutMode, data: bytes) -> Stat | None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        self.check_writable()
        with self._translate_errors(len(data)) as store:
            try:
                written = obstore.put(store, self._key, data, mode=mode)
            except (AlreadyExistsError, PreconditionError) as error:
                if _lacks_bucket(error):
                    raise self._no_bucket() from None
                return None
        return Stat(st_size=len(data), e_tag=written["e_tag"], version=written["version"])

    def copy_to(self, other: StorePath) -> None:
        """Copy the object within its store, without downloading it.

        Raises:
            FileNotFoundError: the object does not exist.
            StoreError: the request failed.
        """
        import obstore

        self.check_writable()
        with self._translate_errors() as store:
            obstore.copy(store, self._key, other._key)

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object."""
        import obstore

        self.check_writable()
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


@dataclass(frozen=True)
class RenderAddress:
    """Address of scenes that are rendered when they are asked for: `render:SET` or `render:SET,scenes=N,seed=S`.

    The options are separated by commas, which no shell interprets. They are validated when the scenes are opened.

    Attributes:
        scene_set: name or alias of the scene set.
        options: names and values of the options, in the order given.
    """

    scene_set: str
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return ",".join([f"{_RENDER}{self.scene_set}", *(f"{name}={value}" for name, value in self.options)])

    def absolute(self) -> RenderAddress:
        """Return the address itself: it does not depend on the working directory."""
        return self

    def bounded(self, scenes: int) -> RenderAddress:
        """Return the address with a number of scenes, unless it has one already."""
        if any(name == "scenes" for name, _ in self.options):
            return self
        return RenderAddress(self.scene_set, (*self.options, ("scenes", str(scenes))))


AnyPath = Path | StorePath
DatasetPath = AnyPath | RenderAddress
_RENDER = "render:"


def parse_dataset_path(text: str | os.PathLike[str] | StorePath | RenderAddress) -> DatasetPath:
    """Parse a `render:` address, or else a path or URL as `parse_path` does.

    Raises:
        OptionError: an option of the address is not of the form NAME=VALUE, or `parse_path` raises it.
        SourceMissing: `parse_path` raises it.
    """
    if isinstance(text, RenderAddress):
        return text
    if not isinstance(text, str) or not text.startswith(_RENDER):
        return parse_path(text)
    name, *options = text.removeprefix(_RENDER).split(",")
    pairs = [tuple(option.split("=", 1)) for option in options]
    if not name or any(len(pair) != 2 for pair in pairs) or len({pair[0] for pair in pairs}) < len(pairs):
        raise OptionError(f"{text}: expected render:SET or render:SET,scenes=N,seed=S with each option once")
    return RenderAddress(name, tuple((key, value) for key, value in pairs))


def parse_path(text: str | os.PathLike[str] | StorePath) -> AnyPath:
    """Parse a URL with a scheme of `SCHEMES`, or else a local path, in which `~` is the home folder.

    Raises:
        OptionError: the URL contains keys or a signature, or the home folder is unknown, or it is a `render:` address.
        SourceMissing: the URL has an unknown scheme, lacks a bucket, or contains `..`.
    """
    if isinstance(text, StorePath):
        return text
    if isinstance(text, str) and text.startswith(_RENDER):
        raise OptionError(
            f"{text}: its scenes are rendered on demand and not stored, expected a path or URL. To write scenes to a "
            f"disk: gqn-data render {text.removeprefix(_RENDER).split(',')[0]} --scenes N. For a folder of this name, "
            f"write ./{text}"
        )
    found = _URL.fullmatch(os.fspath(text))
    if found is None:
        return _expand_home(os.fspath(text))
    scheme, bucket, key = found[1].lower(), found[2], found[3]
    if scheme == "file":
        return Path("/" + key)
    shown = redact(os.fspath(text))
    if re.search(r"[\0-\x1f\x7f]", shown):
        raise SourceMissing(f"{shown[:200]!r}: found a control character, expected a URL on one line")
    if scheme not in SCHEMES:
        raise SourceMissing(f"{shown}: scheme is {scheme!r}, expected a path or one of {', '.join(SCHEMES)}")
    access, root = Access(), ""
    if scheme == hub.SCHEME:
        repository, key = hub.parse_repository(f"{bucket}/{key}" if key else bucket, shown)
        root = str(repository)
    elif scheme in _WEB:
        login, _, bucket = bucket.rpartition("@")
        bucket, _, query = bucket.partition("?")
        key, _, key_query = key.partition("?")
        access = Access(login=login, query=query or key_query)
        if not re.fullmatch(r"[^:]*(:\d*)?|\[[0-9A-Fa-f:.]+\](:\d*)?", bucket):
            raise SourceMissing(f"{shown}: not a host with a port. Encode / ? and # in a password: %2F %3F %23")
    elif ":" in bucket or "@" in bucket or re.search(r"\?.*=", f"{bucket}/{key}"):
        raise OptionError(f"{shown}: found keys or a signature in the URL, expected neither. {_remedy(scheme)}")
    if not bucket:
        raise SourceMissing(f"{shown}: bucket or host is missing, expected {scheme}://NAME/folder")
    parts = [part for part in key.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise SourceMissing(f"{shown}: found '..', expected the key of a folder in the store")
    return StorePath(root or f"{scheme}://{bucket}", "/".join(parts), access)


def local_path(text: str | os.PathLike[str] | StorePath, what: str) -> Path:
    """Parse a local path, in which `~` is the home folder.

    Args:
        text: the path.
        what: what needs a local disk, for the message, such as "runs are written".

    Raises:
        OptionError: it is a URL, or the home folder is unknown.
    """
    path = parse_path(text)
    if isinstance(path, StorePath):
        raise OptionError(f"{path}: found a URL, expected a local path: {what} on a local disk")
    return path


def _expand_home(text: str) -> Path:
    """Return a local path with `~` and `~NAME` replaced; `./~` is a file of that name.

    Raises:
        OptionError: the home folder is unknown.
    """
    try:
        return Path(text).expanduser() if text.startswith("~") else Path(text)
    except RuntimeError:
        name = text.partition("/")[0]
        raise OptionError(
            f"{text}: the home folder {name} is unknown, expected HOME to be set, or a user of this machine. "
            f"Set HOME, or write ./{name} for a folder of this name"
        ) from None
