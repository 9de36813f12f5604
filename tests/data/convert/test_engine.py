"""The engine of conversions: the growing plan equals the complete one; lost executors are reported."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_scenes import SET, SIZE, VIEWS, tree

from gqn_data.convert import convert
from gqn_data.convert.incremental_plan import IncomingFile, IncrementalPlan, Output
from gqn_data.convert.index import IndexedFile, manifest_of
from gqn_data.convert.journal import WorkFolder
from gqn_data.convert.plan import Options, Source, convert_frames_row, limited, make_plan
from gqn_data.convert.run import plan_only
from gqn_data.errors import WorkerLost
from gqn_data.formats import FORMATS
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.schema.manifest import FileRow, SourceRow
from gqn_data.schema.origin import Origin
from gqn_data.sources.raw_folder import RawFolder, SourceFile

ROW = SCENE_SETS[SET]


class EmptyWorkFolder(WorkFolder):
    """A work folder without finished shards."""

    def row_of(self, shard, kind):
        return None


def incoming(tmp_path, split, number, scenes):
    name = ROW.source_name(split, number)
    size = 1000 * max(1, scenes)
    source = SourceFile(path=tmp_path / name, name=name, bytes=size, expected_scenes=20)
    row = SourceRow(name=name, bytes=size, scenes=scenes, expected_scenes=20)
    return IncomingFile(split=split, source=source), IndexedFile(
        source=row, index=FileRow(name=name, bytes=0, sha256=None)
    )


@given(
    train=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    test=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    limit=st.none() | st.integers(1, 30),
    shard_bytes=st.sampled_from([1, 4000, 9000, 10**7]),
    order=st.randoms(use_true_random=False),
)
def test_the_plan_grows_to_that_of_complete_counts(tmp_path_factory, train, test, limit, shard_bytes, order):
    folder = tmp_path_factory.getbasetemp()
    train, test = [*train, 1], [*test, 1]  # a split without scenes is an error
    options = Options(formats=("zarr", "numpy"), limit=limit, shard_bytes=shard_bytes, workers=1)
    counts = [("train", number, scenes) for number, scenes in enumerate(train, 1)]
    counts += [("test", number, scenes) for number, scenes in enumerate(test, 1)]
    files = [incoming(folder, *count) for count in counts]
    origin = Origin(kind="rendered", details={"seed": 0, "frame_size": SIZE, "views": VIEWS})
    sources = {split: tuple(file.source for file, _ in files if file.split == split) for split in ("train", "test")}
    raw = RawFolder(folder=folder, scene_set=ROW, origin=origin, files=sources)
    manifest = manifest_of(raw, {}, limit)

    def output(name):
        frames = convert_frames_row(manifest.frames, FORMATS[name], options)
        return Output(kind=FORMATS[name], folder=folder, frames=frames, work=EmptyWorkFolder(folder))

    outputs = [output(name) for name in options.formats]
    plan = IncrementalPlan(outputs, options, manifest, [file for file, _ in files])
    arriving = files.copy()
    order.shuffle(arriving)
    for file, counted in arriving:
        file.counted = counted
        plan.advance()
    found = {}
    for file, counted in files:
        if not file.beyond_limit:
            found.setdefault(file.split, []).append(counted)
    source = Source(folder=folder, manifest=limited(manifest_of(raw, found, limit), options))
    for each in outputs:
        expected = make_plan(source, each.kind.name, folder, options).shards
        assert [shard for owner, shard in plan.queue if owner is each] == list(expected)
        for shard in expected:
            holding = plan.files_of(shard)
            assert sum(file.scenes for file in holding) >= shard.scenes
            assert all(plan.is_needed(file) and file.scenes for file in holding)


class ClosesItself(ThreadPoolExecutor):
    """Runs one task when all are submitted, then shuts down and cancels the others."""

    def __init__(self, tasks):
        super().__init__(1)
        self.left, self.all_submitted = tasks, threading.Event()

    def submit(self, fn, /, *args, **kwargs):
        def close_after(*args, **kwargs):
            self.all_submitted.wait(60)
            try:
                return fn(*args, **kwargs)
            finally:
                self.shutdown(wait=False, cancel_futures=True)

        future = super().submit(close_after, *args, **kwargs)
        self.left -= 1
        if not self.left:
            self.all_submitted.set()
        return future


def test_a_shut_down_executor_is_reported_and_finished_shards_are_kept(shared_raw, tmp_path):
    # From a dataset, whose scenes need no counting: the executor gets only shards.
    numpy = Options(formats=("numpy",), workers=1)
    source = convert(shared_raw, ROW, tmp_path / "source", numpy)[0].folder
    options = Options(formats=("zarr",), shard_bytes=3000, workers=1)
    shards = len(plan_only(source, ROW, tmp_path / "cut", options)[0].shards)
    assert 2 < shards <= 16  # all are submitted before the first ends
    with pytest.raises(WorkerLost, match="shut down"):
        convert(source, ROW, tmp_path / "cut", options, executor=ClosesItself(shards))
    assert convert(source, ROW, tmp_path / "cut", options)[0].kept == 1
    convert(source, ROW, tmp_path / "whole", options)
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")
