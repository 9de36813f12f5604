"""The configuration: limits, presets, mods, command-line options and error messages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import click
import pytest
from click.testing import CliRunner
from fault_counts import FaultCounts
from hypothesis import given
from hypothesis import strategies as st

from gqn_data.errors import OptionError, UnknownName
from gqn_model.cli import given as options_given
from gqn_model.cli import main, setting_options
from gqn_model.config import (
    ENCODER_NAMES,
    GROUPS,
    MODEL_NAMES,
    MODS,
    PRESETS,
    Config,
    ModelConfig,
    TrainingConfig,
    declarations,
    default_preset,
    mods_of,
    resolve,
)
from gqn_model.model.contract import MODELS
from gqn_model.model.encoders import ENCODERS
from gqn_model.train.schedules import learning_rate_at, sigma_at


def _parse(*arguments: str) -> tuple[int, str, dict[str, Any]]:
    seen: dict[str, Any] = {}

    @click.command()
    @setting_options
    def command(**options: Any) -> None:
        seen.update(options_given(options))

    result = CliRunner().invoke(command, arguments)
    return result.exit_code, result.output, seen


def test_every_setting_is_an_option() -> None:
    _, text, _ = _parse("--help")
    for declared in declarations():
        assert "--" + declared.name.replace("_", "-") in text


def test_names_of_settings_are_unique() -> None:
    names = [declared.name for declared in declarations()]
    assert len(names) == len(set(names))


def test_options_that_are_not_given_change_nothing() -> None:
    assert _parse()[2] == {}


def test_booleans_are_pairs_of_flags() -> None:
    assert _parse("--shared-cores")[2] == {"shared_cores": True}
    assert _parse("--no-shared-cores")[2] == {"shared_cores": False}


def test_a_flag_with_a_value_is_refused() -> None:
    code, _, seen = _parse("--shared-cores", "False")
    assert code == 2
    assert seen == {}


def test_an_invalid_value_on_the_command_line_lists_the_valid_ones() -> None:
    code, text, _ = _parse("--representation", "towr")
    assert code == 2
    assert all(name in text for name in ("tower", "pool", "pyramid"))


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"representation": "towr"}, ["representation", "'towr'", "tower, pool, pyramid", "'tower'"]),
        ({"frame_size": 30}, ["frame_size", "30", "multiples of 4"]),
        ({"kernel": 4}, ["kernel", "4", "odd"]),
        ({"representation_channels": 12}, ["representation_channels", "12", "multiples of 8"]),
        ({"batch_size": 0}, ["batch_size", "0", "1"]),
        ({"learning_rate": float("nan")}, ["learning_rate", "nan", "from 0"]),
        ({"steps": True}, ["steps", "True", "int"]),
        ({"shared_cores": "False"}, ["shared_cores", "'False'", "bool"]),
        ({"context_min": 4, "context_max": 3}, ["context_max", "3", "from 4"]),
    ],
)
def test_an_invalid_value_is_refused_with_the_valid_ones(changes: dict[str, Any], values: list[str]) -> None:
    with pytest.raises(OptionError) as error:
        resolve("tiny", (), changes)
    assert all(value in str(error.value) for value in values)


def test_an_unknown_name_suggests_the_nearest_valid_one() -> None:
    with pytest.raises(UnknownName, match=r"'tinny'.*'tiny'"):
        resolve("tinny")
    with pytest.raises(UnknownName, match=r"'share_cores'.*'shared_cores'"):
        resolve("paper", ["share_cores"])
    with pytest.raises(UnknownName, match=r"'batch_sise'.*'batch_size'"):
        resolve("paper", (), {"batch_sise": 3})


def test_options_override_mods_and_mods_override_the_preset() -> None:
    assert PRESETS["tiny"]["representation"] != "pyramid"
    assert resolve("tiny", ["pyramid"]).model.representation == "pyramid"
    assert resolve("tiny", ["pyramid"], {"representation": "pool"}).model.representation == "pool"
    assert resolve("paper", ["shared_cores", "pool"]).model == ModelConfig(shared_cores=True, representation="pool")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_mod_of_its_model_applies_to_every_preset(preset: str) -> None:
    model = PRESETS[preset].get("model", "gqn")
    for mod in [*mods_of(model), *mods_of(None)]:
        assert isinstance(resolve(preset, [mod]), Config)


def test_every_mod_belongs_to_one_model_or_to_all() -> None:
    assert sorted(MODS) == sorted(mod for model in (None, *MODEL_NAMES) for mod in mods_of(model))


def test_a_preset_implies_its_model_and_a_model_its_preset() -> None:
    assert resolve("sweep_tiny").model.model == "plane_sweep"
    assert resolve(None, (), {"model": "plane_sweep"}) == resolve("sweep_tiny")
    assert resolve(None) == resolve("paper")
    assert all(PRESETS[default_preset(name)].get("model", "gqn") == name for name in MODEL_NAMES)
    with pytest.raises(OptionError, match=r"preset is 'tiny', a preset of gqn; .*plane_sweep: sweep_tiny"):
        resolve("tiny", (), {"model": "plane_sweep"})
    with pytest.raises(OptionError, match=r"model is 'plane_swep'.*'plane_sweep'"):
        resolve(None, (), {"model": "plane_swep"})


@pytest.mark.parametrize(
    ("preset", "mods", "explicit", "words"),
    [
        ("tiny", (), {"planes": 8}, r"planes belongs to the model plane_sweep, found the model gqn"),
        ("sweep_tiny", (), {"core_steps": 8}, r"core_steps belongs to the model gqn, found the model plane_sweep"),
        ("sweep_tiny", (), {"sigma": 1.0}, r"sigma belongs to the model gqn"),
        ("sweep_tiny", ("pool",), {}, r"mod pool belongs to the model gqn"),
    ],
)
def test_settings_and_mods_of_another_model_are_refused(
    preset: str, mods: tuple[str, ...], explicit: dict[str, Any], words: str
) -> None:
    with pytest.raises(OptionError, match=words):
        resolve(preset, mods, explicit)


def test_a_configuration_from_before_the_second_model_is_one_of_gqn() -> None:
    value = resolve("tiny").to_json()
    new = {"model", "field_of_view", "yaw_sign", "near", "far", "planes", "width", "dim", "depth", "heads", "patch"}
    value["model"] = {name: given for name, given in value["model"].items() if name not in new}
    added = {"targets", "context_per", "learning_rate_schedule", "beta2"}
    value["training"] = {name: given for name, given in value["training"].items() if name not in added}
    assert Config.from_json(value, "config.json") == resolve("tiny")


@given(
    steps=st.integers(0, 10**9),
    rate=st.floats(0, 10, allow_nan=False),
    shared=st.booleans(),
    representation=st.sampled_from(["tower", "pool", "pyramid"]),
)
def test_a_config_is_unchanged_after_writing_and_reading_it(
    steps: int, rate: float, shared: bool, representation: str
) -> None:
    config = resolve(
        "tiny",
        (),
        {"steps": steps, "learning_rate": rate, "shared_cores": shared, "representation": representation},
    )
    assert Config.from_json(json.loads(json.dumps(config.to_json())), "here") == config


def test_an_unknown_setting_in_a_file_names_the_file_and_the_nearest() -> None:
    value = Config().to_json()
    value["model"]["hiden"] = 3
    with pytest.raises(OptionError, match=r"x\.json: .*'hiden'.*'hidden'"):
        Config.from_json(value, "x.json")


@pytest.mark.parametrize(
    ("step", "sigma", "rate"),
    [
        (0, 2.0, 5e-4),
        (1, 2.0 - 1.3 / 200_000, 5e-4 - 4.5e-4 / 1_600_000),
        (100_000, 1.35, 4.71875e-4),
        (200_000, 0.7, 4.4375e-4),
        (800_000, 0.7, 2.75e-4),
        (1_600_000, 0.7, 5e-5),
        (2_000_000, 0.7, 5e-5),
    ],
)
def test_the_schedules_of_the_paper_have_the_published_values(step: int, sigma: float, rate: float) -> None:
    training = resolve("paper").training
    assert sigma_at(training, step) == pytest.approx(sigma, rel=1e-12)
    assert learning_rate_at(training, step) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("preset", [name for name, changes in PRESETS.items() if "steps" in changes])
def test_schedules_end_at_the_last_step_for_any_number_of_steps(preset: str, faults: FaultCounts) -> None:
    numbers = (2, 3, 50, 300, 2000, 4067, 6000, 20_000, 123_457, 10**9)
    ended = 0
    for steps in numbers:
        training = resolve(preset, (), {"steps": steps}).training
        rate, sigma = learning_rate_at(training, steps - 1), sigma_at(training, steps - 1)
        latent = "sigma_steps" in PRESETS[preset]
        ended += rate == training.learning_rate_end and (not latent or sigma == training.sigma_end)
    faults.record(
        "found in use: presets with another number of steps",
        holds="learning rate and pixel deviation are at their end after the last step",
        tries=len(numbers),
        survived=ended,
    )


@pytest.mark.parametrize("preset", [name for name, changes in PRESETS.items() if "steps" in changes])
def test_schedules_keep_their_share_of_the_steps(preset: str) -> None:
    own = resolve(preset).training
    double = resolve(preset, (), {"steps": 2 * own.steps}).training
    for step in (own.steps // 100, own.steps // 10, own.steps // 2):
        if "sigma_steps" in PRESETS[preset]:
            assert sigma_at(double, 2 * step) == pytest.approx(sigma_at(own, step), rel=1e-3)
        assert learning_rate_at(double, 2 * step) == pytest.approx(learning_rate_at(own, step), rel=3e-2)


def test_a_preset_without_changes_has_its_own_schedules() -> None:
    for preset, changes in PRESETS.items():
        assert resolve(preset) == Config().replaced(changes)


def test_schedules_of_the_paper_stay_in_absolute_steps() -> None:
    short, own = resolve("paper", (), {"steps": 1000}).training, resolve("paper").training
    assert (short.learning_rate_steps, short.sigma_steps) == (own.learning_rate_steps, own.sigma_steps)
    assert "paper are in absolute steps" in " ".join(CliRunner().invoke(main, ["train", "--help"]).output.split())


def test_explicit_schedules_are_not_scaled() -> None:
    training = resolve(
        "tiny", (), {"steps": 100, "learning_rate_steps": 7, "sigma_steps": 9, "warmup_steps": 3}
    ).training
    assert (training.learning_rate_steps, training.sigma_steps, training.warmup_steps) == (7, 9, 3)


def test_any_number_of_steps_is_possible() -> None:
    for preset in PRESETS:
        for steps in (0, 1):
            assert resolve(preset, (), {"steps": steps}).training.steps == steps


def test_the_cosine_falls_to_its_end_and_stays_there() -> None:
    training = TrainingConfig(
        learning_rate=3.0, learning_rate_end=1.0, learning_rate_steps=12, learning_rate_schedule="cosine"
    )
    found = [learning_rate_at(training, step) for step in (0, 4, 6, 8, 12, 99)]
    assert found == pytest.approx([3.0, 2.5, 2.0, 1.5, 1.0, 1.0])


def test_the_learning_rate_rises_during_the_warm_up() -> None:
    training = TrainingConfig(warmup_steps=10, learning_rate=1.0, learning_rate_end=1.0)
    assert [learning_rate_at(training, step) for step in (0, 4, 9, 10, 500)] == [0.1, 0.5, 1.0, 1.0, 1.0]


def test_the_configuration_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, gqn_model.cli; print({'torch', 'numpy'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"


def test_the_configuration_names_every_encoder_and_model_without_torch() -> None:
    assert tuple(ENCODERS) == ENCODER_NAMES
    assert tuple(MODELS) == MODEL_NAMES


def test_help_lists_every_setting_under_its_group_within_80_columns() -> None:
    text = CliRunner().invoke(main, ["train", "--help"], terminal_width=80).output
    assert max(map(len, text.splitlines())) <= 80
    headings = {f"{group[0].upper()}{group[1:]}": group for group in GROUPS}
    sections = re.split(rf"^({'|'.join(headings)}):$", text, flags=re.MULTILINE)
    found = dict(zip((headings[name] for name in sections[1::2]), sections[2::2], strict=True))
    assert list(found) == list(GROUPS)
    for declared in declarations():
        name = declared.name.replace("_", "-")
        assert re.search(rf"--{name}[ /\n]", found[declared.group]), name
