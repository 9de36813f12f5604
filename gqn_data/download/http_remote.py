"""Files behind a web server: what it has, and their bytes from any place on, over `requests`.

Proxies and certificates are those of the environment, as `requests` finds them. Nothing that a server says is
believed further than `fetch` checks it. Imports `errors`, `remote`, `version`.

Sources: RFC 9110 (ranges, conditions, entity tags, Retry-After);
https://cloud.google.com/storage/docs/xml-api/reference-headers (x-goog-hash).
"""

from __future__ import annotations

import base64
import binascii
import email.utils
import http
import http.client
import re
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Self
from urllib.parse import quote, urlsplit, urlunsplit

import requests
import urllib3

from gqn_data.download.remote import RemoteFile
from gqn_data.errors import OptionError, RemoteChanged, RemoteFault, RemoteMissing, RemoteRefused
from gqn_data.version import VERSION

_BLOCK = 1 << 18  # what comes at once; a larger block leaves the cache before it is checked and written
_CONNECT = 30.0  # seconds at most to connect
_BUSY = (408, 425, 429)  # the client's faults by number, the server's by nature
_GONE = (404, 410)
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"gqn-toolkit/{VERSION}"}
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)
_LONGEST_TAG = 1000


class HTTPRemote:
    """The files below a URL. Any number of threads may use one.

    Args:
        base_url: `http://` or `https://`; may carry a user's name and password, and a query that every request gets.
        timeout: seconds without a byte after which a connection counts as dead.

    Raises:
        OptionError: that is no URL of a web server.
    """

    def __init__(self, base_url: str, *, timeout: float = 60.0) -> None:
        try:
            parts = urlsplit(base_url)
            host = parts.hostname
        except ValueError as error:
            raise OptionError(f"{base_url!r} is no URL: {error}") from error
        if parts.scheme not in ("http", "https") or not host:
            raise OptionError(f"{base_url!r} is no URL of a web server; expected http://... or https://...")
        self._parts = parts
        self._shown = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
        self._timeout = timeout
        self._own = threading.local()  # a Session serves one thread
        self._sessions: list[requests.Session] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections that nobody uses."""
        with self._lock:
            for session in self._sessions:
                session.close()

    def url(self, name: str) -> str:
        """Where a file lies, without credentials and query."""
        return f"{self._shown}/{quote(name)}" if name else self._shown

    def ask(self, name: str) -> RemoteFile | None:
        """What there is under a name; see `remote.Remote`."""
        try:
            with self._request("HEAD", name) as response:
                self._refuse(response, name)
                file = self._described(response, name)
            # Some servers know no HEAD, or tell no size there: a range of one byte tells the same.
            return file or self._ask_for_a_byte(name)
        except RemoteMissing:
            return None

    def _ask_for_a_byte(self, name: str) -> RemoteFile:
        with self._request("GET", name, {"Range": "bytes=0-0"}) as response:
            self._refuse(response, name)
            file = self._described(response, name)
        if file is None:
            raise RemoteRefused(f"{self.url(name)}: the server does not tell its size; fetch it elsewhere")
        return file

    def open(self, name: str, *, offset: int = 0, like: RemoteFile | None = None) -> HTTPBody:
        """The bytes of a file from `offset` on; see `remote.Remote`."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        condition = like.etag if offset and like is not None else None
        if condition is not None and not condition.startswith("W/"):  # a weak tag names no bytes: `fetch` compares it
            headers["If-Match"] = condition
        response = self._request("GET", name, headers)
        try:
            if response.status_code in (412, 416):
                raise RemoteChanged(f"the server answers {_status(response)}")
            self._refuse(response, name)
            file = self._described(response, name) or _file(response, name, like.size if like is not None else 0)
            begin = 0
            if response.status_code == 206:
                begin = self._range(response, name)[0]
                if file.etag is None and "If-Match" in headers:
                    file = replace(file, etag=headers["If-Match"])  # it answered under that condition
            return HTTPBody(response, self.url(name), file, begin, self._timeout)
        except BaseException:
            response.close()
            raise

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._own, "session", None)
        if session is None:
            session = self._own.session = requests.Session()
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
                timeout=(min(self._timeout, _CONNECT), self._timeout),
                allow_redirects=True,
                stream=method != "HEAD",  # which has no body, and keeps its connection only if that is read
            )
        except (requests.ConnectionError, requests.Timeout) as error:
            reason = f"{self.url(name)}: {_reason(error)}"
            if isinstance(_cause(error), ssl.SSLCertVerificationError):
                raise RemoteRefused(f"{reason}; REQUESTS_CA_BUNDLE names other certificates") from error
            raise RemoteFault(reason) from error
        except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
            raise RemoteFault(f"{self.url(name)}: {_reason(error)}") from error
        except (OSError, ValueError) as error:  # an address or a header that cannot be, redirects without end
            raise RemoteRefused(f"{self.url(name)}: {_reason(error)}; look at --base-url") from error

    def _refuse(self, response: requests.Response, name: str) -> None:
        """Returns where the answer is the file, or what HEAD tells of it."""
        status = response.status_code
        head = response.request.method == "HEAD"
        if status in (200, 206) or (head and status in (405, 501)) or (not head and status == 416):
            encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
            if encoding not in ("", "identity"):
                raise RemoteRefused(
                    f"{self.url(name)}: comes compressed ({encoding[:20]}), which nobody asked for; fetch it elsewhere"
                )
            return
        message = f"{self.url(name)}: the server answers {_status(response)}"
        if status in _GONE:
            raise RemoteMissing(message)
        if status in _BUSY or status >= 500:
            raise RemoteFault(message, _retry_after(response))
        raise RemoteRefused(message)

    def _described(self, response: requests.Response, name: str) -> RemoteFile | None:
        """What the headers say of the file; None where they do not tell its size."""
        size: int | None = None
        if response.status_code == 206:
            size = self._range(response, name)[1]
        elif response.status_code == 416:  # one byte was asked for, and the file has none
            size = 0 if response.headers.get("Content-Range", "").strip() == "bytes */0" else None
        elif response.status_code == 200:
            size = _number(response.headers.get("Content-Length"))
        return None if size is None else _file(response, name, size)

    def _range(self, response: requests.Response, name: str) -> tuple[int, int | None]:
        """Where the bytes of a partial answer begin, and the size of the file."""
        told = response.headers.get("Content-Range", "")
        match = _RANGE.fullmatch(told.strip())
        if match is None or not int(match[1]) <= int(match[2]):
            raise RemoteFault(f"{self.url(name)}: the server sends a part without saying which: {told[:60]!r}")
        size = None if match[3] == "*" else int(match[3])
        if size is not None and int(match[2]) >= size:
            raise RemoteFault(f"{self.url(name)}: the server sends a part that cannot be: {told[:60]!r}")
        return int(match[1]), size


