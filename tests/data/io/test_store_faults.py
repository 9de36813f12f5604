"""Faults of stores that came up in use: missing buckets, slow servers, endless answers, secrets in URLs."""

import base64
import itertools
import pickle
from datetime import timedelta
from urllib.parse import quote

import pytest
from fault_server import FaultServer
from hypothesis import given
from hypothesis import strategies as st
from raw_server import head_of, raw_server

from gqn_data.errors import GQNError, OptionError, SourceMissing, StoreError, StoreMissing
from gqn_data.io import atomic, lease, paths
from gqn_data.io.paths import Stat, StorePath, parse_path, redact

DATA = b"0123456789" * 30

# By name: one request to a store, through each method that makes one.
READS = {
    "read_bytes": lambda path: path.read_bytes(),
    "read_range": lambda path: path.read_range(0, len(DATA)),
    "read_ranges": lambda path: path.read_ranges([(0, 200), (250, 50)]),
    "blocks": lambda path: list(path.blocks()),
    "open_reader": lambda path: path.open_reader().read(),
    "sha256_of": atomic.sha256_of,
}
QUERIES = {
    "stat": lambda path: path.stat(),
    "exists": lambda path: path.exists(),
    "is_dir": lambda path: path.is_dir(),
    "files": lambda path: list(path.files()),
    "list_names": atomic.list_names,
}


def write_atomically(path):
    with atomic.writing(path) as file:
        file.write(DATA)


def lock(path):
    with atomic.exclusive_writer(path):
        pass


