"""Importing photos: roll, up, units, splits, EXIF, bad input, and the command."""

import json
import math
import os

import numpy as np
import pytest
from click.testing import CliRunner
from made_photos import POINTS, assert_points_land, lens_of, look_at, make_capture, orbit
from PIL import Image, ImageOps

from gqn_data.cli import main
from gqn_data.dataset import open_dataset
from gqn_data.errors import DestinationError, GQNError, OptionError, PhotosError, SourceMissing
from gqn_data.import_photos import import_photos
from gqn_data.import_photos.world import estimate_up, pose_of

LINES: list[str] = []


def run(folder, out, **options):
    LINES.clear()
    return import_photos(folder, out, **{"test_every": 0, "log": LINES.append, **options})


# Roll and up.


def test_a_small_roll_is_turned_out_of_the_photo(tmp_path):
    make_capture(tmp_path / "photos", rolls=[0, 3, -4, 2, 0, 0, 0, -3])
    done = run(tmp_path / "photos", tmp_path / "set", up="z")
    assert done.max_roll == pytest.approx(4)
    assert assert_points_land(tmp_path / "set") >= 12


def test_a_large_roll_is_refused_dropped_or_levelled(tmp_path):
    make_capture(tmp_path / "photos", rolls=[0, 0, 0, 90, 0, 0, 30, 0])
    with pytest.raises(PhotosError, match=r"003.png: the camera is turned about its axis by 90.0 degrees"):
        run(tmp_path / "photos", tmp_path / "set", up="z")
    assert not (tmp_path / "set").exists()
    done = run(tmp_path / "photos", tmp_path / "set", roll="drop")
    assert (done.photos, done.dropped, done.views) == (8, 2, 6)
    assert "2 photos dropped" in LINES[0]
    assert assert_points_land(tmp_path / "set") >= 12
    done = run(tmp_path / "photos", tmp_path / "level", roll="level", up="z")
    assert (done.dropped, done.views) == (0, 8)
    assert done.max_roll == pytest.approx(90, abs=0.01)
    assert done.limited_by.endswith("006.png")  # a turned square needs more of the photo
    assert assert_points_land(tmp_path / "level") >= 12


@pytest.mark.parametrize("pitch", [0, 0.5, -1.2])
@pytest.mark.parametrize("yaw", [-3.0, -1.0, 0.0, 0.2, 2.5])
def test_yaw_pitch_and_roll_come_back(yaw, pitch):
    target = (math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch))
    for roll in (0, 4, -170):
        found = pose_of(look_at((0, 0, 0), roll, target).T)
        assert found == pytest.approx((yaw, pitch, math.radians(roll)), abs=1e-9)


def test_a_camera_that_looks_straight_down_has_a_yaw():
    down = np.array([(0.6, 0.8, 0), (0.8, -0.6, 0), (0, 0, -1.0)])  # right, down, forward
    yaw, pitch, roll = pose_of(down.T)
    assert (pitch, roll) == (-math.pi / 2, 0)
    np.testing.assert_allclose((math.sin(yaw), -math.cos(yaw)), (0.6, 0.8))


@pytest.mark.parametrize("height", [0.0, 1.0, 4.0])
def test_up_is_estimated_from_cameras_of_any_pitch(height):
    # Cameras on half of a ring: the mean of their own up leans forwards, their right axes do not.
    positions = orbit(16, heights=(height, height + 0.5))[:8]
    rotations = np.stack([look_at(position, roll).T for position, roll in zip(positions, [0, 0, 0, 0, 0, 0, 0, 25])])
    up = estimate_up(rotations)
    assert math.degrees(math.acos(min(1, up[2]))) < 1


def test_up_of_cameras_that_look_one_way_is_theirs():
    rotations = np.stack([look_at((x, -3, 0), target=(x, 0, 0)).T for x in (0.0, 0.5, 1.0)])
    np.testing.assert_allclose(estimate_up(rotations), (0, 0, 1), atol=1e-9)


def test_up_can_be_given(tmp_path):
    turn = np.array([(1.0, 0, 0), (0, 0, 1), (0, -1, 0)])  # z of the scene is -y of the file
    make_capture(tmp_path / "photos", turn=turn)
    run(tmp_path / "photos", tmp_path / "set", up="z" if turn[2, 2] else "y")
    assert assert_points_land(tmp_path / "set", POINTS @ turn.T) >= 12
    with pytest.raises(PhotosError, match="turned about its axis"):
        run(tmp_path / "photos", tmp_path / "other", up="x")


