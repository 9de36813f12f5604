"""Rooms with a free camera: positions of objects, and raw cameras that match the frames.

Projections and distances are computed here, from raw cameras and sizes of solids only.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from solid_points import points_of

from gqn_data.render import RENDERERS, shapes
from gqn_data.render.room_cameras import FREE_CAMERA, FREE_CAMERA_ROTATED, free_cameras, sample_free_scene, to_world
from gqn_data.render.rooms import RoomObject, RoomScene, render_room
from gqn_data.render.shapes import Solid
from gqn_data.render.surfaces import Light

SETS = (FREE_CAMERA, FREE_CAMERA_ROTATED)
SCALE, EYE, HALF, TANGENT = 3.25, 0.78, 3.5, math.tan(math.radians(25))
FROM_OBJECTS, FROM_WALLS = 0.35, 0.25
OWN_COLOURS = Light((0.0, 0.0, 9.0), (0.0, 0.0), 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

sets = st.sampled_from(SETS)
seeds = st.integers(0, 2**40)
indices = st.integers(0, 10**7)


def sample(scene_set, index, seed=0, views=10, split="train"):
    return sample_free_scene(scene_set, index, seed=seed, split=split, views=views)


def render(scene_set, index=0, *, frame_size=64, views=2, seed=0, split="train", supersample=False):
    options = {"seed": seed, "split": split, "frame_size": frame_size, "views": views, "supersample": supersample}
    return RENDERERS[scene_set](index, **options)


def project(points, raw, size):
    """Project points (n, 3); return columns and rows in pixels, and depths."""
    x, y, z, yaw, pitch = raw
    assert z == pitch == 0
    away = np.asarray(points) - (SCALE * x, SCALE * y, EYE)
    ahead = away[:, 0] * math.cos(yaw) + away[:, 1] * math.sin(yaw)
    left = away[:, 1] * math.cos(yaw) - away[:, 0] * math.sin(yaw)
    with np.errstate(all="ignore"):
        return (1 - left / ahead / TANGENT) * size / 2, (1 - away[:, 2] / ahead / TANGENT) * size / 2, ahead


def floor_under(raw, size):
    """Return the points (size, size, 2) of the infinite floor behind the pixel centres, NaN above the horizon."""
    x, y, _, yaw, _ = raw
    middles = (np.arange(size) + 0.5) / size * 2 - 1
    right, down = np.meshgrid(middles * TANGENT, middles * TANGENT)
    with np.errstate(all="ignore"):
        ahead = np.where(down > 0, EYE / down, np.nan)
    return np.stack(
        [
            SCALE * x + ahead * (math.cos(yaw) + right * math.sin(yaw)),
            SCALE * y + ahead * (math.sin(yaw) - right * math.cos(yaw)),
        ],
        axis=-1,
    )


def painted(scene, colour=(1.0, 0.0, 1.0)):
    """Return the unlit scene with all objects in one colour."""
    objects = [
        replace(each, solids=tuple(replace(solid, colour=colour) for solid in each.solids)) for each in scene.objects
    ]
    return replace(scene, objects=tuple(objects), light=OWN_COLOURS, wall="green", floor="blue")


def object_pixels(frames):
    """Return a mask of the pixels of painted frames that show only an object."""
    return (frames[..., 0] == 255) & (frames[..., 1] == 0) & (frames[..., 2] == 255)


@settings(max_examples=200, deadline=None)
@given(sets, indices, seeds)
def test_cameras_keep_clear_of_objects_and_walls(scene_set, index, seed):
    scene, raw = sample(scene_set, index, seed, views=12)
    world = raw[:, :2] * SCALE
    assert (HALF - abs(world)).min() >= FROM_WALLS
    mixes = np.random.default_rng(0)
    for solid in scene.solids:
        corners = points_of(solid)
        inside = mixes.dirichlet(np.full(len(corners), 0.1), 300) @ corners  # a solid is convex
        for points in (corners, inside):
            away = np.linalg.norm(points[:, None, :2] - world, axis=-1)
            assert away.min() >= FROM_OBJECTS - 1e-9


@settings(max_examples=100, deadline=None)
@given(sets, indices, seeds)
def test_raw_cameras_are_in_the_unit_square_at_eye_height(scene_set, index, seed):
    scene = render(scene_set, index, seed=seed, frame_size=16, views=4, split="test")
    x, y, z, yaw, pitch = scene.cameras.T
    assert scene.cameras.dtype == np.float32
    assert max(abs(x).max(), abs(y).max()) <= 1
    assert not z.any()
    assert not pitch.any()
    assert abs(yaw).max() <= np.float32(math.pi)


@pytest.mark.parametrize("scene_set", SETS)
def test_cameras_cover_the_room_and_rarely_face_a_near_wall(scene_set):
    raw = np.concatenate([sample(scene_set, index)[1] for index in range(300)])
    x, y, _, yaw, _ = raw.T
    cells = np.histogram2d(x, y, bins=5, range=[(-1, 1), (-1, 1)])[0]
    assert cells[0].min() > 90
    assert cells[2, 2] > 50  # partly covered by objects
    assert np.histogram(yaw, bins=8, range=(-math.pi, math.pi))[0].min() > 300
    with np.errstate(divide="ignore"):
        along = [(HALF - np.sign(f) * SCALE * at) / abs(f) for at, f in ((x, np.cos(yaw)), (y, np.sin(yaw)))]
    ahead = np.minimum(*along)
    assert (ahead < 1).mean() < 0.01
    assert 5.0 < ahead.mean() < 5.6  # 5.5 in the real frames; 3.4 for a uniform yaw


@pytest.mark.parametrize("scene_set", SETS)
def test_more_views_start_with_the_same_ones_and_scenes_differ(scene_set):
    for index in (0, 7, 10**6):
        scene, raw = sample(scene_set, index, views=3)
        same, more = sample(scene_set, index, views=40)
        assert (more[:3] == raw).all()
        assert (scene.wall, scene.floor, scene.light) == (same.wall, same.floor, same.light)
        for one, other in zip(shapes.pack(scene.solids), shapes.pack(same.solids)):
            assert (one == other).all()
    few, many = render(scene_set, 5, views=2), render(scene_set, 5, views=4)
    assert (few.frames == many.frames[:2]).all()
    assert (few.cameras == many.cameras[:2]).all()
    lights = {
        sample(name, index, seed, 1, split)[0].light.position
        for name in SETS
        for index in (0, 1)
        for seed in (0, 1)
        for split in ("train", "test")
    }
    assert len(lights) == 16


def test_a_thousand_views_fit_between_three_objects_of_maximum_size():
    wide = 0.75  # larger than any object
    positions = [(1.5, 0.0), (-0.8, 1.3), (-0.8, -1.3)]
    objects = tuple(
        RoomObject(
            shape="cylinder",
            solids=(Solid(kind=shapes.CYLINDER, centre=(*at, 0.5), sizes=(wide, 0.5), colour=(1, 0, 0)),),
            centre=at,
            radius=wide,
        )
        for at in positions
    )
    scene = RoomScene(objects=objects, wall="red", floor="white", light=OWN_COLOURS)
    raw = free_cameras(np.random.default_rng(0), scene, 1000)
    away = np.linalg.norm(raw[:, None, :2] * SCALE - positions, axis=-1)
    assert away.min() >= wide + FROM_OBJECTS
    assert len(np.unique(raw, axis=0)) == 1000


@settings(max_examples=40, deadline=None)
@given(sets, indices)
@example("rooms_free_camera_no_object_rotations", 2213852)  # the tip of a cone
def test_an_object_is_drawn_where_the_raw_camera_puts_it(scene_set, index):
    size = 128
    scene, raw = sample(scene_set, index, views=6)
    for each in scene.objects:
        if each.shape in ("icosahedron", "sphere", "capsule"):  # the outline of a ball is not among its points
            continue
        points = np.concatenate([points_of(solid) for solid in each.solids])
        single = painted(replace(scene, objects=(each,)))
        for frame, camera in zip(render_room(single, to_world(raw), size, False), raw):
            column, row, ahead = project(points, camera, size)
            if ahead.min() < 0.2 or min(column.min(), row.min()) < 1 or max(column.max(), row.max()) > size - 1:
                continue
            rows, columns = np.nonzero(object_pixels(frame))
            # A pixel is drawn if its centre is covered; thin tips of up to 3.5 pixels may fall between centres.
            for found, expected in ((columns, column), (rows, row)):
                assert expected.min() - 1 <= found.min() <= expected.min() + 3.5
                assert expected.max() - 4.5 <= found.max() <= expected.max()


@settings(max_examples=40, deadline=None)
@given(sets, indices)
def test_objects_are_drawn_in_front_of_the_camera_and_not_behind_it(scene_set, index):
    scene, raw = sample(scene_set, index)
    points = np.concatenate([points_of(solid) for solid in scene.solids])
    frames = render_room(painted(scene), to_world(raw), 64, False)
    for seen, camera in zip(object_pixels(frames), raw):
        if project(points, camera, 64)[2].max() < 0:
            assert not seen.any()
        for solid in scene.solids:
            (column,), (row,), (ahead,) = project([solid.centre], camera, 64)
            if ahead > 0 and 2 < column < 62 and 2 < row < 62:  # a thin bar may miss the pixel centre
                assert seen[int(row) - 1 : int(row) + 2, int(column) - 1 : int(column) + 2].any()


@settings(max_examples=15, deadline=None)
@given(sets, indices)
def test_a_point_on_the_floor_has_one_colour_in_every_view(scene_set, index):
    size = 96
    scene, raw = sample(scene_set, index, views=8)
    scene = replace(scene, floor="white")
    frames = render_room(scene, to_world(raw), size, True).astype(int)
    hidden = object_pixels(render_room(painted(scene), to_world(raw), size, False))
    compared = differ = 0
    for one in range(len(raw)):
        positions = floor_under(raw[one], size)
        on_floor = (abs(positions) < HALF - 0.05).all(axis=-1) & ~hidden[one]
        for other in range(len(raw)):
            points = np.concatenate([positions[on_floor], np.zeros((on_floor.sum(), 1))], axis=1)
            column, row, ahead = project(points, raw[other], size)
            seen = (ahead > 0.3) & (column > 1) & (column < size - 2) & (row > size / 2) & (row < size - 2)
            at_row, at_column = row[seen].astype(int), column[seen].astype(int)
            clear = ~hidden[other][at_row, at_column]
            mine = frames[one][on_floor][seen][clear]
            theirs = frames[other][at_row[clear], at_column[clear]]
            differ += (abs(mine - theirs).max(axis=1) > 24).sum()
            compared += len(mine)
    assume(compared > 500)
    assert differ < 0.05 * compared  # edges of shadows and of objects


@settings(max_examples=40, deadline=None)
@given(sets, indices)
def test_a_shadowed_point_has_an_object_between_it_and_the_light(scene_set, index):
    size = 64
    scene, raw = sample(scene_set, index, views=8)
    scene = replace(scene, floor="white")
    light = np.array(scene.light.position)
    frames = render_room(scene, to_world(raw), size, False).astype(int)
    bare = render_room(replace(scene, objects=()), to_world(raw), size, False).astype(int)
    hidden = object_pixels(render_room(painted(scene), to_world(raw), size, False))
    for frame, without, mask, camera in zip(frames, bare, hidden, raw):
        positions = floor_under(camera, size)
        shadowed = (without.sum(axis=-1) - frame.sum(axis=-1) > 6) & ~mask
        on_floor = shadowed & (abs(positions) < HALF).all(axis=-1)
        for place in positions[on_floor]:
            # Between the point and the light, up to the height of objects, there is an object.
            share = np.linspace(0, 1.4 / light[2], 60)[:, None]
            way = place + share * (light[:2] - place)
            assert any(np.linalg.norm(way - each.centre, axis=1).min() <= each.radius + 0.02 for each in scene.objects)


def test_objects_cast_shadows_away_from_the_light():
    """Check that the floor is dark where the line from the light through an object's centre meets it."""
    looked = 0
    for index in range(60):
        scene, raw = sample(FREE_CAMERA_ROTATED, index, views=10)
        scene = replace(scene, floor="white")
        light = np.array(scene.light.position)
        frames = render_room(scene, to_world(raw), 64, False).astype(int)
        bare = render_room(replace(scene, objects=()), to_world(raw), 64, False).astype(int)
        hidden = object_pixels(render_room(painted(scene), to_world(raw), 64, False))
        for each in scene.objects:
            if each.shape == "triangle":  # its middle is open
                continue
            middle = np.array(each.solids[0].centre)
            down = middle + (middle - light) * middle[2] / (light[2] - middle[2])
            for frame, without, mask, camera in zip(frames, bare, hidden, raw):
                (column,), (row,), (ahead,) = project(down[None], camera, 64)
                if ahead < 0.3 or not (1 < column < 63 and 1 < row < 63) or abs(down[:2]).max() > HALF:
                    continue
                at = int(row), int(column)
                if mask[at] or without[at].sum() < 3 * 110:  # hidden, or hardly lit
                    continue
                looked += 1
                assert frame[at].sum() < without[at].sum() - 6
    assert looked > 40


