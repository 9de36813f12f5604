"""Cameras and poses: the raw numbers of a view, and those that the network reads. numpy only.

DeepMind's cameras are five numbers, and their pose is seven. Of cameras of other numbers nothing is known in general,
so their pose is the numbers as they are; the readers of E-GQN's sets do the same.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import OptionError
from gqn_data.schema.catalog import CAMERA_FIELDS

PoseOrder = Literal["sin_first", "cos_first", "raw"]

# The order is that of DeepMind's reader (gqn-datasets, data_reader.py); many PyTorch trainers put the cosines first.
POSE_FIELDS = ("x", "y", "z", "sin yaw", "cos yaw", "sin pitch", "cos pitch")
POSE_NUMBERS = len(POSE_FIELDS)
_COS_FIRST = ("x", "y", "z", "cos yaw", "sin yaw", "cos pitch", "sin pitch")


def pose_fields(camera_fields: tuple[str, ...], order: PoseOrder = "sin_first") -> tuple[str, ...]:
    """The names of a pose's numbers: DeepMind's seven in either order, or those of the camera itself.

    Raises:
        OptionError: another order.
    """
    if order not in ("sin_first", "cos_first", "raw"):
        raise OptionError(f"poses is {order!r}, expected sin_first, cos_first or raw")
    if camera_fields != CAMERA_FIELDS or order == "raw":
        return camera_fields
    return POSE_FIELDS if order == "sin_first" else _COS_FIRST


def poses_of(
    cameras: NDArray[np.float32], fields: tuple[str, ...] = CAMERA_FIELDS, order: PoseOrder = "sin_first"
) -> NDArray[np.float32]:
    """The poses: float32 (..., numbers of a pose), in the order of `pose_fields`.

    Args:
        cameras: float32 (..., camera numbers); angles in radians.
        fields: the names of a camera's numbers.
        order: which comes first of each angle's two numbers; `raw` for the cameras as they are.

    Raises:
        OptionError: cameras of another number of fields.
    """
    if cameras.shape[-1] != len(fields):
        raise OptionError(f"cameras of {cameras.shape[-1]} numbers, expected {len(fields)}: {', '.join(fields)}")
    if fields != CAMERA_FIELDS or order == "raw":
        return cameras
    first, second = (np.sin, np.cos) if order == "sin_first" else (np.cos, np.sin)
    poses = np.empty((*cameras.shape[:-1], POSE_NUMBERS), np.float32)
    poses[..., :3] = cameras[..., :3]
    first(cameras[..., 3:], out=poses[..., 3::2])
    second(cameras[..., 3:], out=poses[..., 4::2])
    return poses
