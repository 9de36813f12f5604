"""The three sets of rooms: where their cameras stand and look, and their scenes.

Raw positions are those of DeepMind's layout: 1 is the ring's radius, 0 the middle of the room at the height of the
eye. Imports `rooms` and what lies below it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gqn_data.render import RenderedScene
from gqn_data.render.rooms import (
    EYE_HEIGHT,
    HALF_ROOM,
    RING_RADIUS,
    RoomScene,
    render_room,
    sample_room,
)
from gqn_data.render.streams import scene_stream
from gqn_data.schema.catalog import Split

RING_CAMERA = "rooms_ring_camera"
FREE_CAMERA = "rooms_free_camera_no_object_rotations"
FREE_CAMERA_TURNED = "rooms_free_camera_with_object_rotations"

# Cameras keep at least this far from what a thing can reach, seen from above. From the walls they keep
# HALF_ROOM - RING_RADIUS.
CLEARANCE = 0.35


def to_world(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where raw cameras stand in the room, and where they look: (views, 5) in world units."""
    return raw * (RING_RADIUS, RING_RADIUS, RING_RADIUS, 1.0, 1.0) + (0.0, 0.0, EYE_HEIGHT, 0.0, 0.0)


def ring_cameras(random: np.random.Generator, views: int) -> NDArray[np.float64]:
    """The raw cameras (views, 5) of the ring: x, y on the unit circle, looking at the middle."""
    bearing = random.uniform(-math.pi, math.pi, views)
    x, y, zero = np.cos(bearing), np.sin(bearing), np.zeros(views)
    return np.stack([x, y, zero, np.arctan2(-y, -x), zero], axis=1)


def free_cameras(random: np.random.Generator, scene: RoomScene, views: int) -> NDArray[np.float64]:
    """Raw cameras (views, 5) anywhere in a room, clear of its things, each looking at some point of the floor.

    The points are even over the floor: so every direction comes up, and the far side of the room more often than a
    wall close by, as in the real frames.
    """
    raw = np.zeros((views, 5))
    widest = HALF_ROOM / RING_RADIUS
    for camera in raw:
        # Three of the widest things leave the camera three quarters of its floor, so this ends, and soon.
        while True:
            x, y, at_x, at_y = random.uniform(-1.0, 1.0, 4)
            if _is_clear(scene, x * RING_RADIUS, y * RING_RADIUS):
                break
        camera[:2] = x, y
        camera[3] = math.atan2(at_y * widest - y, at_x * widest - x)
    return raw


def _is_clear(scene: RoomScene, x: float, y: float) -> bool:
    return all(math.dist((x, y), thing.centre) >= thing.radius + CLEARANCE for thing in scene.things)


def sample_ring_scene(index: int, *, seed: int, split: Split, views: int) -> tuple[RoomScene, NDArray[np.float64]]:
    """Scene `index` of rooms_ring_camera and its raw cameras (views, 5); more views begin with the same ones."""
    random = scene_stream(seed, RING_CAMERA, split, index)
    scene = sample_room(random)
    return scene, ring_cameras(random, views)


def sample_free_scene(
    scene_set: str, index: int, *, seed: int, split: Split, views: int
) -> tuple[RoomScene, NDArray[np.float64]]:
    """Scene `index` of a free-camera set and its raw cameras (views, 5); more views begin with the same ones."""
    random = scene_stream(seed, scene_set, split, index)
    scene = sample_room(random, turned=scene_set == FREE_CAMERA_TURNED)
    return scene, free_cameras(random, scene, views)


def render_ring_scene(
    index: int, *, seed: int, split: Split, frame_size: int, views: int, supersample: bool
) -> RenderedScene:
    """Scene `index` of rooms_ring_camera, as `gqn_data.render.Renderer` says."""
    scene, raw = sample_ring_scene(index, seed=seed, split=split, views=views)
    return _seen(scene, raw, frame_size, supersample)


def render_free_scene(
    scene_set: str, index: int, *, seed: int, split: Split, frame_size: int, views: int, supersample: bool
) -> RenderedScene:
    """Scene `index` of FREE_CAMERA or FREE_CAMERA_TURNED, as `gqn_data.render.Renderer` says."""
    scene, raw = sample_free_scene(scene_set, index, seed=seed, split=split, views=views)
    return _seen(scene, raw, frame_size, supersample)


def _seen(scene: RoomScene, raw: NDArray[np.float64], frame_size: int, supersample: bool) -> RenderedScene:
    # Drawn from the numbers that are written, so that the cameras tell the truth to the last bit.
    kept = raw.astype(np.float32)
    return RenderedScene(render_room(scene, to_world(kept.astype(np.float64)), frame_size, supersample), kept)
