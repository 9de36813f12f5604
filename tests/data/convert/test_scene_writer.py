"""The scene writer: it writes the same shards as `convert`, and a complete dataset or nothing."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import webdataset
import zarr
from made_scenes import SIZE, VIEWS, jpeg, made_scene, make_raw_folder, pattern, tree
from PIL import Image
from zarr.registry import get_codec_class, register_codec

import gqn_data
from gqn_data.convert import convert
from gqn_data.convert.plan import Options
from gqn_data.convert.scene_writer import SceneWriter
from gqn_data.dataset import open_dataset
from gqn_data.errors import CorruptFrame, DestinationError, ManifestError, NoSpace, OptionError, UnknownName
from gqn_data.formats import FORMATS, WRITABLE
from gqn_data.formats.zarr_jpeg_codec import JpegCodec
from gqn_data.inspect.verify import verify
from gqn_data.io import atomic
from gqn_data.io.paths import parse_path
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.schema.manifest import read_manifest
from gqn_data.sources.raw_folder import locate, scene_set_of_manifest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module", autouse=True)
def codec_is_known():
    try:
        get_codec_class("imagecodecs_jpeg")
    except KeyError:
        register_codec("imagecodecs_jpeg", JpegCodec)


def pixels_of(number):
    return np.stack([pattern(number, view) for view in range(VIEWS)])


def cameras_of(number):
    return made_scene(number).cameras


def write(folder, numbers=range(7), test=(), *, arrays=False, **options):
    """Write generated scenes and return the folder."""
    options = {"scenes_per_shard": 3, **options}
    with SceneWriter(folder, **options) as writer:
        for split, added in (("train", numbers), ("test", test)):
            for position, number in enumerate(added):
                frames = pixels_of(number) if arrays else made_scene(number).frames
                assert writer.add(frames, cameras_of(number), split) == position
    return folder


def faults_of(folder):
    return verify(*locate(str(folder), Path("nowhere"), None), deep=True, workers=1).faults


def is_dataset(folder):
    try:
        read_manifest(folder)
    except ManifestError:
        return False
    return True


# Output.


@pytest.mark.parametrize("name", WRITABLE)
def test_jpeg_bytes_give_the_same_shards_as_convert(name, tmp_path):
    raw = make_raw_folder(tmp_path / "raw" / "shepard_metzler_5_parts", train=(4, 3), test=(2,))
    options = Options(formats=(name,), workers=1, shard_bytes=6000)
    twin = convert(raw, SCENE_SETS["shepard_metzler_5_parts"], tmp_path, options)[0]
    per_shard = 2 if name == "mirror" else twin.manifest.splits["train"].scenes_per_shard
    folder = tmp_path / "mine"
    with SceneWriter(folder, format=name, scenes_per_shard=per_shard) as writer:
        for number in range(7):
            writer.add(list(made_scene(number).frames), cameras_of(number))
        for number in (1000, 1001):
            writer.add(list(made_scene(number).frames), cameras_of(number), split="test")
    described = {"manifest.json", "SHA256SUMS", "README.md", "croissant.json"}

    def shards(where):
        return {file: data for file, data in tree(where).items() if file not in described and "zarr.json" not in file}

    assert name == "mirror" or len(shards(folder)) > 6
    assert shards(folder) == shards(twin.folder)


@pytest.mark.parametrize("name", WRITABLE)
def test_added_scenes_are_read_back_and_pass_the_deep_check(name, tmp_path):
    folder = write(tmp_path / "mine", test=(1000, 1001), format=name)
    for split, numbers in (("train", range(7)), ("test", (1000, 1001))):
        scenes = gqn_data.open(folder, split)
        assert len(scenes) == len(numbers)
        for scene, number in zip(scenes, numbers):
            assert scene.cameras.tobytes() == cameras_of(number).tobytes()
            if scene.encoded is not None:
                assert [bytes(frame) for frame in scene.encoded] == list(made_scene(number).frames)
            assert scene.frames.shape == (VIEWS, SIZE, SIZE, 3)
    assert faults_of(folder) == ()
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=True)


def test_arrays_are_stored_without_loss(tmp_path):
    for name in ("zarr", "numpy"):
        folder = write(tmp_path / name, arrays=True, name="mine", format=name)
        assert read_manifest(folder).frames.encoding == "raw"
        for number, scene in enumerate(open_dataset(folder)):
            assert np.array_equal(scene.frames, pixels_of(number))
        assert faults_of(folder) == ()


def test_arrays_become_jpegs_only_at_an_explicit_quality(tmp_path):
    for name in ("zarr", "webdataset"):
        folder = write(tmp_path / name, arrays=True, name="mine", format=name, jpeg_quality=95)
        assert read_manifest(folder).frames.jpeg_quality == 95
        for number, scene in enumerate(open_dataset(folder)):
            assert scene.encoded is not None
            assert np.abs(scene.frames.astype(int) - pixels_of(number)).mean() < 12
    with pytest.raises(OptionError, match=r"pixels.*webdataset.*jpeg"):
        write(tmp_path / "no", arrays=True, format="webdataset")
    assert not (tmp_path / "no").exists()


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset does not close its files
def test_zarr_and_webdataset_read_the_shards(tmp_path):
    folder = write(tmp_path / "mine")
    group = zarr.open_group(folder / "train", mode="r")
    assert group["frames"].shape == (7, VIEWS, SIZE, SIZE, 3)
    expected = open_dataset(folder)[5].frames
    assert np.array_equal(group["frames"][5], expected)
    assert np.array_equal(group["cameras"][5], cameras_of(5))
    folder = write(tmp_path / "tars", name="mine", format="webdataset")
    tars = [str(folder / f"train-{number:06d}.tar") for number in range(3)]
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8"))
    assert np.array_equal(samples[5]["01.jpg"], expected[1])


def test_two_runs_write_the_same_bytes_in_any_folder(tmp_path):
    first = tree(write(tmp_path / "a" / "mine", test=(1000,)))
    assert tree(write(tmp_path / "b" / "mine", test=(1000,))) == first
    assert not any(str(tmp_path).encode() in data for data in first.values())


def test_the_order_of_splits_does_not_matter(tmp_path):
    by_split = tree(write(tmp_path / "a" / "mine", range(5), (1000, 1001)))
    with SceneWriter(tmp_path / "b" / "mine", scenes_per_shard=3) as writer:
        for split, number in [("test", 1000), ("train", 0), ("train", 1), ("test", 1001)]:
            writer.add(made_scene(number).frames, cameras_of(number), split)
        for number in (2, 3, 4):
            writer.add(made_scene(number).frames, cameras_of(number))
    assert tree(tmp_path / "b" / "mine") == by_split


def test_the_manifest_holds_the_name_fields_and_details(tmp_path):
    fields = ("x", "y", "z", "qw", "qx", "qy", "qz")
    options = {"camera_fields": fields, "details": {"phone": "any", "lens": 3.5}, "name": "my-rooms_2"}
    with SceneWriter(tmp_path / "here", **options) as writer:
        for number in range(2):
            writer.add(made_scene(number).frames, np.full((VIEWS, 7), number))
    manifest = read_manifest(tmp_path / "here")
    assert manifest.scene_set == "my-rooms_2"
    assert manifest.cameras.fields == manifest.cameras.pose == fields
    assert manifest.origin.kind == "imported"
    assert {"phone": "any", "lens": 3.5}.items() <= manifest.origin.details.items()
    assert gqn_data.open(tmp_path / "here").cameras.shape == (2, VIEWS, 7)


def test_the_fingerprint_depends_on_the_scenes_but_not_on_the_format(tmp_path):
    fingerprints = set()
    for name, numbers in (("a", (0, 1)), ("b", (1, 0)), ("c", (0, 2)), ("d", (0, 1, 2))):
        fingerprints.add(open_dataset(write(tmp_path / name, numbers, name="mine")).fingerprint)
    assert len(fingerprints) == 4
    twin = write(tmp_path / "e", (0, 1), name="mine", format="webdataset")
    assert open_dataset(twin).fingerprint in fingerprints  # the same scenes in another container


@pytest.mark.parametrize("arrays", [False, True])
def test_shards_have_about_the_requested_size(arrays, tmp_path):
    folder = write(tmp_path / "mine", range(40), arrays=arrays, scenes_per_shard=None, shard_bytes=20_000)
    row = read_manifest(folder).splits["train"]
    assert len(row.shards) > 2
    assert {shard.scenes for shard in row.shards[:-1]} == {row.scenes_per_shard}
    sizes = [sum(file.bytes for file in shard.files) for shard in row.shards[:-1]]
    if not arrays:  # the size of zstd frames cannot be predicted
        assert all(10_000 < size <= 25_000 for size in sizes), sizes
    assert faults_of(folder) == ()


def test_large_shards_hold_a_round_number_of_scenes(tmp_path):
    frames = [jpeg(np.zeros((8, 8, 3), np.uint8), quality=10)]
    with SceneWriter(tmp_path / "mine", shard_bytes=400 * (len(frames[0]) + 40)) as writer:
        for number in range(1000):
            writer.add(frames, np.full((1, 5), number))
    row = read_manifest(tmp_path / "mine").splits["train"]
    assert row.scenes_per_shard in range(300, 420, 10)
    assert open_dataset(tmp_path / "mine").cameras[:, 0, 0].tolist() == list(range(1000))


def test_the_spool_is_emptied_after_each_shard(tmp_path, monkeypatch):
    sizes = []
    writer = SceneWriter(tmp_path / "mine", scenes_per_shard=2)
    with writer:
        for number in range(10):
            writer.add(made_scene(number).frames, cameras_of(number))
            spool = writer._splits["train"].spool
            spool._file.flush()
            sizes.append(os.fstat(spool._file.fileno()).st_size)
    scene_bytes = sum(map(len, made_scene(0).frames)) + 1000
    assert max(sizes) <= 2 * scene_bytes


def test_scenes_are_not_held_in_memory(tmp_path):
    """Write 400 MB of scenes; the last 300 MB must need less than 64 MiB more memory."""
    pytest.importorskip("resource")
    code = (
        "import resource, sys, numpy as np\n"
        "from gqn_data.convert.scene_writer import SceneWriter\n"
        "frames = np.zeros((10, 256, 256, 3), np.uint8)\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10\n"
        "with SceneWriter(sys.argv[1], shard_bytes=32 << 20) as writer:\n"
        "    for number in range(200):\n"
        "        writer.add(frames, np.zeros((10, 5)))\n"
        "        if number == 40: before = peak()\n"
        "assert len(writer._shards) > 8\n"
        "assert peak() - before < 64 << 20, (before, peak())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, tmp_path / "mine"], check=True, env=environment)


# Errors.


def first(writer):
    writer.add(made_scene(0).frames, cameras_of(0))


BAD = {
    "views": (lambda: (made_scene(1).frames[:2], cameras_of(1)), r"scene 1 of train: .*2 views, expected 3"),
    "size": (
        lambda: ([jpeg(pattern(1, view, 24)) for view in range(3)], cameras_of(1)),
        r"scene 1 of train: view 0: a frame of 24x24 pixels, expected 16x16",
    ),
    "arrays": (lambda: (pixels_of(1), cameras_of(1)), r"scene 1 of train: .*arrays, expected JPEG bytes"),
    "cut": (
        lambda: ([*made_scene(1).frames[:2], made_scene(1).frames[2][:-9]], cameras_of(1)),
        r"view 2: a JPEG cut short",
    ),
    "png": (lambda: ([b"\x89PNG....", *made_scene(1).frames[1:]], cameras_of(1)), r"view 0: not a JPEG"),
    "grey": (
        lambda: ([jpeg_grey(), *made_scene(1).frames[1:]], cameras_of(1)),
        r"view 0: a JPEG of 1 colour components",
    ),
    "nan": (
        lambda: (made_scene(1).frames, np.where(np.arange(15).reshape(3, 5) == 8, np.nan, 0)),
        r"view 1: .*nan.*expected finite",
    ),
    "infinite": (lambda: (made_scene(1).frames, np.full((3, 5), 1e39)), r"view 0: .*inf.*expected finite"),
    "cameras": (lambda: (made_scene(1).frames, np.zeros((3, 4))), r"cameras \(3, 4\), expected \(3, 5\): x, y, z"),
    "words": (lambda: (made_scene(1).frames, [["a"] * 5] * 3), r"found cameras list, expected numbers"),
    "text": (lambda: ("frames", cameras_of(1)), r"expected an array uint8"),
    "none": (lambda: ([], cameras_of(1)), r"0 views, expected 3"),
    "floats": (lambda: (pixels_of(1) / 255, cameras_of(1)), r"frames float64 .*expected uint8 \(3, 16, 16, 3\)"),
}


def jpeg_grey():
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pattern(0, 0)[..., 0]).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize("kind", BAD)
def test_a_scene_that_does_not_match_is_refused_and_the_rest_is_kept(kind, tmp_path):
    make, message = BAD[kind]
    with SceneWriter(tmp_path / "mine") as writer:
        first(writer)
        with pytest.raises((OptionError, CorruptFrame), match=message):
            writer.add(*make())
        assert writer.add(made_scene(2).frames, cameras_of(2)) == 1
    assert [round(float(scene.cameras[0, 0]) / 100) for scene in open_dataset(tmp_path / "mine")] == [0, 2]
    assert faults_of(tmp_path / "mine") == ()


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((2, 8, 8), np.uint8), "expected uint8"),
        (np.zeros((2, 8, 8, 4), np.uint8), "expected uint8"),
        (np.zeros((0, 8, 8, 3), np.uint8), "views is 0, expected 1 to"),
        (np.zeros((2, 0, 8, 3), np.uint8), "height is 0, expected 1 to"),
        (np.broadcast_to(np.uint8(0), (70_000, 8, 8, 3)), "views is 70000, expected 1 to 65536"),
        (np.zeros((2, 8, 8, 3), np.float32), "expected uint8"),
        ([], "views is 0"),
        ([b""], "not a JPEG"),
    ],
)
def test_an_invalid_first_scene_is_refused(frames, message, tmp_path):
    with pytest.raises((OptionError, CorruptFrame), match=message), SceneWriter(tmp_path / "mine") as writer:
        writer.add(frames, np.zeros((2, 5)))
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"name": "My Scenes"}, OptionError),
        ({"name": "../mine"}, OptionError),
        ({"name": "rooms_ring_camera"}, OptionError),
        ({"name": "RRC"}, OptionError),
        ({"name": "maze"}, OptionError),
        ({"format": "hdf5"}, UnknownName),
        ({"jpeg_quality": 0}, OptionError),
        ({"scenes_per_shard": 0}, OptionError),
        ({"shard_bytes": 0}, OptionError),
        ({"camera_fields": ()}, OptionError),
        ({"camera_fields": ("x", "x")}, OptionError),
        ({"camera_fields": "xyz"}, OptionError),
        ({"details": {"at": float("nan")}}, OptionError),
        ({"details": {"at": object()}}, OptionError),
        ({"details": {"at": "\ud800"}}, OptionError),
    ],
)
def test_invalid_arguments_are_refused_before_anything_is_written(options, error, tmp_path):
    with pytest.raises(error):
        SceneWriter(tmp_path / "mine", **options)
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_the_set_defaults_to_the_folder(tmp_path):
    assert read_manifest(write(tmp_path / "mine")).scene_set == "mine"
    with pytest.raises(OptionError, match=r"'My Scenes'.*name="):
        SceneWriter(tmp_path / "My Scenes")


def test_a_dataset_without_scenes_is_refused(tmp_path):
    with pytest.raises(OptionError, match="found 0 scenes"), SceneWriter(tmp_path / "mine"):
        pass
    assert not (tmp_path / "mine").exists()


def test_scenes_can_be_added_only_inside_the_block(tmp_path):
    writer = SceneWriter(tmp_path / "mine")
    with pytest.raises(OptionError, match="inside its with"):
        first(writer)
    with writer:
        first(writer)
    with pytest.raises(OptionError, match="inside its with"):
        first(writer)
    with pytest.raises(OptionError, match="create another"):
        writer.__enter__()
    with pytest.raises(UnknownName), SceneWriter(tmp_path / "other") as writer:
        writer.add(made_scene(0).frames, cameras_of(0), split="validation")


# Complete or nothing.


def numbers_then_error(count, error):
    """Yield the numbers of scenes, then raise an error."""
    yield from range(count)
    raise error


@pytest.mark.parametrize("name", WRITABLE)
@pytest.mark.parametrize("at", [0, 1, 4, 9])
def test_an_error_in_the_block_removes_all_files(name, at, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "mine", numbers_then_error(at, KeyboardInterrupt), format=name, scenes_per_shard=2)
    assert tree(tmp_path) == {}
    whole = tree(write(tmp_path / "other" / "mine", format=name))
    assert tree(write(tmp_path / "mine", format=name)) == whole


def test_an_existing_dataset_is_replaced_only_with_overwrite(tmp_path):
    folder = write(tmp_path / "mine")
    before = tree(folder)
    with pytest.raises(DestinationError, match="overwrite=True"):
        write(folder)
    assert tree(folder) == before
    with pytest.raises(ZeroDivisionError):
        write(folder, numbers_then_error(5, ZeroDivisionError), overwrite=True, scenes_per_shard=1)
    assert tree(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    for name in WRITABLE:
        write(folder, range(2), format=name, overwrite=True)
        assert tree(folder) == tree(write(tmp_path / name / "mine", range(2), format=name))


def test_a_dataset_with_a_damaged_manifest_can_be_replaced(tmp_path):
    folder = write(tmp_path / "mine")
    whole = tree(folder)
    (folder / "manifest.json").write_text("{")
    write(folder, overwrite=True)
    assert tree(folder) == whole


def test_other_files_in_the_folder_are_kept(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    folder = write(tmp_path / "mine")
    assert (folder / "notes.txt").read_text() == "mine"
    assert faults_of(folder) == ()


def test_a_concurrent_writer_is_refused(tmp_path):
    with SceneWriter(tmp_path / "mine") as writer:
        first(writer)
        with pytest.raises(DestinationError, match="another run is writing there"), SceneWriter(tmp_path / "mine"):
            pass
    assert faults_of(tmp_path / "mine") == ()


@pytest.mark.parametrize("at", [0, 1, 5, 8])
def test_a_full_disk_is_reported_and_leaves_no_dataset(at, tmp_path, monkeypatch):
    remaining = [at]
    sync = os.fsync

    def full(handle):
        if not remaining[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        remaining[0] -= 1
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(NoSpace, match="the disk is full"):
            write(tmp_path / "mine", range(9), scenes_per_shard=4)
    assert not is_dataset(tmp_path / "mine")
    assert faults_of(write(tmp_path / "mine")) == ()


def test_a_writer_that_failed_once_writes_no_dataset(tmp_path, monkeypatch):
    def full(path):
        raise NoSpace("the disk is full")

    writer = SceneWriter(tmp_path / "mine", scenes_per_shard=1)

    def add_after_the_failure():
        with writer:
            with monkeypatch.context() as patch:
                patch.setattr(atomic, "writing", full)
                with pytest.raises(NoSpace):
                    first(writer)
            with pytest.raises(OptionError, match="create another SceneWriter"):
                first(writer)

    with pytest.raises(OptionError, match="unfinished dataset is removed"):
        add_after_the_failure()
    assert tree(tmp_path) == {}


DRIVER = """
import sys
import numpy as np
from gqn_data.convert.scene_writer import SceneWriter
frames = np.arange(3 * 16 * 16 * 3, dtype=np.uint8).reshape(3, 16, 16, 3)
with SceneWriter(sys.argv[1], scenes_per_shard=2, overwrite=True) as writer:
    for number in range(int(sys.argv[2])):
        writer.add(frames + np.uint8(number), np.full((3, 5), number))
        print(number, flush=True)
