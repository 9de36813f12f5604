"""Downloading a set: complete files under their names; missing ones are reported, damaged ones replaced."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from fault_server import Fault, FaultServer
from hypothesis import given
from hypothesis import strategies as st
from made_scenes import SET, make_raw_folder, scenes_from, tree, write_source_file
from processes import wait_until

from gqn_data.cli import main as gqn_data
from gqn_data.convert import convert
from gqn_data.convert.plan import Options
from gqn_data.download import download
from gqn_data.download import download_set as module
from gqn_data.download.bucket import Bucket, BucketFile, file_numbers, format_files, missing, parse_files
from gqn_data.download.retry import RetryPolicy
from gqn_data.errors import (
    DestinationError,
    FetchError,
    NoSpace,
    OptionError,
    OriginError,
    RemoteMissing,
)
from gqn_data.io.atomic import exclusive_writer
from gqn_data.schema.catalog import SCENE_SETS, SceneSet, SplitFacts

ROOT = Path(__file__).resolve().parents[3]

# A set of a few files, three scenes each, so that tests can download all of it.
SMALL = replace(
    SCENE_SETS[SET],
    train=SplitFacts(files=6, runs=((6, 3),)),
    test=SplitFacts(files=2, runs=((2, 3),)),
)
DEEPMINDS = {"kind": "deepmind", "details": {"bucket": "gs://gqn-dataset"}}
RENDERED = {"kind": "rendered", "details": {"seed": 5, "frame_size": 16, "views": 3}}
QUICK = RetryPolicy(sleep=lambda _: None)


def make_mirror(folder, *, train=(3,) * 6, test=(3, 3), origin=DEEPMINDS):
    """Make the folder of a mirror of the small set; a count of None leaves the file out."""
    (folder / SET).mkdir(parents=True, exist_ok=True)
    if origin is not None:
        (folder / SET / "source.json").write_text(json.dumps(origin))
    for split, counts, first in (("train", train, 0), ("test", test, 1000)):
        facts = SMALL.split(split)
        for index, count in enumerate(counts):
            if count is not None:
                path = folder / SET / split / facts.file_name(index + 1)
                write_source_file(path, scenes_from(first + 10 * index, count))
    return folder


@pytest.fixture
def mirror(tmp_path):
    return make_mirror(tmp_path / "mirror")


@pytest.fixture
def server(mirror):
    with FaultServer(mirror) as server:
        yield server


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def get(server, root):
    """Download the small set from the server."""

    def get_it(scene_set=SMALL, **options):
        options.setdefault("retry", QUICK)
        options.setdefault("base_url", server.url)
        return download(scene_set, root, **options)

    return get_it


@pytest.fixture(autouse=True)
def no_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("GQN_BASE_URL", raising=False)
    monkeypatch.delenv("GQN_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


def source_files(folder):
    """Return the source files below a folder, with their bytes."""
    return {name: data for name, data in tree(folder).items() if name.endswith(".tfrecord")}


def raw(root):
    return root / "raw" / SET


def served(mirror):
    return source_files(mirror / SET)


# Complete downloads.


def test_a_set_is_fetched_with_its_names_and_origin(mirror, server, get, root):
    found = get()
    assert source_files(raw(root)) == served(mirror)
    assert set(tree(raw(root))) == {*served(mirror), "source.json"}
    assert json.loads((raw(root) / "source.json").read_text())["kind"] == "deepmind"
    names = [SMALL.source_name("train", number) for number in range(1, 7)]
    assert found.fetched == (*names, SMALL.source_name("test", 1), SMALL.source_name("test", 2))
    assert (found.kept, found.scenes) == (0, 24)
    assert found.bytes == sum(map(len, served(mirror).values()))
    assert found.folder == raw(root)


def test_a_second_run_fetches_nothing(server, get):
    get()
    server.forget()
    found = get()
    assert (found.fetched, found.kept, found.bytes) == ((), 8, 0)
    assert {asked.path for asked in server.gets()} == {f"{SET}/source.json"}


def test_only_missing_files_are_fetched(mirror, server, get, root):
    get(split="train", files=(1, 2, 5))
    server.forget()
    found = get()
    assert found.kept == 3
    assert len(found.fetched) == 5
    assert source_files(raw(root)) == served(mirror)


def test_fetched_files_convert_like_the_originals(mirror, server, get, root, tmp_path):
    (mirror / SET / "source.json").write_text(json.dumps(RENDERED))
    get()
    one = convert(raw(root), SMALL, tmp_path / "one", Options(workers=1))[0].folder
    other = convert(mirror / SET, SMALL, tmp_path / "other", Options(workers=1))[0].folder
    assert tree(one) == tree(other)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"split": "test"}, {"test/1-of-2.tfrecord", "test/2-of-2.tfrecord"}),
        ({"files": (2,)}, {"train/2-of-6.tfrecord", "test/2-of-2.tfrecord"}),
        ({"files": (5, 6)}, {"train/5-of-6.tfrecord", "train/6-of-6.tfrecord"}),
        ({"files": (1, 3), "split": "train"}, {"train/1-of-6.tfrecord", "train/3-of-6.tfrecord"}),
    ],
)
def test_split_and_numbers_select_files(options, expected, get, root):
    get(**options)
    assert set(source_files(raw(root))) == expected


@pytest.mark.parametrize("options", [{"files": (7,)}, {"files": (0,)}, {"files": (3,), "split": "test"}])
def test_an_unknown_file_number_is_refused_before_any_request(options, server, get, root):
    with pytest.raises(OptionError, match=str(options["files"][0])):
        get(**options)
    assert server.asked == []
    assert not root.exists()


@pytest.mark.parametrize(
    ("text", "numbers"), [("1-3", (1, 2, 3)), ("3,7-9", (3, 7, 8, 9)), (" 5 , 1-2,2", (1, 2, 5)), ("4-4", (4,))]
)
def test_lists_of_numbers_are_parsed(text, numbers):
    assert parse_files(text) == numbers


@pytest.mark.parametrize("text", ["", "0", "a", "3-1", "1-", "-1", "1,,2", "1 2", "1.5", "99999999", "0-3"])
def test_invalid_lists_of_numbers_are_refused(text):
    with pytest.raises(OptionError, match=re.escape(f"--files {text!r}")):
        parse_files(text)


@given(st.sets(st.integers(1, 5000), min_size=1))
def test_formatted_numbers_parse_to_the_same_numbers(numbers):
    assert parse_files(format_files(numbers)) == tuple(sorted(numbers))


def test_sets_may_number_their_files_across_both_splits():
    scene_set = next(row for row in SCENE_SETS.values() if row.test.first > 1)
    number = scene_set.test.first
    assert file_numbers(scene_set, files=(number,)) == {"train": (), "test": (number,)}


# Limits.


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    ("counts", "limit", "expected"),
    [
        ((3, 3, 3, 3, 3, 3), 1, 1),
        ((3, 3, 3, 3, 3, 3), 3, 1),
        ((3, 3, 3, 3, 3, 3), 4, 2),
        ((3, 3, 3, 3, 3, 3), 100, 6),
        ((1, 1, 1, 1, 1, 1), 4, 4),  # fewer scenes than expected
        ((1, 2, 1, 5, 1, 1), 4, 3),
    ],
)
def test_a_limit_ends_with_the_file_that_reaches_it(counts, limit, expected, workers, mirror, get, root):
    make_mirror(mirror, train=counts)
    get(split="train", limit=limit, workers=workers)
    assert len(source_files(raw(root))) == expected


@pytest.mark.parametrize("workers", [1, 2])
def test_large_files_cost_no_more_than_one_file_per_worker(workers, mirror, server, get, root):
    make_mirror(mirror, train=(20,) * 6)
    get(split="train", limit=18, workers=workers)  # six files, if they held three each
    assert len(source_files(raw(root))) <= workers
    assert len(server.gets(f"{SET}/train/1-of-6.tfrecord")) == 1


def test_a_limit_applies_per_split(get, root):
    get(limit=4)
    assert Counter(name.split("/")[0] for name in source_files(raw(root))) == {"train": 2, "test": 2}


def test_a_limit_counts_existing_files(server, get, root):
    get(split="train", limit=4)
    server.forget()
    found = get(split="train", limit=9)
    assert found.kept == 2
    assert found.fetched == ("train/3-of-6.tfrecord",)


def test_a_limit_replaces_a_damaged_file_that_it_counts(mirror, get, root):
    get(split="train", files=(1,))
    path = raw(root) / "train" / "1-of-6.tfrecord"
    path.write_bytes(b"x" * path.stat().st_size)
    get(split="train", limit=2)
    assert path.read_bytes() == served(mirror)["train/1-of-6.tfrecord"]


def test_a_limit_on_an_empty_server_asks_once_per_split(server, get, root):
    server.always(Fault(status=404))
    with pytest.raises(RemoteMissing):
        get(limit=1)
    assert len([asked for asked in server.asked if asked.path.endswith("tfrecord")]) == 2


# Missing files.


def test_missing_files_are_reported_and_the_others_fetched(mirror, get, root):
    for name in ("train/2-of-6.tfrecord", "train/3-of-6.tfrecord", "train/5-of-6.tfrecord", "test/1-of-2.tfrecord"):
        (mirror / SET / name).unlink()
    with pytest.raises(RemoteMissing, match=r"4 of 8 files .*train 2-3,5 .*test 1 "):
        get()
    assert source_files(raw(root)) == served(mirror)
    assert set(tree(raw(root))) == {*served(mirror), "source.json"}


def test_a_file_removed_during_the_run_is_reported(mirror, server, get, root):
    path = "train/2-of-6.tfrecord"
    server.next(Fault(status=404, only_get=True), path=f"{SET}/{path}")
    with pytest.raises(RemoteMissing, match="train 2 "):
        get()
    assert set(served(mirror)) - set(source_files(raw(root))) == {path}


def test_an_existing_file_need_not_be_on_the_server(mirror, get, root):
    get()
    (mirror / SET / "train" / "2-of-6.tfrecord").unlink()
    assert get().kept == 8


def test_refused_files_are_reported_and_the_others_fetched(mirror, server, get, root):
    server.always(Fault(status=403, only_get=True), path=f"{SET}/train/2-of-6.tfrecord")
    said = []
    with pytest.raises(FetchError, match=r"1 of 8 files .*train/2-of-6.tfrecord: .*403"):
        get(log=said.append)
    assert len(source_files(raw(root))) == 7
    assert any("403" in line for line in said)


def test_an_empty_server_leaves_no_origin_behind(mirror, get, root):
    for name in served(mirror):
        (mirror / SET / name).unlink()
    with pytest.raises(RemoteMissing):
        get()
    assert tree(root) == {}
    (mirror / SET / "source.json").write_text(json.dumps(RENDERED))
    with pytest.raises(RemoteMissing, match=f"{SET} .*--base-url"):
        get()


def test_a_mirror_of_rendered_scenes_may_end_early(mirror, get, root):
    make_mirror(mirror, origin=RENDERED)
    for number in (4, 5, 6):
        (mirror / SET / "train" / f"{number}-of-6.tfrecord").unlink()
    get()
    assert source_files(raw(root)) == served(mirror)
    with pytest.raises(RemoteMissing, match="train 4 "):
        get(split="train", files=(3, 4))
    assert len(get(split="train", limit=100).fetched) == 0


def test_a_gap_in_a_mirror_of_rendered_scenes_is_reported(mirror, get, root):
    make_mirror(mirror, origin=RENDERED)
    (mirror / SET / "train" / "3-of-6.tfrecord").unlink()
    with pytest.raises(RemoteMissing, match="train 3 "):
        get()


def test_the_listing_marks_the_required_files(mirror, server):
    make_mirror(mirror, origin=RENDERED)
    for number in (2, 6):
        (mirror / SET / "train" / f"{number}-of-6.tfrecord").unlink()
    with Bucket(SMALL, server.url) as bucket:
        assert [file.number for file in missing(bucket.listing())] == [2]
        assert [file.number for file in missing(bucket.listing(("train",), (1, 2, 6)))] == [2, 6]
        files = bucket.listing()
    assert [file.name for file in files] == [SMALL.source_name("train", n) for n in range(1, 7)] + [
        SMALL.source_name("test", n) for n in (1, 2)
    ]
    assert [file.expected_scenes for file in files] == [3] * 8
    assert files[0].size == len((mirror / SET / files[0].name).read_bytes())
    assert files[1] == BucketFile(
        split="train", number=2, name="train/2-of-6.tfrecord", expected_scenes=3, remote=None, required=True
    )


def test_every_name_of_the_catalogue_is_requested_once(tmp_path, root):
    make_raw_folder(tmp_path / "mirror" / SET)
    with FaultServer(tmp_path / "mirror") as server:
        found = download(SCENE_SETS[SET], root, base_url=server.url)
    assert source_files(raw(root)) == served(tmp_path / "mirror")
    assert found.scenes == 9
    heads = [asked.path for asked in server.asked if asked.method == "HEAD" and asked.path.endswith("tfrecord")]
    assert len(heads) == len(set(heads)) == 1000


# Origins.


def test_the_public_bucket_has_its_own_origin(server, root, monkeypatch):
    monkeypatch.setattr(SceneSet, "bucket_url", property(lambda _: server.url))
    found = download(SMALL, root, files=(1,))
    assert found.origin.to_json() == DEEPMINDS
    assert not any(asked.path.endswith("source.json") for asked in server.asked)
    download(SMALL, root, files=(2,), base_url=server.url + "/")
    other = replace(SMALL, bucket="egqn-datasets")
    assert download(other, root / "other", files=(1,)).origin.to_json() == {
        "kind": "imported",
        "details": {"bucket": "gs://egqn-datasets"},
    }


def test_rendered_scenes_of_a_mirror_stay_rendered(mirror, get, root):
    make_mirror(mirror, origin=RENDERED)
    assert get(files=(1,)).origin.to_json() == RENDERED
    found = json.loads((raw(root) / "source.json").read_text())
    assert {name: found[name] for name in ("kind", "details")} == RENDERED


def test_scenes_of_a_mirror_without_an_origin_are_imported(mirror, server, get, root):
    (mirror / SET / "source.json").unlink()
    base = server.url.replace("http://", "http://user:secret@") + "/?sig=secret"
    found = get(files=(1,), base_url=base)
    assert found.origin.to_json() == {"kind": "imported", "details": {"from": server.url}}
    assert "secret" not in (raw(root) / "source.json").read_text()
    assert "secret" not in json.dumps(found.to_json())


def test_a_refused_source_json_counts_as_missing(server, get):
    server.always(Fault(status=403), path=f"{SET}/source.json")
    assert get(files=(1,)).origin.kind == "imported"


BAD_ORIGINS = {
    "not JSON": (b"{", ""),
    "a list": (b"[1]", ""),
    "another kind": (b'{"kind": "stolen", "details": {}}', "stolen"),
    "an unknown field": (b'{"kind": "deepmind", "details": {}, "x": 1}', "'x'"),
    "nested deeply": (b"[" * 50_000, ""),
    "large": (b'{"kind": "deepmind"}' + b" " * 100_000, "65536"),
    "a wrong checksum": (b'{"kind": "deepmind", "details": {}, "sha256": "00"}', ""),
}


@pytest.mark.parametrize(("data", "said"), BAD_ORIGINS.values(), ids=BAD_ORIGINS)
def test_an_invalid_origin_is_refused(data, said, mirror, server, get, root):
    (mirror / SET / "source.json").write_bytes(data)
    with pytest.raises(OriginError, match=f"{server.url}/{SET}/source.json: .*{said}"):
        get()
    assert source_files(root) == {}


def test_two_origins_are_not_mixed(mirror, server, get, root):
    get(files=(1,))
    before = tree(root)
    (mirror / SET / "source.json").write_text(json.dumps(RENDERED))
    with pytest.raises(OriginError, match=SET):
        get(files=(2,))
    assert tree(root) == before


def test_the_environment_may_name_the_mirror(mirror, server, root, monkeypatch):
    monkeypatch.setenv("GQN_BASE_URL", server.url)
    assert download(SMALL, root, files=(1,)).url == server.url


# Damaged files.


def test_a_damaged_record_is_fetched_again(mirror, server, get, root):
    server.next(Fault(flip=100), path=f"{SET}/train/3-of-6.tfrecord")
    said = []
    get(log=said.append)
    assert source_files(raw(root)) == served(mirror)
    assert any("3-of-6.tfrecord: record 0 at byte 0: checksum of the payload" in line for line in said)


def test_a_file_damaged_in_every_attempt_names_file_and_record(mirror, server, get, root):
    size = len(served(mirror)["train/3-of-6.tfrecord"])
    server.always(Fault(flip=size - 100), path=f"{SET}/train/3-of-6.tfrecord")
    with pytest.raises(
        FetchError, match=r"1 of 8 files .*train/3-of-6.tfrecord: .*4 times.* record 2 at byte \d+: che"
    ):
        get()
    assert set(served(mirror)) - set(source_files(raw(root))) == {"train/3-of-6.tfrecord"}
    assert set(tree(raw(root))) == {*source_files(raw(root)), "source.json"}
    server.always(None, path=f"{SET}/train/3-of-6.tfrecord")
    get()
    assert source_files(raw(root)) == served(mirror)


@pytest.mark.parametrize("data", [b"", b"<html>", b"\x1f\x8b\x08 compressed"])
def test_files_that_are_not_tfrecords_are_refused(data, mirror, get, root):
    (mirror / SET / "train" / "1-of-6.tfrecord").write_bytes(data)
    with pytest.raises(FetchError, match=r"train/1-of-6.tfrecord: .*4 times"):
        get(files=(1,))
    assert set(source_files(raw(root))) == {"test/1-of-2.tfrecord"}


def test_a_file_of_another_size_is_fetched_again(mirror, get, root):
    get()
    path = raw(root) / "train" / "4-of-6.tfrecord"
    path.write_bytes(path.read_bytes()[:-5])
    assert get().fetched == ("train/4-of-6.tfrecord",)
    assert source_files(raw(root)) == served(mirror)


def test_only_a_recheck_finds_damage_inside_a_file(mirror, get, root):
    get()
    path = raw(root) / "train" / "4-of-6.tfrecord"
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    assert get().fetched == ()
    said = []
    found = get(recheck=True, log=said.append)
    assert (found.fetched, found.kept) == (("train/4-of-6.tfrecord",), 7)
    assert source_files(raw(root)) == served(mirror)
    assert any(line.startswith(f"{path}: ") and "record 0 at byte 0" in line for line in said)
    assert get(recheck=True).fetched == ()


def test_a_recheck_reads_only_the_named_files(mirror, get, root):
    get()
    for number in (2, 4):
        path = raw(root) / "train" / f"{number}-of-6.tfrecord"
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
    found = get(split="train", files=(1, 2), recheck=True)
    assert (found.fetched, found.kept) == (("train/2-of-6.tfrecord",), 1)


def test_a_recheck_compares_with_the_checksum_of_the_server(mirror, server, get, root):
    server.checksums = True
    get()
    path = raw(root) / "train" / "4-of-6.tfrecord"
    write_source_file(path, scenes_from(30, 3)[::-1])  # good records of the same length, in another order
    assert get().fetched == ()
    assert get(recheck=True).fetched == ("train/4-of-6.tfrecord",)
    assert source_files(raw(root)) == served(mirror)


def test_a_damaged_file_stays_if_the_server_lost_it(mirror, get, root):
    get()
    path = raw(root) / "train" / "4-of-6.tfrecord"
    bad = path.read_bytes()[:-1] + b"\0"
    path.write_bytes(bad)
    (mirror / SET / "train" / "4-of-6.tfrecord").unlink()
    with pytest.raises(RemoteMissing, match="train 4 "):
        get(recheck=True)
    assert path.read_bytes() == bad


# Faults during a run.


@pytest.mark.parametrize("tags", ["strong", "none"])
def test_many_faults_at_once_end_with_the_right_bytes(tags, mirror, server, get, root):
    server.tags = tags
    kinds = [Fault(cut=900), Fault(reset=1500), Fault(status=503), Fault(status=429), Fault(flip=50), Fault(more=b"x")]
    dice = random.Random(4)
    for name in served(mirror):
        server.next(*dice.sample(kinds, 3), path=f"{SET}/{name}")
    get(workers=3)
    assert source_files(raw(root)) == served(mirror)
    assert set(tree(raw(root))) == {*served(mirror), "source.json"}


def test_a_run_resumes_after_the_server_went_away(mirror, server, get, root):
    name = "train/2-of-6.tfrecord"
    server.next(Fault(cut=1000), *[Fault(cut=0)] * 20, path=f"{SET}/{name}")
    with pytest.raises(FetchError, match=f"{name}: .* 3 attempts"):
        get(workers=1, retry=RetryPolicy(attempts=3, sleep=lambda _: None))
    assert set(source_files(raw(root))) == {"train/1-of-6.tfrecord"}
    assert (raw(root) / f"{name}.part").stat().st_size == 1000
    server.forget()
    get()
    assert [asked.start for asked in server.gets(f"{SET}/{name}")] == [1000]
    assert source_files(raw(root)) == served(mirror)
    assert set(tree(raw(root))) == {*served(mirror), "source.json"}


def test_a_partial_file_beside_a_complete_one_is_removed(get, root):
    get()
    path = raw(root) / "train" / "2-of-6.tfrecord"
    for ending in (".part", ".part.json"):
        path.with_name(path.name + ending).write_bytes(b"x")
    get()
    assert not list(raw(root).rglob("*.part*"))


def test_disk_space_is_checked_before_the_first_byte(mirror, server, get, root, monkeypatch):
    size = sum(map(len, served(mirror).values()))
    usage = module.atomic.shutil.disk_usage
    monkeypatch.setattr(module.atomic.shutil, "disk_usage", lambda path: usage(path)._replace(free=size - 1))
    with pytest.raises(NoSpace):
        get()
    assert not any(asked.path.endswith("tfrecord") for asked in server.gets())
    assert tree(root) == {}
    monkeypatch.setattr(module.atomic.shutil, "disk_usage", lambda path: usage(path)._replace(free=size))
    get()


def test_two_runs_at_once_are_refused(server, get, root):
    with exclusive_writer(raw(root)), pytest.raises(DestinationError, match=SET):
        get()


def test_the_plan_is_logged_before_the_first_byte(mirror, server, get):
    get(split="test", files=(1,))
    said = []
    get(log=said.append)
    (line,) = said
    assert line.startswith(f"{SET}: 7 files ")
    assert f"{server.url}, " in line
    assert "; 1 file " in line


def test_counts_below_one_and_roots_in_a_store_are_refused(get):
    for option in ("workers", "limit"):
        with pytest.raises(OptionError, match=f"{option} is 0"):
            get(**{option: 0})
    with pytest.raises(OptionError, match="s3://bucket"):
        download(SMALL, module.atomic.data_root("s3://bucket"))


# The command.


def run(*arguments):
    return CliRunner().invoke(gqn_data, [str(argument) for argument in arguments])


@pytest.fixture
def wide(tmp_path):
    """Serve ten files per split of a set of the catalogue; those of train are large enough to be interrupted."""
    folder = make_raw_folder(tmp_path / "wide" / SET, train=(30,) * 10, test=(3,) * 10)
    with FaultServer(folder.parent) as server:
        yield server


def started(*arguments):
    """Start the command in a new process, as a user does."""
    program = "from gqn_data.cli import main; main(prog_name='gqn-data')"
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_command_fetches_and_reports_the_result(wide, root):
    wanted = ("--files", "1-2", "--root", root, "--base-url", wide.url)
    result = run("download", "sm5", *wanted)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{raw(root)}: 4 files ")
    assert " 66 scenes, " in result.stdout
    assert "; 0 files " in result.stdout
    found = json.loads(run("download", "sm5", *wanted, "--json").stdout)
    assert (found["fetched"], found["kept"], found["folder"]) == ([], 4, str(raw(root)))
    assert found["origin"]["kind"] == "rendered"


def test_the_command_ends_with_one_line_and_a_status(wide, root):
    missing_one = run("download", SET, "--split", "train", "--files", "10-11", "--root", root, "--base-url", wide.url)
    assert missing_one.exit_code == 1
    assert missing_one.stdout == ""
    line = missing_one.stderr.splitlines()[-1]
    assert line.startswith(f"Error: {wide.url}: ")
    assert f"1 of 2 files of {SET}: train 11 " in line
    for arguments in (("nonesuch",), ("sm5", "--files", "x"), ("sm5", "--files", "901"), ("sm5", "--base-url", "here")):
        assert run("download", *arguments, "--root", root).exit_code == 2


def flip(path, at=200):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_verify_names_the_commands_that_repair_the_folder(wide, root, monkeypatch):
    monkeypatch.setenv("GQN_BASE_URL", wide.url)
    monkeypatch.setenv("GQN_DATA", str(root))
    assert run("download", SET, "--files", "1-6").exit_code == 0
    assert json.loads(run("verify", SET, "--workers", 1, "--json").stdout)["fetch_again"] == []
    for number in (2, 3, 5):
        flip(raw(root) / "train" / f"{number:03d}-of-900.tfrecord")
    cut = raw(root) / "test" / "004-of-100.tfrecord"
    cut.write_bytes(cut.read_bytes()[:-1])
    found = run("verify", SET, "--workers", 1)
    assert found.exit_code == 1
    commands = json.loads(run("verify", SET, "--workers", 1, "--json").stdout)["fetch_again"]
    assert commands == [
        f"gqn-data download {SET} --split train --files 2-3,5 --recheck",
        f"gqn-data download {SET} --split test --files 4 --recheck",
    ]
    assert [line.partition(": ")[2] for line in found.stdout.splitlines()[-2:]] == commands
    wide.forget()
    for command in commands:
        assert run(*command.split()[1:]).exit_code == 0
    assert run("verify", SET, "--workers", 1).exit_code == 0
    assert len([asked for asked in wide.gets() if asked.path.endswith(".tfrecord")]) == 4


def test_the_command_of_verify_suits_the_folder_and_its_origin(wide, root, tmp_path, monkeypatch):
    options = ("--files", "1", "--split", "train", "--root", root, "--base-url", wide.url)
    assert run("download", SET, *options).exit_code == 0
    folder = raw(root)
    flip(folder / "train" / "001-of-900.tfrecord")

    def commands(path=folder):
        result = run("verify", path, "--set", SET, "--workers", 1, "--json")
        assert result.exit_code == 1
        return json.loads(result.stdout)["fetch_again"]

    command = f"gqn-data download {SET} --split train --files 1 --recheck"
    assert commands() == [f"{command} --base-url MIRROR --root {root}"]  # rendered; the mirror is unknown
    (wide.folder / SET / "source.json").unlink()
    (folder / "source.json").unlink()
    (folder / "source.json").write_text(json.dumps({"kind": "imported", "details": {"from": wide.url}}))
    monkeypatch.chdir(tmp_path)
    (again,) = commands()
    assert again == f"{command} --base-url {wide.url} --root {root}"
    assert run(*again.split()[1:]).exit_code == 0
    assert source_files(folder).items() <= source_files(wide.folder / SET).items()
    flip(folder / "train" / "001-of-900.tfrecord")
    (folder / "source.json").write_text(json.dumps(DEEPMINDS))
    assert commands() == [f"{command} --root {root}"]
    (folder / "source.json").unlink()
    assert commands() == []  # unknown origin: download would refuse to mix
    (folder / "source.json").write_text(json.dumps(DEEPMINDS))
    elsewhere = folder.rename(tmp_path / "elsewhere")
    assert commands(elsewhere) == []


def test_the_command_of_verify_repairs_an_indexed_folder(wide, root, monkeypatch):
    monkeypatch.setenv("GQN_BASE_URL", wide.url)
    monkeypatch.setenv("GQN_DATA", str(root))
    assert run("download", SET, "--files", "1-3", "--split", "train").exit_code == 0
    assert run("index", SET, "--workers", 1).exit_code == 0
    assert run("verify", SET, "--workers", 1).exit_code == 0
    flip(raw(root) / "train" / "002-of-900.tfrecord")
    (command,) = json.loads(run("verify", SET, "--workers", 1, "--json").stdout)["fetch_again"]
    assert run(*command.split()[1:]).exit_code == 0
    assert run("verify", SET, "--workers", 1).exit_code == 0


def test_an_interrupt_keeps_the_received_bytes(wide, root):
    wide.pace = (1000, 0.01)
    process = started("download", SET, "--root", root, "--base-url", wide.url, "--workers", 2)
    wait_until(lambda: any(path.stat().st_size for path in root.rglob("*.part")))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Interrupted." in err
    assert "Traceback" not in err
    parts = list(root.rglob("*.part"))
    assert parts
    wide.pace = None
    wide.forget()
    assert run("download", SET, "--root", root, "--base-url", wide.url).exit_code == 0
    assert source_files(raw(root)) == source_files(wide.folder / SET)
    assert any(asked.start for asked in wide.gets())
    assert not list(root.rglob("*.part*"))


def test_an_interrupt_does_not_wait_for_a_stalled_server(wide, root):
    wide.always(Fault(stall=1000))
    process = started("download", SET, "--root", root, "--base-url", wide.url, "--files", "1-4", "--split", "train")
    wait_until(lambda: len(list(root.rglob("*.part"))) == 4)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert time.monotonic() - begun < 50  # of the 60 seconds of the timeout


def test_a_killed_download_resumes_to_the_same_bytes(wide, tmp_path, faults):
    wide.pace = (1000, 0.004)
    dice = random.Random(os.environ.get("GQN_FAULT_SEED", "3"))
    expected = source_files(wide.folder / SET)
    tries, survived, landed = faults.tries(3), 0, 0
    for number in range(tries):
        root = tmp_path / f"killed{number}"
        arguments = ("download", SET, "--root", root, "--base-url", wide.url, "--files", "1-10", "--workers", 3)
        for _ in range(2):
            before = len(source_files(root))
            process = started(*arguments)
            # Wait for the first new byte: the lock exists from the start, a partial file once data arrives.
            wait_until(lambda: list(root.rglob("*.part")) or len(source_files(root)) > before)  # noqa: B023
            time.sleep(dice.uniform(0, 0.7))
            landed += process.poll() is None
            process.kill()
            process.communicate()
            assert all(data == expected[name] for name, data in source_files(raw(root)).items())
        again = run(*arguments)
        whole = source_files(raw(root)) == expected and not list(root.rglob("*.part*"))
        survived += again.exit_code == 0 and whole
    assert landed > tries / 2
    faults.record(
        "killed: download from a web server",
        holds="no half file under a final name; the next run ends with identical bytes",
        tries=tries,
        survived=survived,
    )
