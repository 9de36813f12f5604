"""Conversion of a folder: the same bytes for any number of workers, after interruptions and faults."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_scenes import SET, framed, made_scene, make_raw_folder, scenes_from, tree, write_source_file

from gqn_data.convert import convert, engine
from gqn_data.convert.index import index_raw_folder, index_source_files
from gqn_data.convert.plan import Options
from gqn_data.convert.run import plan_only
from gqn_data.dataset import open_dataset
from gqn_data.errors import (
    CorruptFraming,
    CorruptRecord,
    DestinationError,
    NoSpace,
    OptionError,
    SourceMissing,
    UnknownName,
)
from gqn_data.formats import WRITABLE, shards, webdataset_tars
from gqn_data.formats.tfrecord_files import scenes_in_sequence
from gqn_data.io import atomic
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.schema.manifest import read_manifest
from gqn_data.sources.raw_folder import open_raw_folder

SMALL = 3000  # bytes per shard: one or two scenes


def run(source, root, **options):
    options = {"formats": ("zarr",), "workers": 1, "shard_bytes": SMALL, **options}
    return convert(source, SCENE_SETS[SET], root, Options(**options))


def convert_one(source, root, **options):
    return run(source, root, **options)[0].folder


def numbers_of(folder, split="train"):
    """Return the numbers of the made scenes in a dataset, from their cameras."""
    return [round(float(scene.cameras[0, 0]) / 100) for scene in open_dataset(folder, split)]


def damaged(path, record, where="payload"):
    """Flip one bit of one record of a TFRecord, and return the record's offset."""
    data = bytearray(path.read_bytes())
    at = 0
    for _ in range(record):
        at += 16 + int.from_bytes(data[at : at + 8], "little")
    data[at + (40 if where == "payload" else 3)] ^= 4
    path.write_bytes(data)
    return at


# The same bytes.


@pytest.mark.parametrize("name", WRITABLE)
def test_the_bytes_do_not_depend_on_the_number_of_workers(name, shared_raw, tmp_path):
    one = tree(convert_one(shared_raw, tmp_path / "one", formats=(name,)))
    assert name == "mirror" or sum(file.startswith("train") for file in one) > 8  # several shards
    for workers in (2, 3) if name == "zarr" else (2,):
        assert tree(convert_one(shared_raw, tmp_path / str(workers), formats=(name,), workers=workers)) == one


def test_the_bytes_do_not_depend_on_the_sizes_of_blocks(shared_raw, tmp_path, monkeypatch):
    before = [tree(result.folder) for result in run(shared_raw, tmp_path / "usual", formats=WRITABLE, shard_bytes=9999)]
    monkeypatch.setattr(atomic.ChecksummedFile, "_BLOCK", 100)
    monkeypatch.setattr(atomic.ChecksummedFile, "_FLUSH_EVERY", 500)
    monkeypatch.setattr(shards, "_BLOCK_BYTES", 5000)
    monkeypatch.setattr(webdataset_tars, "_HEADERS_AT_ONCE", 3)
    after = [tree(result.folder) for result in run(shared_raw, tmp_path / "small", formats=WRITABLE, shard_bytes=9999)]
    assert before == after


def test_the_bytes_do_not_depend_on_time_or_path(shared_raw, tmp_path):
    here = tree(convert_one(shared_raw, tmp_path / "here"))
    moved = shutil.copytree(shared_raw, tmp_path / "elsewhere" / "sm5")
    for path in moved.rglob("*"):
        os.utime(path, (1, 1))
    assert tree(convert_one(moved, tmp_path / "there")) == here


def test_all_containers_at_once_are_those_made_one_by_one(shared_raw, tmp_path):
    for result in run(shared_raw, tmp_path / "all", formats=WRITABLE):
        single = convert_one(shared_raw, tmp_path / "single", formats=(result.manifest.format,))
        assert tree(result.folder) == tree(single)


