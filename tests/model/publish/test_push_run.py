"""Pushing runs to the hub, and using them by their address, against a local server that answers as the hub does."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from hub_server import SIGNATURE, TOKEN, HubServer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from synthetic import small

from gqn_data.convert import convert
from gqn_data.convert.plan import Options
from gqn_data.errors import CheckpointError, DestinationError, GQNError, OptionError, StoreRefused
from gqn_data.io import atomic
from gqn_data.push import push_dataset
from gqn_data.schema.catalog import SCENE_SETS
from gqn_model import load_model
from gqn_model.checkpoint.checkpoint import load_checkpoint
from gqn_model.checkpoint.load import load_run
from gqn_model.checkpoint.pull import fetch_weights, local_run, parse_run, published_address
from gqn_model.checkpoint.run_folder import RUN_FILE, read_facts
from gqn_model.checkpoint.safetensors import _checksum
from gqn_model.cli import main as gqn
from gqn_model.config import Config, resolve
from gqn_model.evaluate import evaluate
from gqn_model.publish.card import train_command
from gqn_model.publish.push import push_run
from gqn_model.publish.results import read_results

constants = pytest.importorskip("huggingface_hub.constants")
# Of the package's own HTTP client.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NAME = "user/net"
ADDRESS = f"hf://{NAME}"
FILES = {"README.md", "config.json", "run.json", "model.safetensors"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Serve a hub, in an empty working directory."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its servers speak a binary protocol
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture(params=["bars_run", "sweep_run"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a run of each model, without the evaluations of other tests."""
    return _copy(request.getfixturevalue(request.param), tmp_path)


@pytest.fixture
def gqn_run(bars_run: Path, tmp_path: Path) -> Path:
    return _copy(bars_run, tmp_path)


def _copy(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder / "run", ignore=shutil.ignore_patterns("evaluation")))


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


def command(*words: object) -> Any:
    return CliRunner().invoke(gqn, list(map(str, words)))


def test_a_pushed_run_is_loaded_bit_for_bit_and_shows_no_private_name(run: Path, bars: Path, hub: Any) -> None:
    address = push_run(run, NAME)
    files = hub.files("model", NAME)
    assert set(files) == FILES
    assert not any(secret.encode() in data for data in files.values() for secret in (str(bars), str(run), TOKEN))
    assert address == f"{ADDRESS}@{hub.commits['model', NAME][-1][0]}"
    for there in (ADDRESS, address):
        assert same(load_model(there), load_model(run))
    assert not any(TOKEN in repr(asked) for asked in hub.asked if asked.host == "storage")


def test_the_card_has_the_evaluation_data_seed_command_and_limits(run: Path, bars: Path, hub: Any) -> None:
    push_run(run, NAME)
    assert "was not evaluated" in hub.files("model", NAME)["README.md"].decode()
    evaluate(run, context=[1], scenes=4, samples=2)
    evaluate(run, context=[1], scenes=6, samples=2, step=0)  # another checkpoint
    result = evaluate(run, context=[1, 2], scenes=5, samples=2)
    push_run(run, NAME)
    card = hub.files("model", NAME)["README.md"].decode()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["library_name"] == "gqn-toolkit"
    assert result.model in front["tags"]
    rows = [line for line in card.splitlines() if line.startswith(("| 1 |", "| 2 |"))]
    expected = [
        f"| {point.context} | {score.name} | {score.psnr.mean:.2f} ± {score.psnr.error:.2f} |"
        for point in result.sweep
        for score in point.scores
    ]
    assert len(rows) == len(expected)
    assert all(row.startswith(start) for row, start in zip(rows, expected, strict=True))
    for said in (
        "5 test scenes",
        f"Seed {load_checkpoint(run).config.training.seed}",
        "gqn train --shards PATH",
        load_checkpoint(run).fingerprint,
        "on 5 scenes only",
        "10 of test",
        "- Scene set: rooms\\_ring\\_camera. Imported",
    ):
        assert said in card
    assert "was not evaluated" not in card


