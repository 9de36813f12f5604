"""What a surface looks like where a ray meets it: light, textures, the room about the solids.

Lambert and ambient light, a fill light at the camera, and a spot's falloff on the floor. Shadows are the ray
caster's business. Imports `compiled` and `shapes`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gqn_data.render.compiled import compiled
from gqn_data.render.shapes import MISSED, Vector

SOLID, FLOOR, WALL, SKY = range(4)


class Light(NamedTuple):
    """One light and how surfaces answer to it. Strengths are parts of a surface's own colour, but for `sheen`.

    Attributes:
        at: where it stands.
        aim: x and y of the point of the floor that it is aimed at.
        ambient: what solids and walls give back without any light.
        fill: added where a surface faces against the view, by the cosine: a lamp behind the camera, without shadow,
            all of whose rays run as the camera looks.
        diffuse: added on solids by Lambert's law, where no shadow falls.
        sheen: white added on solids likewise.
        floor_ambient: what the floor gives back without the light.
        floor_diffuse: added on the floor at the middle of the spot.
        wall_diffuse: added on walls as `diffuse` on solids; less, for the spot hardly reaches them.
    """

    at: Vector
    aim: tuple[float, float]
    ambient: float
    fill: float
    diffuse: float
    sheen: float
    floor_ambient: float
    floor_diffuse: float
    wall_diffuse: float = 0.0


class Room(NamedTuple):
    """A square room about the origin, its floor at z = 0, open to the sky.

    Attributes:
        half: half the length of a side; 0 for no room at all.
        height: of the walls.
        wall_repeats: how often the wall's texture is laid along one side; once over the height.
        floor_repeats: how often the floor's texture is laid along one side.
        sky: colour of everything that is not hit, 0 to 1.
    """

    half: float
    height: float
    wall_repeats: float
    floor_repeats: float
    sky: Vector


class Textures(NamedTuple):
    """The textures of a room: float32 (texels of all levels, 3), 0 to 1.

    The levels of `texels`, texels / 2, ... 1 texels a side follow one another, each row by row.

    Attributes:
        wall: of all four walls.
        floor: of the floor.
        texels: along a side of the finest level; a power of two.
    """

    wall: NDArray[np.float32]
    floor: NDArray[np.float32]
    texels: int


NO_ROOM = Room(half=0.0, height=0.0, wall_repeats=1.0, floor_repeats=1.0, sky=(0.0, 0.0, 0.0))
NO_TEXTURES = Textures(np.zeros((1, 3), dtype=np.float32), np.zeros((1, 3), dtype=np.float32), 1)


@compiled
def enter_room(o: Vector, d: Vector, room: Room) -> tuple[float, int, Vector]:
    """How far a ray from inside the room goes, what ends it (FLOOR, WALL or SKY), and the normal there."""
    t_x = (math.copysign(room.half, d[0]) - o[0]) / d[0] if d[0] != 0.0 else MISSED
    t_y = (math.copysign(room.half, d[1]) - o[1]) / d[1] if d[1] != 0.0 else MISSED
    t_floor = -o[2] / d[2] if d[2] < 0.0 else MISSED
    t_wall = min(t_x, t_y)
    if t_floor < t_wall:
        return t_floor, FLOOR, (0.0, 0.0, 1.0)
    if o[2] + t_wall * d[2] > room.height:
        return MISSED, SKY, (0.0, 0.0, 0.0)
    if t_x < t_y:
        return t_wall, WALL, (-math.copysign(1.0, d[0]), 0.0, 0.0)
    return t_wall, WALL, (0.0, -math.copysign(1.0, d[1]), 0.0)


@compiled
def spot_on_floor(light: Light, to_light: Vector) -> float:
    """What the spot gives a point of the floor from which the light stands in the unit direction `to_light`.

    Lambert's cosine, times the eighth power of the cosine to the spot's axis: the pool of light of the real floors.
    """
    across, along, down = light.aim[0] - light.at[0], light.aim[1] - light.at[1], -light.at[2]
    axis = math.sqrt(across * across + along * along + down * down)
    cosine = max(0.0, -(across * to_light[0] + along * to_light[1] + down * to_light[2]) / axis)
    squared = cosine * cosine
    return light.floor_diffuse * squared * squared * squared * squared * to_light[2]


@compiled
def texel(texture: NDArray[np.float32], size: int, place: tuple[float, float], footprint: float) -> Vector:
    """The colour of a texture at (u, v), repeated, from the level whose texels are as wide as `footprint`.

    Args:
        texture: float32 (texels of all levels, 3).
        size: texels along a side of its finest level.
        place: u to the right and v down, 1 for the texture's side.
        footprint: what one ray covers, in the same units.
    """
    base = 0
    wide = footprint * size
    while wide > 1.5 and size > 1:
        base += size * size
        size >>= 1
        wide *= 0.5
    x, y = place[0] * size - 0.5, place[1] * size - 0.5
    left, top = math.floor(x), math.floor(y)
    p, q = x - left, y - top
    x0, y0 = int(left) & (size - 1), int(top) & (size - 1)
    x1, y1 = (x0 + 1) & (size - 1), (y0 + 1) & (size - 1)
    i00, i01, i10, i11 = base + y0 * size + x0, base + y0 * size + x1, base + y1 * size + x0, base + y1 * size + x1
    w00, w01, w10, w11 = (1 - p) * (1 - q), p * (1 - q), (1 - p) * q, p * q
    return (
        w00 * texture[i00, 0] + w01 * texture[i01, 0] + w10 * texture[i10, 0] + w11 * texture[i11, 0],
        w00 * texture[i00, 1] + w01 * texture[i01, 1] + w10 * texture[i10, 1] + w11 * texture[i11, 1],
        w00 * texture[i00, 2] + w01 * texture[i01, 2] + w10 * texture[i10, 2] + w11 * texture[i11, 2],
    )


@compiled
def place_on_floor(room: Room, point: Vector, footprint: float, slope: float) -> tuple[tuple[float, float], float]:
    """Where in the floor's texture a point lies, and what a ray covers there, as `texel` wants both.

    Args:
        room: whose floor.
        point: on it.
        footprint: how wide the ray is there, across itself.
        slope: the sine between the ray and the floor.
    """
    repeats = room.floor_repeats / (2.0 * room.half)
    # At a slant a ray covers a long stretch of floor; the geometric mean of length and width blurs neither too much.
    covers = footprint * repeats / math.sqrt(max(slope, 0.01))
    return ((point[0] + room.half) * repeats, (room.half - point[1]) * repeats), covers


@compiled
def place_on_wall(room: Room, point: Vector, normal: Vector, footprint: float) -> tuple[tuple[float, float], float]:
    """Where in the wall's texture a point lies, and what a ray covers there, as `texel` wants both."""
    # The texture runs to the right of one who looks at the wall, that is, against its normal.
    along = point[0] * normal[1] - point[1] * normal[0]
    repeats = room.wall_repeats / (2.0 * room.half)
    return ((along + room.half) * repeats, 1.0 - point[2] / room.height), footprint * repeats
