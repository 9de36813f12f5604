"""Pictures of captioned frames for the panel of a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_TEXT, _MARGIN = 12, 4


class Tile(NamedTuple):
    """A frame with a caption; None for an empty place.

    Attributes:
        caption: text above it.
        frame: uint8 (H, W, 3).
    """

    caption: str
    frame: NDArray[np.uint8] | None


def tile_picture(tiles: Sequence[Tile], columns: int, size: int) -> NDArray[np.uint8]:
    """Draw tiles in rows as one picture: uint8 (height, width, 3).

    Args:
        tiles: at least one.
        columns: tiles in a row.
        size: width of a tile in pixels; frames are enlarged without smoothing.
    """
    font = ImageFont.load_default(_TEXT)
    step, tall = size + _MARGIN, size + _TEXT + 2 * _MARGIN
    rows = -(-len(tiles) // columns)
    image = Image.new("RGB", (columns * step - _MARGIN, rows * tall), "white")
    draw = ImageDraw.Draw(image)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        left, top = column * step, row * tall
        draw.text((left, top), tile.caption, "black", font)
        top += _TEXT + _MARGIN
        if tile.frame is None:
            draw.rectangle((left, top, left + size - 1, top + size - 1), "#eeeeee")
        else:
            frame = Image.fromarray(tile.frame).resize((size, size), Image.Resampling.NEAREST)
            image.paste(frame, (left, top))
    return np.asarray(image)
