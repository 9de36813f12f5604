"""`gqn-data bench`: output, advice and errors. Rates are not tested, because machines differ."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from made_scenes import SET, make_raw_folder
from PIL import Image

from gqn_data.bench.ceiling import BareDecoding, BareGathering, bare_work, limit
from gqn_data.bench.measure import bench
from gqn_data.cli import main as gqn_data
from gqn_data.convert import convert
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.plan import Options
from gqn_data.dataset import open_dataset
from gqn_data.errors import OptionError
from gqn_data.io import atomic
from gqn_data.io.paths import parse_path
from gqn_data.sources.raw_folder import open_raw_folder

ROOT = Path(__file__).resolve().parents[1]
QUICK = ("--batch-size", 2, "--seconds", 0.05)

pytestmark = [
    # Python 3.12 and later warn of a fork in a process with threads.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


def run(*arguments):
    return CliRunner().invoke(gqn_data, ["bench", *map(str, arguments)])


def good(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert not multiprocessing.active_children()
    return result


@pytest.fixture(scope="module")
def folders(tmp_path_factory, scene_set):
    """Make the same scenes as JPEG, as pixels, and as an indexed raw folder."""
    root = tmp_path_factory.mktemp("bench")
    raw = make_raw_folder(root / "raw" / SET)
    options = Options(formats=("zarr", "numpy"), workers=1, shard_bytes=8000)
    made = {done.manifest.format: done.folder for done in convert(raw, scene_set, root, options)}
    pixels = convert(made["zarr"], scene_set, root / "pixels", Options(formats=("zarr",), frames="raw", workers=1))
    index_raw_folder(open_raw_folder(raw, scene_set))
    return {**made, "tfrecord": raw, "zarr-raw": pixels[0].folder}


def test_the_json_has_every_figure(folders):
    result = good(folders["zarr"], *QUICK, "--workers", "2,0,1", "--json", "--step-ms", 7, "--step-ms", 70)
    found = json.loads(result.stdout)
    assert set(found) == {
        "folder", "scene_set", "split", "format", "encoding", "scenes", "batch_size", "context", "cores", "limit",
        "load", "measured", "advice", "versions",
    }  # fmt: skip
    assert (found["format"], found["encoding"], found["limit"]) == ("zarr", "jpeg", "decoding")
    assert (found["split"], found["scenes"], found["batch_size"], found["context"]) == ("train", 7, 2, [1, 2])
    assert [row["workers"] for row in found["measured"]] == [0, 1, 2]
    for row in found["measured"]:
        assert set(row) == {
            "workers", "scenes_per_second", "frames_per_second", "limit_frames_per_second", "of_limit",
            "first_batch_seconds", "worker_bytes",
        }  # fmt: skip
        assert row["of_limit"] == pytest.approx(row["frames_per_second"] / row["limit_frames_per_second"])
        assert 2 <= row["frames_per_second"] / row["scenes_per_second"] <= 3  # a query and one or two context views
        assert row["first_batch_seconds"] > 0
    assert found["measured"][0]["worker_bytes"] is None  # without workers
    if sys.platform == "linux":
        assert all(row["worker_bytes"] > 100_000 for row in found["measured"][1:])
    assert ["a step of 7 ms" in found["advice"][0], "a step of 70 ms" in found["advice"][1]] == [True, True]
    assert set(found["versions"]) == {"gqn-toolkit", "python", "torch", "decoder"}


def test_the_text_is_a_table_and_the_advice(folders):
    result = good(folders["zarr"], *QUICK, "--workers", "1", "--context", 1)
    lines = result.stdout.splitlines()
    assert lines[0] == f"{folders['zarr']}: 7 scenes of train, zarr, jpeg"
    assert lines[1].startswith("batches of 2, 1 to 1 context views and a query; ")
    assert lines[2].split()[:2] == ["workers", "scenes/s"]
    assert lines[3].split()[0] == "1"
    assert all(line.startswith("- ") for line in lines[4:])
    assert "(batch 2, 2 views)" in lines[4]
    assert "measuring workers 1 (of 1)" in result.stderr


@pytest.mark.parametrize(
    ("container", "of"),
    [("zarr", "decoding"), ("tfrecord", "decoding"), ("numpy", "gathering"), ("zarr-raw", "gathering")],
)
def test_every_container_is_compared_with_its_own_limit(folders, container, of):
    found = bench(folders[container], batch_size=2, workers=[1], seconds=0.02)
    assert found.limit == of
    assert found.measured[0].limit_frames_per_second > 0


def test_the_bare_work_uses_the_frames_of_the_dataset(folders):
    dataset = open_dataset(folders["zarr"])
    decoding = bare_work(dataset, 2)
    assert isinstance(decoding, BareDecoding)
    assert decoding.jpegs == [bytes(jpeg) for scene in dataset for jpeg in scene.encoded[:2]]
    gathering = bare_work(open_dataset(folders["zarr-raw"]), 2)
    assert isinstance(gathering, BareGathering)
    assert np.array_equal(gathering.source, [scene.frames for scene in dataset])
    files = bare_work(open_dataset(folders["numpy"]), 2).source
    assert len(files) > 1
    assert np.array_equal(np.concatenate([np.load(path) for path in files]), gathering.source)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_the_limit_is_measured_in_several_processes(folders, start):
    bare = bare_work(open_dataset(folders["zarr"]), 2)
    assert limit(bare, 2, 0.02, start) > 0
    assert not multiprocessing.active_children()


def test_a_plot_is_a_picture(folders, tmp_path):
    pytest.importorskip("matplotlib")
    good(folders["zarr"], *QUICK, "--workers", "0,1", "--plot", tmp_path / "rates.png")
    with Image.open(tmp_path / "rates.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300


def test_an_impossible_plot_is_refused_before_measuring(folders, tmp_path, monkeypatch):
    result = run(folders["zarr"], "--plot", tmp_path / "rates.doc")
    assert result.exit_code == 2
    assert "cannot write .doc, expected one of .png" in result.stderr
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run(folders["zarr"], "--plot", tmp_path / "rates.png")
    assert result.exit_code == 1
    assert "pip install '.[plot]'" in result.stderr
    assert "measuring" not in result.stderr


def test_all_views_and_the_test_split_can_be_measured(folders):
    result = good(folders["zarr"], *QUICK, "--split", "test", "--context", "all", "--workers", "0", "--json")
    found = json.loads(result.stdout)
    assert (found["split"], found["scenes"], found["context"]) == ("test", 2, "all")
    (row,) = found["measured"]
    assert row["frames_per_second"] / row["scenes_per_second"] == pytest.approx(3)


def test_a_set_is_found_by_its_name_in_the_data_root(folders):
    root = folders["tfrecord"].parents[1]
    found = json.loads(good("sm5", "--root", root, *QUICK, "--workers", "0", "--json").stdout)
    assert found["format"] == "zarr"  # a converted dataset is preferred to the raw folder


def test_a_dataset_in_a_store_is_measured(folders, s3):
    for path in folders["zarr"].rglob("*"):
        if path.is_file():
            name = path.relative_to(folders["zarr"]).as_posix()
            with atomic.writing(parse_path(s3) / "set" / name) as file:
                file.write(path.read_bytes())
    found = json.loads(good(f"{s3}/set", *QUICK, "--workers", "1", "--json").stdout)
    assert found["folder"] == f"{s3}/set"
    assert found["measured"][0]["frames_per_second"] > 0


def test_records_without_an_index_are_refused_with_the_command(tmp_path):
    raw = make_raw_folder(tmp_path / "raw" / SET)
    result = run(raw)
    assert result.exit_code == 1
    assert f"gqn-data index {raw}" in result.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--workers", "one"), "--workers': 'one', expected"),
        (("--workers", ""), "--workers': '', expected"),
        (("--workers", "5000"), "--workers': '5000', expected"),
        (("--context", "few"), "--context': 'few', expected"),
        (("--context", "9"), "a scene has 3"),
        (("--seconds", "0"), "0.0 is not in the range x>0"),
        (("--batch-size", "500"), "7 train scenes are fewer than a batch of 500"),
    ],
)
def test_options_that_cannot_be_measured_are_refused(folders, options, said):
    result = run(folders["zarr"], *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


def test_arguments_that_cannot_be_measured_are_refused(folders):
    with pytest.raises(OptionError, match=r"workers is \[-1\]"):
        bench(folders["zarr"], workers=[-1])
    with pytest.raises(OptionError, match="seconds is 0"):
        bench(folders["zarr"], seconds=0)
    with pytest.raises(OptionError, match=r"steps_ms is \[5, 0\]"):
        bench(folders["zarr"], steps_ms=[5, 0])


def test_a_damaged_frame_ends_the_command_with_one_line(folders, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(folders["tfrecord"], damaged)
    for path in (damaged / "train").glob("*.tfrecord"):
        data = path.read_bytes()
        path.write_bytes(data.replace(b"\xff\xd8", b"\x00\x00"))
    result = run(damaged, *QUICK, "--workers", "0")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize(
    ("package", "extra", "call"),
    [
        ("torch", "train", "from gqn_data.cli import main; main(['bench', {folder!r}])"),
        ("safetensors", "train", "from gqn_model.cli import main; main(['export', {folder!r}, '-o', 'x.safetensors'])"),
    ],
)
def test_a_missing_package_is_named_with_its_install_command(folders, package, extra, call):
    code = f"import sys\nsys.modules[{package!r}] = None\n" + call.format(folder=str(folders["zarr"]))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: this command needs {package}")
    assert f"pip install '.[{extra}]'" in line
