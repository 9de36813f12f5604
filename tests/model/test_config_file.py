"""`gqn train --config`: files of settings, flags that override them, and keys that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gqn_data.errors import OptionError, SourceMissing
from gqn_model.checkpoint.run_folder import read_config, write_config
from gqn_model.cli import main
from gqn_model.config import PRESETS, Config, declarations, resolve
from gqn_model.config_file import COMMAND_OPTIONS, read_config_file
from gqn_model.train import run as runs

TOML = """
preset = "tiny"
mods = ["pool"]

[model]
hidden = 48

[training]
steps = 100
learning_rate = 1
"""


@pytest.fixture
def resolved(bars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that passes flags to `gqn train` and returns the configuration and label of the run."""
    found: list[tuple[Config, str]] = []

    def start(_: object, config: Config, *, out: object, label: str) -> Path:
        found.append((config, label))
        return tmp_path

    monkeypatch.setattr(runs, "start_run", start)

    def train(*words: object) -> tuple[Config, str]:
        done = _train("--shards", bars, *words)
        assert done.exit_code == 0, done.output
        return found.pop()

    return train


def _train(*words: object) -> Result:
    return CliRunner().invoke(main, ["train", *map(str, words)])


def _file(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_settings_of_a_file_are_those_of_the_same_flags(tmp_path: Path, resolved: Any) -> None:
    config, label = resolved("--config", _file(tmp_path, TOML))
    assert config == resolve("tiny", ["pool"], {"hidden": 48, "steps": 100, "learning_rate": 1.0})
    assert label == "tiny"
    _, label = resolved("--config", _file(tmp_path, "[training]\nsteps = 5"))
    assert label == "mine"


def test_flags_override_the_file(tmp_path: Path, resolved: Any) -> None:
    path = _file(tmp_path, TOML.replace("hidden = 48", 'hidden = 48\nrepresentation = "tower"'))
    config, _ = resolved("--config", path, "--hidden", 16, "--mod", "pyramid", "--steps", 7)
    assert (config.model.hidden, config.model.representation, config.training.steps) == (16, "pyramid", 7)
    assert config.training.learning_rate == 1
    config, label = resolved("--config", path, "--preset", "medium")
    assert (config.model.core_steps, config.model.hidden, label) == (PRESETS["medium"]["core_steps"], 48, "medium")


@pytest.mark.parametrize("preset", list(PRESETS))
def test_the_configuration_that_a_run_writes_is_read(tmp_path: Path, resolved: Any, preset: str) -> None:
    written = resolve(preset, (), {"steps": 123, "seed": 5})
    write_config(tmp_path, written)
    config, _ = resolved("--config", tmp_path / "config.json")
    assert config == written == read_config(tmp_path)
    config, _ = resolved("--config", tmp_path / "config.json", "--seed", 6)
    assert config == written.replaced({"seed": 6})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[model]\nhiden = 3", "unknown setting 'hiden'; did you mean 'hidden'"),
        ("[training]\nbatch-size = 3", "did you mean 'batch_size'"),
        ("[trainig]\nsteps = 3", "unknown key 'trainig'; did you mean 'training'"),
        ("steps = 3", r"found steps above the tables, expected it in \[training\]"),
        ("[training]\nhidden = 3", r"found hidden in \[training\], expected it in \[model\]"),
        ('shards = "x"', "found shards, which is not a setting; pass --shards"),
        ("[training]\nviewer = true", "found viewer, which is not a setting; pass --viewer"),
        ("model = 3", r"expected the table \[model\]"),
        ('preset = "tinny"', "did you mean 'tiny'"),
        ("preset = 3", "unknown preset '3'"),
        ('mods = "pool"', "expected a list"),
        ('mods = ["pol"]', "did you mean 'pool'"),
        ("[training]\nsteps = true", "steps is True"),
        ("[training]\nsteps = -1", "steps is -1"),
        ("[training]\nlearning_rate = nan", "learning_rate is nan"),
        ("[training]\nsteps = 2026-01-01", "steps is datetime.date"),
        ("[training\n", "not TOML"),
        ("a = " + "[" * 100_000, "not TOML"),
    ],
)
def test_what_a_file_must_not_hold_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(OptionError, match=rf"mine\.toml: .*{words}"):
        read_config_file(_file(tmp_path, text))


def test_options_of_the_command_are_settings_or_named_as_options() -> None:
    flags = {max(one.opts, key=len)[2:].replace("-", "_") for one in main.commands["train"].params}
    known = {one.name for one in declarations()}
    assert flags - known - {"preset", "help"} == set(COMMAND_OPTIONS)


def test_files_that_cannot_be_read_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="does not exist"):
        read_config_file(tmp_path / "x.toml")
    with pytest.raises(OptionError, match=r"expected \.toml or \.json"):
        read_config_file(_file(tmp_path, "", "x.yaml"))
    with pytest.raises(OptionError, match="not TOML"):
        read_config_file(_file(tmp_path, "#" * (1 << 20) + "#"))
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(OptionError, match="not TOML"):
        read_config_file(binary)
    value = Config().to_json()
    value["model"]["hiden"] = 3
    with pytest.raises(OptionError, match=r"x\.json: .*did you mean 'hidden'"):
        read_config_file(_file(tmp_path, json.dumps(value), "x.json"))


def test_the_command_names_the_file(tmp_path: Path) -> None:
    done = _train("--shards", "x", "--config", _file(tmp_path, "[model]\nhiden = 3"))
    assert done.exit_code == 2
    assert "mine.toml" in done.output
    assert "'hidden'" in done.output
    for flag in ("--model=gqn", "--mod=pool"):
        done = _train("--shards", "x", "--config", _file(tmp_path, '[model]\nmodel = "plane_sweep"\nplanes = 3'), flag)
        assert done.exit_code == 2
        assert "mine.toml" in done.output
    done = _train("--resume", tmp_path, "--config", tmp_path / "mine.toml")
    assert done.exit_code == 2
    assert "omit --out, --config" in done.output
