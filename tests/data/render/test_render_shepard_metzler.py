"""Shepard-Metzler objects: cubes, cameras, and size in the picture."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tfrecord.reader import tfrecord_loader

from gqn_data.render import shepard_metzler
from gqn_data.render.raycast import view_axes
from gqn_data.render.shepard_metzler import render_chain_scene, sample_scene, sphere_to_world

NUMBERS = {"frames": "byte", "cameras": "float"}
REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "shepard_metzler_5_parts"

seeds = st.integers(0, 2**40)
indices = st.integers(0, 10**7)
sizes = st.sampled_from((5, 7))


def sample(cubes, index, seed=0, views=15):
    return sample_scene(cubes, index, seed=seed, split="train", views=views)


@settings(max_examples=200, deadline=None)
@given(sizes, indices, seeds)
def test_the_cubes_never_overlap_and_each_shares_a_face_with_the_next(cubes, index, seed):
    chain, _ = sample(cubes, index, seed)
    assert len({tuple(cell) for cell in chain.cells.tolist()}) == cubes
    assert (np.abs(np.diff(chain.cells, axis=0)).sum(axis=1) == 1).all()


@settings(max_examples=100, deadline=None)
@given(sizes, indices, seeds)
def test_cubes_lie_on_the_lattice_with_their_bounding_box_centred(cubes, index, seed):
    chain, _ = sample(cubes, index, seed)
    centres = np.array([solid.centre for solid in chain.solids])
    assert centres.min(axis=0) == pytest.approx(-centres.max(axis=0))
    assert centres - centres[0] == pytest.approx(chain.cells - chain.cells[0])
    assert all((solid.rotation == np.eye(3)).all() for solid in chain.solids)


@settings(max_examples=100, deadline=None)
@given(sizes, indices, seeds)
def test_every_cube_has_a_different_saturated_hue(cubes, index, seed):
    chain, _ = sample(cubes, index, seed)
    assert chain.colours.max(axis=1) == pytest.approx(1)
    assert chain.colours.min(axis=1) == pytest.approx(0)


@settings(max_examples=100, deadline=None)
@given(sizes, indices, seeds)
def test_raw_cameras_lie_on_their_sphere_and_grids_and_face_its_centre(cubes, index, seed):
    scene = render_chain_scene(cubes, index, seed=seed, split="test", frame_size=16, views=3, supersample=False)
    assert scene.cameras.dtype == np.float32
    for x, y, z, yaw, pitch in scene.cameras.astype(float):
        assert math.hypot(x, y, z) == pytest.approx(10 / 3, abs=1e-6)
        assert math.cos(yaw - math.atan2(y, -x)) == pytest.approx(1)
        steps = yaw / (2 * math.pi / 100), pitch / (math.pi / 100)
        assert steps == pytest.approx([round(step) for step in steps], abs=1e-4)
        assert 0 <= round(steps[0]) < 100
        assert abs(round(steps[1])) <= 49
        # The direction of view of this set: yaw is clockwise seen from above.
        forward = math.cos(yaw) * math.cos(pitch), -math.sin(yaw) * math.cos(pitch), math.sin(pitch)
        assert forward == pytest.approx((-0.3 * x, -0.3 * y, -0.3 * z), abs=1e-5)
    for raw, world in zip(scene.cameras.astype(float), sphere_to_world(scene.cameras.astype(float))):
        assert view_axes(world[3], world[4]).forward == pytest.approx(-0.3 * raw[:3], abs=1e-5)
        assert np.linalg.norm(world[:3]) == pytest.approx(17.5, abs=1e-4)


def test_cameras_are_uniform_in_both_angles():
    raw = np.concatenate([sample(5, index, views=20)[1] for index in range(200)])
    for angles, values in ((raw[:, 3] / (2 * math.pi / 100), 100), (raw[:, 4] / (math.pi / 100) + 49, 99)):
        counts = np.bincount(np.rint(angles).astype(int), minlength=values)
        assert len(counts) == values
        assert counts.min() > 0
        assert ((counts - len(raw) / values) ** 2).sum() / (len(raw) / values) < 150  # chi squared of about 99


@pytest.mark.parametrize("raw_yaw", [0.0, 1.0, 2.0, 3.1, 4.2, 6.0])  # the black cube hides the other from 5.2
def test_a_cube_projects_where_the_formulas_say(raw_yaw):
    """Project the centre of a cube off the middle by a plain pinhole camera."""
    pitch = 0.3
    forward = np.array([math.cos(raw_yaw) * math.cos(pitch), -math.sin(raw_yaw) * math.cos(pitch), math.sin(pitch)])
    camera = np.array([(*(-10 / 3 * forward), raw_yaw, pitch)])
    cells = np.array([(0, 0, 0), (2, 3, 1)])
    colours = np.array([(0, 0, 0), (1, 0, 0)], dtype=float)
    unlit = shepard_metzler.LIGHT._replace(sheen=0.0)
    chain = shepard_metzler.CubeChain(cells=cells, colours=colours)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shepard_metzler, "LIGHT", unlit)
        frame = shepard_metzler.render_chain(chain, sphere_to_world(camera), 512, False)[0]
    rows, columns = np.nonzero(frame[..., 0])
    edge = 10 / 3 / 17.5  # raw
    centre = (np.array((2, 3, 1)) - (1, 1.5, 0.5)) * edge
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    from_eye = centre - camera[0, :3]
    scale = 256 / math.tan(math.radians(22.5) / 2) / (from_eye @ forward)
    expected = 256 + scale * (from_eye @ right), 256 - scale * (from_eye @ up)
    assert (columns.mean(), rows.mean()) == pytest.approx(expected, abs=12)  # a cube is 73 px wide


def test_the_middle_of_the_object_is_the_middle_of_the_frame():
    box = shepard_metzler.CubeChain(cells=np.array([(1, 1, 1)]), colours=np.ones((1, 3)))
    raw = np.concatenate([sample(5, index, views=20)[1] for index in range(5)])
    for frame in shepard_metzler.render_chain(box, sphere_to_world(raw), 65, False):
        rows, columns = np.nonzero(frame.max(axis=-1))
        assert (rows.mean(), columns.mean()) == pytest.approx((32, 32), abs=0.5)


# Cells of the cubes of the two real scenes, in the order of the records (read off their frames by a visual hull).
REAL_CELLS = (
    ((1, 1, 1), (1, 1, 2), (0, 0, 0), (1, 0, 0), (1, 1, 0)),
    ((0, 1, 1), (1, 1, 0), (1, 1, 1), (0, 0, 1), (1, 0, 0)),
)


def hues_of(frames, cells, raw):
    """Return the saturated colour of each cube, as the median over its real pixels."""
    marks = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1)], dtype=float)
    flat = shepard_metzler.LIGHT._replace(ambient=1.0, fill=0.0, diffuse=0.0, sheen=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shepard_metzler, "LIGHT", flat)
        chain = shepard_metzler.CubeChain(cells=cells, colours=marks)
        which = shepard_metzler.render_chain(chain, sphere_to_world(raw), 64, False)
    colours = []
    for mark in marks:
        pixels = frames[(which == (mark * 255).astype(np.uint8)).all(axis=-1)].astype(float)
        pixels = pixels[pixels.max(axis=1) > 60]
        low, high = pixels.min(axis=1, keepdims=True), pixels.max(axis=1, keepdims=True)
        hue = np.median((pixels - low) / (high - low), axis=0)
        colours.append((hue - hue.min()) / (hue.max() - hue.min()))
    return np.array(colours)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"real scenes are absent: {REAL}")
@pytest.mark.parametrize("index", [0, 1])
def test_a_real_scene_is_rendered_again_from_its_cameras(index):
    records = list(tfrecord_loader(str(REAL / "train" / "001-of-900.tfrecord"), None, NUMBERS))
    frames = np.array([np.asarray(Image.open(io.BytesIO(bytes(frame)))) for frame in records[index]["frames"]])
    raw = records[index]["cameras"].reshape(-1, 5).astype(float)
    cells = np.array(REAL_CELLS[index])
    chain = shepard_metzler.CubeChain(cells=cells, colours=hues_of(frames, cells, raw))
    ours = shepard_metzler.render_chain(chain, sphere_to_world(raw), 64, False)
    assert np.abs(ours.astype(float) - frames).mean() < 3.5  # 11.8 and 16.5 with the camera's convention before


def test_the_object_fills_half_the_frame_and_is_never_clipped():
    widths, covered = [], []
    for index in range(40):
        frames = render_chain_scene(7, index, seed=1, split="train", frame_size=64, views=5, supersample=False).frames
        drawn = frames.max(axis=-1) > 0
        assert not drawn[:, [0, -1]].any()
        assert not drawn[:, :, [0, -1]].any()
        covered.append(drawn.mean())
        widths += [np.ptp(np.flatnonzero(frame.any(axis=0))) + 1 for frame in drawn]
    assert 20 < np.mean(widths) < 36
    assert 0.11 < np.mean(covered) < 0.17  # real, 20 frames: 0.156


def test_the_object_is_brighter_from_the_side_of_the_light():
    chain, _ = sample(5, 0)
    towards = np.array(shepard_metzler.LIGHT.position)
    towards /= np.linalg.norm(towards)
    means = []
    for x, y, z in (towards, -towards):
        raw = np.array([(x * 10 / 3, y * 10 / 3, z * 10 / 3, math.atan2(y, -x), -math.asin(z))])
        frame = shepard_metzler.render_chain(chain, sphere_to_world(raw), 64, True)[0]
        means.append(frame.max(axis=-1)[frame.any(axis=-1)].mean())
    assert means[0] > 1.4 * means[1]


@given(sizes, indices)
@settings(max_examples=20, deadline=None)
def test_more_views_start_with_the_same_ones(cubes, index):
    chain, raw = sample(cubes, index, views=4)
    same, more = sample(cubes, index, views=15)
    assert (chain.cells == same.cells).all()
    assert (more[:4] == raw).all()
