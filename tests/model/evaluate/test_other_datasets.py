"""A run and a dataset that it was not trained on: refused, or named in what is reported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gqn_data.errors import RunMismatch
from gqn_model.checkpoint.run_folder import match_dataset, read_facts
from gqn_model.cli import main as gqn
from gqn_model.evaluate import evaluate

COMMANDS = {
    "evaluate": ["--scenes", "2", "--samples", "1", "--context", "1", "--json"],
    "sample": ["-o", "picture.png", "--scenes", "2"],
    "sample --walk": ["--walk", "-o", "walk.gif", "--frames", "2"],
}


def _gqn(*arguments: object) -> Result:
    return CliRunner().invoke(gqn, [str(argument) for argument in arguments])


@pytest.fixture
def run(bars_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the run on the bars; the working folder is empty."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(bars_run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation")))


@pytest.mark.parametrize("command", COMMANDS)
def test_another_scene_set_is_refused_unless_allowed(command: str, run: Path, other_bars: Any, faults: Any) -> None:
    words = [command.split(maxsplit=1)[0], run, *COMMANDS[command], "--shards", other_bars.other_set]
    done = _gqn(*words)
    assert done.exit_code == 1
    assert "mazes, expected rooms_ring_camera" in done.stderr
    assert "--other-set" in done.stderr
    assert not list(run.parent.glob("*.*")), "nothing is written"
    assert not (run / "evaluation").exists()
    assert _gqn(*words, "--other-set").exit_code == 0
    faults.record(
        "found in use: a run used on another scene set",
        holds="refused without --other-set, in one line that names both sets",
        tries=1,
        survived=1,
    )


@pytest.mark.parametrize("kind", ["same_set", "other_set"])
def test_an_evaluation_on_another_dataset_names_it(kind: str, run: Path, other_bars: Any, faults: Any) -> None:
    own = evaluate(run, scenes=2, samples=1, context=1)
    assert not own.dataset.other
    assert "another dataset" not in own.table()
    shards = getattr(other_bars, kind)
    done = _gqn("evaluate", run, *COMMANDS["evaluate"], "--other-set", "--shards", shards)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["dataset"] == {
        "scene_set": shards.name,
        "fingerprint": match_dataset(str(shards), shards.name, "").fingerprint,
        "trained_set": "rooms_ring_camera",
        "trained_fingerprint": read_facts(run).fingerprint,
    }
    assert found["dataset"]["fingerprint"] != found["dataset"]["trained_fingerprint"]
    table = evaluate(run, str(shards), scenes=2, samples=1, context=1, other_set=True).table()
    assert found["dataset"]["fingerprint"][:12] in table
    assert found["dataset"]["trained_fingerprint"][:12] in table
    # Questions and results of the run's dataset are kept.
    assert {found["result"], found["index"]}.isdisjoint({own.result, own.index})
    assert evaluate(run, scenes=2, samples=1, context=1).questions == own.questions
    faults.record(
        "found in use: a run used on other scenes",
        holds="table and JSON name both datasets; results of the run's dataset stay",
        tries=1,
        survived=1,
    )


def test_the_same_scenes_elsewhere_are_no_other_dataset(run: Path, bars: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(bars, tmp_path / "moved" / "any name")
    found = evaluate(run, str(moved), scenes=2, samples=1, context=1)
    assert not found.dataset.other
    assert found.index == evaluate(run, scenes=2, samples=1, context=1).index


def test_a_dataset_without_train_scenes_is_not_compared(run: Path, other_bars: Any) -> None:
    found = evaluate(run, str(other_bars.test_only), scenes=2, samples=1, context=1)
    assert not found.dataset.other
    assert found.dataset.fingerprint is None


@pytest.mark.parametrize("kind", ["same_set", "other_set"])
@pytest.mark.parametrize("has_checkpoints", [True, False])
def test_a_run_resumed_on_other_scenes_is_refused_before_its_batches(
    kind: str, has_checkpoints: bool, run: Path, other_bars: Any, monkeypatch: pytest.MonkeyPatch, faults: Any
) -> None:
    if not has_checkpoints:
        shutil.rmtree(run / "checkpoints")
    monkeypatch.setattr("gqn_model.train.run.training_batches", None)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    done = _gqn("train", "--resume", run, "--steps", 9, "--shards", getattr(other_bars, kind))
    assert done.exit_code == 1
    assert read_facts(run).fingerprint[:12] in done.stderr
    assert "--shards" in done.stderr
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    faults.record(
        "found in use: a run resumed on other scenes",
        holds="refused in one line that names both datasets; the run is unchanged",
        tries=1,
        survived=1,
    )


def test_functions_refuse_another_scene_set_too(run: Path, other_bars: Any) -> None:
    from gqn_model.visualize.sample import write_predictions, write_walk

    shards = str(other_bars.other_set)
    for call in (
        lambda: evaluate(run, shards),
        lambda: write_predictions(run, shards, Path("picture.png")),
        lambda: write_walk(run, shards, Path("walk.gif")),
    ):
        with pytest.raises(RunMismatch, match="mazes"):
            call()
