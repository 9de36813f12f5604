"""Ray caster for mazes: a grid of cells with walls of one height, under open sky.

Cameras look horizontally, so all rays of a pixel column lie above one line of the floor plan. The grid is traversed
once per column, and height decides between sky, wall and floor. As in the real frames, there is neither light nor
shading. Conventions are those of `raycast`.
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

BLOCK, CORRIDOR, ROOM = range(3)  # kinds of cells


class MazeScene(NamedTuple):
    """A maze to render. The unit of length is a cell; cell [row, column] is the square at x = column, y = row.

    Attributes:
        cells: int64 (rows, columns): BLOCK, CORRIDOR or ROOM; the border is all BLOCK.
        height: height of the walls; the floor is at 0.
        sky: RGB of everything above the walls, 0 to 1.
        corridor: textures of corridor cells; each repeats once per cell and spans the wall's height once.
        room: textures of room cells, likewise.
    """

    cells: NDArray[np.int64]
    height: float
    sky: Vector
    corridor: Textures
    room: Textures


class WallHit(NamedTuple):
    """Intersection of a line of the floor plan with a wall.

    Attributes:
        t: distance in lengths of the direction; MISSED if the line leaves the grid.
        across: component of the direction perpendicular to the wall, not negative.
        along: coordinate along the wall, growing to the right as seen from the line; an integer at cell borders.
        kind: kind of the open cell in front of the wall, which selects the texture.
    """

    t: float
    across: float
    along: float
    kind: int


@compiled
def hit_wall(cells: NDArray[np.int64], x: float, y: float, dx: float, dy: float) -> WallHit:
    """Find the first BLOCK on the line from (x, y) along (dx, dy), traversing the grid cell by cell."""
    column, row = math.floor(x), math.floor(y)
    east, north = (1 if dx > 0.0 else -1), (1 if dy > 0.0 else -1)
    # In lengths of the direction: to the next column and row border, and from one border to the next.
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
                return WallHit(t_x, abs(dx), -east * (y + t_x * dy), kind)
            t_x += step_x
        else:
            row += north
            if 0 <= row < cells.shape[0] and cells[row, column] == BLOCK:
                return WallHit(t_y, abs(dy), north * (x + t_y * dx), kind)
            t_y += step_y
    return WallHit(MISSED, 1.0, 0.0, kind)


def _build(sources: int) -> Callable[[MazeScene, NDArray[np.float64], Lens, NDArray[np.uint8]], None]:
    # `sources` is part of numba's cache key; see `raycast._build`.
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
        scale = 255.0 / (samples * samples)
        sums = np.empty((size, 3))
        for number in range(cameras.shape[0]):
            x, y, eye, yaw = cameras[number, 0], cameras[number, 1], cameras[number, 2], cameras[number, 3]
            cos_yaw, sin_yaw = math.cos(yaw), math.sin(yaw)
            for column in range(size):
                sums[:] = 0.0
                for part in range(samples):
                    right = (column * samples + part + 0.5) * step - tangent
                    # One length of this direction is one unit of depth, so a ray that rises by `up` per unit of depth
                    # is `up` times the depth above the eye.
                    dx, dy = cos_yaw + right * sin_yaw, sin_yaw - right * cos_yaw
                    hit = hit_wall(cells, x, y, dx, dy)
                    # A ray covers t * step of the wall vertically, and that divided by `across` horizontally.
                    footprint = hit.t * step / math.sqrt(max(hit.across, 0.01))
                    for line in range(size * samples):
                        up = tangent - (line + 0.5) * step
                        z = eye + up * hit.t
                        if z > height:
                            colour = sky
                        elif z >= 0.0:
                            uv = (hit.along, 1.0 - z / height)
                            if hit.kind == ROOM:
                                colour = texel(room_wall, room_texels, uv, footprint)
                            else:
                                colour = texel(corridor_wall, corridor_texels, uv, footprint)
                        else:
                            depth = -eye / up
                            east, north = x + depth * dx, y + depth * dy
                            uv, floor_footprint = (east, -north), depth * step / math.sqrt(-up)
                            if cells[int(north), int(east)] == ROOM:
                                colour = texel(room_floor, room_texels, uv, floor_footprint)
                            else:
                                colour = texel(corridor_floor, corridor_texels, uv, floor_footprint)
                        pixel = line // samples
                        sums[pixel, 0] += colour[0]
                        sums[pixel, 1] += colour[1]
                        sums[pixel, 2] += colour[2]
                for pixel in range(size):
                    for channel in range(3):
                        frames[number, pixel, column, channel] = int(sums[pixel, channel] * scale + 0.5)

    return cast_maze


# cast_maze(scene, cameras, lens, frames) renders into `frames`, uint8 (views, size, size, 3).
# cameras: float64 (views, 4): x, y, z, yaw, in cells and radians, in open cells and below the tops of the walls.
cast_maze = _build(SOURCES)


# Without SOURCES in a closure: it calls no other compiled function, so numba's check of this file suffices.
@compiled_entry
def blend_pixels(
    frames: NDArray[np.uint8],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    added: NDArray[np.float64],
    kept: NDArray[np.float64],
) -> None:
    """Blend some pixels over every frame, in place.

    Args:
        frames: uint8 (views, size, size, 3).
        rows: int64 (pixels,).
        columns: int64 (pixels,).
        added: float64 (pixels, 3), colour times opacity, 0 to 255.
        kept: float64 (pixels,), what remains of the frame.
    """
    for number in range(frames.shape[0]):
        for pixel in range(rows.shape[0]):
            row, column = rows[pixel], columns[pixel]
            for channel in range(3):
                value = kept[pixel] * frames[number, row, column, channel] + added[pixel, channel]
                frames[number, row, column, channel] = int(value + 0.5)