WRITES = {
    "put": lambda path: path.put(DATA),
    "put of several parts": lambda path: path.put(DATA * (paths.BLOCK // 100)),
    "create": lambda path: path.create(DATA),
    "replace": lambda path: path.replace(DATA, Stat(st_size=1, e_tag='"1"')),
    "unlink": lambda path: path.unlink(missing_ok=True),
    "writing": write_atomically,
    "exclusive_writer": lock,
}


# An object that has become shorter than an index says.


@pytest.mark.parametrize("extents", [[(290, 20)], [(0, 10), (290, 20)]])
def test_extents_across_the_end_give_fewer_bytes(extents, s3):
    path = parse_path(s3) / "short"
    path.put(DATA)
    assert path.read_ranges(extents) == [DATA[offset : offset + length] for offset, length in extents]


@pytest.mark.parametrize("extents", [[(400, 5)], [(0, 10), (400, 5)], [(250, 10), (310, 5), (320, 3)]])
def test_extents_beyond_the_end_are_an_error(extents, s3):
    path = parse_path(s3) / "short"
    path.put(DATA)
    with pytest.raises(StoreError, match=f"^{path}: "):
        path.read_ranges(extents)


# A bucket that does not exist.


@pytest.mark.parametrize("operation", [*QUERIES, *READS, *WRITES])
def test_each_operation_in_a_missing_bucket_says_so(operation, s3, faults):
    gone = s3 + "-gone"
    with pytest.raises(StoreMissing, match=f"^{gone}: .*AWS_ENDPOINT_URL"):
        ({**QUERIES, **READS, **WRITES})[operation](parse_path(gone) / "folder/x")
    faults.record(
        "found in use: a bucket that does not exist",
        holds="each command ends at once, with one line that names the bucket",
        tries=1,
        survived=1,
    )


def test_a_missing_object_is_not_a_missing_bucket(s3):
    path = parse_path(s3) / "x"
    assert not path.exists()
    assert path.replace(b"2", Stat(st_size=1, e_tag='"1"')) is None
    path.unlink(missing_ok=True)
    assert path.create(b"1") is not None


def test_a_lease_that_cannot_be_taken_ends(s3, monkeypatch, faults):
    # Such a store says that the object exists when it is created, and that it does not when it is read.
    monkeypatch.setattr(lease, "EXPIRES_AFTER", 0.1)
    monkeypatch.setattr(lease, "_POLL_INTERVAL", 0.01)
    path = parse_path(s3) / "x"
    monkeypatch.setattr(StorePath, "create", lambda *_: None)
    with pytest.raises(StoreError, match=f"^{path}/.lock: "):
        lock(path)
    StorePath.put(path / ".lock", b"{}")
    monkeypatch.setattr(StorePath, "replace", lambda *_: None)
    with pytest.raises(StoreError, match=f"^{path}/.lock: "):
        lock(path)
    faults.record(
        "found in use: a store that gives contradictory answers",
        holds="a writer gives up with one line after two expiry times of a lease",
        tries=2,
        survived=2,
    )


@pytest.mark.parametrize("operation", WRITES)
def test_a_web_server_is_not_written_to(operation, faults):
    with pytest.raises(OptionError, match=r"^https://host/folder/x.*web server"):
        WRITES[operation](parse_path("https://host/folder/x"))
    faults.record(
        "found in use: a web server as a place to write",
        holds="one line that says so, without a request",
        tries=1,
        survived=1,
    )


# Slow and endless answers.


@pytest.fixture
def impatient(monkeypatch):
    """Wait half a second instead of minutes, and retry once."""
    monkeypatch.setitem(paths._CLIENT, "read_timeout", timedelta(seconds=0.5))
    monkeypatch.setattr(paths, "_RETRY", {"max_retries": 1, "retry_timeout": timedelta(seconds=1)})
    monkeypatch.setattr(paths, "_LEAST_RATE", 10**9)
    monkeypatch.setattr(paths, "_LISTING_TIMEOUT", 1.0)


@pytest.mark.parametrize("operation", READS)
def test_a_store_that_sends_byte_by_byte_is_given_up(operation, impatient, tmp_path, faults):
    (tmp_path / "x").write_bytes(DATA)
    with FaultServer(tmp_path, pace=(1, 0.05)) as server:
        with pytest.raises(StoreError, match=f"^{server.url}/x: .*kB/s"):
            READS[operation](parse_path(server.url) / "x")
        server.pace = None
        READS[operation](parse_path(server.url) / "x")
    faults.record(
        "found in use: a store that sends slowly or without end",
        holds="reading ends with one line that names the object, after a bounded time",
        tries=1,
        survived=1,
    )


def listing(*names, more=True):
    """Return an answer to a listing, which says whether more follows."""
    entries = "".join(
        f"<Contents><Key>{name}</Key><LastModified>2020-01-01T00:00:00.000Z</LastModified><ETag>1</ETag>"
        "<Size>1</Size></Contents>"
        for name in names
    )
    token = "<NextContinuationToken>again</NextContinuationToken>" if more else ""
    page = (
        f"<ListBucketResult><Name>b</Name><IsTruncated>{str(more).lower()}</IsTruncated>{entries}{token}"
        "</ListBucketResult>"
    )
    return [head_of(Content_Length=len(page)) + page.encode()]


PAGES = itertools.count()
NAMES = [f"x/{number}" for number in range(500)]

LISTINGS = {
    "empty pages without end": lambda _: listing(),
    "the same page without end": lambda _: listing(*NAMES, more=next(PAGES) < 100),
    "an answer without end": lambda _: itertools.chain([head_of(Connection="close")], itertools.repeat(b" ")),
}


@pytest.mark.parametrize("kind", LISTINGS)
def test_a_listing_without_end_is_given_up(kind, impatient, monkeypatch, faults):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    if kind == "the same page without end":
        monkeypatch.setattr(paths, "_LISTING_TIMEOUT", 60.0)
    with raw_server(LISTINGS[kind]) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(StoreError, match=r"^s3://endless-"):
            list((parse_path(f"s3://endless-{url[-5:]}") / "x").files())
    faults.record(
        "found in use: a store that sends slowly or without end",
        holds="reading ends with one line that names the object, after a bounded time",
        tries=1,
        survived=1,
    )


def test_an_answer_longer_than_its_range_is_refused():
    def answer(request):
        size = {"Content_Length": len(DATA)} if request.startswith("HEAD") else {"Content_Length": 10**12}
        ranged = {"Content_Range": f"bytes 0-{len(DATA) - 1}/{len(DATA)}"}
        yield head_of("200 OK" if request.startswith("HEAD") else "206 Partial Content", ETag='"1"', **size, **ranged)
        if not request.startswith("HEAD"):
            yield from itertools.repeat(b"a" * 1000)

    with raw_server(answer) as url:
        for operation in ("read_bytes", "read_range", "blocks"):
            with pytest.raises(StoreError, match=f"^{url}/x: "):
                READS[operation](parse_path(url) / "x")


# Secrets in URLs.

SECRETS = ("hunter2", "p%40ss", "p/w?rd", "signed==", "AKIAX", "wJalr/K7+x")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://host/a?sig=signed==&x=1 is", "https://host/a is"),
        ("http://me:hunter2@host:80/a@b/c", "http://host:80/a@b/c"),
        ("at http://me:p/w?rd@host/x: no", "at http://host/x: no"),
        ("https://host:8080/a@b", "https://host:8080/a@b"),
        ("https://[::1]:8080/a@b", "https://[::1]:8080/a@b"),
        ("s3://AKIAX:wJalr/K7+x@bucket/x", "s3://bucket/x"),
        ("ftp://me:hunter2@host", "ftp://host"),
        ("PUT http://127.0.0.1/b/x?X-Amz-Signature=signed== in 3ms", "PUT http://127.0.0.1/b/x in 3ms"),
        ("/data/a?b@c:d", "/data/a?b@c:d"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
    ],
)
def test_texts_lose_logins_and_queries(text, shown):
    assert redact(text) == shown
    assert redact(shown) == shown


@given(st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), min_size=1, max_size=20))
def test_any_encoded_password_is_sent_and_never_shown(password):
    path = parse_path(f"https://me:{quote(password, safe='')}@host/folder?sig={quote(password, safe='')}") / "x"
    assert str(path) == repr(path)[len("StorePath('") : -2] == "https://host/folder/x"
    again = pickle.loads(pickle.dumps(path))
    assert (again, again.parent / "x") == (path, path)
    assert again != parse_path(str(path))