def test_boxes_are_rotated_in_one_set_and_axis_aligned_in_the_other():
    turns = {}
    for scene_set in SETS:
        solids = [solid for index in range(400) for solid in sample(scene_set, index, views=1)[0].solids]
        for solid in solids:
            assert solid.rotation @ solid.rotation.T == pytest.approx(np.eye(3))
            assert np.linalg.det(solid.rotation) == pytest.approx(1)
            if solid.kind != shapes.BAR:
                assert solid.rotation[2].tolist() == [0, 0, 1]  # upright
        boxes = [solid for solid in solids if solid.kind == shapes.BOX]
        edges = [np.diff(points_of(box)[[0, 4]], axis=0)[0] for box in boxes]
        turns[scene_set] = np.array([math.atan2(y, x) % math.pi for x, y, _ in edges])
    assert len(turns[FREE_CAMERA]) > 60
    assert not turns[FREE_CAMERA].any()
    assert np.histogram(turns[FREE_CAMERA_ROTATED], bins=6, range=(0, math.pi))[0].min() > 5


def test_a_rotated_triangle_stays_in_one_vertical_plane():
    normals = []
    for index in range(200):
        for each in sample(FREE_CAMERA_ROTATED, index, views=1)[0].objects:
            if each.shape == "triangle":
                points = np.concatenate([points_of(solid) for solid in each.solids])
                tube = each.solids[0].sizes[0]
                normal = each.solids[0].rotation[0]
                assert normal[2] == pytest.approx(0)
                assert abs((points - (*each.centre, 0)) @ normal).max() <= tube + 1e-9
                assert points[:, 2].min() == pytest.approx(0)
                normals.append(math.atan2(normal[1], normal[0]) % (math.pi / 2))
    assert np.histogram(normals, bins=3, range=(0, math.pi / 2))[0].min() > 5


@pytest.mark.parametrize("scene_set", SETS)
@pytest.mark.parametrize("size", [32, 256])
def test_small_and_large_frames_show_the_same_views(scene_set, size):
    scene = render(scene_set, 4, frame_size=size, views=1, supersample=True)
    assert scene.frames.shape == (1, size, size, 3)
    assert scene.frames.dtype == np.uint8
    usual = render(scene_set, 4, frame_size=64, views=1, supersample=True)
    assert (scene.cameras == usual.cameras).all()

    def shrunk(frames):
        step = frames.shape[1] // 16
        return frames[0].astype(float).reshape(16, step, 16, step, 3).mean(axis=(1, 3))

    assert abs(shrunk(scene.frames) - shrunk(usual.frames)).mean() < 3
