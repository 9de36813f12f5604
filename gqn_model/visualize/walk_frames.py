"""Frames of a walk: context views, predictions along the camera path, the nearest true view, and a map with a legend.

Functions take arrays and return Pillow images.

Shapes: N frames of the walk, M context views, V recorded views, H = W frame size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from gqn_model.visualize.camera_path import CameraPath, Cameras, directions

_SIDE = 192  # size of a prediction, in pixels
_SMALL = 58  # size of a context view, so that three of them are as tall as a prediction
_GAP, _TEXT = 6, 13
_MAX_DIRECTIONS = 40  # with more recorded cameras, directions on the map would hide each other
_RECORDED, _CURRENT, _NEAREST = "#bbbbbb", "#d62728", "#000000"
_LEGEND = (("recorded", _RECORDED), ("context", "#1f77b4"), ("camera", _CURRENT), ("nearest", _NEAREST))
# Colours of the context views, around their frames and on the map (matplotlib's "tab10" without red).
_COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22", "#7f7f7f")


@dataclass(frozen=True, kw_only=True, eq=False)
class WalkScene:
    """The scene of a walk, shown next to the predictions.

    Attributes:
        title: text above the picture.
        recorded: float64 (V, 5), the scene's cameras.
        context: numbers of the M context views.
        frames: uint8 (V, H, W, 3), frames of all views.
        yaw_sign: -1 if yaw grows clockwise.
    """

    title: str
    recorded: Cameras
    context: Sequence[int]
    frames: NDArray[np.uint8]
    yaw_sign: int = 1


def draw_walk(path: CameraPath, scene: WalkScene, panels: dict[str, NDArray[np.uint8]]) -> Iterator[Image.Image]:
    """Yield one picture per frame of the walk: context views, predictions, the nearest true view, and the map.

    Args:
        path: the camera path.
        scene: the scene of the walk.
        panels: frames of each prediction, uint8 (N, H, W, 3), by caption.
    """
    font = ImageFont.load_default(_TEXT)
    side = _SIDE
    top = 2 * (_TEXT + _GAP) + _GAP
    columns = math.ceil(len(scene.context) / ((side + _GAP) // (_SMALL + _GAP)))
    left = max(_GAP + columns * (_SMALL + _GAP), _GAP + int(font.getlength("context")) + _GAP)
    nearest = nearest_views(path.cameras, scene.recorded)
    panels = {**panels, "nearest true view": scene.frames[nearest]}
    width = max(
        left + (len(panels) + 1) * (side + _GAP),
        int(font.getlength(scene.title)) + 2 * _GAP,
    )
    background = Image.new("RGB", (width, top + side + _TEXT + 2 * _GAP), "white")
    draw = ImageDraw.Draw(background)
    draw.text((_GAP, _GAP // 2), scene.title, "black", font)
    draw.text((_GAP, top - _TEXT - _GAP), "context", "black", font)
    rows = math.ceil(len(scene.context) / columns)
    for index, frame in enumerate(scene.frames[[*scene.context]]):
        x, y = _GAP + index // rows * (_SMALL + _GAP), top + index % rows * (_SMALL + _GAP)
        background.paste(_resize(frame, _SMALL), (x, y))
        box = x - 2, y - 2, x + _SMALL + 1, y + _SMALL + 1
        draw.rectangle(box, outline=_COLOURS[index % len(_COLOURS)], width=2)
    panel_lefts = range(left, width, side + _GAP)
    for x, caption in zip(panel_lefts, (*panels, "from above"), strict=False):
        draw.text((x, top - _TEXT - _GAP), caption, "black", font)
    _draw_legend(draw, font, panel_lefts[len(panels)] + side, top + side + _GAP)
    scene_map = _SceneMap(path, scene, nearest, side)
    for number in range(len(path.cameras)):
        image = background.copy()
        for x, frames in zip(panel_lefts, panels.values(), strict=False):
            image.paste(_resize(frames[number], side), (x, top))
        image.paste(scene_map.at(number), (panel_lefts[len(panels)], top))
        yield image


def nearest_views(cameras: Cameras, recorded: Cameras) -> NDArray[np.intp]:
    """Return the number of the recorded view nearest to each camera, (N,).

    The distance adds that between positions, in units of the extent of the scene, and the angle between directions, in
    radians.

    Args:
        cameras: float64 (N, 5).
        recorded: float64 (V, 5).
    """
    positions = recorded[:, :3]
    extent = max(float(np.ptp(positions, axis=0).max()), 1e-6)
    apart = np.linalg.norm(cameras[:, None, :3] - positions, axis=-1) / extent
    turned = np.arccos(np.clip(directions(cameras) @ directions(recorded).T, -1, 1))
    nearest: NDArray[np.intp] = np.argmin(apart + turned, axis=1)
    return nearest


def _draw_legend(
    draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, right: int, y: int
) -> None:
    """Draw what the colours of the map stand for, in one line that ends at the right."""
    middle = y + _TEXT // 2
    for label, colour in reversed(_LEGEND):
        right -= int(font.getlength(label))
        draw.text((right, middle), label, "black", font, anchor="lm")
        right -= _GAP + 6
        box = right, middle - 3, right + 6, middle + 3
        if colour == _NEAREST:
            draw.ellipse(box, outline=colour, width=2)
        else:
            draw.ellipse(box, fill=colour)
        right -= _GAP


class _SceneMap:
    """Map of the scene from above, x to the right and y up: cameras are dots with a line along their direction."""

    def __init__(self, path: CameraPath, scene: WalkScene, nearest: NDArray[np.intp], side: int) -> None:
        positions = np.concatenate([scene.recorded, path.cameras])[:, :2]
        low, high = positions.min(0), positions.max(0)
        self._middle = (low + high) / 2
        self._scale = 0.72 * side / max(float((high - low).max()), 1e-6)
        self._path, self._side, self._yaw_sign = path, side, scene.yaw_sign
        self._nearest = scene.recorded[nearest]
        self._background = Image.new("RGB", (side, side), "#f7f7f7")
        draw = ImageDraw.Draw(self._background)
        line = [self._to_pixels(camera) for camera in path.cameras]
        draw.line(line + line[:1] * path.closed, fill="#dddddd", width=2)
        lines = len(scene.recorded) <= _MAX_DIRECTIONS
        for camera in scene.recorded:
            self._draw_camera(draw, camera, _RECORDED, 2, line=lines)
        for index, view in enumerate(scene.context):
            self._draw_camera(draw, scene.recorded[view], _COLOURS[index % len(_COLOURS)], 4)

    def at(self, number: int) -> Image.Image:
        """Return the map with the path's camera of that frame, and a ring around the nearest recorded one."""
        image = self._background.copy()
        draw = ImageDraw.Draw(image)
        self._draw_camera(draw, self._path.cameras[number], _CURRENT, 5)
        x, y = self._to_pixels(self._nearest[number])
        draw.ellipse((x - 7, y - 7, x + 7, y + 7), outline=_NEAREST, width=2)
        return image

    def _to_pixels(self, camera: NDArray[np.float64]) -> tuple[float, float]:
        x, y = (camera[:2] - self._middle) * self._scale
        return self._side / 2 + float(x), self._side / 2 - float(y)

    def _draw_camera(
        self, draw: ImageDraw.ImageDraw, camera: NDArray[np.float64], colour: str, size: int, *, line: bool = True
    ) -> None:
        x, y = self._to_pixels(camera)
        if line:
            look_x, look_y, _ = directions(camera)
            length = 3.5 * size
            up = length * self._yaw_sign * float(look_y)
            draw.line((x, y, x + length * float(look_x), y - up), fill=colour, width=2)
        draw.ellipse((x - size, y - size, x + size, y + size), fill=colour)


def _resize(frame: NDArray[np.uint8], side: int) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(frame)).resize((side, side), Image.Resampling.BILINEAR)
