"""The three scene sets of rooms: their cameras and scenes.

Raw positions follow DeepMind's layout: 1 is the radius of the ring, the origin is in the middle of the room at eye
height.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
from gqn_data.render.views import chosen_rows
from gqn_data.schema.catalog import Split

RING_CAMERA = "rooms_ring_camera"
FREE_CAMERA = "rooms_free_camera_no_object_rotations"
FREE_CAMERA_ROTATED = "rooms_free_camera_with_object_rotations"

# Minimum distance of a camera from an object's bounding cylinder. The minimum to the walls is HALF_ROOM - RING_RADIUS.
CLEARANCE = 0.35


def to_world(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert raw cameras (views, 5) to world units."""
    return raw * (RING_RADIUS, RING_RADIUS, RING_RADIUS, 1.0, 1.0) + (0.0, 0.0, EYE_HEIGHT, 0.0, 0.0)


def ring_cameras(random: np.random.Generator, views: int) -> NDArray[np.float64]:
    """Sample raw cameras (views, 5) on the ring: x, y on the unit circle, looking at the middle."""
    bearing = random.uniform(-math.pi, math.pi, views)
    x, y, zero = np.cos(bearing), np.sin(bearing), np.zeros(views)
    return np.stack([x, y, zero, np.arctan2(-y, -x), zero], axis=1)


def free_cameras(random: np.random.Generator, scene: RoomScene, views: int) -> NDArray[np.float64]:
    """Sample raw cameras (views, 5) anywhere in a room, clear of its objects.

    Each camera looks towards a point that is uniform over the floor. So every direction occurs, and the far side of
    the room more often than a near wall, as in the real frames.
    """
    raw = np.zeros((views, 5))
    widest = HALF_ROOM / RING_RADIUS
    for camera in raw:
        # Three objects of maximum width leave three quarters of the floor free, so the loop ends soon.
        while True:
            x, y, at_x, at_y = random.uniform(-1.0, 1.0, 4)
            if _is_clear(scene, x * RING_RADIUS, y * RING_RADIUS):
                break
        camera[:2] = x, y
        camera[3] = math.atan2(at_y * widest - y, at_x * widest - x)
    return raw


def _is_clear(scene: RoomScene, x: float, y: float) -> bool:
    return all(math.dist((x, y), each.centre) >= each.radius + CLEARANCE for each in scene.objects)


def sample_ring_scene(index: int, *, seed: int, split: Split, views: int) -> tuple[RoomScene, NDArray[np.float64]]:
    """Sample scene `index` of rooms_ring_camera and its raw cameras (views, 5); a larger `views` appends to them."""
    random = scene_stream(seed, RING_CAMERA, split, index)
    scene = sample_room(random)
    return scene, ring_cameras(random, views)


def sample_free_scene(
    scene_set: str, index: int, *, seed: int, split: Split, views: int
) -> tuple[RoomScene, NDArray[np.float64]]:
    """Sample scene `index` of a free-camera set and its raw cameras (views, 5); a larger `views` appends to them."""
    random = scene_stream(seed, scene_set, split, index)
    scene = sample_room(random, rotated=scene_set == FREE_CAMERA_ROTATED)
    return scene, free_cameras(random, scene, views)


def render_ring_scene(
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
    """Render scene `index` of rooms_ring_camera; see `Renderer`."""
    scene, raw = sample_ring_scene(index, seed=seed, split=split, views=views)
    return _render_scene(scene, raw, frame_size, supersample, chosen, out)


def render_free_scene(
    scene_set: str,
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
    """Render scene `index` of FREE_CAMERA or FREE_CAMERA_ROTATED; see `Renderer`."""
    scene, raw = sample_free_scene(scene_set, index, seed=seed, split=split, views=views)
    return _render_scene(scene, raw, frame_size, supersample, chosen, out)


def _render_scene(
    scene: RoomScene,
    raw: NDArray[np.float64],
    frame_size: int,
    supersample: bool,
    chosen: Sequence[int] | None,
    out: NDArray[np.uint8] | None,
) -> RenderedScene:
    # Render from the rounded cameras, so that the frames match the stored cameras to the last bit.
    stored = raw.astype(np.float32)
    cameras = to_world(chosen_rows(stored, chosen).astype(np.float64))
    return RenderedScene(render_room(scene, cameras, frame_size, supersample, out), stored)
