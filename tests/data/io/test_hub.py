"""Reading from the Hugging Face hub, against a local server that answers as it does, on two hosts."""

import pickle
import random
import re

import pytest
from hub_server import LARGE, SIGNATURE, TOKEN, HubServer

from gqn_data.errors import GQNError, OptionError, SourceMissing, StoreChanged, StoreError, StoreMissing, StoreRefused
from gqn_data.io import hub as hub_addresses
from gqn_data.io import paths
from gqn_data.io.paths import StorePath, parse_path

BIG = random.Random(0).randbytes(5 * LARGE)
SMALL = b'{"small": true}'
FILES = {"a b/big.tar": BIG, "small.json": SMALL}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    for name in ("HF_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(paths, "_RETRY", {"max_retries": 0})
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url + "/")
        server.put("dataset", "user/set.one", FILES)
        server.put("dataset", "user/hidden", FILES, private=True)
        server.put("model", "user/net", FILES)
        yield server


@pytest.mark.parametrize(
    ("text", "shown", "key"),
    [
        ("hf://datasets/user/set", "hf://datasets/user/set", ""),
        ("HF://datasets/user/set/", "hf://datasets/user/set", ""),
        ("hf://datasets/user/set@main/a//b/", "hf://datasets/user/set/a/b", "a/b"),
        ("hf://datasets/user/set@v1.0/a", "hf://datasets/user/set@v1.0/a", "a"),
        ("hf://user/net", "hf://user/net", ""),
        ("hf://user/net@refs/pr/1/x", "hf://user/net@refs%2Fpr%2F1/x", "x"),
        ("hf://user/net@refs%2Fpr%2F1/x", "hf://user/net@refs%2Fpr%2F1/x", "x"),
        ("hf://user/net@a%2Fb", "hf://user/net@a%2Fb", ""),
    ],
)
def test_addresses_have_one_form_that_parses_to_the_same_path(text, shown, key):
    path = parse_path(text)
    assert isinstance(path, StorePath)
    assert (str(path), path._key) == (shown, key)
    assert parse_path(shown) == path == pickle.loads(pickle.dumps(path))
    assert str(path / "x") == f"{shown}/x"


@pytest.mark.parametrize(
    "text",
    [
        "hf://",
        "hf://datasets/user",
        "hf://datasets",
        "hf://user",
        "hf://spaces/user/name",
        "hf://datasets/user/set/../other",
        "hf://datasets/user/se t",
        "hf://me:hunter2@datasets/user/set",
        "hf://datasets/user/set?token=hunter2",
        "hf://datasets/-user/set",
        "hf://datasets/user/set@",
        "hf://datasets/user/set@%2e%2e/x",
        "hf://datasets/user/set@..%2F..%2Fother",
        "hf://datasets/user/set@a%0Ab",
        "hf://datasets/user/set/a\nb",
    ],
)
def test_other_addresses_are_refused_without_showing_secrets(text):
    with pytest.raises(SourceMissing) as caught:
        parse_path(text)
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


READS = {
    "read_bytes": lambda path: path.read_bytes(),
    "read_range": lambda path: path.read_range(0, len(BIG)),
    "read_ranges": lambda path: b"".join(path.read_ranges([(0, 5), (5, path.stat().st_size - 5)])),
    "blocks": lambda path: b"".join(path.blocks()),
    "open_reader": lambda path: path.open_reader().read(),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("repository", ["datasets/user/hidden", "user/net"])
def test_every_read_gives_the_bytes_and_the_token_to_the_hub_only(repository, read, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    path = parse_path(f"hf://{repository}")
    assert READS[read](path / "a b/big.tar") == BIG
    assert READS[read](path / "small.json") == SMALL
    sent = {"hub": set(), "storage": set()}
    assert any(asked.path.startswith("/api/resolve-cache/") for asked in hub.asked)
    for asked in hub.asked:
        sent[asked.host].add(asked.headers.get("authorization"))
        assert asked.host == "hub" or TOKEN not in repr(asked)
        assert "if-match" not in asked.headers  # the hub knows other tags than the host behind it
    assert sent == {"hub": {f"Bearer {TOKEN}"}, "storage": {None}}


def test_a_range_is_asked_for_as_a_range(hub):
    path = parse_path("hf://datasets/user/set.one/a b/big.tar")
    assert path.read_range(100, 50) == BIG[100:150]
    assert path.read_range(len(BIG) - 5, 50) == BIG[-5:]
    assert [asked.status for asked in hub.asked] == [302, 206] * 2
    assert path.stat().st_size == len(BIG)


def test_a_revision_is_read(hub):
    old, _ = hub.commits["dataset", "user/set.one"][-1]
    hub.put("dataset", "user/set.one", {"small.json": b"new"})
    assert parse_path("hf://datasets/user/set.one/small.json").read_bytes() == b"new"
    assert parse_path(f"hf://datasets/user/set.one@{old}/small.json").read_bytes() == SMALL


def test_the_token_of_a_login_is_read_after_a_refusal(hub, tmp_path, monkeypatch):
    path = parse_path("hf://datasets/user/hidden/small.json")
    with pytest.raises(StoreRefused, match=r"^hf://datasets/user/hidden/small\.json: .*HF_TOKEN.*hf auth login"):
        path.read_bytes()
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/token").write_text(f"{TOKEN}\n")
    assert path.read_bytes() == SMALL
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "other"))
    with pytest.raises(StoreRefused):
        path.read_bytes()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert path.read_bytes() == SMALL