@pytest.mark.parametrize(
    "config",
    [
        resolve("paper"),
        resolve("tiny"),
        resolve("tiny", (), {"steps": 100, "seed": 3, "shared_cores": False, "learning_rate": 1e-3}),
        resolve("medium", (), {"logger": "tensorboard,wandb", "compile": True}),
        small(model="plane_sweep"),
        small(frame_size=16, warmup_steps=7),
    ],
    ids=["paper", "tiny", "changed", "loggers", "sweep", "small"],
)
def test_the_command_of_the_card_gives_the_configuration(
    config: Config, monkeypatch: pytest.MonkeyPatch, bars: Path
) -> None:
    started: list[Config] = []
    monkeypatch.setattr("gqn_model.train.run.start_run", lambda _, found, **__: started.append(found) or Path())
    words = shlex.split(train_command(config, str(bars)))
    done = command(*words[1:])
    assert done.exit_code == 0, done.output
    assert started == [config]


def test_a_picture_of_a_pushed_run_is_the_picture_of_the_run(gqn_run: Path, bars: Path, hub: Any) -> None:
    push_run(gqn_run, NAME)
    for name, of in (("ours", gqn_run), ("theirs", ADDRESS)):
        done = command("sample", of, "--shards", bars, "--scenes", 2, "-o", f"{name}.png")
        assert done.exit_code == 0, done.output
    assert Path("ours.png").read_bytes() == Path("theirs.png").read_bytes()
    without = command("sample", ADDRESS, "-o", "x.png")
    assert (without.exit_code, "--shards PATH" in without.stderr) == (2, True)
    step = load_checkpoint(gqn_run).step
    assert command("sample", ADDRESS, "--shards", bars, "-o", "x.png", "--step", step).exit_code == 0
    assert command("sample", ADDRESS, "--shards", bars, "-o", "x.png", "--step", "best").exit_code == 2


def test_a_pushed_run_is_evaluated_like_the_run(gqn_run: Path, bars: Path, hub: Any) -> None:
    address = push_run(gqn_run, NAME, private=True)
    ours = evaluate(gqn_run, context=[1], scenes=3, samples=2)
    theirs = evaluate(address, str(bars), context=[1], scenes=3, samples=2)
    assert theirs.sweep == ours.sweep
    folder = Path("runs") / f"user--net@{address.rpartition('@')[2]}"
    assert Path(theirs.result).parent == folder / "evaluation"
    done = command("evaluate", gqn_run, ADDRESS, "--shards", bars, "--context", 1, "--scenes", 3, "--json")
    assert done.exit_code == 0, done.output
    one, other = json.loads(done.stdout)
    assert one["sweep"] == other["sweep"]


def test_results_of_test_only_datasets_are_all_read(gqn_run: Path) -> None:
    found = evaluate(gqn_run, context=[1], scenes=3, samples=2)
    folder = Path(found.result).parent
    for questions in ("one", "other"):
        value = json.loads(Path(found.result).read_text()) | {"questions": questions}
        value["dataset"]["fingerprint"] = None  # a dataset without a train split
        (folder / f"result-test-3-{questions}.json").write_text(json.dumps(value))
    results = read_results(gqn_run, found.step)
    assert sorted(one.questions for one in results) == sorted(["one", "other", found.questions])


def test_a_run_on_a_pushed_dataset_finds_it_again(gqn_run: Path, bars: Path, hub: Any, tmp_path: Path) -> None:
    options = Options(formats=("webdataset",), workers=1)
    made = convert(bars, SCENE_SETS["rooms_ring_camera"], tmp_path / "root", options)[0]
    dataset = push_dataset(made.folder, "user/bars", workers=1)
    facts = json.loads((gqn_run / RUN_FILE).read_text())
    atomic.write_json(gqn_run / RUN_FILE, facts | {"shards": dataset})
    push_run(gqn_run, NAME)
    card = hub.files("model", NAME)["README.md"].decode()
    assert yaml.safe_load(card.split("---\n")[1])["datasets"] == ["user/bars"]
    assert f"gqn train --shards {dataset} " in card
    assert command("sample", ADDRESS, "-o", "x.png").exit_code == 0


@pytest.mark.parametrize(
    ("shards", "published"),
    [
        ("hf://datasets/user/set@v1/folder", True),
        ("render:mazes,seed=3", True),
        ("/home/alice/data", False),
        ("s3://alice/data", False),
        ("https://intranet/data", False),
        ("", False),
    ],
)
def test_only_addresses_that_others_can_use_are_published(shards: str, published: bool) -> None:
    assert published_address(shards) == (shards if published else "")


