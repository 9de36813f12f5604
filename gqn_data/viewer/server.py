"""The web server of a viewer: viser on this machine only, for pages that it served itself.

viser accepts web sockets from every page that a browser has open, so a page of a stranger could read the scenes and
move the viewer. `open_server` checks the origin of each web socket, and whether viser's server asks it to.
"""

from __future__ import annotations

import contextlib
import errno
import http
import ipaddress
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import rich
import viser
import websockets.asyncio.server as websockets_server

from gqn_data.errors import GQNError, OptionError

LOCAL = "127.0.0.1"
PORT = 8080

_PORTS_TRIED = 100
_SECONDS_TO_CHECK = 10.0
_ORIGINS_LOGGED = 20


class Server(viser.ViserServer):  # type: ignore[misc,unused-ignore]
    """viser's server without its public tunnel, which would show the scenes to the internet."""

    def request_share_url(self, verbose: bool = True) -> str | None:  # noqa: ARG002  viser's signature
        """Return None: pages are not shared."""
        return None


def open_server(title: str, host: str, port: int, log: Callable[[str], None]) -> Server:
    """Start the server in a thread.

    Args:
        title: title of the panel.
        host: address to listen on; 127.0.0.1 is reached from this machine only.
        port: port; the next free one is taken if it is not free.
        log: receives a line on a port or address that the user may not expect, and on refused pages.

    Raises:
        OptionError: the address is not one of this machine, or no port is free.
        GQNError: the installed viser does not let the origin be checked.
    """
    free = _free_port(host, port)
    if free != port:
        log(f"port {port} is taken: using {free}")
    if not _is_loopback(host):
        log(f"listening on {host}: anyone who reaches this machine can open the viewer, without a password")
    # viser prints its addresses and a note on stopping, which `--port` and these lines say already.
    rich.get_console().quiet = True
    with _checked_origins(host, log):
        server = Server(host=host, port=free, label=title, verbose=False)
    if not _refuses_strangers(host, server.get_port()):
        server.stop()
        raise GQNError(
            f"viser {viser.__version__} accepts pages of other sites, expected version 1.1; "
            "install it with: pip install 'viser>=1.1,<1.2'"
        )
    server.gui.configure_theme(show_share_button=False, show_logo=False, control_width="large")
    return server


def address_of(server: Server) -> str:
    """Return the address to open in a browser on this machine."""
    host = server.get_host()
    shown = LOCAL if host in ("", "0.0.0.0") else "::1" if host == "::" else host  # noqa: S104  compared, not bound
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{server.get_port()}"


def wait_for_interrupt() -> None:
    """Wait for Ctrl-C or SIGTERM."""
    stopped = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while not stopped.wait(3600):
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_own_origin(origin: str | None, asked: str | None, host: str) -> bool:
    """Return whether the page of a web socket was served by this server.

    The page's server is the one that the socket asks for, by a name of this machine: a name of a stranger may resolve
    to this machine. The port may be the one of a tunnel.

    Args:
        origin: header `Origin` of the request; browsers always send it.
        asked: header `Host` of the request: the server that the browser connects to.
        host: address that the server listens on.
    """
    try:
        parts, target = urlsplit(origin or ""), urlsplit(f"http://{asked or ''}")
        name, port = parts.hostname or "", parts.port or 80
        if parts.scheme != "http" or (name, port) != (target.hostname, target.port or 80):
            return False
    except ValueError:
        return False
    local = name == "localhost" or _is_loopback(name)
    if _is_loopback(host):
        return local
    if host not in ("", "0.0.0.0", "::"):  # noqa: S104  compared, not bound
        return name == host.lower()
    return local or _is_address(name) or name in {socket.gethostname().lower(), socket.getfqdn().lower()}


@contextlib.contextmanager
def _checked_origins(host: str, log: Callable[[str], None]) -> Iterator[None]:
    """Add the check to the server that viser starts meanwhile; an option for it is missing in viser."""
    serve = websockets_server.serve
    logged: set[str] = set()

    def checked_serve(handler: Any, address: str, port: int, *, process_request: Any = None, **options: Any) -> Any:
        def check(connection: Any, request: Any) -> Any:
            origin = request.headers.get("Origin")
            if "upgrade" in request.headers.get("Connection", "").lower() and not is_own_origin(
                origin, request.headers.get("Host"), host
            ):
                shown = repr(origin)[:100]
                if origin is not None and shown not in logged and len(logged) < _ORIGINS_LOGGED:
                    logged.add(shown)
                    log(f"refused a page of {shown}, expected the viewer's own address")
                return connection.respond(http.HTTPStatus.FORBIDDEN, "This page was not served by the viewer.\n")
            return process_request(connection, request) if process_request else None

        return serve(handler, address, port, process_request=check, **options)

    websockets_server.serve = checked_serve  # type: ignore[assignment,misc,unused-ignore]
    try:
        yield
    finally:
        websockets_server.serve = serve  # type: ignore[misc,unused-ignore]


def _refuses_strangers(host: str, port: int) -> bool:
    """Return whether the server refuses a web socket from another origin."""
    reached = LOCAL if host in ("", "0.0.0.0") else "::1" if host == "::" else host  # noqa: S104  compared, not bound
    request = (
        f"GET / HTTP/1.1\r\nHost: {reached}:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OTAxMjM0NQ==\r\n\r\n"
    )
    with socket.create_connection((reached, port), _SECONDS_TO_CHECK) as connection:
        connection.sendall(request.encode())
        return connection.recv(64).startswith(b"HTTP/1.1 403")


def _free_port(host: str, port: int) -> int:
    """Return the first free port from `port` on."""
    for candidate in range(port, min(port + _PORTS_TRIED, 1 << 16)):
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
                probe.bind(address)
                return int(probe.getsockname()[1])
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise OptionError(
                    f"cannot listen on {host}, port {candidate}: {error.strerror or error}; expected an address of "
                    "this machine and a port from 1024; pass --host and --port"
                ) from error
    raise OptionError(f"ports {port} to {candidate} are taken, expected a free one; pass another --port")


def _is_loopback(name: str) -> bool:
    return name == "localhost" or (_is_address(name) and ipaddress.ip_address(name).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
