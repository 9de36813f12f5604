"""HTTP server for a folder, with ranges and injected faults.

    with FaultServer(folder) as server:
        server.next(Fault(cut=100))                     # the next response with file bytes ends after 100 of them
        server.next(Fault(status=503), path="a/b")      # the next request for this file, HEAD or GET
        server.always(Fault(status=404), path="a/c")
        ... server.url ... server.asked ...

For tests only: it reads complete files into memory, and does not import the project.
"""

import base64
import contextlib
import hashlib
import re
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import crc32c


@dataclass(frozen=True)
class Fault:
    """Fault of one response. Fields at their defaults leave the response correct.

    Attributes:
        status: status sent instead of the file.
        headers: headers to add or replace; None removes a header.
        cut: number of bytes of the body after which the connection is closed cleanly.
        reset: number of bytes of the body after which the connection is reset; bytes in flight may be lost.
        stall: number of bytes of the body after which the server stops sending.
        flip: offset of a byte in the file to change.
        more: bytes sent after the file, without a Content-Length, since a client would stop there.
        fewer: number of bytes missing at the end, as the headers state.
        ignore_range: whether to send the complete file for a range request.
        shift: offset of the start of a range from the requested one, as its Content-Range states.
        unsized: whether to omit Content-Length, so that the connection ends the body.
        content: bytes served instead of the file, with matching entity tag and headers.
        only_get: whether HEAD is answered correctly.
    """

    status: int | None = None
    headers: dict = field(default_factory=dict)
    cut: int | None = None
    reset: int | None = None
    stall: int | None = None
    flip: int | None = None
    more: bytes = b""
    fewer: int = 0
    ignore_range: bool = False
    shift: int = 0
    unsized: bool = False
    content: bytes | None = None
    only_get: bool = False

    @property
    def concerns_head(self):
        """Whether a response to HEAD, which lacks a body, shows the fault."""
        return not self.only_get and (self.status is not None or bool(self.headers) or self.content is not None)


class Asked(NamedTuple):
    """Request received, and the status of its response."""

    method: str
    path: str
    headers: dict
    status: int
    query: str = ""

    @property
    def start(self):
        """First byte of the requested range; 0 without a range."""
        match = re.fullmatch(r"bytes=(\d+)-\d*", self.headers.get("Range", ""))
        return int(match[1]) if match else 0


class FaultServer:
    """Server of a folder on 127.0.0.1.

    Args:
        folder: folder to serve.
        tags: how versions are identified: `strong` or `weak` entity tags, `modified` (only Last-Modified), or `none`.
        checksums: whether to send `x-goog-hash`.
        heads: whether HEAD is supported.
        pace: (bytes, seconds): block size, and pause after each block.
    """

    def __init__(self, folder, *, tags="strong", checksums=False, heads=True, pace=None):
        self.folder = Path(folder)
        self.tags = tags
        self.checksums = checksums
        self.heads = heads
        self.pace = pace
        self.asked = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._next = []
        self._always = {}
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        if self.closing.is_set():
            return
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def next(self, *faults, path=None):
        """Queue faults for the next responses, one per response; None is a correct response.

        Faults of a body wait for the next GET. Until then HEAD is answered correctly.

        Args:
            faults: faults in order.
            path: file they apply to; None for any file.
        """
        with self._lock:
            self._next += [(path, fault) for fault in faults]

    def always(self, fault, *, path=None):
        """Set the fault of every response for a path, or for all paths; None removes it."""
        with self._lock:
            self._always[path] = fault

    def forget(self):
        """Remove all faults and all recorded requests."""
        with self._lock:
            self._next.clear()
            self._always.clear()
            self.asked.clear()

    def gets(self, path=None):
        """Return the GET requests received, for one path or all."""
        return [asked for asked in self.asked if asked.method == "GET" and path in (None, asked.path)]

    def fault_of(self, method, path):
        with self._lock:
            for index, (wanted, fault) in enumerate(self._next):
                if wanted in (None, path):
                    if method == "HEAD" and not (fault is not None and fault.concerns_head):
                        return Fault()  # the fault waits for a request that shows it
                    del self._next[index]
                    return fault or Fault()
            always = self._always.get(path) or self._always.get(None)
        return always if always is not None and (method == "GET" or always.concerns_head) else Fault()

    def note(self, *asked):
        with self._lock:
            self.asked.append(Asked(*asked))


