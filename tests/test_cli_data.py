"""The commands of `gqn-data`: one line for bad input, exit statuses, JSON, help, and the imports of `--help`."""

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from fault_server import FaultServer
from made_scenes import SET, framed, jpeg, made_scene, make_raw_folder, pattern, scenes_from, tree, write_source_file
from PIL import Image
from processes import wait_until, workers_of

from gqn_data.cli import main as gqn_data
from gqn_data.dataset import open_dataset
from gqn_data.inspect.contact_sheet import contact_sheet
from gqn_data.render import RENDERERS
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.schema.manifest import read_manifest
from gqn_model.cli import main as gqn

OLD_CLICK = metadata.version("click").startswith("8.1.")
ROOT = Path(__file__).resolve().parents[1]


def run(*arguments):
    return CliRunner().invoke(gqn_data, [str(argument) for argument in arguments])


def good(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def process(*arguments, **options):
    """Start the command in a separate process, as a user does."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "from gqn_data.cli import main; main(prog_name='gqn-data')", *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def the_error(result):
    """Return the only error line on stderr."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.stderr
    # convert may log before it starts; nothing else is allowed, and no traceback.
    others = [line for line in result.stderr.splitlines() if line not in lines]
    assert all(re.match(r"(zarr|numpy|webdataset): ", line) for line in others), result.stderr
    assert result.stdout == ""
    return lines[0]


@pytest.fixture(autouse=True)
def no_data_root(monkeypatch, tmp_path):
    """Hide the user's data root and the current folder from the tests."""
    monkeypatch.delenv("GQN_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def root(raw):
    return raw.parents[1]


# Bad input.


def damaged(raw, change):
    path = raw / "train" / "001-of-900.tfrecord"
    path.write_bytes(change(path.read_bytes()))


def scenes_instead(raw, *scenes):
    write_source_file(raw / "train" / "001-of-900.tfrecord", scenes)


SCENE = made_scene(1)
BAD_FILES = {
    "a view too few": (lambda raw: scenes_instead(raw, made_scene(0, 2)), "2 views, expected 3"),
    "a view too many": (lambda raw: scenes_instead(raw, SCENE, made_scene(0, 4)), "record 1 .*4 views, expected 3"),
    "frames of another size": (lambda raw: scenes_instead(raw, made_scene(0, 3, 32)), "32x32 pixels, expected 16x16"),
    "frames that are not JPEG": (
        lambda raw: scenes_instead(raw, SCENE._replace(frames=(*SCENE.frames[:2], b"GIF89a.."))),
        "view 2: not a JPEG",
    ),
    "frames without an end": (
        lambda raw: scenes_instead(raw, SCENE._replace(frames=(SCENE.frames[0][:-1], *SCENE.frames[1:]))),
        "view 0: a JPEG cut short",
    ),
    "too few camera numbers": (
        lambda raw: scenes_instead(raw, SCENE._replace(cameras=np.zeros(14, np.float32))),
        "14 camera numbers, expected 15",
    ),
    "no scene": (lambda raw: damaged(raw, lambda _: framed([b"text"])), "not a"),
    "a flipped bit in a payload": (
        lambda raw: damaged(raw, lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:]),
        "record 0 at byte 0: checksum of the payload",
    ),
    "a flipped bit in a length": (
        lambda raw: damaged(raw, lambda data: bytes([data[0] ^ 1]) + data[1:]),
        "record 0 at byte 0: not a TFRecord, or damaged",
    ),
    "a cut file": (lambda raw: damaged(raw, lambda data: data[:-3]), "record 3 .*the file ends inside the record"),
    "an empty file": (lambda raw: damaged(raw, lambda _: b""), "the file is empty"),
    "a compressed file": (lambda raw: damaged(raw, gzip.compress), "compressed with gzip; unpack it first"),
    "a web page": (lambda raw: damaged(raw, lambda _: b"<html>404</html>"), "a web page"),
}
bad_files = pytest.mark.parametrize(("damage", "said"), BAD_FILES.values(), ids=BAD_FILES)


@bad_files
def test_a_bad_source_file_stops_convert_with_one_line(damage, said, raw, root):
    damage(raw)
    before = tree(raw)
    result = run("convert", "sm5", "--root", root, "--workers", 1)
    assert result.exit_code == 1
    assert re.search(rf"^Error: {raw}/train/001-of-900\.tfrecord: record \d+ at byte \d+: ", the_error(result))
    assert re.search(said, the_error(result))
    assert not (root / "zarr" / SET / "manifest.json").exists()
    assert tree(raw) == before


@bad_files
def test_a_bad_source_file_stops_index_with_one_line(damage, said, raw):
    damage(raw)
    result = run("index", raw, "--workers", 1)
    assert result.exit_code == 1
    assert re.search(said, the_error(result))
    assert not (raw / "manifest.json").exists()


@bad_files
def test_verify_reports_a_bad_source_file(damage, said, raw):
    damage(raw)
    result = run("verify", raw, "--workers", 1)
    assert result.exit_code == 1
    assert re.search(said, result.stdout)
    assert result.stderr == ""
    *_, verdict, remedy = result.stdout.splitlines()
    assert verdict.endswith("1 fault")
    assert remedy.startswith(f"to fetch them again: gqn-data download {SET} --split train --files 1 --recheck")


def test_an_unknown_set_is_a_usage_error_with_the_nearest_name(tmp_path):
    for command in ("convert", "info", "verify", "index"):
        result = run(command, "rooms_ring_camra", "--root", tmp_path)
        assert result.exit_code == 2
        assert the_error(result) == "Error: unknown scene set 'rooms_ring_camra'; did you mean 'rooms_ring_camera'?"
    assert run("convert", tmp_path, "--set", "maez").exit_code == 2


@pytest.mark.parametrize("command", ["convert", "info", "verify", "index"])
def test_missing_and_empty_folders_are_one_line(command, tmp_path):
    (tmp_path / "sm5").mkdir()
    for source, said in (
        ("sm5-not-there/mazes", "no such file or folder"),
        *((("mazes", "raw/mazes: no such folder"),) if command != "convert" else ()),  # which would fetch the set
        (tmp_path / "sm5", "no source files; expected files named like train/001-of-900.tfrecord"),
    ):
        result = run(command, source)
        assert result.exit_code == 1
        assert said in the_error(result)
    assert tree(tmp_path) == {}


def test_a_set_that_is_neither_here_nor_on_the_server_is_one_line(tmp_path):
    with FaultServer(tmp_path) as server:
        result = run("convert", "mazes", "--base-url", server.url, "--root", tmp_path / "root")
    assert result.exit_code == 1
    assert "1,200 source files missing: train/0001-of-1080.tfrecord" in the_error(result)
    assert not (tmp_path / "root").exists()


def test_files_of_foreign_names_are_ignored(raw, root):
    for name in (".DS_Store", "._001-of-900.tfrecord", "003-of-900.tfrecord_.gstmp", "004-of-900.tfrecord.part"):
        (raw / "train" / name).write_bytes(b"foreign")
    good("convert", "sm5", "--root", root, "--workers", 1)
    assert len(open_dataset(root / "zarr" / SET)) == 7


@pytest.mark.parametrize("command", ["convert", "info", "verify", "view"])
def test_a_manifest_of_another_version_is_one_line(command, raw, root):
    folder = root / "zarr" / SET
    good("convert", "sm5", "--root", root, "--workers", 1)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "schema": 3}))
    before = tree(folder)
    extra = {"view": ("-o", root / "x.png"), "convert": ("--out", root / "out")}.get(command, ())
    result = run(command, folder, *extra)
    assert result.exit_code == 1
    assert "schema 3, expected 2" in the_error(result)
    assert tree(folder) == before


