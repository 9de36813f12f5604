"""The Jaco arm: kinematics against the published Denavit-Hartenberg table, poses, and scenes."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gqn_data.render import jaco_arm, shapes, textures
from gqn_data.render.jaco import SCALE, TARGET_RADIUS, render_jaco_scene, sample_jaco_scene
from gqn_data.render.jaco_arm import (
    GRIP,
    HOME,
    JOINT_RANGES,
    PARTS,
    arm_solids,
    distance_to_arm,
    floor_clearance,
    link_motions,
    part_segments,
    sample_joints,
    segment_distances,
    self_collides,
)
from gqn_data.render.rooms import render_room
from gqn_data.render.surfaces import Light

seeds = st.integers(0, 2**40)
indices = st.integers(0, 10**6)
FLAT = Light((0.0, 0.0, 9.0), (0.0, 0.0), 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # unlit
TANGENT = math.tan(math.radians(25))
# Kinova's table: lengths in metres, and a wrist bent by twice 55 degrees.
D1, D2, D3, D4, D5, D6, E2, AA = 0.2755, 0.4100, 0.2073, 0.0743, 0.0743, 0.1687, 0.0098, math.radians(27.5)


@st.composite
def poses(draw):
    """Draw joint angles anywhere in their ranges."""
    return np.array([draw(st.floats(low, high)) for low, high in JOINT_RANGES])


def denavit_hartenberg(joints):
    """Return the frames (6, 4, 4) after joints 1 to 6, from the classical table and Kinova's angles."""
    q1, q2, q3, q4, q5, q6 = joints[:6]
    leg = math.sin(AA) / math.sin(2 * AA)
    table = (  # theta, d, a, alpha
        (-q1, D1, 0, math.pi / 2),
        (q2 - math.pi / 2, 0, D2, math.pi),
        (q3 + math.pi / 2, -E2, 0, math.pi / 2),
        (q4, -(D3 + leg * D4), 0, 2 * AA),
        (q5 - math.pi, -leg * (D4 + D5), 0, 2 * AA),
        (q6 + math.radians(100), -(leg * D5 + D6), 0, math.pi),
    )
    frame, frames = np.eye(4), []
    for theta, d, a, alpha in table:
        c, s, ca, sa = math.cos(theta), math.sin(theta), math.cos(alpha), math.sin(alpha)
        rows = [(c, -s * ca, s * sa, a * c), (s, c * ca, -c * sa, a * s), (0, sa, ca, d), (0, 0, 0, 1)]
        frame = frame @ np.array(rows)
        frames.append(frame)
    return np.array(frames)


def grip_of(joints):
    return denavit_hartenberg(joints)[5][:3, 3]


def points_of(solid, steps=9):
    """Return points on the surface of a solid of the arm, in world coordinates."""
    turns = np.linspace(0, 2 * math.pi, 16, endpoint=False)
    circle = np.stack([np.cos(turns), np.sin(turns), 0 * turns], axis=1)
    radius, half = solid.sizes[0], (*solid.sizes, 0.0)[1]
    heights = np.linspace(-half, half, steps)
    rings = [(radius, height) for height in heights]
    if solid.kind == shapes.CONE:
        rings = [(radius * (half - height) / (2 * half), height) for height in heights]
    if solid.kind == shapes.CYLINDER:
        rings += [(radius / 2, -half), (radius / 2, half), (0, -half), (0, half)]
    if solid.kind in (shapes.CAPSULE, shapes.SPHERE):
        for lift in np.linspace(0, math.pi / 2, 4):
            for side in (-1, 1):
                rings.append((radius * math.cos(lift), side * (half + radius * math.sin(lift))))
    local = np.concatenate([across * circle + (0, 0, height) for across, height in rings])
    return local @ solid.rotation + solid.centre


def sample(index, seed=0, views=11, split="train"):
    """Return a scene and its cameras in world units; raw 1 is the ring's radius, raw z = 0 the eye height."""
    scene, raw = sample_jaco_scene(index, seed=seed, split=split, views=views)
    return scene, raw * (3.25, 3.25, 3.25, 1, 1) + (0, 0, 0.78, 0, 0)


def solids_of(scene):
    arm, ball = scene.room.objects
    return arm.solids, ball.solids[0]


# The arm


