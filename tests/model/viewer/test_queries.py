"""Sliders, recorded cameras and ranges of a viewer, against cameras whose place is known by construction."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gqn_data.viewer.poses import directions
from gqn_model.viewer.controls import Controls
from gqn_model.viewer.recorded import Range, Recorded


def ring(views=40, radius=2.0, height=0.5, sign=1, seed=0):
    """Return cameras on a ring about (1, -1, 0) that look at it, at random angles."""
    angles = np.random.default_rng(seed).uniform(0, 2 * math.pi, views)
    x, y = 1 + radius * np.cos(angles), -1 + radius * np.sin(angles)
    yaw = np.arctan2(-np.sin(angles), -np.cos(angles))
    pitch = np.full(views, math.atan2(-height, radius))
    return np.stack([x, y, np.full(views, height), sign * yaw, pitch], 1)


def maze(views=60):
    """Return cameras at random places of a square that look in all directions, level."""
    rng = np.random.default_rng(0)
    places, yaws = rng.uniform(-1, 1, (views, 2)), rng.uniform(-math.pi, math.pi, views)
    return np.column_stack([places, np.full(views, 0.1), yaws, np.zeros(views)])


@pytest.mark.parametrize("sign", [1, -1])
def test_cameras_on_a_ring_get_one_slider_around_it(sign):
    controls = Controls.of(ring(sign=sign), sign)
    assert controls.kind == "orbit"
    assert [slider.name for slider in controls.sliders] == ["angle"]
    np.testing.assert_allclose(controls.focus, [1, -1, 0], atol=1e-6)


@given(st.floats(-180, 180), st.sampled_from([1, -1]))
def test_the_slider_of_a_ring_stays_on_it_and_looks_at_its_middle(angle, sign):
    camera = Controls.of(ring(sign=sign), sign).camera([angle])
    offset = camera[:3] - [1, -1, 0]
    assert math.hypot(offset[0], offset[1]) == pytest.approx(2, abs=1e-6)
    assert camera[2] == pytest.approx(0.5, abs=1e-6)
    np.testing.assert_allclose(
        offset[:2] / 2, [math.cos(math.radians(angle)), math.sin(math.radians(angle))], atol=1e-6
    )
    np.testing.assert_allclose(directions(camera, sign), -offset / np.linalg.norm(offset), atol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_sliders_start_at_the_first_recorded_camera(sign):
    for cameras in (ring(sign=sign), maze()):
        controls = Controls.of(cameras, sign)
        found = controls.camera([slider.value for slider in controls.sliders])
        np.testing.assert_allclose(found, cameras[0], atol=1e-6)


def test_cameras_in_a_maze_get_sliders_for_what_varies():
    controls = Controls.of(maze(), 1)
    assert controls.kind == "walk"
    assert [slider.name for slider in controls.sliders] == ["x", "y", "yaw"]
    np.testing.assert_allclose(controls.camera([0.2, 0.3, 90])[[0, 1, 3, 4]], [0.2, 0.3, math.pi / 2, 0])


def test_the_nearest_camera_is_found_with_its_distance_and_angle():
    cameras = np.array([[0, 0, 0, 0, 0], [4, 0, 0, 0, 0], [0, 4, 0, 0, 0]], float)
    near = Recorded(cameras, 1).nearest(np.array([3.5, 0, 0, math.radians(10), 0]))
    assert (near.view, near.is_same) == (1, False)
    assert near.moved == pytest.approx(0.5)
    assert math.degrees(near.turned) == pytest.approx(10)
    assert Recorded(cameras, 1).nearest(cameras[2]).is_same


def test_directions_count_as_well_as_places():
    cameras = np.array([[0, 0, 0, 0, 0], [0.4, 0, 0, math.pi, 0], [4, 0, 0, 0, 0]])
    assert Recorded(cameras, 1).nearest(np.array([0.4, 0, 0, 0, 0])).view == 0


@pytest.mark.parametrize("jitter", [0, 1e-7])
def test_cameras_that_all_scenes_share_are_not_outside(jitter):
    noise = np.random.default_rng(0).normal(0, jitter, (40, 5))
    cameras = ring(8)
    among = Range(np.tile(cameras, (5, 1)) + noise, 1)
    for camera in cameras.astype(np.float32) + 1e-6:  # as a slider's rounding
        assert among.outside(camera) == ""
    assert among.outside(cameras[0] + [0, 0, 99, 0, 0])
    alone = Range(np.tile(cameras[:1], (5, 1)), 1)
    assert alone.outside(cameras[0] + 1e-6) == ""
    assert alone.outside(cameras[1])


def test_the_range_of_a_ring_is_the_ring_and_not_the_box_about_it():
    among = Range(ring(300), 1)
    for camera in ring(20, seed=1):
        assert among.outside(camera) == ""
    middle = np.array([1, -1, 0.5, 0, 0])
    assert "units and" in among.outside(middle)
    turned = ring(1)[0] + [0, 0, 0, math.pi, 0]
    assert "degrees from the nearest" in among.outside(turned)
    assert among.outside(ring(1)[0] + [0, 0, 3, 0, 0])
