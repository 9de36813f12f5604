"""Job arrays: parts of a run in parallel processes, and the run that joins them."""

import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from made_scenes import SET, make_raw_folder, tree
from processes import wait_until

from gqn_data.cli import main as gqn_data
from gqn_data.convert import convert, index
from gqn_data.convert.destination import lock_work_folder
from gqn_data.convert.plan import Options
from gqn_data.convert.run import convert_part
from gqn_data.errors import DestinationError, OptionError
from gqn_data.executors import job_array
from gqn_data.executors.job_array import Part, check_no_parts_running, hold_part
from gqn_data.inspect.verify import verify
from gqn_data.io import atomic
from gqn_data.io.paths import parse_path
from gqn_data.render.write import render_scene_set
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.schema.manifest import read_manifest

ROOT = Path(__file__).resolve().parents[3]
ROW = SCENE_SETS[SET]
SMALL = 3000  # bytes a shard: one scene or two
BOTH = ("zarr", "webdataset")

# One part with shards smaller than the command can write.
DRIVER = """
import sys
from pathlib import Path
from gqn_data.convert.run import convert_part
from gqn_data.executors.job_array import Part
from gqn_data.convert.plan import Options
from gqn_data.schema.catalog import SCENE_SETS
options = Options(formats=("zarr", "webdataset"), shard_bytes=3000, workers=1)
convert_part(Path(sys.argv[1]), SCENE_SETS[sys.argv[2]], Path(sys.argv[3]), options, Part.parse(sys.argv[4]))
"""


def options(**more):
    return Options(**{"formats": ("zarr",), "shard_bytes": SMALL, "workers": 1, **more})


def whole_of(raw, root, **more):
    """Return the files that a run without parts writes."""
    convert(raw, ROW, root, options(**more))
    return tree(root)


def run_part(raw, root, text, **more):
    return convert_part(raw, ROW, root, options(**more), Part.parse(text))


def start(raw, root, text):
    line = [sys.executable, "-c", DRIVER, str(raw), SET, str(root), text]
    return subprocess.Popen(line, env={**os.environ, "PYTHONPATH": str(ROOT)})


# Numbering of parts.


@given(items=st.lists(st.integers(), max_size=50), count=st.integers(1, 60))
def test_parts_cover_all_items_once_and_evenly(items, count):
    shares = [Part(number, count).of(items) for number in range(count)]
    assert sorted(item for share in shares for item in share) == sorted(items)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["0/1", "0/8", "7/8", "999/1000"])
def test_str_inverts_parse(text):
    assert str(Part.parse(text)) == text


@pytest.mark.parametrize("text", ["8/8", "1/1", "0/0", "3/2"])
def test_a_part_out_of_range_is_rejected(text):
    with pytest.raises(OptionError, match=f"part {text} .*from 0: "):
        Part.parse(text)


@pytest.mark.parametrize(
    "text", ["", "1", "1/", "/2", "a/b", "-1/2", "1/2/3", " 1/2", "\u0661/\u0662", "1/2\n", "9" * 40 + "/1"]
)
def test_malformed_parts_are_rejected(text):
    with pytest.raises(OptionError, match="expected NUMBER/COUNT: 0/10"):
        Part.parse(text)


# Conversion.


def test_parallel_parts_join_to_the_bytes_of_one_run(tmp_path):
    raw = make_raw_folder(tmp_path / "raw" / SET, train=(9, 6), test=(3,))
    root = tmp_path / "out"
    running = [start(raw, root, f"{number}/3") for number in range(3)]
    assert [child.wait(120) for child in running] == [0, 0, 0]
    assert not list(root.rglob("manifest.json"))
    joined = convert(raw, ROW, root, options(formats=BOTH))
    assert [result.written for result in joined] == [0, 0]
    assert tree(root) == whole_of(raw, tmp_path / "whole", formats=BOTH)