@settings(max_examples=200, deadline=None)
@given(poses())
def test_links_move_as_in_the_published_table(joints):
    found, at_home = denavit_hartenberg(joints), denavit_hartenberg(HOME)
    motions = link_motions(joints)
    assert motions[0] == pytest.approx(np.eye(4))
    for joint in range(6):
        assert motions[joint + 1] == pytest.approx(found[joint] @ np.linalg.inv(at_home[joint]), abs=1e-9)
    assert motions[6] @ (*GRIP, 1) == pytest.approx((*grip_of(joints), 1), abs=1e-9)


def test_the_stretched_arm_has_kinovas_reach():
    ends = part_segments(HOME)
    assert ends == pytest.approx(np.array([(part.start, part.end) for part in PARTS]))
    assert grip_of(HOME)[2] == pytest.approx(1.1933, abs=1e-4)  # the sum of the lengths in the table
    assert math.dist(grip_of(HOME), (0, 0, D1)) == pytest.approx(0.9, abs=0.05)  # data sheet: reach 90 cm
    assert np.hypot(*ends[..., :2].reshape(-1, 2).T).max() < 0.15  # only fingers and wrist are off the axis

    out = HOME.copy()
    out[1] = math.radians(90)
    wrist = link_motions(out)[3] @ (0, -E2, D1 + D2 + D3, 1)
    assert wrist[:3] == pytest.approx((D2 + D3, -E2, D1))


@pytest.mark.parametrize("joint", range(1, 10))
@settings(max_examples=20, deadline=None)
@given(joints=poses(), turn=st.floats(0.1, 1.0))
def test_a_joint_moves_only_the_links_after_it(joint, joints, turn):
    other = joints.copy()
    other[joint - 1] += turn
    before, after, moved = part_segments(joints), part_segments(other), []
    for part, old, new in zip(PARTS, before, after):
        behind = part.link == joint or (joint <= 6 and part.link > joint)
        moved.append(behind and not np.allclose(old, new))
        if not behind:
            assert new == pytest.approx(old)
    assert any(moved)
    # Parts are rigid.
    assert np.linalg.norm(after[:, 1] - after[:, 0], axis=1) == pytest.approx(
        [math.dist(part.start, part.end) for part in PARTS]
    )


@settings(max_examples=25, deadline=None)
@given(poses())
def test_the_ends_of_neighbouring_links_meet(joints):
    ends = part_segments(joints)
    steps = np.linspace(0, 1, 40)[:, None]
    along = [start + steps * (end - start) for start, end in ends]

    def meet(one, other):
        apart = np.linalg.norm(along[one][:, None] - along[other][None], axis=-1).min()
        return apart < PARTS[one].radius + PARTS[other].radius - 0.005

    for link in range(1, 10):
        own = [i for i, part in enumerate(PARTS) if part.link == link]
        before = [i for i, part in enumerate(PARTS) if part.link == min(link - 1, 6)]
        assert any(meet(one, other) for one in own for other in before)
        # The parts of a link are connected.
        reached = {own[0]}
        for _ in own:
            reached |= {other for other in own for one in reached if meet(one, other)}
        assert reached == set(own)


@settings(max_examples=50, deadline=None)
@given(poses())
def test_each_of_the_six_joints_has_a_light_ring(joints):
    frames = denavit_hartenberg(joints)
    axes = np.concatenate([[(0, 0, 1)], frames[:5, :3, 2]])
    rings = [
        (part.link, start, end)
        for part, (start, end) in zip(PARTS, part_segments(joints))
        if part.link and part.kind == shapes.CYLINDER and part.colour[0] > 0.6 and part.radius > 0.035
    ]
    assert [link for link, _, _ in rings] == [1, 2, 3, 4, 5, 6]
    for (_, start, end), axis in zip(rings, axes):
        assert abs((end - start) @ axis) == pytest.approx(math.dist(start, end))


@given(st.floats(0.15, 1.3), st.floats(0.01, 0.05))
def test_fingers_close_as_their_angle_grows(angle, more):
    def tips(angle):
        joints = HOME.copy()
        joints[6:] = angle
        # The farther part of every finger.
        return np.array([part_segments(joints)[i][1] for i in range(len(PARTS)) if PARTS[i].link >= 7][1::2])

    def aside(points):
        """Return the signed distance of one fingertip from the line between the other two."""
        return (points[1:].mean(axis=0) - points[0])[0]

    assert aside(tips(angle + more)) < aside(tips(angle)) - 0.01 * more
    assert tips(angle)[:, 2].min() > jaco_arm.HAND[2] + 0.1


