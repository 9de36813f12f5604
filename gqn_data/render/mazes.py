"""The scene set mazes: a floor plan of rooms and corridors, textures for its rooms, and a walk through it.

Numbers without a source were fitted to real records, whose cameras are exact (docs/rendering.md,
`python -m benchmarks.maze_fit`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gqn_data.render import RenderedScene, maze_textures
from gqn_data.render.maze_cast import BLOCK, MazeScene, blend_pixels, cast_maze
from gqn_data.render.maze_layout import Layout, sample_layout
from gqn_data.render.maze_status_line import status_line as status_line_of
from gqn_data.render.maze_walk import walk
from gqn_data.render.raycast import Lens
from gqn_data.render.streams import scene_stream
from gqn_data.render.surfaces import Textures
from gqn_data.render.views import chosen_rows, frames_for
from gqn_data.schema.catalog import Split

MAZES = "mazes"

# A cell is 0.1 raw units wide. Raw (0, 0) is a corner of cells, five cells from the corner of the border.
CELL = 0.1
ORIGIN = 5.0
WALL_HEIGHT = 1.0
EYE_HEIGHT = 0.515
FIELD_OF_VIEW = math.radians(90)
SKY = (149 / 255, 224 / 255, 255 / 255)


@dataclass(frozen=True, kw_only=True)
class Maze:
    """Everything random in a maze except the walk.

    Attributes:
        layout: floor plan.
        wall: wall texture of the rooms, one of maze_textures.WALLS; corridors always use CORRIDOR_WALL.
        floor: floor texture of the rooms, one of maze_textures.FLOORS; corridors always use CORRIDOR_FLOOR.
    """

    layout: Layout
    wall: str
    floor: str


def sample_maze(random: np.random.Generator) -> Maze:
    """Sample a maze; its rooms share one wall and one floor texture."""
    layout = sample_layout(random)
    wall = maze_textures.WALLS[random.integers(len(maze_textures.WALLS))]
    floor = maze_textures.FLOORS[random.integers(len(maze_textures.FLOORS))]
    return Maze(layout=layout, wall=wall, floor=floor)


def render_maze(
    cells: NDArray[np.int64],
    wall: str,
    floor: str,
    cameras: NDArray[np.float64],
    frame_size: int,
    supersample: bool,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Render frames uint8 (views, frame_size, frame_size, 3) of a maze.

    Args:
        cells: floor plan, as in `maze_cast.MazeScene`.
        wall: wall texture of the rooms.
        floor: floor texture of the rooms.
        cameras: (views, 3): x, y in cells, yaw; in open cells.
        frame_size: height and width of a frame in pixels.
        supersample: cast 2x2 rays per pixel instead of one.
        out: array to render into; None for a new one.

    Raises:
        ValueError: a camera is in a block or outside the floor plan.
    """
    inside = (cameras[:, :2] >= 0) & (cameras[:, :2] < cells.shape[::-1])
    if not inside.all() or (cells[cameras[:, 1].astype(int), cameras[:, 0].astype(int)] == BLOCK).any():
        raise ValueError("cameras: one is in a block or outside the floor plan, expected all in open cells")
    frames = frames_for(cameras, frame_size, out)
    eyes = np.insert(cameras, 2, EYE_HEIGHT, axis=1)
    scene = MazeScene(
        cells=cells,
        height=WALL_HEIGHT,
        sky=SKY,
        corridor=_surfaces(maze_textures.CORRIDOR_WALL, maze_textures.CORRIDOR_FLOOR),
        room=_surfaces(wall, floor),
    )
    cast_maze(scene, eyes, Lens(tangent=math.tan(FIELD_OF_VIEW / 2), samples=2 if supersample else 1), frames)
    return frames


def _surfaces(wall: str, floor: str) -> Textures:
    return Textures(maze_textures.wall(wall), maze_textures.floor(floor), maze_textures.SIZE)


def grid_to_raw(cameras: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert cameras in cells (views, 3) to raw cameras (views, 5); z and pitch are 0."""
    raw = np.zeros((len(cameras), 5))
    raw[:, :2] = (cameras[:, :2] - ORIGIN) * CELL
    raw[:, 3] = cameras[:, 2]
    return raw


def raw_to_grid(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert raw cameras (views, 5) to cameras in cells (views, 3): x, y, yaw."""
    return np.concatenate([raw[:, :2] / CELL + ORIGIN, raw[:, 3:4]], axis=1)


def sample_maze_scene(index: int, *, seed: int, split: Split, views: int) -> tuple[Maze, NDArray[np.float64]]:
    """Sample scene `index` and its cameras in cells (views, 3); a larger `views` appends to them."""
    random = scene_stream(seed, MAZES, split, index)
    maze = sample_maze(random)
    return maze, walk(random, maze.layout, views)


def render_maze_scene(
    index: int,
    *,
    seed: int,
    split: Split,
    frame_size: int,
    views: int,
    supersample: bool,
    chosen: Sequence[int] | None = None,
    out: NDArray[np.uint8] | None = None,
    status_line: bool = True,
) -> RenderedScene:
    """Render scene `index` of mazes, with the status line of the real frames unless it is False; see `Renderer`."""
    maze, cameras = sample_maze_scene(index, seed=seed, split=split, views=views)
    shown = chosen_rows(cameras, chosen)
    frames = render_maze(maze.layout.cells, maze.wall, maze.floor, shown, frame_size, supersample, out)
    if status_line:
        blend_pixels(frames, *status_line_of(frame_size))
    return RenderedScene(frames, grid_to_raw(cameras).astype(np.float32))
