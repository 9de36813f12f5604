"""Weights of the package: every folder loads, its card has figures, its name works on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from made_checkpoints import made_run, smallest
from safetensors.torch import load_file
from synthetic import small, small_inputs

from gqn_data.errors import CheckpointError, OptionError, UnknownName
from gqn_model import load_model, load_pretrained, load_safetensors
from gqn_model.checkpoint import pretrained
from gqn_model.checkpoint.pretrained import PRETRAINED, pretrained_folder, pretrained_names
from gqn_model.checkpoint.pull import WEIGHTS_FILE, local_pretrained
from gqn_model.checkpoint.run_folder import read_config, read_facts
from gqn_model.checkpoint.safetensors import export_weights, read_weights
from gqn_model.cli import main as gqn
from gqn_model.config import Config

MOST_BYTES = 6 << 20
NAMES = pretrained_names()


def test_the_sets_that_the_docs_promise_have_weights() -> None:
    assert {"rooms_ring_camera", "shepard_metzler_5_parts", "mazes"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_the_package_load_and_predict_frames(name: str) -> None:
    config = read_config(PRETRAINED / name)
    model = load_pretrained(name)
    assert model.config == config.model
    assert not model.training
    context, query, target = small_inputs(config)
    with torch.no_grad():
        frames = model.predict(context, query)
    assert frames.shape == target.shape
    assert 0 <= frames.min() < frames.max() <= 1
    assert (PRETRAINED / name / WEIGHTS_FILE).stat().st_size <= MOST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_the_card_has_figures_data_command_and_limits(name: str) -> None:
    card = (PRETRAINED / name / "README.md").read_text()
    for part in (
        "## Evaluation",
        "| prediction |",
        "nearest view",
        "Seed",
        "gqn train --shards",
        "rendered",
        "version",
    ):
        assert part in card
    assert f"gqn sample --pretrained {name}" in card
    assert read_facts(PRETRAINED / name).shards == f"render:{name}"


@pytest.mark.parametrize("name", ["rooms_ring_camera", "rooms-ring", "RRC"])
def test_a_set_and_its_aliases_name_the_same_weights(name: str) -> None:
    assert pretrained_folder(name).name == "rooms_ring_camera"


def test_an_unknown_name_offers_those_that_exist() -> None:
    with pytest.raises(UnknownName, match=r"did you mean .mazes."):
        load_pretrained("mazed")
    with pytest.raises(UnknownName, match=r"one of: .*mazes"):
        load_pretrained("xyz")
    for command in ("sample", "evaluate", "explore"):
        options = ["-o", "x.png"] if command == "sample" else []
        found = CliRunner().invoke(gqn, [command, "--pretrained", "nonsuch", *options])
        assert found.exit_code == 2
        assert "mazes" in found.output


@pytest.mark.parametrize("command", ["sample", "evaluate", "explore"])
def test_neither_run_nor_pretrained_is_a_usage_error(command: str) -> None:
    options = ["-o", "x.png"] if command == "sample" else []
    found = CliRunner().invoke(gqn, [command, *options])
    assert found.exit_code == 2
    assert "--pretrained" in found.output


def test_a_copy_in_runs_is_used_and_never_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in PRETRAINED.rglob("*") if path.is_file()}
    done = CliRunner().invoke(gqn, ["sample", "--pretrained", "rooms_ring", "-o", "x.png", "--scenes", "1"])
    assert done.exit_code == 0, done.output
    assert Path("x.png").stat().st_size > 1000
    assert {path: path.read_bytes() for path in PRETRAINED.rglob("*") if path.is_file()} == before
    copy = local_pretrained("rooms_ring")
    assert copy == Path("runs/pretrained-rooms_ring_camera")
    same = zip(load_model(copy).parameters(), load_pretrained("rooms_ring").parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in same)


def test_damaged_weights_of_the_package_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "mazes"
    broken.mkdir()
    data = bytearray((PRETRAINED / "mazes" / WEIGHTS_FILE).read_bytes())
    data[-1] ^= 1
    (broken / WEIGHTS_FILE).write_bytes(data)
    monkeypatch.setattr(pretrained, "PRETRAINED", tmp_path)
    with pytest.raises(CheckpointError, match="checksum"):
        load_pretrained("mazes")


@pytest.mark.parametrize("config", [smallest(), small(model="plane_sweep")], ids=["gqn", "plane_sweep"])
def test_bf16_halves_the_file_and_rounds_the_weights(config: Config, tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", config=config)
    wide = export_weights(run, tmp_path / "wide.safetensors")
    narrow = export_weights(run, tmp_path / "narrow.safetensors", precision="bf16")
    assert narrow.read_bytes() == export_weights(run, tmp_path / "again.safetensors", precision="bf16").read_bytes()
    stored, rounded, exact = load_file(narrow), read_weights(narrow).tensors, read_weights(wide).tensors
    assert sum(one.nbytes for one in stored.values()) * 2 == sum(one.nbytes for one in exact.values())
    for name, tensor in exact.items():
        assert torch.equal(rounded[name], tensor.bfloat16().float())
    assert next(load_safetensors(narrow).parameters()).dtype == torch.float32


def test_another_precision_is_refused(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    with pytest.raises(OptionError, match="bf16"):
        export_weights(run, tmp_path / "x.safetensors", precision="fp8")
