"""Verify reports every damage with the name of the file, and nothing for sound data."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_scenes import (
    SET,
    example_bytes,
    framed,
    jpeg,
    made_scene,
    make_raw_folder,
    serialize_bad_camera,
    tree,
    write_source_file,
)

from gqn_data.convert import convert, shard_task
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.plan import Options
from gqn_data.dataset import open_dataset
from gqn_data.errors import CorruptRecord, GQNError, SourceMissing
from gqn_data.formats import FORMATS, WRITABLE
from gqn_data.inspect.verify import verify
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.sources.raw_folder import open_raw_folder
from gqn_data.tfrecord import example

CASES = [(name, encoding) for name in WRITABLE for encoding in FORMATS[name].encodings]
every_container = pytest.mark.parametrize(("name", "encoding"), [*CASES, ("indexed", "jpeg")])


@pytest.fixture(scope="module")
def datasets(shared_raw, tmp_path_factory):
    root = tmp_path_factory.mktemp("verify")
    found = {}
    for name, encoding in CASES:
        options = Options(formats=(name,), frames=encoding, shard_bytes=9000, workers=1)
        found[name, encoding] = convert(shared_raw, SCENE_SETS[SET], root / encoding, options)[0].folder
    folder = make_raw_folder(root / "indexed" / SET)
    index_raw_folder(open_raw_folder(folder, SCENE_SETS[SET]))
    found["indexed", "jpeg"] = folder
    return found


def dataset_files(folder):
    """Return the files of the dataset, without the notes that the indexer keeps for reruns."""
    return [file for file in tree(folder) if file != "source.json" and not file.endswith(".index.npy.json")]


def faults_of(folder, *, deep=False):
    return verify(folder, SCENE_SETS[SET], deep=deep, workers=1).faults


def report(folder, *, deep=False):
    """Return the faults of a folder, or the error if its manifest cannot be used."""
    try:
        return "\n".join(faults_of(folder, deep=deep))
    except GQNError as error:
        return str(error)


@every_container
def test_sound_data_has_no_faults_and_is_not_changed(name, encoding, datasets):
    folder = datasets[name, encoding]
    before = tree(folder)
    for deep in (False, True):
        found = verify(folder, SCENE_SETS[SET], deep=deep, workers=1)
        assert found.faults == ()
        assert found.frames == (9 * 3 if deep else 0)
        assert found.bytes == sum(len(before[file]) for file in dataset_files(folder))
    assert tree(folder) == before


def test_two_workers_find_the_same_faults_as_one(datasets, tmp_path):
    folder = shutil.copytree(datasets["webdataset", "jpeg"], tmp_path / SET)
    for path in list(folder.glob("*.tar"))[:2]:
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    one = verify(folder, SCENE_SETS[SET], deep=True, workers=1)
    assert len(one.faults) >= 2
    assert verify(folder, SCENE_SETS[SET], deep=True, workers=2) == one


@every_container
@given(data=st.data())
@settings(max_examples=40)
def test_any_changed_byte_is_reported_with_its_file(name, encoding, data, datasets):
    folder = datasets[name, encoding]
    path = folder / data.draw(st.sampled_from(dataset_files(folder)))
    good = path.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bad)
    try:
        said = report(folder)
    finally:
        path.write_bytes(good)
    assert str(path) in said


@every_container
@pytest.mark.parametrize("damage", ["missing", "cut", "longer", "empty", "foreign"])
def test_replaced_and_missing_files_are_reported(damage, name, encoding, datasets, tmp_path):
    folder = shutil.copytree(datasets[name, encoding], tmp_path / SET)
    for file in dataset_files(folder):
        path = folder / file
        data = path.read_bytes()
        if file == "manifest.json":
            continue
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes({"cut": data[:-1], "longer": data + b"\0", "empty": b"", "foreign": b"<html>"}[damage])
        assert str(path) in report(folder)
        path.write_bytes(data)
    assert faults_of(folder) == ()


def test_every_fault_is_reported_and_not_only_the_first(datasets, tmp_path):
    folder = shutil.copytree(datasets["numpy", "raw"], tmp_path / SET)
    paths = sorted(folder.rglob("*.npy"))
    for path in paths[:4]:
        path.unlink()
    faults = faults_of(folder)
    assert len(faults) == 4
    assert all("\n" not in fault for fault in faults)


def test_other_files_in_the_folder_are_ignored(datasets, tmp_path):
    folder = shutil.copytree(datasets["zarr", "jpeg"], tmp_path / SET)
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "train" / "notes.txt").write_bytes(b"x")
    assert faults_of(folder, deep=True) == ()


# Raw folders.


def test_a_raw_folder_is_checked_record_by_record(raw):
    found = verify(raw, SCENE_SETS[SET], workers=1)
    assert (found.files, found.scenes, found.frames, found.faults) == (3, 9, 0, ())
    assert verify(raw, SCENE_SETS[SET], deep=True, workers=1).frames == 27
    path = raw / "train" / "001-of-900.tfrecord"
    data = bytearray(path.read_bytes())
    size = 16 + int.from_bytes(data[:8], "little")
    data[size + 60] ^= 1
    data[3 * size + 60] ^= 1
    path.write_bytes(data)
    found = verify(raw, SCENE_SETS[SET], workers=1)
    assert found.scenes == 7
    assert len(found.faults) == 2
    for number, fault in zip((1, 3), found.faults):
        assert fault.startswith(f"{path}: record {number} at byte {number * size}:")


@given(data=st.data())
@settings(max_examples=60)
def test_any_changed_byte_of_a_raw_file_is_reported(data, datasets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw") / SET
    make_raw_folder(folder, train=(2,), test=())
    path = folder / "train" / "001-of-900.tfrecord"
    bad = bytearray(path.read_bytes())
    bad[data.draw(st.integers(0, len(bad) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bad)
    assert str(path) in report(folder)


def test_a_folder_with_nothing_to_check_is_an_error(tmp_path):
    with pytest.raises(SourceMissing):
        faults_of(tmp_path)


# Faults that checksums do not show.


def test_only_a_deep_check_finds_a_frame_that_cannot_be_decoded(raw):
    frames = list(made_scene(9).frames)
    middle = len(frames[2]) // 2
    frames[2] = frames[2][: middle - 60] + frames[2][middle:]
    path = raw / "train" / "003-of-900.tfrecord"
    write_source_file(path, [made_scene(8), made_scene(9)._replace(frames=tuple(frames))])
    assert faults_of(raw) == ()
    (fault,) = faults_of(raw, deep=True)
    assert fault.startswith(f"{path}: record 1 at byte ")
    assert "view 2" in fault


def test_a_camera_that_is_not_finite_is_found_and_not_converted(raw, tmp_path, faults):
    path = raw / "train" / "003-of-900.tfrecord"
    path.write_bytes(framed([serialize_bad_camera(made_scene(9), view=1)]))
    for deep in (False, True):
        (fault,) = faults_of(raw, deep=deep)
        assert fault.startswith(f"{path}: record 0 at byte ")
        assert "view 1" in fault
        assert "not finite" in fault
    row = SCENE_SETS[SET]
    tries = 0
    for name in WRITABLE:
        with pytest.raises(CorruptRecord, match="not finite"):
            convert(raw, row, tmp_path / name, Options(formats=(name,), workers=1))
        tries += 1
        skipped = Options(formats=(name,), workers=1, on_corrupt="skip")
        made = convert(raw, row, tmp_path / name, skipped)[0]
        assert made.manifest.splits["train"].scenes == 7
        assert made.manifest.splits["train"].sources[2].skipped[0].record == 0
    with pytest.raises(CorruptRecord, match="not finite"):
        index_raw_folder(open_raw_folder(raw, row))
    faults.record(
        "found in use: cameras that are not finite",
        holds="convert and index refuse or skip the record; it never reaches a training",
        tries=tries + 1,
        survived=tries + 1,
    )


@pytest.mark.parametrize("source", ["zarr", "numpy", "webdataset", "tfrecord"])
def test_a_converted_camera_that_is_not_finite_is_not_converted_again(raw, tmp_path, monkeypatch, source):
    (raw / "train" / "003-of-900.tfrecord").write_bytes(framed([serialize_bad_camera(made_scene(9), view=1)]))
    row = SCENE_SETS[SET]
    with monkeypatch.context() as older:  # as versions before 0.3 converted it
        for module in (shard_task, example):
            older.setattr(module, "check_finite", lambda _: None)
        folder = convert(raw, row, tmp_path / "old", Options(formats=(source,), workers=1))[0].folder
    (fault,) = faults_of(folder, deep=True)
    assert "view 1" in fault
    assert "not finite" in fault
    with pytest.raises(GQNError, match="not finite"):
        convert(folder, row, tmp_path / "new", Options(formats=("zarr",), workers=1))


def test_real_mazes_have_no_faults(mazes):
    found = verify(mazes, SCENE_SETS["mazes"], workers=1)
    assert (found.files, found.scenes, found.faults) == (3, 12, ())


def jpeg_of_many_scans(size):
    data = jpeg(np.zeros((size, size, 3), np.uint8), progressive=True)
    at, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:at] + data[at:end] * 6000 + data[end:]


@pytest.mark.parametrize("container", ["source files", "zarr", "webdataset", "tfrecord"])
def test_jpegs_of_thousands_of_scans_are_refused_quickly(container, tmp_path, faults):
    size = 1024
    raw = make_raw_folder(tmp_path / "raw" / SET, train=(1,), test=(), views=2, size=size)
    path = raw / "train" / "001-of-900.tfrecord"
    path.write_bytes(framed([example_bytes([jpeg_of_many_scans(size)] * 2, np.zeros((2, 5)))]))
    row = SCENE_SETS[SET]
    if container == "source files":
        index_raw_folder(open_raw_folder(raw, row))
        folder = raw
    else:
        folder = convert(raw, row, tmp_path, Options(formats=(container,), workers=1))[0].folder
    found = verify(folder, row, deep=True, workers=1).faults
    assert len(found) == 1
    assert "scans" in str(found[0])
    survived = 1
    scenes = open_dataset(folder)
    reads = [
        lambda: scenes[0].frames,
        lambda: scenes.decode_into(0, range(2), np.zeros((2, size, size, 3), np.uint8)),
        lambda: convert(folder, row, tmp_path / "out", Options(formats=("numpy",), workers=1)),
    ]
    for read in reads:
        with pytest.raises(GQNError, match="scans"):
            read()
        survived += 1
    faults.record(
        "found in use: JPEGs of thousands of scans",
        holds="refused before it is decoded",
        tries=1 + len(reads),
        survived=survived,
    )
