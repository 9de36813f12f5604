"""The loggers with their real packages, if installed as in docs/training.md."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from processes import wait_until

from gqn_model.config import resolve
from gqn_model.loggers import Record, open_loggers

pytestmark = pytest.mark.slow

# Start the server as its command does, without downloading scripts for its pages.
_SERVER = """
import sys
from visdom.server.run_server import start_server
start_server(port=int(sys.argv[1]), env_path=sys.argv[2], base_url="", bind_local=True)
"""


def _record(step: int) -> Record:
    return Record(
        step=step, steps=900, rate=2.0, wait=0.0, loss=1000.0 - step, excess=50.0, kl=3.0, kl_steps=(1.0, 2.0), mse=0.1,
        psnr=10.0, prior_sample=None, prior_mean=None, sigma=2.0, learning_rate=1e-3, left=9.0,
    )  # fmt: skip


def _train(name: str, run: Path, steps: list[int], start: int = 0, **settings: Any) -> None:
    run.mkdir(exist_ok=True)
    config = resolve("tiny", (), {"logger": name} | settings).to_json()
    loggers = open_loggers(name, run, start, quiet=True, config=config)
    try:
        for step in steps:
            for logger in loggers:
                logger.log(_record(step))
                logger.picture(step, Image.new("RGB", (12, 8), (200, 0, 0)))
    finally:
        for logger in loggers:
            logger.close()


class Server:
    """A Visdom server that can be started and killed on one port."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._folder, self._starts = folder, 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it with nothing in memory or on the disk, and wait until it answers."""
        self._starts += 1
        folder = self._folder / str(self._starts)
        folder.mkdir()
        command = [sys.executable, "-c", _SERVER, str(self.port), str(folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers)

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def windows(self, environment: str) -> dict[str, Any]:
        """Return the windows of a run."""
        query = json.dumps({"win": None, "eid": environment})
        response = requests.post(f"http://127.0.0.1:{self.port}/win_data", data=query, timeout=60)
        return dict(json.loads(response.text))


@pytest.fixture
def visdom(tmp_path: Path) -> Iterator[Server]:
    pytest.importorskip("visdom", reason="the package visdom is not installed (docs/training.md)")
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


def _curve(window: dict[str, Any], trace: int = 0) -> list[tuple[float, float]]:
    found = window["content"]["data"][trace]
    return list(zip(found["x"], found["y"], strict=True))


def _visdom_train(server: Server, run: Path, steps: list[int], start: int = 0) -> None:
    _train("visdom", run, steps, start, visdom_server="127.0.0.1", visdom_port=server.port)


def test_visdom_shows_a_resumed_run_with_pictures_and_settings(visdom: Server, tmp_path: Path) -> None:
    run = tmp_path / "my-run"
    _visdom_train(visdom, run, [100, 200, 300])
    _visdom_train(visdom, run, [300, 400], start=200)
    windows = visdom.windows("my-run")
    metrics = {name.split("/")[0] for name, _ in _record(100).metrics()}
    assert set(windows) == metrics | {"predictions", "config"}
    assert _curve(windows["loss"]) == [(step, 1000 - step) for step in (100, 200, 300, 400)]
    assert _curve(windows["kl_steps"], 1) == [(step, 2.0) for step in (100, 200, 300, 400)]
    assert windows["predictions"]["type"] == "image_history"
    assert "learning_rate_end" in windows["config"]["content"]


def test_a_killed_visdom_server_costs_a_warning_and_a_new_one_shows_all(
    visdom: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "my-run"
    _visdom_train(visdom, run, [100, 200])
    visdom.kill()
    _visdom_train(visdom, run, [300, 400], start=200)
    assert capfd.readouterr().err.count("(training continues") == 1
    visdom.start()
    _visdom_train(visdom, run, [500], start=400)
    assert [step for step, _ in _curve(visdom.windows("my-run")["loss"])] == [100, 200, 300, 400, 500]


def test_wandb_keeps_a_run_offline_and_continues_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the package wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "my-run"
    _train("wandb", run, [100, 200])
    _train("wandb", run, [200, 300], start=100)
    identity = json.loads((run / "wandb.json").read_text())["id"]
    files = sorted((run / "wandb").glob(f"offline-run-*-{identity}/run-{identity}.wandb"))
    assert files
    data = b"".join(path.read_bytes() for path in files)
    for name in (b"excess", b"kl_steps/01", b"predictions", b"learning_rate_end"):
        assert name in data


def test_trackio_keeps_one_run_without_duplicate_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio", reason="the package trackio is not installed")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    run = tmp_path / "my-run"
    _train("trackio", run, [100, 200, 300])
    _train("trackio", run, [300, 400], start=200)
    (path,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(path) as database:
        rows = database.execute("select run_name, step, metrics from metrics order by id").fetchall()
    database.close()
    assert len({name for name, _, _ in rows}) == 1
    lines = [(step, json.loads(metrics)) for _, step, metrics in rows]
    assert [(step, line["loss"]) for step, line in lines if "loss" in line] == [
        (k, 1000 - k) for k in (100, 200, 300, 400)
    ]
    assert {step for step, line in lines if "predictions" in line} == {100, 200, 300, 400}