# Units and depths.


def test_positions_get_a_factor_per_place_of_the_set_or_as_given(tmp_path):
    for number, scale in enumerate((1.0, 5.0)):
        make_capture(tmp_path / "photos" / f"{number}", scale=scale)
    radius = max(np.linalg.norm(orbit(8) - orbit(8).mean(0), axis=1))
    wanted = {"scene": (1 / 5, 1), "set": (1 / 5, 1 / 5), 0.5: (radius / 2, radius / 2)}
    for number, (option, factors) in enumerate(wanted.items()):
        done = run(tmp_path / "photos", tmp_path / f"set{number}", scale=option)
        assert done.scales == pytest.approx([factor / radius for factor in factors])
        manifest = open_dataset(tmp_path / f"set{number}").manifest
        places = manifest.origin.details["captures"]
        assert [place["folder"] for place in places] == ["0", "1"]
        assert (min(done.scales), max(done.scales)) == done.scales
        for place, scene, scale in zip(places, open_dataset(tmp_path / f"set{number}"), (1, 5)):
            matrix = np.array(place["matrix"])
            moved = scale * orbit(8) @ matrix[:, :3].T + matrix[:, 3]
            np.testing.assert_allclose(scene.cameras[:, :3], moved, atol=1e-5)


def test_the_depth_range_surrounds_what_the_cameras_look_at(tmp_path):
    make_capture(tmp_path / "photos")
    done = run(tmp_path / "photos", tmp_path / "set")
    distances = np.linalg.norm(orbit(8), axis=1) * done.scales[0]
    assert 0 < done.depth_range[0] < distances.min() < distances.max() < done.depth_range[1]
    given = run(tmp_path / "photos", tmp_path / "given", depth_range=(1.0, 3.0))
    assert given.depth_range == pytest.approx((done.scales[0], 3 * done.scales[0]))
    assert open_dataset(tmp_path / "given").manifest.geometry.depth_range == given.depth_range


def test_depths_of_cameras_that_look_nowhere_in_common_follow_their_spread(tmp_path):
    make_capture(tmp_path / "photos")
    table = json.loads((tmp_path / "photos" / "transforms.json").read_text())
    for number, frame in enumerate(table["frames"]):
        frame["transform_matrix"] = np.array(
            [(1, 0, 0, number), (0, 0, -1, 0), (0, 1, 0, 0), (0, 0, 0, 1)], float
        ).tolist()
    (tmp_path / "photos" / "transforms.json").write_text(json.dumps(table))
    done = run(tmp_path / "photos", tmp_path / "set", scale=2)  # seven units long, twice as large in the dataset
    assert done.depth_range == pytest.approx((0.7, 28))
    assert "guessed" in done.depths_from


def test_a_smaller_field_of_view_can_be_asked_for(tmp_path):
    make_capture(tmp_path / "photos")
    done = run(tmp_path / "photos", tmp_path / "set", field_of_view=30)
    assert done.field_of_view == pytest.approx(30)
    assert assert_points_land(tmp_path / "set") >= 12
    with pytest.raises(OptionError, match=r"field_of_view is 60, expected at most 43.60 degrees"):
        run(tmp_path / "photos", tmp_path / "other", field_of_view=60)


# Scenes and splits.


def test_one_place_is_cut_into_scenes_that_share_no_photo(tmp_path):
    make_capture(tmp_path / "photos", positions=orbit(36))
    done = run(tmp_path / "photos", tmp_path / "set", views=5, test_every=3)
    assert done.scenes == {"train": 5, "test": 2}
    yaws = [scene.cameras[:, 3] for split in ("train", "test") for scene in open_dataset(tmp_path / "set", split)]
    assert len({round(float(yaw), 5) for scene in yaws for yaw in scene}) == 35
    for scene in yaws:  # each is spread over all of the ring
        assert max(np.diff(np.sort(np.mod(scene, 2 * math.pi)))) < 2 * 2 * math.pi / 5


