"""Poses of viser against scipy's rotations, and against the geometry that DeepMind's cameras are defined by."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gqn_data.viewer.poses import camera_at, directions, orientations

angles = st.floats(-3.1, 3.1)
pitches = st.floats(-1.57, 1.57)
signs = st.sampled_from([1, -1])


def axes(camera, sign):
    """Return right, down and forward of a camera, from the definition of yaw and pitch."""
    yaw, pitch = sign * camera[3], camera[4]
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    return right, np.cross(forward, right), forward


@given(angles, pitches, signs)
def test_a_quaternion_turns_the_axes_of_the_camera_to_the_world(yaw, pitch, sign):
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    camera = np.array([1, 2, 3, yaw, pitch])
    matrix = rotation.from_quat(orientations(camera, sign), scalar_first=True).as_matrix()
    for column, axis in enumerate(axes(camera, sign)):
        np.testing.assert_allclose(matrix[:, column], axis, atol=1e-9)


@given(angles, pitches, signs, st.floats(0.1, 9))
def test_a_camera_survives_the_way_to_viser_and_back(yaw, pitch, sign, length):
    camera = np.array([1, -2, 3, yaw, pitch])
    found = camera_at(camera[:3], length * orientations(camera, sign), sign)
    np.testing.assert_allclose(found, camera, atol=1e-6)


@pytest.mark.parametrize("pitch", [np.pi / 2, -np.pi / 2])
def test_the_yaw_of_a_camera_that_looks_straight_up_or_down_survives(pitch):
    camera = np.array([0, 0, 0, 1.25, pitch])
    np.testing.assert_allclose(camera_at(camera[:3], orientations(camera, -1), -1), camera, atol=1e-9)


def test_many_cameras_are_converted_like_one():
    cameras = np.random.default_rng(0).uniform(-1.5, 1.5, (7, 5)).astype(np.float32)
    np.testing.assert_allclose(orientations(cameras, -1), [orientations(camera, -1) for camera in cameras])
    np.testing.assert_allclose(directions(cameras, -1), [axes(camera, -1)[2] for camera in cameras], atol=1e-6)


def test_the_axes_are_those_that_the_plane_sweep_projects_with():
    torch = pytest.importorskip("torch")
    from gqn_data.schema.cameras import poses_of
    from gqn_model.model.plane_sweep import axes as swept

    cameras = np.random.default_rng(1).uniform(-1.5, 1.5, (5, 5)).astype(np.float32)
    rows = swept(torch.from_numpy(poses_of(cameras)), -1).numpy()
    for camera, (forward, right, up) in zip(cameras, rows):
        for found, expected in zip((right, -up, forward), axes(camera, -1)):
            np.testing.assert_allclose(found, expected, atol=1e-5)
