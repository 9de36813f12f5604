"""Pushing datasets to the hub, and reading them back, against a local server that answers as the hub does."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hub_server import LARGE, SIGNATURE, TOKEN, HubServer
from made_scenes import SET, tree

import gqn_data
from gqn_data import cli
from gqn_data.convert import convert
from gqn_data.convert.plan import Options
from gqn_data.errors import (
    DestinationError,
    ExtraMissing,
    GQNError,
    OptionError,
    ShardChecksumError,
    SourceMissing,
    StoreRefused,
)
from gqn_data.inspect.verify import verify
from gqn_data.io.paths import parse_path
from gqn_data.push import push_dataset
from gqn_data.schema.catalog import SCENE_SETS

constants = pytest.importorskip("huggingface_hub.constants")
# Of the package's own HTTP client.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NAME = "user/rooms"
COMMITS = "/commit/"


@pytest.fixture(scope="module")
def made(shared_raw, tmp_path_factory):
    """Return one dataset per container."""
    root = tmp_path_factory.mktemp("pushed")
    options = Options(formats=("zarr", "webdataset"), shard_bytes=9000, workers=1)
    return {one.folder.parent.name: one.folder for one in convert(shared_raw, SCENE_SETS[SET], root, options)}


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made["webdataset"], tmp_path / SET)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its servers speak a binary protocol
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def paths_of(hub, method, part):
    return [asked.path for asked in hub.asked if asked.method == method and part in asked.path]


@pytest.mark.parametrize("container", ["zarr", "webdataset"])
def test_a_pushed_dataset_is_the_same_files_and_opens_by_its_address(container, made, hub):
    address = push_dataset(made[container], NAME, workers=1)
    assert hub.files("dataset", NAME) == {name: (made[container] / name).read_bytes() for name in tree(made[container])}
    assert len(paths_of(hub, "POST", COMMITS)) == 1
    assert {len(data) >= LARGE for data in hub.files("dataset", NAME).values()} == {True, False}
    assert address == f"hf://datasets/{NAME}@{hub.commits['dataset', NAME][-1][0]}"
    here = gqn_data.open(str(made[container]))
    for there in (gqn_data.open(address), gqn_data.open(f"hf://datasets/{NAME}", "train")):
        assert there.fingerprint == here.fingerprint
        assert np.array_equal(there[3].frames, here[3].frames)
        assert np.array_equal(there.cameras, here.cameras)
    assert not verify(parse_path(address), SCENE_SETS[SET], deep=True, workers=1).faults
    assert not any(TOKEN in repr(asked) for asked in hub.asked if asked.host == "storage")


def test_a_loader_reads_a_private_dataset_through_the_cache(made, hub, tmp_path):
    pytest.importorskip("torch")
    from gqn_data.loader import SceneLoader

    push_dataset(made["webdataset"], NAME, private=True, workers=1)
    options = {"batch_size": 2, "workers": 0, "epochs": 1, "seed": 1}
    expected = list(SceneLoader(made["webdataset"], **options))
    for copied in (False, True):
        hub.asked.clear()
        loader = SceneLoader(f"hf://datasets/{NAME}", remote="cache", cache=tmp_path / "cache", **options)
        found = list(loader)
        loader.close()
        assert all(np.array_equal(one.frames, two.frames) for one, two in zip(found, expected, strict=True))
        assert bool(paths_of(hub, "GET", "train-000000.tar")) != copied
    assert not any(TOKEN.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_an_interrupted_push_resumes_and_shows_nothing_before_its_end(folder, hub):
    hub.fail["POST", COMMITS] = [500]
    with pytest.raises(GQNError, match=rf"^hf://datasets/{NAME}: .*again to resume"):
        push_dataset(folder, NAME, workers=1)
    assert hub.files("dataset", NAME) == {}
    sent = paths_of(hub, "PUT", "")
    assert sent
    push_dataset(folder, NAME, workers=1)
    assert paths_of(hub, "PUT", "") == sent
    assert set(hub.files("dataset", NAME)) == set(tree(folder))
    before = len(hub.commits["dataset", NAME])
    address = push_dataset(folder, NAME, workers=1)  # nothing to do
    assert len(hub.commits["dataset", NAME]) == before
    assert address.endswith(hub.commits["dataset", NAME][-1][0])


def test_another_dataset_takes_the_place_of_the_first_in_one_commit(made, hub):
    push_dataset(made["webdataset"], NAME, workers=1)
    hub.put("dataset", NAME, {"LICENSE": b"mine", "pictures/a.png": b"mine"})
    hub.asked.clear()
    push_dataset(made["zarr"], NAME, workers=1)
    assert set(hub.files("dataset", NAME)) == {*tree(made["zarr"]), "LICENSE", "pictures/a.png"}
    assert len(paths_of(hub, "POST", COMMITS)) == 1


def test_what_is_not_a_whole_dataset_is_not_pushed(folder, made, raw, hub, tmp_path):
    shard = next(folder.glob("*.tar"))
    shard.write_bytes(shard.read_bytes()[::-1])
    with pytest.raises(ShardChecksumError, match=shard.name):
        push_dataset(folder, NAME, workers=1)
    shard.unlink()
    with pytest.raises(ShardChecksumError, match=shard.name):
        push_dataset(folder, NAME, workers=1)
    (folder / "manifest.json").unlink()
    with pytest.raises(SourceMissing, match=r"manifest\.json is missing"):
        push_dataset(folder, NAME, workers=1)
    with pytest.raises(SourceMissing, match="convert"):
        push_dataset(raw, NAME, workers=1)
    with pytest.raises(OptionError, match="local path"):
        push_dataset("s3://bucket/set", NAME)
    with pytest.raises(OptionError, match="USER/NAME"):
        push_dataset(made["zarr"], "user/a/b", workers=1)
    assert not hub.asked


def test_a_shard_that_changes_during_the_push_is_not_committed(folder, hub, monkeypatch):
    shard = next(folder.glob("train*.tar"))

    def verified(*arguments, **options):
        found = verify(*arguments, **options)
        shard.write_bytes(shard.read_bytes()[::-1])
        return found

    monkeypatch.setattr("gqn_data.push.verify", verified)
    with pytest.raises(ShardChecksumError, match=shard.name):
        push_dataset(folder, NAME, workers=1)
    assert hub.files("dataset", NAME) == {}


def test_a_link_beside_the_dataset_is_not_followed(folder, hub, tmp_path):
    (tmp_path / "secret").write_text("mine")
    (folder / "LICENSE").symlink_to(tmp_path / "secret")
    (folder / "notes.txt").write_text("mine")
    push_dataset(folder, NAME, workers=1)
    assert not {"LICENSE", "notes.txt"} & set(hub.files("dataset", NAME))


def test_a_repository_with_other_content_is_refused(folder, hub):
    hub.put("dataset", NAME, {"train.csv": b"1,2"})
    with pytest.raises(DestinationError, match=r"train\.csv"):
        push_dataset(folder, NAME, workers=1)
    assert set(hub.files("dataset", NAME)) == {"train.csv"}


def test_a_private_push_creates_a_private_repository_and_refuses_a_public_one(folder, hub):
    push_dataset(folder, NAME, private=True, workers=1)
    assert ("dataset", NAME) in hub.private
    hub.create("dataset", "user/public")
    with pytest.raises(DestinationError, match="public"):
        push_dataset(folder, "user/public", private=True, workers=1)
    assert hub.files("dataset", "user/public") == {}


def test_without_the_package_the_extra_is_named_before_the_work(folder, hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr("gqn_data.push.verify", None)
    with pytest.raises(ExtraMissing, match=r"\[hub\]"):
        push_dataset(folder, NAME)


@pytest.mark.parametrize("token", ["", "hf_stranger", "hf_wrong"])
def test_a_push_without_the_right_token_is_refused_in_one_line(token, folder, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(StoreRefused, match=rf"^hf://datasets/{NAME}: .*HF_TOKEN.*hf auth login") as caught:
        push_dataset(folder, NAME, workers=1)
    assert "\n" not in str(caught.value)
    assert not token or token not in str(caught.value)


FAULTS = [("PUT", "X-Signature"), ("POST", "/batch"), ("POST", "preupload"), ("GET", "/tree")]


@pytest.mark.parametrize("status", [400, 403, 404])
@pytest.mark.parametrize("fault", FAULTS, ids=["upload", "batch", "preupload", "tree"])
def test_a_failed_request_ends_in_one_line_without_secrets(fault, status, folder, hub):
    hub.fail[fault] = [status] * 50
    with pytest.raises(GQNError, match=rf"^hf://datasets/{NAME}: ") as caught:
        push_dataset(folder, NAME, workers=1)
    assert not any(secret in str(caught.value) for secret in (TOKEN, SIGNATURE, "\n"))
    assert hub.files("dataset", NAME) == {}


def test_the_command_prints_the_address(folder, hub):
    found = CliRunner().invoke(cli.main, ["push", str(folder), NAME, "--private", "--workers", "1", "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout) == {"address": f"hf://datasets/{NAME}@{hub.commits['dataset', NAME][-1][0]}"}
    info = CliRunner().invoke(cli.main, ["info", f"hf://datasets/{NAME}"])
    assert info.exit_code == 0, info.output
    wrong = CliRunner().invoke(cli.main, ["info", "hf://datasets/user/misspelt"])
    assert wrong.exit_code == 1
    assert wrong.stderr.count("\n") == 1
    assert "misspelt" in wrong.stderr


def test_the_package_of_the_hub_downloads_what_was_pushed(made, hub, tmp_path):
    # Older versions send the token to another port of the same host, which the storage refuses.
    huggingface_hub = pytest.importorskip("huggingface_hub", minversion="2.4")
    push_dataset(made["webdataset"], NAME, workers=1)
    api = huggingface_hub.HfApi(endpoint=hub.url, token=TOKEN)
    for name in tree(made["webdataset"]):
        copy = api.hf_hub_download(NAME, name, repo_type="dataset", cache_dir=tmp_path)
        assert Path(copy).read_bytes() == (made["webdataset"] / name).read_bytes()
