"""Commands without stderr, stdout or stdin, with readers that have gone, and with Ctrl-C at any moment."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_scenes import SET, make_raw_folder, tree

from gqn_data.inspect.verify import verify
from gqn_data.schema.catalog import SCENE_SETS

ROOT = Path(__file__).resolve().parents[1]
DATA, MODEL = (f"{shlex.quote(sys.executable)} -m {name}" for name in ("gqn_data", "gqn_model"))
_SOME = ["<&- >&- 2>&-", "2>&1 | head -0"]
CLOSED = [*_SOME, *(pytest.param(way, marks=pytest.mark.slow) for way in ("2>&-", ">&-", "2>/dev/full"))]


def shell(command, folder):
    """Run a command of bash; return its exit status, also of the first one of a pipe."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    script = f"set -o pipefail; {command}"
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, timeout=300, capture_output=True, text=True, check=False
    )


@pytest.fixture
def data(tmp_path):
    make_raw_folder(tmp_path / "data" / "raw" / SET)
    return tmp_path


@pytest.mark.parametrize("streams", CLOSED)
def test_conversion_needs_no_streams_and_loses_nothing(streams, data, faults):
    whole = shell(f"{DATA} convert sm5 --out whole --workers 1", data)
    assert whole.returncode == 0, whole.stderr
    commands = ["index sm5", "convert sm5", "convert sm5 --overwrite", "verify data/zarr/" + SET, "info sm5"]
    survived = 0
    for command in commands:
        workers = "" if command.startswith("info") else "--workers 1"
        done = shell(f"{DATA} {command} {workers} {streams}", data)
        # A command whose output nobody can read may fail after its work is done.
        survived += done.returncode == 0 or ("|" in streams and done.returncode in (1, 141))
        assert "Traceback" not in done.stderr
    assert tree(data / "data" / "zarr" / SET) == tree(data / "whole" / "zarr" / SET)
    assert verify(data / "data" / "raw" / SET, SCENE_SETS[SET], workers=1).faults == ()
    faults.record(
        "found in use: commands without stderr, stdout or stdin",
        holds="no message and no bar; the work is done, and nothing old is lost",
        tries=len(commands),
        survived=survived,
    )


@pytest.mark.parametrize(
    "streams",
    ["2>&1 >/dev/null | head -1", *(pytest.param(way, marks=pytest.mark.slow) for way in ("2>&-", "<&- >&- 2>&-"))],
)
def test_training_goes_on_and_saves_without_its_streams(streams, data, faults):
    assert shell(f"{DATA} convert sm5 --workers 1", data).returncode == 0
    options = "--preset tiny --frame-size 16 --steps 4 --batch-size 2 --log-every 1 --workers 0 --logger none"
    done = shell(f"{MODEL} train --shards data/zarr/{SET} {options} --device cpu --out run {streams}", data)
    assert done.returncode == 0, done.stderr
    saved = sorted(path.name for path in (data / "run" / "checkpoints").iterdir())
    assert any("4" in name for name in saved)
    faults.record(
        "found in use: a training whose stderr has gone",
        holds="it continues, and saves its last step",
        tries=1,
        survived=1,
    )


@pytest.mark.parametrize(
    "delay", [0.1, 0.4, *(pytest.param(delay, marks=pytest.mark.slow) for delay in (0.05, 0.15, 0.2, 0.3, 0.6))]
)
def test_an_early_interrupt_prints_at_most_one_line(delay, data, faults):
    tries = survived = 0
    for module, arguments in (("gqn_data", ["verify", "sm5", "--workers", "1"]), ("gqn_model", ["evaluate", "none"])):
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=data,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
        tries += 1
        # Python itself prints a traceback if it is interrupted before it has started.
        starting = "site.py" in said or "frozen" in said or "import site" in said
        survived += starting or (len(said.splitlines()) <= 1 and "Traceback" not in said)
    faults.record(
        "found in use: Ctrl-C while a command starts",
        holds="at most one line, no traceback",
        tries=tries,
        survived=survived,
    )


@pytest.mark.parametrize("streams", ["2>&-", ">&-", "<&-"])
def test_messages_never_land_in_a_file_of_the_data(streams, data):
    """A closed descriptor is not reused for a file, in which messages would then be written."""
    done = shell(f"{DATA} convert sm5 --format numpy --format webdataset --workers 1 {streams}", data)
    assert done.returncode == 0
    for name in ("numpy", "webdataset"):
        assert verify(data / "data" / name / SET, SCENE_SETS[SET], deep=True, workers=1).faults == ()


def test_only_commands_that_keep_files_say_so():
    from gqn_data.cli import main as data_commands
    from gqn_data.cli_options import _RESUMABLE
    from gqn_model.cli import main as model_commands

    known = {*data_commands.commands, *model_commands.commands}
    assert known >= _RESUMABLE
    assert not _RESUMABLE & {"view", "info", "verify", "bench", "list", "evaluate", "sample", "plot", "export"}
