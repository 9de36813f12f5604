"""Shepard-Metzler objects: cubes, cameras, and size in the picture."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gqn_data.render import shepard_metzler
from gqn_data.render.raycast import view_axes
from gqn_data.render.shepard_metzler import render_chain_scene, sample_scene, sphere_to_world

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
def test_the_object_is_rotated_rigidly_about_its_centre(cubes, index, seed):
    chain, _ = sample(cubes, index, seed)
    assert chain.rotation @ chain.rotation.T == pytest.approx(np.eye(3))
    assert np.linalg.det(chain.rotation) == pytest.approx(1)
    centres = np.array([solid.centre for solid in chain.solids])
    assert centres.mean(axis=0) == pytest.approx(np.zeros(3))
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    assert apart == pytest.approx(np.linalg.norm(chain.cells[:, None] - chain.cells[None], axis=-1))
    # In lattice coordinates the next cube is one step along an axis.
    steps = (centres[1] - centres[0]) @ chain.rotation.T
    assert steps == pytest.approx(chain.cells[1] - chain.cells[0])


@settings(max_examples=100, deadline=None)
@given(sizes, indices, seeds)
def test_every_cube_has_a_different_saturated_hue(cubes, index, seed):
    chain, _ = sample(cubes, index, seed)
    assert chain.colours.max(axis=1) == pytest.approx(1)
    assert chain.colours.min(axis=1) == pytest.approx(0)


@settings(max_examples=100, deadline=None)
@given(sizes, indices, seeds)
def test_raw_cameras_lie_on_the_unit_sphere_and_look_at_its_centre(cubes, index, seed):
    scene = render_chain_scene(cubes, index, seed=seed, split="test", frame_size=16, views=3, supersample=False)
    assert scene.cameras.dtype == np.float32
    for x, y, z, yaw, pitch in scene.cameras.astype(float):
        assert math.hypot(x, y, z) == pytest.approx(1, abs=1e-6)
        assert math.cos(yaw - math.atan2(-y, -x)) == pytest.approx(1)
        assert pitch == pytest.approx(-math.asin(max(-1, min(1, z))), abs=1e-3)
        assert view_axes(yaw, pitch).forward == pytest.approx((-x, -y, -z), abs=1e-3)


def test_cameras_are_uniform_over_the_sphere():
    raw = np.concatenate([sample(5, index, views=20)[1] for index in range(200)])
    assert raw[:, :3].mean(axis=0) == pytest.approx(np.zeros(3), abs=0.05)
    assert (raw[:, :3] ** 2).mean(axis=0) == pytest.approx(np.full(3, 1 / 3), abs=0.03)


def test_the_object_fills_half_the_frame_and_is_never_clipped():
    widths = []
    for index in range(40):
        frames = render_chain_scene(7, index, seed=1, split="train", frame_size=64, views=5, supersample=False).frames
        drawn = frames.max(axis=-1) > 0
        assert not drawn[:, [0, -1]].any()
        assert not drawn[:, :, [0, -1]].any()
        widths += [np.ptp(np.flatnonzero(frame.any(axis=0))) + 1 for frame in drawn]
    assert 20 < np.mean(widths) < 36


def test_the_object_is_brighter_from_the_side_of_the_light():
    chain, _ = sample(5, 0)
    towards = np.array(shepard_metzler.LIGHT.position)
    towards /= np.linalg.norm(towards)
    means = []
    for x, y, z in (towards, -towards):
        raw = np.array([(x, y, z, math.atan2(-y, -x), -math.asin(z))])
        frame = shepard_metzler.render_chain(chain, sphere_to_world(raw), 64, True)[0]
        means.append(frame.max(axis=-1)[frame.any(axis=-1)].mean())
    assert means[0] > 1.4 * means[1]


@given(sizes, indices)
@settings(max_examples=20, deadline=None)
def test_more_views_start_with_the_same_ones(cubes, index):
    chain, raw = sample(cubes, index, views=4)
    same, more = sample(cubes, index, views=15)
    assert (chain.cells == same.cells).all()
    assert (chain.rotation == same.rotation).all()
    assert (more[:4] == raw).all()
