"""Fetching one remote file: whatever the server does, the right bytes in the end, or an error and no file."""

import base64
import json
import random
import shutil
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import crc32c
import pytest
from fault_server import Fault, FaultServer, goog_hash
from hypothesis import given, settings
from hypothesis import strategies as st

from gqn_data.download import partial_file
from gqn_data.download.fetch import RemoteFile, RetryPolicy, fetch_file
from gqn_data.download.http_remote import HTTPRemote
from gqn_data.download.partial_file import PartialFile
from gqn_data.download.remote import ask
from gqn_data.errors import (
    CorruptRecord,
    FetchError,
    FetchStopped,
    NoSpace,
    OptionError,
    RemoteDamaged,
    RemoteFault,
    RemoteMissing,
    RemoteRefused,
)
from gqn_data.io import strict_json

NAME = "set/train/one.bin"
DATA = random.Random(1).randbytes(300_000)
OTHER = random.Random(2).randbytes(300_000)


class Waits(list):
    """A patience that waits not at all, and what it would have waited."""

    def patience(self, **options):
        return RetryPolicy(sleep=self.append, **options)


@pytest.fixture
def waits():
    return Waits()


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "served" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    return tmp_path / "served"


@pytest.fixture
def server(folder):
    with FaultServer(folder) as server:
        yield server


@pytest.fixture
def target(tmp_path):
    return tmp_path / "fetched" / "one.bin"


@pytest.fixture
def get(server, target, waits):
    """Fetches the file from the server, and lets go of every connection."""

    def fetch_it(*, base=None, timeout=60, **options):
        options.setdefault("patience", waits.patience())
        with HTTPRemote(base or server.url, timeout=timeout) as remote:
            return fetch_file(remote, options.pop("name", NAME), target, **options)

    return fetch_it


def left(target):
    """The names of the files that lie beside the target, and the target's."""
    return sorted(path.name for path in target.parent.iterdir()) if target.parent.exists() else []


def leave_part(server, target, size, data=DATA, **note):
    """What a killed run leaves of a file of the server's: so many bytes, and the note of what they are part of."""
    with HTTPRemote(server.url) as remote:
        part = PartialFile(target, remote.url(NAME))
        part.take_up(replace(remote.ask(NAME), **note))
        part.write(data[:size])
        part.end()
    server.asked.clear()


# What a good server gives.


@pytest.mark.parametrize("tags", ["strong", "weak", "modified", "none"])
@pytest.mark.parametrize("checksums", [False, True])
def test_a_file_is_fetched_whole(tags, checksums, server, get, target, waits):
    server.tags, server.checksums = tags, checksums
    came = []
    found = get(progress=came.append)
    assert target.read_bytes() == DATA
    assert left(target) == ["one.bin"]
    assert found.crc32c == crc32c.crc32c(DATA)
    assert (found.path, found.received, found.resumed_at) == (target, len(DATA), 0)
    assert sum(came) == len(DATA)
    assert found.file.crc32c == (crc32c.crc32c(DATA) if checksums else None)
    assert [asked.method for asked in server.asked] == ["HEAD", "GET"]
    assert waits == []


@pytest.mark.parametrize("size", [0, 1, 1 << 18, (1 << 18) + 1])
def test_files_of_any_size_are_fetched(size, folder, server, get, target):
    (folder / NAME).write_bytes(DATA[:size])
    get()
    assert target.read_bytes() == DATA[:size]


def test_an_empty_file_of_a_server_that_knows_no_head_is_fetched(folder, server, get, target):
    server.heads = False
    (folder / NAME).write_bytes(b"")
    get()
    assert target.read_bytes() == b""


def test_nothing_is_asked_in_compressed_form(server, get):
    get()
    assert {asked.headers["Accept-Encoding"] for asked in server.asked} == {"identity"}


