"""Cameras and poses: the five raw numbers of a view, and the seven that the network reads. numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import OptionError

POSE_NUMBERS = 7


def poses_of(cameras: NDArray[np.float32]) -> NDArray[np.float32]:
    """The poses: float32 (..., 7): x, y, z, sin yaw, cos yaw, sin pitch, cos pitch.

    The order is that of DeepMind's reader (gqn-datasets, data_reader.py); many PyTorch trainers put the cosines first.

    Args:
        cameras: float32 (..., 5): x, y, z, yaw, pitch; angles in radians.

    Raises:
        OptionError: cameras of another number of fields.
    """
    if cameras.shape[-1] != 5:
        raise OptionError(f"cameras of {cameras.shape[-1]} numbers; poses are defined for x, y, z, yaw, pitch")
    poses = np.empty((*cameras.shape[:-1], POSE_NUMBERS), np.float32)
    poses[..., :3] = cameras[..., :3]
    np.sin(cameras[..., 3:], out=poses[..., 3::2])
    np.cos(cameras[..., 3:], out=poses[..., 4::2])
    return poses
