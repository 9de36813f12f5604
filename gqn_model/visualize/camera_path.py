"""Camera paths through a scene, derived from the scene's recorded cameras.

The recorded cameras determine one of three kinds, for any scene set:

- *orbit*: all cameras look at one point (rings, spheres, an arm on a table). A circle around the vertical through that
  point, at the cameras' median distance and elevation, looking at the point. If the cameras see it only from one side,
  an arc over that side and back.
- *record*: consecutive cameras are close to each other (mazes). The path follows the record.
- *tour*: any other cameras. A short round trip through all of them.

A camera is five numbers: x, y, z, yaw, pitch, angles in radians. It looks along (cos yaw cos pitch, sin yaw cos pitch,
sin pitch), as in `gqn_model.evaluate.baselines`; `find_camera_path` converts sets whose yaw grows clockwise.

Shapes: V recorded views, N frames of the path.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import OptionError
from gqn_data.schema.catalog import CAMERA_FIELDS

Kind = Literal["orbit", "record", "tour"]
Cameras = NDArray[np.float64]

# Default numbers of frames: of an orbit (5 degrees each), of a tour per camera, and the limit of other paths.
_ORBIT_FRAMES, _TOUR_FRAMES, _MAX_FRAMES = 72, 12, 300

# Limit of the angle between a camera's direction and the common point; the median must be below a third of it.
_MAX_OFF_AXIS = math.radians(30)
# Turns cameras whose yaw grows clockwise into counter-clockwise ones, and back.
_CLOCKWISE = np.array([1.0, 1.0, 1.0, -1.0, 1.0])
# A wider gap between bearings means that the cameras see the point only from one side.
_MAX_GAP = math.radians(150)
# Limit of an orbit's elevation: from above, the picture would only rotate.
_MAX_ELEVATION = math.radians(60)
# A record is a path if consecutive views are closer than this share of the mean distance between all views.
_CONSECUTIVE = 0.35


@dataclass(frozen=True, kw_only=True, eq=False)
class CameraPath:
    """A path of cameras.

    Attributes:
        kind: orbit, record or tour.
        cameras: float64 (N, 5).
        closed: the first frame follows the last.
    """

    kind: Kind
    cameras: Cameras
    closed: bool


def find_camera_path(
    recorded: NDArray[np.floating], fields: tuple[str, ...] = CAMERA_FIELDS, frames: int = 0, yaw_sign: int = 1
) -> CameraPath:
    """Derive a camera path from a scene's cameras.

    Args:
        recorded: (V, 5), the scene's cameras in the order of the record.
        fields: names of a camera's numbers.
        frames: N; 0 for a number that suits the path.
        yaw_sign: -1 if the yaw of this set grows clockwise (`gqn_data.schema.geometry`).

    Raises:
        OptionError: the cameras have other numbers, or are all equal.
    """
    if fields != CAMERA_FIELDS or recorded.shape[-1] != len(CAMERA_FIELDS):
        raise OptionError(
            f"cameras of the numbers {', '.join(fields)}, expected {', '.join(CAMERA_FIELDS)}: a walk needs cameras of "
            "known geometry"
        )
    if yaw_sign < 0:
        mirrored = find_camera_path(recorded * _CLOCKWISE, fields, frames)
        return replace(mirrored, cameras=mirrored.cameras * _CLOCKWISE)
    cameras = recorded.astype(np.float64)
    point = focus_point(cameras)
    if point is not None:
        bearings = _bearings(cameras, point, frames or _ORBIT_FRAMES)
        return CameraPath(kind="orbit", cameras=_orbit(cameras, point, bearings), closed=True)
    distances = _distances(cameras)
    if not distances.any():
        raise OptionError("all cameras of the scene are equal, so that no walk is possible; choose another scene")
    views = len(cameras)
    steps = distances[np.arange(views - 1), np.arange(1, views)]
    if views > 2 and steps.mean() < _CONSECUTIVE * distances.sum() / (views * (views - 1)):
        path = _smooth(cameras, steps, frames or min(views, _MAX_FRAMES), closed=False)
        return CameraPath(kind="record", cameras=path, closed=False)
    order = _round_trip(distances)
    lengths = distances[order, np.roll(order, -1)]
    path = _smooth(cameras[order], lengths, frames or min(_TOUR_FRAMES * views, _MAX_FRAMES), closed=True)
    return CameraPath(kind="tour", cameras=path, closed=True)


def directions(cameras: Cameras) -> NDArray[np.float64]:
    """Return the unit viewing directions (..., 3) of cameras (..., 5)."""
    yaw, pitch = cameras[..., 3], cameras[..., 4]
    return np.stack([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)], -1)


def focus_point(cameras: Cameras) -> NDArray[np.float64] | None:
    """Return the point that all cameras look at, (3,), or None.

    It is the least-squares intersection of their lines of sight.
    """
    if len(cameras) < 3:
        return None
    positions, looks = cameras[:, :3], directions(cameras)
    projections = np.eye(3) - looks[:, :, None] * looks[:, None, :]
    right_side = (projections @ positions[:, :, None]).sum(0)[:, 0]
    point, _, rank, _ = np.linalg.lstsq(projections.sum(0), right_side, rcond=1e-6)
    offsets = point - positions
    distances = np.linalg.norm(offsets, axis=1)
    if rank < 3 or distances.min() < 1e-6:
        return None
    angles = np.arccos(np.clip((offsets * looks).sum(1) / distances, -1.0, 1.0))
    seen_by_all = angles.max() <= _MAX_OFF_AXIS and np.median(angles) <= _MAX_OFF_AXIS / 3
    result: NDArray[np.float64] = point
    return result if seen_by_all and distances.max() <= 2 * distances.min() else None


def _bearings(cameras: Cameras, point: NDArray[np.float64], frames: int) -> NDArray[np.float64]:
    """Return the bearings of an orbit's frames, (N,): once around from the first view, or an arc and back."""
    recorded = np.arctan2(cameras[:, 1] - point[1], cameras[:, 0] - point[0])
    ordered = np.sort(recorded)
    gaps = np.diff(np.append(ordered, ordered[0] + 2 * math.pi))
    widest = int(gaps.argmax())
    angles = np.arange(frames, dtype=np.float64) * (2 * math.pi / frames)
    if gaps[widest] <= _MAX_GAP:
        start: float = recorded[0]
        return start + angles
    arc: float = 2 * math.pi - gaps[widest]
    middle: float = ordered[(widest + 1) % len(ordered)] + arc / 2
    return middle + arc / 2 * np.sin(angles)