def test_one_connection_serves_a_thread(folder, server):
    for number in range(5):
        (folder / f"{number}").write_bytes(DATA)
    with HTTPRemote(server.url) as remote:
        for number in range(5):
            assert remote.ask(f"{number}").size == len(DATA)
            with remote.open(f"{number}") as body:
                assert b"".join(body.blocks()) == DATA
        assert len(remote._sessions) == 1
        (adapter,) = {remote._sessions[0].get_adapter(server.url)}
        (pool,) = (adapter.poolmanager.pools[key] for key in adapter.poolmanager.pools.keys())  # noqa: SIM118
        assert pool.num_connections == 1


def test_a_server_that_knows_no_head_is_asked_for_one_byte(server, get, target):
    server.heads = False
    get()
    assert target.read_bytes() == DATA
    assert [asked.headers.get("Range") for asked in server.asked] == [None, "bytes=0-0", None]


def test_redirects_are_followed(folder, server, get, target, tmp_path):
    with FaultServer(folder) as other:
        server.always(Fault(status=302, headers={"Location": f"{other.url}/{NAME}"}))
        get()
    assert target.read_bytes() == DATA
    assert [asked.method for asked in other.asked] == ["HEAD", "GET"]


def test_redirects_without_end_are_refused_at_once(server, get, target, waits):
    server.always(Fault(status=302, headers={"Location": f"/{NAME}"}))
    with pytest.raises(RemoteRefused, match="too many redirects"):
        get()
    assert waits == []
    assert left(target) == []


def test_names_with_odd_letters_are_fetched(folder, server, get, target):
    odd = "a b%2F?#\u00e9.bin"
    (folder / odd).write_bytes(OTHER)
    get(name=odd)
    assert target.read_bytes() == OTHER


