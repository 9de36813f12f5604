"""Conversion between cameras and the poses of viser.

viser describes a camera by its position and a quaternion that turns camera axes (x right, y down, z forward) to world
axes. A camera of this project looks along (cos yaw cos pitch, yaw_sign sin yaw cos pitch, sin pitch), in the same
right-handed world with z up. Cameras do not roll.

Shapes: V views.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Below this length the horizontal part of a direction does not determine the yaw.
_VERTICAL = 1e-6


def orientations(cameras: NDArray[np.floating], yaw_sign: int) -> NDArray[np.float64]:
    """Return the quaternions w, x, y, z of cameras (V, 5): float64 (V, 4).

    Args:
        cameras: x, y, z, yaw, pitch.
        yaw_sign: 1 if yaw grows counter-clockwise seen from above, -1 if clockwise.
    """
    yaw, pitch = yaw_sign * cameras[..., 3].astype(np.float64) / 2, cameras[..., 4].astype(np.float64) / 2
    a, b, c, d = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    # The product of the yaw about z, -pitch about y, and (1, -1, 1, -1) / 2, which turns a camera to look along x.
    parts = [(a + b) * (c + d), (a + b) * (d - c), (a - b) * (c - d), (b - a) * (c + d)]
    return np.stack(parts, -1) / 2


def camera_at(position: ArrayLike, orientation: ArrayLike, yaw_sign: int) -> NDArray[np.float64]:
    """Return the camera x, y, z, yaw, pitch of a pose: float64 (5,). A roll is ignored.

    Args:
        position: (3,).
        orientation: quaternion w, x, y, z of any length but zero.
        yaw_sign: as in `orientations`.
    """
    w, x, y, z = np.asarray(orientation, np.float64) / np.linalg.norm(orientation)
    ahead = np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])
    level = math.hypot(ahead[0], ahead[1])
    if level < _VERTICAL:  # straight up or down: the direction to the right determines the yaw
        yaw = math.atan2(1 - 2 * (y * y + z * z), -2 * (x * y + w * z))
    else:
        yaw = math.atan2(ahead[1], ahead[0])
    pitch = math.atan2(ahead[2], level)
    return np.array([*np.asarray(position, np.float64), yaw_sign * yaw, pitch])


def directions(cameras: NDArray[np.floating], yaw_sign: int) -> NDArray[np.float64]:
    """Return the unit vectors along which cameras (..., 5) look: float64 (..., 3)."""
    yaw, pitch = yaw_sign * cameras[..., 3].astype(np.float64), cameras[..., 4].astype(np.float64)
    return np.stack([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)], -1)
