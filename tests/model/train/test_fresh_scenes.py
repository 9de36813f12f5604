"""Runs on scenes that are rendered on demand: trained, resumed, evaluated and sampled by the address alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from synthetic import small

from gqn_data.errors import RunMismatch
from gqn_data.io.paths import parse_dataset_path
from gqn_data.sampling.permutation import ENDLESS
from gqn_model.checkpoint.checkpoint import load_checkpoint
from gqn_model.checkpoint.run_folder import HELD_OUT_FILE, read_facts
from gqn_model.cli import main as gqn
from gqn_model.data import held_out_scenes, training_batches
from gqn_model.evaluate.questions import read_index
from gqn_model.evaluate.run_evaluation import evaluate
from gqn_model.loggers.json_lines import read_lines
from gqn_model.train.run import resume_run, start_run
from gqn_model.visualize.sample import write_predictions, write_walk

FRESH = "render:rooms_ring_camera,frame_size=16,views=5,supersample=false"
EVERY = {"log_every": 1, "probe_every": 3, "picture_every": 0, "checkpoint_every": 3}

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture(scope="module")
def fresh_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start_run(FRESH, small(**EVERY, steps=3), out=tmp_path_factory.mktemp("fresh") / "run")


def test_a_run_on_fresh_scenes_resumes_exactly(fresh_run: Path, tmp_path: Path) -> None:
    whole = start_run(FRESH, small(**EVERY, steps=5), out=tmp_path / "whole")
    halves = start_run(FRESH, small(**EVERY, steps=3), out=tmp_path / "halves")
    resume_run(halves, {"steps": 5, "workers": 1})
    losses = [[line["loss"] for line in read_lines(run)] for run in (whole, halves)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert load_checkpoint(whole).loader == load_checkpoint(halves).loader
    assert read_facts(fresh_run).shards == FRESH
    with pytest.raises(RunMismatch, match="pass --shards with the dataset"):
        resume_run(halves, {"steps": 6}, shards=f"{FRESH},seed=1")


def test_held_out_scenes_are_none_of_the_stream(fresh_run: Path) -> None:
    held_out = json.loads((fresh_run / HELD_OUT_FILE).read_text())
    assert held_out == {"split": "train", "scenes": [*range(ENDLESS - 32, ENDLESS)]}
    assert (fresh_run / "best.json").exists()
    batches, config = training_batches(FRESH, small())
    assert [next(iter(batches)).scenes.tolist()] == [[*range(config.training.batch_size)]]
    batches.close()


def test_a_bounded_address_holds_out_scenes_as_a_dataset_does() -> None:
    shards, config = parse_dataset_path(f"{FRESH},scenes=40"), small()
    held_out = held_out_scenes(shards, config)
    assert len(held_out) == 4
    batches, _ = training_batches(shards, config)
    seen: set[int] = set()
    for _, batch in zip(range(40), batches):
        seen |= set(batch.scenes.tolist())
    batches.close()
    assert seen == set(range(40)) - set(held_out.tolist())


def test_a_run_that_holds_nothing_out_chooses_on_test_scenes(tmp_path: Path) -> None:
    run = start_run(FRESH, small(**EVERY, steps=1, held_out=0), out=tmp_path / "run")
    assert json.loads((run / HELD_OUT_FILE).read_text()) == {"split": "test", "scenes": [*range(32)]}


def test_a_run_is_evaluated_on_its_test_scenes_by_default(fresh_run: Path) -> None:
    found = evaluate(fresh_run, context=1, scenes=4, samples=1)
    assert (found.scenes, found.split, found.shards) == (4, "test", f"{FRESH},scenes=1000")
    assert not found.dataset.other
    # The same test scenes as of the address with that number, so that the questions can be exchanged.
    again = evaluate(fresh_run, f"{FRESH},scenes=1000", context=1, samples=1, index=found.index)
    assert again.sweep == found.sweep
    assert read_index(Path(found.index)).split == "test"


def test_predictions_and_a_walk_are_drawn_without_a_number_of_scenes(fresh_run: Path, tmp_path: Path) -> None:
    write_predictions(fresh_run, FRESH, tmp_path / "picture.png", scenes=2, samples=1)
    path = write_walk(fresh_run, FRESH, tmp_path / "walk.gif", scene=6, frames=3, samples=0)
    assert len(path.cameras) == 3
    assert np.isfinite(path.cameras).all()
    assert (tmp_path / "picture.png").stat().st_size > 0


def test_the_command_takes_a_number_of_scenes(tmp_path: Path) -> None:
    options = ["--preset", "tiny", "--steps", "1", "--batch-size", "4", "--workers", "0", "--device", "cpu"]
    options += ["--frame-size", "16"]
    run = tmp_path / "run"
    done = CliRunner().invoke(gqn, ["train", "--shards", FRESH, "--scenes", "60", "--out", str(run), *options])
    assert done.exit_code == 0, done.output
    assert read_facts(run).shards == f"{FRESH},scenes=60"
    for shards, message in ((f"{FRESH},scenes=3", "each option once"), (str(tmp_path), "--scenes needs --shards")):
        wrong = CliRunner().invoke(gqn, ["train", "--shards", shards, "--scenes", "60", *options])
        assert wrong.exit_code == 2
        assert message in wrong.output
