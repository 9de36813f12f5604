"""Rendering into TFRecords: reproducible bytes, atomic files, validated arguments."""

import errno
import itertools
import json
import subprocess
import sys
from hashlib import sha256
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from tfrecord import example_pb2

from gqn_data.errors import DestinationError, NoSpace, OptionError, OriginError, UnknownName, UnknownSceneSet
from gqn_data.render import RENDERER_VERSION, RENDERERS, find_renderer
from gqn_data.render import files as render_files
from gqn_data.render.request import Request, split_scenes
from gqn_data.render.streams import scene_stream
from gqn_data.render.write import render_scene_set
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.tfrecord import framing

SMALL = {"frame_size": 16, "views": 2, "supersample": False, "workers": 1}


MEANS_OF_SCENE_0 = {
    "jaco": [183.9, 193.4, 185.1],
    "mazes": [125.9, 157.8, 175.6],
    "rooms_free_camera_no_object_rotations": [151.5, 137.4, 84.6],
    "rooms_free_camera_with_object_rotations": [136.7, 145.3, 155.5],
    "rooms_ring_camera": [196.4, 169.3, 117.3],
    "shepard_metzler_5_parts": [12.8, 9.9, 9.6],
    "shepard_metzler_7_parts": [21.2, 20.8, 11.9],
}


def files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def payloads(path):
    return [record.payload for record in framing.read_records(path)]


def options(**changes):
    return {"index": 0, "seed": 0, "split": "train", "frame_size": 32, "views": 2, "supersample": False, **changes}


@pytest.mark.parametrize("name", RENDERERS)
def test_renderers_are_found_by_the_names_of_the_catalogue(name):
    assert find_renderer(SCENE_SETS[name].aliases[0]) == (name, RENDERERS[name])


@pytest.mark.parametrize("name", RENDERERS)
@pytest.mark.parametrize(("frame_size", "views"), [(32, 1), (50, 3), (256, 1)])
def test_a_renderer_returns_frames_and_cameras_of_the_requested_size(name, frame_size, views):
    scene = RENDERERS[name](**options(frame_size=frame_size, views=views))
    assert (scene.frames.shape, scene.frames.dtype) == ((views, frame_size, frame_size, 3), np.uint8)
    assert (scene.cameras.shape, scene.cameras.dtype) == ((views, 5), np.float32)
    assert scene.frames.std() > 0


@pytest.mark.parametrize("name", RENDERERS)
def test_a_scene_depends_only_on_seed_split_and_index(name):
    render = RENDERERS[name]
    changes = [{}, {"seed": 1}, {"split": "test"}, {"index": 1}]
    scenes = [render(**options(**change)) for change in changes]
    again = [render(**options(**change)) for change in reversed(changes)][::-1]
    for one, same in zip(scenes, again):
        assert (one.frames == same.frames).all()
        assert (one.cameras == same.cameras).all()
    for one, other in itertools.combinations(scenes, 2):
        assert (one.cameras != other.cameras).any()


def test_every_seed_set_split_and_scene_has_a_separate_random_stream():
    keys = itertools.product((0, 1, 2**40), RENDERERS, ("train", "test"), (0, 1, 10**6))
    draws = {scene_stream(*key).random() for key in keys}
    assert len(draws) == 3 * len(RENDERERS) * 2 * 3


def test_importing_the_renderers_does_not_import_numba():
    code = "import sys, gqn_data.render; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_rendering_worker_imports_neither_torch_nor_tfrecord():
    code = (
        "import sys; from gqn_data.render.request import Request; from gqn_data.render.files import _Chunk; "
        "from gqn_data.render.files import _render_records; "
        "parameters = Request.of('sm5', scenes=1, frame_size=16, views=1).parameters; "
        "records = _render_records(_Chunk(parameters=parameters, split='train', first=0, last=1)); "
        "sys.exit(len(records) != 1 or bool({'torch', 'tfrecord'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("scenes", "split", "expected"),
    [
        (1, None, {"train": 1}),
        (2, None, {"train": 1, "test": 1}),
        (20, None, {"train": 18, "test": 2}),
        (2000, None, {"train": 1800, "test": 200}),
        (7, "train", {"train": 7}),
        (7, "test", {"test": 7}),
    ],
)
def test_nine_in_ten_scenes_are_for_training(scenes, split, expected):
    assert split_scenes(scenes, split) == expected


