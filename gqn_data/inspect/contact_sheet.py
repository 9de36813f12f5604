"""Contact sheets: scenes as rows, views as columns, in one picture. Imports `dataset`, `storage`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gqn_data.dataset import Dataset
from gqn_data.errors import OptionError

_GAP = 2
_BACKGROUND = 255


def contact_sheet(dataset: Dataset, scenes: Sequence[int], views: int, scale: int = 1) -> NDArray[np.uint8]:
    """The picture: uint8 (height, width, 3). Where a scene has more views, they are taken at equal steps.

    Args:
        dataset: one split.
        scenes: numbers of the scenes, one a row.
        views: columns.
        scale: each pixel of a frame becomes a square of so many.

    Raises:
        OptionError: a scene that is not there, or no views.
    """
    layout = dataset.layout
    for scene in scenes:
        if not 0 <= scene < len(dataset):
            raise OptionError(f"scene {scene}: the {dataset.split} split has scenes 0 to {len(dataset) - 1}")
    if views < 1 or scale < 1:
        raise OptionError(f"{views} views at scale {scale}; expected 1 or more of each")
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