def test_killing_and_rerunning_a_part_gives_the_same_bytes(tmp_path, faults):
    raw = make_raw_folder(tmp_path / "raw" / SET, train=(30, 15), test=(3,))
    whole = whole_of(raw, tmp_path / "whole", formats=BOTH)
    tries, survived = faults.tries(1), 0
    chance = random.Random(3)
    for number in range(tries):
        root = tmp_path / f"out{number}"
        running = [start(raw, root, f"{part}/2") for part in range(2)]
        enough = chance.randrange(20, 100)
        wait_until(lambda: running[0].poll() is not None or sum(1 for _ in root.rglob("*")) > enough)  # noqa: B023
        running[0].kill()
        running[0].wait()
        again = start(raw, root, "0/2")  # while the other part is running
        assert again.wait(120) == 0
        assert running[1].wait(120) == 0
        assert not list(root.rglob("manifest.json"))
        convert(raw, ROW, root, options(formats=BOTH))
        survived += tree(root) == whole
    faults.record(
        "killed: a part of a job array", holds="run again and joined, the same bytes", tries=tries, survived=survived
    )


def test_the_joining_run_writes_shards_of_missing_parts(shared_raw, tmp_path):
    whole = whole_of(shared_raw, tmp_path / "whole")
    done = [run_part(shared_raw, tmp_path / "out", text)[0] for text in ("0/3", "2/3")]
    assert done[1].done == done[0].written + done[1].written
    joined = convert(shared_raw, ROW, tmp_path / "out", options())[0]
    assert joined.kept == done[1].done
    assert joined.written == done[0].shards - done[1].done > 0
    assert tree(tmp_path / "out") == whole


def test_a_finished_part_is_not_repeated(shared_raw, tmp_path):
    first, again = (run_part(shared_raw, tmp_path, "1/2")[0] for _ in range(2))
    assert (again.written, again.kept) == (0, first.written)


def test_more_parts_than_shards_are_harmless(shared_raw, tmp_path):
    whole = whole_of(shared_raw, tmp_path / "whole", shard_bytes=10**6)
    for number in range(5):
        run_part(shared_raw, tmp_path / "out", f"{number}/5", shard_bytes=10**6)
    convert(shared_raw, ROW, tmp_path / "out", options(shard_bytes=10**6))
    assert tree(tmp_path / "out") == whole


def test_parts_of_different_counts_may_be_mixed(shared_raw, tmp_path):
    whole = whole_of(shared_raw, tmp_path / "whole")
    for text in ("0/2", "1/3", "3/4"):
        run_part(shared_raw, tmp_path / "out", text)
    convert(shared_raw, ROW, tmp_path / "out", options())
    assert tree(tmp_path / "out") == whole


def test_all_parts_together_scan_for_corrupt_records_once(tmp_path, monkeypatch):
    raw = make_raw_folder(tmp_path / "raw" / SET)
    path = raw / "train" / "001-of-900.tfrecord"
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    whole = whole_of(raw, tmp_path / "whole", on_corrupt="skip")
    looked = []
    read = index.read_records
    monkeypatch.setattr(index, "read_records", lambda path, *more: looked.append(path) or read(path, *more))
    for number in range(3):
        run_part(raw, tmp_path / "out", f"{number}/3", on_corrupt="skip")
    convert(raw, ROW, tmp_path / "out", options(on_corrupt="skip"))
    assert len(looked) == 3  # the source files
    assert tree(tmp_path / "out") == whole


def test_parts_of_a_complete_dataset_do_nothing(shared_raw, tmp_path):
    whole = whole_of(shared_raw, tmp_path)
    assert run_part(shared_raw, tmp_path, "0/2") == []
    assert tree(tmp_path) == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["zarr"]