"""


@pytest.mark.parametrize("over", [False, True])
def test_a_killed_writer_leaves_no_or_the_old_dataset_and_a_rerun_cleans_up(over, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start(folder, count):
        command = [sys.executable, "-c", DRIVER, str(folder), str(count)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    folder = tmp_path / "mine"
    if over:
        write(folder, range(40), scenes_per_shard=1)
        before = tree(folder)
    for kills in (1, 7, 30):
        process = start(folder, 10**9)
        for _ in range(kills):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if over:  # the old dataset stays until the new one is complete
            assert {name: data for name, data in tree(folder).items() if not name.startswith(".work/")} == before
        elif kills > 2:
            assert tree(folder)
            assert not is_dataset(folder)
    for count, where in ((9, folder), (9, tmp_path / "whole" / "mine")):
        process = start(where, count)
        process.communicate()
        assert process.returncode == 0
    assert tree(folder) == tree(tmp_path / "whole" / "mine")
    assert faults_of(folder) == ()


# In an object store.


def objects(folder):
    return {name: (folder / name).read_bytes() for name, _ in folder.files()}


def test_a_store_receives_the_same_bytes_as_a_disk(s3, tmp_path):
    whole = tree(write(tmp_path / "mine", test=(1000,)))
    assert objects(parse_path(write(f"{s3}/sets/mine", test=(1000,)))) == whole
    assert faults_of(f"{s3}/sets/mine") == ()


def test_an_error_in_the_block_removes_all_objects_of_a_store(s3):
    for at in (0, 2, 7):
        with pytest.raises(KeyboardInterrupt):
            write(f"{s3}/mine", numbers_then_error(at, KeyboardInterrupt))
        assert objects(parse_path(s3)) == {}


def test_a_dataset_in_a_store_is_replaced_only_with_overwrite(s3, tmp_path):
    write(f"{s3}/mine")
    before = objects(parse_path(s3))
    with pytest.raises(DestinationError, match="overwrite=True"):
        write(f"{s3}/mine", range(2))
    assert objects(parse_path(s3)) == before
    write(f"{s3}/mine", range(2), overwrite=True)
    assert objects(parse_path(s3) / "mine") == tree(write(tmp_path / "mine", range(2)))


# Use of the datasets.


def test_a_written_dataset_converts_to_every_container(tmp_path):
    folder = write(tmp_path / "mine", test=(1000,))
    source, row = locate(str(folder), tmp_path, None)
    assert (source, row.name, row.views, row.frame_size) == (folder, "mine", VIEWS, SIZE)
    results = convert(folder, row, tmp_path / "root", Options(formats=WRITABLE, workers=1, shard_bytes=5000))
    for result in results:
        assert result.folder == tmp_path / "root" / result.manifest.format / "mine"
        scenes = open_dataset(result.folder)
        assert scenes.fingerprint == open_dataset(folder).fingerprint
        for number, scene in enumerate(scenes):
            assert np.array_equal(scene.frames, open_dataset(folder)[number].frames)
        assert faults_of(result.folder) == ()


def test_a_path_and_the_matching_name_of_its_set_are_accepted(tmp_path):
    folder = write(tmp_path / "here", name="mine")
    assert locate(str(folder), tmp_path, "mine")[1].name == "mine"
    with pytest.raises(gqn_data_errors(), match="yours"):
        locate(str(folder), tmp_path, "yours")


def gqn_data_errors():
    from gqn_data.errors import UnknownSceneSet

    return UnknownSceneSet


def test_the_writer_refuses_formats_that_convert_cannot_write(tmp_path):
    for name in sorted(set(FORMATS) - set(WRITABLE)):
        with pytest.raises(UnknownName):
            SceneWriter(tmp_path / "mine", format=name)


def test_a_dataset_can_be_moved_to_a_folder_of_another_name(tmp_path):
    folder = write(tmp_path / "mine")
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert json.loads((moved / "manifest.json").read_bytes())["scene_set"] == "mine"
    assert faults_of(moved) == ()


def test_the_geometry_of_own_scenes_is_kept_and_converted(tmp_path):
    frames, cameras = np.zeros((3, 16, 16, 3), np.uint8), np.zeros((3, 5), np.float32)
    given = {"field_of_view": 60.0, "yaw_sign": -1, "depth_range": (0.5, 4.0)}
    with SceneWriter(tmp_path / "zarr" / "mine", **given) as writer:
        writer.add(frames, cameras)
    row = scene_set_of_manifest(read_manifest(tmp_path / "zarr" / "mine"))
    convert(tmp_path / "zarr" / "mine", row, tmp_path / "out", Options(formats=("numpy",), workers=1))
    for folder in (tmp_path / "zarr" / "mine", tmp_path / "out" / "numpy" / "mine"):
        assert dataclasses.asdict(open_dataset(folder).manifest.geometry) == given


@pytest.mark.parametrize("missing", ["field_of_view", "yaw_sign", "depth_range"])
def test_half_a_geometry_is_refused(tmp_path, missing):
    given = {"field_of_view": 60.0, "yaw_sign": -1, "depth_range": (0.5, 4.0)}
    del given[missing]
    with pytest.raises(OptionError, match=missing):
        SceneWriter(tmp_path / "mine", **given)


def test_own_scenes_have_no_geometry_unless_given(tmp_path):
    with SceneWriter(tmp_path / "mine") as writer:
        writer.add(np.zeros((3, 16, 16, 3), np.uint8), np.zeros((3, 5), np.float32))
    assert open_dataset(tmp_path / "mine").manifest.geometry is None


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_rotated_jpeg_is_refused_with_the_remedy(tmp_path, orientation, faults):
    exif = Image.Exif()
    exif[0x0112] = orientation
    rotated = jpeg(pattern(0, 1), exif=exif)
    upright = jpeg(pattern(0, 0))
    survived = 0
    with pytest.raises(OptionError, match=r"view 1.*exif_transpose"), SceneWriter(tmp_path / "mine") as writer:
        writer.add([upright, rotated], np.zeros((2, 5)))
    survived += not (tmp_path / "mine" / "manifest.json").exists()
    faults.record(
        "found in use: rotated photos stored unrotated",
        holds="a JPEG with an EXIF rotation is refused, with the remedy",
        tries=1,
        survived=survived,
    )
