"""The ray caster of mazes: a grid of cells, walls of one height about the open ones, under open sky.

The cameras look level, so all rays of a column of pixels stand above one line of the plan: the grid is walked once
a column, and what lies above that line is sky, wall or floor by height alone. Nothing is lit or shaded: the real
frames are not. Conventions are those of `raycast`. Imports `surfaces`, `shapes` and `compiled`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gqn_data.render.compiled import SOURCES, compiled, compiled_entry
from gqn_data.render.raycast import Lens
from gqn_data.render.shapes import MISSED, Vector
from gqn_data.render.surfaces import Textures, texel

BLOCK, CORRIDOR, ROOM = range(3)  # what a cell holds


class MazeScene(NamedTuple):
    """What the cameras see. The unit of length is a cell; cell [row, column] is [column, column + 1) by [row, row + 1).

    Attributes:
        cells: int64 (rows, columns): BLOCK, CORRIDOR or ROOM; the border is all BLOCK.
        height: of the walls; the floor lies at 0.
        sky: colour of everything above the walls, 0 to 1.
        corridor: walls and floor of corridor cells, each texture laid once a cell and once over a wall's height.
        room: the same of room cells.
    """

    cells: NDArray[np.int64]
    height: float
    sky: Vector
    corridor: Textures
    room: Textures


class Meeting(NamedTuple):
    """Where a line of the plan meets a wall.

    Attributes:
        t: how far, in lengths of the direction; MISSED where the line leaves the grid.
        across: the part of the direction that runs into the wall, not negative.
        along: where along the wall, growing to the right of one who looks at it; whole at the ends of cells.
        kind: of the open cell before the wall: its texture is seen.
    """

    t: float
    across: float
    along: float
    kind: int


@compiled
def meet_wall(cells: NDArray[np.int64], x: float, y: float, dx: float, dy: float) -> Meeting:
    """Where the line from (x, y) along (dx, dy) first enters a BLOCK, cell by cell."""
    column, row = math.floor(x), math.floor(y)
    east, north = (1 if dx > 0.0 else -1), (1 if dy > 0.0 else -1)
    # Lengths of the direction to the next border of columns and of rows, and from one border to the next.
    t_x = (column + (dx > 0.0) - x) / dx if dx != 0.0 else MISSED
    t_y = (row + (dy > 0.0) - y) / dy if dy != 0.0 else MISSED
    step_x = east / dx if dx != 0.0 else MISSED
    step_y = north / dy if dy != 0.0 else MISSED
    kind = BLOCK
    while 0 <= row < cells.shape[0] and 0 <= column < cells.shape[1]:
        kind = cells[row, column]
        if t_x < t_y:
            column += east
            if 0 <= column < cells.shape[1] and cells[row, column] == BLOCK:
                return Meeting(t_x, abs(dx), -east * (y + t_x * dy), kind)
            t_x += step_x
        else:
            row += north
            if 0 <= row < cells.shape[0] and cells[row, column] == BLOCK:
                return Meeting(t_y, abs(dy), north * (x + t_y * dx), kind)
            t_y += step_y
    return Meeting(MISSED, 1.0, 0.0, kind)


def _build(sources: int) -> Callable[[MazeScene, NDArray[np.float64], Lens, NDArray[np.uint8]], None]:
    # See `raycast._build`: `sources` is part of the key of the machine code.
    @compiled_entry
    def cast_maze(scene: MazeScene, cameras: NDArray[np.float64], lens: Lens, frames: NDArray[np.uint8]) -> None:
        if sources < 0:
            return
        cells, height, sky = scene.cells, scene.height, scene.sky
        corridor_wall, corridor_floor = scene.corridor.wall, scene.corridor.floor
        room_wall, room_floor = scene.room.wall, scene.room.floor
        corridor_texels, room_texels = scene.corridor.texels, scene.room.texels
        size, samples, tangent = frames.shape[1], lens.samples, lens.tangent
        step = 2.0 * tangent / (size * samples)
        share = 255.0 / (samples * samples)
        sums = np.empty((size, 3))
        for number in range(cameras.shape[0]):
            x, y, eye, yaw = cameras[number, 0], cameras[number, 1], cameras[number, 2], cameras[number, 3]
            cos_yaw, sin_yaw = math.cos(yaw), math.sin(yaw)
            for column in range(size):
                sums[:] = 0.0
                for part in range(samples):
                    right = (column * samples + part + 0.5) * step - tangent
                    # One length of this direction is one unit of depth: what lies `up` above the axis there is `up`
                    # times the depth above the eye.
                    dx, dy = cos_yaw + right * sin_yaw, sin_yaw - right * cos_yaw
                    met = meet_wall(cells, x, y, dx, dy)
                    # A ray covers t * step of a wall up and down, and that by `across` of it to the sides.
                    covers = met.t * step / math.sqrt(max(met.across, 0.01))
                    for line in range(size * samples):
                        up = tangent - (line + 0.5) * step
                        z = eye + up * met.t
                        if z > height:
                            own = sky
                        elif z >= 0.0:
                            place = (met.along, 1.0 - z / height)
                            if met.kind == ROOM:
                                own = texel(room_wall, room_texels, place, covers)
                            else:
                                own = texel(corridor_wall, corridor_texels, place, covers)
                        else:
                            depth = -eye / up
                            east, north = x + depth * dx, y + depth * dy
                            place, wide = (east, -north), depth * step / math.sqrt(-up)
                            if cells[int(north), int(east)] == ROOM:
                                own = texel(room_floor, room_texels, place, wide)
                            else:
                                own = texel(corridor_floor, corridor_texels, place, wide)
                        pixel = line // samples
                        sums[pixel, 0] += own[0]
                        sums[pixel, 1] += own[1]
                        sums[pixel, 2] += own[2]
                for pixel in range(size):
                    for channel in range(3):
                        frames[number, pixel, column, channel] = int(sums[pixel, channel] * share + 0.5)

    return cast_maze


# cast_maze(scene, cameras, lens, frames) fills `frames`, uint8 (views, size, size, 3).
# cameras: float64 (views, 4): x, y, z, yaw, in cells and radians, each in an open cell and below the walls' tops.
cast_maze = _build(SOURCES)
