"""Conversion of cameras, the raw numbers of a view, to poses, the numbers that the network reads.

DeepMind's cameras have five numbers, and their poses seven. The meaning of other cameras is unknown, so their pose is
the camera unchanged, as in the public reader of the E-GQN sets.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import CorruptFrame, OptionError
from gqn_data.schema.catalog import CAMERA_FIELDS

PoseOrder = Literal["sin_first", "cos_first", "raw"]

# Order of DeepMind's reader (gqn-datasets, data_reader.py). Many PyTorch trainers put the cosines first.
POSE_FIELDS = ("x", "y", "z", "sin yaw", "cos yaw", "sin pitch", "cos pitch")
POSE_NUMBERS = len(POSE_FIELDS)
_COS_FIRST = ("x", "y", "z", "cos yaw", "sin yaw", "cos pitch", "sin pitch")


def check_finite(cameras: NDArray[np.float32]) -> None:
    """Raise unless all numbers of some cameras are finite: float32 (views, camera fields).

    A single NaN makes the loss of every later training step NaN.

    Raises:
        CorruptFrame: a camera is not finite.
    """
    if not np.isfinite(cameras).all():
        view = int(np.argwhere(~np.isfinite(cameras))[0][0])
        raise CorruptFrame(f"view {view}: its camera {cameras[view].tolist()} is not finite")


def pose_fields(camera_fields: tuple[str, ...], order: PoseOrder = "sin_first") -> tuple[str, ...]:
    """Return the names of the numbers of a pose: seven for DeepMind's cameras, otherwise `camera_fields`.

    Args:
        camera_fields: names of the numbers of a camera.
        order: `sin_first` or `cos_first`; `raw` for `camera_fields`.

    Raises:
        OptionError: the order is unknown.
    """
    if order not in ("sin_first", "cos_first", "raw"):
        raise OptionError(f"poses is {order!r}, expected sin_first, cos_first or raw")
    if camera_fields != CAMERA_FIELDS or order == "raw":
        return camera_fields
    return POSE_FIELDS if order == "sin_first" else _COS_FIRST


def poses_of(
    cameras: NDArray[np.float32], fields: tuple[str, ...] = CAMERA_FIELDS, order: PoseOrder = "sin_first"
) -> NDArray[np.float32]:
    """Convert cameras to poses: float32 (..., pose fields), named by `pose_fields`.

    Args:
        cameras: float32 (..., camera fields), angles in radians.
        fields: names of the numbers of a camera.
        order: whether the sine or the cosine of each angle comes first; `raw` returns `cameras`.

    Raises:
        OptionError: the cameras do not have `len(fields)` numbers.
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
