"""The scene set jaco: a Jaco arm in the middle of a room, a sphere as its target, cameras around it.

The room, its textures and its light come from `rooms`. No real frame was available: guesses are marked here and in
docs/rendering.md.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gqn_data.render import RenderedScene, textures
from gqn_data.render.jaco_arm import arm_solids, distance_to_arm, part_segments, sample_joints
from gqn_data.render.room_cameras import to_world
from gqn_data.render.rooms import EYE_HEIGHT, RING_RADIUS, RoomObject, RoomScene, render_room, sample_light
from gqn_data.render.shapes import SPHERE, Solid, Vector
from gqn_data.render.streams import scene_stream
from gqn_data.schema.catalog import Split

JACO = "jaco"

# The numbers below are guesses. World units per metre: the arm fills a good part of a frame, the hand is visible in 19
# of 20 frames, and the stretched arm stays 0.9 away from every possible camera position.
SCALE = 1.8
TARGET_RADIUS = 0.09  # metres
# The target floats within reach of the arm: ranges of distance from the arm's axis and of height, in metres.
_TARGET_DISTANCE, _TARGET_HEIGHT = (0.3, 0.75), (TARGET_RADIUS, 0.8)
_TARGET_GAP = 0.02
# Cameras: ranges of distance from the arm's axis and of height, in world units. They look near the middle of the arm.
_CAMERA_DISTANCE, _CAMERA_HEIGHT = (2.7, RING_RADIUS), (0.4, 1.9)
_AIM_ASIDE, _AIM_HEIGHT = 0.3, (0.6, 1.1)


@dataclass(frozen=True, kw_only=True)
class JacoScene:
    """Everything random in a scene except the cameras.

    Attributes:
        joints: (9,), angles for `jaco_arm.link_motions`.
        target: centre of the sphere, in metres.
        colour: RGB of the sphere, 0 to 1.
        room: room with the arm and the sphere as its objects.
    """

    joints: NDArray[np.float64]
    target: Vector
    colour: Vector
    room: RoomScene


def sample_jaco_room(random: np.random.Generator) -> JacoScene:
    """Sample an arm and a target in a room."""
    wall = textures.WALLS[random.integers(len(textures.WALLS))]
    floor = textures.FLOORS[random.integers(len(textures.FLOORS))]
    light = sample_light(random)
    joints = sample_joints(random)
    target = _sample_target(random, part_segments(joints))
    colour = colorsys.hsv_to_rgb(random.random(), random.uniform(0.75, 1.0), random.uniform(0.75, 1.0))
    x, y, z = target[0] * SCALE, target[1] * SCALE, target[2] * SCALE
    radius = TARGET_RADIUS * SCALE
    sphere = Solid(kind=SPHERE, centre=(x, y, z), sizes=(radius,), colour=colour)
    solids = arm_solids(joints, SCALE)
    arm_radius = max(math.hypot(*solid.centre[:2]) + solid.bounding_radius for solid in solids)
    arm = RoomObject(shape="arm", solids=solids, centre=(0.0, 0.0), radius=arm_radius)
    ball = RoomObject(shape="sphere", solids=(sphere,), centre=(x, y), radius=radius)
    room = RoomScene(objects=(arm, ball), wall=wall, floor=floor, light=light)
    return JacoScene(joints=joints, target=target, colour=colour, room=room)


def _sample_target(random: np.random.Generator, ends: NDArray[np.float64]) -> Vector:
    """Sample the centre of the target, uniform over a ring about the arm and clear of its parts at `ends`."""
    nearest, farthest = _TARGET_DISTANCE
    while True:
        bearing = random.uniform(-math.pi, math.pi)
        away = math.sqrt(random.uniform(nearest * nearest, farthest * farthest))
        centre = (away * math.cos(bearing), away * math.sin(bearing), random.uniform(*_TARGET_HEIGHT))
        if distance_to_arm(ends, centre) >= TARGET_RADIUS + _TARGET_GAP:
            return centre


def jaco_cameras(random: np.random.Generator, views: int) -> NDArray[np.float64]:
    """Sample raw cameras (views, 5) around the arm, looking at it.

    The scale of the raw positions was fitted to rooms_ring_camera; for jaco it is a guess.
    """
    draws = random.random((views, 6))

    def between(column: int, low: float, high: float) -> NDArray[np.float64]:
        return low + (high - low) * draws[:, column]

    bearing, away = between(0, -math.pi, math.pi), between(1, *_CAMERA_DISTANCE)
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
    """Sample scene `index` and its raw cameras (views, 5); a larger `views` appends to them."""
    random = scene_stream(seed, JACO, split, index)
    scene = sample_jaco_room(random)
    return scene, jaco_cameras(random, views)


def render_jaco_scene(
    index: int, *, seed: int, split: Split, frame_size: int, views: int, supersample: bool
) -> RenderedScene:
    """Render scene `index` of jaco; see `Renderer`."""
    scene, raw = sample_jaco_scene(index, seed=seed, split=split, views=views)
    # Render from the rounded cameras, so that the frames match the stored cameras to the last bit.
    stored = raw.astype(np.float32)
    return RenderedScene(render_room(scene.room, to_world(stored.astype(np.float64)), frame_size, supersample), stored)
