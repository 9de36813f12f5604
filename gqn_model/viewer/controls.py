"""Sliders that move a query along the cameras of a set: around a ring or sphere, or through a space.

Which ones follows from the recorded cameras, as in `gqn_model.visualize.camera_path`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gqn_model.visualize.camera_path import focus_point

# A number that varies less than this share of the extent, or than this angle, is fixed.
_SMALL, _SMALL_ANGLE = 0.02, 1.0


class Slider(NamedTuple):
    """A number of a query that can be changed.

    Attributes:
        name: its name; angles are in degrees.
        low: least value.
        high: largest value.
        value: value at the start.
    """

    name: str
    low: float
    high: float
    value: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Controls:
    """The sliders of a set.

    Attributes:
        kind: `orbit` if all cameras look at one point, otherwise `walk`.
        sliders: numbers that vary among the recorded cameras.
        fixed: values of the other numbers.
        focus: the point that an orbit looks at, (3,).
        yaw_sign: 1 if yaw grows counter-clockwise seen from above, -1 if clockwise.
    """

    kind: Literal["orbit", "walk"]
    sliders: tuple[Slider, ...]
    fixed: dict[str, float]
    focus: NDArray[np.float64] | None
    yaw_sign: int

    @staticmethod
    def of(recorded: NDArray[np.floating], yaw_sign: int) -> Controls:
        """Return the controls for recorded cameras (V, 5); they start at the first of these."""
        cameras = recorded.astype(np.float64)
        cameras[:, 3] *= yaw_sign
        focus = focus_point(cameras)
        extent = float(np.ptp(cameras[:, :3], axis=0).max()) or 1.0
        if focus is None:
            kind: Literal["orbit", "walk"] = "walk"
            degrees = np.degrees(cameras[:, 3:])
            numbers = {
                "x": cameras[:, 0], "y": cameras[:, 1], "z": cameras[:, 2], "yaw": degrees[:, 0], "pitch": degrees[:, 1]
            }  # fmt: skip
        else:
            kind = "orbit"
            offsets = cameras[:, :3] - focus
            distance = np.linalg.norm(offsets, axis=1)
            numbers = {
                "angle": np.degrees(np.arctan2(offsets[:, 1], offsets[:, 0])),
                "elevation": np.degrees(np.arcsin(offsets[:, 2] / distance)),
                "distance": distance,
            }
        sliders, fixed = [], {}
        for name, values in numbers.items():
            low, high = float(values.min()), float(values.max())
            if name in ("angle", "yaw"):
                low, high = -180.0, 180.0
            if high - low < (_SMALL_ANGLE if name in ("elevation", "pitch") else _SMALL * extent):
                fixed[name] = float(np.median(values))
            else:
                start = float((values[0] + 180) % 360 - 180) if name in ("angle", "yaw") else float(values[0])
                sliders.append(Slider(name, low, high, start))
        return Controls(kind=kind, sliders=tuple(sliders), fixed=fixed, focus=focus, yaw_sign=yaw_sign)

    def camera(self, values: Sequence[float]) -> NDArray[np.float64]:
        """Return the camera x, y, z, yaw, pitch of the sliders' values: float64 (5,)."""
        found = self.fixed | {slider.name: value for slider, value in zip(self.sliders, values, strict=True)}
        if self.focus is None:
            yaw, pitch = math.radians(found["yaw"]), math.radians(found["pitch"])
            return np.array([found["x"], found["y"], found["z"], self.yaw_sign * yaw, pitch])
        angle, elevation = math.radians(found["angle"]), math.radians(found["elevation"])
        away = np.array(
            [math.cos(angle) * math.cos(elevation), math.sin(angle) * math.cos(elevation), math.sin(elevation)]
        )
        yaw = math.remainder(angle + math.pi, 2 * math.pi)
        return np.array([*(self.focus + found["distance"] * away), self.yaw_sign * yaw, -elevation])