def test_parts_write_the_missing_shards_of_a_dataset(shared_raw, tmp_path):
    whole = whole_of(shared_raw, tmp_path)
    shards = read_manifest(tmp_path / "zarr" / SET).splits["train"].shards
    for number in (0, 1):
        (tmp_path / "zarr" / SET / shards[number].files[0].name).unlink()
    assert [run_part(shared_raw, tmp_path, f"{number}/2")[0].written for number in (0, 1)] == [1, 1]
    assert convert(shared_raw, ROW, tmp_path, options())[0].written == 0
    assert tree(tmp_path) == whole


def test_a_part_with_other_options_is_rejected_and_removes_nothing(shared_raw, tmp_path):
    run_part(shared_raw, tmp_path, "0/2")
    before = tree(tmp_path)
    for other in ({"shard_bytes": 9000}, {"limit": 2}, {"splits": ("test",)}, {"frames": "raw"}):
        with pytest.raises(DestinationError, match=r"unfinished conversion.*give all parts the same"):
            run_part(shared_raw, tmp_path, "1/2", **other)
    assert tree(tmp_path) == before


def test_a_part_of_other_source_files_is_rejected(raw, tmp_path):
    run_part(raw, tmp_path / "out", "0/2")
    (raw / "train" / "002-of-900.tfrecord").unlink()
    with pytest.raises(DestinationError, match="of other source files or with other options"):
        run_part(raw, tmp_path / "out", "1/2")


def test_parts_cannot_overwrite_a_dataset(shared_raw, tmp_path):
    with pytest.raises(OptionError, match="--overwrite with --shard"):
        run_part(shared_raw, tmp_path, "0/2", overwrite=True)


def test_a_part_keeps_the_temporary_files_of_others(shared_raw, tmp_path):
    others = tmp_path / "out" / "zarr" / SET / "train" / "frames" / "c" / "x.partial"
    others.parent.mkdir(parents=True)
    others.write_bytes(b"half of a shard of another part")
    run_part(shared_raw, tmp_path / "out", "0/2")
    run_part(shared_raw, tmp_path / "out", "1/2")
    assert others.exists()
    convert(shared_raw, ROW, tmp_path / "out", options())
    assert not others.exists()


@pytest.mark.slow
def test_parts_in_an_object_store_are_joined(s3, shared_raw, tmp_path):
    whole = whole_of(shared_raw, tmp_path / "whole", formats=("webdataset",))
    out = parse_path(s3) / "out"
    for number in range(2):
        run_part(shared_raw, out, f"{number}/2", formats=("webdataset",))
    convert(shared_raw, ROW, out, options(formats=("webdataset",)))
    assert {name: (out / name).read_bytes() for name, _ in out.files()} == whole


# Locks.


def test_the_same_part_cannot_run_twice_in_parallel(shared_raw, tmp_path):
    work = tmp_path / ".work" / SET
    with hold_part(work, Part(1, 2), lambda: None):
        with pytest.raises(DestinationError, match="part 1/2 "):
            run_part(shared_raw, tmp_path, "1/2")
        run_part(shared_raw, tmp_path, "0/2")  # another part is accepted
    run_part(shared_raw, tmp_path, "1/2")


def test_a_run_without_a_part_is_rejected_while_parts_run(shared_raw, tmp_path):
    work = tmp_path / ".work" / SET
    with (
        hold_part(work, Part(3, 10), lambda: None),
        pytest.raises(DestinationError, match="part 3/10 "),
    ):
        convert(shared_raw, ROW, tmp_path, options())
    convert(shared_raw, ROW, tmp_path, options())
    assert not (tmp_path / ".work").exists()


def test_stale_locks_of_killed_parts_are_removed(tmp_path):
    (tmp_path / ".part-3-of-10.lock").touch()
    check_no_parts_running(tmp_path)
    assert tree(tmp_path) == {}
    (tmp_path / ".part-3-of-10.lock").touch()
    with hold_part(tmp_path, Part(3, 10), lambda: None):
        pass
    assert tree(tmp_path) == {}


