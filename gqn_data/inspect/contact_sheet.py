"""Contact sheets: one picture with scenes as rows and views as columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from gqn_data.dataset import Dataset
from gqn_data.errors import OptionError

_GAP = 2
_BACKGROUND = 255
_TEXT = 12  # pixels


def contact_sheet(dataset: Dataset, scenes: Sequence[int], views: int, scale: int = 1) -> NDArray[np.uint8]:
    """Draw a contact sheet, uint8 (height, width, 3).

    Args:
        dataset: one split.
        scenes: numbers of the scenes, one per row.
        views: number of columns; views are evenly spaced if a scene has more.
        scale: enlarge each pixel to `scale` by `scale` pixels.

    Raises:
        OptionError: a scene is out of range, or `views` or `scale` is below 1.
    """
    layout = dataset.layout
    for scene in scenes:
        if not 0 <= scene < len(dataset):
            raise OptionError(f"{dataset.folder}: scene {scene} of {dataset.split}, expected 0 to {len(dataset) - 1}")
    if views < 1 or scale < 1:
        raise OptionError(f"{views} views at scale {scale}, expected 1 or more for both")
    chosen = _spaced(layout.views, views)
    height, width = layout.height * scale + _GAP, layout.width * scale + _GAP
    sheet = np.full((height * len(scenes) + _GAP, width * len(chosen) + _GAP, 3), _BACKGROUND, np.uint8)
    frames = np.empty((len(chosen), layout.height, layout.width, 3), np.uint8)
    for row, scene in enumerate(scenes):
        dataset.decode_into(scene, chosen, frames)
        for column, frame in enumerate(frames.repeat(scale, axis=1).repeat(scale, axis=2)):
            top, left = row * height + _GAP, column * width + _GAP
            sheet[top : top + frame.shape[0], left : left + frame.shape[1]] = frame
    return sheet


def captioned_sheet(dataset: Dataset, scenes: Sequence[int], views: int, scale: int = 1) -> NDArray[np.uint8]:
    """Draw a contact sheet below a title, with the numbers of scenes at the left and of views above the columns.

    Args and errors are those of `contact_sheet`.
    """
    sheet = Image.fromarray(contact_sheet(dataset, scenes, views, scale))
    manifest, layout = dataset.manifest, dataset.layout
    font = ImageFont.load_default(_TEXT)
    numbers = f"scene {scenes[0]:,}" + (f" to {scenes[-1]:,}" if len(scenes) > 1 else "")
    title = f"{manifest.scene_set}, {dataset.split} ({manifest.origin.kind}): {numbers}"
    line = _TEXT + 2 * _GAP
    left = 3 * _GAP + max(int(font.getlength(f"{scene:,}")) for scene in scenes)
    width = max(left + sheet.width, int(font.getlength(title)) + 4 * _GAP)
    picture = Image.new("RGB", (width, 2 * line + sheet.height), "white")
    picture.paste(sheet, (left, 2 * line))
    draw = ImageDraw.Draw(picture)
    draw.text((2 * _GAP, _GAP), title, "black", font)
    step_x, step_y = layout.width * scale + _GAP, layout.height * scale + _GAP
    for column, view in enumerate(_spaced(layout.views, views)):
        long = f"view {view}"
        text = long if font.getlength(long) < step_x else str(view)
        draw.text((left + _GAP + column * step_x, line + _GAP), text, "black", font)
    for row, scene in enumerate(scenes):
        middle = 2 * line + _GAP + row * step_y + layout.height * scale // 2
        draw.text((left - _GAP, middle), f"{scene:,}", "black", font, anchor="rm")
    return np.asarray(picture)


def _spaced(views: int, most: int) -> list[int]:
    """Return the numbers of up to `most` evenly spaced views."""
    chosen: list[int] = np.linspace(0, views - 1, min(most, views)).round().astype(int).tolist()
    return chosen
