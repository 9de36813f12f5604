"""Assign photos to scenes and splits; choose axes, units, the common field of view and the depth range."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gqn_data.counts import as_number
from gqn_data.errors import OptionError, PhotosError, UnknownName
from gqn_data.import_photos.capture import Capture, Photo
from gqn_data.import_photos.world import Pose, World, estimate_up, focus_of, pose_of, rotation_to_z, spread_of
from gqn_data.schema.catalog import SPLITS, Split
from gqn_data.schema.geometry import DEPTHS
from gqn_data.units import count_of

Roll = Literal["refuse", "drop", "level"]
AXES = {"x": (1, 0, 0), "y": (0, 1, 0), "z": (0, 0, 1), "-x": (-1, 0, 0), "-y": (0, -1, 0), "-z": (0, 0, -1)}

MAX_ROLL = 5.0  # degrees; less is levelled without asking

_SCALES = (1e-9, 1e9)  # positions are float32, and models square them

_FAR_OUT = 20  # times the median distance of the cameras from their median

_FEWEST_PIXELS = 8  # of a photo, along the edge of a frame
_ENLARGED = 1.5  # more is worth a word

_ONE_PLACE = 1e-9  # largest distance from the mean of cameras that are at one place

_VIEWS_OF_ONE_CAPTURE = 10  # as in the rooms

# Depths of seen points that are left out at both ends, because reconstructions hold outliers.
_OUTLIERS = 1.0  # percent
_FEWEST_DEPTHS = 10  # below, seen points say nothing about the surfaces
_NEAREST = 0.1  # least depth, as a part of the distance to what the cameras look at

# Of the farthest camera's distance from their mean, for cameras that walk through a place: as in the rooms and mazes.
_DEPTHS_OF_SPREAD = (0.1, 4.0)


class Placed(NamedTuple):
    """A photo and its camera in the dataset's world."""

    photo: Photo
    pose: Pose


class Scene(NamedTuple):
    """A scene: the number of its capture, its split and its photos."""

    capture: int
    split: Split
    photos: list[Placed]


def find_worlds(captures: Sequence[Capture], up: str, scale: float | str) -> list[World]:
    """Return the similarity from each capture's world to the dataset's."""
    if up != "auto" and up not in AXES:
        raise UnknownName("up", str(up), ["auto", *AXES])
    spreads = [_spread_of(capture, capture.photos) for capture in captures]
    if scale == "scene":
        factors = [1 / radius for _, radius in spreads]
    elif scale == "set":
        factors = [1 / max(radius for _, radius in spreads)] * len(captures)
    else:
        if isinstance(scale, str):
            raise OptionError(f"scale is {scale[:40]!r}, expected scene, set or a number above 0")
        factor = as_number("scale", scale)
        if not _SCALES[0] <= factor <= _SCALES[1]:
            low, high = _SCALES
            raise OptionError(f"scale is {factor:g}, expected {low:g} to {high:g}, scene or set")
        factors = [factor] * len(captures)
    return [
        World(factor, rotation_to_z(_up_of(capture, up)), centre)
        for capture, factor, (centre, _) in zip(captures, factors, spreads)
    ]


def _spread_of(capture: Capture, photos: Sequence[Photo]) -> tuple[NDArray[np.float64], float]:
    """Return the mean of the cameras' positions and the largest distance from it.

    Raises:
        PhotosError: they are at one place.
    """
    centre, radius = spread_of(np.stack([photo.position for photo in photos]))
    if not radius > _ONE_PLACE:
        raise PhotosError(f"{capture.folder}: all cameras are at one place, expected several places")
    return centre, radius


def warn_of_outliers(captures: Sequence[Capture], log: Callable[[str], None]) -> None:
    """Log the farthest camera of a capture if it is so far away that the others are next to each other."""
    for capture in captures:
        positions = np.stack([photo.position for photo in capture.photos])
        distances = np.linalg.norm(positions - np.median(positions, axis=0), axis=1)
        farthest, typical = int(distances.argmax()), float(np.median(distances))
        if distances[farthest] > _FAR_OUT * typical > 0:
            log(
                f"{capture.photos[farthest].path}: {distances[farthest] / typical:.0f} times as far from the middle of "
                "the cameras as most of them, which sets the scale. Remove its entry if the pose is wrong"
            )


def _up_of(capture: Capture, up: str) -> NDArray[np.float64]:
    if up != "auto":
        return np.array(AXES[up], np.float64)
    if capture.has_z_up:
        return np.array(AXES["z"], np.float64)
    return estimate_up(np.stack([photo.rotation for photo in capture.photos]))