@pytest.mark.parametrize(
    ("address", "token", "error", "said"),
    [
        ("datasets/user/hidden/x", None, StoreRefused, "HF_TOKEN"),
        ("datasets/user/hidden/x", "hf_stranger", StoreMissing, "hf auth login"),
        ("datasets/user/set.one/x", "hf_wrong", StoreRefused, "token was refused"),
        ("datasets/user/misspelt/x", None, StoreRefused, "Check the name"),
        ("datasets/user/misspelt/x", TOKEN, StoreMissing, "Check the name"),
        ("user/set.one/x", TOKEN, StoreMissing, "hf://datasets/user/set.one"),
        ("datasets/user/set.one@v9/x", TOKEN, StoreMissing, "no revision 'v9'"),
        ("datasets/user/set.one/x", None, FileNotFoundError, ""),
        ("datasets/user/set.one/x", TOKEN, FileNotFoundError, ""),
    ],
)
def test_what_cannot_be_read_is_named_with_the_remedy(address, token, error, said, hub, monkeypatch):
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(error) as caught:
        parse_path(f"hf://{address}").read_bytes()
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert f"hf://{address}".rpartition("/")[0] in message
    assert not any(secret in message for secret in (TOKEN, "hf_stranger", "hf_wrong", SIGNATURE))


@pytest.mark.parametrize(
    ("status", "said"), [(400, "HF_TOKEN"), (429, "wait some minutes"), (500, "Try again"), (503, "Try again")]
)
def test_an_answer_of_the_hub_is_named_with_its_remedy(status, said, hub, monkeypatch):
    monkeypatch.setattr("gqn_data.io.paths._RETRY", {"max_retries": 0})
    hub.fail["HEAD", "x.bin"] = [status] * 9
    path = parse_path("hf://datasets/user/set.one/x.bin")
    with pytest.raises(StoreError, match=rf"^{re.escape(str(path))}: the server answered {status} .*{said}") as caught:
        path.stat()
    assert len(str(caught.value)) < 250


def test_a_hub_that_cannot_be_reached_is_named_with_its_variable(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # a closed port
    monkeypatch.setattr("gqn_data.io.paths._RETRY", {"max_retries": 0})
    with pytest.raises(StoreError, match=r"no connection to the server. Check the network, and HF_ENDPOINT"):
        parse_path("hf://datasets/user/set.one/x").stat()


@pytest.mark.parametrize("status", [400, 403, 404, 416, 500])
def test_no_error_of_the_second_host_shows_its_signature(status, hub):
    hub.fail["GET", "X-Signature"] = [status] * 9
    path = parse_path("hf://datasets/user/set.one/a b/big.tar")
    with pytest.raises((GQNError, OSError)) as caught:
        path.read_range(0, 10)
    assert str(path) in str(caught.value)
    assert SIGNATURE not in str(caught.value)


def test_a_file_that_is_replaced_while_it_is_read_is_noticed(hub, monkeypatch):
    monkeypatch.setattr(paths, "BLOCK", LARGE)
    monkeypatch.setattr(paths, "_AHEAD", 1)
    path = parse_path("hf://datasets/user/set.one/a b/big.tar")
    blocks = path.blocks()
    assert next(blocks) == BIG[:LARGE]
    hub.put("dataset", "user/set.one", {"a b/big.tar": BIG[::-1]})
    with pytest.raises(StoreChanged):
        list(blocks)
    with pytest.raises(StoreChanged):
        list(path.blocks(e_tag='"of another version"'))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_TOKEN", "two words"),
        ("HF_TOKEN", "line\nbreak"),
        ("HF_TOKEN", "caf\xe9"),
        ("HF_ENDPOINT", "huggingface.co"),
        ("HF_ENDPOINT", "https://me:hunter2@host"),
    ],
)
def test_a_token_or_server_that_cannot_be_used_is_named_and_not_shown(name, value, hub, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(OptionError, match=name) as caught:
        parse_path("hf://datasets/user/set.one/small.json").read_bytes()
    assert value not in str(caught.value)


def test_the_public_hub_is_the_default(monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    repository, _ = hub_addresses.parse_repository("datasets/user/set")
    url = repository.files_url(hub_addresses.endpoint())
    assert url == "https://huggingface.co/datasets/user/set/resolve/main"


def test_the_token_file_lies_where_the_package_of_the_hub_keeps_it(monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub.constants")
    for name in ("HF_HOME", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert str(hub_addresses._token_file()).endswith("/.cache/huggingface/token")
    assert constants.HF_TOKEN_PATH.endswith("/token")


@pytest.mark.parametrize("operation", ["put", "files"])
def test_the_hub_is_neither_written_to_nor_listed(operation, hub):
    path = parse_path("hf://datasets/user/set.one/x")
    with pytest.raises(GQNError, match=r"^hf://datasets/user/set\.one/x: "):
        path.put(b"") if operation == "put" else list(path.files())
    assert not hub.asked
