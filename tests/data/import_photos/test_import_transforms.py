"""Photos of known points become frames in which the points are where their cameras say."""

import math

import numpy as np
import pytest
from made_photos import POINTS, assert_points_land, lens_of, make_capture, orbit

from gqn_data.dataset import open_dataset
from gqn_data.import_photos import import_photos

QUIET = {"log": lambda line: None}


def turned(axis, degrees):
    """Return the rotation (3, 3) about an axis, by the exponential series."""
    x, y, z = np.array(axis) / np.linalg.norm(axis) * math.radians(degrees)
    step = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    total = term = np.eye(3)
    for order in range(1, 40):
        term = term @ step / order
        total = total + term
    return total


LENSES = {
    "one lens": [lens_of()] * 8,
    "two focal lengths": [lens_of(focal=150), lens_of(focal=210)] * 4,
    "an offset": [lens_of(cx=71.5, cy=66)] * 8,
    "oblong pixels": [lens_of(fl_y=180.0)] * 8,
    "distortion": [lens_of(k1=-0.25, k2=0.06, p1=0.004, p2=-0.003)] * 8,
    "sizes": [lens_of(), lens_of(width=120, height=160)] * 4,
}


@pytest.mark.parametrize("what", LENSES)
def test_a_point_lands_where_the_camera_says(what, tmp_path):
    make_capture(tmp_path / "photos", lenses=LENSES[what])
    done = import_photos(tmp_path / "photos", tmp_path / "set", test_every=0, **QUIET)
    assert assert_points_land(tmp_path / "set", POINTS) >= 12
    assert done.photos == done.views == 8


def test_axes_units_and_origin_of_the_file_do_not_matter(tmp_path):
    turn, shift = turned((1, 2, -0.5), 130), np.array((10.0, -20, 5))
    cameras = make_capture(tmp_path / "photos", turn=turn, scale=7.0, shift=shift)
    done = import_photos(tmp_path / "photos", tmp_path / "set", test_every=0, **QUIET)
    assert assert_points_land(tmp_path / "set", 7.0 * POINTS @ turn.T + shift) >= 12
    positions = np.array([position for position, _ in cameras])
    radius = np.linalg.norm(positions - positions.mean(0), axis=1).max()
    assert done.scales == pytest.approx((1 / radius, 1 / radius))
    scene = open_dataset(tmp_path / "set", "train")[0]
    assert np.linalg.norm(scene.cameras[:, :3], axis=1).max() == pytest.approx(1, abs=1e-6)
    # The cameras of the ring stand at two heights, and the upper ones look down more steeply.
    assert scene.cameras[::2, 2] == pytest.approx([scene.cameras[0, 2]] * 4, abs=1e-4)
    assert scene.cameras[:, 4] == pytest.approx([-math.atan2(height, 2) for height in orbit(8)[:, 2]], abs=1e-4)