class HTTPBody:
    """The body of an answer; see `remote.Body`."""

    def __init__(self, response: requests.Response, url: str, file: RemoteFile, offset: int, timeout: float) -> None:
        self.file = file
        self.offset = offset
        self._answer = response
        self._url = url
        self._timeout = timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._answer.close()

    def blocks(self) -> Iterator[bytes]:
        """The bytes, as they come; see `remote.Body`. What came before a fault is not lost with it."""
        try:
            while block := self._answer.raw.read1(_BLOCK, decode_content=False):
                yield block
        except urllib3.exceptions.ReadTimeoutError as error:
            raise RemoteFault(f"{self._url}: no byte for {self._timeout:g} s") from error
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            if not isinstance(_cause(error), http.client.IncompleteRead):  # an early end is the taker's to see
                raise RemoteFault(f"{self._url}: {_reason(error)}") from error


def _file(response: requests.Response, name: str, size: int) -> RemoteFile:
    """The file that the headers describe, of a size that is known."""

    def tag(header: str) -> str | None:
        text: str = response.headers.get(header, "").strip()
        return text if 0 < len(text) <= _LONGEST_TAG else None

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
    """The checksum in an `x-goog-hash` header: base64 of four bytes, the highest first."""
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
    """Seconds that the server asks to be left alone for: it gives them, or a date."""
    told = response.headers.get("Retry-After")
    seconds = _number(told)
    if seconds is not None or told is None:
        return seconds
    try:
        return max(0.0, email.utils.parsedate_to_datetime(told).timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return None


def _cause(error: BaseException) -> BaseException:
    """The innermost of the errors that libraries wrapped into each other."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        inner = [getattr(error, "reason", None), *error.args, error.__cause__, error.__context__]
        error = next((other for other in inner if isinstance(other, BaseException)), error)
    return error


def _reason(error: BaseException) -> str:
    """What is wrong, in few words: the libraries' own text repeats the address, with whatever secret is in it."""
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "the server does not answer in time"
    cause = _cause(error)
    if isinstance(cause, TimeoutError):
        return "the server does not answer in time"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(cause).__name__).lower()
    return f"the connection broke ({kind})" if isinstance(error, urllib3.exceptions.HTTPError) else kind
