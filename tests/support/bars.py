"""A dataset of bars as an indexed folder of TFRecords."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from synthetic import scenes_of

from gqn_data.convert.index import index_raw_folder
from gqn_data.schema import jpeg
from gqn_data.schema.catalog import SPLITS, find_scene_set
from gqn_data.sources.raw_folder import open_raw_folder
from gqn_data.tfrecord.framing import RecordWriter, serialize_example


def make_bars(
    folder: Path, *, first_seed: int = 0, splits: Sequence[str] = SPLITS, camera: float | None = None
) -> Path:
    """Write an indexed folder in the format of the set of its name whose frames show bars; return it.

    It has 24 train and 10 test scenes.

    Args:
        folder: the folder; it has the name of a set.
        first_seed: seed of the first split; others have the next ones.
        splits: splits to write.
        camera: y of the camera of view 2 of scene 3 in each split; None for the right one.
    """
    row = find_scene_set(folder.name)
    for seed, split in enumerate(splits, first_seed):
        count = {"train": 24, "test": 10}[split]
        frames, poses = scenes_of(count, row.views, row.frame_size, seed)
        x, y, z, sin_yaw, cos_yaw, sin_pitch, cos_pitch = poses.numpy().transpose(2, 0, 1)
        cameras = np.stack([x, y, z, np.arctan2(sin_yaw, cos_yaw), np.arctan2(sin_pitch, cos_pitch)], -1)
        if camera is not None:
            cameras[3, 2, 1] = camera
        path = folder / split / row.split(split).file_name(1)
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            writer = RecordWriter(file)
            for scene in range(count):
                encoded = [jpeg.encode(frame, 90) for frame in frames[scene].numpy()]
                writer.write(serialize_example(encoded, cameras[scene].astype(np.float32)))
    index_raw_folder(open_raw_folder(folder, row))
    return folder
