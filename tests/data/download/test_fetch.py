"""Fetching one remote file: for any behaviour of the server, the right bytes, or an error and no file."""

import base64
import json
import random
import re
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
from gqn_data.download.remote import stat_file
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
from gqn_data.io import regular, strict_json

NAME = "set/train/one.bin"
DATA = random.Random(1).randbytes(300_000)
OTHER = random.Random(2).randbytes(300_000)


class Waits(list):
    """Records waits instead of sleeping."""

    def policy(self, **options):
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
    """Fetch the file from the server, and close every connection."""

    def fetch_it(*, base=None, timeout=60, **options):
        options.setdefault("retry", waits.policy())
        with HTTPRemote(base or server.url, timeout=timeout) as remote:
            return fetch_file(remote, options.pop("name", NAME), target, **options)

    return fetch_it


def files_beside(target):
    """Return the names of the files in the target's folder."""
    return sorted(path.name for path in target.parent.iterdir()) if target.parent.exists() else []


def leave_partial(server, target, size, data=DATA, **note):
    """Leave what a killed run leaves: a partial file of `size` bytes, and its note."""
    with HTTPRemote(server.url) as remote:
        part = PartialFile(target, remote.url(NAME))
        part.open(replace(remote.stat(NAME), **note))
        part.write(data[:size])
        part.shutdown()
    server.asked.clear()


# A good server.


@pytest.mark.parametrize("tags", ["strong", "weak", "modified", "none"])
@pytest.mark.parametrize("checksums", [False, True])
def test_a_file_is_fetched_completely(tags, checksums, server, get, target, waits):
    server.tags, server.checksums = tags, checksums
    came = []
    found = get(progress=came.append)
    assert target.read_bytes() == DATA
    assert files_beside(target) == ["one.bin"]
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


def test_an_empty_file_is_fetched_without_head_support(folder, server, get, target):
    server.heads = False
    (folder / NAME).write_bytes(b"")
    get()
    assert target.read_bytes() == b""


def test_requests_ask_for_identity_encoding(server, get):
    get()
    assert {asked.headers["Accept-Encoding"] for asked in server.asked} == {"identity"}


def test_a_thread_reuses_one_connection(folder, server):
    for number in range(5):
        (folder / f"{number}").write_bytes(DATA)
    with HTTPRemote(server.url) as remote:
        for number in range(5):
            assert remote.stat(f"{number}").size == len(DATA)
            with remote.open(f"{number}") as body:
                assert b"".join(body.blocks()) == DATA
        assert len(remote._sessions) == 1
        (adapter,) = {remote._sessions[0].get_adapter(server.url)}
        (pool,) = (adapter.poolmanager.pools[key] for key in adapter.poolmanager.pools.keys())  # noqa: SIM118
        assert pool.num_connections == 1


def test_a_server_without_head_support_is_asked_for_one_byte(server, get, target):
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


def test_endless_redirects_are_refused_at_once(server, get, target, waits):
    server.always(Fault(status=302, headers={"Location": f"/{NAME}"}))
    with pytest.raises(RemoteRefused, match="too many redirects"):
        get()
    assert waits == []
    assert files_beside(target) == []


def test_names_with_special_characters_are_fetched(folder, server, get, target):
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
    "a part without a range": Fault(headers={"Content-Range": None}),
    "a part with an invalid range": Fault(headers={"Content-Range": "bytes five-nine/12"}),
    "a part that ends before it begins": Fault(headers={"Content-Range": f"bytes 5000-4999/{len(DATA)}"}),
    "a part beyond the end": Fault(headers={"Content-Range": f"bytes 5000-{len(DATA)}/{len(DATA)}"}),
}


