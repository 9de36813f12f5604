"""Conversion from a bucket: the bytes of converting a raw folder, with bounded disk space."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner
from fault_server import Fault, FaultServer
from made_scenes import SET, framed, make_raw_folder, source_name, tree

from gqn_data.cli import main as gqn_data
from gqn_data.convert import convert
from gqn_data.convert.from_bucket import convert_from_bucket
from gqn_data.convert.plan import Options
from gqn_data.download.bucket import Bucket
from gqn_data.download.retry import RetryPolicy
from gqn_data.errors import FetchError, OriginError, RemoteDamaged, RemoteMissing
from gqn_data.inspect.verify import verify
from gqn_data.io.paths import parse_path
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.schema.manifest import read_manifest
from gqn_data.schema.origin import read_origin

ROW = SCENE_SETS[SET]
FORMATS = ("zarr", "numpy", "webdataset")
HASTY = RetryPolicy(attempts=3, restarts=2, sleep=lambda _: None)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """Return a folder to serve: eleven source files, some of one scene; shards span several files."""
    folder = tmp_path_factory.mktemp("mirror")
    make_raw_folder(folder / SET, train=(1, 3, 1, 2, 5, 1, 1, 4), test=(2, 1, 1))
    return folder


@pytest.fixture
def server(mirror):
    with FaultServer(mirror) as server:
        yield server


def options(**changes):
    return Options(**{"formats": FORMATS, "shard_bytes": 7000, "workers": 1, **changes})


def arrive(server, root, chosen=None, *, bucket=Bucket, **settings):
    # By number, so that only these of the set's thousand files are requested.
    settings = {"files": tuple(range(1, 9)), "whole_set": False, **settings}
    with bucket(ROW, server.url, retry=HASTY) as remote:
        return convert_from_bucket(remote, root, chosen or options(), **settings)


def expected(mirror, root, chosen=None):
    convert(mirror / SET, ROW, root, chosen or options())
    return tree(root)


def fetched(server):
    """Return the source files requested with GET, in order."""
    return [asked.path for asked in server.asked if asked.method == "GET" and asked.path.endswith(".tfrecord")]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("window", [None, 5000])
def test_the_bytes_are_those_of_a_raw_folder(mirror, server, tmp_path, workers, window):
    arrive(server, tmp_path / "there", options(workers=workers), window=window)
    assert tree(tmp_path / "there") == expected(mirror, tmp_path / "here")


def test_any_executor_does_the_work(mirror, server, tmp_path):
    with ThreadPoolExecutor(3) as executor:
        arrive(server, tmp_path / "there", window=5000, executor=executor)
    assert tree(tmp_path / "there") == expected(mirror, tmp_path / "here")


@pytest.mark.parametrize(
    "changes", [{"limit": 5}, {"splits": ("test",)}, {"shard_bytes": 1 << 28}, {"on_corrupt": "skip"}, {"limit": 1}]
)
def test_options_mean_the_same(mirror, server, tmp_path, changes):
    arrive(server, tmp_path / "there", options(**changes))
    assert tree(tmp_path / "there") == expected(mirror, tmp_path / "here", options(**changes))


def test_a_file_without_valid_records_inside_a_shard_is_skipped(mirror, tmp_path):
    copy = shutil.copytree(mirror, tmp_path / "mirror")
    (copy / SET / "train" / source_name("train", 3)).write_bytes(framed([b"not a scene"]))
    chosen = options(on_corrupt="skip", shard_bytes=20_000)
    with FaultServer(copy) as server:
        arrive(server, tmp_path / "there", chosen)
        assert len(fetched(server)) == len(set(fetched(server))) == 11
    assert tree(tmp_path / "there") == expected(copy, tmp_path / "here", chosen)


def test_files_past_the_limit_are_not_fetched(server, tmp_path):
    first = threading.Event()

    class FirstOne(Bucket):
        def fetch(self, file, path, **settings):
            if file.number > 1:
                first.wait(60)
            found = super().fetch(file, path, **settings)
            first.set()
            return found

    arrive(server, tmp_path, options(limit=1, splits=("train",)), bucket=FirstOne)
    assert len(fetched(server)) < 8  # some are in flight when the first is counted


class Watched(Bucket):
    """Records the bytes on disk after each download."""

    def fetch(self, file, path, **settings):
        found = super().fetch(file, path, **settings)
        self.held.append(sum(other.stat().st_size for other in path.parents[1].rglob("*") if other.is_file()))
        return found


def test_only_a_window_of_the_source_is_on_disk(mirror, server, tmp_path):
    held = []

    class Here(Watched):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            self.held = held

    arrive(server, tmp_path, options(formats=("zarr",), shard_bytes=3000), bucket=Here, window=6000)
    sizes = [path.stat().st_size for path in (mirror / SET).rglob("*.tfrecord")]
    assert len(held) == len(sizes) == 11
    assert max(held) <= 6000 + max(sizes)
    assert sum(sizes) > 2 * max(held)
    assert not (tmp_path / ".work").exists()


def test_a_window_too_small_for_a_shard_is_exceeded(mirror, server, tmp_path):
    arrive(server, tmp_path / "there", options(shard_bytes=20_000), window=1)
    assert tree(tmp_path / "there") == expected(mirror, tmp_path / "here", options(shard_bytes=20_000))


@pytest.mark.parametrize("number", range(11))
def test_an_interrupted_run_resumes(mirror, server, tmp_path, number):
    class Cut(Bucket):
        left = number

        def fetch(self, file, path, **settings):
            if not Cut.left:
                raise KeyboardInterrupt
            Cut.left -= 1
            return super().fetch(file, path, **settings)

    with pytest.raises(KeyboardInterrupt):
        arrive(server, tmp_path / "there", bucket=Cut, window=4000)
    assert not list((tmp_path / "there").rglob("manifest.json"))
    arrive(server, tmp_path / "there", window=4000)
    assert tree(tmp_path / "there") == expected(mirror, tmp_path / "here")


def test_files_of_finished_shards_are_not_fetched_again(mirror, server, tmp_path, monkeypatch):
    from gqn_data.convert import engine

    write, written = engine.write_shard, []

    def some(task):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append((task.location.split, task.location.number))
        return write(task)

    chosen = options(formats=("webdataset",), shard_bytes=3000)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "write_shard", some)
        with pytest.raises(KeyboardInterrupt):
            arrive(server, tmp_path / "there", chosen, window=1)
    server.asked.clear()
    (result,) = arrive(server, tmp_path / "there", chosen, window=1)
    assert result.kept == 4
    assert len(fetched(server)) == len(set(fetched(server)))
    assert f"{SET}/train/{source_name('train', 1)}" not in fetched(server)
    assert tree(tmp_path / "there") == expected(mirror, tmp_path / "here", chosen)


@pytest.mark.parametrize(
    "fault", [Fault(cut=700), Fault(reset=100), Fault(status=503), Fault(flip=900), Fault(fewer=5), Fault(more=b"x")]
)
def test_passing_faults_of_the_server_leave_no_trace(mirror, server, tmp_path, fault):
    server.next(fault, path=f"{SET}/train/{source_name('train', 2)}")
    server.next(fault, path=f"{SET}/test/{source_name('test', 1)}")
    arrive(server, tmp_path / "there")
    assert tree(tmp_path / "there") == expected(mirror, tmp_path / "here")


def test_permanently_wrong_bytes_make_no_dataset(mirror, server, tmp_path):
    name = f"{SET}/train/{source_name('train', 5)}"
    server.always(Fault(flip=1500), path=name)
    with pytest.raises(RemoteDamaged, match=source_name("train", 5)):
        arrive(server, tmp_path / "there")
    assert not list((tmp_path / "there").rglob("manifest.json"))
    with FaultServer(mirror) as well:
        arrive(well, tmp_path / "there")
    assert tree(tmp_path / "there") == expected(mirror, tmp_path / "here")


def test_a_missing_file_is_reported_before_anything_is_fetched(server, tmp_path):
    server.always(Fault(status=404), path=f"{SET}/train/{source_name('train', 3)}")
    with pytest.raises(RemoteMissing, match=source_name("train", 3)):
        arrive(server, tmp_path, files=None, whole_set=True)
    assert fetched(server) == []
    assert not (tmp_path / "zarr").exists()


def test_a_server_that_does_not_answer_is_an_error(tmp_path):
    with Bucket(ROW, "http://127.0.0.1:9", retry=HASTY) as bucket, pytest.raises(FetchError, match=r"127\.0\.0\.1"):
        convert_from_bucket(bucket, tmp_path, options())


def test_a_complete_dataset_is_not_fetched_again(server, tmp_path):
    arrive(server, tmp_path)
    server.asked.clear()
    assert [result.written for result in arrive(server, tmp_path)] == [0, 0, 0]
    assert fetched(server) == []


def test_the_origin_is_that_of_the_mirror(mirror, server, tmp_path):
    arrive(server, tmp_path, options(formats=("zarr",)))
    assert read_manifest(tmp_path / "zarr" / SET).origin == read_origin(mirror / SET)


def test_source_files_are_kept_on_request(mirror, server, tmp_path):
    raw = tmp_path / "raw" / SET
    arrive(server, tmp_path, raw_folder=raw, keep_raw=True)
    assert {name: data for name, data in tree(raw).items() if name.endswith(".tfrecord")} == {
        name: data for name, data in tree(mirror / SET).items() if name.endswith(".tfrecord")
    }
    assert read_origin(raw) == read_origin(mirror / SET)
    assert not verify(raw, ROW, workers=1).faults
    server.asked.clear()
    arrive(server, tmp_path / "more", raw_folder=raw)
    assert fetched(server) == []
    assert len(tree(raw)) == len(tree(mirror / SET))  # kept: it was not downloaded by this run


def test_source_files_of_another_origin_are_neither_used_nor_mixed(mirror, server, tmp_path):
    raw = make_raw_folder(tmp_path / "raw" / SET, train=(1, 3), test=(2,), size=8)
    arrive(server, tmp_path / "there", raw_folder=raw)
    assert tree(tmp_path / "there") == expected(mirror, tmp_path / "here")
    with pytest.raises(OriginError, match="another origin"):
        arrive(server, tmp_path / "other", raw_folder=raw, keep_raw=True)


def test_a_conversion_with_other_options_removes_files_of_the_first(mirror, server, tmp_path, monkeypatch):
    from gqn_data.convert import engine

    with monkeypatch.context() as patch:
        patch.setattr(engine, "publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            arrive(server, tmp_path / "there", options(shard_bytes=2500))
    arrive(server, tmp_path / "there")
    assert tree(tmp_path / "there") == expected(mirror, tmp_path / "here")


def test_source_files_in_a_store_are_converted_like_those_of_a_folder(mirror, s3, tmp_path):
    for name, data in tree(mirror / SET).items():
        (parse_path(s3) / "raw" / SET / name).put(data)
    # A user's folder may lack files of the set.
    (parse_path(s3) / "raw" / SET / "train" / source_name("train", 3)).unlink()
    run = CliRunner().invoke(
        gqn_data, ["convert", f"{s3}/raw/{SET}", "--out", str(tmp_path / "there"), "--json", "--workers", "1"]
    )
    assert run.exit_code == 0, run.output
    copy = tmp_path / "copy" / SET
    for name, data in tree(mirror / SET).items():
        if not name.endswith(f"train/{source_name('train', 3)}"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(data)
    convert(copy, ROW, tmp_path / "here", Options(workers=1))
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def test_the_command_converts_from_a_server_to_a_store(mirror, server, s3, tmp_path):
    def answered(*words):
        run = CliRunner().invoke(gqn_data, [*words, "--workers", "1"])
        assert run.exit_code == 0, run.output
        return run

    words = (
        "convert",
        "sm5",
        "--base-url",
        server.url,
        "--root",
        str(tmp_path / "none"),
        "--out",
        s3,
        "--format",
        "numpy",
    )
    answered(*words)
    assert "nothing to do" in answered(*words).stderr
    assert "all good" in answered("verify", f"{s3}/numpy/{SET}", "--deep").stdout
    there = {name: (parse_path(s3) / name).read_bytes() for name, _ in parse_path(s3).files()}
    assert there == expected(mirror, tmp_path / "here", Options(formats=("numpy",), workers=1))


def test_a_set_with_local_source_files_is_fetched_only_on_request(mirror, server, tmp_path):
    root = tmp_path / "root"
    make_raw_folder(root / "raw" / SET, train=(1,), test=(2,))

    def scenes(*words):
        words = (
            "convert",
            SET,
            "--root",
            str(root),
            "--out",
            str(tmp_path / str(len(words))),
            *words,
            "--workers",
            "1",
        )
        run = CliRunner().invoke(gqn_data, [*words, "--json"], env={"GQN_BASE_URL": server.url})
        assert run.exit_code == 0, run.output
        return json.loads(run.stdout)[0]["splits"]["train"]["scenes"]

    assert scenes() == 1
    assert fetched(server) == []
    assert scenes("--fetch") == 18
    assert f"{SET}/train/{source_name('train', 1)}" not in fetched(server)  # it was present


@pytest.mark.slow
def test_a_run_killed_at_random_resumes_to_the_same_bytes(mirror, tmp_path, faults):
    wanted = expected(mirror, tmp_path / "here", options(formats=("zarr", "webdataset"), shard_bytes=1 << 20))
    tries = faults.tries(3)
    survived = 0
    with FaultServer(mirror) as server:
        for number in range(tries):
            root = tmp_path / str(number)
            words = ["convert", SET, "--base-url", server.url, "--root", str(root), "--shard-mb", "1", "--workers", "2"]
            words += ["--format", "zarr", "--format", "webdataset"]
            command = [sys.executable, "-c", "from gqn_data.cli import main; main()", *words]
            chance = random.Random(number)
            for run in range(50):
                with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                    try:
                        process.wait(chance.uniform(0.3, 2.5 + run))  # longer each time, for slow machines
                    except subprocess.TimeoutExpired:
                        os.kill(process.pid, signal.SIGKILL)
                        continue
                assert process.returncode == 0
                break
            time.sleep(0.1)
            survived += tree(root) == wanted
    faults.record(
        "killed: conversion straight from the bucket",
        holds="the same command again ends with identical checksums",
        tries=tries,
        survived=survived,
    )
