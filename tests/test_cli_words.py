"""Messages of the commands: what a path is, what to pass instead, and flags in place of arguments."""

import click
import numpy as np
import pytest
from click.testing import CliRunner
from made_scenes import SET, make_raw_folder

from gqn_data.cli import main
from gqn_data.cli_options import with_flags
from gqn_data.convert.scene_writer import SceneWriter

KIND = "found in use: a path that is not the folder of a set"
HOLDS = "the message says what it is, and what to pass instead"


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_raw_folder(tmp_path / "data" / "raw" / SET)
    assert run("convert", "sm5", "--workers", 1).exit_code == 0
    return tmp_path / "data"


PATHS = {
    "a split": (f"raw/{SET}/train", "one split"),
    "a converted split": (f"zarr/{SET}/train", "one split"),
    "a root of datasets": ("zarr", "a folder of datasets"),
    "a file": (f"raw/{SET}/train/001-of-900.tfrecord", "a file"),
    "a doubled folder": ("things", "same name"),
    "a dataset without manifest": ("copy", "manifest.json is missing"),
    "another folder": ("other", "--set NAME"),
}


@pytest.mark.parametrize("command", ["info", "verify", "index", "convert"])
@pytest.mark.parametrize("what", PATHS)
def test_a_wrong_path_says_what_it_is_and_what_to_pass(what, command, data, faults):
    path, said = PATHS[what]
    (data / "things" / "things").mkdir(parents=True)
    (data / "other").mkdir()
    (data / "zarr" / SET).rename(data / "kept")
    if what == "a dataset without manifest":
        (data / "kept").rename(data / "copy")
        (data / "copy" / "manifest.json").unlink()
    else:
        (data / "kept").rename(data / "zarr" / SET)
    done = run(command, data / path)
    assert done.exit_code in (1, 2)
    assert said in done.stderr
    assert len(done.stderr) < 400
    faults.record(KIND, holds=HOLDS, tries=1, survived=1)


@pytest.mark.parametrize("command", ["info", "verify", "view", "convert"])
def test_an_own_set_is_found_by_its_name(command, data):
    with SceneWriter(data / "zarr" / "my_photos") as writer:
        writer.add(np.zeros((2, 16, 16, 3), np.uint8), np.zeros((2, 5)))
    extra = {"view": ("-o", "x.png"), "convert": ("--format", "numpy", "--workers", 1), "verify": ("--workers", 1)}
    done = run(command, "my_photos", *extra.get(command, ()))
    assert done.exit_code == 0, done.stderr


def test_a_picture_needs_an_existing_folder(data):
    done = run("view", "sm5", "-o", data / "no" / "dir" / "x.png")
    assert done.exit_code == 2
    assert "does not exist" in done.stderr
    assert not (data / "no").exists()


def options(*declarations):
    return [click.Option(list(names)) for names in declarations]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("x: replace it with overwrite=True", "x: replace it with --overwrite"),
        ("batch_size is 0, expected 1 or more", "--batch-size is 0, expected 1 or more"),
        ("jpeg_quality: found None, expected 1", "--jpeg-quality: found None, expected 1"),
        ("Pass batch_size=8 or less, or tail='pad' or 'exact'", "Pass --batch-size 8 or less"),
        (
            "fewer workers or smaller batches (workers=, batch_size=)",
            "fewer workers or smaller batches (--workers, --batch-size)",
        ),
        ("write fewer (limit=) or smaller (size=, shard_bytes=)", "write fewer or smaller"),
        ("pass another with batch_size=", "pass another with --batch-size"),
        ("unknown setting 'x'; one of: fit, workers", "unknown setting 'x'; one of: fit, workers"),
        ("Pass fit='crop' or fit='pad'", "Pass --fit crop or --fit pad"),
        ("use workers=0", "use --workers 0"),
        ("use workers=0. Or pass batch_size=3, fit='pad'", "use --workers 0. Or pass --batch-size 3, --fit pad"),
    ],
)
def test_arguments_of_the_api_become_flags(message, expected):
    known = options(("--overwrite",), ("--batch-size",), ("--jpeg-quality",), ("--fit",), ("--workers",))
    assert with_flags(message, known) == expected


@pytest.mark.parametrize(
    "message",
    [
        "render:mazes,batch_size=3: missing",
        "data/workers=0/x: missing",
        "workers=0/x: missing",
        "/x/fit='pad': missing",
        "a/overwrite=True/b: missing",
        "seed cannot change; possible: workers, fit",
    ],
)
def test_paths_and_lists_of_names_stay(message):
    assert with_flags(message, options(("--overwrite",), ("--batch-size",), ("--fit",), ("--workers",))) == message


def test_the_command_names_its_flags(data):
    done = run("render", "sm5", "--scenes", 3, "--size", 7)
    assert done.stderr.startswith("Error: --size is 7, expected")
    again = run("render", "sm5", "--scenes", 0)
    assert again.stderr.startswith("Error: --scenes is 0, expected")