def test_open_fingers_are_wider_than_the_palm_and_closed_ones_meet():
    def spread(angle):
        joints = HOME.copy()
        joints[6:] = angle
        ends = [part_segments(joints)[i][1] for i, part in enumerate(PARTS) if part.link >= 7][1::2]
        return math.dist(ends[0], (ends[1] + ends[2]) / 2)

    assert spread(0.15) > 0.15
    assert spread(1.35) < 0.03


def test_an_arm_folded_onto_itself_collides():
    assert not self_collides(part_segments(HOME))
    folded = np.array([0, math.pi, 0.33, 0, math.pi, 0, 0.5, 0.5, 0.5])  # the forearm is folded beside the upper arm
    hits = []
    for folded[3] in np.linspace(0, 6, 13):
        hits.append(self_collides(part_segments(folded)))
    assert any(hits)  # some wrist angles put the hand into the upper arm
    assert not all(hits)


def test_self_collision_agrees_with_points_along_the_links():
    random, steps = np.random.default_rng(2), np.linspace(0, 1, 30)[:, None]
    pairs = [
        (i, j)
        for (i, one), (j, other) in itertools.permutations(enumerate(PARTS), 2)
        if (one.link <= 2 and other.link >= 4)
        or (one.link <= 1 and other.link == 3)
        or (one.link == 3 and other.link >= 6)
    ]
    overlaps = []
    for _ in range(80):
        joints = random.uniform(*JOINT_RANGES.T)
        joints[2] = random.uniform(0.33, 1.5)  # the forearm folded towards the upper arm
        ends = part_segments(joints)
        along = [start + steps * (end - start) for start, end in ends]
        closest = min(
            np.linalg.norm(along[i][:, None] - along[j][None], axis=-1).min() - PARTS[i].radius - PARTS[j].radius
            for i, j in pairs
        )
        if abs(closest) > 0.01:  # the spacing of the points
            overlaps.append(closest < 0)
            assert self_collides(ends) == overlaps[-1]
    assert 10 < sum(overlaps) < len(overlaps) - 10


def test_the_distance_of_two_segments_is_between_their_nearest_points():
    random, steps = np.random.default_rng(4), np.linspace(0, 1, 60)[:, None]
    one, other = random.uniform(-1, 1, (2, 300, 2, 3))
    other[:100] = one[:100] + random.uniform(-1, 1, (100, 1, 3))  # parallel
    found = segment_distances(one, other)
    assert found == pytest.approx(segment_distances(other, one))
    assert found == pytest.approx(segment_distances(one[:, ::-1], other))
    for i in range(300):
        a, b = (start + steps * (end - start) for start, end in (one[i], other[i]))
        seen = np.linalg.norm(a[:, None] - b[None], axis=-1).min()
        assert seen - 0.06 < found[i] <= seen + 1e-9


@settings(max_examples=25, deadline=None)
@given(poses(), st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 1.3)))
def test_the_distance_to_the_arm_is_the_distance_to_its_surface(joints, point):
    surface = np.concatenate([points_of(solid, steps=30) for solid in arm_solids(joints, 1.0)])
    seen = np.linalg.norm(surface - point, axis=1).min()
    found = distance_to_arm(part_segments(joints), point)
    assert found <= seen + 1e-9
    if found > 0:
        assert found >= seen - jaco_arm.RADII.max() - 0.005  # flat ends of cylinders count as domes


# Scenes


def test_joint_angles_fill_their_ranges():
    random = np.random.default_rng(1)
    drawn = np.array([sample_joints(random) for _ in range(3000)])
    low = (0, 0.82, 0.33, 0, 0, 0, 0.15, 0.15, 0.15)
    high = (2 * math.pi, 5.46, 5.95, 2 * math.pi, 2 * math.pi, 2 * math.pi, 1.35, 1.35, 1.35)
    assert (drawn >= low).all()
    assert (drawn <= high).all()
    filled = np.ptp(drawn, axis=0) / np.subtract(high, low)
    assert filled.min() > 0.9
    assert np.corrcoef(drawn[:, 6:].T)[0, 1] < 0.1  # fingers are independent


