"""Paths and URLs given to both commands: missing buckets, `~`, secrets, and URLs where only a disk will do."""

import re

import click
import pytest
from click.testing import CliRunner
from fault_server import FaultServer
from made_scenes import SET, make_raw_folder, tree

from gqn_data.cli import main as gqn_data
from gqn_data.convert import convert
from gqn_data.convert.plan import Options
from gqn_data.schema.catalog import SCENE_SETS
from gqn_model.cli import main as gqn

ROW = SCENE_SETS[SET]
SECRETS = ("hunter2", "signed==")


def run(*arguments, command=gqn_data):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def good(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    """Return an empty working directory, without the user's settings."""
    for name in ("GQN_DATA", "GQN_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


# Buckets that do not exist.

IN_BUCKET = {
    "convert to it": ["convert", "{raw}", "--out", "{gone}"],
    "convert a part to it": ["convert", "{raw}", "--out", "{gone}", "--shard", "0/2"],
    "convert from it": ["convert", "{gone}", "--set", SET],
    "convert below it": ["convert", SET, "--root", "{gone}"],
    "plan a conversion of it": ["convert", "{gone}", "--set", SET, "--dry-run"],
    "render to it": ["render", "rooms_ring_camera", "--scenes", "2", "--root", "{gone}", "--format", "zarr"],
    "info": ["info", "{gone}", "--set", SET],
    "info of a set": ["info", SET, "--root", "{gone}"],
    "verify": ["verify", "{gone}", "--set", SET],
    "index": ["index", "{gone}", "--set", SET],
    "view": ["view", "{gone}", "-o", "x.png"],
}


@pytest.mark.parametrize("name", IN_BUCKET)
def test_a_missing_bucket_is_one_line(name, s3, shared_raw, faults):
    if name == "render to it":
        pytest.importorskip("numba")
    gone = s3 + "-gone"
    result = run(*(word.format(raw=shared_raw, gone=f"{gone}/data") for word in IN_BUCKET[name]))
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert errors == [line for line in errors if line.startswith(f"Error: {gone}: no such bucket")]
    assert (result.exit_code, len(errors)) == (1, 1)
    faults.record(
        "found in use: a bucket that does not exist",
        holds="each command ends at once, with one line that names the bucket",
        tries=1,
        survived=1,
    )


@pytest.mark.parametrize("words", [["index", "{url}"], ["convert", "{url}", "--out", "{url}"]])
def test_commands_that_would_write_to_a_web_server_say_so(words, shared_raw, faults):
    with FaultServer(shared_raw.parents[1]) as server:
        result = run(*(word.format(url=f"{server.url}/raw/{SET}") for word in words))
    assert result.exit_code == 2
    assert re.match(rf"Error: {server.url}/raw/{SET}.*: found a web server", result.stderr), result.stderr
    faults.record(
        "found in use: a web server as a place to write",
        holds="one line that says so, without a request",
        tries=1,
        survived=1,
    )


# Local paths.


def commands_of(group, name=""):
    for word, command in group.commands.items():
        yield f"{name} {word}".strip(), command


def test_no_option_takes_paths_that_are_not_parsed():
    for group in (gqn_data, gqn):
        for name, command in commands_of(group):
            for param in command.params:
                assert not isinstance(param.type, click.Path | click.File), (name, param.name)


URL_REFUSED = [
    (gqn_data, ["view", "x", "-o", "s3://bucket/x.png"]),
    (gqn_data, ["bench", "x", "--plot", "https://host/x.png"]),
    (gqn_data, ["cache", "--cache", "s3://bucket/cache"]),
    (gqn_data, ["download", SET, "--root", "s3://bucket/data"]),
    (gqn, ["train", "--shards", "x", "--out", "s3://bucket/run"]),
    (gqn, ["train", "--resume", "s3://bucket/run"]),
    (gqn, ["evaluate", "s3://bucket/run"]),
    (gqn, ["evaluate", "run", "--index", "s3://bucket/index.json"]),
    (gqn, ["sample", "run", "-o", "s3://bucket/x.png"]),
    (gqn, ["export", "run", "-o", "s3://bucket/x.safetensors"]),
    (gqn, ["plot", "s3://bucket/run", "-o", "x.png"]),
    (gqn, ["plot", "run", "-o", "s3://bucket/x.png"]),
]


@pytest.mark.parametrize(("command", "words"), URL_REFUSED)
def test_a_url_is_refused_where_only_a_disk_will_do(command, words, here):
    result = run(*words, command=command)
    assert result.exit_code == 2
    assert re.search(r"(s3|https)://.*: found a URL, expected a local path", result.output + result.stderr)
    assert tree(here) == {}


def test_the_home_folder_is_expanded_in_each_option(tmp_path, here, monkeypatch, faults):
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    make_raw_folder(home / "data/raw" / SET)
    raw = f"~/data/raw/{SET}"
    with FaultServer(home / "data/raw") as server:
        good("download", SET, "--root", "~/copy", "--files", "1", "--base-url", server.url)
    good("index", raw)
    good("info", raw)
    good("verify", raw)
    good("convert", raw, "--out", "~/out", "--workers", "1")
    good("convert", SET, "--root", "~/data", "--out", "~/set", "--workers", "1")
    (home / "sheets").mkdir()
    good("view", raw, "-o", "~/sheets/sheet.png")
    monkeypatch.setenv("GQN_DATA", "~/data")
    monkeypatch.setenv("GQN_CACHE", "~/cache")
    good("info", SET)
    assert f"{home}/cache" in good("cache").output
    good("cache", "--cache", "~/other", "--verify")
    made = {"copy/raw", f"out/zarr/{SET}", f"set/zarr/{SET}", "sheets/sheet.png"}
    assert [name for name in made if not (home / name).exists()] == []
    assert tree(here) == {}
    faults.record(
        "found in use: ~ in a path", holds="it is the home folder, in each option and variable", tries=10, survived=10
    )


@pytest.mark.parametrize("words", [["info", "~nobody-of-this-name/x"], ["cache", "--cache", "~nobody-of-this-name"]])
def test_an_unknown_home_folder_is_refused(words, here):
    result = run(*words)
    assert result.exit_code == 2
    assert "~nobody-of-this-name" in result.stderr
    assert not any(here.iterdir())


def test_relative_paths_are_printed_as_they_were_given(tmp_path, here):
    make_raw_folder(here / "data/raw" / SET)
    assert good("convert", SET, "--workers", "1").stdout.startswith(f"data/zarr/{SET}: ")
    assert good("convert", SET, "--out", "../out", "--workers", "1").stdout.startswith(f"../out/zarr/{SET}: ")
    assert good("convert", SET, "--out", tmp_path / "o", "--workers", "1").stdout.startswith(f"{tmp_path}/o/zarr/{SET}")


# Secrets.


def test_secrets_of_a_url_reach_no_file_and_no_output(tmp_path, here, shared_raw, monkeypatch, faults):
    monkeypatch.setenv("GQN_CACHE", str(tmp_path / "cache"))
    convert(shared_raw, ROW, tmp_path / "made", Options(formats=("zarr",), workers=1))
    (tmp_path / "made/raw").mkdir()
    (tmp_path / "made/raw" / SET).symlink_to(shared_raw)
    said = []
    with FaultServer(tmp_path / "made") as server:
        url = server.url.replace("//", "//me:hunter2@")
        dataset, raw = f"{url}/zarr/{SET}?sig=signed==", f"{url}/raw/{SET}?sig=signed=="
        for words in (
            ["info", dataset],
            ["verify", dataset, "--workers", 1],
            ["view", dataset, "-o", "x.png"],
            ["convert", dataset, "--out", "out", "--format", "numpy", "--workers", 1],
            ["convert", dataset, "--out", "part", "--shard", "0/2", "--workers", 1],
            ["convert", raw, "--out", "raw", "--workers", 1],
            ["download", SET, "--root", "raw", "--files", 1, "--base-url", f"{url}/raw?sig=signed=="],
            ["info", f"{url}/nothing?sig=signed=="],
            ["index", raw],
            ["convert", dataset, "--out", dataset],
        ):
            result = run(*words)
            assert (result.exit_code == 0) == (len(said) < 7), result.output + result.stderr
            said.append(result.output + result.stderr)
        missing = {(asked.path, asked.query) for asked in server.asked if asked.query != "sig=signed=="}
        assert not missing
        assert all("uthorization" in " ".join(asked.headers) for asked in server.asked)
    written = {**tree(here), **tree(tmp_path / "cache")}
    assert len(written) > 20
    for secret in SECRETS:
        assert not [line for line in said if secret in line]
        assert not [name for name, data in written.items() if secret.encode() in data or secret in name]
    faults.record(
        "found in use: a secret in the URL of a store",
        holds="it is sent to the store, and in no message and no file",
        tries=len(said),
        survived=len(said),
    )