@pytest.mark.parametrize("name", WRITABLE)
def test_shards_do_not_depend_on_the_sizes_of_source_files(name, tmp_path):
    found = []
    for counts in ((7,), (4, 3), (1, 1, 3, 2)):
        raw = make_raw_folder(tmp_path / str(len(counts)) / SET, train=counts)
        # Shards large enough for several scenes, so that they cross the borders of the source files.
        folder = convert_one(raw, tmp_path / f"root{len(counts)}", formats=(name,), shard_bytes=9000)
        assert numbers_of(folder) == list(range(7))
        files = tree(folder)
        for about in ("manifest.json", "SHA256SUMS", "README.md", "croissant.json"):
            del files[about]  # they describe the source files
        found.append(files)
    assert found[0] == found[1] == found[2]


def test_an_indexed_folder_converts_to_the_same_bytes(raw, tmp_path):
    before = tree(convert_one(raw, tmp_path / "before"))
    index_raw_folder(open_raw_folder(raw, SCENE_SETS[SET]))
    assert tree(convert_one(raw, tmp_path / "after")) == before


def test_every_shard_but_the_last_holds_the_same_number_of_scenes(shared_raw, tmp_path):
    row = read_manifest(convert_one(shared_raw, tmp_path, shard_bytes=7000)).splits["train"]
    counts = [shard.scenes for shard in row.shards]
    assert len(counts) > 1
    assert set(counts[:-1]) == {row.scenes_per_shard}
    assert 1 <= counts[-1] <= row.scenes_per_shard
    assert sum(counts) == 7


# Options.


def test_the_source_is_only_read(raw, tmp_path):
    before = tree(raw)
    run(raw, tmp_path / "out", formats=WRITABLE)
    assert tree(raw) == before


def test_only_the_datasets_are_left(shared_raw, tmp_path):
    run(shared_raw, tmp_path / "out", formats=("zarr", "webdataset"), on_corrupt="skip")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["webdataset", "zarr"]
    assert not [name for name in tree(tmp_path) if name.endswith((".partial", ".lock"))]


def test_a_limit_takes_the_first_scenes_of_each_split(shared_raw, tmp_path):
    folder = convert_one(shared_raw, tmp_path, limit=5)
    assert numbers_of(folder) == [0, 1, 2, 3, 4]
    assert numbers_of(folder, "test") == [1000, 1001]
    assert read_manifest(folder).limit == 5


def test_files_past_the_limit_are_not_read(raw, tmp_path):
    (raw / "train" / "002-of-900.tfrecord").write_bytes(b"")
    assert numbers_of(convert_one(raw, tmp_path / "out", limit=4)) == [0, 1, 2, 3]


def test_one_split_can_be_converted(shared_raw, tmp_path):
    folder = convert_one(shared_raw, tmp_path, splits=("test",))
    assert list(read_manifest(folder).splits) == ["test"]
    assert numbers_of(folder, "test") == [1000, 1001]
    assert not (folder / "train").exists()
    with pytest.raises(OptionError, match=r"found test .*expected train"):
        convert_one(folder, tmp_path / "again", splits=("train",))


def test_a_set_with_missing_files_is_converted_and_lists_its_files(tmp_path):
    raw = make_raw_folder(tmp_path / SET, train=(2, 3), numbers=(1, 3))
    folder = convert_one(raw, tmp_path / "root")
    assert numbers_of(folder) == [0, 1, 2, 3, 4]
    row = read_manifest(folder).splits["train"]
    assert [(source.name, source.scenes, source.expected_scenes) for source in row.sources] == [
        ("train/001-of-900.tfrecord", 2, 20),
        ("train/003-of-900.tfrecord", 3, 20),
    ]
    assert (row.expected_files, row.expected_scenes) == (900, 810_000)


def test_the_manifest_keeps_the_origin(shared_raw, tmp_path):
    origin = read_manifest(convert_one(shared_raw, tmp_path)).origin
    assert origin.kind == "rendered"
    assert origin.details == {"seed": 5, "frame_size": 16, "views": 3}


