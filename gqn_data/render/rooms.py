"""Rooms: one to three objects on the floor of a square room, under one light.

This module samples and renders a room; `room_cameras` has the scene sets and their cameras. Numbers without a source
were fitted to real frames (docs/rendering.md).
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gqn_data.render import shapes, textures
from gqn_data.render.raycast import Lens, Scene, cast_views
from gqn_data.render.shapes import Solid, Vector, pack
from gqn_data.render.surfaces import Light, Room, Textures
from gqn_data.render.views import frames_for

# DeepMind's README: a square room of 7 by 7 units, 1 to 3 objects of 7 shapes, 5 walls, 3 floors.
HALF_ROOM = 3.5
SHAPES = ("box", "sphere", "cylinder", "capsule", "cone", "icosahedron", "triangle")
ROOM = Room(
    half=HALF_ROOM,
    height=2.07,
    wall_repeats=3.0,
    floor_repeats=3.0,
    sky=(154 / 255, 226 / 255, 250 / 255),
)
RING_RADIUS = 3.25  # world units per raw unit
EYE_HEIGHT = 0.78
FIELD_OF_VIEW = math.radians(50)

SMALLEST, LARGEST = 0.2, 1.3  # extents of an object along an axis
ROAM = 2.3  # maximum distance of an object from the middle of the room
_GAP = 0.06  # between two objects
_TRIES = 200


@dataclass(frozen=True, kw_only=True)
class RoomObject:
    """One object of a room.

    Attributes:
        shape: one of SHAPES.
        solids: solids that the object consists of.
        centre: x and y of the centre.
        radius: radius of its bounding vertical cylinder about the centre.
    """

    shape: str
    solids: tuple[Solid, ...]
    centre: tuple[float, float]
    radius: float


@dataclass(frozen=True, kw_only=True)
class RoomScene:
    """Everything random in a room except the cameras."""

    objects: tuple[RoomObject, ...]
    wall: textures.Wall
    floor: textures.Floor
    light: Light
    room: Room = ROOM

    @property
    def solids(self) -> tuple[Solid, ...]:
        """Solids of all objects."""
        return tuple(solid for each in self.objects for solid in each.solids)


def sample_room(random: np.random.Generator, *, rotated: bool = False) -> RoomScene:
    """Sample a room whose objects do not overlap.

    Args:
        random: random stream of the scene.
        rotated: rotate each object about the vertical by a random angle; otherwise align it with the walls. The real
            rooms with rotated objects also have brighter floors.
    """
    wall = textures.WALLS[random.integers(len(textures.WALLS))]
    floor = textures.FLOORS[random.integers(len(textures.FLOORS))]
    light = sample_light(random)
    if rotated:
        light = light._replace(floor_ambient=0.38, floor_diffuse=1.10)
        floor = "light blue" if floor == "blue" else floor
    wanted = int(random.integers(1, 4))
    objects: list[RoomObject] = []
    for _ in range(_TRIES):
        candidate = _sample_object(random, rotated)
        if all(_are_apart(candidate, other) for other in objects):
            objects.append(candidate)
        if len(objects) == wanted:
            break
    return RoomScene(objects=tuple(objects), wall=wall, floor=floor, light=light)


def _are_apart(one: RoomObject, other: RoomObject) -> bool:
    return math.dist(one.centre, other.centre) >= one.radius + other.radius + _GAP


def sample_light(random: np.random.Generator) -> Light:
    """Sample the light of a room: high above a random point, aimed at the floor nearby."""
    bearing, away = random.uniform(-math.pi, math.pi), random.uniform(1.0, 3.5)
    x, y = away * math.cos(bearing), away * math.sin(bearing)
    outwards = random.uniform(0.8, 1.5)
    return Light(
        position=(x, y, random.uniform(5.0, 7.0)),
        aim=(x * outwards, y * outwards),
        ambient=0.32,
        fill=0.62,
        diffuse=0.52,
        sheen=0.20,
        floor_ambient=0.36,
        floor_diffuse=0.90,
        wall_diffuse=0.20,
    )


def _sample_object(random: np.random.Generator, rotated: bool) -> RoomObject:
    """Sample an object with random shape, sizes, colour and position."""
    shape = SHAPES[random.integers(len(SHAPES))]
    hue, saturation = random.random(), random.uniform(0.76, 0.97)
    colour: Vector = colorsys.hsv_to_rgb(hue, saturation, random.uniform(0.93, 1.0))
    solids, radius = _shape_solids(shape, random, colour)
    bearing = random.uniform(-math.pi, math.pi)
    away = (ROAM - radius) * math.sqrt(random.random())
    x, y = away * math.cos(bearing), away * math.sin(bearing)
    angle = random.uniform(-math.pi, math.pi) if rotated else 0.0
    placed = tuple(_transform(solid, x, y, angle) for solid in solids)
    return RoomObject(shape=shape, solids=placed, centre=(x, y), radius=radius)


def _transform(solid: Solid, x: float, y: float, angle: float) -> Solid:
    """Rotate a solid about the vertical axis, counter-clockwise from above, then move it by (x, y)."""
    cos, sin = math.cos(angle), math.sin(angle)
    axes = solid.rotation @ np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    across, along, up = solid.centre
    return replace(solid, centre=(cos * across - sin * along + x, sin * across + cos * along + y, up), rotation=axes)


def _shape_solids(shape: str, random: np.random.Generator, colour: Vector) -> tuple[list[Solid], float]:
    """Return the solids of a shape that stands on the floor at the origin, and its radius seen from above."""
    if shape == "box":
        a, b, c = random.uniform((0.2, 0.2, 0.25), (1.0, 1.0, 1.2)) / 2
        box = Solid(kind=shapes.BOX, centre=(0, 0, c), sizes=(a, b, c), colour=colour)
        return [box], math.hypot(a, b)
    if shape == "sphere":
        r = random.uniform(0.2, 0.95) / 2
        return [Solid(kind=shapes.SPHERE, centre=(0, 0, r), sizes=(r,), colour=colour)], r
    if shape == "icosahedron":
        r = random.uniform(0.8, 1.15) / 2
        return [Solid(kind=shapes.ICOSAHEDRON, centre=(0, 0, r), sizes=(r,), colour=colour)], r
    if shape == "triangle":
        return _triangle(random, colour)
    if shape == "cylinder":
        r, half = random.uniform((0.2, 0.5), (1.1, 1.15)) / 2
        return [Solid(kind=shapes.CYLINDER, centre=(0, 0, half), sizes=(r, half), colour=colour)], r
    if shape == "cone":
        r, half = random.uniform((0.4, 0.5), (0.9, 1.0)) / 2
        return [Solid(kind=shapes.CONE, centre=(0, 0, half), sizes=(r, half), colour=colour)], r
    # Real capsules are sunk into the floor up to their widest point, so one dome is visible.
    r = random.uniform(0.4, 0.9) / 2
    half = (random.uniform(0.75, 1.25) - r) / 2
    return [Solid(kind=shapes.CAPSULE, centre=(0, 0, half), sizes=(r, half), colour=colour)], r


def _triangle(random: np.random.Generator, colour: Vector) -> tuple[list[Solid], float]:
    """Return an equilateral triangle of three bars that stands on one side, and its radius."""
    extent = random.uniform(1.0, LARGEST)
    tube = extent * 0.08
    side = extent - 2 * shapes.MITRE * tube  # of the triangle between the axes of the bars
    across = np.array((0.0, 1.0, 0.0) if random.integers(2) else (1.0, 0.0, 0.0))
    up = np.array((0.0, 0.0, 1.0))
    middle = (tube + side / (2 * math.sqrt(3))) * up
    solids = []
    for angle in (0.0, 2 * math.pi / 3, 4 * math.pi / 3):
        outwards = math.sin(angle) * across - math.cos(angle) * up
        along = math.cos(angle) * across + math.sin(angle) * up
        x, y, z = middle + side / (2 * math.sqrt(3)) * outwards
        solids.append(
            Solid(
                kind=shapes.BAR,
                centre=(float(x), float(y), float(z)),
                sizes=(tube, side / 2),
                colour=colour,
                rotation=np.stack([np.cross(outwards, along), outwards, along]),
            )
        )
    return solids, extent / 2


def render_room(
    scene: RoomScene,
    cameras: NDArray[np.float64],
    frame_size: int,
    supersample: bool,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Render frames uint8 (views, frame_size, frame_size, 3) of a room from cameras (views, 5) in world units.

    They are rendered into `out` if it is given.
    """
    frames = frames_for(cameras, frame_size, out)
    kinds, rows = pack(scene.solids)
    room_textures = Textures(textures.wall(scene.wall), textures.floor(scene.floor), textures.SIZE)
    lens = Lens(tangent=math.tan(FIELD_OF_VIEW / 2), samples=2 if supersample else 1)
    cast_views(Scene(kinds, rows, scene.light, scene.room, room_textures), cameras, lens, frames)
    return frames