def test_a_shard_with_a_wrong_checksum_is_not_converted(raw, root):
    good("convert", "sm5", "--root", root, "--format", "numpy", "--workers", 1)
    folder = root / "numpy" / SET
    path = folder / "train" / "frames-00000.npy"
    data = bytearray(path.read_bytes())
    data[-5] ^= 8
    path.write_bytes(data)
    result = run("convert", folder, "--out", root / "out", "--workers", 1)
    assert result.exit_code == 1
    assert re.search(rf"{path}: SHA-256 is \w+, the manifest says \w+", the_error(result))
    assert not (root / "out" / "zarr" / SET / "manifest.json").exists()
    result = run("verify", folder)
    assert result.exit_code == 1
    assert str(path) in result.stdout


def test_a_full_disk_is_one_line(raw, root, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 7))
    result = run("convert", "sm5", "--root", root, "--workers", 1)
    assert result.exit_code == 1
    assert "would be written and 7 B are free" in the_error(result)


def test_scenes_of_two_origins_are_one_line(raw, root):
    pytest.importorskip("numba")
    result = run("render", "sm5", "--scenes", 2, "--root", root)
    assert result.exit_code == 1
    assert "two origins are not mixed" in the_error(result)


def test_errors_of_workers_are_one_line_and_exit_status_one(raw, root):
    damaged(raw, lambda data: data[:-3])
    for arguments in (("convert", "sm5", "--root", root, "--workers", 2), ("index", raw, "--workers", 2)):
        child = process(*arguments)
        stdout, stderr = child.communicate(timeout=120)
        assert child.returncode == 1
        assert stdout == ""
        assert [line for line in stderr.splitlines() if line.startswith("Error: ")]
        assert "Traceback" not in stderr


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for workers in /proc")
@pytest.mark.parametrize("later", [0, 0.06, *(pytest.param(later, marks=pytest.mark.slow) for later in (0.03, 0.1))])
def test_ctrl_c_names_the_remedy_and_a_rerun_completes(later, tmp_path):
    raw = make_raw_folder(tmp_path / "data" / "raw" / SET, train=(200, 200, 200), test=(5,))
    root = raw.parents[1]
    arguments = ("convert", "sm5", "--root", root, "--workers", 2, "--format", "numpy", "--format", "webdataset")
    child = process(*arguments, start_new_session=True)
    # The worst moment is while workers import, before they ignore the signal.
    wait_until(lambda: workers_of(child.pid) or child.poll() is not None)
    time.sleep(later)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does: to all processes of the group
    stdout, stderr = child.communicate(timeout=120)
    assert child.returncode == 130
    assert stdout == ""
    assert stderr.splitlines()[-1].startswith("Interrupted. Finished files were kept; rerun")
    assert "Traceback" not in stderr
    assert not (root / "webdataset" / SET / "manifest.json").exists()
    good(*arguments)
    good("verify", root / "webdataset" / SET)
    assert not (root / ".work").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="", marks=pytest.mark.skipif(OLD_CLICK, reason="click 8.1 prints the help, with status 0")),
        ("nonsense",),
        ("convert",),
        ("convert", "sm5", "--format", "zip"),
        ("convert", "sm5", "--limit", "0"),
        ("convert", "sm5", "--limit", "-3"),
        ("convert", "sm5", "--limit", "many"),
        ("convert", "sm5", "--workers", "0"),
        ("convert", "sm5", "--jpeg-quality", "101"),
        ("convert", "sm5", "--split", "validation"),
        ("convert", "sm5", "--on-corrupt", "ignore"),
        ("convert", "sm5", "--frames", "png"),
        ("convert", "sm5", "--shard-mb", "0"),
        ("convert", "sm5", "mazes"),
        ("view", "sm5"),
        ("view", "sm5", "-o", "x.png", "--scale", "0"),
        ("index", "sm5", "--nonsense"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_status_two(arguments, tmp_path):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("missing", ["webdataset", "zarr"])
def test_pixels_are_made_jpegs_only_by_an_explicit_quality(missing, raw, root):
    good("convert", "sm5", "--root", root, "--format", "numpy", "--workers", 1)
    frames = ("--frames", "jpeg") if missing == "zarr" else ()
    arguments = ("convert", root / "numpy" / SET, "--out", root / "out", "--format", missing, "--workers", 1, *frames)
    result = run(*arguments)
    assert result.exit_code == 2
    assert "--jpeg-quality" in the_error(result)
    good(*arguments, "--jpeg-quality", 95)
    assert read_manifest(root / "out" / missing / SET).frames.jpeg_quality == 95


# What the commands do.


def test_list_names_every_set_with_its_aliases_and_counts():
    text = good("list").stdout
    lines = text.splitlines()
    assert max(map(len, lines)) < 80
    for row in SCENE_SETS.values():
        (number,) = [number for number, line in enumerate(lines) if line.startswith(row.name + " ")]
        words = lines[number].removeprefix(row.name).split()
        assert (words[0] == "*") == (not row.settled)
        frame, views, *_ = words[not row.settled :]
        assert (frame, views) == (f"{row.frame_size}x{row.frame_size}", str(row.views))
        assert lines[number + 1] == f"  {', '.join(row.aliases)}"
    assert "availability unsettled" in text
    counts = {SET: " 1.01M ", "jaco": " 8M ", "mazes": " 120k ", "openai-block": " ? "}
    counts |= {"rooms_free_camera_with_object_rotations": " 11.3M? ", "shepard_metzler_7_parts": " 1.01M? "}
    for name, count in counts.items():
        assert [count in line for line in lines if line.startswith(f"{name} ")] == [True]
    assert good("list", "--names").stdout.split() == list(SCENE_SETS)
    facts = json.loads(good("list", "--json").stdout)
    assert [row["name"] for row in facts] == list(SCENE_SETS)
    assert [row["train"]["files"] for row in facts] == [row.train.files for row in SCENE_SETS.values()]


def test_list_shows_which_sets_can_be_rendered():
    assert good("list", "--names", "--rendered").stdout.split() == [name for name in SCENE_SETS if name in RENDERERS]
    for row in json.loads(good("list", "--json").stdout):
        assert row["rendered"] == (row["name"] in RENDERERS)
    shown = {line.split()[0]: line.split()[-1] for line in good("list").stdout.splitlines()[1:-2] if line[0] != " "}
    assert shown == {name: "yes" if name in RENDERERS else "no" for name in SCENE_SETS}


def test_render_writes_datasets_and_prints_their_folders(tmp_path):
    pytest.importorskip("numba")
    small = ("--scenes", 3, "--size", 16, "--views", 2, "--no-supersample", "--jpeg-quality", 80, "--root", tmp_path)
    result = good("render", "sm5", *small, "--format", "zarr", "--format", "numpy", "--json")
    assert [row["format"] for row in json.loads(result.stdout)] == ["zarr", "numpy"]
    assert json.loads(result.stdout)[0]["origin"]["details"]["jpeg_quality"] == 80
    assert "rendering 2 train + 1 test scenes of shepard_metzler_5_parts into" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["numpy", "zarr"]
    result = good("render", "sm5", *small, "--format", "zarr", "--format", "tfrecord")
    assert "already complete" in result.stderr
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == [
        f"{tmp_path}/{kind}/shepard_metzler_5_parts" for kind in ("raw", "zarr")
    ]


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--views", 0, "1 to 1000"),
        ("--views", 1001, "1 to 1000"),
        ("--size", 7, "16 to 512"),
        ("--seed", -1, "0 or more"),
        ("--scenes", 0, "1 or more"),
        ("--scenes", 900_001, "1 to 810000"),
        ("--jpeg-quality", 0, "1 to 100"),
    ],
)
def test_render_refuses_nonsense_with_the_range(tmp_path, option, value, expected):
    pytest.importorskip("numba")
    for kind in ("tfrecord", "zarr"):
        result = run("render", "sm5", "--scenes", 2, "--root", tmp_path, "--format", kind, option, value)
        assert result.exit_code == 2
        assert expected in the_error(result)
    assert list(tmp_path.iterdir()) == []


