"""A `Remote` over HTTP(S): descriptions and byte ranges of files on a web server, by `requests`.

Proxies and certificates are those of the environment, as `requests` finds them. Headers are validated here; `fetch`
checks the bytes.

Sources: RFC 9110 (ranges, conditions, entity tags, Retry-After);
https://cloud.google.com/storage/docs/xml-api/reference-headers (x-goog-hash).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import email.utils
import http
import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Self
from urllib.parse import quote, urlsplit, urlunsplit

import requests
import requests.adapters
import urllib3
import urllib3.connection
import urllib3.connectionpool

from gqn_data.download.remote import RemoteFile
from gqn_data.errors import OptionError, RemoteChanged, RemoteFault, RemoteMissing, RemoteRefused
from gqn_data.io.paths import redact
from gqn_data.version import VERSION

_BLOCK = 1 << 18  # bytes read at a time; a larger block leaves the CPU cache before it is checked and written
_CONNECT_TIMEOUT = 30.0  # upper bound, in seconds
_LEAST_RATE = 1000  # bytes per second; a slower connection counts as dead
_RETRYABLE = (408, 425, 429)  # numbered as client errors, but a retry may help
_MISSING = (404, 410)
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"gqn-toolkit/{VERSION}"}
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)
_MAX_TAG = 1000  # characters


class _Watch:
    """Cut a connection when one wait for it lasts too long; a context manager.

    The timeout of a socket restarts with every byte, so that an answer byte by byte would never time out.

    Args:
        sock: socket of the connection.
        seconds: longest wait.

    Attributes:
        since: time at which the current wait began; None between waits.
        has_cut: whether a wait lasted too long.
    """

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._sock = sock
        self._seconds = seconds
        self._ended = threading.Event()
        self.since: float | None = None
        self.has_cut = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._run, name="watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._seconds / 4):
            since = self.since
            if since is not None and time.monotonic() - since > self._seconds:
                self.has_cut = True
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
                return


class _TimelyAnswer:
    """Mixin of connections: all headers of an answer arrive within the timeout for reading."""

    sock: Any
    timeout: Any

    def getresponse(self) -> Any:
        """Wait for the headers.

        Raises:
            TimeoutError: they did not arrive in time.
        """
        sock = self.sock
        with _Watch(sock, self.timeout) as watch:
            watch.since = time.monotonic()
            try:
                response = super().getresponse()  # type: ignore[misc]
            except (OSError, http.client.HTTPException) as error:
                if watch.has_cut:
                    raise TimeoutError from error
                raise
        if watch.has_cut:  # a cut may look like the end of the headers
            response.close()
            raise TimeoutError
        response.watched_socket = sock
        return response


class _Connection(_TimelyAnswer, urllib3.connection.HTTPConnection):
    pass


class _SecureConnection(_TimelyAnswer, urllib3.connection.HTTPSConnection):
    pass


class _Pool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS = {"http": _Pool, "https": _SecurePool}


class _Adapter(requests.adapters.HTTPAdapter):
    """Transport of `requests` over connections with timely answers."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Make the pools of direct connections."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        """Return the pools of connections through a proxy."""
        manager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager


def _close_redirect(response: requests.Response, **_: object) -> None:
    """Close a redirecting response before `requests` reads its body, which may be endless."""
    if response.is_redirect:
        response.close()