def place_photos(
    captures: Sequence[Capture], worlds: Sequence[World], roll: Roll, log: Callable[[str], None]
) -> tuple[list[list[Placed]], int]:
    """Return the photos of each capture with their directions, and the number of those dropped for their roll.

    Raises:
        PhotosError: a photo has a roll that is refused, or too few are left.
    """
    placed, dropped = [], 0
    for capture, world in zip(captures, worlds):
        kept = []
        for photo in capture.photos:
            pose = pose_of(world.rotation @ photo.rotation)
            degrees = abs(math.degrees(pose.roll))
            if degrees > MAX_ROLL and roll == "refuse":
                raise PhotosError(
                    f"{photo.path}: the camera is turned about its axis by {degrees:.1f} degrees, expected at most "
                    f"{MAX_ROLL:g}. Pass roll='level' to turn photos back, roll='drop' to leave them out, or up='z' "
                    "if the direction that is up was estimated wrongly"
                )
            if degrees <= MAX_ROLL or roll == "level":
                kept.append(Placed(photo, pose))
        left_out = len(capture.photos) - len(kept)
        dropped += left_out
        if left_out:
            log(f"{capture.folder}: {count_of(left_out, 'photo')} dropped because of roll above {MAX_ROLL:g} degrees")
        if len(kept) < 2:
            raise PhotosError(f"{capture.folder}: {count_of(len(kept), 'photo')}, expected 2 or more")
        if left_out:
            _spread_of(capture, [each.photo for each in kept])
        placed.append(kept)
    return placed, dropped


def views_of(
    captures: Sequence[Capture], placed: Sequence[Sequence[Placed]], views: int | None, log: Callable[[str], None]
) -> int:
    """Return the number of views per scene; None for the fewest photos of a capture, or 10 for a single capture.

    Raises:
        OptionError: a capture has fewer photos.
    """
    counts = [len(photos) for photos in placed]
    fewest = min(counts)
    if views is None:
        if 2 * fewest <= np.median(counts):
            log(
                f"{captures[counts.index(fewest)].folder}: {count_of(fewest, 'photo')}, so all scenes have {fewest} "
                f"views; most folders have {int(np.median(counts))}. Move it away for more"
            )
        if len(counts) > 1 or fewest < 2 * _VIEWS_OF_ONE_CAPTURE:
            return fewest
        log(f"one capture of {fewest} photos: cut into scenes of {_VIEWS_OF_ONE_CAPTURE} views; --views sets another")
        return _VIEWS_OF_ONE_CAPTURE
    if views > fewest:
        folder = captures[counts.index(fewest)].folder
        raise OptionError(f"{folder}: {count_of(fewest, 'photo')}, expected {views} or more; pass views={fewest}")
    return views


def cut_scenes(placed: Sequence[Sequence[Placed]], views: int, test_every: int) -> list[Scene]:
    """Return the scenes, in the order of the captures, with their splits.

    The scenes of a capture share no photo, and each is spread over all of the capture.
    """
    scenes = []
    for number, photos in enumerate(placed):
        cuts = len(photos) // views
        chosen = np.linspace(0, len(photos) - 1, cuts * views).round().astype(int)
        scenes += [(number, [photos[at] for at in chosen[cut::cuts]]) for cut in range(cuts)]
    # Scenes of one place belong to one split, except where there is only one place.
    count = len(placed) if len(placed) > 1 else len(scenes)
    tests = set(range(test_every - 1, count, test_every)) if test_every else set()
    if test_every and not tests and count > 1:
        tests = {count - 1}
    units = [scene[0] for scene in scenes] if len(placed) > 1 else range(count)
    if len(tests) == count:
        raise OptionError(f"test_every is {test_every}, expected 0, or 2 or more: no training scene is left")
    return [Scene(scene[0], "test" if unit in tests else "train", scene[1]) for unit, scene in zip(units, scenes)]


def count_scenes(scenes: Sequence[Scene]) -> dict[Split, int]:
    """Return the number of scenes of each split that has any."""
    found: dict[Split, int] = {}
    for split in SPLITS:
        if count := sum(scene.split == split for scene in scenes):
            found[split] = count
    return found