def test_info_describes_a_folder_before_and_after_indexing(raw, root):
    for _ in range(2):
        text = good("info", "sm5", "--root", root).stdout
        for part in (SET, "3 views of 16x16", "rendered", "7 scenes", "2 of 900", "810,000 scenes"):
            assert part in text
        value = json.loads(good("info", raw, "--json").stdout)
        assert value["splits"]["train"]["scenes"] == 7
        good("index", raw, "--workers", 1)
    assert "not indexed" not in good("info", raw).stdout


def test_convert_announces_its_output_and_prints_the_folder(raw, root):
    result = good("convert", "sm5", "--root", root, "--format", "zarr", "--format", "numpy", "--workers", 1)
    assert re.search(r"zarr: 7 train \+ 2 test scenes in \d+ shards; writing about [\d.]+ kB to ", result.stderr)
    lines = result.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(root / name / SET) for name in ("zarr", "numpy")]
    again = good("convert", "sm5", "--root", root, "--workers", 1)
    assert "nothing to do" in again.stderr


def test_convert_takes_a_path_and_writes_below_out(raw, tmp_path):
    moved = raw.rename(tmp_path / "mine")
    assert run("convert", moved, "--out", tmp_path / "out").exit_code == 1
    good("convert", moved, "--set", "sm5", "--out", tmp_path / "out", "--workers", 1, "--limit", 3)
    assert len(open_dataset(tmp_path / "out" / "zarr" / SET)) == 3
    value = json.loads(
        good(
            "convert", tmp_path / "out" / "zarr" / SET, "--format", "webdataset", "--out", tmp_path / "two", "--json"
        ).stdout
    )
    assert value[0]["folder"] == str(tmp_path / "two" / "webdataset" / SET)
    assert value[0]["splits"]["train"]["scenes"] == 3


