"""Lenses against numbers of pycolmap 4.2.1, and the largest frame that a photo fills."""

import math

import numpy as np
import pytest

from gqn_data.errors import PhotosError
from gqn_data.import_photos.colmap_files import PARAMETERS
from gqn_data.import_photos.lens import Lens, lens_of

SIZE = 160, 120

# `Camera.img_from_cam` of two points at depth 1.
POINTS = np.array([(0.1369616873214543, -0.2302132862361297), (-0.4590264760638053, -0.4834723644714709)])
PYCOLMAP = {
    "SIMPLE_PINHOLE": ([150, 80, 60], [(100.544253098, 25.468007065), (11.146028590, -12.520854671)]),
    "PINHOLE": ([150, 155, 80, 60], [(100.544253098, 24.316940633), (11.146028590, -14.938216493)]),
    "SIMPLE_RADIAL": ([150, 81, 60, -0.1], [(101.396834398, 25.715797115), (15.206249085, -9.297659244)]),
    "RADIAL": ([150, 80, 60, -0.1, 0.02], [(100.398950053, 25.712240998), (13.934225576, -9.584169623)]),
    "OPENCV": (
        [150, 152, 79, 61, -0.2, 0.05, 0.003, -0.002],
        [(99.193545374, 26.600985328), (15.526386326, -6.400368843)],
    ),
    "OPENCV_FISHEYE": (
        [80, 82, 80, 60, 0.05, -0.01, 0.003, 0.001],
        [(90.741769055, 41.493215713), (47.085312097, 24.465719546)],
    ),
    "FULL_OPENCV": (
        [150, 150, 80, 60, -0.2, 0.05, 0.001, -0.002, 0.01, 0.02, -0.01, 0.003],
        [(100.184530468, 26.047229739), (16.785089115, -6.374376884)],
    ),
    "SIMPLE_RADIAL_FISHEYE": ([80, 80, 60, 0.04], [(90.734927279, 41.956100755), (47.163057365, 25.414294979)]),
    "RADIAL_FISHEYE": ([80, 80, 60, 0.04, -0.01], [(90.734424911, 41.956945164), (47.201776384, 25.455076017)]),
}


@pytest.mark.parametrize("model", PYCOLMAP)
def test_a_lens_projects_as_pycolmap_does(model):
    parameters, pixels = PYCOLMAP[model]
    keys = dict(zip(PARAMETERS[model], map(float, parameters))) | {"camera_model": model}
    np.testing.assert_allclose(lens_of(keys, SIZE, "here").pixels(POINTS), pixels, atol=1e-8)


def lens(**others):
    return Lens(**{"width": 160, "height": 120, "fx": 150.0, "fy": 150.0, "cx": 80.0, "cy": 60.0, **others})


@pytest.mark.parametrize(
    ("others", "roll", "expected"),
    [
        ({}, 0, 60 / 150),
        ({"width": 120, "height": 160, "cx": 60.0, "cy": 80.0}, 0, 60 / 150),
        ({"cx": 50.0}, 0, 50 / 150),
        ({"cx": 100.0, "cy": 75.0}, 0, 45 / 150),
        ({"fy": 100.0}, 0, 60 / 100 if 60 / 100 < 80 / 150 else 80 / 150),
        ({}, 90, 60 / 150),
        ({}, 45, 60 / 150 / math.sqrt(2)),
        ({"fx": 10.0, "fy": 10.0}, 0, math.tan(math.radians(60))),  # the widest that is made
        ({"cx": -5.0}, 0, 0),
    ],
)
def test_the_largest_frame_ends_at_the_nearest_edge(others, roll, expected):
    assert lens(**others).widest(math.radians(roll)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("radial", [(-0.3,), (-0.9, 0.2), (0.4, 0.1)])
def test_the_largest_frame_of_a_distorted_lens_fills_its_photo_just_so(radial):
    bent = lens(radial=radial)
    half = bent.widest(0.0)
    edge = np.linspace(-half, half, 2001)
    border = np.concatenate([np.stack([edge, 0 * edge - half], -1), np.stack([0 * edge - half, edge], -1)])
    pixels = bent.pixels(border)
    assert pixels.min() > -1e-3
    folds = 1 + 3 * radial[0] * 2 * half**2 + 5 * (radial[1:] or (0,))[0] * 4 * half**4 < 1e-3
    assert pixels[:, 1].min() < 0.05 or folds


def test_a_frame_ends_where_the_polynomial_folds():
    # r (1 - 0.9 r^2) grows up to r = sqrt(1 / 2.7); beyond, what lies outside of the photo would be mapped into it.
    bent = lens(fx=100.0, fy=100.0, radial=(-0.9,))
    assert bent.widest(0.0) == pytest.approx(math.sqrt(1 / 2.7 / 2), abs=1e-5)


def test_angles_stand_for_focal_lengths():
    found = lens_of({"camera_angle_x": math.radians(90)}, SIZE, "here")
    assert (found.fx, found.fy, found.cx, found.cy) == pytest.approx((80, 80, 80, 60))
    found = lens_of({"camera_angle_x": math.radians(90), "camera_angle_y": math.radians(60)}, SIZE, "here")
    assert found.fy == pytest.approx(60 / math.tan(math.radians(30)))


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ({}, "no focal length, expected fl_x"),
        ({"fl_x": float("nan")}, "fl_x is 'nan', expected a finite number"),
        ({"fl_x": "150"}, "fl_x is '150'"),
        ({"fl_x": -150.0}, "focal lengths -150"),
        ({"camera_angle_x": 4.0}, "camera_angle_x is 4, expected radians"),
        ({"fl_x": 150.0, "k1": float("inf")}, "k1 is 'inf'"),
        ({"fl_x": 150.0, "k4": 0.1}, "expected FULL_OPENCV"),
        ({"fl_x": 150.0, "camera_model": "EQUIRECTANGULAR"}, "Undistort the photos first"),
        ({"fl_x": 150.0, "camera_model": "THIN_PRISM_FISHEYE"}, "Undistort the photos first"),
        ({"fl_x": 150.0, "camera_model": ["OPENCV"]}, "expected one of SIMPLE_PINHOLE"),
    ],
)
def test_an_unknown_lens_is_refused(keys, part):
    with pytest.raises(PhotosError, match=r"^here: ") as caught:
        lens_of(keys, SIZE, "here")
    assert part in str(caught.value)