@pytest.mark.parametrize(("split", "name"), [("train", "0001-of-2160.tfrecord"), ("test", "001-of-240.tfrecord")])
def test_another_reader_finds_the_frames_and_cameras_in_the_records(tmp_path, split, name):
    report = render_scene_set(tmp_path, "rrc", scenes=3, split=split, views=2, supersample=False, workers=1)
    path = report.folder / split / name
    for index, payload in enumerate(payloads(path)):
        scene = RENDERERS["rooms_ring_camera"](**options(index=index, split=split, frame_size=64))
        feature = example_pb2.Example.FromString(payload).features.feature
        cameras = np.array(feature["cameras"].float_list.value, dtype=np.float32).reshape(2, 5)
        assert (cameras == scene.cameras).all()
        for jpeg, frame in zip(feature["frames"].bytes_list.value, scene.frames, strict=True):
            picture = Image.open(BytesIO(jpeg))
            assert (picture.format, picture.size) == ("JPEG", (64, 64))
            assert np.abs(np.asarray(picture).astype(int) - frame).mean() < 6
    assert (report.files_written, report.files_kept, report.scenes, report.frames) == (1, 0, 3, 6)


def test_files_have_deepminds_names_and_numbers_of_scenes(tmp_path):
    report = render_scene_set(tmp_path, "sm5", scenes=50, split="train", **SMALL)
    counts = {path.name: framing.count_records(path) for path in sorted(report.folder.glob("train/*"))}
    assert counts == {"001-of-900.tfrecord": 20, "002-of-900.tfrecord": 20, "003-of-900.tfrecord": 10}


def test_source_json_records_parameters_but_not_the_number_of_scenes(tmp_path):
    one, other = (
        render_scene_set(tmp_path / str(scenes), "sm5", scenes=scenes, seed=7, **SMALL).folder / "source.json"
        for scenes in (2, 30)
    )
    assert one.read_bytes() == other.read_bytes()
    written = json.loads(one.read_text())
    checksum = written.pop("sha256")
    assert checksum == sha256((json.dumps(written, indent=2) + "\n").encode()).hexdigest()
    assert written == {
        "kind": "rendered",
        "details": {
            "renderer": "gqn-toolkit",
            "version": RENDERER_VERSION,
            "seed": 7,
            "frame_size": 16,
            "views": 2,
            "jpeg_quality": 95,
            "supersample": False,
        },
    }


def test_bytes_do_not_depend_on_workers_and_chunks(tmp_path, monkeypatch):
    render_scene_set(tmp_path / "one", "sm5", scenes=60, **SMALL)
    expected = files(tmp_path / "one")
    monkeypatch.setattr(render_files, "_MAX_SCENES_PER_CHUNK", 7)
    render_scene_set(tmp_path / "chunks", "sm5", scenes=60, **SMALL)
    assert files(tmp_path / "chunks") == expected
    render_scene_set(tmp_path / "two", "sm5", scenes=60, **{**SMALL, "workers": 2})
    assert files(tmp_path / "two") == expected
    assert len(expected) == 5  # source.json, three files of train, one of test


@pytest.mark.slow
@pytest.mark.parametrize("name", RENDERERS)
def test_full_size_scenes_are_the_same_on_one_worker_and_on_two(tmp_path, name):
    for workers in (1, 2):
        render_scene_set(tmp_path / str(workers), name, scenes=80, workers=workers)
    assert files(tmp_path / "1") == files(tmp_path / "2")


@pytest.mark.parametrize(("name", "scenes"), [("sm5", 20), ("rooms_ring_camera", 25), ("mazes", 1)])
def test_chunks_have_a_bounded_number_of_rays(name, scenes):
    request = Request.of(name, scenes=60, split="train")
    chunks = [chunk for file in request.files for chunk in render_files._chunks(file, request.parameters)]
    assert max(chunk.last - chunk.first for chunk in chunks) == scenes
    covered = [index for chunk in chunks for index in range(chunk.first, chunk.last)]
    assert covered == list(range(60))


def test_a_scene_does_not_depend_on_the_number_of_scenes(tmp_path):
    few = render_scene_set(tmp_path / "few", "rrc", scenes=2, split="test", **SMALL).folder
    many = render_scene_set(tmp_path / "many", "rrc", scenes=40, split="test", **SMALL).folder
    name = "test/001-of-240.tfrecord"
    assert payloads(few / name) == payloads(many / name)[:2]


def test_a_rerun_keeps_complete_files_and_rewrites_the_others(tmp_path):
    render_scene_set(tmp_path, "sm5", scenes=100, split="train", **SMALL)
    expected = files(tmp_path)
    folder = tmp_path / "raw" / "shepard_metzler_5_parts" / "train"
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    missing, cut, short = (folder / f"00{number}-of-900.tfrecord" for number in (1, 3, 4))
    missing.unlink()
    cut.write_bytes(cut.read_bytes()[:-5])
    with short.open("wb") as out:
        framing.RecordWriter(out).write(payloads(folder / "002-of-900.tfrecord")[0])
    (folder / "005-of-900.tfrecord.partial").write_bytes(b"left by a run that was killed")

    report = render_scene_set(tmp_path, "sm5", scenes=100, split="train", **SMALL)
    assert (report.files_written, report.files_kept, report.scenes, report.frames) == (3, 2, 60, 120)
    assert files(tmp_path) == expected
    kept = [path for path in folder.iterdir() if path not in {missing, cut, short}]
    assert all(path.stat().st_mtime_ns == times[path] for path in kept)


