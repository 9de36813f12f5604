"""Fixtures: a dataset of bars as an indexed folder of TFRecords, and a run of each model trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from bars import make_bars
from synthetic import small

from gqn_model.train.run import start_run


@pytest.fixture(scope="session")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in the format of rooms_ring_camera whose frames show bars: 24 train and 10 test scenes."""
    return make_bars(tmp_path_factory.mktemp("raw") / "rooms_ring_camera")


class Others(NamedTuple):
    """Datasets that the run on the bars was not trained on.

    Attributes:
        same_set: other scenes of the same set.
        other_set: another scene set with the same cameras.
        test_only: the test scenes of the bars, without a train split.
    """

    same_set: Path
    other_set: Path
    test_only: Path


@pytest.fixture(scope="session")
def other_bars(tmp_path_factory: pytest.TempPathFactory) -> Others:
    """Return datasets that differ from the bars."""
    root = tmp_path_factory.mktemp("others")
    return Others(
        same_set=make_bars(root / "rooms_ring_camera", first_seed=10),
        other_set=make_bars(root / "mazes", first_seed=20),
        test_only=make_bars(root / "test" / "rooms_ring_camera", first_seed=1, splits=["test"]),
    )


@pytest.fixture(scope="session")
def bars_run(bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of six steps on the bars."""
    run = tmp_path_factory.mktemp("runs") / "bars"
    return start_run(str(bars), small(steps=6, probe_every=3, picture_every=6, log_every=3), out=run)


@pytest.fixture(scope="session")
def sweep_run(bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of the plane sweep of six steps on the bars."""
    run = tmp_path_factory.mktemp("runs") / "sweep"
    config = small(model="plane_sweep", steps=6, probe_every=3, picture_every=6, log_every=3)
    return start_run(str(bars), config, out=run)