def test_the_proxy_of_the_environment_is_used(server, get, target, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    get(base="http://bucket.invalid")
    assert target.read_bytes() == DATA
    assert {asked.headers["Host"] for asked in server.asked} == {"bucket.invalid"}


# Connections that break.

BREAKS = {
    "cut": Fault(cut=100_000),
    "reset": Fault(reset=100_000),
    "cut before the first byte": Fault(cut=0),
    "reset before the first byte": Fault(reset=0),
    "a body that ends early, as announced": Fault(fewer=1000),
    "503": Fault(status=503),
    "500": Fault(status=500),
    "429": Fault(status=429),
    "408": Fault(status=408),
    "another part than was asked for": Fault(shift=7),
    "a part without a place": Fault(headers={"Content-Range": None}),
    "a part with a place that is none": Fault(headers={"Content-Range": "bytes five-nine/12"}),
    "a part that ends before it begins": Fault(headers={"Content-Range": f"bytes 5000-4999/{len(DATA)}"}),
    "a part beyond the end": Fault(headers={"Content-Range": f"bytes 5000-{len(DATA)}/{len(DATA)}"}),
}


@pytest.mark.parametrize("fault", BREAKS.values(), ids=BREAKS)
def test_a_broken_connection_is_resumed_where_it_broke(fault, server, get, target, waits):
    server.next(Fault(cut=5000), fault)
    get()
    assert target.read_bytes() == DATA
    assert left(target) == ["one.bin"]
    ranges = [asked.start for asked in server.gets()]
    assert ranges[:2] == [0, 5000]
    assert ranges == sorted(ranges)  # nothing twice
    assert len(ranges) == 3
    assert len(waits) == len(server.gets()) - 1


def test_what_came_before_a_cut_is_not_fetched_again(server, get):
    server.next(Fault(cut=5000), Fault(cut=7), Fault(cut=200_000))
    found = get()
    assert [asked.start for asked in server.gets()] == [0, 5000, 5007, 205_007]
    assert found.received == len(DATA)


def test_a_stall_ends_in_another_try(server, get, target):
    server.next(Fault(stall=70_000), Fault(stall=0))
    said = []
    get(timeout=0.2, tell=said.append)
    assert target.read_bytes() == DATA
    assert [asked.start for asked in server.gets()] == [0, 70_000, 70_000]
    assert "no byte for 0.2 s; trying again in" in said[0]


def test_a_server_that_is_not_there_is_given_up(get, target, waits):
    with FaultServer(target.parent) as gone:
        url = gone.url
    with pytest.raises(FetchError, match=r"Connection refused; 3 tries brought nothing more; .*run the same command"):
        get(base=url, patience=waits.patience(tries=3))
    assert len(waits) == 2
    assert left(target) == []


def test_tries_that_bring_bytes_do_not_count(server, get, target, waits):
    server.next(*[Fault(cut=10_000)] * 20)
    get(patience=waits.patience(tries=2))
    assert target.read_bytes() == DATA
    assert len(waits) == 20


def test_tries_that_bring_nothing_are_counted_and_the_part_is_kept(server, get, target, waits):
    server.next(Fault(cut=10_000))
    server.next(*[Fault(cut=0)] * 3)
    with pytest.raises(FetchError, match=r"ended at byte 10000 of 300000; 3 tries brought nothing more"):
        get(patience=waits.patience(tries=3))
    assert left(target) == ["one.bin.part", "one.bin.part.json"]
    server.forget()
    found = get()
    assert target.read_bytes() == DATA
    assert found.resumed_at == 10_000
    assert [asked.start for asked in server.gets()] == [10_000]


def test_the_same_bytes_over_and_over_are_no_progress(server, get, target, waits):
    server.always(Fault(cut=50_000, ignore_range=True))
    with pytest.raises(FetchError, match="tries brought nothing more"):
        get(patience=waits.patience(tries=5))
    assert len(server.gets()) == 6  # the first one brought something
    assert not target.exists()


def test_waits_double_and_differ_by_chance(server, get, waits):
    server.next(*[Fault(status=500)] * 7)
    get(patience=waits.patience(first_wait=1, most_wait=20, chance=lambda: 0.0))
    assert waits == [1, 2, 4, 8, 16, 20, 20]
    assert RetryPolicy(chance=lambda: 1.0).wait(1, None) == 0.5


@pytest.mark.parametrize(("told", "expected"), [("7", 7), ("100000", 50), ("0", 1), ("soon", 1), ("-5", 1), (None, 1)])
@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_for_time_gets_it_within_a_bound(told, expected, status, server, get, waits):
    server.next(Fault(status=status, headers={"Retry-After": told}))
    get(patience=waits.patience(first_wait=1, most_told=50, chance=lambda: 0.0))
    assert waits == [expected]


def test_a_server_may_ask_for_time_by_a_date(server, get, waits):
    later = datetime.now(UTC) + timedelta(seconds=40)
    server.next(Fault(status=503, headers={"Retry-After": format_datetime(later, usegmt=True)}))
    get()
    assert 30 <= waits[0] <= 40


def test_each_fault_that_is_passed_over_is_told(server, get):
    server.next(Fault(status=503), Fault(cut=1000))
    said = []
    get(tell=said.append, patience=RetryPolicy(sleep=lambda _: None, chance=lambda: 0.0))
    assert said == [
        f"{server.url}/{NAME}: the server answers 503 Service Unavailable; trying again in 1 s",
        f"{server.url}/{NAME}: the connection ended at byte 1000 of 300000; trying again in 1 s",
    ]


# Answers that are final.


def test_a_file_that_is_not_there_is_none_to_ask_for_and_an_error_to_fetch(get, server, target, waits):
    with HTTPRemote(server.url) as remote:
        assert ask(remote, "set/other") is None
    with pytest.raises(RemoteMissing, match=f"{server.url}/set/other: not there"):
        get(name="set/other")
    assert waits == []
    assert left(target) == []


@pytest.mark.parametrize("status", [401, 403, 400, 451])
def test_a_refusal_is_told_at_once(status, server, get, target, waits):
    server.always(Fault(status=status))
    with pytest.raises(RemoteRefused, match=f"{NAME}: the server answers {status}"):
        get()
    assert waits == []
    assert left(target) == []


def test_a_file_that_goes_away_meanwhile_is_missing(server, get, target):
    server.next(Fault(status=410), path=NAME)
    with HTTPRemote(server.url) as remote:
        known = RemoteFile(name=NAME, size=len(DATA))
        with pytest.raises(RemoteMissing, match="410"):
            fetch_file(remote, NAME, target, known=known)
    assert not target.exists()


def test_bytes_that_come_compressed_are_refused(server, get, target):
    server.always(Fault(headers={"Content-Encoding": "gzip"}))
    with pytest.raises(RemoteRefused, match="compressed"):
        get()
    assert not target.exists()


def test_a_file_whose_size_nobody_tells_is_refused(server, get, target):
    server.always(Fault(unsized=True, headers={"Content-Length": None, "Content-Range": None}, ignore_range=True))
    server.heads = False
    with pytest.raises(RemoteRefused, match="does not tell its size"):
        get()


@pytest.mark.parametrize(
    "url", ["", "data", "/data", "ftp://host/x", "file:///etc", "http://", "http://[::1", "s3://b"]
)
def test_what_is_no_url_of_a_web_server_is_refused(url):
    with pytest.raises(OptionError, match="no URL"):
        HTTPRemote(url)


def test_a_port_that_cannot_be_is_refused(get, target, waits):
    with pytest.raises(RemoteRefused, match="look at --base-url"):
        get(base="http://127.0.0.1:99999")
    assert waits == []


def test_secrets_of_the_url_are_sent_and_not_shown(server, get):
    base = server.url.replace("http://", "http://user:secret1@") + "?sig=secret2"
    server.next(Fault(status=503), Fault(status=403), path=NAME)
    said = []
    with pytest.raises(RemoteRefused) as refused:
        get(base=base, tell=said.append)
    user = server.asked[0].headers["Authorization"].split()[1]
    assert base64.b64decode(user) == b"user:secret1"
    assert server.asked[0].query == "sig=secret2"
    server.__exit__()
    with HTTPRemote(base) as remote, pytest.raises(RemoteFault) as broken:
        remote.ask(NAME)
    shown = " ".join([*said, str(refused.value), str(broken.value), remote.url(NAME)])
    assert len(said) == 1
    assert "secret" not in shown
    assert "user" not in shown


# Bytes that are not the file's.


def test_wrong_bytes_are_fetched_again(server, get, target, waits):
    server.checksums = True
    server.next(Fault(flip=1234))
    said = []
    found = get(tell=said.append)
    assert target.read_bytes() == DATA
    assert len(server.gets()) == 2
    assert len(waits) == 1
    assert found.received == 2 * len(DATA)
    wrong = bytes([*DATA[:1234], DATA[1234] ^ 0x10, *DATA[1235:]])
    assert f"CRC32C is {crc32c.crc32c(wrong):08x}, expected {crc32c.crc32c(DATA):08x}; begun anew" in said[0]


def test_wrong_bytes_again_and_again_are_an_error_and_no_file(server, get, target, waits):
    server.checksums = True
    server.always(Fault(flip=1234))
    with pytest.raises(RemoteDamaged, match=rf"{NAME}: fetched 4 times, .*: CRC32C is .*, expected .*; fetch it else"):
        get()
    assert len(server.gets()) == 4
    assert len(waits) == 3
    assert left(target) == []


def test_a_wrong_checksum_of_the_server_is_an_error_and_no_file(server, get, target):
    server.always(Fault(headers={"x-goog-hash": goog_hash(OTHER)}))
    with pytest.raises(RemoteDamaged, match=f"expected {crc32c.crc32c(OTHER):08x}"):
        get()
    assert left(target) == []


@pytest.mark.parametrize("header", ["crc32c=", "crc32c=????", "crc32c=AAAAAAA=", "md5=xyz", "crc32c", ",,", "=" * 500])
def test_a_checksum_that_cannot_be_read_is_none(header, server, get, target):
    server.always(Fault(headers={"x-goog-hash": header}))
    assert get().file.crc32c is None
    assert target.read_bytes() == DATA


def test_a_checksum_told_only_with_the_bytes_counts(server, get, target):
    server.heads = False
    server.checksums = True
    server.always(Fault(flip=5))
    with pytest.raises(RemoteDamaged):
        get()


def test_bytes_beyond_the_end_are_never_written(server, get, target, waits):
    server.always(Fault(more=b"x" * 100_000))
    sizes = []
    part = target.with_name("one.bin.part")
    with pytest.raises(RemoteDamaged, match="more than the 300000 bytes came that it has"):
        get(progress=lambda _: sizes.append(part.stat().st_size if part.exists() else 0))
    assert max(sizes) <= len(DATA)
    assert left(target) == []
    server.always(None)
    server.next(Fault(more=b"x"))
    get()
    assert target.read_bytes() == DATA


class Check:
    """Sees the bytes come by, and finds fault with those that are not the file's."""

    def __init__(self, size):
        assert size == len(DATA)
        self.seen = b""

    def feed(self, block):
        self.seen += bytes(block)
        if self.seen != DATA[: len(self.seen)]:
            raise CorruptRecord("part", 3, 100, "checksum is a, the file says b")

    def finish(self):
        if self.seen != DATA:
            raise CorruptRecord("part", 9, 900, "ends too early")


def test_a_check_sees_all_bytes_once_in_order(server, get, target):
    made = []

    def check(size):
        made.append(Check(size))
        return made[-1]

    leave_part(server, target, 50_000)
    server.next(Fault(cut=5000), Fault(reset=70_000), Fault(cut=1000, ignore_range=True))
    get(check=check)
    assert made[-1].seen == DATA
    assert target.read_bytes() == DATA


def test_a_check_that_fails_once_has_the_file_fetched_again(server, get, target):
    server.next(Fault(flip=7))
    said = []
    get(check=Check, tell=said.append)
    assert target.read_bytes() == DATA
    assert "record 3 at byte 100: checksum is a, the file says b; begun anew" in said[0]


def test_a_check_that_fails_each_time_is_an_error_that_names_the_record(server, get, target):
    server.always(Fault(flip=7))
    with pytest.raises(RemoteDamaged, match=f"{NAME}: fetched 4 times, .*: record 3 at byte 100: checksum is a, the"):
        get(check=Check)
    assert len(server.gets()) == 4
    assert left(target) == []


def test_a_part_that_a_check_finds_wrong_is_begun_anew(server, get, target):
    leave_part(server, target, 100_000, OTHER)
    get(check=Check)
    assert target.read_bytes() == DATA
    assert [asked.start for asked in server.gets()] == [0]


def test_a_check_that_fails_in_the_end_keeps_no_file(server, get, target):
    class Never(Check):
        def finish(self):
            raise CorruptRecord("part", 9, 900, "ends too early")

    with pytest.raises(RemoteDamaged, match="record 9 at byte 900: ends too early"):
        get(check=Never)
    assert left(target) == []


def test_a_file_that_is_there_stays_until_the_new_one_is_whole(server, get, target):
    target.parent.mkdir()
    target.write_bytes(b"old")
    server.checksums = True
    server.always(Fault(flip=1))
    with pytest.raises(RemoteDamaged):
        get()
    assert target.read_bytes() == b"old"
    server.always(None)
    get()
    assert target.read_bytes() == DATA


# Files that change, and servers that do not say.


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"etag": '"a"'}, {"etag": '"a"'}, True),
        ({"etag": '"a"'}, {"etag": 'W/"a"'}, True),
        ({"etag": '"a"', "modified": "x"}, {"etag": '"b"', "modified": "x"}, False),
        ({"etag": '"a"', "size": 1}, {"etag": '"a"', "size": 2}, False),
        ({"etag": '"a"', "modified": "x"}, {"modified": "x"}, True),
        ({"modified": "x"}, {"modified": "y", "crc32c": 1}, False),
        ({"crc32c": 1}, {"crc32c": 1, "etag": '"a"'}, True),
        ({"crc32c": 1}, {"crc32c": 2}, False),
        ({"etag": '"a"'}, {"modified": "x"}, None),
        ({}, {}, None),
    ],
)
def test_two_descriptions_are_of_one_file_or_not(one, other, same):
    one, other = (RemoteFile(**{"name": NAME, "size": 5, **facts}) for facts in (one, other))
    assert one.is_same(other) is same
    assert other.is_same(one) is same


