"""The rooms with a free camera: what stands where, and that the raw cameras tell the truth about the frames.

Projections and distances are worked out here, from the raw cameras and the solids' sizes alone.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from solid_points import points_of

from gqn_data.render import RENDERERS, shapes
from gqn_data.render.room_cameras import FREE_CAMERA, FREE_CAMERA_TURNED, free_cameras, sample_free_scene, to_world
from gqn_data.render.rooms import RoomScene, Thing, render_room
from gqn_data.render.shapes import Solid
from gqn_data.render.surfaces import Light

SETS = (FREE_CAMERA, FREE_CAMERA_TURNED)
SCALE, EYE, HALF, TANGENT = 3.25, 0.78, 3.5, math.tan(math.radians(25))
FROM_THINGS, FROM_WALLS = 0.35, 0.25
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
    """Columns and rows of points (n, 3), in pixels from the left and the top, and how far ahead they are."""
    x, y, z, yaw, pitch = raw
    assert z == pitch == 0
    away = np.asarray(points) - (SCALE * x, SCALE * y, EYE)
    ahead = away[:, 0] * math.cos(yaw) + away[:, 1] * math.sin(yaw)
    left = away[:, 1] * math.cos(yaw) - away[:, 0] * math.sin(yaw)
    with np.errstate(all="ignore"):
        return (1 - left / ahead / TANGENT) * size / 2, (1 - away[:, 2] / ahead / TANGENT) * size / 2, ahead


def floor_under(raw, size):
    """Where the rays through the middles of the pixels meet the endless floor: (size, size, 2), NaN above it."""
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
    """The scene with all its things in one colour, and everything in its own colour."""
    things = [
        replace(thing, solids=tuple(replace(solid, colour=colour) for solid in thing.solids)) for thing in scene.things
    ]
    return replace(scene, things=tuple(things), light=OWN_COLOURS, wall="green", floor="blue")


def things_in(frames):
    """Which pixels of painted frames show a thing and nothing else."""
    return (frames[..., 0] == 255) & (frames[..., 1] == 0) & (frames[..., 2] == 255)


@settings(max_examples=200, deadline=None)
@given(sets, indices, seeds)
def test_cameras_keep_clear_of_things_and_walls(scene_set, index, seed):
    scene, raw = sample(scene_set, index, seed, views=12)
    world = raw[:, :2] * SCALE
    assert (HALF - abs(world)).min() >= FROM_WALLS
    mixes = np.random.default_rng(0)
    for solid in scene.solids:
        corners = points_of(solid)
        inside = mixes.dirichlet(np.full(len(corners), 0.1), 300) @ corners  # a solid is convex
        for points in (corners, inside):
            away = np.linalg.norm(points[:, None, :2] - world, axis=-1)
            assert away.min() >= FROM_THINGS - 1e-9


@settings(max_examples=100, deadline=None)
@given(sets, indices, seeds)
def test_raw_cameras_are_within_the_unit_square_at_the_height_of_the_eye(scene_set, index, seed):
    scene = render(scene_set, index, seed=seed, frame_size=16, views=4, split="test")
    x, y, z, yaw, pitch = scene.cameras.T
    assert scene.cameras.dtype == np.float32
    assert max(abs(x).max(), abs(y).max()) <= 1
    assert not z.any()
    assert not pitch.any()
    assert abs(yaw).max() <= np.float32(math.pi)


@pytest.mark.parametrize("scene_set", SETS)
def test_cameras_come_up_all_over_the_room_with_every_yaw_and_seldom_close_to_the_wall_ahead(scene_set):
    raw = np.concatenate([sample(scene_set, index)[1] for index in range(300)])
    x, y, _, yaw, _ = raw.T
    cells = np.histogram2d(x, y, bins=5, range=[(-1, 1), (-1, 1)])[0]
    assert cells[0].min() > 90
    assert cells[2, 2] > 50  # things stand there
    assert np.histogram(yaw, bins=8, range=(-math.pi, math.pi))[0].min() > 300
    with np.errstate(divide="ignore"):
        along = [(HALF - np.sign(f) * SCALE * at) / abs(f) for at, f in ((x, np.cos(yaw)), (y, np.sin(yaw)))]
    ahead = np.minimum(*along)
    assert (ahead < 1).mean() < 0.01
    assert 5.0 < ahead.mean() < 5.6  # 5.5 in the real frames, 3.4 if every yaw were as likely


@pytest.mark.parametrize("scene_set", SETS)
def test_more_views_begin_with_the_same_ones_and_other_scenes_are_others(scene_set):
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
        sample(name, index, seed, 1, split)[0].light.at
        for name in SETS
        for index in (0, 1)
        for seed in (0, 1)
        for split in ("train", "test")
    }
    assert len(lights) == 16


def test_a_thousand_views_are_found_between_three_of_the_largest_things():
    wide = 0.75  # more than any thing
    places = [(1.5, 0.0), (-0.8, 1.3), (-0.8, -1.3)]
    things = tuple(
        Thing(
            shape="cylinder",
            solids=(Solid(kind=shapes.CYLINDER, centre=(*at, 0.5), sizes=(wide, 0.5), colour=(1, 0, 0)),),
            centre=at,
            radius=wide,
        )
        for at in places
    )
    scene = RoomScene(things=things, wall="red", floor="white", light=OWN_COLOURS)
    raw = free_cameras(np.random.default_rng(0), scene, 1000)
    away = np.linalg.norm(raw[:, None, :2] * SCALE - places, axis=-1)
    assert away.min() >= wide + FROM_THINGS
    assert len(np.unique(raw, axis=0)) == 1000


@settings(max_examples=40, deadline=None)
@given(sets, indices)
def test_a_thing_is_drawn_where_the_raw_camera_says(scene_set, index):
    size = 128
    scene, raw = sample(scene_set, index, views=6)
    for thing in scene.things:
        if thing.shape in ("icosahedron", "sphere", "capsule"):  # no corners: a ball's outline is not its own points
            continue
        points = np.concatenate([points_of(solid) for solid in thing.solids])
        alone = painted(replace(scene, things=(thing,)))
        for frame, camera in zip(render_room(alone, to_world(raw), size, False), raw):
            column, row, ahead = project(points, camera, size)
            if ahead.min() < 0.2 or min(column.min(), row.min()) < 1 or max(column.max(), row.max()) > size - 1:
                continue
            rows, columns = np.nonzero(things_in(frame))
            # A pixel is drawn where its middle is covered; thin tips may fall between middles.
            for found, expected in ((columns, column), (rows, row)):
                assert expected.min() - 1 <= found.min() <= expected.min() + 2.5
                assert expected.max() - 3.5 <= found.max() <= expected.max()


@settings(max_examples=40, deadline=None)
@given(sets, indices)
def test_what_is_behind_a_camera_is_not_drawn_and_what_is_before_it_is(scene_set, index):
    scene, raw = sample(scene_set, index)
    points = np.concatenate([points_of(solid) for solid in scene.solids])
    frames = render_room(painted(scene), to_world(raw), 64, False)
    for seen, camera in zip(things_in(frames), raw):
        if project(points, camera, 64)[2].max() < 0:
            assert not seen.any()
        for solid in scene.solids:
            (column,), (row,), (ahead,) = project([solid.centre], camera, 64)
            if ahead > 0 and 2 < column < 62 and 2 < row < 62:  # a thin bar may lie beside the pixel's middle
                assert seen[int(row) - 1 : int(row) + 2, int(column) - 1 : int(column) + 2].any()


@settings(max_examples=15, deadline=None)
@given(sets, indices)
def test_a_point_of_the_floor_has_one_colour_in_every_view_that_shows_it(scene_set, index):
    size = 96
    scene, raw = sample(scene_set, index, views=8)
    scene = replace(scene, floor="white")
    frames = render_room(scene, to_world(raw), size, True).astype(int)
    hidden = things_in(render_room(painted(scene), to_world(raw), size, False))
    compared = differ = 0
    for one in range(len(raw)):
        places = floor_under(raw[one], size)
        on_floor = (abs(places) < HALF - 0.05).all(axis=-1) & ~hidden[one]
        for other in range(len(raw)):
            points = np.concatenate([places[on_floor], np.zeros((on_floor.sum(), 1))], axis=1)
            column, row, ahead = project(points, raw[other], size)
            seen = (ahead > 0.3) & (column > 1) & (column < size - 2) & (row > size / 2) & (row < size - 2)
            at_row, at_column = row[seen].astype(int), column[seen].astype(int)
            clear = ~hidden[other][at_row, at_column]
            mine = frames[one][on_floor][seen][clear]
            theirs = frames[other][at_row[clear], at_column[clear]]
            differ += (abs(mine - theirs).max(axis=1) > 24).sum()
            compared += len(mine)
    assume(compared > 500)
    assert differ < 0.05 * compared  # edges of shadows and of things


@settings(max_examples=40, deadline=None)
@given(sets, indices)
def test_shadows_lie_on_the_floor_where_a_thing_stands_before_the_light(scene_set, index):
    size = 64
    scene, raw = sample(scene_set, index, views=8)
    scene = replace(scene, floor="white")
    light = np.array(scene.light.at)
    frames = render_room(scene, to_world(raw), size, False).astype(int)
    bare = render_room(replace(scene, things=()), to_world(raw), size, False).astype(int)
    hidden = things_in(render_room(painted(scene), to_world(raw), size, False))
    for frame, without, mask, camera in zip(frames, bare, hidden, raw):
        places = floor_under(camera, size)
        shadowed = (without.sum(axis=-1) - frame.sum(axis=-1) > 6) & ~mask
        on_floor = shadowed & (abs(places) < HALF).all(axis=-1)
        for place in places[on_floor]:
            # From there to the light, as far as things are high: some thing is on the way, and never behind.
            share = np.linspace(0, 1.4 / light[2], 60)[:, None]
            way = place + share * (light[:2] - place)
            assert any(
                np.linalg.norm(way - thing.centre, axis=1).min() <= thing.radius + 0.02 for thing in scene.things
            )


def test_things_throw_shadows_where_the_light_says():
    """The floor is dark where the line from the light through the middle of a thing comes down."""
    looked = 0
    for index in range(60):
        scene, raw = sample(FREE_CAMERA_TURNED, index, views=10)
        scene = replace(scene, floor="white")
        light = np.array(scene.light.at)
        frames = render_room(scene, to_world(raw), 64, False).astype(int)
        bare = render_room(replace(scene, things=()), to_world(raw), 64, False).astype(int)
        hidden = things_in(render_room(painted(scene), to_world(raw), 64, False))
        for thing in scene.things:
            if thing.shape == "triangle":  # one looks through its middle
                continue
            middle = np.array(thing.solids[0].centre)
            down = middle + (middle - light) * middle[2] / (light[2] - middle[2])
            for frame, without, mask, camera in zip(frames, bare, hidden, raw):
                (column,), (row,), (ahead,) = project(down[None], camera, 64)
                if ahead < 0.3 or not (1 < column < 63 and 1 < row < 63) or abs(down[:2]).max() > HALF:
                    continue
                at = int(row), int(column)
                if mask[at] or without[at].sum() < 3 * 110:  # hidden, or hardly lit anyway
                    continue
                looked += 1
                assert frame[at].sum() < without[at].sum() - 6
    assert looked > 40


def test_boxes_are_turned_in_one_set_and_stand_along_the_walls_in_the_other():
    turns = {}
    for scene_set in SETS:
        solids = [solid for index in range(400) for solid in sample(scene_set, index, views=1)[0].solids]
        for solid in solids:
            assert solid.turn @ solid.turn.T == pytest.approx(np.eye(3))
            assert np.linalg.det(solid.turn) == pytest.approx(1)
            if solid.kind != shapes.BAR:
                assert solid.turn[2].tolist() == [0, 0, 1]  # upright
        boxes = [solid for solid in solids if solid.kind == shapes.BOX]
        edges = [np.diff(points_of(box)[[0, 4]], axis=0)[0] for box in boxes]
        turns[scene_set] = np.array([math.atan2(y, x) % math.pi for x, y, _ in edges])
    assert len(turns[FREE_CAMERA]) > 60
    assert not turns[FREE_CAMERA].any()
    assert np.histogram(turns[FREE_CAMERA_TURNED], bins=6, range=(0, math.pi))[0].min() > 5


def test_a_turned_triangle_stays_in_one_upright_plane():
    normals = []
    for index in range(200):
        for thing in sample(FREE_CAMERA_TURNED, index, views=1)[0].things:
            if thing.shape == "triangle":
                points = np.concatenate([points_of(solid) for solid in thing.solids])
                tube = thing.solids[0].sizes[0]
                normal = thing.solids[0].turn[0]
                assert normal[2] == pytest.approx(0)
                assert abs((points - (*thing.centre, 0)) @ normal).max() <= tube + 1e-9
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
