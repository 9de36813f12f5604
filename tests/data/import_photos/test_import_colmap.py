"""COLMAP models, binary and text, written here by the letter of its documentation."""

import shutil
import struct

import numpy as np
import pytest
from made_photos import POINTS, assert_points_land, lens_of, make_capture, orbit, write_colmap

from gqn_data.dataset import open_dataset
from gqn_data.errors import PhotosError, SourceMissing
from gqn_data.import_photos import import_photos
from gqn_data.import_photos.readers import capture_folders, read_capture

QUIET = {"log": lambda line: None}
LENSES = [lens_of(k1=-0.2, k2=0.05, p1=0.003, p2=-0.002), lens_of(focal=200)] * 4


def made(folder, *, binary):
    cameras = make_capture(folder, lenses=LENSES)
    (folder / "transforms.json").unlink()
    write_colmap(folder, cameras, LENSES, POINTS, binary=binary)
    return folder


@pytest.fixture(params=[True, False], ids=["binary", "text"])
def photos(request, tmp_path):
    return made(tmp_path / "photos", binary=request.param)


def test_a_model_gives_the_cameras_and_the_depths(photos, tmp_path):
    done = import_photos(photos, tmp_path / "set", test_every=0, up="z", **QUIET)
    assert assert_points_land(tmp_path / "set") >= 12
    # All points are seen by all cameras of the ring; one in a hundred depths is left out at each end.
    depths = [
        float(np.dot(point - position, -position) / np.linalg.norm(position))
        for position in orbit(8)
        for point in POINTS
    ]
    expected = np.percentile(depths, (1, 99)) * done.scales[0]
    assert done.depth_range == pytest.approx(tuple(expected))


@pytest.mark.parametrize("points", [[], POINTS[:1], [POINTS[0]] * 2, [np.full(3, np.nan)] * 9, [(1e300, 0, 0)] * 9])
def test_points_that_tell_no_depths_are_left_to_the_cameras(points, tmp_path):
    cameras = make_capture(tmp_path / "photos", positions=orbit(3))
    import_photos(tmp_path / "photos", tmp_path / "plain", test_every=0, **QUIET)
    (tmp_path / "photos" / "transforms.json").unlink()
    write_colmap(tmp_path / "photos", cameras, [lens_of()] * 3, points, binary=True)
    done = import_photos(tmp_path / "photos", tmp_path / "set", test_every=0, **QUIET)
    expected = open_dataset(tmp_path / "plain").manifest.geometry.depth_range
    assert done.depth_range == pytest.approx(expected, rel=1e-4)
    assert "guessed" in done.depths_from


@pytest.mark.parametrize("place", ["sparse", "colmap/sparse/0", "."])
def test_a_model_is_found_in_its_usual_places(place, photos):
    moved = photos / place
    moved.mkdir(parents=True, exist_ok=True)
    for path in sorted((photos / "sparse" / "0").iterdir()):
        path.rename(moved / path.name)
    assert capture_folders(photos.parent, print) == [photos]
    assert len(read_capture(photos).photos) == 8


def test_the_largest_of_several_models_is_taken(photos):
    small = photos / "sparse" / "1"
    shutil.copytree(photos / "sparse" / "0", small)
    for path in (small / "images.bin", small / "images.txt"):
        if path.exists():
            path.write_bytes(struct.pack("<Q", 0) if path.suffix == ".bin" else b"# none\n")
    assert len(read_capture(photos).photos) == 8
    (photos / "sparse" / "0").rename(photos / "sparse" / "10")
    assert len(read_capture(photos).photos) == 8


def test_photos_may_lie_beside_the_model_and_in_folders(photos):
    for path in sorted((photos / "images").iterdir()):
        path.rename(photos / path.name)
    (photos / "images").rmdir()
    assert [photo.path.name for photo in read_capture(photos).photos[:2]] == ["000.png", "001.png"]


def test_a_binary_model_cut_short_is_refused_at_every_byte(tmp_path):
    folder = made(tmp_path / "photos", binary=True)
    for name in ("cameras.bin", "images.bin", "points3D.bin"):
        path = folder / "sparse" / "0" / name
        whole = path.read_bytes()
        for length in range(0, len(whole) - 1, 7):
            path.write_bytes(whole[:length])
            with pytest.raises(PhotosError, match=rf"{name}: before byte \d+: the file ends within a row"):
                read_capture(folder)
        path.write_bytes(whole)