class HTTPRemote:
    """The files below a URL; a context manager. Thread-safe.

    Args:
        base_url: `http://` or `https://`; may contain a user name and password, and a query, sent with each request.
        timeout: seconds after which a connection counts as dead if it sends nothing, or less than 1 kB per second.

    Raises:
        OptionError: `base_url` is not the URL of a web server.
    """

    def __init__(self, base_url: str, *, timeout: float = 60.0) -> None:
        try:
            parts = urlsplit(base_url)
            host = parts.hostname
        except ValueError as error:
            raise OptionError(
                f"base URL {redact(base_url)!r}: {redact(str(error))}, expected http://... or https://..."
            ) from None
        if parts.scheme not in ("http", "https") or not host:
            raise OptionError(f"base URL {redact(base_url)!r}: not a web server, expected http://... or https://...")
        self._parts = parts
        self._display_url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
        self._timeout = timeout
        self._local = threading.local()  # a Session serves one thread
        self._sessions: list[requests.Session] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            for session in self._sessions:
                session.close()

    def url(self, name: str) -> str:
        """Return the address of a file, without credentials and query."""
        return f"{self._display_url}/{quote(name)}" if name else self._display_url

    def stat(self, name: str) -> RemoteFile | None:
        """Describe a file; return None if it is missing. See `remote.Remote`."""
        try:
            with self._request("HEAD", name) as response:
                self._raise_for_status(response, name)
                file = self._parse_file(response, name)
            # Some servers do not support HEAD, or omit the size: a range of one byte gives the same headers.
            return file or self._stat_by_range(name)
        except RemoteMissing:
            return None

    def _stat_by_range(self, name: str) -> RemoteFile:
        with self._request("GET", name, {"Range": "bytes=0-0"}) as response:
            self._raise_for_status(response, name)
            file = self._parse_file(response, name)
        if file is None:
            raise RemoteRefused(f"{self.url(name)}: the server does not report the file size. Try another server")
        return file

    def open(self, name: str, *, offset: int = 0, like: RemoteFile | None = None) -> HTTPBody:
        """Open a file for reading from `offset`, if it is still the version of `like`. See `remote.Remote`."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        tag = like.etag if offset and like is not None else None
        if tag is not None and not tag.startswith("W/"):  # weak tags never match in If-Match; `fetch` compares them
            headers["If-Match"] = tag
        response = self._request("GET", name, headers)
        try:
            if response.status_code in (412, 416):
                raise RemoteChanged(f"the server answers {_status(response)}")
            self._raise_for_status(response, name)
            file = self._parse_file(response, name) or _file(response, name, like.size if like is not None else 0)
            first = 0
            if response.status_code == 206:
                first = self._content_range(response, name)[0]
                if file.etag is None and "If-Match" in headers:
                    file = replace(file, etag=headers["If-Match"])  # the response met that condition
            return HTTPBody(response, self.url(name), file, first, self._timeout)
        except BaseException:
            response.close()
            raise

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            for scheme in ("http://", "https://"):
                session.mount(scheme, _Adapter())
            with self._lock:
                self._sessions.append(session)
        return session

    def _request(self, method: str, name: str, headers: dict[str, str] | None = None) -> requests.Response:
        parts = self._parts
        address = urlunsplit((parts.scheme, parts.netloc, f"{parts.path.rstrip('/')}/{quote(name)}", parts.query, ""))
        try:
            return self._session().request(
                method,
                address,
                headers={**_HEADERS, **(headers or {})},
                timeout=(min(self._timeout, _CONNECT_TIMEOUT), self._timeout),
                allow_redirects=True,
                hooks={"response": _close_redirect},
                stream=method != "HEAD",  # the connection of a HEAD is reused only if its empty body is read
            )
        except (requests.ConnectionError, requests.Timeout) as error:
            reason = f"{self.url(name)}: {_reason(error)}"
            if isinstance(_root_cause(error), ssl.SSLCertVerificationError):
                raise RemoteRefused(f"{reason}. Set REQUESTS_CA_BUNDLE to trust other certificates") from error
            raise RemoteFault(reason) from error
        except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
            raise RemoteFault(f"{self.url(name)}: {_reason(error)}") from error
        except (OSError, ValueError) as error:  # an invalid address or header, or too many redirects
            raise RemoteRefused(f"{self.url(name)}: {_reason(error)}. Check --base-url") from error

    def _raise_for_status(self, response: requests.Response, name: str) -> None:
        """Raise unless the response is the file, a part of it, or its headers."""
        status = response.status_code
        head = response.request.method == "HEAD"
        if status in (200, 206) or (head and status in (405, 501)) or (not head and status == 416):
            encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
            if encoding not in ("", "identity"):
                raise RemoteRefused(
                    f"{self.url(name)}: compressed ({encoding[:20]}), expected identity encoding. Try another server"
                )
            return
        message = f"{self.url(name)}: the server answers {_status(response)}"
        if status in _MISSING:
            raise RemoteMissing(message)
        if status in _RETRYABLE or status >= 500:
            raise RemoteFault(message, _retry_after(response))
        raise RemoteRefused(message)

    def _parse_file(self, response: requests.Response, name: str) -> RemoteFile | None:
        """Return the file that the headers describe; None if they do not give its size."""
        size: int | None = None
        if response.status_code == 206:
            size = self._content_range(response, name)[1]
        elif response.status_code == 416:  # the range of one byte of an empty file
            size = 0 if response.headers.get("Content-Range", "").strip() == "bytes */0" else None
        elif response.status_code == 200:
            size = _number(response.headers.get("Content-Length"))
        return None if size is None else _file(response, name, size)

    def _content_range(self, response: requests.Response, name: str) -> tuple[int, int | None]:
        """Return the first byte of a partial response, and the size of the file if the server gives it."""
        header = response.headers.get("Content-Range", "")
        match = _RANGE.fullmatch(header.strip())
        if match is None or not int(match[1]) <= int(match[2]):
            raise RemoteFault(f"{self.url(name)}: Content-Range {header[:60]!r}, expected 'bytes FIRST-LAST/SIZE'")
        size = None if match[3] == "*" else int(match[3])
        if size is not None and int(match[2]) >= size:
            raise RemoteFault(f"{self.url(name)}: Content-Range {header[:60]!r} ends after the file")
        return int(match[1]), size


class HTTPBody:
    """The body of a response. See `remote.Body`."""

    def __init__(self, response: requests.Response, url: str, file: RemoteFile, offset: int, timeout: float) -> None:
        self.file = file
        self.offset = offset
        self._response = response
        self._url = url
        self._timeout = timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes as they arrive; those before a fault are yielded before it is raised. See `remote.Body`."""
        raw: Any = self._response.raw
        waited, count = 0.0, 0  # only time spent waiting counts: the caller may be slow as well
        try:
            with _Watch(raw.watched_socket, self._timeout) as watch:
                while True:
                    start = watch.since = time.monotonic()
                    block = raw.read1(_BLOCK, decode_content=False)
                    waited, count = waited + (time.monotonic() - start), count + len(block)
                    watch.since = None
                    if watch.has_cut:
                        raise self._is_dead()
                    if not block:
                        return
                    yield block
                    if waited > self._timeout:
                        if count < _LEAST_RATE * waited:
                            raise self._is_dead()
                        waited, count = 0.0, 0
        except urllib3.exceptions.ReadTimeoutError as error:
            raise self._is_dead() from error
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            if watch.has_cut:
                raise self._is_dead() from error
            if not isinstance(_root_cause(error), http.client.IncompleteRead):  # the caller counts the bytes
                raise RemoteFault(f"{self._url}: {_reason(error)}") from error

    def _is_dead(self) -> RemoteFault:
        return RemoteFault(f"{self._url}: less than {_LEAST_RATE / 1000:g} kB/s for {self._timeout:g} s")


