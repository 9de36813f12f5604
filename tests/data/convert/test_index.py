"""Indexes of source files: their content, when they are rebuilt, and the worker pools that build them."""

import json
import os
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
from made_scenes import SET, made_scene, rendered, scenes_from, tree, write_source_file
from worker_tasks import die_at_three, fail_at_three, ignores_interrupts, slowly

from gqn_data.convert import index as indexing
from gqn_data.convert.index import index_raw_folder, index_source_files
from gqn_data.dataset import open_dataset
from gqn_data.errors import CorruptRecord, DestinationError, SourceMissing, WorkerLost
from gqn_data.executors.pool import map_in_order, open_pool
from gqn_data.inspect.info import describe
from gqn_data.io.atomic import exclusive_writer
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.schema.manifest import read_manifest
from gqn_data.sources.raw_folder import open_raw_folder

ROW = SCENE_SETS[SET]


def index(raw, **options):
    return index_raw_folder(open_raw_folder(raw, ROW), **options)


def test_an_index_locates_every_frame(raw):
    index(raw)
    at = 0
    for name in ("001", "002"):
        data = (raw / f"train/{name}-of-900.tfrecord").read_bytes()
        for row in np.load(raw / f"train/{name}-of-900.index.npy"):
            made = made_scene(at)
            found = [
                data[offset : offset + length] for offset, length in zip(row["offset"].tolist(), row["length"].tolist())
            ]
            assert found == list(made.frames)
            assert row["cameras"].tobytes() == made.cameras.tobytes()
            assert int.from_bytes(data[int(row["record"]) :][:8], "little") == row["size"] - 16
            at += 1
    assert at == 7


def test_indexing_makes_a_dataset_and_leaves_the_source_files_unchanged(raw):
    before = tree(raw)
    index(raw)
    after = tree(raw)
    assert {name: after[name] for name in before} == before
    assert len(open_dataset(raw)) == 7
    assert read_manifest(raw).origin.kind == "rendered"


def test_the_number_of_workers_does_not_change_the_index(raw, tmp_path):
    index(raw)
    one = tree(raw)
    for path in raw.rglob("*index*"):
        path.unlink()
    (raw / "manifest.json").unlink()
    index(raw, workers=2)
    assert tree(raw) == one


def test_unchanged_files_are_not_read_again(raw, monkeypatch):
    index(raw)
    before = tree(raw)
    read = []
    real = indexing.read_records
    monkeypatch.setattr(indexing, "read_records", lambda path, *rest: read.append(path.name) or real(path, *rest))
    index(raw)
    assert read == []
    assert tree(raw) == before
    write_source_file(raw / "train" / "002-of-900.tfrecord", scenes_from(50, 2))
    index(raw)
    assert read == ["002-of-900.tfrecord"]
    assert [round(float(scene.cameras[0, 0]) / 100) for scene in open_dataset(raw)] == [0, 1, 2, 3, 50, 51]


@pytest.mark.parametrize("damage", ["absent", "cut", "foreign note", "no note"])
def test_a_damaged_index_is_rebuilt(damage, raw):
    index(raw)
    before = tree(raw)
    path = raw / "train" / "001-of-900.index.npy"
    note = path.with_name(path.name + ".json")
    if damage == "absent":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "foreign note":
        note.write_text("[3]")
    else:
        note.unlink()
    index(raw)
    assert tree(raw) == before


def test_another_layout_rebuilds_the_index(raw):
    index(raw)
    (raw / "source.json").write_text(json.dumps(rendered(views=4)))
    with pytest.raises(CorruptRecord, match="3 views, expected 4"):
        index(raw)


def test_failed_indexing_writes_no_manifest(raw):
    path = raw / "train" / "002-of-900.tfrecord"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptRecord):
        index(raw)
    assert not (raw / "manifest.json").exists()


def test_corrupt_records_are_skipped_on_request(raw):
    path = raw / "train" / "001-of-900.tfrecord"
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.write_bytes(data)
    manifest = index(raw, on_corrupt="skip")
    assert manifest.splits["train"].scenes == 6
    assert [row.record for row in manifest.splits["train"].sources[0].skipped] == [0]
    with pytest.raises(CorruptRecord):  # an earlier skip does not hide the fault
        index(raw)


def test_counting_reads_no_payload_and_writes_nothing(raw):
    path = raw / "train" / "001-of-900.tfrecord"
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.write_bytes(data)
    before = tree(raw)
    manifest = index_source_files(open_raw_folder(raw, ROW), None)
    assert manifest.splits["train"].scenes == 7
    assert describe(raw, ROW).bytes == sum(len(data) for name, data in before.items() if name.endswith(".tfrecord"))
    assert tree(raw) == before


def test_a_missing_split_is_refused(raw):
    (raw / "test" / "001-of-100.tfrecord").unlink()
    with pytest.raises(SourceMissing, match="split test"):
        index_source_files(open_raw_folder(raw, ROW), None, splits=("test",))


def test_two_runs_at_once_are_refused(raw):
    with exclusive_writer(raw), pytest.raises(DestinationError, match="another run"):
        index(raw)


# Workers.


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_tasks(workers):
    with open_pool(workers) as executor:
        found = list(map_in_order(executor, slowly, range(12), 4))
        assert [number for number, _ in found] == list(range(12))
        assert (os.getpid() in {process for _, process in found}) == (workers == 1)


def test_the_number_of_pending_tasks_is_bounded():
    class Ready:
        def submit(self, function, task):
            return type("Done", (), {"result": lambda _: function(task)})()

    taken = []
    tasks = (taken.append(number) or number for number in range(100))
    for number in map_in_order(Ready(), lambda task: task, tasks, 5):
        assert len(taken) <= number + 5


def test_worker_errors_arrive_unchanged_and_workers_ignore_ctrl_c():
    with open_pool(2) as executor:
        with pytest.raises(CorruptRecord, match="file: record 3 at byte 7: made for the test") as caught:
            list(map_in_order(executor, fail_at_three, range(6), 4))
        assert (caught.value.record, caught.value.offset) == (3, 7)
        assert list(map_in_order(executor, ignores_interrupts, range(3), 4)) == [True] * 3


def test_a_killed_worker_is_reported():
    with open_pool(2) as executor, pytest.raises(WorkerLost, match="killed, or out of memory"):
        list(map_in_order(executor, die_at_three, range(6), 4))


def test_a_pool_that_broke_before_a_task_was_submitted_is_reported():
    class Broken(Executor):
        def submit(self, *_, **__):
            raise BrokenProcessPool("a child process terminated abruptly")

    with pytest.raises(WorkerLost, match="--workers"):
        list(map_in_order(Broken(), abs, [1], 2))
