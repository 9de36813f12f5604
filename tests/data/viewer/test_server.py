"""The server of a viewer: who may connect, which port it takes, and what it says."""

import contextlib
import socket
from urllib.request import urlopen

import pytest

pytest.importorskip("viser", reason="viser is not installed: pip install '.[viewer]'")

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from gqn_data.errors import GQNError, OptionError
from gqn_data.viewer import server as viewer_server
from gqn_data.viewer.server import address_of, is_own_origin, open_server


@contextlib.contextmanager
def opened(host="127.0.0.1", port=None):
    """Yield a server on a free port, and the lines that it logged."""
    lines = []
    server = open_server("test", host, port or free_port(), lines.append)
    try:
        yield server, lines
    finally:
        server.stop()


LOCAL, ALL, HOSTNAME = "127.0.0.1", "0.0.0.0", socket.gethostname().lower()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def join(port, origin):
    """Connect as the page of an origin does, and leave."""
    import viser

    options = {"subprotocols": [f"viser-v{viser.__version__}"], "origin": origin}
    with connect(f"ws://127.0.0.1:{port}", compression=None, **options) as socket:
        return socket.recv(timeout=10)


@pytest.mark.parametrize(
    ("host", "asked", "origin", "expected"),
    [
        (LOCAL, "127.0.0.1:8080", "http://127.0.0.1:8080", True),
        (LOCAL, "localhost:8080", "http://localhost:8080", True),
        (LOCAL, "LOCALHOST:8080", "http://localhost:8080", True),
        (LOCAL, "[::1]:8080", "http://[::1]:8080", True),
        (LOCAL, "localhost:9000", "http://localhost:9000", True),  # a tunnel with another port
        (LOCAL, "localhost", "http://localhost", True),
        (LOCAL, "localhost:8080", "http://localhost:8081", False),
        (LOCAL, "localhost:8080", "http://localhost", False),
        (LOCAL, "localhost:8080", "http://127.0.0.1:8080", False),
        (LOCAL, "localhost:8080", "https://localhost:8080", False),
        (LOCAL, "localhost:8080", "http://192.168.0.7:8080", False),
        (LOCAL, "localhost:8080", "http://example.com:8080", False),
        (LOCAL, "localhost:8080", "http://localhost.example.com:8080", False),
        (LOCAL, "localhost:8080", "http://localhost:8080@example.com", False),
        (LOCAL, "localhost:8080", "null", False),
        (LOCAL, "localhost:8080", "", False),
        (LOCAL, "localhost:8080", "http://[", False),
        (LOCAL, "localhost:8080", "http://localhost:port", False),
        (LOCAL, "localhost:8080", None, False),
        (LOCAL, None, "http://localhost:8080", False),
        (LOCAL, "[", "http://localhost:8080", False),
        (LOCAL, "example.com:8080", "http://example.com:8080", False),  # a name that was made to resolve to us
        (LOCAL, "192.168.0.7:8080", "http://192.168.0.7:8080", False),
        (ALL, "192.168.0.7:8080", "http://192.168.0.7:8080", True),
        (ALL, "localhost:8080", "http://localhost:8080", True),
        (ALL, f"{HOSTNAME}:8080", f"http://{HOSTNAME}:8080", True),
        (ALL, "localhost:8080", "http://203.0.113.6:8080", False),  # the page of a stranger's address
        (ALL, "192.168.0.7:8080", "http://192.168.0.8:8080", False),
        (ALL, "example.com:8080", "http://example.com:8080", False),
        ("192.168.0.7", "192.168.0.7:8080", "http://192.168.0.7:8080", True),
        ("192.168.0.7", "192.168.0.7:8080", "http://192.168.0.8:8080", False),
        ("192.168.0.7", "192.168.0.8:8080", "http://192.168.0.8:8080", False),
    ],
)
def test_only_pages_of_the_viewer_itself_are_its_own(host, asked, origin, expected):
    assert is_own_origin(origin, asked, host) is expected


def test_a_page_of_another_origin_is_refused_and_reported_once():
    with opened() as (server, lines):
        port = server.get_port()
        for _ in range(2):
            with pytest.raises(InvalidStatus) as caught:
                join(port, "http://stranger.example")
            assert caught.value.response.status_code == 403
        assert [line for line in lines if "stranger" in line] == [
            "refused a page of 'http://stranger.example', expected the viewer's own address"
        ]


def test_the_own_page_is_served_and_may_connect():
    with opened() as (server, lines):
        assert b"<html" in urlopen(address_of(server), timeout=10).read()
        assert join(server.get_port(), f"http://127.0.0.1:{server.get_port()}")
        assert lines == []


def test_a_viser_whose_origins_cannot_be_checked_is_refused(monkeypatch):
    monkeypatch.setattr(viewer_server, "_checked_origins", lambda host, log: contextlib.nullcontext())
    with pytest.raises(GQNError, match="accepts pages of other sites"), opened():
        pass


def test_a_taken_port_is_replaced_by_the_next_free_one_and_the_user_is_informed():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with opened(port=port) as (server, lines):
            assert server.get_port() > port
            assert lines == [f"port {port} is taken: using {server.get_port()}"]


def test_only_loopback_is_listened_on_unless_another_host_is_given():
    with opened() as (server, _), socket.socket() as other:
        other.bind(("127.0.0.2", server.get_port()))  # fails if the server listens on every address
    with opened("0.0.0.0") as (server, lines):
        assert "without a password" in lines[0]
        assert address_of(server) == f"http://127.0.0.1:{server.get_port()}"


@pytest.mark.parametrize("host", ["192.0.2.1", "name.invalid"])
def test_an_address_that_is_not_of_this_machine_is_refused(host):
    with pytest.raises(OptionError, match="cannot listen on"), opened(host):
        pass


def test_viser_shows_the_scenes_to_nobody_through_its_tunnel():
    with opened() as (server, _):
        assert server.request_share_url() is None
