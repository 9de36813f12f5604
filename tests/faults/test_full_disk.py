"""Disks that fill up at any byte: a clear error, no partial file under a final name, and a rerun that completes.

Each try runs the work on a disk that is too small for it, checks the files, enlarges the disk, and runs the same work
again. Work that refuses to begin, by its own estimate of space, is made to begin in every other try.
"""

import hashlib
import random
import shutil

import pytest
from fault_server import FaultServer
from made_scenes import SET, make_raw_folder, tree
from small_disks import PAGE, CountedDisk, MountedDisk, small_disk

from gqn_data.cache.shard_cache import ShardCache
from gqn_data.convert import convert
from gqn_data.convert.from_bucket import convert_from_bucket
from gqn_data.convert.from_renderer import render_containers
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.plan import Options
from gqn_data.convert.scene_writer import SceneWriter
from gqn_data.dataset import open_dataset
from gqn_data.download import download
from gqn_data.download.bucket import Bucket
from gqn_data.errors import NoSpace
from gqn_data.io import atomic
from gqn_data.io.paths import parse_path
from gqn_data.render.request import Request
from gqn_data.render.write import render_scene_set
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.schema.manifest import read_manifest
from gqn_data.sources.raw_folder import open_raw_folder

ROW = SCENE_SETS[SET]
BETWEEN = (".partial", ".unfinished", ".part", ".part.json", ".lock")  # suffixes of unfinished files


class Work:
    """Kinds of work, by name; each runs to completion in this process and writes below a root.

    Args:
        folder: folder for the sources.
        url: URL of a web server that serves `folder`.
        store: URL of an empty bucket.
    """

    def __init__(self, folder, url, store):
        self.raw, self.url = folder / SET, url
        make_raw_folder(self.raw, train=(12, 12, 6), test=(4,))
        self.remote = convert(self.raw, ROW, parse_path(store), self.options("webdataset"))[0].folder

    @staticmethod
    def options(*formats, frames=None, workers=1):
        return Options(formats=formats, frames=frames, shard_bytes=9000, workers=workers)

    def convert(self, root, *formats, frames=None, workers=1):
        convert(self.raw, ROW, root, self.options(*formats, frames=frames, workers=workers))

    def index(self, root):
        if not (root / "raw").exists():
            shutil.copytree(self.raw, root / "raw")
        index_raw_folder(open_raw_folder(root / "raw", ROW))

    def render(self, root):
        render_scene_set(root, "sm5", scenes=60, seed=3, frame_size=16, views=3, supersample=False, workers=1)

    def render_containers(self, root):
        request = Request.of("sm5", scenes=60, seed=3, frame_size=16, views=3, supersample=False)
        render_containers(request, root, self.options("zarr", "numpy"))

    def download(self, root):
        download(ROW, root, base_url=self.url, files=[1, 2, 3], split="train")

    def from_the_bucket(self, root):
        with Bucket(ROW, self.url) as bucket:
            convert_from_bucket(bucket, root, self.options("zarr"), files=(1, 2, 3), whole_set=False)

    def own_scenes(self, root):
        with SceneWriter(root / "mine", scenes_per_shard=7) as writer:
            for scene in open_dataset(self.remote):
                writer.add(list(scene.encoded), scene.cameras)

    def cache(self, root):
        cache = ShardCache(root, 1 << 30)
        for row in read_manifest(self.remote).all_files():
            path = cache.get(self.remote / row.name, row)
            assert path.stat().st_size == row.bytes


WORK = {
    "convert to zarr": lambda work, root: work.convert(root, "zarr"),
    "convert to zarr, pixels": lambda work, root: work.convert(root, "zarr", frames="raw"),
    "convert to numpy": lambda work, root: work.convert(root, "numpy"),
    "convert to webdataset": lambda work, root: work.convert(root, "webdataset"),
    "convert to mirror": lambda work, root: work.convert(root, "mirror"),
    "convert to three containers": lambda work, root: work.convert(root, "zarr", "numpy", "webdataset"),
    "convert by two workers": lambda work, root: work.convert(root, "zarr", workers=2),
    "index": lambda work, root: work.index(root),
    "render": lambda work, root: work.render(root),
    "render straight into containers": lambda work, root: work.render_containers(root),
    "download": lambda work, root: work.download(root),
    "convert straight from the bucket": lambda work, root: work.from_the_bucket(root),
    "own scenes": lambda work, root: work.own_scenes(root),
    "cache": lambda work, root: work.cache(root),
}


@pytest.fixture
def work(tmp_path, s3):
    (tmp_path / "server").mkdir()
    with FaultServer(tmp_path / "server") as server:
        yield Work(tmp_path / "server", server.url, s3)


def final_files(folder):
    """Return the files under final names, without the work folder of a conversion."""
    files = tree(folder).items()
    return {name: data for name, data in files if not name.endswith(BETWEEN) and ".work/" not in name}


def below(files, folder):
    return {name: data for name, data in files.items() if name.startswith(folder)}