@pytest.mark.parametrize("fault", BREAKS.values(), ids=BREAKS)
def test_a_broken_transfer_resumes_where_it_broke(fault, server, get, target, waits):
    server.next(Fault(cut=5000), fault)
    get()
    assert target.read_bytes() == DATA
    assert files_beside(target) == ["one.bin"]
    ranges = [asked.start for asked in server.gets()]
    assert ranges[:2] == [0, 5000]
    assert ranges == sorted(ranges)  # no byte is requested twice
    assert len(ranges) == 3
    assert len(waits) == len(server.gets()) - 1


def test_bytes_received_before_a_cut_are_not_fetched_again(server, get):
    server.next(Fault(cut=5000), Fault(cut=7), Fault(cut=200_000))
    found = get()
    assert [asked.start for asked in server.gets()] == [0, 5000, 5007, 205_007]
    assert found.received == len(DATA)


def test_a_stalled_transfer_is_retried(server, get, target):
    server.next(Fault(stall=70_000), Fault(stall=0))
    said = []
    get(timeout=0.2, log=said.append)
    assert target.read_bytes() == DATA
    assert [asked.start for asked in server.gets()] == [0, 70_000, 70_000]
    assert f"{server.url}/{NAME}: " in said[0]
    assert "0.2 s" in said[0]


def test_an_unreachable_server_is_an_error_after_the_attempts(get, target, waits):
    with FaultServer(target.parent) as gone:
        url = gone.url
    with pytest.raises(FetchError, match=f"^{url}/{NAME}: .* 3 attempts"):
        get(base=url, retry=waits.policy(attempts=3))
    assert len(waits) == 2
    assert files_beside(target) == []


def test_attempts_with_progress_do_not_count(server, get, target, waits):
    server.next(*[Fault(cut=10_000)] * 20)
    get(retry=waits.policy(attempts=2))
    assert target.read_bytes() == DATA
    assert len(waits) == 20


def test_attempts_without_progress_count_and_keep_the_partial_file(server, get, target, waits):
    server.next(Fault(cut=10_000))
    server.next(*[Fault(cut=0)] * 3)
    with pytest.raises(FetchError, match=r"byte 10000 of 300000.* 3 attempts"):
        get(retry=waits.policy(attempts=3))
    assert files_beside(target) == ["one.bin.part", "one.bin.part.json"]
    server.forget()
    found = get()
    assert target.read_bytes() == DATA
    assert found.resumed_at == 10_000
    assert [asked.start for asked in server.gets()] == [10_000]


def test_receiving_the_same_bytes_again_is_not_progress(server, get, target, waits):
    server.always(Fault(cut=50_000, ignore_range=True))
    with pytest.raises(FetchError, match="5 attempts"):
        get(retry=waits.policy(attempts=5))
    assert len(server.gets()) == 6  # the first attempt makes progress
    assert not target.exists()


def test_backoff_doubles_up_to_a_bound_with_jitter(server, get, waits):
    server.next(*[Fault(status=500)] * 7)
    get(retry=waits.policy(backoff=1, max_backoff=20, jitter=lambda: 0.0))
    assert waits == [1, 2, 4, 8, 16, 20, 20]
    assert RetryPolicy(jitter=lambda: 1.0).delay(1, None) == 0.5


