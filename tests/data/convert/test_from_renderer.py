"""Rendering straight into containers: the bytes of `render` followed by `convert`; interrupted runs resume."""

import dataclasses
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from made_scenes import tree

from gqn_data.convert import convert, engine, from_renderer
from gqn_data.convert.from_renderer import render_containers, render_formats
from gqn_data.convert.plan import Options
from gqn_data.dataset import open_dataset
from gqn_data.errors import DestinationError, OptionError
from gqn_data.executors.job_array import Part
from gqn_data.inspect.verify import verify
from gqn_data.io.paths import parse_path
from gqn_data.render.request import Request
from gqn_data.render.write import render_scene_set
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.schema.manifest import read_manifest

SET = "shepard_metzler_5_parts"  # 20 scenes per source file
SMALL = {"scenes": 60, "frame_size": 17, "views": 2, "supersample": False}
CONTAINERS = ("zarr", "numpy", "webdataset")


def slow(*cases):
    return [pytest.param(case, marks=pytest.mark.slow) for case in cases]


def request(**changes):
    return Request.of(SET, **{**SMALL, **changes})


def options(*formats, **changes):
    """Return options whose shards do not align with source files: three in the first two files."""
    return Options(formats=formats or ("zarr",), **{"shard_bytes": 40_000, "workers": 1, **changes})


def by_way_of_tfrecords(root, wanted, **changes):
    """Return the files of the datasets that render and then convert write, without the TFRecords."""
    folder = render_scene_set(root, SET, workers=1, **{**SMALL, **changes}).folder
    convert(folder, SCENE_SETS[SET], root, wanted)
    return {name: data for name, data in tree(root).items() if not name.startswith("raw/")}


class CutOff(Exception):
    """Stands for a killed process."""


def cut_off(monkeypatch, root, shards, **changes):
    """Interrupt a run before its n-th shard is written."""
    written = itertools.count()
    write_whole = engine.write_shard

    def write_shard(task):
        if next(written) == shards:
            raise CutOff
        return write_whole(task)

    with monkeypatch.context() as patched:
        patched.setattr(engine, "write_shard", write_shard)
        with pytest.raises(CutOff):
            render_containers(request(**changes), root, options("zarr", "numpy"))


@pytest.fixture
def rendered_files(monkeypatch):
    """Return a list that collects the names of the source files rendered in the test."""
    names = []
    render_files = from_renderer.render_files

    def noting(files, *rest, **keywords):
        names.extend(file.name for file in files)
        return render_files(files, *rest, **keywords)

    monkeypatch.setattr(from_renderer, "render_files", noting)
    return names


@pytest.mark.parametrize("formats", [CONTAINERS, *slow(("zarr",), ("numpy",), ("webdataset",))])
def test_the_bytes_are_those_of_render_then_convert(tmp_path, formats):
    done = render_containers(request(), tmp_path / "direct", options(*formats))
    assert tree(tmp_path / "direct") == by_way_of_tfrecords(tmp_path / "by_way", options(*formats))
    assert [result.manifest.format for result in done] == list(formats)
    assert len(done[0].manifest.splits["train"].shards) > 1


@pytest.mark.parametrize(
    "changes", [{"split": "test", "scenes": 1}, *slow({"split": "train", "scenes": 21}, {"scenes": 1})]
)
def test_one_split_or_one_scene_has_the_same_bytes(tmp_path, changes):
    render_containers(request(**changes), tmp_path / "direct", options())
    assert tree(tmp_path / "direct") == by_way_of_tfrecords(tmp_path / "by_way", options(), **changes)


def test_any_executor_renders_the_same_bytes(tmp_path):
    render_containers(request(), tmp_path / "here", options())
    with ThreadPoolExecutor(2) as executor:
        render_containers(request(), tmp_path / "there", options(), executor=executor)
        assert executor.submit(int, 7).result() == 7  # it was not shut down
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


@pytest.mark.slow
def test_two_workers_write_the_bytes_of_one(tmp_path):
    for workers in (1, 2):
        render_containers(request(), tmp_path / str(workers), options("zarr", "numpy", workers=workers))
    assert tree(tmp_path / "2") == tree(tmp_path / "1")


def test_a_store_holds_the_bytes_of_a_disk(tmp_path, s3):
    render_containers(request(), parse_path(s3), options())
    render_containers(request(), tmp_path, options())
    there = {name: (parse_path(s3) / name).read_bytes() for name, _ in parse_path(s3).files()}
    assert there == tree(tmp_path)


def test_tfrecords_are_kept_on_request(tmp_path):
    report, done = render_formats(request(), tmp_path / "both", options("tfrecord", "zarr"))
    assert (report.folder, done[0].folder) == (tmp_path / "both/raw" / SET, tmp_path / "both/zarr" / SET)
    whole = by_way_of_tfrecords(tmp_path / "by_way", options())
    assert {name: data for name, data in tree(tmp_path / "both").items() if name.startswith("zarr")} == whole
    assert tree(tmp_path / "both/raw") == tree(tmp_path / "by_way/raw")


def test_only_few_source_files_are_on_disk_at_a_time(tmp_path, monkeypatch):
    held = []
    render_files = from_renderer.render_files

    def counting(files, folder, *rest, **keywords):
        for file in render_files(files, folder, *rest, **keywords):
            held.append(len(list(folder.rglob("*.tfrecord"))))
            yield file

    monkeypatch.setattr(from_renderer, "render_files", counting)
    render_containers(request(scenes=200, split="train"), tmp_path, options(shard_bytes=30_000))
    assert len(held) == 10
    assert max(held) <= 3