@pytest.mark.parametrize("name", WORK)
def test_work_on_a_full_disk_is_an_error_and_a_rerun_completes(name, work, tmp_path, monkeypatch, faults):
    do = WORK[name]
    wrong = []
    with small_disk(tmp_path / "disk") as disk:
        whole = disk.folder / "whole"
        whole.mkdir()
        before = disk.used()
        do(work, whole)
        room = disk.used() - before
        expected = final_files(whole)
        shutil.rmtree(whole)
        tries = faults.tries(2)
        chance = random.Random(name)
        full = 0
        while full < tries:
            root = disk.folder / f"try{full}"
            root.mkdir()
            start = disk.used()
            if name == "index":
                shutil.copytree(work.raw, root / "raw")
            disk.resize(disk.used() + chance.randrange(PAGE, max(2 * PAGE, room - (disk.used() - start))))
            try:
                with monkeypatch.context() as patch:
                    if full % 2 == 0:  # otherwise it does not begin
                        patch.setattr(atomic, "check_free_space", lambda *_: None)
                    do(work, root)
            except NoSpace as error:
                said = str(error)
            else:
                disk.resize(64 << 20)
                shutil.rmtree(root)
                continue  # it fit after all: the work needs less space at a time than its result
            full += 1
            if "disk" not in said and "free" not in said:
                wrong.append(f"error without a reason: {said}")
            found = final_files(root)
            partial = [file for file, data in found.items() if expected.get(file) != data]
            if partial:
                wrong.append(f"wrong files: {partial} ({said})")
            for file in found:
                folder = file.rpartition("/")[0]
                if file.endswith("manifest.json") and below(found, folder) != below(expected, folder):
                    wrong.append(f"incomplete dataset: {folder} ({said})")
            disk.resize(64 << 20)
            do(work, root)
            if final_files(root) != expected:
                wrong.append("the rerun gave other bytes")
            if set(tree(root)) != set(final_files(root)) and name != "cache":
                wrong.append(f"left behind: {set(tree(root)) - set(final_files(root))}")
            shutil.rmtree(root)
    assert not wrong, "\n".join(wrong)
    faults.record(
        f"full disk: {name}",
        holds="reported as a full disk; no partial file under a final name; a rerun with space gives the same bytes",
        tries=tries,
        survived=tries - len(wrong),
    )


def test_both_kinds_of_small_disks_fill_up(tmp_path):
    for number, kind in enumerate((MountedDisk, CountedDisk)):
        try:
            disk = kind(tmp_path / str(number))
        except PermissionError as error:
            print(f"not permitted here: {error}")
            continue
        try:
            disk.resize(3 * PAGE)
            with pytest.raises(NoSpace, match="disk"), atomic.writing(disk.folder / "x") as file:
                file.write(bytes(10 * PAGE))
            assert tree(disk.folder) == {}
            disk.resize(20 * PAGE)
            with atomic.writing(disk.folder / "x") as file:
                file.write(bytes(10 * PAGE))
            assert disk.used() >= 10 * PAGE
        finally:
            disk.end()


def small_config():
    from gqn_model.config import resolve

    return resolve(
        "tiny",
        (),
        {
            "frame_size": 16,
            "representation_channels": 16,
            "hidden": 8,
            "canvas": 6,
            "core_steps": 2,
            "batch_size": 4,
            "context_max": 2,
            "threads": 1,
            "device": "cpu",
            "logger": "none",
            "workers": 0,
            "steps": 6,
            "log_every": 1,
            "checkpoint_every": 2,
            "picture_every": 3,
            "keep": 2,
        },
    )


@pytest.mark.slow
def test_a_training_resumes_after_a_full_disk_to_the_same_weights(tmp_path, monkeypatch, faults):
    import torch

    from gqn_model.checkpoint.checkpoint import load_checkpoint
    from gqn_model.train.run import resume_run, start_run

    raw = make_raw_folder(tmp_path / SET, train=(20,), test=(4,))
    shards = str(convert(raw, ROW, tmp_path, Work.options("numpy"))[0].folder)

    def train(run):
        if (run / "config.json").exists():
            resume_run(run, {})
        else:
            start_run(shards, small_config(), out=run)

    def last(run):
        checkpoint = load_checkpoint(run, 6)
        held = {**checkpoint.model, "loader": torch.tensor(list(map(ord, str(checkpoint.loader))))}
        moments = checkpoint.optimizer["state"].items()
        held |= {f"{number} {key}": value for number, state in moments for key, value in state.items()}
        return {name: value.numpy().tobytes() for name, value in held.items()}

    wrong = []
    with small_disk(tmp_path / "disk") as disk:
        whole = disk.folder / "whole"
        train(whole)
        room = disk.used()
        expected = last(whole)
        shutil.rmtree(whole)
        tries = faults.tries(2)
        chance = random.Random(1)
        full = 0
        while full < tries:
            run = disk.folder / f"try{full}"
            disk.resize(disk.used() + chance.randrange(PAGE, room))
            try:
                train(run)
            except NoSpace:
                full += 1
            else:
                disk.resize(64 << 20)
                shutil.rmtree(run)
                continue
            for path in run.glob("checkpoints/*.sha256"):
                digest = hashlib.sha256(path.with_suffix("").read_bytes()).hexdigest()
                if path.read_text().split()[0] != digest:
                    wrong.append(f"{path.name} belongs to other bytes")
            disk.resize(64 << 20)
            train(run)
            if last(run) != expected:
                wrong.append("the training ended with other weights")
            if any(name.endswith(BETWEEN) for name in tree(run)):
                wrong.append(f"left behind: {sorted(tree(run))}")
            shutil.rmtree(run)
    assert not wrong, "\n".join(wrong)
    faults.record(
        "full disk: train",
        holds="no checkpoint is partial or lost; --resume with space ends with the same weights, bit for bit",
        tries=tries,
        survived=tries - len(wrong),
    )
