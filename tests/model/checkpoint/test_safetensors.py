"""Weights as a safetensors file: bitwise the same network, and altered or foreign files are refused."""

from __future__ import annotations

import json
import math
import random
import re
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
from synthetic import small, small_inputs

from gqn_data.errors import CheckpointError, NoSpace, OptionError
from gqn_model import GQN, load_model, load_safetensors
from gqn_model.checkpoint.checkpoint import save_checkpoint
from gqn_model.checkpoint.safetensors import _checksum, export_weights, read_weights
from gqn_model.cli import main as gqn
from gqn_model.config import Config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with its best checkpoint at step 2 and its newest at step 4."""
    run = made_run(tmp_path_factory.mktemp("run") / "run", steps=())
    for step, psnr in ((2, 18.0), (4, 16.0)):
        save_checkpoint(run, made(step, smallest(cache="/home/alice/copies"), prior(psnr)), 3)
    return run


@pytest.fixture
def path(run: Path, tmp_path: Path) -> Path:
    return export_weights(run, tmp_path / "weights.safetensors")


def test_exported_weights_predict_bit_for_bit_like_the_run(run: Path, path: Path) -> None:
    ours, theirs = load_model(run), load_safetensors(path)
    assert not theirs.training
    context, query, _ = small_inputs(smallest())
    assert isinstance(ours, GQN)
    assert isinstance(theirs, GQN)
    one, other = (model.sample(context, query, 3, seed=1) for model in (ours, theirs))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    "config",
    [
        smallest(representation="tower"),
        smallest(representation="pool", shared_cores=False),
        smallest(pose_numbers=9, kernel=3),
        small(model="plane_sweep"),
    ],
    ids=["tower", "pool", "pose", "plane_sweep"],
)
def test_every_kind_of_network_is_read_back(config: Config, tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", steps=(3,), config=config)
    weights = read_weights(export_weights(run, tmp_path / "weights.safetensors"))
    assert weights.config == config
    assert all(torch.equal(value, weights.tensors[name]) for name, value in made(3, config).model.items())


def test_an_exported_plane_sweep_predicts_bit_for_bit_like_its_run(tmp_path: Path) -> None:
    config = small(model="plane_sweep")
    run = made_run(tmp_path / "run", steps=(3,), config=config)
    context, query, _ = small_inputs(config)
    ours, theirs = load_model(run), load_safetensors(export_weights(run, tmp_path / "weights.safetensors"))
    assert torch.equal(ours.predict(context, query), theirs.predict(context, query))


def test_the_file_holds_the_facts_of_the_run_but_no_private_path(path: Path) -> None:
    weights = read_weights(path)
    assert (weights.step, weights.scene_set, weights.fingerprint) == (4, "bars", "f" * 64)
    assert weights.pose_order == "x y z sin_yaw cos_yaw sin_pitch cos_pitch"
    assert b"alice" not in path.read_bytes()


def test_the_safetensors_library_reads_the_tensors(path: Path) -> None:
    found = load_file(path)
    expected = made(4).model
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_repeated_exports_are_identical(run: Path, path: Path, tmp_path: Path) -> None:
    for number in range(5):
        again = export_weights(run, tmp_path / f"{number}.safetensors", step=4)
        assert again.read_bytes() == path.read_bytes()


def test_step_best_exports_the_best_checkpoint(run: Path, tmp_path: Path) -> None:
    assert read_weights(export_weights(run, tmp_path / "best.safetensors", "best")).step == 2


def test_another_suffix_is_refused_before_the_run_is_read(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"weights\.pt: .*\.safetensors"):
        export_weights(tmp_path / "no run", tmp_path / "weights.pt")


def test_gqn_export_prints_the_path_of_the_file(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "weights.safetensors"
    result = CliRunner().invoke(gqn, ["export", str(run), "-o", str(output), "--step", "best"])
    assert result.exit_code == 0, result.output
    assert result.output.strip() == str(output)
    assert read_weights(output).step == 2


def test_the_option_step_takes_an_existing_number_or_best(run: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "weights.safetensors")
    for step, code in (("worst", 2), ("-1", 2), ("1.5", 2), ("3", 1), ("2", 0)):
        result = CliRunner().invoke(gqn, ["export", str(run), "-o", output, "--step", step])
        assert result.exit_code == code, result.output
    assert "--resume" in CliRunner().invoke(gqn, ["train", "--shards", "x", "--step", "3"]).output


def test_a_full_disk_leaves_no_partial_file(run: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        disk.resize(PAGE)
        with pytest.raises(NoSpace, match=r"weights\.safetensors"):
            export_weights(run, disk.folder / "weights.safetensors")
        assert not list(disk.folder.iterdir())


def test_a_file_with_any_bit_flipped_is_refused(path: Path, faults: Any) -> None:
    raw = path.read_bytes()
    header = 8 + struct.unpack("<Q", raw[:8])[0]
    rng = random.Random(4)
    tries = faults.tries(60, full=400)
    for number in range(tries):
        bit = rng.randrange(8 * header) if number % 2 else rng.randrange(8 * len(raw))
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"weights\.safetensors: ") as error:
            read_weights(path)
        assert "\n" not in str(error.value)
    faults.record("flipped bits: exported weights", holds="refused with a message", tries=tries, survived=tries)


def test_a_file_cut_at_any_length_is_refused(path: Path) -> None:
    raw = path.read_bytes()
    for length in (0, 4, 8, 100, 1000, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:length])
        with pytest.raises(CheckpointError, match=r"weights\.safetensors: "):
            read_weights(path)
    path.write_bytes(raw + b"more")
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: "):
        read_weights(path)


def _facts(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    facts: dict[str, Any] = json.loads(header["__metadata__"]["gqn"])
    return facts


def _rename(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    tensors["module.look.bias"] = tensors.pop("look.bias")


def _reshape(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    tensors["look.bias"] = torch.zeros(5)


def _halve_precision(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    tensors["look.bias"] = tensors["look.bias"].half()


def _change_numbers(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    tensors["look.bias"] = tensors["look.bias"] + 1


def _change_step(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    facts["step"] += 1


def _change_config(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    facts["config"]["model"]["hidden"] = 3


def _huge(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    facts["config"]["model"] |= {"core_steps": 10**9, "shared_cores": False}


def _unknown_setting(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    facts["config"]["model"]["hiden"] = 3


def _no_config(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    facts["config"] = []


def _no_model_table(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    facts["config"]["model"] = [1]


def _later_format(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    facts["format"] = 2


def _long(tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    facts["scene_set"] = "x" * 100_000


# What is changed: (change, pattern of the message).
CHANGES: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], None], str]] = {
    "a name": (_rename, r"1 missing: look\.bias\b.* 1 unexpected: module\.look\.bias\b"),
    "a shape": (_reshape, r"look\.bias \(float32 5, expected float32 3\)"),
    "a type": (_halve_precision, r"look\.bias \(F16 3, expected float32 3\)"),
    "numbers": (_change_numbers, "checksum"),
    "the step": (_change_step, "checksum"),
    "the configuration": (_change_config, r"\(float32 [\dx]+, expected float32 [\dx]+\)"),
    "the number of cores": (_huge, r"core_steps is 1000000000, .*\b1000\b"),
    "a setting": (_unknown_setting, "'hiden'.*'hidden'"),
    "no configuration": (_no_config, r"config\b.* list\b.* dict\b"),
    "no model": (_no_model_table, "`gqn export`"),
    "the format": (_later_format, r"'format': 2\b.* 1\b"),
    "the size of the metadata": (_long, r"\b65536\b"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_an_altered_file_is_refused(what: str, path: Path) -> None:
    change, pattern = CHANGES[what]
    tensors, facts = load_file(path), _facts(path)
    change(tensors, facts)
    save_file(tensors, path, {"gqn": json.dumps(facts)})
    with pytest.raises(CheckpointError, match=rf"weights\.safetensors: .*{pattern}"):
        load_safetensors(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"gqn": ""}, {"gqn": "[]"}, {"gqn": '{"format": NaN}'}])
def test_a_file_without_our_metadata_is_refused(metadata: dict[str, str] | None, path: Path) -> None:
    save_file(load_file(path), path, metadata)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: .*`gqn export`"):
        read_weights(path)


def test_a_missing_file_is_reported_with_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gqn export RUN -o weights\.safetensors"):
        load_safetensors(tmp_path / "weights.safetensors")


def test_unknown_training_settings_in_a_file_are_ignored(path: Path, run: Path) -> None:
    # Only the settings of the model affect what the network computes.
    assert set(_facts(path)["config"]) == set(Config().to_json())
    facts = _facts(path)
    facts["config"]["training"] = {"of": "another version"}
    tensors = load_file(path)
    digest = _checksum({name: value for name, value in facts.items() if name != "sha256"}, tensors)
    save_file(tensors, path, {"gqn": json.dumps(facts | {"sha256": digest})})
    assert read_weights(path).step == 4


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused_by_every_reader(value: float, path: Path, tmp_path: Path) -> None:
    checkpoint = made(2)
    name = next(iter(checkpoint.model))
    checkpoint.model[name].view(-1)[0] = value
    broken = made_run(tmp_path / "broken", steps=())
    save_checkpoint(broken, checkpoint, 3)
    for read in (load_model, lambda run: export_weights(run, tmp_path / "x.safetensors")):
        with pytest.raises(CheckpointError, match=rf"00000002\.pt: {re.escape(name)} holds NaN or infinity"):
            read(broken)
    assert not (tmp_path / "x.safetensors").exists()
    weights = read_weights(path)
    weights.tensors[name].view(-1)[0] = value
    facts = _facts(path)
    del facts["sha256"]
    facts["sha256"] = _checksum(facts, weights.tensors)
    save_file(weights.tensors, path, {"gqn": json.dumps(facts)})
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: .* holds NaN or infinity"):
        load_safetensors(path)