def _file(response: requests.Response, name: str, size: int) -> RemoteFile:
    """Return the file that the headers describe, for a known size."""

    def tag(header: str) -> str | None:
        text: str = response.headers.get(header, "").strip()
        return text if 0 < len(text) <= _MAX_TAG else None

    crc = _crc32c(response.headers.get("x-goog-hash", ""))
    return RemoteFile(name=name, size=size, etag=tag("ETag"), modified=tag("Last-Modified"), crc32c=crc)


def _status(response: requests.Response) -> str:
    try:
        return f"{response.status_code} {http.HTTPStatus(response.status_code).phrase}"
    except ValueError:
        return str(response.status_code)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and _NUMBER.fullmatch(text.strip()) else None


def _crc32c(header: str) -> int | None:
    """Parse the checksum of an `x-goog-hash` header: base64 of four bytes, big-endian."""
    for part in header.split(","):
        kind, _, value = part.strip().partition("=")
        if kind == "crc32c":
            try:
                data = base64.b64decode(value, validate=True)
            except binascii.Error:
                return None
            return int.from_bytes(data, "big") if len(data) == 4 else None
    return None


def _retry_after(response: requests.Response) -> float | None:
    """Parse `Retry-After` to seconds; the header holds seconds or a date."""
    header = response.headers.get("Retry-After")
    seconds = _number(header)
    if seconds is not None or header is None:
        return seconds
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return None


def _root_cause(error: BaseException) -> BaseException:
    """Return the innermost of nested errors."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        inner = [getattr(error, "reason", None), *error.args, error.__cause__, error.__context__]
        error = next((other for other in inner if isinstance(other, BaseException)), error)
    return error


def _reason(error: BaseException) -> str:
    """Describe an error in a few words. The libraries' text is not used: it contains the URL with its secrets."""
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "the server does not answer in time"
    cause = _root_cause(error)
    if isinstance(cause, TimeoutError):
        return "the server does not answer in time"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(cause).__name__).lower()
    return f"the connection broke ({kind})" if isinstance(error, urllib3.exceptions.HTTPError) else kind
