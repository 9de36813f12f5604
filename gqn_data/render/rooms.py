"""The rooms: one to three solids on the floor of a square room, under one light.

Here is what makes a scene of the family, and the set whose camera moves on a ring. Where a number has no source
beside it, it was fitted to real frames (docs/rendering.md). Imports the rest of the package.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gqn_data.render import RenderedScene, shapes, textures
from gqn_data.render.raycast import Lens, Scene, cast_views
from gqn_data.render.shapes import Solid, Vector, pack, turn_to
from gqn_data.render.streams import scene_stream
from gqn_data.render.surfaces import Light, Room, Textures
from gqn_data.scene_sets import Split

RING_CAMERA = "rooms_ring_camera"

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
RING_RADIUS = 3.25
EYE_HEIGHT = 0.78
FIELD_OF_VIEW = math.radians(50)

SMALLEST, LARGEST = 0.2, 1.3  # extents of an object along an axis
# An object keeps this far from every place where the camera may stand, and from the next object.
_CLEARANCE = 0.35
_GAP = 0.06
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


def sample_room(random: np.random.Generator, roam: float) -> RoomScene:
    """A room whose things keep clear of each other and stay within `roam` of its middle."""
    wall = textures.WALLS[random.integers(len(textures.WALLS))]
    floor = textures.FLOORS[random.integers(len(textures.FLOORS))]
    light = sample_light(random)
    wanted = int(random.integers(1, 4))
    things: list[Thing] = []
    for _ in range(_TRIES):
        thing = _sample_thing(random, roam)
        if all(_apart(thing, other) for other in things):
            things.append(thing)
        if len(things) == wanted:
            break
    return RoomScene(things=tuple(things), wall=wall, floor=floor, light=light)


def _apart(one: Thing, other: Thing) -> bool:
    return math.dist(one.centre, other.centre) >= one.radius + other.radius + _GAP


def sample_light(random: np.random.Generator) -> Light:
    """The light of a room: above a random place, aimed at the floor between that place and the middle."""
    bearing, away = random.uniform(-math.pi, math.pi), random.uniform(2.0, 4.2)
    x, y = away * math.cos(bearing), away * math.sin(bearing)
    nearer = random.uniform(0.5, 1.0)
    return Light(
        at=(x, y, random.uniform(4.0, 5.6)),
        aim=(x * nearer, y * nearer),
        ambient=0.35,
        fill=0.36,
        diffuse=0.55,
        sheen=0.18,
        floor_ambient=0.32,
        floor_diffuse=1.15,
    )


def _sample_thing(random: np.random.Generator, roam: float) -> Thing:
    """A thing of random shape, sizes, colour and place; objects of these sets do not turn, but by right angles."""
    shape = SHAPES[random.integers(len(SHAPES))]
    hue, saturation = random.random(), random.uniform(0.85, 1.0)
    colour: Vector = colorsys.hsv_to_rgb(hue, saturation, random.uniform(0.93, 1.0))
    solids, radius = _stand(shape, random, colour)
    bearing = random.uniform(-math.pi, math.pi)
    away = (roam - radius) * math.sqrt(random.random())
    x, y = away * math.cos(bearing), away * math.sin(bearing)
    moved = tuple(
        replace(solid, centre=(solid.centre[0] + x, solid.centre[1] + y, solid.centre[2])) for solid in solids
    )
    return Thing(shape=shape, solids=moved, centre=(x, y), radius=radius)


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
    """An equilateral triangle of three capsules that stands on one of its sides."""
    extent = random.uniform(1.0, LARGEST)
    tube = extent * 0.105
    side = extent - 2 * tube
    along_y = bool(random.integers(2))
    corners = [
        np.array((0.0, across, tube)) if along_y else np.array((across, 0.0, tube)) for across in (-side / 2, side / 2)
    ]
    corners.append(np.array((0.0, 0.0, tube + side * math.sqrt(3) / 2)))
    solids = []
    for one, other in ((0, 1), (1, 2), (2, 0)):
        centre = (corners[one] + corners[other]) / 2
        solids.append(
            Solid(
                kind=shapes.CAPSULE,
                centre=(float(centre[0]), float(centre[1]), float(centre[2])),
                sizes=(tube, side / 2),
                colour=colour,
                turn=turn_to(corners[other] - corners[one]),
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


def ring_cameras(random: np.random.Generator, views: int) -> NDArray[np.float64]:
    """The raw cameras (views, 5) of the ring: x, y on the unit circle, looking at the middle."""
    bearing = random.uniform(-math.pi, math.pi, views)
    x, y, zero = np.cos(bearing), np.sin(bearing), np.zeros(views)
    return np.stack([x, y, zero, np.arctan2(-y, -x), zero], axis=1)


def ring_to_world(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the raw cameras of the ring stand in the room, and where they look: (views, 5) in world units."""
    return raw * (RING_RADIUS, RING_RADIUS, 0.0, 1.0, 1.0) + (0.0, 0.0, EYE_HEIGHT, 0.0, 0.0)


def sample_ring_scene(index: int, *, seed: int, split: Split, views: int) -> tuple[RoomScene, NDArray[np.float64]]:
    """Scene `index` of rooms_ring_camera and its raw cameras (views, 5); more views begin with the same ones."""
    random = scene_stream(seed, RING_CAMERA, split, index)
    scene = sample_room(random, RING_RADIUS - _CLEARANCE)
    return scene, ring_cameras(random, views)


def render_ring_scene(
    index: int, *, seed: int, split: Split, frame_size: int, views: int, supersample: bool
) -> RenderedScene:
    """Scene `index` of rooms_ring_camera, as `gqn_data.render.Renderer` says."""
    scene, raw = sample_ring_scene(index, seed=seed, split=split, views=views)
    frames = render_room(scene, ring_to_world(raw), frame_size, supersample)
    return RenderedScene(frames, raw.astype(np.float32))
