"""Conformance tests for every scene set in `RENDERERS`."""

import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from made_scenes import tree
from tfrecord import example_pb2

from gqn_data.convert.from_renderer import render_formats
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.plan import Options
from gqn_data.dataset import open_dataset
from gqn_data.errors import OptionError
from gqn_data.inspect.contact_sheet import contact_sheet
from gqn_data.inspect.verify import verify
from gqn_data.loader import SceneLoader
from gqn_data.render import RENDERERS
from gqn_data.render import files as render_files
from gqn_data.render.request import Request
from gqn_data.render.write import render_scene_set
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.schema.manifest import read_manifest
from gqn_data.sources.raw_folder import open_raw_folder
from gqn_data.tfrecord import framing

SMALL = {"frame_size": 16, "views": 2, "supersample": False}

every_set = pytest.mark.parametrize("name", RENDERERS)


def scene(name, **changes):
    arguments = {"index": 0, "seed": 0, "split": "train", **SMALL, **changes}
    return RENDERERS[name](arguments.pop("index"), **arguments)


def payloads(folder):
    """Return the records of the first source file of the training split."""
    path = min((folder / "train").glob("*.tfrecord"))
    return [record.payload for record in framing.read_records(path)]


@every_set
def test_bytes_do_not_depend_on_workers_and_chunks(name, tmp_path, monkeypatch):
    render_scene_set(tmp_path / "one", name, scenes=7, workers=1, **SMALL)
    monkeypatch.setattr(render_files, "_MAX_SCENES_PER_CHUNK", 2)
    with ThreadPoolExecutor(2) as executor:
        render_scene_set(tmp_path / "two", name, scenes=7, executor=executor, **SMALL)
    assert tree(tmp_path / "two") == tree(tmp_path / "one")


@every_set
def test_a_scene_does_not_depend_on_the_number_of_scenes(name, tmp_path):
    few, many = (
        payloads(render_scene_set(tmp_path / str(scenes), name, scenes=scenes, split="train", **SMALL).folder)
        for scenes in (2, 5)
    )
    assert (len(few), len(many)) == (2, 5)
    assert few == many[:2]
    assert len(set(many)) == 5


@every_set
def test_the_first_views_do_not_depend_on_the_number_of_views(name):
    one, some, many = (scene(name, views=views) for views in (1, 5, 23))
    for fewer, more in ((one, some), (some, many)):
        assert (fewer.cameras == more.cameras[: len(fewer.cameras)]).all()
        assert (fewer.frames == more.frames[: len(fewer.frames)]).all()


@every_set
def test_a_thousand_views_have_valid_cameras(name):
    frames, cameras = scene(name, views=1000)
    assert frames.shape == (1000, 16, 16, 3)
    assert (cameras.shape, cameras.dtype) == ((1000, len(SCENE_SETS[name].camera_fields)), np.float32)
    assert np.isfinite(cameras).all()
    shepard_metzler = name.startswith("shepard_metzler")
    assert np.abs(cameras[:, :3]).max() <= (10 / 3 + 1e-6 if shepard_metzler else 1.016)  # jaco: 3.3 of 3.25 units
    assert np.abs(cameras[:, 3]).max() <= np.float32(2 * math.pi if shepard_metzler else math.pi)
    assert np.abs(cameras[:, 4]).max() <= np.float32(math.pi / 2)
    assert len(np.unique(cameras, axis=0)) > 900


@every_set
@pytest.mark.parametrize("frame_size", [16, 33, 256])
def test_the_mean_of_a_frame_does_not_depend_on_its_size(name, frame_size):
    expected = scene(name, frame_size=64, views=3, supersample=True).frames.mean(axis=(1, 2))
    found = scene(name, frame_size=frame_size, views=3, supersample=frame_size < 64).frames
    assert found.shape == (3, frame_size, frame_size, 3)
    assert np.abs(found.mean(axis=(1, 2)) - expected).max() < 8


