"""Ring rooms: positions of objects, and raw cameras that match the frames."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solid_points import points_of

from gqn_data.render import rooms, shapes, textures
from gqn_data.render.room_cameras import render_ring_scene, sample_ring_scene, to_world
from gqn_data.render.rooms import RoomObject, RoomScene, render_room
from gqn_data.render.shapes import Solid
from gqn_data.render.surfaces import Light

seeds = st.integers(0, 2**40)
indices = st.integers(0, 10**7)


def sample(index, seed=0, views=10, split="train"):
    return sample_ring_scene(index, seed=seed, split=split, views=views)


@settings(max_examples=100, deadline=None)
@given(indices, seeds)
def test_raw_cameras_lie_on_the_ring(index, seed):
    scene = render_ring_scene(index, seed=seed, split="test", frame_size=16, views=3, supersample=False)
    x, y, z, yaw, pitch = scene.cameras.T
    assert scene.cameras.dtype == np.float32
    assert np.hypot(x, y) == pytest.approx(1, abs=1e-6)
    assert not z.any()
    assert not pitch.any()
    assert np.cos(yaw - np.arctan2(-y, -x)) == pytest.approx(1)
    assert (abs(yaw) <= np.float32(math.pi)).all()


@settings(max_examples=200, deadline=None)
@given(indices, seeds)
def test_cameras_are_never_in_an_object_or_a_wall(index, seed):
    scene, raw = sample(index, seed)
    world = to_world(raw)
    assert abs(world[:, :2]).max() < rooms.HALF_ROOM - 0.2
    for solid in scene.solids:
        for camera in world:
            assert np.linalg.norm(points_of(solid) - camera[:3], axis=1).min() > 0.2
            # Objects do not extend to the ring, so cameras are never inside one.
            assert np.hypot(*points_of(solid)[:, :2].T).max() < rooms.RING_RADIUS - 0.9


@settings(max_examples=200, deadline=None)
@given(indices, seeds)
def test_one_to_three_objects_stand_on_the_floor_without_overlap(index, seed):
    scene, _ = sample(index, seed)
    assert 1 <= len(scene.objects) <= 3
    for each in scene.objects:
        points = np.concatenate([points_of(solid) for solid in each.solids])
        assert np.hypot(*(points[:, :2] - each.centre).T).max() <= each.radius + 1e-9
        seen = points[points[:, 2] > -1e-9]
        assert seen[:, 2].min() == pytest.approx(0, abs=0.02)
        extents = np.ptp(seen, axis=0)
        thin = 0.16 if each.shape == "triangle" else rooms.SMALLEST
        assert thin - 0.02 <= extents.min()
        assert extents.max() <= rooms.LARGEST + 1e-9
    for one, other in itertools.combinations(scene.objects, 2):
        assert math.dist(one.centre, other.centre) > one.radius + other.radius


def test_shapes_walls_floors_and_numbers_of_objects_are_uniform():
    scenes = [sample(index, views=1)[0] for index in range(1500)]
    numbers = np.bincount([len(scene.objects) for scene in scenes])[1:]
    assert numbers.min() > 400
    for names, seen in (
        (textures.WALLS, [scene.wall for scene in scenes]),
        (textures.FLOORS, [scene.floor for scene in scenes]),
        (rooms.SHAPES, [each.shape for scene in scenes for each in scene.objects]),
    ):
        counts = np.array([seen.count(name) for name in names])
        assert counts.min() > 0.7 * len(seen) / len(names)


def test_the_light_has_a_different_position_in_each_scene():
    positions = {sample(index, views=1)[0].light.position for index in range(50)}
    assert len(positions) == 50


@given(indices)
@settings(max_examples=20, deadline=None)
def test_more_views_start_with_the_same_ones(index):
    scene, raw = sample(index, views=3)
    same, more = sample(index, views=10)
    assert (scene.wall, scene.floor, scene.light) == (same.wall, same.floor, same.light)
    for one, other in zip(shapes.pack(scene.solids), shapes.pack(same.solids)):
        assert (one == other).all()
    assert (more[:3] == raw).all()


def test_two_views_agree_on_the_position_of_an_object():
    """Check that rays through an object in two frames, from their raw cameras, meet at the object."""
    centre = np.array((0.8, -0.6, 0.9))
    red = Solid(kind=shapes.SPHERE, centre=tuple(centre), sizes=(0.15,), colour=(1, 0, 0))
    flat = Light((0.0, 0.0, 9.0), (0.0, 0.0), 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    ball = RoomObject(shape="sphere", solids=(red,), centre=(0.8, -0.6), radius=0.15)
    scene = RoomScene(objects=(ball,), wall="green", floor="blue", light=flat)
    _, raw = sample(3, views=12)
    frames = render_room(scene, to_world(raw), 128, True).astype(int)

    origins, rays = [], []
    for frame, (x, y, _, yaw, _) in zip(frames, raw):
        row, column = np.argwhere((frame[..., 0] > 200) & (frame[..., 1] < 60)).mean(axis=0) + 0.5
        assert 4 < column < 124
        tangent = math.tan(math.radians(25))
        left, up = (1 - column / 64) * tangent, (1 - row / 64) * tangent
        ray = np.array((math.cos(yaw) - left * math.sin(yaw), math.sin(yaw) + left * math.cos(yaw), up))
        origins.append((3.25 * x, 3.25 * y, 0.78))
        rays.append(ray / np.linalg.norm(ray))
    for one, other in itertools.combinations(range(len(rays)), 2):
        if abs(np.dot(rays[one], rays[other])) > 0.9:
            continue  # nearly parallel: the intersection is inaccurate
        sides = np.stack([rays[one], -rays[other]], axis=1)
        along, *_ = np.linalg.lstsq(sides, np.subtract(origins[other], origins[one]), rcond=None)
        assert origins[one] + along[0] * rays[one] == pytest.approx(centre, abs=0.03)


def test_sky_wall_and_floor_have_the_colours_of_the_real_frames():
    _, raw = sample(0, views=1)
    flat = Light((0.0, 0.0, 9.0), (0.0, 0.0), 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    for wall, floor in itertools.product(textures.WALLS, textures.FLOORS):
        frame = render_room(RoomScene(objects=(), wall=wall, floor=floor, light=flat), to_world(raw), 64, True)[
            0
        ].astype(float)
        red, green, blue = frame[24:30].mean(axis=(0, 1))
        assert frame[4, 32].tolist() == [154, 226, 250]
        assert {
            "red": red > green > blue,
            "green": green > red > blue,
            "cerise": red > blue > green,
            "orange": red > green > 3 * blue,
            "yellow": red > green > 3 * blue,
        }[wall]
        red, green, blue = frame[50:].mean(axis=(0, 1))
        assert {"yellow": red > green > 1.5 * blue, "white": red == green == blue, "blue": blue > green > red}[floor]