def test_a_dry_run_writes_nothing_and_returns_the_plans_of_a_run(shared_raw, tmp_path):
    options = Options(formats=WRITABLE, shard_bytes=SMALL, workers=1)
    plans = plan_only(shared_raw, SCENE_SETS[SET], tmp_path / "out", options)
    assert tree(tmp_path) == {}
    assert not (tmp_path / "out").exists()
    for plan, result in zip(plans, run(shared_raw, tmp_path / "out", formats=WRITABLE)):
        assert plan.folder == result.folder
        written = [
            row.name for split in result.manifest.splits.values() for shard in split.shards for row in shard.files
        ]
        if result.manifest.format == "mirror":
            written = [f"{name}.unfinished" for name in written]
        assert plan.names() == written
        actual = sum(row.bytes for row in result.manifest.all_files())
        assert plan.stored_bytes > actual / 3  # in small sets, metadata and padding take much of it


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"formats": ("zip",)}, UnknownName),
        ({"jpeg_quality": 0}, OptionError),
        ({"jpeg_quality": 101}, OptionError),
        ({"limit": 0}, OptionError),
        ({"limit": -1}, OptionError),
        ({"shard_bytes": 0}, OptionError),
        ({"workers": 0}, OptionError),
    ],
)
def test_invalid_options_are_refused(options, error):
    with pytest.raises(error, match=r"format|expected"):
        Options(**options)


def test_a_dataset_is_not_converted_into_itself(shared_raw, tmp_path):
    folder = convert_one(shared_raw, tmp_path)
    before = tree(tmp_path)
    with pytest.raises(DestinationError, match="source and destination"):
        convert_one(folder, tmp_path, overwrite=True)
    assert tree(tmp_path) == before


