"""The plane sweep on datasets with other lenses than in training, without a lens, or with one that it cannot have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import LENS, SMALL, SMALL_NETWORKS, small

from gqn_data import SceneWriter
from gqn_data.dataset import open_dataset
from gqn_data.errors import RunMismatch
from gqn_data.io.paths import parse_dataset_path
from gqn_data.schema.geometry import Geometry
from gqn_data.viewer.gallery import Gallery
from gqn_model import load_model
from gqn_model.checkpoint.run_folder import match_dataset
from gqn_model.config import resolve
from gqn_model.data import training_batches, with_geometry_of
from gqn_model.evaluate.run_evaluation import evaluate
from gqn_model.train.run import start_run
from gqn_model.viewer.predictor import Predictor
from gqn_model.visualize.camera_path import find_camera_path
from gqn_model.visualize.sample import write_predictions, write_walk

UNLIKE = {"field_of_view": 40.0, "yaw_sign": -1, "depth_range": (0.2, 5.0)}


def _write(folder: Path, *, width: int = 16, splits: tuple[str, ...] = ("train", "test"), **geometry: object) -> Path:
    """Write scenes of cameras on a ring that look at its centre, with a yaw that grows clockwise."""
    dice = np.random.default_rng(0)
    turns = np.linspace(0, 2 * np.pi, 5, endpoint=False)
    zeros = np.zeros(5)
    cameras = np.stack([np.cos(turns), np.sin(turns), zeros, np.pi - turns, zeros], 1).astype(np.float32)
    with SceneWriter(folder, **geometry) as writer:  # type: ignore[arg-type]
        for split in splits:
            for _ in range(20 if split == "train" else 4):
                frames = dice.integers(0, 255, (5, 16, width, 3), np.uint8)
                writer.add(frames, cameras, split=split)  # type: ignore[arg-type]
    return folder


# What predicts the scenes of a dataset with a run: from the run, the dataset and a folder.
PREDICTING: dict[str, Callable[[Path, Path, Path], Any]] = {
    "evaluate": lambda run, shards, _: evaluate(run, shards, context=[1], other_set=True),
    "sample": lambda run, shards, out: write_predictions(run, shards, out / "a.png", scenes=1, other_set=True),
    "walk": lambda run, shards, out: write_walk(run, shards, out / "a.gif", frames=2, other_set=True),
    "explore": lambda run, shards, _: Predictor(run, parse_dataset_path(shards), other_set=True),
}


def test_test_scenes_alone_are_predicted_with_their_lens(sweep_run: Path, tmp_path: Path) -> None:
    # Without train scenes nothing else shows that they are other scenes than in training.
    other = _write(tmp_path / "same", splits=("test",), **UNLIKE)
    match = match_dataset(other, "same", "0" * 64)
    model = load_model(sweep_run)
    turned, note = with_geometry_of(model, other, match)
    assert turned.config == replace(model.config, field_of_view=40.0, yaw_sign=-1, near=0.2, far=5.0)
    assert "40 degrees, 0.2 to 5, yaw sign -1; trained with 60 degrees" in note


@pytest.mark.parametrize("predicting", PREDICTING)
def test_a_lens_that_no_network_can_have_names_the_dataset(predicting: str, sweep_run: Path, tmp_path: Path) -> None:
    round_about = _write(tmp_path / "round", **(UNLIKE | {"field_of_view": 179.9}))
    with pytest.raises(RunMismatch, match=r"round: .*field_of_view is 179\.9"):
        PREDICTING[predicting](sweep_run, round_about, tmp_path)


def test_training_on_a_lens_that_no_network_can_have_is_refused(tmp_path: Path) -> None:
    round_about = _write(tmp_path / "round", **(UNLIKE | {"field_of_view": 179.9}))
    changes = SMALL | SMALL_NETWORKS["plane_sweep"] | {"context_max": 2}
    with pytest.raises(RunMismatch, match=r"round: .*field_of_view is 179\.9.*--field-of-view"):
        training_batches(round_about, resolve("sweep_tiny", (), changes))
    loader, config = training_batches(round_about, resolve("sweep_tiny", (), {**changes, "field_of_view": 90.0}))
    loader.close()
    assert (config.model.field_of_view, config.model.yaw_sign, config.model.far) == (90.0, -1, 5.0)


def test_settings_unlike_the_lens_of_the_dataset_are_reported(
    sweep_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The `config.json` of a run on another dataset has the lens of that dataset."""
    known = _write(tmp_path / "known", **UNLIKE)
    resolved = small(model="plane_sweep", steps=1, context_max=2, near=0.2)
    start_run(str(known), resolved, out=tmp_path / "run")
    assert "field_of_view 60, yaw_sign 1, far 3, and" in (said := capfd.readouterr().err)
    assert "known states field_of_view 40, yaw_sign -1, far 5" in said
    same = resolve("sweep_tiny", (), SMALL | SMALL_NETWORKS["plane_sweep"] | {"steps": 1, "context_max": 2})
    start_run(str(known), same, out=tmp_path / "same")
    assert "states" not in capfd.readouterr().err


def test_frames_that_are_not_square_need_the_lens_of_the_square_ones(sweep_run: Path, tmp_path: Path) -> None:
    wide = _write(tmp_path / "wide", width=24, **UNLIKE)
    changes = SMALL | SMALL_NETWORKS["plane_sweep"] | {"context_max": 2, "fit": "crop"}
    with pytest.raises(RunMismatch, match=r"frames of 24x16.*--field-of-view"):
        training_batches(wide, resolve("sweep_tiny", (), changes))
    loader, config = training_batches(wide, resolve("sweep_tiny", (), {**changes, "field_of_view": 30.0}))
    loader.close()
    assert (config.model.field_of_view, config.model.yaw_sign, config.model.near) == (30.0, -1, 0.2)
    model = load_model(sweep_run)
    turned, _ = with_geometry_of(model, wide, match_dataset(wide, "rooms_ring_camera", "0" * 64, other_set=True))
    assert (turned.config.field_of_view, turned.config.yaw_sign) == (LENS["field_of_view"], -1)


def test_a_lens_given_in_training_is_that_of_walks_and_the_viewer(tmp_path: Path) -> None:
    unknown = _write(tmp_path / "unknown")
    run = start_run(str(unknown), small(model="plane_sweep", steps=1, yaw_sign=-1, context_max=2), out=tmp_path / "run")
    path = write_walk(run, unknown, tmp_path / "a.gif", frames=4)
    cameras = open_dataset(unknown, "test").cameras_of(0)
    assert path.kind == "orbit"
    np.testing.assert_allclose(path.cameras, find_camera_path(cameras, frames=4, yaw_sign=-1).cameras)
    predictor = Predictor(run, parse_dataset_path(unknown))
    gallery = Gallery(unknown, predictor.read, geometry=predictor.geometry)
    assert gallery.geometry == Geometry(field_of_view=60.0, yaw_sign=-1, depth_range=(0.5, 3.0))
    assert gallery.assumption == ""