def refused(folder):
    with pytest.raises(PhotosError) as caught:
        read_capture(folder)
    (line,) = str(caught.value).splitlines()
    assert str(folder) in line
    assert len(line) < 600
    return line


TEXTS = {
    "an unknown model": ("cameras", "1 FOV 160 120 150 150 80 60 0.9\n", "model 'FOV', expected one of"),
    "few parameters": ("cameras", "1 OPENCV 160 120 150 150 80 60\n", "4 parameters, expected 8 of OPENCV"),
    "no number": ("cameras", "one OPENCV 160 120 150\n", "invalid literal"),
    "NaN in a lens": ("cameras", "1 PINHOLE 160 120 nan 150 80 60\n", "fl_x is 'nan'"),
    "no size": ("cameras", "1 PINHOLE 0 120 150 150 80 60\n", "0x120 pixels"),
    "no images": ("images", "# none\n", "no images"),
    "NaN in a pose": ("images", "1 1 0 0 0 nan 0 0 1 000.png\n\n", "NaN, infinity or numbers above 1e9"),
    "no rotation": ("images", "1 0.5 0 0 0 0 0 0 1 000.png\n\n", "the matrix is not rigid"),
    "an absent camera": ("images", "1 1 0 0 0 0 0 0 99 000.png\n\n", "camera 99 is not among those"),
    "a way out": ("images", "1 1 0 0 0 0 0 0 1 ../../x.png\n\n", "without '..'"),
    "few numbers": ("images", "1 1 0 0 0\n\n", "an image of 2 numbers"),
    "a long line": ("images", "1 1 0 0 0 0 0 0 1 000.png\n" + "1 " * (33 << 20) + "\n", "a line of more than"),
    "a photo twice": ("images", "1 1 0 0 0 0 0 0 1 000.png\n\n2 1 0 0 0 0 0 0 1 000.png\n\n", "listed twice"),
    "an image twice": ("images", "1 1 0 0 0 0 0 0 1 000.png\n\n" * 2, "a second row of number 1"),
    "a camera twice": ("cameras", "1 PINHOLE 160 120 150 150 80 60\n" * 2, "a second row of number 1"),
    "a size of 4,000 digits": ("cameras", f"1 PINHOLE {'9' * 4000} 1 1 1 1 1\n", "a number of 4000 digits"),
    "a short point": ("points3D", "1 0 0\n", "not enough values"),
}


@pytest.mark.parametrize("what", TEXTS)
def test_a_faulty_text_model_is_refused_in_one_line(what, tmp_path):
    folder = made(tmp_path / "photos", binary=False)
    name, text, part = TEXTS[what]
    (folder / "sparse" / "0" / f"{name}.txt").write_text(text)
    assert part in refused(folder)


@pytest.mark.parametrize(
    ("name", "data", "part"),
    [
        ("cameras", struct.pack("<Q", 1 << 60), "the file ends within a row"),
        ("cameras", struct.pack("<QIiQQ", 1, 1, 77, 160, 120), "unknown model 77"),
        ("images", struct.pack("<QI7dI", 1, 1, 1, 0, 0, 0, 0, 0, 0, 1) + b"a" * 8000, "a name of more than 4096 bytes"),
        ("images", struct.pack("<QI7dI", 1, 1, 1, 0, 0, 0, 0, 0, 0, 1) + b"\xff\0" + b"\0" * 8, "utf-8"),
        ("images", struct.pack("<QI7dI", 1, 1, 1, 0, 0, 0, 0, 0, 0, 1) + b"a\0" + b"\xff" * 8, "the file ends within"),
    ],
)
def test_counts_and_names_of_a_binary_model_are_not_believed(name, data, part, tmp_path):
    folder = made(tmp_path / "photos", binary=True)
    (folder / "sparse" / "0" / f"{name}.bin").write_bytes(data)
    assert part in refused(folder)


def test_an_absent_photo_of_a_model_is_named(photos):
    (photos / "images" / "003.png").unlink()
    with pytest.raises(SourceMissing, match=r"image 4: photo '003.png' is missing"):
        read_capture(photos)