@settings(max_examples=50, deadline=None)
@given(indices, seeds)
def test_no_link_is_below_the_floor_or_in_another(index, seed):
    scene, _ = sample(index, seed, views=1)
    arm, _ = solids_of(scene)
    assert len(arm) == len(PARTS)
    for solid in arm:
        assert points_of(solid)[:, 2].min() >= -1e-9
    assert not self_collides(part_segments(scene.joints))


@given(poses())
@settings(max_examples=40, deadline=None)
def test_floor_clearance_is_the_height_of_the_lowest_point(joints):
    low = min(points_of(solid)[:, 2].min() for solid, part in zip(arm_solids(joints, 1.0), PARTS) if part.link)
    found = floor_clearance(part_segments(joints))
    assert low - 0.06 <= found <= low + 1e-9


@pytest.mark.parametrize("seed", [0, 2**40])
def test_the_target_is_within_reach_and_clear_of_the_arm(seed):
    for index in range(100):
        scene, _ = sample(index, seed, views=1)
        arm, ball = solids_of(scene)
        centre, radius = np.array(ball.centre), ball.sizes[0]
        assert radius == pytest.approx(TARGET_RADIUS * SCALE)
        assert centre == pytest.approx(np.array(scene.target) * SCALE)
        assert np.abs(centre[:2]).max() + radius < 3.5
        assert centre[2] - radius >= -1e-9
        assert math.dist(scene.target, (0, 0, D1)) < 0.918 + TARGET_RADIUS
        points = np.concatenate([points_of(solid) for solid in arm])
        assert np.linalg.norm(points - centre, axis=1).min() > radius


@settings(max_examples=50, deadline=None)
@given(indices, seeds)
def test_the_camera_is_never_in_the_arm_the_target_or_a_wall(index, seed):
    scene, cameras = sample(index, seed)
    arm, ball = solids_of(scene)
    assert np.abs(cameras[:, :2]).max() <= 3.3
    assert cameras[:, 2].min() > 0.3
    assert cameras[:, 2].max() < 2.0  # below the top of the walls
    points = np.concatenate([points_of(solid) for solid in (*arm, ball)])
    for camera in cameras:
        assert np.linalg.norm(points - camera[:3], axis=1).min() > 0.4


@settings(max_examples=30, deadline=None)
@given(indices, seeds)
def test_the_cameras_look_at_the_arm_from_all_around(index, seed):
    _, cameras = sample(index, seed, views=60)
    for x, y, z, yaw, pitch in cameras:
        away = math.hypot(x, y)
        assert 3.0 <= away <= 4.4
        # The eye is as high as the walls, and looks down past the arm's axis.
        assert abs(z - 1.2) <= 0.05 + 1e-9
        aside = -x * math.sin(yaw) + y * math.cos(yaw)
        assert abs(aside) <= 0.5 + 1e-9
        assert x * math.cos(yaw) + y * math.sin(yaw) < 0
        assert math.radians(-20.01) <= pitch <= 0
    turns = np.sort(np.arctan2(cameras[:, 1], cameras[:, 0]))
    assert np.diff(turns, append=turns[0] + 2 * math.pi).max() < 1.5


def test_pitch_is_ten_degrees_down_with_a_spread_of_four():
    pitch = np.degrees(np.concatenate([sample(index, views=60)[1][:, 4] for index in range(50)]))
    assert pitch.mean() == pytest.approx(-10, abs=0.3)
    assert pitch.std() == pytest.approx(4, abs=0.3)


def test_dark_pixels_of_the_arm_cover_a_twentieth_of_a_frame():
    """Compare with two real frames: 4.7 and 6.4 %."""
    dark = []
    for index in range(40):
        frames = render_jaco_scene(index, seed=2, split="train", frame_size=64, views=3, supersample=False).frames
        dark += (frames.max(axis=-1) < 62).mean(axis=(1, 2)).tolist()
    assert 0.04 < np.median(dark) < 0.065


def test_nothing_casts_a_shadow():
    scene, cameras = sample(0, views=3)
    bare = replace(scene.room, objects=())
    frames, empty = (render_room(room, cameras, 64, False).astype(int) for room in (scene.room, bare))
    differs = (frames != empty).any(axis=-1)
    drawn = render_room(
        only(scene, [solid for each in scene.room.objects for solid in each.solids]), cameras, 64, False
    )
    assert differs.any()
    assert (drawn[..., 0][differs] > 200).all()


