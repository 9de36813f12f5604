"""Mazes: ray caster against projections computed here, floor plans, walks, and real records.

The ranges of walks and the two plans below were measured on DeepMind's records (docs/rendering.md).
"""

import math
from collections import deque
from io import BytesIO

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from tfrecord import example_pb2

from gqn_data.render import maze_textures
from gqn_data.render.maze_cast import BLOCK, CORRIDOR, ROOM, hit_wall
from gqn_data.render.maze_layout import SIDE, sample_layout
from gqn_data.render.maze_walk import CLEARANCE, SPIN, TURN, walk
from gqn_data.render.mazes import (
    EYE_HEIGHT,
    SKY,
    grid_to_raw,
    raw_to_grid,
    render_maze,
    render_maze_scene,
    sample_maze_scene,
)
from gqn_data.render.shapes import MISSED
from gqn_data.tfrecord import framing

seeds = st.integers(0, 2**32)
angle = st.floats(-math.pi, math.pi)
SKY_BYTES = np.round(np.array(SKY) * 255)

# Cells of two real mazes, north up: `#` blocks, `.` corridors, `R` rooms; scenes of the first train file.
REAL_PLANS = {
    0: """#########
          ##......#
          ##.####.#
          #RRR#RRR#
          #RRR#RRR#
          #RRR#RRR#
          #RRR#RRR#
          #RRR.RRR#
          #########""",
    3: """#########
          #########
          #########
          ###RRR###
          ###RRR###
          ###RRR###
          #########
          #########
          #########""",
}
REAL_SURFACES = {0: ("red tracks", "peach cloth"), 3: ("grey discs", "green lawn")}


def plan(text):
    rows = [line.strip() for line in text.splitlines()][::-1]
    return np.array([["#.R".index(kind) for kind in row] for row in rows], dtype=np.int64)


def look(cells, *cameras, size=84, wall="grey discs", floor="blue dots", supersample=False):
    frames = render_maze(cells, wall, floor, np.array(cameras, dtype=float), size, supersample)
    return frames if len(cameras) > 1 else frames[0]


def project(points, camera, size):
    """Project points (n, 3) for a horizontal camera; return columns, rows and depths."""
    x, y, yaw = camera
    away = np.asarray(points, dtype=float) - (x, y, EYE_HEIGHT)
    ahead = away[:, 0] * math.cos(yaw) + away[:, 1] * math.sin(yaw)
    left = away[:, 1] * math.cos(yaw) - away[:, 0] * math.sin(yaw)
    return (1 - left / ahead) * size / 2, (1 - away[:, 2] / ahead) * size / 2, ahead  # 90 degrees: tangent 1


def sky(frame):
    return (frame == SKY_BYTES).all(axis=-1)


HALL = np.full((9, 9), BLOCK, dtype=np.int64)
HALL[1:8, 1:8] = ROOM
PILLAR = HALL.copy()
PILLAR[4, 4] = BLOCK


def test_known_lines_meet_known_walls_at_known_distances():
    assert hit_wall(HALL, 2.5, 3.25, 1.0, 0.0) == (5.5, 1.0, -3.25, ROOM)
    assert hit_wall(HALL, 2.5, 3.25, -1.0, 0.0) == (1.5, 1.0, 3.25, ROOM)
    assert hit_wall(HALL, 2.5, 3.25, 0.0, 1.0) == (4.75, 1.0, 2.5, ROOM)
    assert hit_wall(HALL, 2.5, 3.25, 0.0, -1.0) == (2.25, 1.0, -2.5, ROOM)
    # Along (3, 4) / 5 the wall to the north is 4 cells away, and 3 cells further east.
    t, across, along, _ = hit_wall(HALL, 2.25, 4.0, 0.6, 0.8)
    assert (t, across, along) == (pytest.approx(5.0), 0.8, pytest.approx(5.25))
    assert hit_wall(PILLAR, 2.5, 4.5, 1.0, 0.0).t == 1.5
    assert hit_wall(np.full((3, 3), ROOM, dtype=np.int64), 1.5, 1.5, 1.0, 0.5).t == MISSED


@settings(max_examples=200, deadline=None)
@given(seeds, angle, st.integers(0, 10**6))
def test_every_line_ends_where_small_steps_first_enter_a_block(seed, bearing, where):
    cells = sample_layout(np.random.default_rng(seed)).cells
    rows, columns = np.nonzero(cells)
    start = where % len(rows)
    x, y = columns[start] + 0.5, rows[start] + 0.5
    dx, dy = math.cos(bearing), math.sin(bearing)
    steps = np.arange(0, 13, 1e-3)
    east, north = np.floor(x + steps * dx).astype(int), np.floor(y + steps * dy).astype(int)
    first = np.argmax(cells[np.clip(north, 0, SIDE - 1), np.clip(east, 0, SIDE - 1)] == BLOCK)
    met = hit_wall(cells, x, y, dx, dy)
    # The line may cut a corner by less than a step.
    assume(abs(met.along - round(met.along)) > 2e-3)
    before = cells[north[first - 1], east[first - 1]]
    assert (met.t, met.kind) == (pytest.approx(steps[first], abs=2e-3), before)


