"""Held-out scenes: a fixed function of seed and dataset, never trained on, listed in the run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gqn_data.convert.scene_writer import SceneWriter
from gqn_model.config import Config, resolve
from gqn_model.data import held_out_scenes, training_batches

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
