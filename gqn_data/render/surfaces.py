"""Shading of surfaces: the light, texture lookup, and the room around the solids.

Light is ambient and Lambertian, with a fill light at the camera and the falloff of a spot on the floor. Shadows are
computed in `raycast`.
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
    """The light of a scene, and the response of surfaces to it.

    Strengths are fractions of the surface's colour, except `sheen`, which adds white.

    Attributes:
        position: x, y, z of the light.
        aim: x and y of the point on the floor that the spot is aimed at.
        ambient: ambient term of solids and walls.
        fill: light behind the camera, without shadow, added by the cosine between the surface and the view. All its
            rays are parallel to the camera's axis.
        diffuse: Lambertian term of solids, outside shadows.
        sheen: white added to solids in proportion to the Lambertian cosine, outside shadows.
        floor_ambient: ambient term of the floor.
        floor_diffuse: added to the floor at the centre of the spot.
        wall_diffuse: Lambertian term of walls; smaller, because the spot hardly reaches them.
        shadows: whether solids cast shadows.
    """

    position: Vector
    aim: tuple[float, float]
    ambient: float
    fill: float
    diffuse: float
    sheen: float
    floor_ambient: float
    floor_diffuse: float
    wall_diffuse: float = 0.0
    shadows: bool = True


class Room(NamedTuple):
    """A square room about the origin, with its floor at z = 0 and open to the sky.

    Attributes:
        half: half the length of a side; 0 for a scene without a room.
        height: height of the walls.
        wall_repeats: repeats of the wall's texture along one side; it spans the height once.
        floor_repeats: repeats of the floor's texture along one side.
        sky: RGB of rays that hit nothing, 0 to 1.
    """

    half: float
    height: float
    wall_repeats: float
    floor_repeats: float
    sky: Vector


class Textures(NamedTuple):
    """The textures of a room as mipmaps: float32 (texels of all levels, 3), 0 to 1.

    The levels follow one another, with sides of `texels`, texels / 2, ... 1 texels, each in row-major order.

    Attributes:
        wall: mipmap of all four walls.
        floor: mipmap of the floor.
        texels: texels along one side of the finest level; a power of two.
    """

    wall: NDArray[np.float32]
    floor: NDArray[np.float32]
    texels: int


NO_ROOM = Room(half=0.0, height=0.0, wall_repeats=1.0, floor_repeats=1.0, sky=(0.0, 0.0, 0.0))
NO_TEXTURES = Textures(np.zeros((1, 3), dtype=np.float32), np.zeros((1, 3), dtype=np.float32), 1)


@compiled
def intersect_room(o: Vector, d: Vector, room: Room) -> tuple[float, int, Vector]:
    """Intersect a ray that starts inside the room.

    Returns:
        Distance, surface (FLOOR, WALL or SKY), and the normal there.
    """
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
def spot_light(light: Light, to_light: Vector) -> float:
    """Return the light of the spot on a point of the floor; `to_light` is the unit vector to the light.

    It is Lambert's cosine times the eighth power of the cosine to the spot's axis, as the pool of light on the real
    floors.
    """
    across, along, down = light.aim[0] - light.position[0], light.aim[1] - light.position[1], -light.position[2]
    axis = math.sqrt(across * across + along * along + down * down)
    cosine = max(0.0, -(across * to_light[0] + along * to_light[1] + down * to_light[2]) / axis)
    squared = cosine * cosine
    return light.floor_diffuse * squared * squared * squared * squared * to_light[2]


@compiled
def texel(texture: NDArray[np.float32], size: int, uv: tuple[float, float], footprint: float) -> Vector:
    """Sample a repeated texture bilinearly, from the level whose texels are about as wide as `footprint`.

    Args:
        texture: float32 (texels of all levels, 3).
        size: texels along one side of the finest level.
        uv: u to the right and v down; 1 is the side of the texture.
        footprint: width that one ray covers, in the same units.
    """
    base = 0
    wide = footprint * size
    while wide > 1.5 and size > 1:
        base += size * size
        size >>= 1
        wide *= 0.5
    x, y = uv[0] * size - 0.5, uv[1] * size - 0.5
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
def floor_uv(room: Room, point: Vector, footprint: float, slope: float) -> tuple[tuple[float, float], float]:
    """Return the texture coordinates of a point on the floor, and the footprint of a ray there, for `texel`.

    Args:
        room: room with the floor.
        point: point on the floor.
        footprint: width of the ray at the point, across its direction.
        slope: sine of the angle between the ray and the floor.
    """
    repeats = room.floor_repeats / (2.0 * room.half)
    # A ray at a shallow angle covers a long strip of floor; the geometric mean of length and width balances the blur.
    covers = footprint * repeats / math.sqrt(max(slope, 0.01))
    return ((point[0] + room.half) * repeats, (room.half - point[1]) * repeats), covers


@compiled
def wall_uv(room: Room, point: Vector, normal: Vector, footprint: float) -> tuple[tuple[float, float], float]:
    """Return the texture coordinates of a point on a wall, and the footprint of a ray there, for `texel`."""
    # u grows to the right as seen from inside the room, looking against the normal.
    along = point[0] * normal[1] - point[1] * normal[0]
    repeats = room.wall_repeats / (2.0 * room.half)
    return ((along + room.half) * repeats, 1.0 - point[2] / room.height), footprint * repeats
