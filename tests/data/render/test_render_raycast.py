"""Cameras, shadows and the room, against projections and distances computed here."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gqn_data.render.raycast import Lens, Scene, cast_views, intersect_solid, view_axes
from gqn_data.render.shapes import BOX, CAPSULE, CONE, CYLINDER, ICOSAHEDRON, SPHERE, Solid, pack, rotation_to
from gqn_data.render.surfaces import (
    FLOOR,
    NO_ROOM,
    NO_TEXTURES,
    SKY,
    WALL,
    Light,
    Room,
    Textures,
    intersect_room,
    texel,
)

FLAT = Light((0.0, 0.0, 50.0), (0.0, 0.0), 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # unlit
TANGENT = math.tan(math.radians(25))
WHITE = Textures(np.ones((1, 3), np.float32), np.ones((1, 3), np.float32), 1)
ROOM = Room(half=3.5, height=2.0, wall_repeats=1.0, floor_repeats=1.0, sky=(0.0, 0.0, 1.0))


def shoot(solids, camera, *, size=64, samples=1, light=FLAT, room=NO_ROOM, textures=NO_TEXTURES):
    frames = np.full((1, size, size, 3), 77, dtype=np.uint8)
    scene = Scene(*pack(solids), light, room, textures)
    cast_views(scene, np.array([camera], dtype=float), Lens(TANGENT, samples), frames)
    return frames[0]


def project(points, camera, size):
    """Project points (n, 3); return columns and rows in pixels, and depths."""
    x, y, z, yaw, pitch = camera
    forward = np.array((math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch)))
    left = np.array((-math.sin(yaw), math.cos(yaw), 0))  # ninety degrees counter-clockwise from the view
    up = np.cross(forward, left)
    seen = (np.asarray(points) - (x, y, z)) @ np.stack([forward, left, up]).T
    column = (1 - seen[:, 1] / seen[:, 0] / TANGENT) * size / 2
    row = (1 - seen[:, 2] / seen[:, 0] / TANGENT) * size / 2
    return column, row, seen[:, 0]


def red(frame):
    return np.argwhere(frame[..., 0] > 127)[:, ::-1]  # column, row


@settings(deadline=None)
@given(st.floats(-4, 4), st.floats(-1.5, 1.5))
def test_the_axes_of_a_camera_are_right_handed(yaw, pitch):
    forward, right, up = map(np.array, view_axes(yaw, pitch))
    axes = np.stack([forward, right, up])
    assert axes @ axes.T == pytest.approx(np.eye(3))
    assert np.cross(right, forward) == pytest.approx(up)
    assert up[2] >= 0


def test_the_picture_moves_right_when_the_camera_turns_counter_clockwise():
    ball = Solid(kind=SPHERE, centre=(5, 0, 0), sizes=(0.3,), colour=(1, 0, 0))
    columns = [red(shoot([ball], (0, 0, 0, yaw, 0)))[:, 0].mean() for yaw in (-0.2, 0, 0.2)]
    assert columns[0] < columns[1] == 31.5 < columns[2]


def test_the_picture_moves_down_when_the_camera_looks_up():
    ball = Solid(kind=SPHERE, centre=(5, 0, 0), sizes=(0.3,), colour=(1, 0, 0))
    rows = [red(shoot([ball], (0, 0, 0, 0, pitch)))[:, 1].mean() for pitch in (-0.2, 0, 0.2)]
    assert rows[0] < rows[1] == 31.5 < rows[2]


angle = st.floats(-math.pi, math.pi)


@settings(max_examples=60, deadline=None)
@given(yaw=angle, pitch=st.floats(-1.2, 1.2), ahead=st.floats(2.5, 8), aside=st.floats(-0.4, 0.4), turn=angle)
def test_corners_of_a_box_are_drawn_where_the_camera_projects_them(yaw, pitch, ahead, aside, turn):
    size = 128
    camera = (0.3, -0.2, 0.9, yaw, pitch)
    forward, right, up = map(np.array, view_axes(yaw, pitch))
    centre = np.array(camera[:3]) + ahead * (forward + aside * TANGENT * (right + up))
    half = np.array((0.3, 0.5, 0.4))
    axes = rotation_to((math.cos(turn), math.sin(turn), 0.5))
    box = Solid(kind=BOX, centre=tuple(centre), sizes=tuple(half), colour=(1, 0, 0), rotation=axes)
    signs = np.array(np.meshgrid((-1, 1), (-1, 1), (-1, 1))).reshape(3, -1).T
    column, row, depth = project(centre + (signs * half) @ axes, camera, size)
    assume(depth.min() > 1 and min(column.min(), row.min()) > 1 and max(column.max(), row.max()) < size - 1)

    drawn = red(shoot([box], camera, size=size))
    # A pixel is drawn if its centre is covered; a sharp corner may fall between centres.
    for found, expected in zip(drawn.T, (column, row)):
        assert expected.min() - 0.5 <= found.min() <= expected.min() + 2.5
        assert expected.max() - 3.5 <= found.max() <= expected.max() - 0.5


@given(distance=st.floats(0.6, 40), aside=st.floats(-1, 1))
@settings(max_examples=40, deadline=None)
def test_solids_behind_the_camera_are_not_drawn(distance, aside):
    ball = Solid(kind=SPHERE, centre=(-distance, aside * distance, 0), sizes=(0.5,), colour=(1, 0, 0))
    assert len(red(shoot([ball], (0, 0, 0, 0, 0)))) == 0


@settings(max_examples=40, deadline=None)
@given(bearing=angle, distance=st.floats(0.7, 6))
def test_a_ball_at_the_edge_of_the_picture_is_clipped(bearing, distance):
    centre = np.array((distance * math.cos(bearing), distance * math.sin(bearing), 0.1))
    drawn = shoot([Solid(kind=SPHERE, centre=tuple(centre), sizes=(0.5,), colour=(1, 0, 0))], (0, 0, 0, 0, 0))
    # A pixel is covered according to the angle between its ray and the centre.
    right, down = np.meshgrid(*[(np.arange(64) + 0.5) / 32 - 1] * 2)
    rays = np.stack([np.ones((64, 64)), -right * TANGENT, -down * TANGENT], axis=-1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    off = np.arccos(np.clip(rays @ centre / np.linalg.norm(centre), -1, 1))
    edge = math.asin(0.5 / np.linalg.norm(centre))
    clear = abs(off - edge) > 1e-6
    assert ((drawn[..., 0] > 127) == (off < edge))[clear].all()


def test_the_nearer_solid_hides_the_farther_one_in_any_order():
    near = Solid(kind=SPHERE, centre=(3, 0, 0), sizes=(0.5,), colour=(1, 0, 0))
    far = Solid(kind=BOX, centre=(6, 0, 0), sizes=(0.1, 3, 3), colour=(0, 1, 0))
    for solids in ([near, far], [far, near]):
        assert shoot(solids, (0, 0, 0, 0, 0))[32, 32].tolist() == [255, 0, 0]


def test_supersampling_is_the_mean_of_a_frame_of_twice_the_size():
    ball = Solid(kind=SPHERE, centre=(5, 0.4, 0.2), sizes=(1.0,), colour=(0.8, 0.4, 0.2))
    fine = shoot([ball], (0, 0, 0, 0, 0), size=64).astype(float)
    coarse = shoot([ball], (0, 0, 0, 0, 0), size=32, samples=2)
    assert np.abs(fine.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3)) - coarse).max() <= 1


def test_known_rays_meet_wall_floor_and_sky_at_known_distances():
    start = (3.25, 0.0, 0.8)
    assert intersect_room(start, (-1.0, 0.0, 0.0), ROOM) == (6.75, WALL, (1, 0, 0))
    assert intersect_room(start, (0.0, 1.0, 0.0), ROOM) == (3.5, WALL, (0, -1, 0))
    assert intersect_room((0.0, 1.0, 0.8), (0.0, 1.0, 0.0), ROOM) == (2.5, WALL, (0, -1, 0))
    assert intersect_room((0.0, 1.0, 0.8), (0.0, -1.0, 0.0), ROOM) == (4.5, WALL, (0, 1, 0))
    down = math.sqrt(0.5)
    t, surface, normal = intersect_room(start, (-down, 0.0, -down), ROOM)
    assert (t, surface, normal) == (pytest.approx(0.8 * math.sqrt(2)), FLOOR, (0, 0, 1))
    assert intersect_room(start, (down, 0.0, down), ROOM)[1] == WALL  # 0.25 up at the wall
    assert intersect_room(start, (-down, 0.0, down), ROOM)[1] == SKY


def test_floor_and_sky_end_where_the_camera_projects_them():
    size = 256
    camera = (3.0, 0.0, 0.8, math.pi, 0)
    frame = shoot([], camera, size=size, room=ROOM, textures=Textures(WHITE.wall / 2, WHITE.floor, 1))
    column = frame[:, size // 2].astype(int)
    _, row, _ = project([(-3.5, 0, 2.0), (-3.5, 0, 0)], camera, size)
    top, foot = np.flatnonzero(np.abs(np.diff(column[:, 0])) > 50) + 1
    assert (top, foot) == (pytest.approx(row[0], abs=1), pytest.approx(row[1], abs=1))
    assert column[0].tolist() == [0, 0, 255]


@settings(max_examples=40, deadline=None)
@given(bearing=angle, away=st.floats(1, 4), x=st.floats(-0.5, 0.5), y=st.floats(-0.5, 0.5))
def test_shadows_fall_away_from_the_light(bearing, away, x, y):
    at = (away * math.cos(bearing), away * math.sin(bearing), 4.0)
    light = Light(at, (0.0, 0.0), 1.0, 0.0, 0.0, 0.0, 0.2, 1.0)
    ball = Solid(kind=SPHERE, centre=(x, y, 0.6), sizes=(0.2,), colour=(1, 0, 0))
    frame = shoot([ball], (0, 0, 3.5, 0, -math.pi / 2), light=light, room=ROOM, textures=WHITE)
    grey = frame[(frame == frame[..., :1]).all(axis=-1)]
    darkest = grey.min()
    assert darkest == 51  # only floor_ambient
    pixels = np.argwhere((frame == darkest).all(axis=-1)) + 0.5
    # Looking straight down with yaw 0, up in the picture is +x and right is -y.
    seen = np.stack([(1 - pixels[:, 0] / 32) * TANGENT * 3.5, (1 - pixels[:, 1] / 32) * TANGENT * 3.5], axis=1)
    expected = np.array((x, y)) - 0.6 * (np.array(at[:2]) - (x, y)) / (4 - 0.6)
    assume(np.abs(expected).max() < 1.2)  # otherwise the shadow is partly outside the picture
    nearest = np.linalg.norm(seen - expected, axis=1).min()
    hidden = np.linalg.norm(expected - (x, y) * np.array(3.5 / 2.9)) < 0.3  # by the ball itself
    assert nearest < 0.06 or hidden
    assert ((seen.mean(axis=0) - (x, y)) @ (np.array(at[:2]) - (x, y))) < 0


@settings(max_examples=25, deadline=None)
@given(
    kinds=st.lists(st.sampled_from([SPHERE, BOX, CYLINDER, CAPSULE, CONE, ICOSAHEDRON]), min_size=1, max_size=4),
    seed=st.integers(0, 10**6),
    low=st.booleans(),
)
def test_shadows_on_the_floor_are_those_of_a_plain_search(kinds, seed, low):
    random = np.random.default_rng(seed)
    # A low light may lie between two solids, or within the bounding sphere of one.
    at = (float(random.uniform(-2, 2)), float(random.uniform(-2, 2)), float(random.uniform(0.9, 2) if low else 5))
    light = Light(at, at[:2], 1.0, 0.0, 0.0, 0.0, 0.0, 1e12)  # the spot falls off with the angle
    solids = [
        Solid(
            kind=kind,
            centre=(*map(float, random.uniform(-1, 1, 2)), 0.5),
            sizes=(0.3, 0.25, 0.2),
            colour=(1, 0, 0),
        )
        for kind in kinds
    ]
    size = 32
    frame = shoot(solids, (0, 0, 3.5, 0, -math.pi / 2), light=light, room=ROOM, textures=WHITE, size=size)
    packed = pack(solids)
    for row, column in np.argwhere((frame == frame[..., :1]).all(axis=-1)):
        x, y = (1 - (row + 0.5) / (size / 2)) * TANGENT * 3.5, (1 - (column + 0.5) / (size / 2)) * TANGENT * 3.5
        away = np.array(at) - (x, y, 1e-6)
        distance = float(np.linalg.norm(away))
        to_light = tuple(map(float, away / distance))
        hits = [intersect_solid(*packed, k, (x, y, 1e-6), to_light)[0] for k in range(len(solids))]
        if min(abs(hit - distance) for hit in hits) < 1e-4:
            continue
        assert (frame[row, column, 0] == 0) == (min(hits) < distance)


def test_sides_away_from_the_light_are_darker_and_the_spot_is_brightest():
    light = Light((0.0, 3.0, 4.0), (0.0, 1.0), 0.3, 0.0, 0.7, 0.0, 0.2, 0.7)
    ball = Solid(kind=SPHERE, centre=(5, 0, 1), sizes=(1.0,), colour=(1, 0, 0))
    frame = shoot([ball], (0, 0, 1, 0, 0), light=light)
    drawn = frame[32, red(frame)[:, 0].min() : red(frame)[:, 0].max() + 1, 0].astype(int)
    assert drawn[: len(drawn) // 3].mean() > drawn[-len(drawn) // 3 :].mean() + 30  # +y is to the left

    floor = shoot([], (0, 0, 3.5, 0, -math.pi / 2), light=light, room=ROOM, textures=WHITE)[..., 0]
    assert floor[:, 0].mean() > floor[:, 32].mean() > floor[:, 63].mean()


def test_a_texture_is_sampled_at_its_coordinates_and_repeats():
    finest = np.arange(16 * 3, dtype=np.float32).reshape(16, 3)
    pyramid = np.concatenate([finest, np.full((4, 3), 100), np.full((1, 3), 200)]).astype(np.float32)
    middle_of = (2.5 / 4, 1.5 / 4)
    assert texel(pyramid, 4, middle_of, 0.01) == pytest.approx(finest[4 * 1 + 2])
    assert texel(pyramid, 4, (middle_of[0] - 3, middle_of[1] + 2), 0.01) == pytest.approx(finest[4 * 1 + 2])
    assert texel(pyramid, 4, middle_of, 0.5) == pytest.approx([100, 100, 100])
    assert texel(pyramid, 4, middle_of, 9.0) == pytest.approx([200, 200, 200])