@pytest.mark.parametrize("size", [32, 84, 256])
@pytest.mark.parametrize(("ahead", "yaw"), [(1.5, 0.0), (5.5, 0.0), (2.25, math.pi), (3.25, math.pi / 2)])
def test_sky_is_above_a_wall_and_floor_is_below_it(size, ahead, yaw):
    x, y = (8 - ahead, 2.5) if yaw == 0 else (1 + ahead, 2.5) if yaw == math.pi else (2.5, 8 - ahead)
    frame = look(HALL, (x, y, yaw), size=size)
    column = frame[:, size // 2].astype(int)
    top, foot = size / 2 - size / 2 * (1 - EYE_HEIGHT) / ahead, size / 2 + size / 2 * EYE_HEIGHT / ahead
    assert sky(frame)[:, size // 2].sum() == pytest.approx(top, abs=1)
    floor = column[:, 2] > column[:, 0] + 100  # blue; the wall is grey
    floor &= ~sky(frame)[:, size // 2]
    assert size - floor.sum() == pytest.approx(foot, abs=1.5)
    assert floor[int(foot) + 2 :].all()


def test_only_sky_is_seen_above_a_wall():
    alone, before = look(HALL, (1.5, 4.5, 0.0)), look(PILLAR, (1.5, 4.5, 0.0))
    higher = sky(alone) & ~sky(before)
    assert higher[:, 35:49].any(axis=0).all()  # the nearer wall rises above the farther one
    assert not (sky(before) & ~sky(alone)).any()
    for column in sky(before).T:  # sky is contiguous from the top
        assert not column[np.argmin(column) :].any()


@settings(max_examples=60, deadline=None)
@given(seeds, angle, st.integers(0, 83), st.integers(48, 83), st.integers(0, 10**6))
def test_the_floor_of_each_cell_has_the_texture_of_its_kind(seed, yaw, column, row, where):
    cells = sample_layout(np.random.default_rng(seed)).cells
    rows, columns = np.nonzero(cells)
    x, y = columns[where % len(rows)] + 0.5, rows[where % len(rows)] + 0.5
    ahead = EYE_HEIGHT * 42 / (row + 0.5 - 42)
    left = ahead * (1 - (column + 0.5) / 42)
    east = x + ahead * math.cos(yaw) - left * math.sin(yaw)
    north = y + ahead * math.sin(yaw) + left * math.cos(yaw)
    way = np.linspace(0, 1, 500)
    passed = cells[(y + way * (north - y)).astype(int) % SIDE, (x + way * (east - x)).astype(int) % SIDE]
    assume((passed != BLOCK).all() and 0 < east < SIDE and 0 < north < SIDE)
    assume(max(abs(east % 1 - 0.5), abs(north % 1 - 0.5)) < 0.45)
    red, _, blue = look(cells, (x, y, yaw))[row, column].tolist()
    # "blue dots" in rooms, "orange dots" in corridors
    assert (blue > 130 and red < 60) if cells[int(north), int(east)] == ROOM else (red > 130 and blue < 110)


@settings(max_examples=30, deadline=None)
@given(st.floats(1.3, 7.7), st.floats(1.3, 7.7))
def test_a_corner_seen_from_two_cameras_lies_where_both_say(x, y):
    cameras = [(x, y), (y, 9 - x)]
    assume(all(max(abs(a - 4.5), abs(b - 4.5)) > 0.8 for a, b in cameras))
    size, found = 256, []
    corners = np.array([(a, b, EYE_HEIGHT) for a in (4, 5) for b in (4, 5)])
    for a, b in cameras:
        yaw = math.atan2(4.5 - b, 4.5 - a)
        higher = sky(look(HALL, (a, b, yaw), size=size)) & ~sky(look(PILLAR, (a, b, yaw), size=size))
        drawn = np.flatnonzero(higher.any(axis=0))
        assume(len(drawn) > 8)
        columns, _, ahead = project(corners, (a, b, yaw), size)
        assume(ahead.min() > 0.1 and columns.min() > 1 and columns.max() < size - 1)
        assert drawn.min() == pytest.approx(columns.min(), abs=1)
        assert drawn.max() + 1 == pytest.approx(columns.max(), abs=1)
        found.append({int(k): column for k, column in zip(columns.argsort()[[0, -1]], (drawn.min(), drawn.max() + 1))})
    for corner in set(found[0]) & set(found[1]):
        sides, ends = [], []
        for (a, b), columns in zip(cameras, found):
            bearing = math.atan2(4.5 - b, 4.5 - a) - math.atan(columns[corner] / (size / 2) - 1)
            sides.append((-math.sin(bearing), math.cos(bearing)))
            ends.append(-math.sin(bearing) * a + math.cos(bearing) * b)
        assume(abs(np.linalg.det(sides)) > 0.4)
        assert np.linalg.solve(sides, ends) == pytest.approx(corners[corner, :2], abs=0.1)


def test_the_picture_moves_right_when_the_camera_turns_counter_clockwise():
    empty = [sky(frame) for frame in look(HALL, *((2.0, 4.5, yaw) for yaw in (-0.2, 0, 0.2)))]
    pillar = [sky(frame) for frame in look(PILLAR, *((2.0, 4.5, yaw) for yaw in (-0.2, 0, 0.2)))]
    middles = [np.argwhere(one & ~other)[:, 1].mean() for one, other in zip(empty, pillar)]
    assert middles[0] < middles[1] < middles[2]
    assert middles[1] == pytest.approx(41.5, abs=0.5)


def test_supersampling_is_the_mean_of_a_frame_of_twice_the_size():
    fine = look(PILLAR, (2.3, 3.1, 0.4), size=128).astype(float)
    coarse = look(PILLAR, (2.3, 3.1, 0.4), size=64, supersample=True)
    assert np.abs(fine.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3)) - coarse).max() <= 1


@pytest.mark.parametrize(
    "camera", [(4.5, 4.5, 0.0), (0.5, 4.5, 0.0), (-1.0, 4.5, 0.0), (4.5, 20.0, 0.0), (math.nan, 2.0, 0.0)]
)
def test_a_camera_in_a_block_or_outside_the_plan_is_rejected(camera):
    with pytest.raises(ValueError, match=r"cameras: .*expected all in open cells"):
        look(PILLAR, camera)


def reached(cells):
    start = tuple(np.argwhere(cells)[0])
    seen, queue = {start}, deque([start])
    while queue:
        row, column = queue.popleft()
        for there in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
            if cells[there] and there not in seen:
                seen.add(there)
                queue.append(there)
    return seen


def test_mazes_are_connected_and_closed_without_dead_ends():
    for seed in range(200):
        cells = sample_layout(np.random.default_rng(seed)).cells
        assert cells.shape == (9, 9)
        assert not cells[[0, -1]].any()
        assert not cells[:, [0, -1]].any()
        assert len(reached(cells)) == (cells != BLOCK).sum()
        ways = (cells[1:-1, 2:] != 0) * 1 + (cells[1:-1, :-2] != 0) + (cells[2:, 1:-1] != 0) + (cells[:-2, 1:-1] != 0)
        assert ways[cells[1:-1, 1:-1] == CORRIDOR].min(initial=4) >= 2


def test_numbers_and_sizes_of_rooms_match_the_real_mazes():
    layouts = [sample_layout(np.random.default_rng(seed)) for seed in range(300)]
    for layout in layouts:
        rooms = np.zeros((9, 9), dtype=bool)
        for room in layout.rooms:
            left, low = room.corner
            assert left % 2 == low % 2 == 1
            assert room.size in {(3, 3), (3, 5), (5, 3)}
            part = rooms[low : low + room.size[1], left : left + room.size[0]]
            assert not part.any()
            part[:] = True
        assert (rooms == (layout.cells == ROOM)).all()
    numbers = np.bincount([len(layout.rooms) for layout in layouts], minlength=3)
    assert numbers[1:].tolist() == [
        pytest.approx(44, abs=22),
        pytest.approx(256, abs=22),
    ]  # 6 and 35 of the 41 real mazes
    large = [room.size != (3, 3) for layout in layouts if len(layout.rooms) == 2 for room in layout.rooms]
    assert np.mean(large) == pytest.approx(33 / 70, abs=0.06)
    opened = [(layout.cells != BLOCK).sum() for layout in layouts if len(layout.rooms) == 2]
    assert np.mean(opened) == pytest.approx(34.1, abs=0.8)
    corridors = np.array([(layout.cells == CORRIDOR).sum() for layout in layouts])
    assert (corridors[[len(layout.rooms) == 2 for layout in layouts]] > 0).all()
    assert len({layout.cells.tobytes() for layout in layouts}) > 200


def room_about(cells, cameras):
    """Return the distance of each camera from the nearest block, measured along the grid."""
    rows, columns = np.nonzero(cells == BLOCK)
    x, y = cameras[:, 0, None], cameras[:, 1, None]
    aside = np.maximum(np.maximum(columns - x, x - columns - 1), np.maximum(rows - y, y - rows - 1))
    return aside.min(axis=1)


def walks(count, views=300):
    layouts = [sample_layout(np.random.default_rng(seed)) for seed in range(count)]
    return [(layout, walk(np.random.default_rng(seed), layout, views)) for seed, layout in enumerate(layouts)]


def turn_angles(cameras):
    return np.mod(np.diff(cameras[:, 2]) + math.pi, 2 * math.pi) - math.pi


def test_walks_keep_clear_of_walls():
    for layout, cameras in walks(30):
        assert room_about(layout.cells, cameras).min() >= CLEARANCE - 1e-6
        # Between two views the player moves straight or along a wall, at most one full move.
        assert np.hypot(*np.diff(cameras[:, :2], axis=0).T).max() < 0.27


def test_walks_do_not_get_stuck_at_corners():
    for _, cameras in walks(60):
        for view in range(SPIN, 300 - 60, 10):
            away = np.hypot(*(cameras[view : view + 60, :2] - cameras[view, :2]).T)
            assert away.max() > 0.5


def test_a_walk_starts_with_a_full_turn_in_the_middle_of_a_room_cell():
    for layout, cameras in walks(30, views=60):
        x, y = cameras[0, :2]
        assert (x % 1, y % 1) == (0.5, 0.5)
        assert layout.cells[int(y), int(x)] == ROOM
        assert (cameras[: SPIN + 1, :2] == cameras[0, :2]).all()
        assert turn_angles(cameras)[:SPIN] == pytest.approx(2 * TURN)
        assert 2 * math.pi < 2 * TURN * SPIN < 2 * math.pi + 4 * TURN
        assert (np.diff(cameras[SPIN:, :2], axis=0) != 0).any()


def test_walks_have_the_statistics_of_the_real_ones():
    """Compare with the 41 real walks: slightly widened ranges per walk, and means over all walks."""
    moves, turns, cells, slants, ahead = [], [], [], [], []
    for layout, cameras in walks(40):
        moves.append(np.hypot(*np.diff(cameras[SPIN:, :2], axis=0).T))
        turns.append(turn_angles(cameras)[SPIN:] / TURN)
        assert (abs(cameras[:, 2]) <= math.pi).all()
        cells.append(len({(int(x), int(y)) for x, y in cameras[:, :2]}))
        east, north = np.diff(cameras[SPIN:, :2], axis=0).T
        slants.append(np.arctan2(north, east)[moves[-1] > 0.05] - cameras[SPIN:-1, 2][moves[-1] > 0.05])
        yaws = cameras[SPIN::5, 2]
        lines = zip(*cameras[SPIN::5, :2].T, np.cos(yaws), np.sin(yaws))
        ahead += [hit_wall(layout.cells, *line).t for line in lines]
    # The player mostly moves where it looks, and does not face walls more often than the real one.
    slants = np.abs(np.mod(np.concatenate(slants) + math.pi, 2 * math.pi) - math.pi)
    assert np.percentile(slants, [50, 75]) == pytest.approx([0.24, 0.61], abs=0.2)
    assert np.percentile(ahead, [25, 50, 75]) == pytest.approx([0.81, 1.46, 2.37], abs=0.25)
    moves, turns = np.array(moves), np.array(turns)
    assert turns == pytest.approx(np.round(turns), abs=1e-6)
    assert np.abs(np.round(turns)).max() == 2
    assert moves.mean(axis=1).min() > 0.07  # real: 0.073 to 0.160
    assert moves.mean(axis=1).max() < 0.18
    assert np.percentile(moves, [25, 50, 75, 95]) == pytest.approx([0.090, 0.157, 0.197, 0.213], abs=0.02)
    assert (moves < 0.005).mean() == pytest.approx(0.08, abs=0.04)
    shares = [(np.round(turns) == turn).mean() for turn in range(-2, 3)]
    assert shares == pytest.approx([0.183, 0.208, 0.219, 0.208, 0.183], abs=0.05)  # left and right averaged
    assert min(cells) >= 6  # real: 7, 23, 30
    assert 19 <= np.median(cells) <= 27
    assert max(cells) <= 35


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), seeds)
def test_the_first_views_do_not_depend_on_the_number_of_views(index, seed):
    many, cameras = sample_maze_scene(index, seed=seed, split="test", views=300)
    for views in (1, 41, 42, 43, 100):
        maze, first = sample_maze_scene(index, seed=seed, split="test", views=views)
        assert (maze.wall, maze.floor, maze.layout.cells.tobytes()) == (
            many.wall,
            many.floor,
            many.layout.cells.tobytes(),
        )
        assert (first == cameras[:views]).all()