def test_a_file_that_changes_between_ranges_is_begun_anew(folder, server, get, target):
    server.next(Fault(cut=100_000))
    changed = []

    def change(_):
        if not changed:
            changed.append((folder / NAME).write_bytes(OTHER))

    get(progress=change)
    assert target.read_bytes() == OTHER
    assert [asked.status for asked in server.gets()] == [200, 412, 200]


@pytest.mark.parametrize("tags", ["weak", "modified"])
def test_a_change_is_seen_without_a_condition(tags, folder, server, get, target):
    server.tags = tags
    server.next(Fault(cut=100_000), Fault(content=OTHER))
    get()
    assert target.read_bytes() == DATA
    assert all("If-Match" not in asked.headers and "If-Range" not in asked.headers for asked in server.asked)
    assert [asked.start for asked in server.gets()] == [0, 100_000, 0]


def test_a_server_that_ignores_the_condition_is_seen_through(server, get, target):
    wrong = Fault(headers={"ETag": '"another"'})
    server.next(Fault(cut=100_000), wrong)
    get()
    assert target.read_bytes() == DATA
    assert [asked.start for asked in server.gets()] == [0, 100_000, 0]


def test_a_file_of_another_size_is_begun_anew(folder, server, get, target):
    server.tags = "none"
    server.next(Fault(content=OTHER[:1000]), path=NAME)  # seen by HEAD
    get()
    assert target.read_bytes() == DATA


