"""The pictures of a walk: context views, predictions along the path, and a map from above. Takes arrays, gives images.

Writes nothing. Imports `walks` and Pillow.

Shapes: N frames of the walk, M context views, V recorded views, H = W the side of a frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from gqn_model.visualize.camera_path import CameraPath, Cameras, directions

_SIDE = 192  # pixels of a prediction's side in the picture, about
_SMALL = 58  # and of a context view's: three of them are as tall
_GAP, _TEXT = 6, 13
_FEW = 40  # recorded cameras whose direction is drawn on the map; more would hide each other
_GREY, _NOW = "#bbbbbb", "#d62728"
# Of the context views, on their frames and on the map (matplotlib's "tab10", without its red).
_COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22", "#7f7f7f")


@dataclass(frozen=True, kw_only=True, eq=False)
class Scenery:
    """What is shown beside the predictions.

    Attributes:
        title: a line above.
        recorded: float64 (V, 5), the scene's cameras.
        context: numbers of the M views that the network was given.
        frames: uint8 (M, H, W, 3), the frames of those.
    """

    title: str
    recorded: Cameras
    context: Sequence[int]
    frames: NDArray[np.uint8]


def walk_pictures(walk: CameraPath, scenery: Scenery, panels: dict[str, NDArray[np.uint8]]) -> Iterator[Image.Image]:
    """One picture a frame of the walk: context views at the left, predictions, the map at the right.

    Args:
        walk: the path.
        scenery: what stands beside.
        panels: uint8 (N, H, W, 3) of each prediction, by the caption above it.
    """
    font = ImageFont.load_default(_TEXT)
    side = _SIDE
    top = 2 * (_TEXT + _GAP) + _GAP
    columns = math.ceil(len(scenery.context) / ((side + _GAP) // (_SMALL + _GAP)))
    left = _GAP + columns * (_SMALL + _GAP)
    seen = max(left, _GAP + int(font.getlength("context")) + _GAP)
    wide = max(
        seen + (len(panels) + 1) * (side + _GAP),
        int(font.getlength(scenery.title)) + 2 * _GAP,
    )
    still = Image.new("RGB", (wide, top + side + _GAP), "white")
    draw = ImageDraw.Draw(still)
    draw.text((_GAP, _GAP // 2), scenery.title, "black", font)
    draw.text((_GAP, top - _TEXT - _GAP), "context", "black", font)
    rows = math.ceil(len(scenery.context) / columns)
    for place, frame in enumerate(scenery.frames):
        x, y = _GAP + place // rows * (_SMALL + _GAP), top + place % rows * (_SMALL + _GAP)
        still.paste(_enlarged(frame, _SMALL), (x, y))
        box = x - 2, y - 2, x + _SMALL + 1, y + _SMALL + 1
        draw.rectangle(box, outline=_COLOURS[place % len(_COLOURS)], width=2)
    across = range(seen, wide, side + _GAP)
    for at, caption in zip(across, (*panels, "from above"), strict=False):
        draw.text((at, top - _TEXT - _GAP), caption, "black", font)
    chart = _Map(walk, scenery, side)
    for number in range(len(walk.cameras)):
        image = still.copy()
        for at, frames in zip(across, panels.values(), strict=False):
            image.paste(_enlarged(frames[number], side), (at, top))
        image.paste(chart.at(number), (across[len(panels)], top))
        yield image


def strip(pictures: Sequence[Image.Image], count: int = 6) -> Image.Image:
    """Some pictures of a walk below each other, evenly taken: a moving picture to be looked at on paper."""
    chosen = np.linspace(0, len(pictures) - 1, min(count, len(pictures))).round().astype(int).tolist()
    width, height = pictures[0].size
    sheet = Image.new("RGB", (width, height * len(chosen)), "white")
    for place, number in enumerate(chosen):
        sheet.paste(pictures[number], (0, place * height))
    return sheet


class _Map:
    """The scene from above, x to the right and y upwards: cameras as dots with a line along which they look."""

    def __init__(self, walk: CameraPath, scenery: Scenery, side: int) -> None:
        everything = np.concatenate([scenery.recorded, walk.cameras])[:, :2]
        low, high = everything.min(0), everything.max(0)
        self._middle = (low + high) / 2
        self._scale = 0.72 * side / max(float((high - low).max()), 1e-6)
        self._walk, self._side = walk, side
        self._still = Image.new("RGB", (side, side), "#f7f7f7")
        draw = ImageDraw.Draw(self._still)
        path = [self._place(camera) for camera in walk.cameras]
        draw.line(path + path[:1] * walk.closed, fill="#dddddd", width=2)
        lines = len(scenery.recorded) <= _FEW
        for camera in scenery.recorded:
            self._camera(draw, camera, _GREY, 2, line=lines)
        for place, view in enumerate(scenery.context):
            self._camera(draw, scenery.recorded[view], _COLOURS[place % len(_COLOURS)], 4)

    def at(self, number: int) -> Image.Image:
        """With the walk's camera at that frame."""
        image = self._still.copy()
        self._camera(ImageDraw.Draw(image), self._walk.cameras[number], _NOW, 5)
        return image

    def _place(self, camera: NDArray[np.float64]) -> tuple[float, float]:
        x, y = (camera[:2] - self._middle) * self._scale
        return self._side / 2 + float(x), self._side / 2 - float(y)

    def _camera(
        self, draw: ImageDraw.ImageDraw, camera: NDArray[np.float64], colour: str, size: int, *, line: bool = True
    ) -> None:
        x, y = self._place(camera)
        if line:
            look_x, look_y, _ = directions(camera)
            far = 3.5 * size
            draw.line((x, y, x + far * float(look_x), y - far * float(look_y)), fill=colour, width=2)
        draw.ellipse((x - size, y - size, x + size, y + size), fill=colour)


def _enlarged(frame: NDArray[np.uint8], side: int) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(frame)).resize((side, side), Image.Resampling.BILINEAR)
