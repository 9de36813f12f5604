"""Datasets that change while they are read, links that lead nowhere, and few open files."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_scenes import SET, VIEWS, make_raw_folder, scenes_from, write_source_file

from gqn_data.convert import convert
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.plan import Options
from gqn_data.dataset import open_dataset
from gqn_data.errors import GQNError
from gqn_data.inspect.info import describe
from gqn_data.inspect.verify import verify
from gqn_data.loader import SceneLoader
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.sources.raw_folder import open_raw_folder

ROOT = Path(__file__).resolve().parents[2]
ROW = SCENE_SETS[SET]
CONTAINERS = ["zarr", "zarr raw", "numpy", "webdataset", "tfrecord"]


def made(folder, container, seed, root, **more):
    """Convert scenes; another seed gives other scenes in files of the same names."""
    raw = folder / f"raw-{seed}" / SET
    if not raw.exists():
        raw.mkdir(parents=True)
        shutil.copy(make_raw_folder(folder / "made" / SET) / "source.json", raw)
        write_source_file(raw / "train" / "001-of-900.tfrecord", scenes_from(100 * seed, 8))
    name, _, encoding = container.partition(" ")
    options = Options(formats=(name,), frames=encoding or None, workers=1, shard_bytes=2500, **more)
    return convert(raw, ROW, root, options)[0].folder


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_dataset_replaced_below_a_loader_is_an_error(container, workers, tmp_path, faults):
    folder = made(tmp_path, container, 1, tmp_path)
    expected = [scene.frames.copy() for scene in open_dataset(folder)]
    loader = SceneLoader(folder, batch_size=1, shuffle=False, workers=workers, epochs=1, context="all")
    batches = iter(loader)
    given = [next(batches)]
    made(tmp_path, container, 2, tmp_path, overwrite=True)
    with pytest.raises(GQNError, match="replaced"):
        given.extend(batches)
    for scene, batch in enumerate(given):
        assert (batch.frames[0].numpy() == expected[scene]).all()
    faults.record(
        "found in use: a dataset replaced below a reader",
        holds="the reader stops with an error, and never mixes old and new scenes",
        tries=1,
        survived=1,
    )


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_file_replaced_below_an_open_dataset_is_an_error(container, tmp_path, monkeypatch):
    monkeypatch.setattr("gqn_data.io.ranged.most_open_files", lambda: 1)
    folder = made(tmp_path, container, 1, tmp_path)
    scenes = open_dataset(folder)
    names = [row.name for shard in scenes.shards for row in shard.files]
    for scene in range(len(scenes)):
        _ = scenes[scene].frames
    for name in names:  # the same bytes: only the identity differs
        path = folder / name
        shutil.copy(path, path.with_suffix(".copy"))
        path.with_suffix(".copy").rename(path)
    with pytest.raises(GQNError, match="replaced"):
        _ = [scenes[scene].frames for scene in range(len(scenes))]


def test_an_index_that_is_run_again_does_not_end_readers(tmp_path):
    raw = make_raw_folder(tmp_path / "raw" / SET)
    index_raw_folder(open_raw_folder(raw, ROW))
    scenes = open_dataset(raw)
    _ = scenes[0].frames
    index_raw_folder(open_raw_folder(raw, ROW))
    for scene in range(len(scenes)):
        assert scenes[scene].frames.any()


def dangling(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(path.with_name("gone"))


NAMES = ["train/002-of-900.tfrecord", "test/001-of-100.tfrecord", "source.json", "train", "manifest.json"]


@pytest.mark.parametrize("name", NAMES)
def test_a_link_that_leads_nowhere_is_an_error_everywhere(name, tmp_path, faults):
    raw = make_raw_folder(tmp_path / "raw" / SET)
    if name == "train":
        shutil.rmtree(raw / name)
    dangling(raw / name)
    calls = {
        "index": lambda: index_raw_folder(open_raw_folder(raw, ROW)),
        "convert": lambda: convert(raw, ROW, tmp_path / "out", Options(workers=1)),
        "verify": lambda: verify(raw, ROW, workers=1),
        "info": lambda: describe(raw, ROW),
    }
    survived = 0
    for call in calls.values():
        with pytest.raises(GQNError, match="link to"):
            call()
        survived += 1
    assert not (tmp_path / "out" / "zarr").exists()
    faults.record(
        "found in use: links that lead nowhere",
        holds="an error that names the link, not a smaller dataset",
        tries=len(calls),
        survived=survived,
    )


def test_a_folder_under_the_name_of_a_source_file_is_an_error(tmp_path):
    raw = make_raw_folder(tmp_path / "raw" / SET)
    (raw / "train" / "003-of-900.tfrecord").mkdir()
    with pytest.raises(GQNError, match="not a regular file"):
        index_raw_folder(open_raw_folder(raw, ROW))


PROGRAM = """
import sys, resource
limit = int(sys.argv[2])
from gqn_data.loader import SceneLoader
from gqn_data.dataset import open_dataset
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
seen = 0
for batch in SceneLoader(sys.argv[1], batch_size=3, workers=int(sys.argv[3]), epochs=1, seed=2):
    seen += len(batch.scenes)
print(seen)
"""


@pytest.mark.parametrize(("limit", "workers"), [(256, 0), (256, 2), (100, 0)])
def test_many_source_files_need_few_open_files(limit, workers, tmp_path, faults):
    raw = make_raw_folder(tmp_path / "raw" / SET, train=(1,) * 300, test=())
    index_raw_folder(open_raw_folder(raw, ROW))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, raw, str(limit), str(workers)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.stdout.strip() == "300", done.stderr[-500:]
    faults.record(
        "found in use: few open files allowed",
        holds="files are closed and opened again as needed",
        tries=1,
        survived=1,
    )


def test_open_files_are_at_most_what_the_system_allows(monkeypatch):
    from gqn_data.io import ranged

    for limit, most in ((24, 4), (128, 32), (256, 96), (1024, 256), (1 << 20, 256), (resource.RLIM_INFINITY, 256)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert ranged.most_open_files() == most


def test_a_scene_is_read_again_after_its_file_was_closed(tmp_path, monkeypatch):
    monkeypatch.setattr("gqn_data.io.ranged.most_open_files", lambda: 1)
    raw = make_raw_folder(tmp_path / "raw" / SET, train=(2, 2, 2))
    index_raw_folder(open_raw_folder(raw, ROW))
    scenes = open_dataset(raw)
    out = np.zeros((VIEWS, 16, 16, 3), np.uint8)
    first = [scenes[number].frames.copy() for number in range(6)]
    for number in (0, 3, 5, 1, 4, 2):
        scenes.decode_into(number, range(VIEWS), out)
        assert (out == first[number]).all()