def test_a_file_that_always_changes_is_given_up(server, get, target, waits):
    for number in range(10):
        content = bytes([number]) * 1000
        server.next(Fault(content=content + b"head"), Fault(content=content))
    with pytest.raises(FetchError, match="changed 4 times while it was fetched"):
        get()
    assert len(waits) == 3
    assert left(target) == []


def test_without_any_tag_a_broken_file_is_begun_anew(server, get, target):
    server.tags = "none"
    server.next(Fault(cut=100_000))
    get()
    assert target.read_bytes() == DATA
    assert [asked.start for asked in server.gets()] == [0, 0]


def test_a_checksum_alone_is_tag_enough(server, get, target):
    server.tags, server.checksums = "none", True
    server.next(Fault(cut=100_000))
    get()
    assert target.read_bytes() == DATA
    assert [asked.start for asked in server.gets()] == [0, 100_000]


def test_a_range_without_a_tag_is_taken_under_the_condition_alone(server, get, target):
    server.next(Fault(cut=100_000), Fault(headers={"ETag": None, "Last-Modified": None}))
    get()
    assert target.read_bytes() == DATA
    assert [asked.start for asked in server.gets()] == [0, 100_000]


def test_a_server_that_knows_no_ranges_sends_it_all_again(server, get, target):
    server.next(Fault(cut=200_000), Fault(ignore_range=True, cut=100_000), Fault(ignore_range=True))
    came = []
    found = get(progress=came.append)
    assert target.read_bytes() == DATA
    assert sum(came) == len(DATA)
    assert found.received == 600_000