def test_a_part_waits_for_a_run_without_a_part(shared_raw, tmp_path, monkeypatch):
    monkeypatch.setattr(job_array, "_POLL", 0.01)
    work = tmp_path / ".work" / SET
    said, done = [], []

    def late():
        done.extend(convert_part(shared_raw, ROW, tmp_path, options(), Part(0, 2), said.append))

    with lock_work_folder(work):
        thread = threading.Thread(target=late)
        thread.start()
        wait_until(lambda: said)
        assert str(work) in said[0]
        assert not done
    thread.join(60)
    assert done[0].written > 0


def test_parts_prepare_the_folder_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(job_array, "_POLL", 0.01)
    running, counts = [], []

    def prepare():
        running.append(1)
        counts.append(len(running))
        atomic.write_json(tmp_path / "plan.json", {})
        running.pop()

    def work(number):
        with hold_part(tmp_path, Part(number, 6), prepare):
            pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert counts == [1] * 6


# The commands.


def command(*arguments):
    return CliRunner().invoke(gqn_data, [str(argument) for argument in arguments])


def test_the_command_converts_a_part_and_reports_overall_progress(shared_raw, tmp_path):
    made = ("convert", shared_raw, "--set", SET, "--out", tmp_path / "out", "--workers", "1")
    said = command(*made, "--shard", "0/2")
    assert said.exit_code == 0, said.output
    assert "part 0/2, 1 shard written, 0 kept; 1 of 2 complete" in said.stdout
    again = json.loads(command(*made, "--shard", "1/2", "--json").stdout)
    assert [(row["written"], row["done"], row["shards"]) for row in again] == [(1, 2, 2)]
    assert command(*made).exit_code == 0
    assert tree(tmp_path / "out") == whole_of(shared_raw, tmp_path / "whole", shard_bytes=256 << 20)


@pytest.mark.parametrize("name", ["convert", "verify"])
def test_a_part_out_of_range_is_a_usage_error(name, shared_raw):
    said = command(name, shared_raw, "--set", SET, "--shard", "2/2")
    assert said.exit_code == 2
    assert said.stderr.splitlines() == [
        "Error: part 2/2 does not exist; parts are numbered from 0: 0/2 to 1/2",
    ]


# Rendering and checking.


def test_rendered_parts_give_the_files_of_one_run(tmp_path):
    wanted = {"scenes": 70, "views": 1, "frame_size": 16, "supersample": False, "workers": 1}
    render_scene_set(tmp_path / "whole", SET, **wanted)
    reports = [render_scene_set(tmp_path / "parts", SET, part=Part(number, 3), **wanted) for number in range(3)]
    assert sum(report.scenes for report in reports) == 70
    assert all(report.files_written for report in reports)
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")
    joined = render_scene_set(tmp_path / "parts", SET, **wanted)
    assert (joined.files_written, joined.files_kept) == (0, sum(report.files_written for report in reports))


def test_a_rendering_run_is_rejected_while_parts_run(tmp_path):
    folder = tmp_path / "raw" / SET
    with (
        hold_part(folder, Part(0, 2), lambda: None),
        pytest.raises(DestinationError, match="part 0/2 "),
    ):
        render_scene_set(tmp_path, SET, scenes=2, views=1, frame_size=16, workers=1)


def test_parts_of_verify_find_the_faults_of_one_run(shared_raw, tmp_path):
    whole_of(shared_raw, tmp_path)
    folder = tmp_path / "zarr" / SET
    for row in list(read_manifest(folder).all_files())[:6:2]:
        path = folder / row.name
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    one = verify(folder, ROW, deep=True, workers=1)
    shares = [verify(folder, ROW, deep=True, workers=1, part=Part(number, 3)) for number in range(3)]
    assert sorted(fault for share in shares for fault in share.faults) == sorted(one.faults)
    assert len(one.faults) >= 3
    assert sum(share.files for share in shares) == one.files
    assert sum(share.frames for share in shares) == one.frames
