"""The set jaco: a Jaco arm in the middle of the room, one sphere as its target, the camera about it.

The room, its textures and its light are those of `rooms`. No real frame was at hand: what is a guess says so, here
and in docs/rendering.md. Imports the rest of the package.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gqn_data.render import RenderedScene, textures
from gqn_data.render.jaco_arm import arm_solids, distance_to_arm, place_parts, sample_joints
from gqn_data.render.room_cameras import to_world
from gqn_data.render.rooms import EYE_HEIGHT, RING_RADIUS, RoomScene, Thing, render_room, sample_light
from gqn_data.render.shapes import SPHERE, Solid, Vector
from gqn_data.render.streams import scene_stream
from gqn_data.schema.catalog import Split

JACO = "jaco"

# All below are guesses. World units to the metre: the arm fills a good part of a frame, the hand is in nineteen of
# twenty frames, and stretched out the arm stays 0.9 away from every place where a camera may stand.
SCALE = 1.8
TARGET_RADIUS = 0.09  # metres
# The target floats within reach of the arm: distance from its axis and height of its middle, in metres.
_TARGET_AWAY, _TARGET_HEIGHT = (0.3, 0.75), (TARGET_RADIUS, 0.8)
_TARGET_GAP = 0.02
# The camera: distance from the arm's axis and height, in world units; it looks at a point near the arm's middle.
_CAMERA_AWAY, _CAMERA_HEIGHT = (2.7, RING_RADIUS), (0.4, 1.9)
_AIM_ASIDE, _AIM_HEIGHT = 0.3, (0.6, 1.1)


@dataclass(frozen=True, kw_only=True)
class JacoScene:
    """All that is random in a scene, but the cameras.

    Attributes:
        joints: (9,), as `jaco_arm.link_motions` takes them.
        target: the middle of the sphere, in metres.
        colour: of the sphere.
        room: the arm and the sphere as things of a room, with walls, floor and light.
    """

    joints: NDArray[np.float64]
    target: Vector
    colour: Vector
    room: RoomScene


def sample_jaco_room(random: np.random.Generator) -> JacoScene:
    """A random arm and target in a random room."""
    wall = textures.WALLS[random.integers(len(textures.WALLS))]
    floor = textures.FLOORS[random.integers(len(textures.FLOORS))]
    light = sample_light(random)
    joints = sample_joints(random)
    target = _sample_target(random, place_parts(joints))
    colour = colorsys.hsv_to_rgb(random.random(), random.uniform(0.75, 1.0), random.uniform(0.75, 1.0))
    x, y, z = target[0] * SCALE, target[1] * SCALE, target[2] * SCALE
    radius = TARGET_RADIUS * SCALE
    sphere = Solid(kind=SPHERE, centre=(x, y, z), sizes=(radius,), colour=colour)
    solids = arm_solids(joints, SCALE)
    reach = max(math.hypot(*solid.centre[:2]) + solid.reach for solid in solids)
    arm = Thing(shape="arm", solids=solids, centre=(0.0, 0.0), radius=reach)
    ball = Thing(shape="sphere", solids=(sphere,), centre=(x, y), radius=radius)
    room = RoomScene(things=(arm, ball), wall=wall, floor=floor, light=light)
    return JacoScene(joints=joints, target=target, colour=colour, room=room)


def _sample_target(random: np.random.Generator, ends: NDArray[np.float64]) -> Vector:
    """A place for the target, even over the ring about the arm, clear of the arm whose parts lie at `ends`."""
    nearest, farthest = _TARGET_AWAY
    while True:
        bearing = random.uniform(-math.pi, math.pi)
        away = math.sqrt(random.uniform(nearest * nearest, farthest * farthest))
        place = (away * math.cos(bearing), away * math.sin(bearing), random.uniform(*_TARGET_HEIGHT))
        if distance_to_arm(ends, place) >= TARGET_RADIUS + _TARGET_GAP:
            return place


def jaco_cameras(random: np.random.Generator, views: int) -> NDArray[np.float64]:
    """Raw cameras (views, 5) about the arm, looking at it.

    The raw numbers are those of the ring rooms, which were fitted; that jaco has the same is a guess.
    """
    draws = random.random((views, 6))

    def between(column: int, low: float, high: float) -> NDArray[np.float64]:
        return low + (high - low) * draws[:, column]

    bearing, away = between(0, -math.pi, math.pi), between(1, *_CAMERA_AWAY)
    x, y, z = away * np.cos(bearing), away * np.sin(bearing), between(2, *_CAMERA_HEIGHT)
    aside = _AIM_ASIDE
    to_x, to_y = between(3, -aside, aside) - x, between(4, -aside, aside) - y
    to_z = between(5, *_AIM_HEIGHT) - z
    return np.stack(
        [
            x / RING_RADIUS,
            y / RING_RADIUS,
            (z - EYE_HEIGHT) / RING_RADIUS,
            np.arctan2(to_y, to_x),
            np.arctan2(to_z, np.hypot(to_x, to_y)),
        ],
        axis=1,
    )


def sample_jaco_scene(index: int, *, seed: int, split: Split, views: int) -> tuple[JacoScene, NDArray[np.float64]]:
    """Scene `index` and its raw cameras (views, 5); more views begin with the same ones."""
    random = scene_stream(seed, JACO, split, index)
    scene = sample_jaco_room(random)
    return scene, jaco_cameras(random, views)


def render_jaco_scene(
    index: int, *, seed: int, split: Split, frame_size: int, views: int, supersample: bool
) -> RenderedScene:
    """Scene `index` of jaco, as `gqn_data.render.Renderer` says."""
    scene, raw = sample_jaco_scene(index, seed=seed, split=split, views=views)
    # Drawn from the numbers that are written, so that the cameras tell the truth to the last bit.
    kept = raw.astype(np.float32)
    return RenderedScene(render_room(scene.room, to_world(kept.astype(np.float64)), frame_size, supersample), kept)
