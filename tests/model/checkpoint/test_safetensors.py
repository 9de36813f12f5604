"""Weights as a safetensors file: the same network to the bit, and no other file taken for one."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from made_checkpoints import made, made_run, prior, smallest
from safetensors.torch import load_file, save_file
from small_disks import PAGE, small_disk
from synthetic import small_inputs

from gqn_data.errors import CheckpointError, NoSpace, OptionError
from gqn_model import load_model, load_safetensors
from gqn_model.checkpoint.checkpoint import save_checkpoint
from gqn_model.checkpoint.safetensors import export_weights, read_weights
from gqn_model.cli import main as gqn
from gqn_model.config import Config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its best checkpoint at step 2, its newest at step 4."""
    run = made_run(tmp_path_factory.mktemp("run") / "run", steps=())
    for step, psnr in ((2, 18.0), (4, 16.0)):
        save_checkpoint(run, made(step, smallest(cache="/home/somebody/copies"), prior(psnr)), 3)
    return run


@pytest.fixture
def path(run: Path, tmp_path: Path) -> Path:
    return export_weights(run, tmp_path / "weights.safetensors")


def test_predictions_are_those_of_the_run_to_the_bit(run: Path, path: Path) -> None:
    ours, theirs = load_model(run), load_safetensors(path)
    assert not theirs.training
    context, query, _ = small_inputs(smallest())
    one, other = (model.sample(context, query, 3, seed=1) for model in (ours, theirs))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    "changes",
    [{"representation": "tower"}, {"representation": "pool", "shared_cores": False}, {"pose_numbers": 9, "kernel": 3}],
)
def test_every_network_is_read_back(changes: dict[str, Any], tmp_path: Path) -> None:
    config = smallest(**changes)
    run = made_run(tmp_path / "run", steps=(3,), config=config)
    weights = read_weights(export_weights(run, tmp_path / "weights.safetensors"))
    assert weights.config == config.model
    assert all(torch.equal(value, weights.tensors[name]) for name, value in made(3, config).model.items())


def test_what_is_known_of_the_weights_comes_with_them(path: Path) -> None:
    weights = read_weights(path)
    assert (weights.step, weights.scene_set, weights.fingerprint) == (4, "bars", "f" * 64)
    assert weights.pose_order == "x y z sin_yaw cos_yaw sin_pitch cos_pitch"
    assert b"somebody" not in path.read_bytes()


def test_others_read_the_tensors_with_the_library_alone(path: Path) -> None:
    found = load_file(path)
    expected = made(4).model
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_the_same_weights_give_the_same_bytes(run: Path, path: Path, tmp_path: Path) -> None:
    for number in range(5):
        again = export_weights(run, tmp_path / f"{number}.safetensors", step=4)
        assert again.read_bytes() == path.read_bytes()


def test_the_best_is_exported_where_it_is_asked_for(run: Path, tmp_path: Path) -> None:
    assert read_weights(export_weights(run, tmp_path / "best.safetensors", "best")).step == 2


def test_another_ending_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"weights\.pt: .*\.safetensors"):
        export_weights(tmp_path / "no run", tmp_path / "weights.pt")


def test_the_command_exports_and_tells_where(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "weights.safetensors"
    result = CliRunner().invoke(gqn, ["export", str(run), "-o", str(output), "--step", "best"])
    assert result.exit_code == 0, result.output
    assert result.output.strip() == str(output)
    assert read_weights(output).step == 2


def test_a_step_is_a_number_or_best(run: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "weights.safetensors")
    for step, code in (("worst", 2), ("-1", 2), ("1.5", 2), ("3", 1), ("2", 0)):
        result = CliRunner().invoke(gqn, ["export", str(run), "-o", output, "--step", step])
        assert result.exit_code == code, result.output
    assert "--resume" in CliRunner().invoke(gqn, ["train", "--shards", "x", "--step", "3"]).output


def test_a_full_disk_leaves_nothing_half_written(run: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        disk.resize(PAGE)
        with pytest.raises(NoSpace, match="the disk is full"):
            export_weights(run, disk.folder / "weights.safetensors")
        assert not list(disk.folder.iterdir())


def test_any_flipped_bit_is_noticed(path: Path, faults: Any) -> None:
    raw = path.read_bytes()
    header = 8 + struct.unpack("<Q", raw[:8])[0]
    chance = random.Random(4)
    tries = faults.tries(60, full=400)
    for number in range(tries):
        place = chance.randrange(8 * header) if number % 2 else chance.randrange(8 * len(raw))
        flipped = bytearray(raw)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError) as error:
            read_weights(path)
        assert "\n" not in str(error.value)
    faults.record("bits flipped: exported weights", holds="refused", tries=tries, survived=tries)


def test_a_file_cut_at_any_length_is_refused(path: Path) -> None:
    raw = path.read_bytes()
    for length in (0, 4, 8, 100, 1000, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:length])
        with pytest.raises(CheckpointError, match="export it again"):
            read_weights(path)
    path.write_bytes(raw + b"more")
    with pytest.raises(CheckpointError, match="export it again"):
        read_weights(path)