def goog_hash(data):
    """Return the `x-goog-hash` header, in which Google's storage sends the checksums of an object."""
    crc = base64.b64encode(crc32c.crc32c(data).to_bytes(4, "big")).decode()
    return f"crc32c={crc},md5={base64.b64encode(hashlib.md5(data).digest()).decode()}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def shutdown_request(self, request):
        """Close a connection that must be reset without a clean shutdown."""
        if struct.unpack("ii", request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))[0]:
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def handle_error(self, request, client_address):
        """Report errors other than lost connections, which many tests cause."""
        import sys

        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        owner = self.server.owner
        path = unquote(urlsplit(self.path).path).lstrip("/")  # a proxy receives complete URLs
        fault = owner.fault_of(self.command, path)
        status, headers, body = self._good(path, fault)
        if self.command == "HEAD" and not owner.heads:
            status, headers, body = 405, {}, b""
        if fault.status is not None:
            status, body = fault.status, b"no"
            headers = {}
        if fault.unsized or fault.more:
            headers.pop("Content-Length", None)
            self.close_connection = True
        else:
            headers.setdefault("Content-Length", len(body))
        headers.update(fault.headers)
        headers = {name: value for name, value in headers.items() if value is not None}
        owner.note(self.command, path, dict(self.headers), status, urlsplit(self.path).query)
        if self.close_connection:
            headers["Connection"] = "close"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()
        if self.command == "GET":
            self._send(body + fault.more, fault)

    def _good(self, path, fault):
        """Return the response for the file, after applying the faults of its content and range."""
        owner = self.server.owner
        data = fault.content
        if data is None:
            try:
                data = (owner.folder / path).read_bytes()
            except OSError:
                return 404, {}, b"not there"
        digest = hashlib.sha256(data).hexdigest()[:16]
        stamp = int(digest, 16) % 1_500_000_000  # a date that depends on the bytes
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        if owner.tags == "strong":
            headers["ETag"] = f'"{digest}"'
        if owner.tags == "weak":
            headers["ETag"] = f'W/"{digest}"'
        if owner.tags in ("strong", "modified"):
            headers["Last-Modified"] = formatdate(stamp, usegmt=True)
        if owner.checksums:
            headers["x-goog-hash"] = goog_hash(data)
        condition = self.headers.get("If-Match")
        if condition is not None and condition not in ("*", headers.get("ETag")):
            return 412, headers, b"changed"
        size = len(data)
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last, status = 0, size - 1, 200
        if match and not fault.ignore_range:
            first, last = int(match[1]), min(size - 1, int(match[2] or size - 1))
            if first >= size:
                return 416, {**headers, "Content-Range": f"bytes */{size}"}, b""
            first, status = max(0, first + fault.shift), 206
            last -= min(fault.fewer, max(0, last - first))
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        if fault.flip is not None and fault.flip < size:
            data = data[: fault.flip] + bytes([data[fault.flip] ^ 0x10]) + data[fault.flip + 1 :]
        body = data[first : last + 1]
        if status == 200 and fault.fewer:
            body = body[: -fault.fewer]
        return status, headers, body

    def _send(self, body, fault):
        ends = [end for end in (fault.cut, fault.reset, fault.stall) if end is not None]
        body = body[: min(ends)] if ends else body
        block, pause = self.server.owner.pace or (max(1, len(body)), 0)
        for at in range(0, len(body), block):
            self.wfile.write(body[at : at + block])
            self.wfile.flush()
            if pause:
                time.sleep(pause)
        if fault.stall is not None:
            self._wait_for_the_client_to_leave()
        if fault.reset is not None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if ends:
            self.close_connection = True
            if fault.reset is None:
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)

    def _wait_for_the_client_to_leave(self):
        while not self.server.owner.closing.is_set():
            if select.select([self.connection], [], [], 0.02)[0] and not self.connection.recv(1, socket.MSG_PEEK):
                return
