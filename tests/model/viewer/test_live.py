"""`gqn train --viewer`: the page is served while the run trains, ends with it however it ends, and changes nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from urllib.request import urlopen

import pytest
import torch

pytest.importorskip("viser", reason="viser is not installed: pip install '.[viewer]'")

from processes import living

from gqn_model import load_model
from gqn_model.viewer.live import LiveViewer

ROOT = Path(__file__).resolve().parents[3]
SMALL = ["--preset", "sweep_tiny", "--frame-size", "16", "--planes", "4", "--width", "8", "--dim", "16", "--heads", "2"]
SMALL += ["--depth", "1", "--batch-size", "2", "--targets", "1", "--threads", "1", "--workers", "0", "--log-every", "1"]


def _train(bars: Path, run: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gqn_model", "train", "--shards", str(bars), "--out", str(run), *SMALL, *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def _address(training: subprocess.Popen[str]) -> str:
    assert training.stderr is not None
    for line in training.stderr:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return found.group()
    raise AssertionError("the training ended without an address")


def _wait(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def _is_served(address: str) -> bool:
    try:
        with urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _viewers(run: Path) -> list[Path]:
    """Return the folders in /proc of the viewer of a run; it is not in the process group of the training."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"explore" in words and os.fsencode(run) in words:
            found.append(folder)
    return found


def test_a_viewer_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    viewer = LiveViewer(SimpleNamespace(run=tmp_path))  # type: ignore[arg-type]
    code = "import signal, time; signal.signal(signal.SIGINT, print); print(1, flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        viewer._process = process
        viewer.close()
        assert process.returncode == -signal.SIGKILL
        assert process.stdout.read() == b""  # it was not asked first
    viewer.close()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_viewer_is_served_and_ends_with_the_training(bars: Path, tmp_path: Path, number: int) -> None:
    training = _train(bars, tmp_path / "run", "--steps", "1000000", "--viewer")
    try:
        address = _address(training)
        assert _wait(lambda: _is_served(address))
        (viewer,) = _viewers(tmp_path / "run")
        assert _wait(
            lambda: all(os.getpriority(os.PRIO_PROCESS, int(one.name)) == 19 for one in (viewer / "task").iterdir())
        )
        if (viewer / "autogroup").exists() and (viewer / "autogroup").read_text():
            assert (viewer / "autogroup").read_text().split()[-2:] == ["nice", "19"]
        training.send_signal(number)
        training.wait(60)
        assert training.returncode == (130 if number == signal.SIGINT else -number)
        assert _wait(lambda: not _is_served(address))
        assert _wait(lambda: not living(training.pid))
        assert _wait(lambda: not _viewers(tmp_path / "run"))
    finally:
        if training.poll() is None:
            os.killpg(training.pid, signal.SIGKILL)
        training.communicate()


@pytest.mark.slow
def test_weights_are_the_same_with_the_viewer_and_without(bars: Path, tmp_path: Path) -> None:
    states = []
    for options in ([], ["--viewer"]):
        run = tmp_path / f"run{len(options)}"
        training = _train(bars, run, "--steps", "30", *options)
        _, err = training.communicate(timeout=300)
        assert training.returncode == 0, err
        states.append(load_model(run).state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
