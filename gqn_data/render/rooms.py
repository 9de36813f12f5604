"""The rooms: one to three solids on the floor of a square room, under one light.

Here is what stands in a room of the family, and how it is drawn; `room_cameras` holds the sets and their cameras.
Where a number has no source beside it, it was fitted to real frames (docs/rendering.md). Imports the rest of the
package.
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
RING_RADIUS = 3.25  # in world units: what 1 is in the raw cameras
EYE_HEIGHT = 0.78
FIELD_OF_VIEW = math.radians(50)

SMALLEST, LARGEST = 0.2, 1.3  # extents of an object along an axis
ROAM = 2.3  # objects stay within this of the middle of the room
_GAP = 0.06  # between two objects
_TRIES = 200


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One object of a room.

    Attributes:
        shape: one of SHAPES.
        solids: what it is made of.
        centre: x and y of its middle.
        radius: of the upright cylinder about its middle that holds it.
    """

    shape: str
    solids: tuple[Solid, ...]
    centre: tuple[float, float]
    radius: float


@dataclass(frozen=True, kw_only=True)
class RoomScene:
    """All that is random in a room, but the cameras."""

    things: tuple[Thing, ...]
    wall: textures.Wall
    floor: textures.Floor
    light: Light

    @property
    def solids(self) -> tuple[Solid, ...]:
        """The solids of all things."""
        return tuple(solid for thing in self.things for solid in thing.solids)


def sample_room(random: np.random.Generator, *, turned: bool = False) -> RoomScene:
    """A room whose things keep clear of each other.

    Args:
        random: the stream of the scene.
        turned: by any angle about the vertical; otherwise along the walls.
    """
    wall = textures.WALLS[random.integers(len(textures.WALLS))]
    floor = textures.FLOORS[random.integers(len(textures.FLOORS))]
    light = sample_light(random)
    wanted = int(random.integers(1, 4))
    things: list[Thing] = []
    for _ in range(_TRIES):
        thing = _sample_thing(random, turned)
        if all(_apart(thing, other) for other in things):
            things.append(thing)
        if len(things) == wanted:
            break
    return RoomScene(things=tuple(things), wall=wall, floor=floor, light=light)


def _apart(one: Thing, other: Thing) -> bool:
    return math.dist(one.centre, other.centre) >= one.radius + other.radius + _GAP


def sample_light(random: np.random.Generator) -> Light:
    """The light of a room: high above a random place, aimed at the floor near it, inwards or outwards."""
    bearing, away = random.uniform(-math.pi, math.pi), random.uniform(1.0, 3.5)
    x, y = away * math.cos(bearing), away * math.sin(bearing)
    outwards = random.uniform(0.8, 1.5)
    return Light(
        at=(x, y, random.uniform(5.0, 7.0)),
        aim=(x * outwards, y * outwards),
        ambient=0.32,
        fill=0.62,
        diffuse=0.52,
        sheen=0.20,
        floor_ambient=0.38,
        floor_diffuse=1.22,
        wall_diffuse=0.20,
    )


def _sample_thing(random: np.random.Generator, turned: bool) -> Thing:
    """A thing of random shape, sizes, colour and place."""
    shape = SHAPES[random.integers(len(SHAPES))]
    hue, saturation = random.random(), random.uniform(0.76, 0.97)
    colour: Vector = colorsys.hsv_to_rgb(hue, saturation, random.uniform(0.93, 1.0))
    solids, radius = _stand(shape, random, colour)
    bearing = random.uniform(-math.pi, math.pi)
    away = (ROAM - radius) * math.sqrt(random.random())
    x, y = away * math.cos(bearing), away * math.sin(bearing)
    turn = random.uniform(-math.pi, math.pi) if turned else 0.0
    stands = tuple(_put(solid, x, y, turn) for solid in solids)
    return Thing(shape=shape, solids=stands, centre=(x, y), radius=radius)


def _put(solid: Solid, x: float, y: float, turn: float) -> Solid:
    """A solid turned about the vertical through the origin, counter-clockwise from above, and then moved."""
    cos, sin = math.cos(turn), math.sin(turn)
    axes = solid.turn @ np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    across, along, up = solid.centre
    return replace(solid, centre=(cos * across - sin * along + x, sin * across + cos * along + y, up), turn=axes)


def _stand(shape: str, random: np.random.Generator, colour: Vector) -> tuple[list[Solid], float]:
    """The solids of a shape that stands on the floor at the origin, and its radius seen from above."""
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
    # The real capsules stand in the floor up to where they are widest: one dome is seen.
    r = random.uniform(0.4, 0.9) / 2
    half = (random.uniform(0.75, 1.25) - r) / 2
    return [Solid(kind=shapes.CAPSULE, centre=(0, 0, half), sizes=(r, half), colour=colour)], r


def _triangle(random: np.random.Generator, colour: Vector) -> tuple[list[Solid], float]:
    """An equilateral triangle of three bars that stands on one of its sides."""
    extent = random.uniform(1.0, LARGEST)
    tube = extent * 0.08
    side = extent - 2 * shapes.MITRE * tube  # of the triangle that the axes of the bars make
    across = np.array((0.0, 1.0, 0.0) if random.integers(2) else (1.0, 0.0, 0.0))
    up = np.array((0.0, 0.0, 1.0))
    middle = (tube + side / (2 * math.sqrt(3))) * up
    solids = []
    for turn in (0.0, 2 * math.pi / 3, 4 * math.pi / 3):
        outwards = math.sin(turn) * across - math.cos(turn) * up
        along = math.cos(turn) * across + math.sin(turn) * up
        x, y, z = middle + side / (2 * math.sqrt(3)) * outwards
        solids.append(
            Solid(
                kind=shapes.BAR,
                centre=(float(x), float(y), float(z)),
                sizes=(tube, side / 2),
                colour=colour,
                turn=np.stack([np.cross(outwards, along), outwards, along]),
            )
        )
    return solids, extent / 2


def render_room(
    scene: RoomScene, cameras: NDArray[np.float64], frame_size: int, supersample: bool
) -> NDArray[np.uint8]:
    """The frames uint8 (views, frame_size, frame_size, 3) of a room, seen by cameras (views, 5) in world units."""
    frames = np.empty((len(cameras), frame_size, frame_size, 3), dtype=np.uint8)
    kinds, rows = pack(scene.solids)
    laid = Textures(textures.wall(scene.wall), textures.floor(scene.floor), textures.SIZE)
    lens = Lens(tangent=math.tan(FIELD_OF_VIEW / 2), samples=2 if supersample else 1)
    cast_views(Scene(kinds, rows, scene.light, ROOM, laid), cameras, lens, frames)
    return frames