def find_tangent(scenes: Sequence[Scene], field_of_view: float | None) -> tuple[float, str]:
    """Return half the width of the frames at depth 1, and what limits it.

    Raises:
        PhotosError: a photo does not hold the axis of its lens.
        OptionError: `field_of_view` is larger than a photo's.
    """
    widest: dict[tuple[Any, float], float] = {}
    least, limit = math.inf, Path()
    for scene in scenes:
        for photo, pose in scene.photos:
            key = photo.lens, round(pose.roll, 6)
            if key not in widest:
                widest[key] = photo.lens.widest(pose.roll)
            if widest[key] <= 0:
                raise PhotosError(
                    f"{photo.path}: principal point {photo.lens.cx:g}, {photo.lens.cy:g} outside of "
                    f"{photo.lens.width}x{photo.lens.height} pixels, expected it inside"
                )
            if widest[key] < least:
                least, limit = widest[key], photo.path
    if field_of_view is None:
        return least, str(limit)
    wanted = as_number("field_of_view", field_of_view)
    most = math.degrees(2 * math.atan(least))
    if not 0 < wanted <= most:
        raise OptionError(f"field_of_view is {wanted:g}, expected at most {most:.2f} degrees, all that {limit} shows")
    return math.tan(math.radians(wanted / 2)), "the one asked for"


def check_resolution(scenes: Sequence[Scene], tangent: float, size: int, log: Callable[[str], None]) -> None:
    """Check how many pixels of each photo a frame shows, and log the photo that is enlarged most.

    Args:
        scenes: the scenes.
        tangent: half the width of a frame at depth 1.
        size: width and height of a frame in pixels.
        log: takes one line for the user.

    Raises:
        PhotosError: a frame shows next to nothing.
    """
    photos = [placed.photo for scene in scenes for placed in scene.photos]
    shown = [2 * tangent * min(photo.lens.fx, photo.lens.fy) for photo in photos]
    fewest = min(shown)
    where = photos[shown.index(fewest)].path
    if fewest < _FEWEST_PIXELS:
        degrees = math.degrees(2 * math.atan(tangent))
        raise PhotosError(
            f"{where}: a frame of {degrees:.2g} degrees shows {fewest:.2g} of its pixels, expected {_FEWEST_PIXELS} or "
            "more. Check the focal lengths, the principal points and the distortion in the camera files"
        )
    if fewest < size / _ENLARGED:
        log(f"{where}: {fewest:.0f} of its pixels are enlarged to a frame of {size}; --size sets another")


class Depths(NamedTuple):
    """Least and largest depth of surfaces in units of the dataset, and how they are known."""

    near: float
    far: float
    source: str


def find_depths(
    captures: Sequence[Capture],
    worlds: Sequence[World],
    placed: Sequence[Sequence[Placed]],
    tangent: float,
    given: tuple[float, float] | None,
) -> Depths:
    """Return the depth range over all captures.

    In order: as given; percentiles of the depths of seen points, if enough are known; what the cameras look at, with
    a frame's width around it; the spread of the cameras.

    Raises:
        OptionError: the given range is impossible.
    """
    if given is not None:
        near, far = (as_number("depth_range", value) for value in given)
        if not 0 < near < far < math.inf:
            raise OptionError(f"depth_range is {near:g}, {far:g}, expected the least and the largest, both above 0")
        scales = [world.scale for world in worlds]
        return Depths(near * min(scales), far * max(scales), "as given")
    ranges = []
    for capture, world, photos in zip(captures, worlds, placed):
        if len(capture.depths) >= _FEWEST_DEPTHS:
            near, far = np.percentile(capture.depths, (_OUTLIERS, 100 - _OUTLIERS)) * world.scale
            if DEPTHS[0] <= near < far <= DEPTHS[1]:
                ranges.append(Depths(float(near), float(far), "points of the model"))
                continue
        positions = world.points(np.stack([photo.position for photo, _ in photos]))
        forward = np.stack([photo.rotation[:, 2] for photo, _ in photos]) @ world.rotation.T
        focus = focus_of(positions, forward)
        if focus is None:
            radius = spread_of(positions)[1]
            near, far = (factor * radius for factor in _DEPTHS_OF_SPREAD)
            ranges.append(Depths(near, far, "guessed from the spread of the cameras"))
            continue
        depths = np.einsum("ni,ni->n", focus - positions, forward)
        depths = depths[depths > 0]
        width = 2 * tangent * float(np.median(depths))
        near = max(_NEAREST * depths.min(), depths.min() - width)
        ranges.append(Depths(float(near), float(depths.max() + width), "guessed from what the cameras look at"))
    sources = ", ".join(sorted({each.source for each in ranges}))
    return Depths(min(each.near for each in ranges), max(each.far for each in ranges), sources)
