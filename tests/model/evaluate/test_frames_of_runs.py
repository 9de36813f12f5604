"""Frames that are not square, as each run sees them, and runs that are compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import small

from gqn_data import SceneWriter
from gqn_data.errors import OptionError, RunMismatch
from gqn_data.io.paths import parse_dataset_path
from gqn_model.evaluate.run_evaluation import evaluate, evaluate_runs
from gqn_model.train.run import start_run
from gqn_model.viewer.predictor import Predictor
from gqn_model.visualize.learning_curves import write_curves
from gqn_model.visualize.sample import write_predictions, write_walk


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of 24 scenes with frames of 24x16 pixels."""
    folder = tmp_path_factory.mktemp("sets") / "wide"
    dice = np.random.default_rng(0)
    with SceneWriter(folder, field_of_view=40.0, yaw_sign=-1, depth_range=(0.2, 5.0)) as writer:
        for split, count in (("train", 20), ("test", 4)):
            for _ in range(count):
                frames = dice.integers(0, 255, (5, 16, 24, 3), np.uint8)
                writer.add(frames, dice.normal(size=(5, 5)).astype(np.float32), split=split)  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="module")
def wide_runs(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a run by `fit`."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        fit: start_run(str(wide), small(steps=1, fit=fit, context_max=2), out=folder / fit) for fit in ("crop", "pad")
    }


# What reads the frames of a run: from a run, its dataset and a folder.
READERS: dict[str, Callable[[Path, Path, Path], Any]] = {
    "evaluate": lambda run, _, __: evaluate(run, context=[1], samples=1),
    "sample": lambda run, wide, out: write_predictions(run, wide, out / "a.png", scenes=1, samples=0),
    "walk": lambda run, wide, out: write_walk(run, wide, out / "a.gif", frames=2, samples=0),
    "explore": lambda run, wide, _: Predictor(run, parse_dataset_path(wide)).read("test", 0),
}


@pytest.mark.parametrize("reader", READERS)
def test_frames_that_are_not_square_are_read_as_in_training(
    reader: str, wide: Path, wide_runs: dict[str, Path], tmp_path: Path
) -> None:
    READERS[reader](wide_runs["crop"], wide, tmp_path)


def test_runs_that_see_other_frames_are_not_compared(
    bars: Path, wide: Path, wide_runs: dict[str, Path], tmp_path: Path
) -> None:
    runs = list(wide_runs.values())
    with pytest.raises(RunMismatch, match=r"fit pad, expected .*fit crop"):
        evaluate_runs(runs, context=[1], samples=1)
    with pytest.raises(RunMismatch, match=r"fit pad, expected .*fit crop"):
        write_predictions(runs, wide, tmp_path / "a.png")
    # Of square frames both see the same.
    evaluate_runs(runs, bars, context=[1], samples=1, other_set=True)


@pytest.mark.parametrize("name", ["a.png", "a.pdf"])
def test_a_run_is_compared_once(name: str, bars: Path, bars_run: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(bars_run)
    for runs in ([bars_run, bars_run], [bars_run, link]):
        with pytest.raises(OptionError, match="each once"):
            evaluate_runs(runs)
        with pytest.raises(OptionError, match="each once"):
            write_predictions(runs, bars, tmp_path / name)
        with pytest.raises(OptionError, match="each once"):
            write_curves(runs, tmp_path / name)
    assert not (tmp_path / name).exists()