def test_a_missing_source_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(SourceMissing, match="no such folder"):
        convert_one(tmp_path / "nowhere", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# Corrupt records.


def test_a_corrupt_record_stops_a_conversion_and_is_named(raw, tmp_path):
    offset = damaged(raw / "train" / "001-of-900.tfrecord", 2)
    with pytest.raises(CorruptRecord) as caught:
        convert_one(raw, tmp_path / "out")
    assert (Path(caught.value.file).name, caught.value.record, caught.value.offset) == (
        "001-of-900.tfrecord",
        2,
        offset,
    )
    assert not (tmp_path / "out" / "zarr" / SET / "manifest.json").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_corrupt_record_is_skipped_on_request_and_listed(workers, raw, tmp_path):
    offset = damaged(raw / "train" / "001-of-900.tfrecord", 2)
    folder = convert_one(raw, tmp_path / "out", on_corrupt="skip", workers=workers)
    assert numbers_of(folder) == [0, 1, 3, 4, 5, 6]
    first, second = read_manifest(folder).splits["train"].sources
    assert (first.scenes, second.scenes, second.skipped) == (3, 3, ())
    assert [(row.record, row.offset) for row in first.skipped] == [(2, offset)]
    assert "checksum" in first.skipped[0].reason


def test_records_after_broken_framing_are_skipped_and_listed(raw, tmp_path):
    offset = damaged(raw / "train" / "001-of-900.tfrecord", 1, "header")
    folder = convert_one(raw, tmp_path / "out", on_corrupt="skip")
    assert numbers_of(folder) == [0, 4, 5, 6]
    skipped = read_manifest(folder).splits["train"].sources[0].skipped
    assert [(row.record, row.offset) for row in skipped] == [(1, offset)]


def test_a_record_that_is_not_a_scene_is_skipped_on_request(tmp_path):
    raw = make_raw_folder(tmp_path / SET, train=(1,))
    path = raw / "train" / "002-of-900.tfrecord"
    write_source_file(path, [made_scene(1), made_scene(2, views=4), made_scene(3, size=24), made_scene(4)])
    path.write_bytes(path.read_bytes() + framed([b"no scene at all"]))
    folder = convert_one(raw, tmp_path / "out", on_corrupt="skip")
    assert numbers_of(folder) == [0, 1, 4]
    skipped = read_manifest(folder).splits["train"].sources[1].skipped
    assert [row.record for row in skipped] == [1, 2, 4]
    assert [part for part, row in zip(("4 views", "24x24", ""), skipped) if part in row.reason] == [
        "4 views",
        "24x24",
        "",
    ]


def test_an_index_with_skipped_records_is_used_only_with_skip(raw, tmp_path):
    damaged(raw / "train" / SCENE_SETS[SET].train.file_name(1), 2)
    index_raw_folder(open_raw_folder(raw, SCENE_SETS[SET]), on_corrupt="skip")
    with pytest.raises(CorruptRecord, match="record 2"):
        run(raw, tmp_path / "out")
    assert numbers_of(convert_one(raw, tmp_path / "out", on_corrupt="skip"))
    assert run(raw, tmp_path / "out", on_corrupt="skip")[0].written == 0


def test_a_dataset_with_skipped_records_is_not_taken_for_a_complete_one(raw, tmp_path):
    damaged(raw / "train" / "001-of-900.tfrecord", 2)
    convert_one(raw, tmp_path / "out", on_corrupt="skip")
    assert run(raw, tmp_path / "out", on_corrupt="skip")[0].written == 0
    with pytest.raises(DestinationError, match="--overwrite"):
        run(raw, tmp_path / "out")


def test_an_undecodable_frame_is_named_by_file_scene_and_view(raw, tmp_path):
    frames = list(made_scene(9).frames)
    middle = len(frames[1]) // 2
    frames[1] = frames[1][: middle - 60] + frames[1][middle:]  # begins and ends like a complete frame
    scenes = [made_scene(8), made_scene(9)._replace(frames=tuple(frames))]
    write_source_file(raw / "train" / "002-of-900.tfrecord", scenes)
    with pytest.raises(Exception, match=r"002-of-900\.tfrecord: scene 1 of the file: view 1: .*cannot be decoded"):
        convert_one(raw, tmp_path / "out", formats=("numpy",), shard_bytes=10**6)


def test_a_source_file_that_shrank_after_counting_is_reported(raw):
    manifest = index_source_files(open_raw_folder(raw, SCENE_SETS[SET]), None)
    write_source_file(raw / "train" / "001-of-900.tfrecord", scenes_from(0, 2))
    with pytest.raises(CorruptFraming, match=r"001-of-900.*expected 4 records"):
        list(scenes_in_sequence(raw, manifest, "train", 0, 7))


# Interrupted runs and reruns.


def test_a_rerun_of_a_complete_conversion_changes_nothing(shared_raw, tmp_path):
    folder = convert_one(shared_raw, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    result = run(shared_raw, tmp_path)[0]
    assert (result.written, result.kept) == (0, sum(len(row.shards) for row in result.manifest.splits.values()))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("name", sorted(set(WRITABLE) - {"mirror"}))
def test_only_missing_shards_are_written_again(name, shared_raw, tmp_path):
    folder = convert_one(shared_raw, tmp_path, formats=(name,))
    whole = tree(folder)
    shards = read_manifest(folder).splits["train"].shards
    (folder / shards[1].files[0].name).unlink()
    path = folder / shards[3].files[-1].name
    path.write_bytes(path.read_bytes()[:-1])
    result = run(shared_raw, tmp_path, formats=(name,))[0]
    assert result.written == 2
    assert tree(folder) == whole


def test_missing_metadata_is_written_again(shared_raw, tmp_path):
    folder = convert_one(shared_raw, tmp_path)
    whole = tree(folder)
    (folder / "train" / "frames" / "zarr.json").unlink()
    assert run(shared_raw, tmp_path)[0].written == 0
    assert tree(folder) == whole


def cut_off(monkeypatch, after):
    """Interrupt a conversion, as Ctrl-C does, after this number of shards."""
    left = [after]
    write = engine.write_shard

    def until(task):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return write(task)

    monkeypatch.setattr(engine, "write_shard", until)


@pytest.mark.parametrize("after", [0, 1, 3, 6])
def test_an_interrupted_run_resumes(after, shared_raw, tmp_path, monkeypatch):
    whole = tree(convert_one(shared_raw, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        cut_off(patch, after)
        with pytest.raises(KeyboardInterrupt):
            run(shared_raw, tmp_path / "cut")
    folder = tmp_path / "cut" / "zarr" / SET
    assert not (folder / "manifest.json").exists()
    result = run(shared_raw, tmp_path / "cut")[0]
    assert result.kept == after
    assert tree(folder) == whole
    assert not (tmp_path / "cut" / ".work").exists()


def test_an_interruption_before_the_manifest_keeps_all_shards(shared_raw, tmp_path, monkeypatch):
    whole = tree(convert_one(shared_raw, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(engine, "publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(shared_raw, tmp_path / "cut")
    result = run(shared_raw, tmp_path / "cut")[0]
    assert result.written == 0
    assert tree(result.folder) == whole


def test_a_rerun_tidies_up_after_an_interruption_past_the_manifest(shared_raw, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(engine.WorkFolder, "remove", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(shared_raw, tmp_path)
    assert run(shared_raw, tmp_path)[0].written == 0
    assert not (tmp_path / ".work").exists()


def test_a_missing_checksum_file_is_written_again(shared_raw, tmp_path):
    folder = convert_one(shared_raw, tmp_path)
    whole = tree(folder)
    (folder / "SHA256SUMS").unlink()
    assert run(shared_raw, tmp_path)[0].written == 0
    assert tree(folder) == whole


@pytest.mark.parametrize("other", [{"shard_bytes": 10**6}, {"limit": 2}, {"frames": "raw"}, {"splits": ("test",)}])
def test_files_of_another_interrupted_plan_are_removed(other, shared_raw, tmp_path, monkeypatch):
    whole = tree(convert_one(shared_raw, tmp_path / "whole", **other))
    with monkeypatch.context() as patch:
        cut_off(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            run(shared_raw, tmp_path / "cut")
    (tmp_path / "cut" / "zarr" / SET / "train" / "frames" / "zarr.json.partial").write_bytes(b"half")
    folder = convert_one(shared_raw, tmp_path / "cut", **other)
    assert tree(folder) == whole


def test_an_interrupted_repair_resumes(shared_raw, tmp_path, monkeypatch):
    folder = convert_one(shared_raw, tmp_path)
    whole = tree(folder)
    for shard in read_manifest(folder).splits["train"].shards[:4]:
        (folder / shard.files[0].name).unlink()
    with monkeypatch.context() as patch:
        cut_off(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            run(shared_raw, tmp_path)
    result = run(shared_raw, tmp_path)[0]
    assert result.written == 2
    assert tree(folder) == whole


@pytest.mark.parametrize("other", [{"limit": 2}, {"shard_bytes": 10**6}, {"splits": ("test",)}, {"frames": "raw"}])
def test_another_dataset_is_replaced_only_with_overwrite(other, shared_raw, tmp_path):
    folder = convert_one(shared_raw, tmp_path)
    before = tree(folder)
    with pytest.raises(DestinationError, match=r"other source files or options.*--overwrite"):
        run(shared_raw, tmp_path, **other)
    assert tree(folder) == before
    assert not (tmp_path / ".work").exists()
    run(shared_raw, tmp_path, **other, overwrite=True)
    assert tree(folder) == tree(convert_one(shared_raw, tmp_path / "fresh", **other))


def test_other_source_files_are_another_dataset(raw, tmp_path):
    folder = convert_one(raw, tmp_path / "out")
    write_source_file(raw / "train" / "003-of-900.tfrecord", scenes_from(7, 1))
    with pytest.raises(DestinationError, match="--overwrite"):
        run(raw, tmp_path / "out")
    assert numbers_of(folder) == list(range(7))
    run(raw, tmp_path / "out", overwrite=True)
    assert numbers_of(folder) == list(range(8))


def test_a_damaged_manifest_is_replaced_only_with_overwrite(shared_raw, tmp_path):
    folder = convert_one(shared_raw, tmp_path)
    whole = tree(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(DestinationError, match=r"unusable.*--overwrite"):
        run(shared_raw, tmp_path)
    run(shared_raw, tmp_path, overwrite=True)
    assert tree(folder) == whole


def test_a_second_run_at_the_same_time_is_refused(shared_raw, tmp_path):
    with (
        atomic.exclusive_writer(tmp_path / ".work" / SET),
        pytest.raises(DestinationError, match="another run is writing there"),
    ):
        run(shared_raw, tmp_path)
    assert not (tmp_path / "zarr").exists()
    run(shared_raw, tmp_path)  # the lock was released


# Disks.


def test_a_full_disk_is_reported_before_anything_is_written(shared_raw, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6 - 100, 100))
    with pytest.raises(NoSpace, match=r"would be written and 100 B are free"):
        run(shared_raw, tmp_path / "out")
    assert not [name for name in tree(tmp_path) if ".work" not in name]


def test_a_disk_without_space_for_the_new_dataset_keeps_the_old_one(shared_raw, tmp_path, monkeypatch):
    old = tree(convert_one(shared_raw, tmp_path / "out", formats=("zarr",), limit=1))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6 - 100, 100))
    with pytest.raises(NoSpace, match="are free"):
        run(shared_raw, tmp_path / "out", formats=("zarr",), overwrite=True)
    assert tree(tmp_path / "out" / "zarr" / SET) == old


@pytest.mark.parametrize("name", WRITABLE)
@pytest.mark.parametrize("at", [0, 3, 11])
def test_a_disk_that_fills_up_leaves_no_dataset_and_a_rerun_completes_it(name, at, shared_raw, tmp_path, monkeypatch):
    whole = tree(convert_one(shared_raw, tmp_path / "whole", formats=(name,)))
    left = [at]
    sync = os.fsync

    def full(handle):
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(NoSpace, match=r"the disk is full.*run the same command again"):
            run(shared_raw, tmp_path / "full", formats=(name,))
    folder = tmp_path / "full" / name / SET
    assert not (folder / "manifest.json").exists()
    for file, data in tree(folder).items():
        if not file.endswith(".unfinished"):
            assert whole[file] == data  # nothing under a final name is half-written
    run(shared_raw, tmp_path / "full", formats=(name,))
    assert tree(folder) == whole


# DeepMind's mazes.


def test_real_mazes_convert_to_all_containers_alike(mazes, tmp_path):
    results = convert(mazes, SCENE_SETS["mazes"], tmp_path, Options(formats=WRITABLE, workers=1))
    folders = {result.manifest.format: result.folder for result in results}
    for split, count in (("train", 8), ("test", 4)):
        opened = {name: open_dataset(folder, split) for name, folder in folders.items()}
        assert {len(scenes) for scenes in opened.values()} == {count}
        assert len({scenes.fingerprint for scenes in opened.values()}) == 1
        views = [0, 150, 299]
        frames = np.empty((len(folders), 3, 84, 84, 3), np.uint8)
        for number in (0, count - 1):
            for place, scenes in enumerate(opened.values()):
                scenes.decode_into(number, views, frames[place])
                assert np.array_equal(scenes.cameras, opened["zarr"].cameras)
            assert (frames == frames[0]).all()
            assert list(opened["zarr"][number].encoded) == list(opened["webdataset"][number].encoded)
    for result in results:
        actual = sum(row.bytes for row in result.manifest.all_files())
        plan = plan_only(mazes, SCENE_SETS["mazes"], tmp_path, Options(formats=(result.manifest.format,), workers=1))[0]
        assert 0.9 * actual < plan.stored_bytes < 1.1 * actual


def test_json_of_a_manifest_does_not_name_the_machine(shared_raw, tmp_path):
    folder = convert_one(shared_raw, tmp_path)
    text = json.dumps(read_manifest(folder).to_json())
    assert str(tmp_path) not in text
    assert str(shared_raw) not in text
    assert os.uname().nodename not in text
