"""Fixtures: a dataset of bars as an indexed folder of TFRecords, and a run trained on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from synthetic import scenes_of, small

from gqn_data.convert.index import index_raw_folder
from gqn_data.schema import jpeg
from gqn_data.schema.catalog import SPLITS, find_scene_set
from gqn_data.sources.raw_folder import open_raw_folder
from gqn_data.tfrecord.framing import RecordWriter, serialize_example
from gqn_model.train.run import start_run


def make_bars(folder: Path, *, first_seed: int = 0, splits: Sequence[str] = SPLITS) -> Path:
    """Write an indexed folder in the format of the set of its name whose frames show bars; return it.

    It has 24 train and 10 test scenes.
    """
    row = find_scene_set(folder.name)
    for seed, split in enumerate(splits, first_seed):
        count = {"train": 24, "test": 10}[split]
        frames, poses = scenes_of(count, row.views, row.frame_size, seed)
        x, y, z, sin_yaw, cos_yaw, sin_pitch, cos_pitch = poses.numpy().transpose(2, 0, 1)
        cameras = np.stack([x, y, z, np.arctan2(sin_yaw, cos_yaw), np.arctan2(sin_pitch, cos_pitch)], -1)
        path = folder / split / row.split(split).file_name(1)
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            writer = RecordWriter(file)
            for scene in range(count):
                encoded = [jpeg.encode(frame, 90) for frame in frames[scene].numpy()]
                writer.write(serialize_example(encoded, cameras[scene].astype(np.float32)))
    index_raw_folder(open_raw_folder(folder, row))
    return folder


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
