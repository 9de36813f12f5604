"""Lenses of photos: a pinhole with OpenCV's distortion, and how much of the world they see.

Sources: OpenCV, documentation of `calib3d` (radial and tangential distortion) and of `fisheye`; the camera models of
COLMAP and nerfstudio are these, with some coefficients left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import PhotosError

# The widest frame that a rewarp makes: half its width at depth 1. At 120 degrees the edges are stretched fourfold.
_WIDEST_TANGENT = math.tan(math.radians(60))
_TANGENTS = 64  # tried between 0 and the widest
_BORDER = 17  # points along each edge of a frame

_RADIAL = ("k1", "k2", "k3", "k4", "k5", "k6")
_TANGENTIAL = ("p1", "p2")
_PINHOLES = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV")
_FISHEYES = ("SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "OPENCV_FISHEYE")
MODELS = (*_PINHOLES, *_FISHEYES)
_FOCAL = ("fl_x", "fl_y", "camera_angle_x", "camera_angle_y")
KEYS = ("camera_model", "is_fisheye", *_FOCAL, "cx", "cy", *_RADIAL, *_TANGENTIAL)


@dataclass(frozen=True, kw_only=True)
class Lens:
    """Lens of a photo. Pixels are counted from the upper left corner of the photo; the middle of the first is at 0.5.

    Attributes:
        width: width of the photo in pixels.
        height: its height.
        fx: focal length in pixels, across.
        fy: focal length in pixels, down.
        cx: principal point, across.
        cy: principal point, down.
        radial: OpenCV's k1 to k6, or k1 to k4 of its fisheye model; those left out are 0.
        tangential: OpenCV's p1 and p2.
        fisheye: whether the radial coefficients are those of the fisheye model.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    radial: tuple[float, ...] = ()
    tangential: tuple[float, float] = (0.0, 0.0)
    fisheye: bool = False

    def pixels(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the pixels (..., 2) of points (..., 2) at depth 1, which are x to the right and y down."""
        bent: NDArray[np.float64] = self._distort(points) * (self.fx, self.fy) + (self.cx, self.cy)
        return bent

    def _distort(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        square = np.square(points).sum(-1, keepdims=True)
        k1, k2, k3, k4, k5, k6 = (*self.radial, *(0.0,) * 6)[:6]
        if self.fisheye:
            radius = np.sqrt(square)
            angle = np.arctan(radius)
            even = np.square(angle)
            bent = angle * (1 + even * (k1 + even * (k2 + even * (k3 + even * k4))))
            factor: NDArray[np.float64] = np.where(radius > 1e-9, bent / np.maximum(radius, 1e-9), 1)
            return points * factor
        above = 1 + square * (k1 + square * (k2 + square * k3))
        below = 1 + square * (k4 + square * (k5 + square * k6))
        p1, p2 = self.tangential
        twice = 2 * points[..., :1] * points[..., 1:]
        shift = np.concatenate(
            [
                p1 * twice + p2 * (square + 2 * np.square(points[..., :1])),
                p1 * (square + 2 * np.square(points[..., 1:])) + p2 * twice,
            ],
            -1,
        )
        shift += points * (above / np.where(below > 0, below, np.nan))
        return shift

    def widest(self, roll: float) -> float:
        """Return half the width, at depth 1, of the largest level square frame that the photo fills.

        Args:
            roll: angle in radians by which the camera is turned about its axis, as in `world.Pose`.

        Returns:
            0 if the axis of the lens lies outside of the photo.
        """
        edge = np.linspace(-1, 1, _BORDER)
        ones = np.ones_like(edge)
        border = np.concatenate(
            [np.stack(side, -1) for side in ((edge, -ones), (edge, ones), (-ones, edge), (ones, edge))]
        )
        border = turned(border, roll)

        def fits(tangents: NDArray[np.float64]) -> NDArray[np.bool_]:
            with np.errstate(all="ignore"):  # coefficients of a real lens overflow far outside of its photo
                pixels = self.pixels(tangents[:, None, None] * border)
                # Beyond its fold a polynomial maps the outside of the photo into it.
                radius = np.square(pixels - (self.cx, self.cy)).sum(-1)
                grows = np.diff(radius, axis=0, prepend=-1) > 0
            inside = (pixels >= 0) & (pixels <= (self.width, self.height))
            filled: NDArray[np.bool_] = (inside.all(-1) & grows).all(-1)
            return filled

        low, high = 0.0, _WIDEST_TANGENT
        for _ in range(6):
            tried = np.linspace(low, high, _TANGENTS + 1)
            good = fits(tried)
            if good.all():
                return float(tried[-1])
            first = int(np.argmin(good))
            if first == 0:
                return 0.0
            # The last good one may lie beyond the fold, where the radius can still exceed the previous one.
            low, high = float(tried[max(0, first - 2)]), float(tried[first])
        return low


def turned(points: NDArray[np.float64], roll: float) -> NDArray[np.float64]:
    """Return points (..., 2) of a level camera's plane, right and down, in the plane of a camera with a roll."""
    cos, sin = math.cos(roll), math.sin(roll)
    moved: NDArray[np.float64] = points @ np.array([[cos, -sin], [sin, cos]])
    return moved


def lens_of(keys: Mapping[str, Any], size: tuple[int, int], where: str) -> Lens:
    """Return the lens that the keys of nerfstudio's `transforms.json` describe.

    Args:
        keys: `fl_x` or `camera_angle_x`, and optionally `fl_y`, `cx`, `cy`, `k1` to `k6`, `p1`, `p2`, `camera_model`.
        size: width and height of the photo.
        where: name of the photo, for messages.

    Raises:
        PhotosError: a key is missing or invalid, or the model is unknown.
    """
    width, height = size
    model = keys.get("camera_model", "OPENCV_FISHEYE" if keys.get("is_fisheye") else "OPENCV")
    if model not in MODELS:
        raise PhotosError(
            f"{where}: camera model {str(model)[:40]!r}, expected one of {', '.join(MODELS)}. "
            "Undistort the photos first, such as with colmap image_undistorter"
        )
    if "fl_x" in keys:
        fx = number_of(keys, "fl_x", where)
    elif "camera_angle_x" in keys:
        fx = _focal(keys, "camera_angle_x", where, width)
    else:
        raise PhotosError(
            f"{where}: no focal length, expected fl_x in pixels or camera_angle_x in radians. "
            "If it is unknown, 1.2 times the longer side is COLMAP's first guess"
        )
    if "fl_y" in keys:
        fy = number_of(keys, "fl_y", where)
    else:
        fy = _focal(keys, "camera_angle_y", where, height) if "camera_angle_y" in keys else fx
    fisheye = model in _FISHEYES
    radial = [number_of(keys, name, where, 0.0) for name in _RADIAL]
    # nerfstudio's k4 is another than OpenCV's, which COLMAP's FULL_OPENCV has.
    if any(radial[4 if fisheye else 3 :]) and model != "FULL_OPENCV":
        raise PhotosError(f"{where}: k4, k5 or k6 is not 0 in the model {model}, expected FULL_OPENCV for these")
    lens = Lens(
        width=width,
        height=height,
        fx=fx,
        fy=fy,
        cx=number_of(keys, "cx", where, width / 2),
        cy=number_of(keys, "cy", where, height / 2),
        radial=tuple(radial) if any(radial) else (),
        tangential=(number_of(keys, "p1", where, 0.0), number_of(keys, "p2", where, 0.0)),
        fisheye=fisheye,
    )
    if not (1 <= lens.fx <= 1e6 and 1 <= lens.fy <= 1e6):
        raise PhotosError(f"{where}: focal lengths {lens.fx:g} and {lens.fy:g}, expected 1 to 1,000,000 pixels")
    return lens


def _focal(keys: Mapping[str, Any], name: str, where: str, side: int) -> float:
    angle = number_of(keys, name, where)
    if not 0 < angle < math.pi:
        raise PhotosError(f"{where}: {name} is {angle:g}, expected radians between 0 and pi")
    return side / 2 / math.tan(angle / 2)


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a value of a camera file is a number, also if it is not finite."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def number_of(keys: Mapping[str, Any], name: str, where: str, default: float | None = None) -> float:
    """Return a finite number.

    Raises:
        PhotosError: it is missing without a default, or not a finite number.
    """
    value = keys.get(name, default)
    if not is_number(value) or not abs(value) < 1e12:
        found = "is missing" if value is None else f"is {str(value)[:40]!r}"
        raise PhotosError(f"{where}: {name} {found}, expected a finite number")
    return float(value)