def test_adding_scenes_later_gives_the_same_bytes(tmp_path):
    render_scene_set(tmp_path / "grown", "sm5", scenes=30, split="train", **SMALL)
    report = render_scene_set(tmp_path / "grown", "sm5", scenes=70, split="train", **SMALL)
    assert report.files_kept == 1
    render_scene_set(tmp_path / "once", "sm5", scenes=70, split="train", **SMALL)
    assert files(tmp_path / "grown") == files(tmp_path / "once")


@pytest.mark.parametrize("fewer", [15, 30, 40, 45])
def test_fewer_scenes_than_exist_are_rejected_and_files_stay(tmp_path, fewer):
    render_scene_set(tmp_path, "sm5", scenes=50, split="train", **SMALL)
    expected = files(tmp_path)
    with pytest.raises(DestinationError, match=rf"train: .*expected at most the {fewer} requested.*--scenes"):
        render_scene_set(tmp_path, "sm5", scenes=fewer, split="train", **SMALL)
    assert files(tmp_path) == expected


@pytest.mark.parametrize("change", [{"seed": 1}, {"views": 3}, {"frame_size": 17}, {"quality": 80}])
def test_scenes_of_other_parameters_are_not_mixed_in_one_folder(tmp_path, change):
    render_scene_set(tmp_path, "sm5", scenes=2, **SMALL)
    expected = files(tmp_path)
    with pytest.raises(OriginError, match="two origins are not mixed"):
        render_scene_set(tmp_path, "sm5", **{**SMALL, "scenes": 2, **change})
    assert files(tmp_path) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scenes": 0}, "scenes is 0, expected 1 or more"),
        ({"scenes": 10**9}, "train scenes of shepard_metzler_5_parts is 1000000000, expected 1 to 810000"),
        ({"views": 0}, "views is 0, expected 1 to 1000"),
        ({"views": 1001}, "views is 1001, expected 1 to 1000"),
        ({"frame_size": 7}, "frame_size is 7, expected 16 to 512"),
        ({"frame_size": 513}, "frame_size is 513, expected 16 to 512"),
        ({"seed": -1}, "seed is -1, expected 0 or more"),
        ({"quality": 0}, "quality is 0, expected 1 to 100"),
        ({"workers": 0}, "workers is 0, expected 1 or more"),
        ({"split": "valid"}, "split is 'valid', expected one of train, test"),
    ],
)
def test_invalid_numbers_are_rejected_before_anything_is_written(tmp_path, change, message):
    with pytest.raises(OptionError, match=message):
        render_scene_set(tmp_path, "sm5", **{"scenes": 2, "split": "train", **SMALL, **change})
    assert list(tmp_path.iterdir()) == []


def test_unknown_sets_and_sets_without_renderer_are_rejected(tmp_path):
    with pytest.raises(UnknownSceneSet, match="did you mean 'rooms_ring_camera'"):
        render_scene_set(tmp_path, "rooms_ring_camra", scenes=1)
    unrendered = sorted(set(SCENE_SETS) - set(RENDERERS))
    for name in unrendered:
        with pytest.raises(UnknownName, match=f"unknown rendered scene set {name!r}"):
            render_scene_set(tmp_path, name, scenes=1)


def test_a_full_disk_leaves_only_complete_files(tmp_path, monkeypatch):
    render_scene_set(tmp_path / "whole", "sm5", scenes=60, split="train", **SMALL)
    room = [45]

    class Full(framing.RecordWriter):
        def write(self, payload):
            room[0] -= 1
            if room[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().write(payload)

    with monkeypatch.context() as patched:
        patched.setattr(render_files, "RecordWriter", Full)
        with pytest.raises(NoSpace, match=r"003-of-900\.tfrecord: the disk is full"):
            render_scene_set(tmp_path / "full", "sm5", scenes=60, split="train", **SMALL)
    left = files(tmp_path / "full")
    assert len(left) == 3  # source.json and two complete files
    assert left.items() <= files(tmp_path / "whole").items()
    render_scene_set(tmp_path / "full", "sm5", scenes=60, split="train", **SMALL)
    assert files(tmp_path / "full") == files(tmp_path / "whole")


def test_pixels_change_only_with_the_renderer_version():
    """Compare means with recorded ones. If this fails, raise RENDERER_VERSION and record new means."""
    means = {name: render(**options(frame_size=64)).frames.mean(axis=(0, 1, 2)) for name, render in RENDERERS.items()}
    for name, mean in means.items():
        assert mean == pytest.approx(MEANS_OF_SCENE_0[name], abs=0.1), name