def test_a_dry_run_prints_bytes_and_writes_nothing(raw, root):
    before = tree(root)
    value = json.loads(good("convert", "sm5", "--root", root, "--dry-run", "--json").stdout)
    assert value[0]["shards"] == 2
    assert value[0]["bytes"] > 9 * 3 * 300
    assert "2 shards, about" in good("convert", "sm5", "--root", root, "--dry-run").stdout
    assert tree(root) == before


def test_the_data_root_comes_from_the_option_or_the_environment(raw, root, monkeypatch, tmp_path):
    good("info", "sm5", "--root", root)
    assert run("info", "sm5").exit_code == 1
    monkeypatch.setenv("GQN_DATA", str(root))
    good("info", "sm5")
    monkeypatch.delenv("GQN_DATA")
    shutil.copytree(root, tmp_path / "data")
    good("info", "sm5")


def test_skipped_records_are_counted(raw, root):
    damaged(raw, lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:])
    result = good("convert", "sm5", "--root", root, "--workers", 1, "--on-corrupt", "skip")
    assert "6 train + 2 test scenes" in result.stderr
    assert "1 corrupt record skipped (listed in the manifest)" in result.stdout
    assert "1 corrupt record skipped" in good("info", root / "zarr" / SET).stdout


def test_overwrite_replaces_a_dataset(raw, root):
    good("convert", "sm5", "--root", root, "--workers", 1)
    result = run("convert", "sm5", "--root", root, "--workers", 1, "--limit", 2)
    assert result.exit_code == 1
    assert "--overwrite" in the_error(result)
    good("convert", "sm5", "--root", root, "--workers", 1, "--limit", 2, "--overwrite")
    assert len(open_dataset(root / "zarr" / SET)) == 2