def _orbit(cameras: Cameras, point: NDArray[np.float64], bearings: NDArray[np.float64]) -> Cameras:
    """Return cameras at these bearings that look at the point, at the median distance and elevation."""
    offsets = cameras[:, :3] - point
    distances = np.linalg.norm(offsets, axis=1)
    elevation = float(np.clip(np.median(np.arcsin(offsets[:, 2] / distances)), -_MAX_ELEVATION, _MAX_ELEVATION))
    distance = float(np.median(distances))
    radius = distance * math.cos(elevation)
    return np.stack(
        [
            point[0] + radius * np.cos(bearings),
            point[1] + radius * np.sin(bearings),
            np.full_like(bearings, point[2] + distance * math.sin(elevation)),
            _wrap(bearings + math.pi),
            np.full_like(bearings, -elevation),
        ],
        1,
    )


def _distances(cameras: Cameras) -> NDArray[np.float64]:
    """Return the distances between cameras, (V, V): of positions, in units of their mean, plus angles in radians."""
    positions, looks = cameras[:, :3], directions(cameras)
    moved = np.linalg.norm(positions[:, None] - positions, axis=-1)
    turned = np.arccos(np.clip(looks @ looks.T, -1.0, 1.0))
    distances: NDArray[np.float64] = moved / (moved.mean() or 1.0) + turned
    np.fill_diagonal(distances, 0.0)  # rounding: the cosine of a direction with itself may be below 1
    return distances


def _round_trip(distances: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the order of a short round trip through all views: nearest neighbour, improved by 2-opt."""
    views = len(distances)
    order, remaining = [0], set(range(1, views))
    while remaining:
        nearest = min(remaining, key=lambda view: (distances[order[-1], view], view))
        order.append(nearest)
        remaining.remove(nearest)
    improved = True
    while improved:
        improved = False
        for first in range(1, views - 1):
            for last in range(first + 1, views):
                before, after = order[first - 1], order[(last + 1) % views]
                old = distances[before, order[first]] + distances[order[last], after]
                if distances[before, order[last]] + distances[order[first], after] < old - 1e-9:
                    order[first : last + 1] = order[first : last + 1][::-1]
                    improved = True
    return np.array(order)


def _smooth(cameras: Cameras, lengths: NDArray[np.float64], frames: int, *, closed: bool) -> Cameras:
    """Return a path through cameras in order, (N, 5), at even speed and without overshoot.

    Args:
        cameras: key frames.
        lengths: distances between consecutive cameras; with `closed` also from the last to the first.
        frames: N.
        closed: return to the first camera.
    """
    keys = np.concatenate([cameras, cameras[:1]]) if closed else cameras.copy()
    keys[:, 3] = np.unwrap(keys[:, 3])
    turns = keys[-1, 3] - keys[0, 3]  # total change of the yaw: a multiple of 2 pi if closed
    moving = lengths > 1e-9
    keys = keys[np.append(True, moving)]
    times = np.append(0.0, np.cumsum(lengths[moving]))
    sampled = times[-1] * np.arange(frames) / (frames if closed else max(1, frames - 1))
    if closed:  # repeat a key at both ends, so that the path is smooth there
        turn = np.array([0, 0, 0, turns, 0])
        keys = np.concatenate([keys[-2:-1] - turn, keys, keys[1:2] + turn])
        times = np.concatenate([[times[-2] - times[-1]], times, [times[-1] + times[1]]])
    path = _monotone_cubic(times, keys, sampled)
    path[:, 3] = _wrap(path[:, 3])
    return path


def _monotone_cubic(times: NDArray[np.float64], keys: Cameras, sampled: NDArray[np.float64]) -> Cameras:
    """Interpolate keys at the sampled times by cubics that stay between neighbouring keys.

    Slopes are weighted harmonic means of those on both sides (Fritsch and Butland, SIAM Journal on Scientific and
    Statistical Computing 5(2), 1984), 0 at extrema and at the ends.
    """
    width = np.diff(times)[:, None]
    rise = np.diff(keys, axis=0) / width
    slopes = np.zeros_like(keys)
    left, right = rise[:-1], rise[1:]
    before, after = 2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]
    same_sign = left * right > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (before + after) / (before / left + after / right)
    slopes[1:-1] = np.where(same_sign, mean, 0.0)
    index = np.clip(np.searchsorted(times, sampled, side="right") - 1, 0, len(times) - 2)
    span = width[index]
    t = (sampled - times[index])[:, None] / span
    start, end = keys[index], keys[index + 1]
    out, into = slopes[index] * span, slopes[index + 1] * span
    return (
        (2 * t**3 - 3 * t**2 + 1) * start
        + (t**3 - 2 * t**2 + t) * out
        + (3 * t**2 - 2 * t**3) * end
        + (t**3 - t**2) * into
    )


def _wrap(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Wrap angles to [-pi, pi), the range of recorded yaws."""
    return (angles + math.pi) % (2 * math.pi) - math.pi