@pytest.mark.parametrize("shards", [1, 5, *slow(0, 4, 7)])
def test_an_interrupted_run_resumes_and_renders_no_file_twice(tmp_path, monkeypatch, rendered_files, shards):
    render_containers(request(), tmp_path / "whole", options("zarr", "numpy"))
    every = sorted(rendered_files)
    assert len(every) == 4
    rendered_files.clear()
    cut_off(monkeypatch, tmp_path / "cut", shards)
    there = {path.name for path in (tmp_path / "cut").rglob("manifest.json")}
    assert there == set()
    counted = {path.relative_to(tmp_path / "cut/.work" / SET / "rendered") for path in notes(tmp_path / "cut")}
    rendered_files.clear()
    render_containers(request(), tmp_path / "cut", options("zarr", "numpy"))
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")
    assert sorted([*rendered_files, *(str(path).removesuffix(".json") for path in counted)]) == every


def notes(root):
    return root.glob(f".work/{SET}/rendered/*/*.json")


def test_removed_source_files_are_rendered_again(tmp_path, monkeypatch):
    render_containers(request(), tmp_path / "whole", options("zarr", "numpy"))
    cut_off(monkeypatch, tmp_path / "cut", 5)
    for path in (tmp_path / "cut/.work").rglob("*.tfrecord"):
        path.unlink()
    render_containers(request(), tmp_path / "cut", options("zarr", "numpy"))
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")


@pytest.mark.parametrize("change", [{"seed": 1}, *slow({"views": 3}, {"scenes": 61}, {"quality": 90})])
def test_files_of_another_interrupted_run_are_not_used(tmp_path, monkeypatch, change):
    render_containers(request(**change), tmp_path / "whole", options("zarr", "numpy"))
    cut_off(monkeypatch, tmp_path / "cut", 4)
    render_containers(request(**change), tmp_path / "cut", options("zarr", "numpy"))
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")


def test_a_conversion_replaces_an_interrupted_rendering(tmp_path, monkeypatch):
    whole = by_way_of_tfrecords(tmp_path / "whole", options("zarr", "numpy"))
    cut_off(monkeypatch, tmp_path / "cut", 4)
    found = by_way_of_tfrecords(tmp_path / "cut", options("zarr", "numpy"))
    assert {name: data for name, data in found.items() if not name.startswith(".work/")} == whole


def test_a_complete_dataset_is_not_rendered_again(tmp_path, rendered_files):
    render_containers(request(), tmp_path, options())
    rendered_files.clear()
    said = []
    again = render_containers(request(), tmp_path, options(), said.append)
    assert (rendered_files, again[0].written) == ([], 0)
    assert said == [f"zarr: {tmp_path}/zarr/{SET} is already complete; nothing to do"]


def test_a_missing_shard_is_written_again(tmp_path):
    done = render_containers(request(), tmp_path, options())
    before = tree(tmp_path)
    (done[0].folder / done[0].manifest.splits["train"].shards[1].files[0].name).unlink()
    render_containers(request(), tmp_path, options())
    assert tree(tmp_path) == before


@pytest.mark.parametrize("change", [{"scenes": 70}, *slow({"seed": 1}, {"split": "train"}, {"supersample": True})])
def test_another_dataset_is_replaced_only_with_overwrite(tmp_path, change):
    render_containers(request(), tmp_path / "root", options())
    before = tree(tmp_path / "root")
    with pytest.raises(DestinationError, match=r"other source files or options.*--overwrite"):
        render_containers(request(**change), tmp_path / "root", options())
    assert tree(tmp_path / "root") == before
    render_containers(request(**change), tmp_path / "root", options(overwrite=True))
    render_containers(request(**change), tmp_path / "fresh", options())
    assert tree(tmp_path / "root") == tree(tmp_path / "fresh")


def test_the_manifest_keeps_origin_frame_size_and_views(tmp_path):
    done = render_containers(request(seed=5, frame_size=33, views=23, scenes=2), tmp_path, options())
    manifest = read_manifest(done[0].folder)
    assert manifest.origin == request(seed=5, frame_size=33, views=23).parameters.origin
    assert manifest.origin.details["seed"] == 5
    assert (manifest.frames.height, manifest.frames.width, manifest.frames.views) == (33, 33, 23)
    sources = [(row.name, row.scenes, row.expected_scenes) for row in manifest.splits["train"].sources]
    assert sources == [("train/001-of-900.tfrecord", 1, 20)]
    assert verify(done[0].folder, SCENE_SETS[SET], deep=True).faults == ()


def test_scenes_have_the_cameras_and_nearly_the_pixels_of_the_renderer(tmp_path):
    from gqn_data.render import RENDERERS

    done = render_containers(request(frame_size=64), tmp_path, options())
    dataset = open_dataset(done[0].folder, "test")
    assert len(dataset) == 6
    for index in (0, 5):
        scene = RENDERERS[SET](index, seed=0, split="test", frame_size=64, views=2, supersample=False)
        assert (dataset[index].cameras == scene.cameras).all()
        assert np.abs(dataset[index].frames.astype(int) - scene.frames).mean() < 6


def test_only_tfrecords_are_rendered_in_parts(tmp_path):
    with pytest.raises(OptionError, match=r"--shard renders parts of TFRecords only; for zarr"):
        render_formats(request(), tmp_path, options(), part=Part(0, 2))
    assert list(tmp_path.iterdir()) == []


def test_tfrecords_are_not_overwritten(tmp_path):
    with pytest.raises(OptionError, match="--overwrite replaces datasets"):
        render_formats(request(), tmp_path, dataclasses.replace(options("tfrecord"), overwrite=True))
    assert list(tmp_path.iterdir()) == []
