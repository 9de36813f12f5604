"""Walks: paths of cameras through a scene, derived from the cameras with which it was recorded. Pure, numpy alone.

Three kinds, told apart by the recorded cameras themselves, for any scene set:

- *orbit*: the cameras look at one point (rings, spheres, an arm on a table): a circle about the vertical through that
  point, at their median distance and elevation, looking at it. Where they see it from one side alone, an arc over that
  side and back.
- *record*: the cameras follow each other closely in their order (mazes): that path.
- *tour*: anything else (free cameras): a short round trip through all of them.

A camera is five numbers, x, y, z, yaw, pitch, and looks along (cos yaw cos pitch, sin yaw cos pitch, sin pitch), angles
in radians, as in `gqn_model.evaluate.baselines`.

Shapes: V recorded views, N frames of the walk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import OptionError
from gqn_data.schema.catalog import CAMERA_FIELDS

Kind = Literal["orbit", "record", "tour"]
Cameras = NDArray[np.float64]

# Frames of a walk where nobody says how many: a step of 5 degrees on a circle, a dozen from camera to camera.
_ON_ORBIT, _BETWEEN, _MOST = 72, 12, 300

# Cameras look at one point where none looks past it by more, and half of them by not more than a third of it.
_ASIDE = math.radians(30)
# A gap in the bearings wider than this is no view from all around.
_GAP = math.radians(150)
# An orbit keeps to this elevation: above it a picture only turns about itself.
_STEEPEST = math.radians(60)
# The record is a walk where neighbours in it are so much nearer to each other than any two views.
_CLOSELY = 0.35


@dataclass(frozen=True, kw_only=True, eq=False)
class CameraPath:
    """A path of cameras.

    Attributes:
        kind: how it was found.
        cameras: float64 (N, 5).
        closed: whether the first frame follows the last.
    """

    kind: Kind
    cameras: Cameras
    closed: bool


def find_camera_path(
    recorded: NDArray[np.floating], fields: tuple[str, ...] = CAMERA_FIELDS, frames: int = 0
) -> CameraPath:
    """A walk through a scene.

    Args:
        recorded: (V, 5), the scene's cameras in the order of the record.
        fields: the names of a camera's numbers.
        frames: N; 0: as many as suit the path.

    Raises:
        OptionError: the cameras are of other numbers, or all stand and look alike.
    """
    if fields != CAMERA_FIELDS or recorded.shape[-1] != len(CAMERA_FIELDS):
        raise OptionError(
            f"cameras of the numbers {', '.join(fields)}: nobody says what they mean, so no walk can be drawn through "
            f"them; possible with {', '.join(CAMERA_FIELDS)}"
        )
    cameras = recorded.astype(np.float64)
    point = point_seen(cameras)
    if point is not None:
        bearings, closed = _bearings(cameras, point, frames or _ON_ORBIT)
        return CameraPath(kind="orbit", cameras=_orbit(cameras, point, bearings), closed=closed)
    apart = _apart(cameras)
    if not apart.any():
        raise OptionError("all cameras of the scene stand at one place and look one way: there is no walk between them")
    views = len(cameras)
    steps = apart[np.arange(views - 1), np.arange(1, views)]
    if views > 2 and steps.mean() < _CLOSELY * apart.sum() / (views * (views - 1)):
        path = _smooth(cameras, steps, frames or min(views, _MOST), closed=False)
        return CameraPath(kind="record", cameras=path, closed=False)
    order = _round_trip(apart)
    lengths = apart[order, np.roll(order, -1)]
    path = _smooth(cameras[order], lengths, frames or min(_BETWEEN * views, _MOST), closed=True)
    return CameraPath(kind="tour", cameras=path, closed=True)


def directions(cameras: Cameras) -> NDArray[np.float64]:
    """Unit vectors along which cameras (..., 5) look: (..., 3)."""
    yaw, pitch = cameras[..., 3], cameras[..., 4]
    return np.stack([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)], -1)


def point_seen(cameras: Cameras) -> NDArray[np.float64] | None:
    """The point that all cameras look at, (3,), or None where there is none.

    It is the point whose squared distances from their lines of sight have the least sum.
    """
    if len(cameras) < 3:
        return None
    places, looks = cameras[:, :3], directions(cameras)
    across = np.eye(3) - looks[:, :, None] * looks[:, None, :]
    point, _, rank, _ = np.linalg.lstsq(across.sum(0), (across @ places[:, :, None]).sum(0)[:, 0], rcond=1e-6)
    towards = point - places
    away = np.linalg.norm(towards, axis=1)
    if rank < 3 or away.min() < 1e-6:
        return None
    aside = np.arccos(np.clip((towards * looks).sum(1) / away, -1.0, 1.0))
    seen = aside.max() <= _ASIDE and np.median(aside) <= _ASIDE / 3 and away.max() <= 2 * away.min()
    found: NDArray[np.float64] = point
    return found if seen else None


def _bearings(cameras: Cameras, point: NDArray[np.float64], frames: int) -> tuple[NDArray[np.float64], bool]:
    """The bearings of a walk about a point, from that of the first view on, and whether they close."""
    seen = np.arctan2(cameras[:, 1] - point[1], cameras[:, 0] - point[0])
    ordered = np.sort(seen)
    gaps = np.diff(np.append(ordered, ordered[0] + 2 * math.pi))
    widest = int(gaps.argmax())
    if gaps[widest] <= _GAP:
        return seen[0] + np.arange(frames) * (2 * math.pi / frames), True
    arc: float = 2 * math.pi - gaps[widest]
    middle: float = ordered[(widest + 1) % len(ordered)] + arc / 2
    return middle + arc / 2 * np.sin(np.arange(frames) * (2 * math.pi / frames)), True


def _orbit(cameras: Cameras, point: NDArray[np.float64], bearings: NDArray[np.float64]) -> Cameras:
    off = cameras[:, :3] - point
    away = np.linalg.norm(off, axis=1)
    elevation = float(np.clip(np.median(np.arcsin(off[:, 2] / away)), -_STEEPEST, _STEEPEST))
    far = float(np.median(away))
    flat = far * math.cos(elevation)
    return np.stack(
        [
            point[0] + flat * np.cos(bearings),
            point[1] + flat * np.sin(bearings),
            np.full_like(bearings, point[2] + far * math.sin(elevation)),
            _wrapped(bearings + math.pi),
            np.full_like(bearings, -elevation),
        ],
        1,
    )


def _apart(cameras: Cameras) -> NDArray[np.float64]:
    """How far cameras are from each other, (V, V): places in units of their spread, and angles of sight."""
    places, looks = cameras[:, :3], directions(cameras)
    moved = np.linalg.norm(places[:, None] - places, axis=-1)
    turned = np.arccos(np.clip(looks @ looks.T, -1.0, 1.0))
    apart: NDArray[np.float64] = moved / (moved.mean() or 1.0) + turned
    np.fill_diagonal(apart, 0.0)  # the cosine of a camera with itself is rounded, too
    return apart


def _round_trip(apart: NDArray[np.float64]) -> NDArray[np.int64]:
    """A short way through all views and back: nearest neighbour, then turned where that shortens it ("2-opt")."""
    views = len(apart)
    order, left = [0], set(range(1, views))
    while left:
        nearest = min(left, key=lambda view: (apart[order[-1], view], view))
        order.append(nearest)
        left.remove(nearest)
    shorter = True
    while shorter:
        shorter = False
        for first in range(1, views - 1):
            for last in range(first + 1, views):
                before, after = order[first - 1], order[(last + 1) % views]
                old = apart[before, order[first]] + apart[order[last], after]
                if apart[before, order[last]] + apart[order[first], after] < old - 1e-9:
                    order[first : last + 1] = order[first : last + 1][::-1]
                    shorter = True
    return np.array(order)


def _smooth(cameras: Cameras, lengths: NDArray[np.float64], frames: int, *, closed: bool) -> Cameras:
    """The path through cameras in their order, at even speed, without overshooting any of them."""
    keys = np.concatenate([cameras, cameras[:1]]) if closed else cameras.copy()
    keys[:, 3] = np.unwrap(keys[:, 3])
    whole = keys[-1, 3] - keys[0, 3]  # what the yaw has turned on the way: a multiple of 2 pi where it is closed
    moving = lengths > 1e-9
    keys = keys[np.append(True, moving)]
    at = np.append(0.0, np.cumsum(lengths[moving]))
    asked = at[-1] * np.arange(frames) / (frames if closed else max(1, frames - 1))
    if closed:  # one key more at both ends, so that the ends join as smoothly as the rest
        turn = np.array([0, 0, 0, whole, 0])
        keys = np.concatenate([keys[-2:-1] - turn, keys, keys[1:2] + turn])
        at = np.concatenate([[at[-2] - at[-1]], at, [at[-1] + at[1]]])
    path = _monotone_cubic(at, keys, asked)
    path[:, 3] = _wrapped(path[:, 3])
    return path


def _monotone_cubic(at: NDArray[np.float64], keys: Cameras, asked: NDArray[np.float64]) -> Cameras:
    """Cubic interpolation that stays between neighbouring keys.

    Slopes are the harmonic means of those on both sides (Fritsch and Butland, SIAM Journal on Scientific and
    Statistical Computing 5(2), 1984), 0 at a turn and at the ends.
    """
    width = np.diff(at)[:, None]
    rise = np.diff(keys, axis=0) / width
    slopes = np.zeros_like(keys)
    left, right = rise[:-1], rise[1:]
    before, after = 2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]
    same = left * right > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (before + after) / (before / left + after / right)
    slopes[1:-1] = np.where(same, mean, 0.0)
    place = np.clip(np.searchsorted(at, asked, side="right") - 1, 0, len(at) - 2)
    wide = width[place]
    t = (asked - at[place])[:, None] / wide
    start, end = keys[place], keys[place + 1]
    out, into = slopes[place] * wide, slopes[place + 1] * wide
    return (
        (2 * t**3 - 3 * t**2 + 1) * start
        + (t**3 - 2 * t**2 + t) * out
        + (3 * t**2 - 2 * t**3) * end
        + (t**3 - t**2) * into
    )


def _wrapped(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles within pi of 0, as recorded yaws are."""
    return (angles + math.pi) % (2 * math.pi) - math.pi
