"""Fixtures: a dataset of bars as an indexed folder of TFRecords, and a run trained on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from synthetic import scenes_of, small

from gqn_data.convert.index import index_raw_folder
from gqn_data.schema import jpeg
from gqn_data.schema.catalog import SPLITS, find_scene_set
from gqn_data.sources.raw_folder import open_raw_folder
from gqn_data.tfrecord.framing import RecordWriter, serialize_example
from gqn_model.train.run import start_run


@pytest.fixture(scope="session")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in the format of rooms_ring_camera whose frames show bars: 24 train and 10 test scenes."""
    folder = tmp_path_factory.mktemp("raw") / "rooms_ring_camera"
    row = find_scene_set(folder.name)
    for seed, (split, count) in enumerate(zip(SPLITS, (24, 10), strict=True)):
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
def bars_run(bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of six steps on the bars."""
    run = tmp_path_factory.mktemp("runs") / "bars"
    return start_run(str(bars), small(steps=6, probe_every=3, picture_every=6, log_every=3), out=run)
