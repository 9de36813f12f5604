"""Axes and units: turn a capture so that z is up, scale its positions, and find the yaw, pitch and roll of its cameras.

The dataset's world is right-handed with z up, and yaw grows counter-clockwise seen from above
(`gqn_data.schema.geometry`). GQN's cameras are level: `warp` turns roll out of the photo.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_Z = np.array((0.0, 0.0, 1.0))

# Mean square of the right axes along a direction, below which it may be up: all yaws are within 5 degrees.
_FLAT = 0.003
_ROUNDS = 20  # of reweighting, so that a few rolled cameras do not tilt the world
_LEAST_SINE = 0.01
_VERTICAL = 1e-6


class Pose(NamedTuple):
    """Direction of a camera; angles in radians.

    Attributes:
        yaw: counter-clockwise seen from above, 0 along x.
        pitch: upwards.
        roll: by which the camera is turned clockwise about its axis, seen from behind it.
    """

    yaw: float
    pitch: float
    roll: float


class World(NamedTuple):
    """Similarity from a capture's world to the dataset's: scale * rotation @ (point - centre).

    Attributes:
        scale: factor of lengths.
        rotation: float64 (3, 3); the third row is up in the capture's world.
        centre: float64 (3,), mean position of the cameras.
    """

    scale: float
    rotation: NDArray[np.float64]
    centre: NDArray[np.float64]

    def points(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return points (n, 3) in the dataset's world."""
        moved: NDArray[np.float64] = self.scale * (points - self.centre) @ self.rotation.T
        return moved

    def matrix(self) -> NDArray[np.float64]:
        """Return the similarity as a matrix (3, 4) for points (x, y, z, 1)."""
        turn = self.scale * self.rotation
        return np.column_stack([turn, -turn @ self.centre])


def estimate_up(rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the direction (3,) that is up for most of the cameras, whose right axes are level.

    Args:
        rotations: (n, 3, 3), camera to world; columns right, down, forward.
    """
    right, mean = rotations[:, :, 0], -rotations[:, :, 1].mean(0)
    weights = np.ones(len(right))
    up = mean
    for _ in range(_ROUNDS):
        spread, directions = np.linalg.eigh((weights[:, None] * right).T @ right / weights.sum())
        flat = directions[:, spread <= max(_FLAT, spread[0])]
        # All cameras look the same way: any direction across their right axis is level. Take the one nearest to theirs.
        up = flat @ (flat.T @ mean)
        length = np.linalg.norm(up)
        up = up / length if length > 1e-9 else directions[:, 0]
        weights = 1 / np.maximum(np.abs(right @ up), _LEAST_SINE)
    found: NDArray[np.float64] = up
    return found


def rotation_to_z(up: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the smallest rotation (3, 3) that turns a direction to z."""
    axis, cosine = np.cross(up, _Z), float(up @ _Z)
    if cosine < -1 + 1e-12:
        return np.diag((1.0, -1.0, -1.0))
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn: NDArray[np.float64] = np.eye(3) + cross + cross @ cross / (1 + cosine)
    return turn


def pose_of(rotation: NDArray[np.float64]) -> Pose:
    """Return the direction of a camera whose world has z up.

    Args:
        rotation: (3, 3), camera to world; columns right, down, forward.
    """
    right, _, forward = rotation.T
    level = math.hypot(forward[0], forward[1])
    pitch = math.atan2(forward[2], level)
    if level < _VERTICAL:  # straight up or down: yaw and roll are one angle
        return Pose(math.atan2(right[0], -right[1]), pitch, 0.0)
    yaw = math.atan2(forward[1], forward[0])
    level_right = np.array((math.sin(yaw), -math.cos(yaw), 0.0))
    level_down = np.cross(forward, level_right)
    return Pose(yaw, pitch, math.atan2(float(right @ level_down), float(right @ level_right)))


def focus_of(positions: NDArray[np.float64], forward: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the point (3,) nearest to the axes of all cameras, or None unless most look at one point.

    Args:
        positions: (n, 3).
        forward: (n, 3), unit vectors.
    """
    across = np.eye(3) - forward[:, :, None] * forward[:, None, :]
    system = across.sum(0)
    if np.linalg.eigvalsh(system)[0] < _FLAT * len(positions):  # parallel axes meet nowhere
        return None
    point: NDArray[np.float64] = np.linalg.solve(system, np.einsum("nij,nj->i", across, positions))
    depths = np.einsum("ni,ni->n", point - positions, forward)
    distances = np.linalg.norm(point - positions, axis=1)
    # In front of the cameras, and within 30 degrees of the axes of most.
    return point if np.mean(depths > 0.87 * distances) > 0.8 else None


def spread_of(positions: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return the mean (3,) of positions (n, 3), and the largest distance from it."""
    centre: NDArray[np.float64] = positions.mean(0)
    return centre, float(np.linalg.norm(positions - centre, axis=1).max())
