"""The scene set jaco: a Jaco arm in the middle of a room, a sphere as its target, cameras around it.

The textures come from `rooms`. Two real frames were available, without cameras: docs/rendering.md says what they show
and what is guessed.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gqn_data.render import RenderedScene, textures
from gqn_data.render.jaco_arm import arm_solids, distance_to_arm, part_segments, sample_joints
from gqn_data.render.room_cameras import to_world
from gqn_data.render.rooms import (
    EYE_HEIGHT,
    HALF_ROOM,
    RING_RADIUS,
    ROOM,
    RoomObject,
    RoomScene,
    render_room,
    sample_light,
)
from gqn_data.render.shapes import SPHERE, Solid, Vector
from gqn_data.render.streams import scene_stream
from gqn_data.render.views import chosen_rows
from gqn_data.schema.catalog import Split

JACO = "jaco"

# From the two frames: the eye is as high as the walls, whose top is level even across corners. A wall of 1.2 units in
# the 7 x 7 room puts the foot of the arm and of the far wall where they are.
JACO_ROOM = ROOM._replace(height=1.2)
SCALE = 2.6  # world units per metre, from the length of the upper arm in both frames
TARGET_RADIUS = 0.09  # metres: 9 pixels across
# The target floats within reach of the arm: ranges of distance from the arm's axis and of height, in metres. Guesses.
_TARGET_DISTANCE, _TARGET_HEIGHT = (0.25, 0.65), (TARGET_RADIUS, 0.5)
_TARGET_GAP = 0.02
# Cameras: range of distance from the arm's axis, distance kept from the walls, and range of heights in world units.
_CAMERA_DISTANCE, _WALL_GAP, _CAMERA_HEIGHT = (3.0, 4.4), 0.2, (1.15, 1.25)
_AIM_ASIDE = 0.5  # they look past the arm's axis by at most this
_PITCH, _PITCH_SPREAD, _MAX_PITCH_SPREADS = math.radians(-10), math.radians(4), 2.5


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
    # Soft pools of light, and no shadows.
    light = sample_light(random)._replace(floor_ambient=0.55, floor_diffuse=0.6, shadows=False)
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
    room = RoomScene(objects=(arm, ball), wall=wall, floor=floor, light=light, room=JACO_ROOM)
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

    bearing = between(0, -math.pi, math.pi)
    # As far away as the walls leave room in this direction.
    walls = (HALF_ROOM - _WALL_GAP) / np.maximum(np.abs(np.cos(bearing)), np.abs(np.sin(bearing)))
    nearest, farthest = _CAMERA_DISTANCE
    away = nearest + (np.minimum(farthest, walls) - nearest) * draws[:, 1]
    x, y, z = away * np.cos(bearing), away * np.sin(bearing), between(2, *_CAMERA_HEIGHT)
    aside = between(3, -_AIM_ASIDE, _AIM_ASIDE)
    # A normal deviate from two uniform ones (Box and Muller), cut so that no camera looks up.
    normal = np.sqrt(-2 * np.log1p(-draws[:, 4])) * np.cos(2 * math.pi * draws[:, 5])
    pitch = _PITCH + _PITCH_SPREAD * np.clip(normal, -_MAX_PITCH_SPREADS, _MAX_PITCH_SPREADS)
    yaw = bearing + math.pi + np.arctan(aside / away)
    wrapped = (yaw + math.pi) % (2 * math.pi) - math.pi
    return np.stack([x / RING_RADIUS, y / RING_RADIUS, (z - EYE_HEIGHT) / RING_RADIUS, wrapped, pitch], axis=1)


def sample_jaco_scene(index: int, *, seed: int, split: Split, views: int) -> tuple[JacoScene, NDArray[np.float64]]:
    """Sample scene `index` and its raw cameras (views, 5); a larger `views` appends to them."""
    random = scene_stream(seed, JACO, split, index)
    scene = sample_jaco_room(random)
    return scene, jaco_cameras(random, views)


def render_jaco_scene(
    index: int,
    *,
    seed: int,
    split: Split,
    frame_size: int,
    views: int,
    supersample: bool,
    chosen: Sequence[int] | None = None,
    out: NDArray[np.uint8] | None = None,
) -> RenderedScene:
    """Render scene `index` of jaco; see `Renderer`."""
    scene, raw = sample_jaco_scene(index, seed=seed, split=split, views=views)
    # Render from the rounded cameras, so that the frames match the stored cameras to the last bit.
    stored = raw.astype(np.float32)
    cameras = to_world(chosen_rows(stored, chosen).astype(np.float64))
    return RenderedScene(render_room(scene.room, cameras, frame_size, supersample, out), stored)