@settings(max_examples=20, deadline=None)
@given(indices, seeds)
def test_frames_are_rendered_from_the_stored_cameras(index, seed):
    scene = render_jaco_scene(index, seed=seed, split="test", frame_size=16, views=3, supersample=False)
    assert scene.cameras.dtype == np.float32
    assert np.abs(scene.cameras[:, :2]).max() <= 3.3 / 3.25
    assert (np.abs(scene.cameras[:, 3]) <= np.float32(math.pi)).all()
    expected, _ = sample_jaco_scene(index, seed=seed, split="test", views=3)
    world = scene.cameras.astype(float) * (3.25, 3.25, 3.25, 1, 1) + (0, 0, 0.78, 0, 0)
    assert (render_room(expected.room, world, 16, False) == scene.frames).all()


def project(points, camera, size):
    """Project points (n, 3) of the world; return columns and rows in pixels, and depths."""
    x, y, z, yaw, pitch = camera
    forward = np.array((math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch)))
    left = np.array((-math.sin(yaw), math.cos(yaw), 0))
    seen = (np.asarray(points) - (x, y, z)) @ np.stack([forward, left, np.cross(forward, left)]).T
    ahead = seen[:, 0]
    return (1 - seen[:, 1] / ahead / TANGENT) * size / 2, (1 - seen[:, 2] / ahead / TANGENT) * size / 2, ahead


def only(scene, solids):
    """Return an unlit green and blue room that contains only some red solids."""
    arm, _ = scene.room.objects
    red = tuple(replace(solid, colour=(1.0, 0.0, 0.0)) for solid in solids)
    return replace(scene.room, objects=(replace(arm, solids=red),), wall="green", floor="blue", light=FLAT)


def red_pixels(frame):
    return np.argwhere((frame[..., 0] > 200) & (frame[..., 1] < 60))[:, ::-1]  # column, row


def finger_joints(joints):
    """Return knuckle, middle and tip (3, 3, 3) of each finger in metres, from published positions and the table."""
    frames, at_home = denavit_hartenberg(joints)[5], denavit_hartenberg(HOME)[5]
    palm = at_home[:3, 3] - (0, 0, D6 - 0.1007)
    found = []
    for angle, at, plane in zip(joints[6:], (math.pi, -0.544, 0.544), (math.pi, -0.236, 0.240)):
        aside = 0.0398 if at == math.pi else 0.0417
        points = [palm + np.array((aside * math.cos(at), aside * math.sin(at), 0))]
        for length, bend in ((0.044, 0.0), (0.042, 0.35)):
            lean = 0.92 - bend - angle  # outwards; a growing angle closes the finger
            out = length * math.sin(lean)
            step = (out * math.cos(plane), out * math.sin(plane), length * math.cos(lean))
            points.append(points[-1] + np.array(step))
        found.append(points)
    moved = np.concatenate([found, np.ones((3, 3, 1))], axis=-1) @ (frames @ np.linalg.inv(at_home)).T
    return moved[..., :3]


@pytest.mark.parametrize("index", [0, 1, 3, 4, 5, 6, 7, 9])  # in the others the hand is above every frame
def test_the_hand_is_drawn_where_camera_and_table_put_it(index):
    size = 256
    scene, cameras = sample(index, views=40)
    arm, _ = solids_of(scene)
    points = finger_joints(scene.joints).reshape(-1, 3) * SCALE
    thick = np.tile((0.0118, 0.0118, 0.0105), 3) * SCALE
    fingers = only(scene, [solid for solid, part in zip(arm, PARTS) if part.link >= 7])
    checked = 0
    for frame, camera in zip(render_room(fingers, cameras, size, False), cameras):
        column, row, ahead = project(points, camera, size)
        reach = thick / (ahead * TANGENT) * size / 2
        box = [(place - reach).min() for place in (column, row)] + [(place + reach).max() for place in (column, row)]
        if not (min(box) > 2 and max(box) < size - 2):
            continue
        found = red_pixels(frame)
        assert [*found.min(axis=0), *(found.max(axis=0) + 1)] == pytest.approx(box, abs=2)
        checked += 1
    assert checked


