"""Datasets in an object store are written, read, verified, indexed and converted like local ones."""

import dataclasses

import numpy as np
import pytest
from made_scenes import SET, tree

import gqn_data
from gqn_data.convert import convert
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.plan import Options
from gqn_data.errors import DestinationError, ManifestError, SourceMissing
from gqn_data.inspect.info import describe
from gqn_data.inspect.verify import verify
from gqn_data.io.paths import parse_path
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.sources.raw_folder import open_raw_folder

FORMATS = ("zarr", "numpy", "webdataset")
ROW = SCENE_SETS[SET]


def objects(folder):
    """Return the bytes of every object below a folder, by name."""
    return {name: (folder / name).read_bytes() for name, _ in folder.files()}


def upload(folder, to):
    for name, data in tree(folder).items():
        (to / name).put(data)
    return to


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GQN_CACHE", str(tmp_path / "cache"))


def options(**changes):
    return Options(**{"formats": FORMATS, "shard_bytes": 7000, "workers": 1, **changes})


def test_a_store_gets_the_same_bytes_as_a_disk(shared_raw, s3, tmp_path):
    convert(shared_raw, ROW, tmp_path, options())
    convert(shared_raw, ROW, parse_path(s3), options())
    assert objects(parse_path(s3)) == tree(tmp_path)


def test_worker_processes_write_to_a_store(shared_raw, s3, tmp_path):
    convert(shared_raw, ROW, tmp_path, options())
    convert(shared_raw, ROW, parse_path(s3) / "below", options(workers=2))
    assert objects(parse_path(s3) / "below") == tree(tmp_path)


@pytest.mark.parametrize("name", FORMATS)
def test_a_dataset_in_a_store_is_read_like_a_local_one(name, shared_raw, s3, tmp_path):
    convert(shared_raw, ROW, tmp_path, options(formats=(name,)))
    convert(shared_raw, ROW, parse_path(s3), options(formats=(name,)))
    for split in ("train", "test"):
        here = gqn_data.open(tmp_path / name / SET, split)
        there = gqn_data.open(f"{s3}/{name}/{SET}", split)
        assert there.fingerprint == here.fingerprint
        assert np.array_equal(there.cameras, here.cameras)
        for one, other in zip(here, there, strict=True):
            assert np.array_equal(one.frames, other.frames)
            assert np.array_equal(one.cameras, other.cameras)
    assert describe(parse_path(s3) / name / SET, ROW).bytes == describe(tmp_path / name / SET, ROW).bytes
    assert not verify(parse_path(s3) / name / SET, ROW, deep=True, workers=1).faults


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_object_is_found(name, shared_raw, s3):
    convert(shared_raw, ROW, parse_path(s3), options(formats=(name,)))
    folder = parse_path(s3) / name / SET
    row = max(gqn_data.open(f"{s3}/{name}/{SET}").manifest.all_files(), key=lambda row: row.bytes)
    data = bytearray((folder / row.name).read_bytes())
    data[len(data) // 2] ^= 4
    (folder / row.name).put(bytes(data))
    faults = verify(folder, ROW, workers=1).faults
    assert [f"{folder / row.name}: SHA-256" in fault for fault in faults] == [True]
    (folder / row.name).unlink()
    assert "absent" in verify(folder, ROW, workers=1).faults[0]


def test_a_dataset_in_a_store_converts_to_disk_and_store(shared_raw, s3, tmp_path):
    convert(shared_raw, ROW, parse_path(s3) / "first", options(formats=("zarr",)))
    convert(parse_path(s3) / "first/zarr" / SET, ROW, tmp_path, options(formats=("webdataset",)))
    convert(parse_path(s3) / "first/zarr" / SET, ROW, parse_path(s3) / "second", options(formats=("numpy",)))
    convert(shared_raw, ROW, tmp_path / "direct", options())
    for name, folder in (("webdataset", tmp_path), ("numpy", parse_path(s3) / "second")):
        here, there = gqn_data.open(tmp_path / "direct" / name / SET), gqn_data.open(folder / name / SET)
        assert all(np.array_equal(one.frames, other.frames) for one, other in zip(here, there, strict=True))


def test_source_files_in_a_store_are_indexed_in_place(shared_raw, s3, tmp_path):
    raw = upload(shared_raw, parse_path(s3) / "raw" / SET)
    with pytest.raises(SourceMissing, match="gqn-data index"):
        describe(raw, ROW)
    with pytest.raises(SourceMissing, match=r"manifest\.json is missing"):
        gqn_data.open(str(raw))
    assert not verify(raw, ROW, deep=True, workers=1).faults
    manifest = index_raw_folder(open_raw_folder(raw, ROW))
    here = dataclasses.replace(manifest)
    scenes = gqn_data.open(str(raw))
    convert(shared_raw, ROW, tmp_path, options(formats=("zarr",)))
    assert all(
        np.array_equal(one.frames, other.frames)
        for one, other in zip(scenes, gqn_data.open(tmp_path / "zarr" / SET), strict=True)
    )
    assert index_raw_folder(open_raw_folder(raw, ROW)) == here


def test_an_interrupted_conversion_to_a_store_resumes(shared_raw, s3, tmp_path, monkeypatch):
    from gqn_data.convert import engine

    write, made = engine.write_shard, []

    def some(task):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(task.location)
        return write(task)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "write_shard", some)
        with pytest.raises(KeyboardInterrupt):
            convert(shared_raw, ROW, parse_path(s3), options(formats=("webdataset",)))
    with pytest.raises(ManifestError):
        describe(parse_path(s3) / "webdataset" / SET, ROW)
    (result,) = convert(shared_raw, ROW, parse_path(s3), options(formats=("webdataset",)))
    assert result.kept == 2
    convert(shared_raw, ROW, tmp_path, options(formats=("webdataset",)))
    assert objects(parse_path(s3)) == tree(tmp_path)


def test_a_complete_dataset_in_a_store_is_kept(shared_raw, s3):
    convert(shared_raw, ROW, parse_path(s3), options())
    assert [result.written for result in convert(shared_raw, ROW, parse_path(s3), options())] == [0, 0, 0]
    with pytest.raises(DestinationError, match="overwrite"):
        convert(shared_raw, ROW, parse_path(s3), options(limit=1))
    convert(shared_raw, ROW, parse_path(s3), options(limit=1, overwrite=True))
    assert len(gqn_data.open(f"{s3}/zarr/{SET}")) == 1
