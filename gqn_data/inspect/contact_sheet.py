"""Contact sheets: one picture with scenes as rows and views as columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gqn_data.dataset import Dataset
from gqn_data.errors import OptionError

_GAP = 2
_BACKGROUND = 255


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
    chosen = np.linspace(0, layout.views - 1, min(views, layout.views)).round().astype(int).tolist()
    height, width = layout.height * scale + _GAP, layout.width * scale + _GAP
    sheet = np.full((height * len(scenes) + _GAP, width * len(chosen) + _GAP, 3), _BACKGROUND, np.uint8)
    frames = np.empty((len(chosen), layout.height, layout.width, 3), np.uint8)
    for row, scene in enumerate(scenes):
        dataset.decode_into(scene, chosen, frames)
        for column, frame in enumerate(frames.repeat(scale, axis=1).repeat(scale, axis=2)):
            top, left = row * height + _GAP, column * width + _GAP
            sheet[top : top + frame.shape[0], left : left + frame.shape[1]] = frame
    return sheet