@pytest.mark.parametrize("index", range(6))
def test_two_views_agree_on_where_the_target_is(index):
    """Check that rays through the target in two frames, from their raw cameras, meet at the target."""
    size = 128
    scene, world = sample(index, views=12)
    _, ball = solids_of(scene)
    frames = render_room(only(scene, [replace(ball, sizes=(0.06,))]), world, size, True)
    raw = render_jaco_scene(index, seed=0, split="train", frame_size=16, views=12, supersample=False).cameras

    origins, rays = [], []
    for frame, (x, y, z, yaw, pitch) in zip(frames, raw.astype(float)):
        found = red_pixels(frame)
        if not len(found) or found.min() == 0 or found.max() == size - 1:
            continue
        column, row = found.mean(axis=0) + 0.5
        left, up = (1 - column / (size / 2)) * TANGENT, (1 - row / (size / 2)) * TANGENT
        forward = np.array((math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch)))
        aside = np.array((-math.sin(yaw), math.cos(yaw), 0))
        ray = forward + left * aside + up * np.cross(forward, aside)
        origins.append(np.array((3.25 * x, 3.25 * y, 3.25 * z + 0.78)))
        rays.append(ray / np.linalg.norm(ray))
    assert len(rays) >= 3
    met = 0
    for one, other in itertools.combinations(range(len(rays)), 2):
        if abs(rays[one] @ rays[other]) > 0.9:
            continue  # nearly parallel: the intersection is inaccurate
        sides = np.stack([rays[one], -rays[other]], axis=1)
        along, *_ = np.linalg.lstsq(sides, origins[other] - origins[one], rcond=None)
        assert origins[one] + along[0] * rays[one] == pytest.approx(np.array(scene.target) * SCALE, abs=0.05)
        met += 1
    assert met


def test_arm_and_target_are_visible_in_nearly_every_frame():
    seen_arm = seen_target = frames = 0
    for index in range(25):
        scene, cameras = sample(index, views=4)
        arm, ball = solids_of(scene)
        both = only(scene, arm)
        frames += 4
        seen_arm += sum(len(red_pixels(frame)) > 60 for frame in render_room(both, cameras, 64, False))
        seen_target += sum(len(red_pixels(frame)) > 4 for frame in render_room(only(scene, [ball]), cameras, 64, False))
    assert seen_arm == frames
    assert seen_target > 0.8 * frames


def test_walls_floors_lights_and_colours_differ_from_scene_to_scene():
    scenes = [sample(index, views=1)[0] for index in range(150)]
    assert {scene.room.wall for scene in scenes} == set(textures.WALLS)
    assert {scene.room.floor for scene in scenes} == set(textures.FLOORS)
    for values in ([scene.room.light.position for scene in scenes], [scene.colour for scene in scenes]):
        assert len(set(values)) == len(scenes)
    assert len({tuple(scene.joints) for scene in scenes}) == len(scenes)


@given(indices, st.integers(1, 10))
@settings(max_examples=20, deadline=None)
def test_more_views_start_with_the_same_ones(index, views):
    few = render_jaco_scene(index, seed=3, split="train", frame_size=16, views=views, supersample=False)
    more = render_jaco_scene(index, seed=3, split="train", frame_size=16, views=11, supersample=False)
    assert (more.cameras[:views] == few.cameras).all()
    assert (more.frames[:views] == few.frames).all()


def test_index_split_and_seed_each_change_the_scene():
    keys = [(0, 0, "train"), (1, 0, "train"), (0, 1, "train"), (0, 0, "test")]
    drawn = {tuple(sample(index, seed, 1, split)[0].joints) for index, seed, split in keys}
    assert len(drawn) == 4
    assert tuple(sample(0, 0, 1, "train")[0].joints) in drawn


@pytest.mark.parametrize("supersample", [False, True])
def test_frames_of_any_size_show_the_same_scene(supersample):
    def render(size):
        scene = render_jaco_scene(5, seed=0, split="train", frame_size=size, views=3, supersample=supersample)
        assert scene.frames.shape == (3, size, size, 3)
        return scene.frames.astype(float)

    small, large = render(32), render(256)
    shrunk = large.reshape(3, 32, 8, 32, 8, 3).mean(axis=(2, 4))
    assert np.abs(small - shrunk).mean() < (4 if supersample else 9)  # one ray per pixel gives jagged edges
    assert np.abs(render(64).mean(axis=(1, 2)) - large.mean(axis=(1, 2))).max() < 3