def test_416_begins_anew(server, get, target):
    server.next(Fault(cut=100_000), Fault(status=416))
    get()
    assert target.read_bytes() == DATA
    assert [asked.start for asked in server.gets()] == [0, 100_000, 0]


# Runs that were killed.


@pytest.mark.parametrize("tags", ["strong", "weak", "modified"])
def test_what_a_killed_run_left_is_gone_on_with(tags, server, get, target):
    server.tags = tags
    leave_part(server, target, 123_456)
    came = []
    found = get(progress=came.append)
    assert target.read_bytes() == DATA
    assert (found.resumed_at, found.received) == (123_456, len(DATA) - 123_456)
    assert found.crc32c == crc32c.crc32c(DATA)
    assert sum(came) == len(DATA)
    assert left(target) == ["one.bin"]


def test_a_part_that_is_whole_needs_no_more_bytes(server, get, target):
    leave_part(server, target, len(DATA))
    get()
    assert target.read_bytes() == DATA
    assert server.gets() == []


def test_a_part_is_checked_over_all_its_bytes(server, get, target):
    server.checksums = True
    leave_part(server, target, 100_000, OTHER)
    found = get()
    assert target.read_bytes() == DATA
    assert [asked.start for asked in server.gets()] == [100_000, 0]
    assert found.crc32c == crc32c.crc32c(DATA)