def test_more_frames_start_with_the_same_ones():
    few, more = (
        render_maze_scene(7, seed=1, split="train", frame_size=32, views=views, supersample=True) for views in (50, 80)
    )
    assert (few.frames == more.frames[:50]).all()
    assert (few.cameras == more.cameras[:50]).all()


def test_a_walk_may_have_one_view_or_a_thousand():
    for views in (1, 1000):
        maze, cameras = sample_maze_scene(3, seed=0, split="train", views=views)
        assert cameras.shape == (views, 3)
        assert room_about(maze.layout.cells, cameras).min() >= CLEARANCE - 1e-6


@pytest.mark.parametrize("index", range(3))
def test_raw_cameras_follow_the_layout_of_the_set(index):
    scene = render_maze_scene(index, seed=0, split="train", frame_size=16, views=300, supersample=False)
    x, y, z, yaw, pitch = scene.cameras.T
    assert scene.cameras.dtype == np.float32
    assert not z.any()
    assert not pitch.any()
    assert min(x.min(), y.min()) > -0.4
    assert max(x.max(), y.max()) < 0.3
    assert (abs(yaw) <= np.float32(math.pi)).all()
    _, cameras = sample_maze_scene(index, seed=0, split="train", views=300)
    assert raw_to_grid(scene.cameras.astype(float)) == pytest.approx(cameras, abs=1e-5)
    assert raw_to_grid(grid_to_raw(cameras)) == pytest.approx(cameras, abs=1e-12)