@pytest.mark.parametrize(
    ("header", "expected"), [("7", 7), ("100000", 50), ("0", 1), ("soon", 1), ("-5", 1), (None, 1)]
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured_up_to_a_bound(header, expected, status, server, get, waits):
    server.next(Fault(status=status, headers={"Retry-After": header}))
    get(retry=waits.policy(backoff=1, max_retry_after=50, jitter=lambda: 0.0))
    assert waits == [expected]


def test_retry_after_may_be_a_date(server, get, waits):
    later = datetime.now(UTC) + timedelta(seconds=40)
    server.next(Fault(status=503, headers={"Retry-After": format_datetime(later, usegmt=True)}))
    get()
    assert 30 <= waits[0] <= 40


def test_each_retried_fault_is_logged(server, get):
    server.next(Fault(status=503), Fault(cut=1000))
    said = []
    get(log=said.append, retry=RetryPolicy(sleep=lambda _: None, jitter=lambda: 0.0))
    assert len(said) == 2
    assert all(line.startswith(f"{server.url}/{NAME}: ") and line.endswith(" 1 s") for line in said)
    assert "503" in said[0]
    assert "byte 1000 of 300000" in said[1]


# Answers that are final.


def test_a_missing_file_is_none_for_stat_and_an_error_for_fetch(get, server, target, waits):
    with HTTPRemote(server.url) as remote:
        assert stat_file(remote, "set/other") is None
    with pytest.raises(RemoteMissing, match=f"^{server.url}/set/other: "):
        get(name="set/other")
    assert waits == []
    assert files_beside(target) == []


@pytest.mark.parametrize("status", [401, 403, 400, 451])
def test_a_refusal_is_an_error_without_retries(status, server, get, target, waits):
    server.always(Fault(status=status))
    with pytest.raises(RemoteRefused, match=f"{NAME}: .*{status}"):
        get()
    assert waits == []
    assert files_beside(target) == []


def test_a_file_removed_before_the_transfer_is_missing(server, get, target):
    server.next(Fault(status=410), path=NAME)
    with HTTPRemote(server.url) as remote:
        known = RemoteFile(name=NAME, size=len(DATA))
        with pytest.raises(RemoteMissing, match="410"):
            fetch_file(remote, NAME, target, known=known)
    assert not target.exists()


def test_compressed_responses_are_refused(server, get, target):
    server.always(Fault(headers={"Content-Encoding": "gzip"}))
    with pytest.raises(RemoteRefused, match="gzip"):
        get()
    assert not target.exists()


def test_a_file_of_unknown_size_is_refused(server, get, target):
    server.always(Fault(unsized=True, headers={"Content-Length": None, "Content-Range": None}, ignore_range=True))
    server.heads = False
    with pytest.raises(RemoteRefused, match=NAME):
        get()


@pytest.mark.parametrize(
    "url", ["", "data", "/data", "ftp://host/x", "file:///etc", "http://", "http://[::1", "s3://b"]
)
def test_other_urls_than_of_web_servers_are_refused(url):
    with pytest.raises(OptionError, match=re.escape(repr(url))):
        HTTPRemote(url)


def test_an_invalid_port_is_refused(get, target, waits):
    with pytest.raises(RemoteRefused, match="--base-url"):
        get(base="http://127.0.0.1:99999")
    assert waits == []


def test_secrets_in_the_url_are_sent_but_never_shown(server, get):
    base = server.url.replace("http://", "http://user:secret1@") + "?sig=secret2"
    server.next(Fault(status=503), Fault(status=403), path=NAME)
    said = []
    with pytest.raises(RemoteRefused) as refused:
        get(base=base, log=said.append)
    user = server.asked[0].headers["Authorization"].split()[1]
    assert base64.b64decode(user) == b"user:secret1"
    assert server.asked[0].query == "sig=secret2"
    server.__exit__()
    with HTTPRemote(base) as remote, pytest.raises(RemoteFault) as broken:
        remote.stat(NAME)
    shown = " ".join([*said, str(refused.value), str(broken.value), remote.url(NAME)])
    assert len(said) == 1
    assert "secret" not in shown
    assert "user" not in shown


# Bytes that are not the file's.


def test_wrong_bytes_are_fetched_again(server, get, target, waits):
    server.checksums = True
    server.next(Fault(flip=1234))
    said = []
    found = get(log=said.append)
    assert target.read_bytes() == DATA
    assert len(server.gets()) == 2
    assert len(waits) == 1
    assert found.received == 2 * len(DATA)
    wrong = bytes([*DATA[:1234], DATA[1234] ^ 0x10, *DATA[1235:]])
    assert f"CRC32C is {crc32c.crc32c(wrong):08x}, expected {crc32c.crc32c(DATA):08x}" in said[0]


def test_wrong_bytes_in_every_attempt_are_an_error_and_no_file(server, get, target, waits):
    server.checksums = True
    server.always(Fault(flip=1234))
    with pytest.raises(RemoteDamaged, match=rf"{NAME}: .*4 times.*CRC32C is .*, expected {crc32c.crc32c(DATA):08x}"):
        get()
    assert len(server.gets()) == 4
    assert len(waits) == 3
    assert files_beside(target) == []


def test_a_wrong_checksum_of_the_server_is_an_error_and_no_file(server, get, target):
    server.always(Fault(headers={"x-goog-hash": goog_hash(OTHER)}))
    with pytest.raises(RemoteDamaged, match=f"expected {crc32c.crc32c(OTHER):08x}"):
        get()
    assert files_beside(target) == []


@pytest.mark.parametrize("header", ["crc32c=", "crc32c=????", "crc32c=AAAAAAA=", "md5=xyz", "crc32c", ",,", "=" * 500])
def test_an_invalid_checksum_header_is_ignored(header, server, get, target):
    server.always(Fault(headers={"x-goog-hash": header}))
    assert get().file.crc32c is None
    assert target.read_bytes() == DATA


def test_a_checksum_sent_only_with_the_body_is_verified(server, get, target):
    server.heads = False
    server.checksums = True
    server.always(Fault(flip=5))
    with pytest.raises(RemoteDamaged):
        get()


def test_bytes_after_the_end_are_never_written(server, get, target, waits):
    server.always(Fault(more=b"x" * 100_000))
    sizes = []
    part = target.with_name("one.bin.part")
    with pytest.raises(RemoteDamaged, match="300000"):
        get(progress=lambda _: sizes.append(part.stat().st_size if part.exists() else 0))
    assert max(sizes) <= len(DATA)
    assert files_beside(target) == []
    server.always(None)
    server.next(Fault(more=b"x"))
    get()
    assert target.read_bytes() == DATA


class Check:
    """Rejects bytes that are not the file's."""

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

    leave_partial(server, target, 50_000)
    server.next(Fault(cut=5000), Fault(reset=70_000), Fault(cut=1000, ignore_range=True))
    get(check=check)
    assert made[-1].seen == DATA
    assert target.read_bytes() == DATA


def test_a_file_that_fails_its_check_once_is_fetched_again(server, get, target):
    server.next(Fault(flip=7))
    said = []
    get(check=Check, log=said.append)
    assert target.read_bytes() == DATA
    assert "record 3 at byte 100: checksum is a, the file says b" in said[0]


def test_a_file_that_always_fails_its_check_names_the_record(server, get, target):
    server.always(Fault(flip=7))
    with pytest.raises(RemoteDamaged, match=f"{NAME}: .*4 times.*: record 3 at byte 100: checksum is a"):
        get(check=Check)
    assert len(server.gets()) == 4
    assert files_beside(target) == []


def test_a_partial_file_that_fails_its_check_starts_over(server, get, target):
    leave_partial(server, target, 100_000, OTHER)
    get(check=Check)
    assert target.read_bytes() == DATA
    assert [asked.start for asked in server.gets()] == [0]


def test_a_check_that_fails_at_the_end_leaves_no_file(server, get, target):
    class Never(Check):
        def finish(self):
            raise CorruptRecord("part", 9, 900, "ends too early")

    with pytest.raises(RemoteDamaged, match="record 9 at byte 900: ends too early"):
        get(check=Never)
    assert files_beside(target) == []


def test_an_existing_file_stays_until_the_new_one_is_complete(server, get, target):
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
def test_descriptions_are_compared_by_their_best_common_field(one, other, same):
    one, other = (RemoteFile(**{"name": NAME, "size": 5, **facts}) for facts in (one, other))
    assert one.is_same(other) is same
    assert other.is_same(one) is same


def test_a_file_that_changes_between_ranges_starts_over(folder, server, get, target):
    server.next(Fault(cut=100_000))
    changed = []

    def change(_):
        if not changed:
            changed.append((folder / NAME).write_bytes(OTHER))

    get(progress=change)
    assert target.read_bytes() == OTHER
    assert [asked.status for asked in server.gets()] == [200, 412, 200]


@pytest.mark.parametrize("tags", ["weak", "modified"])
def test_a_change_is_noticed_without_a_conditional_request(tags, folder, server, get, target):
    server.tags = tags
    server.next(Fault(cut=100_000), Fault(content=OTHER))
    get()
    assert target.read_bytes() == DATA
    assert all("If-Match" not in asked.headers and "If-Range" not in asked.headers for asked in server.asked)
    assert [asked.start for asked in server.gets()] == [0, 100_000, 0]


def test_a_server_that_ignores_if_match_is_noticed(server, get, target):
    wrong = Fault(headers={"ETag": '"another"'})
    server.next(Fault(cut=100_000), wrong)
    get()
    assert target.read_bytes() == DATA
    assert [asked.start for asked in server.gets()] == [0, 100_000, 0]


def test_a_file_of_another_size_starts_over(folder, server, get, target):
    server.tags = "none"
    server.next(Fault(content=OTHER[:1000]), path=NAME)  # seen by HEAD
    get()
    assert target.read_bytes() == DATA


def test_a_file_that_keeps_changing_is_an_error(server, get, target, waits):
    for number in range(10):
        content = bytes([number]) * 1000
        server.next(Fault(content=content + b"head"), Fault(content=content))
    with pytest.raises(FetchError, match=f"{NAME}: .*4 times"):
        get()
    assert len(waits) == 3
    assert files_beside(target) == []


def test_a_broken_transfer_without_a_version_starts_over(server, get, target):
    server.tags = "none"
    server.next(Fault(cut=100_000))
    get()
    assert target.read_bytes() == DATA
    assert [asked.start for asked in server.gets()] == [0, 0]


def test_a_checksum_is_enough_to_resume(server, get, target):
    server.tags, server.checksums = "none", True
    server.next(Fault(cut=100_000))
    get()
    assert target.read_bytes() == DATA
    assert [asked.start for asked in server.gets()] == [0, 100_000]


def test_a_range_without_a_tag_is_accepted_if_it_met_if_match(server, get, target):
    server.next(Fault(cut=100_000), Fault(headers={"ETag": None, "Last-Modified": None}))
    get()
    assert target.read_bytes() == DATA
    assert [asked.start for asked in server.gets()] == [0, 100_000]


def test_a_server_without_ranges_sends_the_whole_file_again(server, get, target):
    server.next(Fault(cut=200_000), Fault(ignore_range=True, cut=100_000), Fault(ignore_range=True))
    came = []
    found = get(progress=came.append)
    assert target.read_bytes() == DATA
    assert sum(came) == len(DATA)
    assert found.received == 600_000


def test_status_416_starts_over(server, get, target):
    server.next(Fault(cut=100_000), Fault(status=416))
    get()
    assert target.read_bytes() == DATA
    assert [asked.start for asked in server.gets()] == [0, 100_000, 0]


# Runs that were killed.


@pytest.mark.parametrize("tags", ["strong", "weak", "modified"])
def test_a_partial_file_of_a_killed_run_is_resumed(tags, server, get, target):
    server.tags = tags
    leave_partial(server, target, 123_456)
    came = []
    found = get(progress=came.append)
    assert target.read_bytes() == DATA
    assert (found.resumed_at, found.received) == (123_456, len(DATA) - 123_456)
    assert found.crc32c == crc32c.crc32c(DATA)
    assert sum(came) == len(DATA)
    assert files_beside(target) == ["one.bin"]


def test_a_complete_partial_file_needs_no_more_bytes(server, get, target):
    leave_partial(server, target, len(DATA))
    get()
    assert target.read_bytes() == DATA
    assert server.gets() == []


def test_a_resumed_file_is_checked_over_all_its_bytes(server, get, target):
    server.checksums = True
    leave_partial(server, target, 100_000, OTHER)
    found = get()
    assert target.read_bytes() == DATA
    assert [asked.start for asked in server.gets()] == [100_000, 0]
    assert found.crc32c == crc32c.crc32c(DATA)


SPOILT = {
    "another tag": lambda part, note: {**note, "etag": '"old"'},
    "another size": lambda part, note: {**note, "size": note["size"] + 1},
    "another address": lambda part, note: {**note, "url": "http://other/set/train/one.bin"},
    "a list": lambda part, note: [1],
    "a note cut short": lambda part, note: None,
    "more bytes than the file has": lambda part, note: part.write_bytes(OTHER + b"x") and note,
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_partial_file_of_another_version_starts_over(spoil, server, get, target):
    leave_partial(server, target, 100_000, OTHER)
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


def test_a_partial_file_without_a_note_starts_over(server, get, target):
    leave_partial(server, target, 100_000, OTHER)
    target.with_name("one.bin.part.json").unlink()
    get()
    assert target.read_bytes() == DATA


def test_a_partial_file_without_a_version_starts_over(server, get, target):
    server.tags = "none"
    leave_partial(server, target, 100_000, OTHER)
    get()
    assert target.read_bytes() == DATA


def test_fetching_stops_on_request_and_resumes_later(server, get, target):
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


def test_a_wait_ends_on_a_stop_request(server, target):
    stop = threading.Event()
    server.always(Fault(status=503))
    begun = time.monotonic()
    with HTTPRemote(server.url) as remote, pytest.raises(FetchStopped):
        fetch_file(remote, NAME, target, stop=stop, log=lambda _: stop.set(), retry=RetryPolicy(backoff=1000))
    assert time.monotonic() - begun < 100


# Disks that are full.


def test_a_full_disk_is_an_error_that_keeps_the_partial_file(server, get, target, monkeypatch):
    write, room = PartialFile.write, [150_000]

    def full(part, block):
        """Write the bytes that fit, then fail, as the system does."""
        write(part, block[: room[0]])
        if len(block) > room[0]:
            raise OSError(28, "No space left on device")
        room[0] -= len(block)

    monkeypatch.setattr(PartialFile, "write", full)
    with pytest.raises(NoSpace, match=r"one\.bin\.part: .*150000 bytes"):
        get()
    assert files_beside(target) == ["one.bin.part", "one.bin.part.json"]
    monkeypatch.undo()
    server.asked.clear()
    get()
    assert target.read_bytes() == DATA
    assert [asked.start for asked in server.gets()] == [150_000]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_device_is_an_error(get, target, monkeypatch):
    def open_full(*_):
        return Path("/dev/full").open("wb", buffering=0)

    monkeypatch.setattr(regular, "open_new", open_full)
    with pytest.raises(NoSpace):
        get()
    assert not target.exists()


def test_an_error_of_the_background_sync_is_raised(server, get, target, monkeypatch):
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
def test_any_sequence_of_faults_ends_with_the_right_bytes(faults, tags, heads, mixture, tmp_path_factory):
    server = mixture
    server.tags, server.heads = tags, heads
    server.forget()
    server.next(*faults)
    target = tmp_path_factory.mktemp("any") / "file"
    retry = RetryPolicy(attempts=30, restarts=30, sleep=lambda _: None)
    with HTTPRemote(server.url) as remote:
        for _ in range(len(faults) + 1):  # a fault of HEAD may be final; the next run has fewer faults
            try:
                fetch_file(remote, "file", target, retry=retry)
                break
            except FetchError:
                assert not target.exists()
    # A file that was replaced for two responses or more may be fetched in full.
    versions = [MIXTURE, *(fault.content for fault in faults if fault.content is not None)]
    assert target.read_bytes() in versions
    assert files_beside(target) == ["file"]
    shutil.rmtree(target.parent)
