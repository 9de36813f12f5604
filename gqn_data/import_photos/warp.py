"""Frames from photos: a level pinhole with the axis of the photo's lens and a common field of view.

One resampling does all of it: cropping to the axis and to the field of view, undoing distortion, and turning out roll.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gqn_data.import_photos.lens import Lens, turned

# A photo is first shrunk by averaging, to at least this many of its pixels along a pixel of the frame.
_FINE = 4


def warp(image: Image.Image, lens: Lens, *, roll: float, tangent: float, size: int) -> NDArray[np.uint8]:
    """Return the frame uint8 (size, size, 3) of a photo.

    A pixel of the frame is the mean of the photo over its area.

    Args:
        image: the photo, RGB, of the size of the lens.
        lens: its lens.
        roll: roll of its camera in radians.
        tangent: half the width of the frame at depth 1, at most `lens.widest(roll)`.
        size: width and height of the frame in pixels.
    """
    per_pixel = 2 * tangent * max(lens.fx, lens.fy) / size
    shrink = max(1, int(per_pixel / _FINE))
    pixels = np.asarray(image.reduce(shrink) if shrink > 1 else image)
    fine = max(1, math.ceil(per_pixel / shrink))
    at = (np.arange(size * fine) + 0.5) * (2 / (size * fine)) - 1
    frame = np.empty((size, size, 3), np.uint8)
    rows = max(1, (1 << 18) // (at.size * fine))  # of the frame at a time, to bound memory
    for first in range(0, size, rows):
        down, right = np.meshgrid(at[first * fine : (first + rows) * fine], at, indexing="ij")
        points = lens.pixels(turned(tangent * np.stack([right, down], -1), roll))
        colours = _interpolate(pixels, points / shrink - 0.5)
        means = colours.reshape(-1, fine, size, fine, 3).mean((1, 3))
        frame[first : first + rows] = np.rint(means)
    return frame


def _interpolate(pixels: NDArray[np.uint8], points: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return colours (..., 3) between pixels (height, width, 3) at points (..., 2): column and row."""
    height, width = pixels.shape[:2]
    column = np.clip(points[..., 0], 0, width - 1).astype(np.float32)
    row = np.clip(points[..., 1], 0, height - 1).astype(np.float32)
    left, top = column.astype(np.int64), row.astype(np.int64)
    column, row = (column - left)[..., None], (row - top)[..., None]
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    upper = pixels[top, left] * (1 - column) + pixels[top, right] * column
    lower = pixels[bottom, left] * (1 - column) + pixels[bottom, right] * column
    mixed: NDArray[np.float32] = upper * (1 - row) + lower * row
    return mixed