def test_sets_seeds_splits_and_scenes_differ_from_each_other():
    changes = [{}, {"seed": 1}, {"split": "test"}, {"index": 1}]
    seen = {(name, number): scene(name, **change) for name in RENDERERS for number, change in enumerate(changes)}
    for one, other in itertools.combinations(seen, 2):
        assert (seen[one].frames != seen[other].frames).any(), (one, other)
        assert (seen[one].cameras != seen[other].cameras).any(), (one, other)


@every_set
def test_files_hold_the_same_number_of_scenes_as_deepminds(name):
    facts = SCENE_SETS[name].train
    full = facts.scenes_in_file(1)
    files = Request.of(name, scenes=full + 1, split="train").files
    assert [(file.name, file.scenes) for file in files] == [
        (f"train/{facts.file_name(1)}", full),
        (f"train/{facts.file_name(2)}", 1),
    ]


@every_set
def test_an_interrupted_run_resumes_to_the_same_bytes(name, tmp_path, monkeypatch):
    render_scene_set(tmp_path / "whole", name, scenes=4, workers=1, **SMALL)
    written = itertools.count()

    class CutOff(framing.RecordWriter):
        def write(self, payload):
            if next(written) == 3:  # the test split's file
                raise KeyboardInterrupt
            super().write(payload)

    with monkeypatch.context() as patched:
        patched.setattr(render_files, "RecordWriter", CutOff)
        with pytest.raises(KeyboardInterrupt):
            render_scene_set(tmp_path / "cut", name, scenes=4, workers=1, **SMALL)
    assert len(list((tmp_path / "cut").rglob("*.tfrecord"))) == 1
    report = render_scene_set(tmp_path / "cut", name, scenes=4, workers=1, **SMALL)
    assert (report.files_written, report.files_kept) == (1, 1)
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")


@every_set
def test_scenes_of_unusual_size_pass_through_the_whole_toolkit(name, tmp_path):
    """Check 33 pixels and 23 views in records, manifests, batches and contact sheets."""
    request = Request.of(name, scenes=3, split="train", frame_size=33, views=23, supersample=False)
    report, done = render_formats(request, tmp_path, Options(formats=("tfrecord", "zarr"), workers=1))
    row = SCENE_SETS[name]
    feature = example_pb2.Example.FromString(payloads(report.folder)[2]).features.feature
    cameras = np.array(feature["cameras"].float_list.value, np.float32).reshape(23, 5)
    assert (cameras == scene(name, index=2, views=23).cameras).all()
    assert len(feature["frames"].bytes_list.value) == 23
    index_raw_folder(open_raw_folder(report.folder, row))
    for folder in (report.folder, done[0].folder):
        frames = read_manifest(folder).frames
        assert (frames.height, frames.width, frames.views) == (33, 33, 23)
        assert read_manifest(folder).origin.details["views"] == 23
        assert verify(folder, row, deep=True, workers=1).faults == ()
        dataset = open_dataset(folder)
        assert dataset[2].frames.shape == (23, 33, 33, 3)
        assert (dataset[2].cameras == cameras).all()
        assert contact_sheet(dataset, [0, 1], 10).shape == (2 * 35 + 2, 10 * 35 + 2, 3)
    loader = SceneLoader(done[0].folder, batch_size=3, context=(1, 22), workers=0, epochs=1)
    batch = next(iter(loader))
    assert batch.target.shape == (3, 33, 33, 3)


@every_set
def test_scenes_of_one_view_can_be_written_verified_and_viewed(name, tmp_path):
    request = Request.of(name, scenes=1, frame_size=32, views=1, supersample=False)
    _, done = render_formats(request, tmp_path, Options(formats=("numpy",), workers=1))
    assert verify(done[0].folder, SCENE_SETS[name], workers=1).faults == ()
    dataset = open_dataset(done[0].folder)
    assert dataset[0].frames.shape == (1, 32, 32, 3)
    assert contact_sheet(dataset, [0], 10).shape == (36, 36, 3)
    with pytest.raises(OptionError, match="a scene has 1 view, expected at least 2"):
        SceneLoader(done[0].folder, batch_size=1)
    assert next(iter(SceneLoader(done[0].folder, batch_size=1, context="all"))).target.shape == (1, 32, 32, 3)
