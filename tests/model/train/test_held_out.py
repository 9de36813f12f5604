"""Held-out scenes: a fixed function of seed and dataset, never trained on, listed in the run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bars import make_bars
from fault_counts import FaultCounts
from synthetic import batch_of, scenes_of, small, small_model

from gqn_data.convert import convert
from gqn_data.convert.plan import Options as ConvertOptions
from gqn_data.convert.scene_writer import SceneWriter
from gqn_data.errors import CheckpointError
from gqn_data.formats import WRITABLE
from gqn_data.schema.catalog import find_scene_set
from gqn_model.checkpoint.checkpoint import load_checkpoint
from gqn_model.checkpoint.run_folder import CONFIG_FILE, HELD_OUT_FILE
from gqn_model.config import Config, resolve
from gqn_model.data import held_out_scenes, training_batches
from gqn_model.evaluate.run_evaluation import evaluate
from gqn_model.loggers.json_lines import read_lines
from gqn_model.model.distributions import psnr
from gqn_model.model.inputs import to_device
from gqn_model.train.run import resume_run, start_run
from gqn_model.train.trainer import measure_prior

SMALL = {"frame_size": 16, "batch_size": 4, "workers": 0, "device": "cpu", "logger": "none"}


def _dataset(folder: Path, scenes: int, value: int = 0) -> Path:
    with SceneWriter(folder) as writer:
        for scene in range(scenes):
            writer.add(np.full((4, 16, 16, 3), (scene + value) % 256, np.uint8), np.zeros((4, 5)))
    return folder


def _config(**changes: object) -> Config:
    return resolve("tiny", (), {**SMALL, **changes})


def test_held_out_scenes_depend_on_seed_and_dataset_only(tmp_path: Path) -> None:
    shards = _dataset(tmp_path / "mine", 60)
    one = held_out_scenes(shards, _config(held_out=5))
    assert len(set(one.tolist())) == 5
    assert (np.diff(one) > 0).all()
    assert (held_out_scenes(shards, _config(held_out=5, batch_size=8, steps=9)) == one).all()
    assert (held_out_scenes(shards, _config(held_out=5, seed=1)) != one).any()
    assert (held_out_scenes(_dataset(tmp_path / "other", 60, 7), _config(held_out=5)) != one).any()


@pytest.mark.parametrize(
    ("scenes", "asked", "expected"), [(60, 32, 6), (60, 0, 0), (19, 32, 0), (20, 32, 2), (400, 32, 32)]
)
def test_at_most_a_tenth_of_the_scenes_are_held_out(tmp_path: Path, scenes: int, asked: int, expected: int) -> None:
    assert len(held_out_scenes(_dataset(tmp_path / "mine", scenes), _config(held_out=asked))) == expected


@pytest.mark.parametrize(("scenes", "batch_size"), [(7, 7), (20, 20), (24, 24), (38, 36), (39, 36), (40, 36)])
def test_a_dataset_of_little_more_than_a_batch_can_be_trained_on(
    tmp_path: Path, scenes: int, batch_size: int, faults: FaultCounts
) -> None:
    config = _config(batch_size=batch_size)
    batches, _ = training_batches(_dataset(tmp_path / "mine", scenes), config)
    batches.close()
    faults.record(
        "found in use: held-out scenes of a small dataset",
        holds="a dataset of at least one batch can be trained on",
        tries=1,
        survived=int(batches.scenes >= batch_size),
    )


def test_all_containers_and_ranks_hold_out_the_same_scenes(bars: Path, tmp_path: Path) -> None:
    convert(bars, find_scene_set(bars.name), tmp_path, ConvertOptions(formats=tuple(WRITABLE), workers=1))
    config = _config(held_out=2, context_max=3)
    expected = held_out_scenes(bars, config).tolist()
    assert len(expected) == 2
    for name in WRITABLE:
        shards = tmp_path / name / bars.name
        assert held_out_scenes(shards, config).tolist() == expected
        seen: set[int] = set()
        for rank in range(2):
            batches, _ = training_batches(shards, config, rank=rank, ranks=2)
            for _, batch in zip(range(20), batches):
                seen |= set(batch.scenes.tolist())
            batches.close()
        assert seen == set(range(24)) - set(expected)


def _best(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "best.json").read_text()))


def test_test_scenes_do_not_change_which_checkpoint_is_best(bars: Path, tmp_path: Path, faults: FaultCounts) -> None:
    other = make_bars(tmp_path / bars.name, splits=["train"])
    make_bars(other, first_seed=7, splits=["test"])
    options = {"steps": 6, "probe_every": 1, "log_every": 1, "picture_every": 0, "checkpoint_every": 1}
    one, two = (start_run(shards, small(**options), out=tmp_path / f"run{n}") for n, shards in enumerate([bars, other]))
    lines = [[(line["prior_mean"], line["prior_sample"]) for line in read_lines(run)] for run in (one, two)]
    assert all(None not in values for values in lines[0])
    faults.record(
        "found in use: test scenes that choose the best checkpoint",
        holds="other test scenes choose the same checkpoint, by the same figures",
        tries=1,
        survived=int(lines[0] == lines[1] and _best(one) == _best(two)),
    )
    held_out = json.loads((one / HELD_OUT_FILE).read_text())
    assert held_out == {"split": "train", "scenes": held_out_scenes(bars, small()).tolist()}
    assert load_checkpoint(one).loader["scenes"] == load_checkpoint(two).loader["scenes"]
    assert not evaluate(one, step="best", context=1, scenes=2, samples=1).chosen_on_test


def test_runs_of_earlier_versions_still_choose_on_test_scenes_and_say_so(
    bars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], faults: FaultCounts
) -> None:
    options = {"steps": 3, "probe_every": 3, "log_every": 3, "picture_every": 0, "checkpoint_every": 3}
    run = start_run(bars, small(**options, held_out=0), out=tmp_path / "run")
    # As version 0.2 left it: without the setting, and without a list of scenes.
    (run / HELD_OUT_FILE).unlink()
    config = json.loads((run / CONFIG_FILE).read_text())
    del config["training"]["held_out"]
    (run / CONFIG_FILE).write_text(json.dumps(config))
    assert "scenes" not in load_checkpoint(run).loader
    assert evaluate(run, step="best", context=1, scenes=2, samples=1).chosen_on_test
    assert not evaluate(run, step=3, context=1, scenes=2, samples=1).chosen_on_test
    resume_run(run, {"steps": 6})
    assert "chosen on test scenes" in capsys.readouterr().err
    assert json.loads((run / HELD_OUT_FILE).read_text()) == {"split": "test", "scenes": list(range(10))}
    found = evaluate(run, step="best", context=1, scenes=2, samples=1)
    faults.record(
        "found in use: runs that chose their best checkpoint on test scenes",
        holds="they resume as they began; their list of scenes and evaluations of `best` say so",
        tries=1,
        survived=int(found.chosen_on_test and "chosen on test scenes" in found.table()),
    )


def test_nothing_is_held_out_where_nothing_is_measured(bars: Path, tmp_path: Path) -> None:
    options = {"probe_every": 0, "log_every": 3, "picture_every": 3, "checkpoint_every": 3}
    run = start_run(bars, small(**options, steps=3), out=tmp_path / "run")
    assert "scenes" not in load_checkpoint(run).loader
    assert not (run / HELD_OUT_FILE).exists()
    resume_run(run, {"steps": 6, "probe_every": 3})
    assert json.loads((run / HELD_OUT_FILE).read_text())["split"] == "test"


def test_a_run_resumes_with_its_held_out_scenes(bars: Path, tmp_path: Path) -> None:
    options = {"probe_every": 3, "log_every": 1, "picture_every": 0, "checkpoint_every": 3}
    whole = start_run(bars, small(**options, steps=6), out=tmp_path / "whole")
    halves = start_run(bars, small(**options, steps=3), out=tmp_path / "halves")
    resume_run(halves, {"steps": 4, "probe_every": 0})
    resume_run(halves, {"steps": 6, "probe_every": 3})
    assert [line["loss"] for line in read_lines(halves)] == pytest.approx(
        [line["loss"] for line in read_lines(whole)], rel=1e-6
    )
    assert _best(whole)["prior_psnr"] is not None
    assert (whole / HELD_OUT_FILE).read_text() == (halves / HELD_OUT_FILE).read_text()


def test_a_damaged_list_of_held_out_scenes_is_an_error(bars: Path, tmp_path: Path) -> None:
    options = {"steps": 3, "probe_every": 3, "log_every": 3, "picture_every": 0}
    run = start_run(bars, small(**options), out=tmp_path / "run")
    for content in ("", "[]", '{"split": "own"}', '{"scenes": []}'):
        (run / HELD_OUT_FILE).write_text(content)
        with pytest.raises(CheckpointError, match=re.escape(HELD_OUT_FILE)):
            evaluate(run, step="best", context=1, scenes=2, samples=1)


def test_every_held_out_scene_is_measured() -> None:
    config = small()
    frames, poses = scenes_of(40, 5, 16, seed=0)
    probe = to_device(batch_of(frames, poses, 3, 0), torch.device("cpu"))
    model = small_model(config)
    with torch.no_grad():
        mean = model.predict(probe.context, probe.query, torch.zeros(3, 40, config.model.latent, 4, 4))
    expected = psnr(((mean.clamp(0, 1) - probe.target) ** 2).mean((1, 2, 3))).mean()
    assert measure_prior(model, probe).mean == pytest.approx(float(expected), rel=1e-5)


def test_held_out_scenes_are_never_in_a_training_batch(tmp_path: Path) -> None:
    shards = _dataset(tmp_path / "mine", 60)
    config = _config()
    batches, _ = training_batches(shards, config)
    held_out = set(held_out_scenes(shards, config).tolist())
    seen: set[int] = set()
    for _, batch in zip(range(40), batches):
        seen |= set(batch.scenes.tolist())
    batches.close()
    assert len(held_out) == 6
    assert seen == set(range(60)) - held_out


def test_runs_of_earlier_versions_hold_nothing_out() -> None:
    value = json.loads(json.dumps(Config().to_json()))
    assert Config.from_json(value, "here").training.held_out == 32
    del value["training"]["held_out"]
    assert Config.from_json(value, "here").training.held_out == 0