def _facts(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    facts: dict[str, Any] = json.loads(header["__metadata__"]["gqn"])
    return facts


def _renamed(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    tensors["module.look.bias"] = tensors.pop("look.bias")


def _misshapen(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    tensors["look.bias"] = torch.zeros(5)


def _half(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    tensors["look.bias"] = tensors["look.bias"].half()


def _other_numbers(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    tensors["look.bias"] = tensors["look.bias"] + 1


def _other_step(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    facts["step"] += 1


def _other_config(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    facts["config"]["model"]["hidden"] = 3


def _huge(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    facts["config"]["model"] |= {"core_steps": 10**9, "shared_cores": False}


def _unknown_setting(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    facts["config"]["model"]["hiden"] = 3


def _no_config(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    facts["config"] = []


def _no_table_of_the_model(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    facts["config"]["model"] = [1]


def _later_format(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    facts["format"] = 2


def _long(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    facts["scene_set"] = "x" * 100_000


CHANGES: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], None], str]] = {
    "a name": (_renamed, r"1 missing: look\.bias; 1 unexpected: module\.look\.bias"),
    "a shape": (_misshapen, r"look\.bias \(float32 5, expected float32 3\)"),
    "a type": (_half, r"look\.bias \(F16 3, expected float32 3\)"),
    "numbers": (_other_numbers, "damaged"),
    "the step": (_other_step, "damaged"),
    "the configuration": (_other_config, "not the weights of this network"),
    "a configuration without end": (_huge, "expected those of 10+ cores"),
    "a setting": (_unknown_setting, "did you mean 'hidden'"),
    "no configuration": (_no_config, "its config is list, expected dict"),
    "no model": (_no_table_of_the_model, "not weights"),
    "the format": (_later_format, "expected 1"),
    "too long a table": (_long, "at most 65536"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_file_that_somebody_changed_is_refused(what: str, path: Path) -> None:
    change, words = CHANGES[what]
    tensors, facts = load_file(path), _facts(path)
    change(tensors, facts)
    save_file(tensors, path, {"gqn": json.dumps(facts)})
    with pytest.raises(CheckpointError, match=rf"weights\.safetensors: .*{words}"):
        load_safetensors(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"gqn": ""}, {"gqn": "[]"}, {"gqn": '{"format": NaN}'}])
def test_a_file_of_somebody_elses_is_refused(metadata: dict[str, str] | None, path: Path) -> None:
    save_file(load_file(path), path, metadata)
    with pytest.raises(CheckpointError, match="not weights of `gqn export`"):
        read_weights(path)


def test_a_file_that_is_not_there_is_told_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gqn export RUN -o weights\.safetensors"):
        load_safetensors(tmp_path / "weights.safetensors")


def test_settings_of_a_training_that_later_versions_no_longer_know_do_not_matter(path: Path, run: Path) -> None:
    # What a network computes is in the part of the model.
    assert set(_facts(path)["config"]) == set(Config().to_json())
    facts = _facts(path)
    facts["config"]["training"] = {"of": "another version"}
    tensors = load_file(path)
    from gqn_model.checkpoint.safetensors import _checksum

    digest = _checksum({name: value for name, value in facts.items() if name != "sha256"}, tensors)
    save_file(tensors, path, {"gqn": json.dumps(facts | {"sha256": digest})})
    assert read_weights(path).step == 4