def test_the_login_and_query_of_a_url_are_sent(tmp_path, monkeypatch, faults):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login you password hunter3\n")
    (tmp_path / "netrc").chmod(0o600)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/x").write_bytes(DATA)
    sent = {"me:p%40ss@": "me:p@ss", "": "you:hunter3"}
    with FaultServer(tmp_path) as server:
        for login, expected in sent.items():
            url = server.url.replace("//", f"//{login}")
            query = "?sig=signed==" if login else ""
            for read in READS.values():
                server.forget()
                read(parse_path(f"{url}/folder{query}") / "x")
                basic = f"Basic {base64.b64encode(expected.encode()).decode()}"
                assert {asked.headers.get("authorization") for asked in server.asked} == {basic}
                assert {(asked.path, asked.query) for asked in server.asked} == {("folder/x", query[1:])}
    faults.record(
        "found in use: a secret in the URL of a store",
        holds="it is sent to the store, and in no message and no file",
        tries=2 * len(READS),
        survived=2 * len(READS),
    )


REFUSED = {
    "s3://AKIAX:wJalr/K7+x@bucket/x": "AWS_ACCESS_KEY_ID",
    "s3://AKIAX@bucket/x": "AWS_ACCESS_KEY_ID",
    "s3://bucket/x?X-Amz-Signature=signed==": "AWS_ACCESS_KEY_ID",
    "gs://me:hunter2@bucket/x": "GOOGLE_APPLICATION_CREDENTIALS",
    "az://container/x?sv=1&sig=signed==": "AZURE_STORAGE_SAS_TOKEN",
    "az://account:hunter2@container": "AZURE_STORAGE_ACCOUNT_KEY",
    "ftp://me:hunter2@host/x": "one of",
    "http://me:p/w?rd@host/x": "%2F",
    "https://me:hunter2@": "host is missing",
    "https://me:hunter2@host/a/../b?sig=signed==": "'..'",
}


@pytest.mark.parametrize("url", REFUSED)
def test_a_url_with_keys_is_refused_without_showing_them(url, faults):
    with pytest.raises((OptionError, SourceMissing), match=REFUSED[url]) as caught:
        parse_path(url)
    assert not any(secret in str(caught.value) for secret in SECRETS)
    faults.record(
        "found in use: a secret in the URL of a store",
        holds="it is sent to the store, and in no message and no file",
        tries=1,
        survived=1,
    )


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "404 Not Found", "500 Oops", "302 Found"])
@pytest.mark.parametrize("operation", [*READS, "stat", "exists"])
def test_no_error_of_a_request_shows_a_secret(operation, status, impatient):
    head = head_of(status, Content_Length=0, **({"Location": "/again?sig=signed=="} if status[0] == "3" else {}))
    with raw_server(lambda _: [head]) as url:
        path = parse_path(f"{url.replace('//', '//me:hunter2@')}/a?sig=signed==") / "x"
        try:
            ({**READS, **QUERIES})[operation](path)
        except (GQNError, OSError) as error:
            said = str(error)
            assert f"{url}/a/x" in said
            assert not any(secret in said for secret in SECRETS)
        else:
            assert (operation, status) == ("exists", "404 Not Found")


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_absent_credentials_are_named_instead_of_a_metadata_server(scheme, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(paths, "_RETRY", {"max_retries": 0})
    monkeypatch.setitem(paths._CLIENT, "connect_timeout", timedelta(seconds=1))
    monkeypatch.setitem(paths._CLIENT, "read_timeout", timedelta(seconds=1))
    path = parse_path(f"{scheme}://nobody-has-credentials-for-this") / "x"
    with pytest.raises(StoreError, match="no credentials") as caught:
        path.read_bytes()
    assert not any(server in str(caught.value) for server in paths._METADATA_SERVERS)