SPOILT = {
    "another tag": lambda part, note: {**note, "etag": '"old"'},
    "another size": lambda part, note: {**note, "size": note["size"] + 1},
    "another place": lambda part, note: {**note, "url": "http://other/set/train/one.bin"},
    "no table": lambda part, note: [1],
    "a note cut short": lambda part, note: None,
    "more bytes than the file has": lambda part, note: part.write_bytes(OTHER + b"x") and note,
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_part_of_something_else_is_begun_anew(spoil, server, get, target):
    leave_part(server, target, 100_000, OTHER)
    note, part = target.with_name("one.bin.part.json"), target.with_name("one.bin.part")
    value = json.loads(note.read_text())
    value.pop("sha256", None)
    spoilt = spoil(part, value)
    if isinstance(spoilt, dict):
        note.unlink()
        strict_json.write_note(note, spoilt)
    else:
        note.write_text(json.dumps(spoilt) if spoilt is not None else '{"url": ')
    found = get()
    assert target.read_bytes() == DATA
    assert found.resumed_at == 0
    assert [asked.start for asked in server.gets()] == [0]


def test_a_part_without_a_note_is_begun_anew(server, get, target):
    leave_part(server, target, 100_000, OTHER)
    target.with_name("one.bin.part.json").unlink()
    get()
    assert target.read_bytes() == DATA


def test_a_part_of_a_file_without_any_tag_is_begun_anew(server, get, target):
    server.tags = "none"
    leave_part(server, target, 100_000, OTHER)
    get()
    assert target.read_bytes() == DATA


def test_fetching_stops_when_told_and_goes_on_later(server, get, target):
    stop = threading.Event()
    server.pace = (10_000, 0.001)
    came = []

    def progress(count):
        came.append(count)
        if sum(came) > 50_000:
            stop.set()

    with pytest.raises(FetchStopped):
        get(stop=stop, progress=progress)
    size = target.with_name("one.bin.part").stat().st_size
    assert 50_000 < size < len(DATA)
    server.pace = None
    assert get().resumed_at == size
    assert target.read_bytes() == DATA


def test_a_wait_ends_when_told_to_stop(server, target):
    stop = threading.Event()
    server.always(Fault(status=503))
    begun = time.monotonic()
    with HTTPRemote(server.url) as remote, pytest.raises(FetchStopped):
        fetch_file(remote, NAME, target, stop=stop, tell=lambda _: stop.set(), patience=RetryPolicy(first_wait=1000))
    assert time.monotonic() - begun < 100


# Disks that are full.


def test_a_full_disk_is_told_and_the_part_is_kept(server, get, target, monkeypatch):
    write, room = PartialFile.write, [150_000]

    def full(part, block):
        """As the system does: what fits is written, then an error comes."""
        write(part, block[: room[0]])
        if len(block) > room[0]:
            raise OSError(28, "No space left on device")
        room[0] -= len(block)

    monkeypatch.setattr(PartialFile, "write", full)
    with pytest.raises(NoSpace, match=r"one\.bin\.part: the disk is full after 150000 bytes; they are kept"):
        get()
    assert left(target) == ["one.bin.part", "one.bin.part.json"]
    monkeypatch.undo()
    server.asked.clear()
    get()
    assert target.read_bytes() == DATA
    assert [asked.start for asked in server.gets()] == [150_000]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_really_full_device_is_told(server, get, target):
    target.parent.mkdir()
    part = target.with_name("one.bin.part")
    leave_part(server, target, 0)
    part.unlink()
    part.symlink_to("/dev/full")
    with pytest.raises(NoSpace):
        get()
    assert not target.exists()


def test_a_disk_that_fails_behind_is_not_overheard(server, get, target, monkeypatch):
    failures = [OSError(5, "Input/output error")]

    def sync(_):
        if failures:
            raise failures.pop()

    monkeypatch.setattr(partial_file, "_SYNC_EVERY", 20_000)
    monkeypatch.setattr(partial_file, "_sync_data", sync)
    server.pace = (10_000, 0.001)
    with pytest.raises(OSError, match="Input/output error"):
        get()
    assert not target.exists()
    get()
    assert target.read_bytes() == DATA


# Any mixture.

PLACES = st.integers(0, 4000)
FAULTS = st.one_of(
    st.builds(Fault, cut=PLACES),
    st.builds(Fault, reset=PLACES),
    st.builds(Fault, cut=PLACES, ignore_range=st.just(True)),
    st.builds(Fault, flip=PLACES),
    st.builds(Fault, flip=PLACES, cut=PLACES),
    st.builds(Fault, fewer=st.integers(1, 4000)),
    st.builds(Fault, more=st.binary(min_size=1, max_size=3000)),
    st.builds(Fault, more=st.binary(min_size=1, max_size=30), ignore_range=st.just(True)),
    st.builds(Fault, shift=st.integers(-3000, 3000)),
    st.builds(Fault, unsized=st.just(True), cut=st.none() | PLACES),
    st.builds(Fault, status=st.sampled_from([412, 416, 429, 500, 502, 503, 504])),
    st.builds(Fault, headers=st.sampled_from([{"ETag": '"x"'}, {"Last-Modified": "never"}, {"Content-Range": "x"}])),
    st.builds(Fault, content=st.binary(max_size=4000), cut=st.none() | PLACES),
)


MIXTURE = DATA[:4000]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixture")
    (folder / "file").write_bytes(MIXTURE)
    with FaultServer(folder, checksums=True) as server:
        yield server


@given(
    faults=st.lists(FAULTS, max_size=12),
    tags=st.sampled_from(["strong", "weak", "modified", "none"]),
    heads=st.booleans(),
)
@settings(max_examples=100)
def test_any_faults_in_any_order_end_in_the_right_bytes(faults, tags, heads, mixture, tmp_path_factory):
    server = mixture
    server.tags, server.heads = tags, heads
    server.forget()
    server.next(*faults)
    target = tmp_path_factory.mktemp("any") / "file"
    patience = RetryPolicy(tries=30, anew=30, sleep=lambda _: None)
    with HTTPRemote(server.url) as remote:
        for _ in range(len(faults) + 1):  # a HEAD may be answered in a way that is final; the next run has fewer faults
            try:
                fetch_file(remote, "file", target, patience=patience)
                break
            except FetchError:
                assert not target.exists()
    # A file that another took the place of for two answers or more may be the one that was fetched, and all of it.
    versions = [MIXTURE, *(fault.content for fault in faults if fault.content is not None)]
    assert target.read_bytes() in versions
    assert left(target) == ["file"]
    shutil.rmtree(target.parent)