def test_scenes_of_one_place_belong_to_one_split(tmp_path):
    for number in range(4):
        make_capture(tmp_path / "photos" / f"{number}", positions=orbit(6 + number % 2))
    assert run(tmp_path / "photos", tmp_path / "all").views == 6
    done = run(tmp_path / "photos", tmp_path / "set", views=3, test_every=2)
    assert done.scenes == {"train": 4, "test": 4}
    assert run(tmp_path / "photos", tmp_path / "last", test_every=9).scenes == {"train": 3, "test": 1}
    with pytest.raises(OptionError, match=r"6 photos, expected 7 or more; pass views=6"):
        run(tmp_path / "photos", tmp_path / "many", views=7)
    with pytest.raises(OptionError, match=r"test_every is 1, expected 0, or 2 or more"):
        run(tmp_path / "photos", tmp_path / "none", test_every=1)


def test_too_little_to_learn_from_is_said(tmp_path):
    make_capture(tmp_path / "photos", positions=orbit(20))
    assert run(tmp_path / "photos", tmp_path / "set").views == 10
    assert any("cut into scenes of 10 views" in line for line in LINES)
    assert any("2 training scenes: too few to learn from" in line for line in LINES)
    assert any("no test scenes" in line for line in LINES)


def test_what_is_left_out_or_odd_is_said(tmp_path):
    for number in range(3):
        make_capture(tmp_path / "photos" / f"{number}", positions=orbit(8 if number else 3))
    (tmp_path / "photos" / "misspelt").mkdir()
    (tmp_path / "photos" / "misspelt" / "transform.json").write_text("{}")
    path = tmp_path / "photos" / "1" / "transforms.json"
    table = json.loads(path.read_text())
    table["frames"][5]["transform_matrix"][0][3] = 1e6
    path.write_text(json.dumps(table))
    run(tmp_path / "photos", tmp_path / "set", size=512)
    (left_out,) = (line for line in LINES if "left out" in line)
    assert left_out == f"{tmp_path / 'photos'}: 1 folder without a camera file left out: misspelt"
    assert any("0: 3 photos, so all scenes have 3 views; most folders have 8" in line for line in LINES)
    assert any("005.png: " in line and "times as far from the middle" in line for line in LINES)
    assert any("of its pixels are enlarged to a frame of 512" in line for line in LINES)


def test_nothing_odd_is_said_of_a_whole_set(tmp_path):
    for number in range(3):
        make_capture(tmp_path / "photos" / f"{number}")
    run(tmp_path / "photos", tmp_path / "photos" / "set", test_every=3)
    assert len(LINES) == 1  # too few
    run(tmp_path / "photos", tmp_path / "again", test_every=3)  # the dataset among the places is passed over
    assert len(LINES) == 1


def test_a_place_is_not_imported_twice_through_a_link(tmp_path):
    make_capture(tmp_path / "photos" / "a")
    (tmp_path / "photos" / "b").symlink_to("a")
    with pytest.raises(PhotosError, match=r"b: the same folder as .*a, expected each place once"):
        run(tmp_path / "photos", tmp_path / "set")


@pytest.mark.parametrize("out", [".", "photos", "photos/0"])
def test_a_dataset_is_not_written_around_photos(out, tmp_path):
    make_capture(tmp_path / "photos" / "0")
    make_capture(tmp_path / "photos" / "1")
    with pytest.raises(OptionError, match="expected a folder that does not hold photos"):
        run(tmp_path / "photos", tmp_path / out, overwrite=True)
    assert not list(tmp_path.rglob("manifest.json"))


def test_dropping_rolled_photos_may_leave_one_place(tmp_path):
    positions = [(2, 0, 1), (2, 0, 1), (0, 2, 1), (-2, 0, 1)]
    make_capture(tmp_path / "photos", positions=np.array(positions, float), rolls=[0, 0, 40, 40])
    with pytest.raises(PhotosError, match="all cameras are at one place"):
        run(tmp_path / "photos", tmp_path / "set", roll="drop", up="z")


# Images.