def test_a_changed_run_replaces_the_copy_and_never_a_training(gqn_run: Path, hub: Any) -> None:
    push_run(gqn_run, NAME, step=0)
    folder = local_run(ADDRESS)
    assert load_model(folder, 0) is not None
    push_run(gqn_run, NAME)
    assert local_run(ADDRESS) == folder
    assert same(load_model(folder), load_model(gqn_run))
    (folder / "checkpoints").mkdir()
    with pytest.raises(DestinationError, match="training"):
        local_run(ADDRESS)


HOSTILE = {
    "no weights": {"model.safetensors": None},
    "an empty file": {"model.safetensors": b""},
    "other bytes": {"model.safetensors": b"\x80\x04" * 5000},
    "no facts": {"run.json": None},
    "facts of another kind": {"run.json": b"[1]"},
    "a broken configuration": {"config.json": b"{"},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_repository_without_a_sound_run_is_refused_in_one_line(
    kind: str, gqn_run: Path, bars: Path, hub: Any
) -> None:
    push_run(gqn_run, NAME)
    files = {**hub.files("model", NAME), **HOSTILE[kind]}
    hub.commit("model", NAME, {name: data for name, data in files.items() if data is not None})
    done = command("sample", ADDRESS, "--shards", bars, "-o", "x.png")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert "net/" in done.stderr or ADDRESS in done.stderr
    assert not Path("x.png").exists()


def test_a_stranger_chooses_neither_cache_nor_dataset(gqn_run: Path, hub: Any, tmp_path: Path) -> None:
    push_run(gqn_run, NAME)
    facts = json.loads(hub.files("model", NAME)["run.json"])
    hub.put("model", NAME, {"run.json": json.dumps(facts | {"shards": str(tmp_path)}).encode()})
    path = tmp_path / "weights.safetensors"
    path.write_bytes(hub.files("model", NAME)["model.safetensors"])
    with safe_open(path, framework="pt") as file:
        table = json.loads(file.metadata()["gqn"])
    del table["sha256"]
    table["config"]["training"]["cache"] = str(tmp_path / "chosen")
    tensors = load_file(path)
    save_file(tensors, path, {"gqn": json.dumps({**table, "sha256": _checksum(table, tensors)})})
    hub.put("model", NAME, {"model.safetensors": path.read_bytes()})
    folder = local_run(ADDRESS)
    assert read_facts(folder).shards == ""
    assert load_run(folder, None, "cpu").checkpoint.config.training.cache == ""


@pytest.mark.parametrize("text", ["s3://bucket/run", "hf://datasets/user/set", "https://host/run"])
def test_other_urls_are_no_runs(text: str) -> None:
    with pytest.raises(OptionError, match="hf://USER/NAME"):
        parse_run(text)


def test_a_private_or_misspelt_run_names_the_remedy(gqn_run: Path, hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    push_run(gqn_run, NAME, private=True)
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(StoreRefused, match="HF_TOKEN"):
        load_model(ADDRESS)
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    with pytest.raises(GQNError, match="hf auth login") as caught:
        load_model(ADDRESS)
    assert not any(secret in str(caught.value) for secret in ("hf_stranger", SIGNATURE))


def test_weights_are_fetched_once(gqn_run: Path, hub: Any) -> None:
    address = parse_run(push_run(gqn_run, NAME))
    assert not isinstance(address, Path)
    copy = fetch_weights(address)
    hub.asked.clear()
    assert fetch_weights(address) == copy
    assert {asked.method for asked in hub.asked} == {"HEAD"}


def test_the_command_prints_the_address_and_refuses_what_is_no_run(gqn_run: Path, hub: Any, tmp_path: Path) -> None:
    done = command("push", gqn_run, NAME, "--private", "--step", "best")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{ADDRESS}@{hub.commits['model', NAME][-1][0]}\n"
    assert ("model", NAME) in hub.private
    assert command("push", tmp_path, NAME).exit_code == 1
    assert command("push", gqn_run, "net").exit_code == 2
    (gqn_run / "evaluation").mkdir(exist_ok=True)
    (gqn_run / "evaluation/result-broken.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"result-broken\.json"):
        push_run(gqn_run, NAME)
