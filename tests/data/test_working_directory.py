"""What is opened by a relative path is read and written where it was, also from another working directory."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from made_paths import made_file
from made_scenes import SET, VIEWS, pattern, tree

import gqn_data
from gqn_data.cache.shard_cache import open_cache
from gqn_data.convert import convert
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.plan import Options
from gqn_data.convert.scene_writer import SceneWriter
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.sources.raw_folder import open_raw_folder

ROW = SCENE_SETS[SET]
FOLDERS = {name: f"out/{name}/{SET}" for name in ("zarr", "numpy", "webdataset")} | {"tfrecord": f"raw/{SET}"}


@pytest.fixture
def elsewhere(raw, monkeypatch):
    """Return a function that leaves the folder of `raw/` and the containers in `out/`, for an empty one."""
    home = raw.parents[1]
    index_raw_folder(open_raw_folder(raw, ROW))
    monkeypatch.chdir(home)
    (home / "else").mkdir()
    yield lambda: os.chdir(home / "else")
    assert tree(home / "else") == {}


def record(faults, survived=1):
    faults.record(
        "found in use: another working directory after opening",
        holds="what was opened by a relative path is read and written where it was",
        tries=survived,
        survived=survived,
    )


@pytest.mark.parametrize("name", FOLDERS)
def test_a_dataset_is_read_from_another_folder(name, elsewhere, raw, faults):
    convert(raw, ROW, Path("out"), Options(formats=("zarr", "numpy", "webdataset"), workers=1, shard_bytes=7000))
    expected = gqn_data.open(raw)
    scenes = gqn_data.open(FOLDERS[name])
    packed = pickle.dumps(scenes)
    elsewhere()
    for opened in (scenes, pickle.loads(packed)):
        assert all(np.array_equal(one.frames, other.frames) for one, other in zip(opened, expected, strict=True))
        assert np.array_equal(opened.cameras, expected.cameras)
    record(faults)


@pytest.mark.parametrize("name", ["zarr", "numpy", "webdataset", "tfrecord"])
def test_a_writer_ends_where_it_began(name, elsewhere, tmp_path, faults):
    frames = np.stack([pattern(0, view) for view in range(VIEWS)])
    cameras = np.zeros((VIEWS, 5), np.float32)
    with SceneWriter("mine/scenes", format=name, jpeg_quality=95, scenes_per_shard=1) as writer:
        writer.add(frames, cameras)
        elsewhere()
        writer.add(frames, cameras)
    os.chdir("..")
    assert len(gqn_data.open("mine/scenes")) == 2
    record(faults)


def test_the_folder_of_a_conversion_is_usable_from_another_folder(elsewhere, faults):
    arguments = (Path("raw") / SET, ROW, Path("out"), Options(formats=("zarr", "numpy"), workers=1))
    first = convert(*arguments)
    again = convert(*arguments)
    elsewhere()
    for done in (*first, *again):
        assert len(gqn_data.open(done.folder)) == 7
    record(faults)


def test_a_cache_is_used_from_another_folder(elsewhere, tmp_path, monkeypatch, faults):
    source, row = made_file(tmp_path / "remote", "a", 2500)
    monkeypatch.setenv("GQN_CACHE", "by-variable")
    caches = [open_cache("by-argument"), open_cache()]
    elsewhere()
    for cache in (*caches, *pickle.loads(pickle.dumps(caches))):
        assert cache.get(source, row).read_bytes() == source.path.read_bytes()
    assert source.fetches == 2
    record(faults)