@pytest.mark.filterwarnings("error")
def test_damaged_exif_is_passed_over_without_a_word(tmp_path):
    make_capture(tmp_path / "photos")
    for path in (tmp_path / "photos" / "images").iterdir():
        Image.open(path).convert("RGB").save(path, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x09\0", quality=95)
    run(tmp_path / "photos", tmp_path / "set")
    assert assert_points_land(tmp_path / "set") >= 12


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("stated", [True, False])
def test_exif_orientation_is_applied(orientation, stated, tmp_path):
    make_capture(tmp_path / "photos")
    for path in (tmp_path / "photos" / "images").iterdir():
        exif = Image.Exif()
        exif[0x0112] = orientation
        upright = Image.open(path)
        # What a camera stores: the picture that the orientation turns upright.
        undo = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
        turned = Image.Exif()
        turned[0x0112] = undo
        stored = upright.copy()
        stored.info["exif"] = turned.tobytes()
        stored = ImageOps.exif_transpose(stored)
        stored.save(path, exif=exif.tobytes())
    if not stated:
        table = json.loads((tmp_path / "photos" / "transforms.json").read_text())
        for frame in table["frames"]:
            del frame["w"], frame["h"]
        (tmp_path / "photos" / "transforms.json").write_text(json.dumps(table))
    run(tmp_path / "photos", tmp_path / "set")
    assert assert_points_land(tmp_path / "set") >= 12


def test_exif_is_left_alone_where_the_camera_fits_the_stored_pixels(tmp_path):
    make_capture(tmp_path / "photos")
    for path in (tmp_path / "photos" / "images").iterdir():
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.open(path).copy().save(path, exif=exif.tobytes())
    run(tmp_path / "photos", tmp_path / "set")
    assert assert_points_land(tmp_path / "set") >= 12


def test_what_is_transparent_becomes_white(tmp_path):
    make_capture(tmp_path / "photos")
    for path in (tmp_path / "photos" / "images").iterdir():
        image = Image.open(path).convert("RGBA")
        image.putalpha(0)
        image.save(path)
    run(tmp_path / "photos", tmp_path / "set")
    assert all((scene.frames == 255).all() for scene in open_dataset(tmp_path / "set"))


def test_a_large_photo_is_averaged(tmp_path):
    lens = lens_of(width=1600, height=1200, focal=1500.0)
    make_capture(tmp_path / "photos", positions=orbit(3), lenses=[lens] * 3)
    for path in (tmp_path / "photos" / "images").iterdir():
        pixels = np.zeros((1200, 1600, 3), np.uint8)
        pixels[::2] = 200  # every other row: a single sample would be black or bright
        Image.fromarray(pixels).save(path)
    run(tmp_path / "photos", tmp_path / "set")
    frames = open_dataset(tmp_path / "set")[0].frames
    assert np.abs(frames.astype(int) - 100).max() <= 2


@pytest.mark.parametrize("container", ["zarr", "numpy", "webdataset", "tfrecord", "mirror"])
def test_every_container_takes_photos(container, tmp_path):
    make_capture(tmp_path / "photos")
    quality = {"jpeg_quality": 95} if container in ("webdataset", "tfrecord") else {}
    run(tmp_path / "photos", tmp_path / "set", format=container, **quality)
    assert len(open_dataset(tmp_path / "set")) == 1


# Bad input: one line that names the file, and nothing written.


def edit(**changes):
    def change(folder):
        path = folder / "transforms.json"
        table = json.loads(path.read_text())
        for key, value in changes.items():
            target = table if key in ("frames", "camera_model") else table["frames"][2]
            if value is None:
                del target[key]
            else:
                target[key] = value
        path.write_text(json.dumps(table))

    return change


def matrix(row, column, value):
    def change(folder):
        table = json.loads((folder / "transforms.json").read_text())
        table["frames"][2]["transform_matrix"][row][column] = value
        (folder / "transforms.json").write_text(json.dumps(table))

    return change


def photo(make):
    def change(folder):
        path = folder / "images" / "002.png"
        path.unlink()
        make(path)

    return change


def text(content):
    return lambda folder: (folder / "transforms.json").write_text(content)


def bomb(path):
    """Write a PNG of 40,000 x 40,000 pixels whose header is whole."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")))


def linked(path):
    (path.parents[2] / "secret.png").write_bytes((path.parent / "001.png").read_bytes())
    path.symlink_to("../../secret.png")


def cut(path):
    path.write_bytes((path.parent / "001.png").read_bytes()[:-60])


FAULTS = {
    "no JSON": (text("{"), "transforms.json: Expecting"),
    "no frames": (text("{}"), "no list 'frames'"),
    "an empty list": (text('{"frames": []}'), "no list 'frames'"),
    "a list": (text("[1, 2]"), "no list 'frames'"),
    "NaN": (text('{"frames": [{"fl_x": NaN}]}'), "found NaN"),
    "deep": (text('{"frames":' * 9000), "transforms.json:"),
    "no object": (edit(frames=[7]), "frame 0: int, expected an object"),
    "no path": (edit(file_path=None), "frame 2: file_path is missing"),
    "no matrix": (edit(transform_matrix=None), "frame 2: transform_matrix is missing"),
    "a path of numbers": (edit(file_path=7), "photo '7', expected the name"),
    "an absent photo": (edit(file_path="images/none.png"), "photo 'images/none.png' is missing"),
    "a folder": (edit(file_path="images"), "photo 'images' is missing"),
    "a way out": (edit(file_path="../secret.png"), "without '..'"),
    "an absolute path": (edit(file_path="/etc/hostname"), "expected a path inside"),
    "a NUL": (edit(file_path="images/\0"), "expected the name of a file"),
    "a long name": (edit(file_path="a" * 5000), "is missing"),
    "a link out": (photo(linked), "is a link out of"),
    "a circle of links": (photo(lambda path: path.symlink_to(path.name)), "is missing"),
    "a pipe": (photo(os.mkfifo), "is missing"),
    "no image": (photo(lambda path: path.write_bytes(b"photo")), "002.png: not an image"),
    "an SVG": (photo(lambda path: path.write_text("<svg/>")), "002.png: not an image"),
    "a cut image": (photo(cut), "002.png: damaged image"),
    "a bomb": (photo(bomb), "002.png: too many pixels, expected at most"),
    "16 bits": (photo(lambda path: Image.new("I;16", (160, 120)).save(path)), "mode I;16, expected 8 bits"),
    "another size": (edit(w=170), "160x120 pixels, expected 170x120"),
    "half a pixel": (edit(w=160.5), "expected whole numbers of pixels"),
    "a size of text": (edit(w="160"), "expected whole numbers of pixels"),
    "text in the matrix": (matrix(0, 0, "a"), "is not 4x4 numbers"),
    "quoted numbers in the matrix": (edit(transform_matrix=np.eye(4).astype(str).tolist()), "is not 4x4 numbers"),
    "truths in the matrix": (matrix(0, 0, True), "is not 4x4 numbers"),
    "a matrix of one row": (edit(transform_matrix=[1] * 16), "is not 4x4 numbers"),
    "a photo twice": (edit(file_path="images/001.png"), "001.png: listed twice in transforms.json"),
    "a photo twice by a link": (photo(lambda path: path.symlink_to("001.png")), "001.png: listed twice"),
    "a size of 30 digits": (edit(w=10**30), "160x120 pixels, expected 10000000000000000000x"),
    "a lens that bends all away": (edit(k1=1e9), "of its pixels, expected 8 or more"),
    "an axis at the edge": (edit(cx=159.99), "of its pixels, expected 8 or more"),
    "an angle above pi": (edit(fl_x=None, camera_angle_x=7), "camera_angle_x is 7, expected radians"),
    "a short row": (edit(transform_matrix=[[1, 0], [0, 1]]), "is not 4x4 numbers"),
    "infinity": (matrix(0, 3, 1e300), "NaN, infinity or numbers above 1e9"),
    "a projective matrix": (matrix(3, 3, 2.0), "the last row"),
    "a scaled matrix": (edit(transform_matrix=np.diag((2.0, 2, 2, 1)).tolist()), "numbers of the rotation|not rigid"),
    "a sheared matrix": (edit(transform_matrix=(np.eye(4) + 0.1 * np.eye(4, k=1)).tolist()), "not rigid"),
    "a mirror": (edit(transform_matrix=np.diag((-1.0, 1, 1, 1)).tolist()), "it mirrors"),
    "no lens": (edit(fl_x=None), "no focal length"),
    "an unknown model": (edit(camera_model="EQUIRECTANGULAR"), "camera model 'EQUIRECTANGULAR'"),
    "an axis outside": (edit(cx=-3.0), "principal point -3, 60 outside of 160x120"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(what, tmp_path):
    change, part = FAULTS[what]
    make_capture(tmp_path / "photos")
    change(tmp_path / "photos")
    with pytest.raises((PhotosError, SourceMissing)) as caught:
        run(tmp_path / "photos", tmp_path / "set")
    (line,) = str(caught.value).splitlines()
    assert any(each in line for each in part.split("|")), line
    assert str(tmp_path / "photos") in line
    assert len(line) < 600
    assert not (tmp_path / "set").exists()


def test_cameras_at_one_place_and_single_photos_are_refused(tmp_path):
    make_capture(tmp_path / "one", positions=orbit(1))
    with pytest.raises(PhotosError, match="at one place"):
        run(tmp_path / "one", tmp_path / "set")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceMissing, match=r"empty: no camera file, expected transforms.json"):
        run(tmp_path / "empty", tmp_path / "set")
    with pytest.raises(SourceMissing, match="not a folder"):
        run(tmp_path / "absent", tmp_path / "set")


@pytest.mark.parametrize(
    "options",
    [
        {"size": 8},
        {"views": 1},
        {"roll": "turn"},
        {"up": "w"},
        {"scale": "big"},
        {"scale": 0},
        {"scale": math.inf},
        {"scale": 1e-320},
        {"scale": 1e30},
        {"test_every": -1},
        {"field_of_view": 0},
        {"depth_range": (2, 1)},
        {"depth_range": (math.nan, 1)},
        {"field_of_view": 1e-9},
        {"depth_range": ("a", 1)},
        {"name": "Own set"},
        {"format": "webdataset"},
    ],
)
def test_impossible_options_are_refused_and_nothing_is_written(options, tmp_path):
    make_capture(tmp_path / "photos")
    with pytest.raises(GQNError):
        run(tmp_path / "photos", tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()


def test_an_existing_dataset_is_replaced_only_when_asked(tmp_path):
    make_capture(tmp_path / "photos")
    run(tmp_path / "photos", tmp_path / "set")
    with pytest.raises(DestinationError, match="overwrite=True"):
        run(tmp_path / "photos", tmp_path / "set")
    cut(tmp_path / "photos" / "images" / "002.png")
    with pytest.raises(PhotosError, match="damaged image"):
        run(tmp_path / "photos", tmp_path / "set", overwrite=True, size=32)
    assert open_dataset(tmp_path / "set").manifest.frames.width == 64  # the old one stays


# The command.


def command(*arguments):
    return CliRunner().invoke(main, ["import", *map(str, arguments)])


def test_the_command_writes_below_the_root_and_reports(tmp_path):
    for number in range(3):
        make_capture(tmp_path / "My Photos" / f"{number}", lenses=[lens_of(), lens_of(focal=210)] * 4)
    done = command(tmp_path / "My Photos", "--root", tmp_path / "data", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["folder"] == str(tmp_path / "data" / "zarr" / "my-photos")
    assert found["scenes"] == {"train": 2, "test": 1}
    assert found["field_of_view"] == pytest.approx(2 * math.degrees(math.atan(60 / 210)))
    assert "2 training scenes: too few" in done.stderr
    plain = command(tmp_path / "My Photos", "--out", tmp_path / "set")
    assert plain.stdout.splitlines()[0].endswith("set: 3 scenes (2 train, 1 test) of 8 views")
    info = CliRunner().invoke(main, ["info", str(tmp_path / "set")]).stdout
    assert "field of view 31.8908 degrees" in info
    assert "matrix" not in info


def test_errors_of_the_command_name_flags(tmp_path):
    make_capture(tmp_path / "photos", rolls=[0, 0, 40, 0, 0, 0, 0, 0])
    done = command(tmp_path / "photos", "--out", tmp_path / "set")
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert "Pass --roll level to turn photos back, --roll drop to leave them out, or --up z" in line
    done = command(tmp_path / "photos", "--out", tmp_path / "set", "--roll", "drop", "--views", 8)
    assert "pass --views 7" in done.stderr
    done = command(tmp_path / "photos", "--out", tmp_path / "set", "--scale", "big")
    assert (done.exit_code, "--scale is 'big'" in done.stderr) == (2, True)
