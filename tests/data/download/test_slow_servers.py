"""Servers that send too slowly or without end are given up like dead ones, after a bounded number of attempts."""

import itertools
import time

import pytest
from raw_server import head_of, raw_server, slowly

from gqn_data.download.fetch import RetryPolicy, fetch_file
from gqn_data.download.http_remote import HTTPRemote
from gqn_data.download.remote import RemoteFile, stat_file
from gqn_data.errors import FetchError

SIZE = 400
TIMEOUT = 0.4  # seconds
KNOWN = RemoteFile(name="one", size=SIZE, etag='"1"')
HOLDS = "download gives up after its attempts, with one line that names the server"
BODY = {"Content_Length": SIZE, "ETag": '"1"'}
CHUNKED = {"Transfer_Encoding": "chunked", "ETag": '"1"'}


def sized(request):
    return head_of(Content_Length=SIZE, ETag='"1"') if request.startswith("HEAD") else b""


ANSWERS = {
    "a body byte by byte": lambda request: (
        [sized(request)] if sized(request) else itertools.chain([head_of(**BODY)], slowly(b"a" * SIZE, 0.1))
    ),
    "a status line byte by byte": lambda _: slowly(b"HTTP/1.1 200 " + b"O" * SIZE, 0.1),
    "headers byte by byte": lambda _: itertools.chain([b"HTTP/1.1 200 OK\r\n"], slowly(b"X: " + b"y" * SIZE, 0.1)),
    "headers without end": lambda _: itertools.chain([b"HTTP/1.1 200 OK\r\n"], slowly(b"X:y\r\n" * SIZE, 0.02)),
    "interim answers without end": lambda _: itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a chunk's size byte by byte": lambda request: (
        [sized(request)] if sized(request) else itertools.chain([head_of(**CHUNKED), b"1"], slowly(b"0" * SIZE, 0.1))
    ),
    "trailers without end": lambda request: (
        [sized(request)]
        if sized(request)
        else itertools.chain([head_of(**CHUNKED), b"1\r\na\r\n0\r\n"], itertools.repeat(b"X: y\r\n"))
    ),
    "chunks without end": lambda request: (
        [sized(request)]
        if sized(request)
        else itertools.chain([head_of(**CHUNKED)], itertools.repeat(b"10\r\n" + b"a" * 16 + b"\r\n"))
    ),
    "redirects without end": lambda _: [head_of("302 Found", Location="/again/one", Content_Length=0)],
    "a redirect with a body without end": lambda _: itertools.chain(
        [head_of("302 Found", Location="/again/one", Content_Length=10**12)], itertools.repeat(b"a" * 1000)
    ),
    "a byte per connection": lambda request: [sized(request) or head_of(**BODY) + b"a"],
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_slow_or_endless_answer_is_given_up(kind, tmp_path, faults):
    requests = []

    def answer(request):
        requests.append(request)
        return ANSWERS[kind](request)

    retry = RetryPolicy(attempts=3, restarts=2, sleep=lambda _: None)
    with (
        raw_server(answer) as url,
        HTTPRemote(url, timeout=TIMEOUT) as remote,
        pytest.raises(FetchError, match=f"^{url}/one: "),
    ):
        fetch_file(remote, "one", tmp_path / "one", known=KNOWN, retry=retry)
    assert len(requests) < 100
    assert not (tmp_path / "one").exists()
    faults.record("found in use: a server that sends slowly or without end", holds=HOLDS, tries=1, survived=1)


@pytest.mark.parametrize("kind", ["a status line byte by byte", "headers byte by byte", "redirects without end"])
def test_a_description_that_comes_slowly_is_given_up(kind, faults):
    with (
        raw_server(ANSWERS[kind]) as url,
        HTTPRemote(url, timeout=TIMEOUT) as remote,
        pytest.raises(FetchError, match=f"^{url}/one: "),
    ):
        stat_file(remote, "one", retry=RetryPolicy(attempts=2, sleep=lambda _: None))
    faults.record("found in use: a server that sends slowly or without end", holds=HOLDS, tries=1, survived=1)


def test_a_slow_reader_does_not_make_the_server_look_slow(tmp_path):
    # Time spent between blocks is ours. The server has long sent everything.
    with raw_server(lambda _: [head_of(**BODY), b"a" * SIZE]) as url, HTTPRemote(url, timeout=TIMEOUT) as remote:
        waits = iter([1.0] + [0.0] * SIZE)
        got = b""
        with remote.open("one") as body:
            for block in body.blocks():
                time.sleep(next(waits))
                got += block
    assert got == b"a" * SIZE
