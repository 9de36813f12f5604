"""`cameras.csv`: the five numbers of a camera and its lens."""

import csv
import math

import numpy as np
import pytest
from made_photos import assert_points_land, lens_of, look_at, make_capture, orbit

from gqn_data.errors import PhotosError, SourceMissing
from gqn_data.import_photos import import_photos
from gqn_data.import_photos.readers import read_capture

QUIET = {"log": lambda line: None}


def write_table(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def rows_of(positions, **lens):
    rows = []
    for number, position in enumerate(positions):
        ahead = look_at(position)[2]
        angles = {"yaw": math.atan2(ahead[1], ahead[0]), "pitch": math.asin(ahead[2])}
        rows.append({"image": f"images/{number:03}.png", **dict(zip("xyz", position)), **angles, **lens})
    return rows


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    make_capture(folder, lenses=[lens_of(k1=-0.2)] * 8)
    (folder / "transforms.json").unlink()
    write_table(folder / "cameras.csv", rows_of(orbit(8), fl_x=150.0, k1=-0.2))
    return folder


def test_a_table_gives_the_cameras(photos, tmp_path):
    import_photos(photos, tmp_path / "set", test_every=0, **QUIET)
    assert assert_points_land(tmp_path / "set") >= 12


def test_an_angle_stands_for_the_focal_length(photos):
    write_table(photos / "cameras.csv", rows_of(orbit(8), camera_angle_x=2 * math.atan(80 / 150)))
    lens = read_capture(photos).photos[0].lens
    assert (lens.fx, lens.fy, lens.cx, lens.cy) == pytest.approx((150, 150, 80, 60))


def test_positions_and_angles_are_kept_with_scale_1(photos):
    capture = read_capture(photos)
    np.testing.assert_allclose([photo.position for photo in capture.photos], orbit(8))
    np.testing.assert_allclose(
        [photo.rotation.T for photo in capture.photos], [look_at(at) for at in orbit(8)], atol=1e-12
    )


HEAD = "image,x,y,z,yaw,pitch,fl_x\n"
TABLES = {
    "empty": ("", "no column image"),
    "a header only": (HEAD, "0 rows"),
    "no columns": ("image,x,y\n000.png,1,2\n", "no column z, yaw, pitch"),
    "few cells": (HEAD + "images/000.png,1,2\n", "line 2: 3 cells, expected 7"),
    "few cells below empty lines": (HEAD + "\n\nimages/000.png,1,2\n", "line 4: 3 cells, expected 7"),
    "many cells": (HEAD + "images/000.png,1,2,3,0,0,150,9\n", "line 2: 8 cells, expected 7"),
    "semicolons": (HEAD.replace(",", ";"), "in 'image;x;y;z;yaw;pitch;fl_x', expected image,x,y,z,yaw,pitch"),
    "a repeated column": (HEAD[:-1] + ",x\nimages/000.png,1,2,3,0,0,150,9\n", "a column is repeated"),
    "an unknown column": (HEAD[:-1] + ",roll\nimages/000.png,1,2,3,0,0,150,1\n", "unknown column 'roll'"),
    "a photo twice": (HEAD + "images/000.png,1,2,3,0,0,150\n" * 2, "000.png: listed twice in cameras.csv"),
    "no number": (HEAD + "images/000.png,here,2,3,0,0,150\n", "x is 'here', expected a number"),
    "a hole": (HEAD + "images/000.png,,2,3,0,0,150\n", "x is missing"),
    "NaN": (HEAD + "images/000.png,nan,2,3,0,0,150\n", "x is 'nan', expected a finite number"),
    "degrees": (HEAD + "images/000.png,1,2,3,0,-20,150\n", "pitch -20, expected radians"),
    "no lens": (HEAD + "images/000.png,1,2,3,0,0,\n", "no focal length"),
    "a way out": (HEAD + "/etc/passwd,1,2,3,0,0,150\n", "expected a path inside"),
}


@pytest.mark.parametrize("what", TABLES)
def test_a_faulty_table_is_refused_in_one_line(what, photos):
    text, part = TABLES[what]
    (photos / "cameras.csv").write_text(text)
    with pytest.raises((PhotosError, SourceMissing)) as caught:
        read_capture(photos)
    (line,) = str(caught.value).splitlines()
    assert part in line


def test_a_table_that_is_no_text_is_refused(photos):
    (photos / "cameras.csv").write_bytes(b"image,\xff\xfe\n")
    with pytest.raises(PhotosError, match=r"cameras.csv: .*expected a table with a header, in UTF-8"):
        read_capture(photos)