def test_walls_and_floors_of_rooms_are_equally_frequent():
    mazes = [sample_maze_scene(index, seed=0, split="train", views=1)[0] for index in range(900)]
    for names, seen in (
        (maze_textures.WALLS, [maze.wall for maze in mazes]),
        (maze_textures.FLOORS, [maze.floor for maze in mazes]),
    ):
        counts = [seen.count(name) for name in names]
        assert min(counts) > 0.6 * len(seen) / len(names)


def real_scene(mazes, number):
    """Return every third frame and camera of a scene, read without this project's readers."""
    record = list(framing.read_records(mazes / "train" / "0001-of-1080.tfrecord"))[number]
    feature = example_pb2.Example.FromString(bytes(record.payload)).features.feature
    frames = [np.asarray(Image.open(BytesIO(jpeg)).convert("RGB")) for jpeg in feature["frames"].bytes_list.value[::3]]
    cameras = np.array(feature["cameras"].float_list.value).reshape(-1, 5)
    return np.array(frames), cameras[::3]


@pytest.mark.parametrize("number", REAL_PLANS)
def test_walls_end_where_they_do_in_the_real_frames(mazes, number):
    """Classify pixels as sky, wall or floor by nearest colour, without the status line."""
    real, cameras = real_scene(mazes, number)
    colours, counts = np.unique(real[:, 3:8, 10:60].reshape(-1, 3), axis=0, return_counts=True)
    assert colours[counts.argmax()].tolist() == SKY_BYTES.tolist()
    wall, floor = REAL_SURFACES[number]
    ours = render_maze(plan(REAL_PLANS[number]), wall, floor, raw_to_grid(cameras), 84, supersample=False)
    walls = [maze_textures.wall(name)[-1] * 255 for name in {wall, maze_textures.CORRIDOR_WALL}]
    floors = [maze_textures.floor(name)[-1] * 255 for name in {floor, maze_textures.CORRIDOR_FLOOR}]
    bounds = []
    for frames in (real, ours):
        away = [np.linalg.norm(frames - colour, axis=-1) for colour in (SKY_BYTES, *walls, *floors)]
        nearest = np.argmin(away, axis=0)[:, 10:64, :60]  # there are small marks at the top right
        bounds.append(((nearest == 0).sum(axis=1), (nearest > len(walls)).sum(axis=1)))
    (real_sky, real_floor), (our_sky, our_floor) = bounds
    # One row is 1.1 degrees in the middle of the picture.
    seen = (our_sky > 0) | (real_sky > 0)
    assert np.abs(real_sky - our_sky)[seen].mean() < 0.4
    if number == 0:  # in the other maze, green floor and green wall are too similar
        seen = (our_floor > 0) | (real_floor > 0)
        assert np.abs(real_floor - our_floor)[seen].mean() < 0.5
