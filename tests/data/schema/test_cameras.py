"""Poses of cameras, compared with Python's sine and cosine."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gqn_data.errors import OptionError
from gqn_data.schema.cameras import POSE_NUMBERS, PoseOrder, pose_fields, poses_of
from gqn_data.schema.catalog import CAMERA_FIELDS

NUMBERS = st.floats(-20, 20, width=32)


@settings(deadline=None)
@given(st.lists(st.tuples(*[NUMBERS] * 5), max_size=8))
def test_a_pose_is_x_y_z_sin_yaw_cos_yaw_sin_pitch_cos_pitch(cameras: list[tuple[float, ...]]) -> None:
    poses = poses_of(np.array(cameras, np.float32).reshape(-1, 5))
    assert poses.dtype == np.float32
    assert poses.shape == (len(cameras), POSE_NUMBERS)
    for (x, y, z, yaw, pitch), pose in zip(cameras, poses.tolist()):
        assert pose[:3] == [x, y, z]
        expected = [math.sin(yaw), math.cos(yaw), math.sin(pitch), math.cos(pitch)]
        assert pose[3:] == pytest.approx(expected, abs=3e-7)


@pytest.mark.parametrize("shape", [(5,), (0, 5), (2, 3, 5), (2, 0, 5)])
def test_cameras_may_have_any_leading_shape(shape: tuple[int, ...]) -> None:
    cameras = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    poses = poses_of(cameras)
    assert poses.shape == (*shape[:-1], 7)
    flat = poses_of(cameras.reshape(-1, 5))
    np.testing.assert_array_equal(poses.reshape(-1, 7), flat)


def test_cameras_are_not_modified() -> None:
    cameras = np.arange(10, dtype=np.float32).reshape(2, 5)
    cameras.flags.writeable = False
    poses_of(cameras)
    assert cameras.ravel().tolist() == list(range(10))


@pytest.mark.parametrize("width", [0, 3, 4, 6, 7, 9])
def test_cameras_of_another_width_are_refused(width: int) -> None:
    with pytest.raises(OptionError, match=rf"cameras of {width} numbers, expected 5: x, y, z, yaw, pitch"):
        poses_of(np.zeros((2, width), np.float32))


@pytest.mark.parametrize("fields", [("a",), ("x", "y", "z", "pitch", "yaw"), tuple("abcdefghi")])
def test_the_pose_of_other_cameras_is_the_camera(fields: tuple[str, ...]) -> None:
    cameras = np.random.default_rng(1).normal(size=(2, 3, len(fields))).astype(np.float32)
    assert pose_fields(fields) == fields
    np.testing.assert_array_equal(poses_of(cameras, fields), cameras)
    with pytest.raises(OptionError, match=f"expected {len(fields)}: {', '.join(fields)}"):
        poses_of(cameras[..., :-1], fields)


@settings(deadline=None)
@given(st.lists(st.tuples(*[NUMBERS] * 5), min_size=1, max_size=8))
def test_poses_may_have_cosines_first_or_be_raw(
    cameras: list[tuple[float, ...]],
) -> None:
    given_cameras = np.array(cameras, np.float32)
    assert pose_fields(CAMERA_FIELDS, "cos_first") == ("x", "y", "z", "cos yaw", "sin yaw", "cos pitch", "sin pitch")
    for (x, y, z, yaw, pitch), pose in zip(cameras, poses_of(given_cameras, order="cos_first").tolist(), strict=True):
        expected = [x, y, z, math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)]
        assert pose == pytest.approx(expected, abs=3e-7)
    assert pose_fields(CAMERA_FIELDS, "raw") == CAMERA_FIELDS
    np.testing.assert_array_equal(poses_of(given_cameras, order="raw"), given_cameras)


@pytest.mark.parametrize("order", ["sin_first", "cos_first", "raw"])
def test_the_order_does_not_affect_other_cameras(order: PoseOrder) -> None:
    fields = tuple("abcdefghi")
    cameras = np.random.default_rng(1).normal(size=(2, 9)).astype(np.float32)
    assert pose_fields(fields, order) == fields
    np.testing.assert_array_equal(poses_of(cameras, fields, order), cameras)


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(OptionError, match="poses is 'tan_first', expected sin_first, cos_first or raw"):
        pose_fields(CAMERA_FIELDS, "tan_first")  # type: ignore[arg-type]
