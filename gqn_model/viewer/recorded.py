"""Recorded cameras next to a query: the nearest one, and whether the query lies among them.

Shapes: V cameras.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gqn_data.viewer.poses import directions

# A query is outside if it is this much further from the recorded cameras than they are from each other.
_FURTHER = 1.5
# Recorded cameras that a query is compared with.
_MOST_CAMERAS = 600
_SAME_PLACE, _SAME_DIRECTION = 1e-3, math.radians(0.2)


class Nearest(NamedTuple):
    """The recorded camera that is nearest to a query.

    Attributes:
        view: its number.
        moved: distance of the positions, in raw units.
        turned: angle between the directions, in radians.
        is_same: whether the query is this camera.
    """

    view: int
    moved: float
    turned: float
    is_same: bool


class Recorded:
    """Cameras of one or several scenes.

    The distance of two cameras is the distance of their positions, in units of the extent of all, plus the angle
    between their directions in radians.

    Args:
        cameras: x, y, z, yaw, pitch: (V, 5).
        yaw_sign: 1 if yaw grows counter-clockwise seen from above, -1 if clockwise.
    """

    def __init__(self, cameras: NDArray[np.floating], yaw_sign: int) -> None:
        self._positions = cameras[:, :3].astype(np.float64)
        self._looks = directions(cameras, yaw_sign)
        self._yaw_sign = yaw_sign
        self.extent = float(np.ptp(self._positions, axis=0).max()) or 1.0

    def nearest(self, camera: NDArray[np.floating]) -> Nearest:
        """Return the recorded camera nearest to a camera (5,)."""
        moved, turned = self._apart(camera)
        view = int((moved / self.extent + turned).argmin())
        same = moved[view] <= _SAME_PLACE * self.extent and turned[view] <= _SAME_DIRECTION
        return Nearest(view, float(moved[view]), float(turned[view]), bool(same))

    def _apart(self, camera: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        look = directions(camera, self._yaw_sign)
        moved = np.linalg.norm(self._positions - camera[:3], axis=1)
        return moved, np.arccos(np.clip(self._looks @ look, -1, 1))


class Range:
    """Where the cameras of a dataset are, from those of some scenes.

    Args:
        cameras: (V, 5).
        yaw_sign: as in `Recorded`.
    """

    def __init__(self, cameras: NDArray[np.floating], yaw_sign: int) -> None:
        chosen = np.linspace(0, len(cameras) - 1, min(len(cameras), _MOST_CAMERAS)).round().astype(int)
        cameras = cameras[chosen]
        self._recorded = recorded = Recorded(cameras, yaw_sign)
        gaps = []
        for number, camera in enumerate(cameras):
            moved, turned = recorded._apart(camera)
            same = (moved <= _SAME_PLACE * recorded.extent) & (turned <= _SAME_DIRECTION)  # scenes may share cameras
            same[number] = True
            gaps.append((moved / recorded.extent + turned)[~same].min(initial=np.inf))
        finite = [gap for gap in gaps if gap < np.inf]
        self._furthest = _FURTHER * max(finite, default=0.0)

    def outside(self, camera: NDArray[np.floating]) -> str:
        """Return how far a camera is from the recorded ones if it is not among them; otherwise an empty string."""
        near = self._recorded.nearest(camera)
        if near.is_same or near.moved / self._recorded.extent + near.turned <= self._furthest:
            return ""
        return (
            f"outside the recorded cameras: {near.moved:.2f} units and {math.degrees(near.turned):.0f} degrees from "
            "the nearest"
        )
