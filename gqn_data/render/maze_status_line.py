"""The status line of the mazes: marks that lie over every real frame, at the foot and in the upper right corner.

Places, colours and opacities were fitted to 41 real scenes (docs/rendering.md). The shapes are plain rectangles and a
diamond: they stand for a counter, icons and digits without copying them.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 84  # pixels along a side of the frame that the places below refer to

Colour = tuple[int, int, int]

# Rectangles: first row, first column, one past the last row and column, RGB, opacity in percent.
_RECTANGLES: tuple[tuple[int, int, int, int, Colour, int], ...] = (
    (76, 1, 84, 13, (128, 98, 28), 45),  # counter
    (78, 2, 82, 5, (190, 148, 44), 60),
    (78, 8, 82, 10, (190, 148, 44), 60),
    (76, 14, 80, 18, (160, 252, 252), 85),  # head
    (77, 18, 79, 19, (190, 240, 225), 60),
    (78, 15, 79, 16, (70, 160, 170), 80),
    (76, 25, 84, 37, (120, 122, 106), 35),  # digits
    (78, 27, 82, 28, (206, 212, 196), 65),
    (78, 31, 82, 32, (204, 210, 194), 65),
    (78, 35, 82, 36, (176, 180, 156), 55),
    (68, 38, 72, 40, (222, 228, 206), 55),  # mark
    (66, 41, 73, 47, (146, 160, 122), 18),
    (71, 79, 75, 84, (84, 96, 150), 32),  # right edge
    (72, 82, 73, 83, (22, 34, 74), 70),
    (73, 82, 74, 83, (240, 250, 250), 90),
    (1, 76, 3, 77, (60, 70, 70), 55),  # upper right
    (1, 78, 2, 79, (90, 100, 100), 40),
    (1, 80, 3, 81, (80, 90, 60), 60),
    (1, 82, 2, 83, (250, 255, 255), 60),
)
_DIAMOND_ROW, _DIAMOND_COLUMN, _DIAMOND_HIGH, _DIAMOND_WIDE = 78, 40, 3.4, 2.4
_DIAMOND, _DIAMOND_EDGE = (56, 166, 178), (44, 112, 110)


class StatusLine(NamedTuple):
    """Pixels to blend over a frame.

    Attributes:
        rows: int64 (pixels,).
        columns: int64 (pixels,).
        added: float64 (pixels, 3), colour times opacity, 0 to 255.
        kept: float64 (pixels,), the part of the frame that shows through.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    added: NDArray[np.float64]
    kept: NDArray[np.float64]


def _layers() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what is added (SIZE, SIZE, 3) and kept (SIZE, SIZE) of a frame of SIZE pixels."""
    added, kept = np.zeros((SIZE, SIZE, 3)), np.ones((SIZE, SIZE))

    def blend(where: NDArray[np.bool_], colour: Colour, opacity: float) -> None:
        added[where] = (1 - opacity) * added[where] + opacity * np.array(colour)
        kept[where] *= 1 - opacity

    rows, columns = np.mgrid[:SIZE, :SIZE]
    for top, left, bottom, right, colour, percent in _RECTANGLES:
        inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
        blend(inside, colour, percent / 100)
    away = abs(rows - _DIAMOND_ROW) / _DIAMOND_HIGH + abs(columns - _DIAMOND_COLUMN) / _DIAMOND_WIDE
    blend(away <= 1.25, _DIAMOND_EDGE, 0.8)
    blend(away <= 0.8, _DIAMOND, 0.9)
    return added, kept


@cache
def status_line(frame_size: int) -> StatusLine:
    """Return the status line for frames of `frame_size` pixels, resized from `SIZE` by area."""

    def resized(layer: NDArray[np.float64]) -> NDArray[np.float64]:
        image = Image.fromarray(layer.astype(np.float32))
        return np.asarray(image.resize((frame_size, frame_size), Image.Resampling.BOX), dtype=np.float64)

    added, kept = _layers()
    if frame_size != SIZE:
        added = np.stack([resized(added[..., channel]) for channel in range(3)], axis=-1)
        kept = resized(kept)
    rows, columns = np.nonzero(kept < 1 - 1e-6)
    return StatusLine(rows, columns, added[rows, columns], kept[rows, columns])