@pytest.mark.parametrize("name", ["zarr", "numpy", "webdataset", "raw"])
def test_verify_finds_no_fault_in_sound_data(name, raw, root):
    if name != "raw":
        good("convert", "sm5", "--root", root, "--format", name, "--workers", 1)
    result = good("verify", root / name / SET, "--deep", "--workers", 1)
    assert result.stdout.endswith("27 frames decoded: all good\n")
    value = json.loads(good("verify", root / name / SET, "--json", "--workers", 1).stdout)
    assert value["faults"] == []


def test_verify_prints_faults_as_json_too(raw):
    damaged(raw, lambda data: data[:-3])
    result = run("verify", raw, "--json", "--workers", 1)
    assert result.exit_code == 1
    assert len(json.loads(result.stdout)["faults"]) == 1


def test_view_draws_scenes_as_rows_and_views_as_columns(raw, root, tmp_path):
    good("convert", "sm5", "--root", root, "--format", "numpy", "--workers", 1)
    good("view", root / "numpy" / SET, "-o", tmp_path / "sheet.png", "--scenes", 2, "--views", 3, "--first", 4)
    picture = np.asarray(Image.open(tmp_path / "sheet.png"))
    gap, step = 2, 16 + 2
    scenes = open_dataset(root / "numpy" / SET)
    sheet = contact_sheet(scenes, [4, 5], 3)
    assert sheet.shape == (2 * step + gap, 3 * step + gap, 3)
    for row in range(2):
        for column in range(3):
            top, left = row * step + gap, column * step + gap
            assert np.array_equal(sheet[top : top + 16, left : left + 16], scenes[4 + row].frame(column))
    windows = np.lib.stride_tricks.sliding_window_view(picture, sheet.shape)[:, :, 0]
    ((top, left),) = np.argwhere((windows == sheet).all((2, 3, 4)))
    titles = picture.min(2) < 128  # dark
    titles[top:, left:] = False
    assert titles[: top // 2].any()
    for row in range(2):  # a number beside each scene, and one above each view
        assert titles[top + row * step : top + (row + 1) * step, :left].any()
    for column in range(3):
        assert titles[top // 2 : top, left + column * step : left + (column + 1) * step].any()
    good("view", root / "numpy" / SET, "-o", tmp_path / "large.png", "--scenes", 1, "--views", 2, "--scale", 3)
    large = contact_sheet(scenes, [0], 2, 3)
    assert large.shape == (48 + 2 * gap, 2 * (48 + gap) + gap, 3)
    with Image.open(tmp_path / "large.png") as picture:
        assert picture.height == large.shape[0] + top
    good("view", root / "numpy" / SET, "-o", tmp_path / "all.jpg", "--split", "test")
    with Image.open(tmp_path / "all.jpg") as picture:
        assert picture.format == "JPEG"


def test_a_set_name_prefers_the_converted_dataset(raw, root, tmp_path):
    good("convert", "sm5", "--root", root, "--format", "numpy", "--workers", 1)
    good("view", "sm5", "--root", root, "-o", tmp_path / "name.png")  # the raw folder is not indexed
    good("view", root / "numpy" / SET, "-o", tmp_path / "path.png")
    assert (tmp_path / "name.png").read_bytes() == (tmp_path / "path.png").read_bytes()
    shutil.rmtree(raw)
    for command in ("verify", "info"):
        assert good(command, "sm5", "--root", root).stdout == good(command, root / "numpy" / SET).stdout


@pytest.mark.parametrize("options", [("-o", "x.gif"), ("-o", "x.png", "--first", "7"), ("-o", "x")])
def test_pictures_that_cannot_be_drawn_are_one_line(options, raw, root, tmp_path):
    good("convert", "sm5", "--root", root, "--workers", 1)
    result = run("view", root / "zarr" / SET, *options)
    assert result.exit_code == 2
    assert the_error(result)
    assert not list(tmp_path.glob("x*"))


def test_view_of_a_folder_without_an_index_leaves_it_as_it_is(raw, tmp_path):
    before = tree(raw)
    result = run("view", raw, "-o", tmp_path / "before.png", "--scenes", 3)
    assert (result.exit_code, tree(raw)) == (0, before)
    assert run("index", raw).exit_code == 0
    assert run("view", raw, "-o", tmp_path / "after.png", "--scenes", 3).exit_code == 0
    assert (tmp_path / "before.png").read_bytes() == (tmp_path / "after.png").read_bytes()


def test_view_of_a_folder_without_source_files_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    result = run("view", tmp_path / "empty", "-o", tmp_path / "x.png")
    assert result.exit_code == 1
    assert the_error(result)
    assert not (tmp_path / "x.png").exists()


def test_an_index_can_lie_outside_of_read_only_source_files(raw, root, tmp_path):
    before, index = tree(raw), tmp_path / SET
    for _ in range(2):  # the second run reads no record
        result = run("index", raw, "--out", index)
        assert result.exit_code == 0, result.output
    assert tree(raw) == before
    assert run("verify", index, "--deep").exit_code == 0
    assert run("convert", index, "--root", root, "--format", "numpy").exit_code == 0
    assert run("index", raw).exit_code == 0
    assert open_dataset(index).fingerprint == open_dataset(raw).fingerprint


def test_an_index_never_replaces_what_is_in_its_folder(raw, tmp_path):
    first = next(raw.glob("train/*.tfrecord"))
    index = tmp_path / "index"
    (index / "train").mkdir(parents=True)
    (index / "train" / first.name).write_text("mine")
    result = run("index", raw, "--out", index)
    assert result.exit_code == 1
    assert f"{index / 'train' / first.name}: exists, expected a link to {first}" in the_error(result)
    assert (index / "train" / first.name).read_text() == "mine"


# Help and documentation.


def commands(group):
    return sorted(click.Group.list_commands(group, click.Context(group)))


@pytest.mark.parametrize(("group", "name"), [(gqn_data, "gqn-data"), (gqn, "gqn")], ids=["gqn-data", "gqn"])
def test_every_command_has_help(group, name):
    assert CliRunner().invoke(group, ["--help"]).exit_code == 0
    for command in commands(group):
        result = CliRunner().invoke(group, [command, "--help"])
        assert result.exit_code == 0
        assert len(group.commands[command].help or "") > 20


@pytest.mark.parametrize("command", commands(gqn_data))
def test_help_and_its_summaries_fit_80_columns(command):
    width = {"terminal_width": 80}
    assert max(map(len, CliRunner().invoke(gqn_data, [command, "--help"], **width).stdout.splitlines())) <= 80
    (summary,) = [
        line
        for line in CliRunner().invoke(gqn_data, ["--help"], **width).stdout.splitlines()
        if line.startswith(f"  {command} ")
    ]
    assert summary.endswith(".")
    assert not summary.endswith("...")


@pytest.mark.parametrize("program", ["gqn_data.cli", "gqn_model.cli", "cli"])
@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_imports_nothing_heavy(program, arguments):
    heavy = ("torch", "numpy", "zarr", "numba", "PIL", "webdataset", "tfrecord", "google.protobuf")
    code = (
        f"import sys, {program} as door\nsys.argv = ['x', *{arguments}]\n"
        "try: door.main()\nexcept SystemExit as end: assert not end.code\n"
        f"print('HEAVY', [name for name in {heavy} if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_the_commands_import_with_older_versions_of_click():
    # As in click 8.1 to 8.3: `click.ParamType[...]` raises TypeError at run time.
    code = (
        "import click\ndef refuse(cls, item): raise TypeError('not subscriptable')\n"
        "click.ParamType.__class_getitem__ = classmethod(refuse)\nimport gqn_data.cli, gqn_model.cli"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_converting_and_opening_need_no_torch(raw, root):
    code = (
        "import sys\nfrom gqn_data.cli import main\n"
        f"try: main(['convert', 'sm5', '--root', {str(root)!r}, '--workers', '1'])\n"
        "except SystemExit as end: assert not end.code\n"
        f"import gqn_data\nassert len(gqn_data.open({str(root / 'zarr' / SET)!r})[0].frames) == 3\n"
        "assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("program", "command"),
    [("gqn-data", name) for name in commands(gqn_data)] + [("gqn", name) for name in commands(gqn)],
)
def test_every_command_is_in_the_readme(program, command):
    readme = ROOT / "README.md"
    assert readme.exists(), "README.md is missing"
    found = re.search(rf"{program} {command}\b", readme.read_text())
    assert found, f"README.md does not mention `{program} {command}`"


def test_real_mazes_convert_by_the_command_of_the_readme(mazes, tmp_path):
    good("convert", mazes, "--format", "zarr", "--format", "webdataset", "--out", tmp_path, "--workers", 1)
    for name in ("zarr", "webdataset"):
        assert (len(open_dataset(tmp_path / name / "mazes")), len(open_dataset(tmp_path / name / "mazes", "test"))) == (
            8,
            4,
        )
        good("verify", tmp_path / name / "mazes", "--workers", 1)


def test_the_made_scenes_are_all_different():
    # Guards the fixtures: equal frames would hide a mix-up of scenes or views.
    frames = [frame for scene in scenes_from(0, 20) + scenes_from(1000, 5) for frame in scene.frames]
    assert len(set(frames)) == len(frames)
    assert jpeg(pattern(1, 2)) == made_scene(1).frames[2]
