"""The mazes: a plan of rooms and corridors, a wall and a floor for its rooms, and a walk through it.

Where a number has no source beside it, it was fitted to real records, whose cameras are exact
(docs/rendering.md, `python -m benchmarks.maze_fit`). Imports the rest of the package.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gqn_data.render import RenderedScene, maze_textures
from gqn_data.render.maze_cast import BLOCK, MazeScene, cast_maze
from gqn_data.render.maze_layout import Layout, sample_layout
from gqn_data.render.maze_walk import walk
from gqn_data.render.raycast import Lens
from gqn_data.render.streams import scene_stream
from gqn_data.render.surfaces import Textures
from gqn_data.schema.catalog import Split

MAZES = "mazes"

# In cells: a cell is 0.1 raw units wide, and raw (0, 0) is the corner of four cells, five from the border's corner.
CELL = 0.1
ORIGIN = 5.0
WALL_HEIGHT = 1.0
EYE_HEIGHT = 0.515
FIELD_OF_VIEW = math.radians(90)
SKY = (149 / 255, 224 / 255, 255 / 255)


@dataclass(frozen=True, kw_only=True)
class Maze:
    """All that is random in a maze, but the walk.

    Attributes:
        layout: its plan.
        wall: of the rooms, one of maze_textures.WALLS; corridors always have the same.
        floor: of the rooms, one of maze_textures.FLOORS; likewise.
    """

    layout: Layout
    wall: str
    floor: str


def sample_maze(random: np.random.Generator) -> Maze:
    """A maze; its rooms share one wall and one floor."""
    layout = sample_layout(random)
    wall = maze_textures.WALLS[random.integers(len(maze_textures.WALLS))]
    floor = maze_textures.FLOORS[random.integers(len(maze_textures.FLOORS))]
    return Maze(layout=layout, wall=wall, floor=floor)


def render_maze(
    cells: NDArray[np.int64], wall: str, floor: str, places: NDArray[np.float64], frame_size: int, supersample: bool
) -> NDArray[np.uint8]:
    """The frames uint8 (views, frame_size, frame_size, 3) of a maze.

    Args:
        cells: as `maze_cast.MazeScene` has them.
        wall: of the rooms.
        floor: of the rooms.
        places: (views, 3): x, y in cells, yaw; in open cells.
        frame_size: height and width of a frame in pixels.
        supersample: casts 2x2 rays for a pixel instead of one.

    Raises:
        ValueError: a place lies in a block or off the plan: there is nothing to be seen from there.
    """
    inside = (places[:, :2] >= 0) & (places[:, :2] < cells.shape[::-1])
    if not inside.all() or (cells[places[:, 1].astype(int), places[:, 0].astype(int)] == BLOCK).any():
        raise ValueError("a camera stands in a block or off the plan, expected all in open cells")
    frames = np.empty((len(places), frame_size, frame_size, 3), dtype=np.uint8)
    cameras = np.insert(places, 2, EYE_HEIGHT, axis=1)
    scene = MazeScene(
        cells=cells,
        height=WALL_HEIGHT,
        sky=SKY,
        corridor=_surfaces(maze_textures.CORRIDOR_WALL, maze_textures.CORRIDOR_FLOOR),
        room=_surfaces(wall, floor),
    )
    cast_maze(scene, cameras, Lens(tangent=math.tan(FIELD_OF_VIEW / 2), samples=2 if supersample else 1), frames)
    return frames


def _surfaces(wall: str, floor: str) -> Textures:
    return Textures(maze_textures.wall(wall), maze_textures.floor(floor), maze_textures.SIZE)


def raw_cameras(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """The raw cameras (views, 5) of places (views, 3): z and pitch are 0."""
    raw = np.zeros((len(places), 5))
    raw[:, :2] = (places[:, :2] - ORIGIN) * CELL
    raw[:, 3] = places[:, 2]
    return raw


def to_places(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where raw cameras (views, 5) stand and look: (views, 3), x and y in cells, yaw."""
    return np.concatenate([raw[:, :2] / CELL + ORIGIN, raw[:, 3:4]], axis=1)


def sample_maze_scene(index: int, *, seed: int, split: Split, views: int) -> tuple[Maze, NDArray[np.float64]]:
    """Scene `index` of mazes and the places (views, 3) of its walk; more views begin with the same ones."""
    random = scene_stream(seed, MAZES, split, index)
    maze = sample_maze(random)
    return maze, walk(random, maze.layout, views)


def render_maze_scene(
    index: int, *, seed: int, split: Split, frame_size: int, views: int, supersample: bool
) -> RenderedScene:
    """Scene `index` of mazes, as `gqn_data.render.Renderer` says."""
    maze, places = sample_maze_scene(index, seed=seed, split=split, views=views)
    frames = render_maze(maze.layout.cells, maze.wall, maze.floor, places, frame_size, supersample)
    return RenderedScene(frames, raw_cameras(places).astype(np.float32))
