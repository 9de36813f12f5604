"""Draw docs/pictures/axes.svg: the world and a camera of a dataset, and the axes of cameras in other files.

python tools/axes_picture.py docs/pictures/axes.svg
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

YAW, PITCH = math.radians(50), math.radians(25)
BLACK, GREY, RED, GREEN, BLUE = "#222", "#999", "#c33", "#383", "#36c"


class Panel:
    """A part of the drawing: points in space, seen from above and the side.

    Args:
        left: pixel of its origin, across.
        top: pixel of its origin, down.
        scale: pixels per unit.
        azimuth: from which side it is seen, in degrees from x.
    """

    def __init__(self, left: float, top: float, scale: float, azimuth: float) -> None:
        self._origin, self._scale = np.array((left, top)), scale
        self.shapes: list[str] = []
        turn, height = math.radians(azimuth), math.radians(24)
        ahead = -np.array((math.cos(turn) * math.cos(height), math.sin(turn) * math.cos(height), math.sin(height)))
        right = np.array((-math.sin(turn), math.cos(turn), 0))
        self._plane = np.stack([right, np.cross(ahead, right)])

    def line(self, points: Sequence[ArrayLike], colour: str = BLACK, dashed: bool = False, arrow: bool = False) -> None:
        """Draw a line through points (x, y, z)."""
        at = " ".join(f"{x:.1f},{y:.1f}" for x, y in self._on_page(points))
        end = f' marker-end="url(#{colour[1:]})"' if arrow else ""
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self.shapes.append(f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}{end}/>')

    def word(self, point: ArrayLike, text: str, colour: str = BLACK, shift: tuple[float, float] = (0, 0)) -> None:
        """Write a word at a point."""
        ((x, y),) = self._on_page([point]) + shift
        self.shapes.append(f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}">{text}</text>')

    def _on_page(self, points: Sequence[ArrayLike]) -> NDArray[np.float64]:
        placed: NDArray[np.float64] = self._origin + self._scale * np.array(points, float) @ self._plane.T
        return placed


def frustum(panel: Panel, position: NDArray[np.float64], axes: NDArray[np.float64]) -> None:
    """Draw a camera with the axes right, down and forward (rows)."""
    right, down, forward = axes
    corners = [
        position + 0.55 * forward + 0.3 * (a * right + b * down) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]
    panel.line([*corners, corners[0]])
    for corner in corners:
        panel.line([position, corner])


def dataset_panel() -> Panel:
    """Return the world of a dataset, and a camera with yaw and pitch."""
    panel = Panel(130, 260, 150, -62)
    for axis, name, colour in zip(np.eye(3), "xyz", (RED, GREEN, BLUE)):
        panel.line([(0, 0, 0), 1.25 * axis], colour, arrow=True)
        panel.word(1.25 * axis, name + (" (up)" if name == "z" else ""), colour, (6, -4))
    position = np.array((0.0, 0.0, 0.0))
    level = np.array((math.cos(YAW), math.sin(YAW), 0))
    forward = math.cos(PITCH) * level + np.array((0, 0, math.sin(PITCH)))
    right = np.array((math.sin(YAW), -math.cos(YAW), 0))
    frustum(panel, position, np.stack([right, np.cross(forward, right), forward]))
    panel.line([position, 1.5 * forward], arrow=True)
    panel.word(1.5 * forward, "direction of view", shift=(-20, -10))
    panel.line([position, 1.3 * level], GREY, dashed=True)
    arc = np.linspace(0, YAW, 20)
    panel.line(list(0.8 * np.column_stack([np.cos(arc), np.sin(arc), 0 * arc])), GREY, arrow=True)
    panel.word((0.86 * math.cos(YAW / 2), 0.86 * math.sin(YAW / 2), 0), "yaw", shift=(2, 12))
    arc = np.linspace(0, PITCH, 20)[:, None]
    panel.line(list(1.15 * (np.cos(arc) * level + np.sin(arc) * (0, 0, 1))), GREY, arrow=True)
    panel.word(1.2 * (math.cos(PITCH / 2) * level + math.sin(PITCH / 2) * np.array((0, 0, 1))), "pitch", shift=(4, 4))
    return panel


def camera_panel(left: float, names: dict[str, tuple[float, float, float]]) -> Panel:
    """Return a camera that looks into the page's depth, with named axes in terms of its right, down and forward."""
    panel = Panel(left, 200, 110, -28)
    axes = np.array([(1.0, 0, 0), (0, 0, -1), (0, 1, 0)])  # right, down, forward
    frustum(panel, np.zeros(3), axes)
    for (name, direction), colour in zip(names.items(), (RED, GREEN, BLUE)):
        end = 0.95 * np.array(direction) @ axes
        panel.line([(0, 0, 0), end], colour, arrow=True)
        panel.word(end, name, colour, (6, -6))
    return panel


def draw() -> str:
    """Return the picture as SVG."""
    panels = [
        dataset_panel(),
        camera_panel(500, {"x": (1, 0, 0), "y (up)": (0, -1, 0), "z (back)": (0, 0, -1)}),
        camera_panel(740, {"x": (1, 0, 0), "y (down)": (0, 1, 0), "z (forward)": (0, 0, 1)}),
    ]
    titles = ((30, "a dataset, and cameras.csv"), (450, "a camera in transforms.json"), (715, "a camera in COLMAP"))
    heads = [
        f'<marker id="{colour[1:]}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0L8 4L0 8z" fill="{colour}"/></marker>'
        for colour in (BLACK, GREY, RED, GREEN, BLUE)
    ]
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 930 330" font-family="sans-serif" font-size="14">',
            '<rect width="930" height="330" fill="white"/>',
            f"<defs>{''.join(heads)}</defs>",
            *(f'<text x="{x}" y="24" font-weight="bold">{text}</text>' for x, text in titles),
            *(shape for panel in panels for shape in panel.shapes),
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw())
