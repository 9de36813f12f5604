"""Numbers and files without measure: each number has a limit, each file is read up to a size."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from made_checkpoints import made_run, overwrite

from gqn_data.errors import CheckpointError, GQNError, OptionError
from gqn_model.checkpoint.best import read_best
from gqn_model.checkpoint.checkpoint import checkpoint_path, load_checkpoint
from gqn_model.checkpoint.run_folder import read_config, read_facts
from gqn_model.checkpoint.safetensors import export_weights, read_weights
from gqn_model.cli import main as gqn
from gqn_model.config import Config, ModelConfig, TrainingConfig, declarations, resolve
from gqn_model.data import training_batches
from gqn_model.evaluate.questions import read_index
from gqn_model.evaluate.run_evaluation import evaluate
from gqn_model.loggers.json_lines import JsonLines
from gqn_model.visualize.learning_curves import read_log

TERABYTE = 1 << 40
NUMBERS = [one.name for one in declarations() if one.kind in (int, float)]
SETTINGS = {one.name: one for owner in (ModelConfig, TrainingConfig) for one in dataclasses.fields(owner)}
PART = {one.name: one.part for one in declarations()}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made_run(tmp_path / "run", steps=(2, 4))


def _too_large(name: str) -> list[Any]:
    most = SETTINGS[name].metadata["most"]
    values = [most * 10 + 11, 10**30] if isinstance(SETTINGS[name].default, int) else [math.inf, 1e300, 10**400]
    return [*values, math.nan]


def _in_config_json(run: Path, name: str, value: Any) -> None:
    config = json.loads((run / "config.json").read_text())
    config[PART[name]][name] = value
    (run / "config.json").write_text(json.dumps(config))
    load_checkpoint(run)


def _in_a_checkpoint(run: Path, name: str, value: Any) -> None:
    path = checkpoint_path(run, 4)
    content = torch.load(path, weights_only=True)
    content["config"][PART[name]][name] = value
    torch.save(content, path)
    overwrite(run, 4, path.read_bytes())
    load_checkpoint(run)


def _in_exported_weights(run: Path, name: str, value: Any) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path = export_weights(run, run / "weights.safetensors")
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["gqn"])
    facts["config"][PART[name]][name] = value
    save_file(load_file(path), path, {"gqn": json.dumps(facts)})
    read_weights(path)


def _in_python(run: Path, name: str, value: Any) -> None:
    resolve("tiny", (), {name: value})


def _on_the_command_line(run: Path, name: str, value: Any) -> None:
    done = CliRunner().invoke(gqn, ["train", "--shards", str(run), f"--{name.replace('_', '-')}", str(value)])
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    raise OptionError(done.stderr.splitlines()[-1])


PLACES: dict[str, Callable[[Path, str, Any], None]] = {
    "config.json": _in_config_json,
    "a checkpoint": _in_a_checkpoint,
    "exported weights": _in_exported_weights,
    "Python": _in_python,
    "the command line": _on_the_command_line,
}


@pytest.mark.parametrize("place", PLACES)
def test_a_number_out_of_its_limits_is_refused_in_every_place(place: str, tmp_path: Path, faults: Any) -> None:
    # Of exported weights, only the network's settings are read.
    names = [name for name in NUMBERS if place != "exported weights" or PART[name] == "model"]
    cases = [(name, value) for name in names for value in _too_large(name)]
    run = made_run(tmp_path / "run", steps=(4,))
    for number, (name, value) in enumerate(cases):
        copy = shutil.copytree(run, tmp_path / str(number))
        with pytest.raises((OptionError, CheckpointError)) as error:
            PLACES[place](copy, name, value)
        assert "\n" not in str(error.value)
        assert name in str(error.value).replace("-", "_") or "expected a finite number" in str(error.value)
    faults.record(
        "found in use: a number without measure in a setting",
        holds="refused in one line, before anything is allocated",
        tries=len(cases),
        survived=len(cases),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden": 2048, "canvas": 2048, "core_steps": 100, "shared_cores": False},
        {"representation": "pyramid", "representation_channels": 4096, "frame_size": 64, "hidden": 4096, "kernel": 31},
        {"hidden": 4096, "core_steps": 1000},
    ],
    ids=str,
)
def test_a_training_too_large_for_memory_is_refused(changes: dict[str, Any], bars: Path) -> None:
    with pytest.raises(OptionError, match="expected at most"):
        training_batches(str(bars), resolve("paper", (), {"batch_size": 4, "workers": 0, **changes}))


@pytest.mark.parametrize(
    "value",
    [None, "5x", [1], {"a": 1}, b"1", 0.5, True, np.array([1, 2]), pytest.param(object(), id="object")],
    ids=repr,
)
def test_a_setting_of_another_type_is_an_option_error(value: Any, faults: Any) -> None:
    free = {"project", "cache", "visdom_server", "visdom_env"}  # any text is possible
    names = [name for name, one in SETTINGS.items() if type(one.default) is not type(value) or type(value) is str]
    names = [name for name in names if name not in free or type(value) is not str]
    for name in names:
        with pytest.raises(OptionError, match=name):
            Config().replaced({name: value})
    faults.record(
        "found in use: a setting of another type",
        holds="an option error that names the setting",
        tries=len(names),
        survived=len(names),
    )


def test_numbers_of_numpy_and_torch_are_settings() -> None:
    changes = {"steps": np.int64(3), "seed": torch.tensor(3), "clip": np.float32(0.5), "tf32": np.True_}
    config = resolve("tiny", (), changes)
    plain = config.to_json()["training"]
    assert {name: plain[name] for name in changes} == {"steps": 3, "seed": 3, "clip": 0.5, "tf32": True}
    assert {type(plain[name]) for name in changes} == {int, float, bool}
    json.dumps(plain)


@pytest.mark.parametrize(
    "options",
    [
        {"samples": 10**9},
        {"batch_size": 10**12},
        {"scenes": 0},
        {"workers": 10**6},
        {"context": 10**9},
        {"samples": 0.5},
        {"context": ["3"]},
        {"step": 2.0},
    ],
    ids=str,
)
def test_numbers_of_an_evaluation_have_limits(bars_run: Path, options: dict[str, Any]) -> None:
    with pytest.raises((OptionError, CheckpointError)) as error:
        evaluate(bars_run, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "words",
    ["evaluate --samples", "evaluate --batch-size", "evaluate --workers", "evaluate --context", "sample --seed"],
)
def test_numbers_of_the_commands_have_limits(bars_run: Path, words: str) -> None:
    command, flag = words.split()
    output = ["-o", "picture.png"] if command == "sample" else []
    done = CliRunner().invoke(gqn, [command, str(bars_run), *output, flag, str(10**20)])
    assert done.exit_code == 2
    assert "Traceback" not in done.output


def _sparse(path: Path) -> None:
    """Make a file a terabyte long, without its blocks."""
    path.parent.mkdir(exist_ok=True)
    path.touch()
    os.truncate(path, TERABYTE)


def _plot(run: Path) -> None:
    read_log(run)


FILES: dict[str, Callable[[Path], object]] = {
    "checkpoints/00000004.pt": load_checkpoint,
    "checkpoints/00000004.pt.sha256": load_checkpoint,
    "config.json": read_config,
    "run.json": read_facts,
    "best.json": read_best,
    "evaluation/index-test-4.json": lambda run: read_index(run / "evaluation" / "index-test-4.json"),
    "weights.safetensors": lambda run: read_weights(run / "weights.safetensors"),
    "log.jsonl": read_log,
}


@pytest.mark.parametrize("begin", ["empty", "intact"])
@pytest.mark.parametrize("file", FILES)
def test_a_sparse_file_of_a_terabyte_is_refused_unread(file: str, begin: str, run: Path, faults: Any) -> None:
    path = run / file
    if file == "weights.safetensors":
        export_weights(run, path)
    if begin == "empty":
        path.unlink(missing_ok=True)
    _sparse(path)
    with pytest.raises(GQNError) as error:
        FILES[file](run)
    assert "\n" not in str(error.value)
    assert path.name.removesuffix(".sha256") in str(error.value)
    faults.record(
        "found in use: a sparse file of a terabyte in a run",
        holds="refused in one line, and not read",
        tries=1,
        survived=1,
    )


def test_the_last_intact_checkpoint_is_found_below_sparse_ones(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", steps=(2, 4, 6))
    for step in (4, 6):
        _sparse(checkpoint_path(run, step))
    with pytest.raises(CheckpointError, match=r"00000006\.pt: .*00000002\.pt .*--step 2\b"):
        load_checkpoint(run)


def test_a_log_that_ends_in_a_terabyte_of_zeros_is_kept_up_to_there(run: Path, faults: Any) -> None:
    path = run / "log.jsonl"
    lines = "".join(json.dumps({"step": step, "kl": 1.0}) + "\n" for step in (1, 2, 3))
    path.write_text(lines)
    os.truncate(path, TERABYTE)
    assert [line["step"] for line in read_log(run)] == [1, 2, 3]
    JsonLines(run, 2).close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
    faults.record(
        "found in use: a log that ends in zeros",
        holds="its lines are plotted, and a resumed run continues it",
        tries=2,
        survived=2,
    )


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"step": Infinity}', '{"step": 1e999}', '{"step": "1"}', '{"step": null}', "9" * 5000]
)
def test_a_damaged_line_of_a_log_is_skipped(line: str, run: Path) -> None:
    (run / "log.jsonl").write_text(f'{{"step": 1}}\n{line}\n{{"step": 2, "kl": 1{"0" * 400}}}\n')
    assert [one["step"] for one in read_log(run)] == [1, 2]
    JsonLines(run, 2).close()
    assert (run / "log.jsonl").read_text().count("\n") == 2


def test_a_log_that_is_a_pipe_is_refused(run: Path) -> None:
    os.mkfifo(run / "log.jsonl")
    for read in (read_log, lambda run: JsonLines(run, 2)):
        with pytest.raises(GQNError, match="expected a regular file"):
            read(run)
