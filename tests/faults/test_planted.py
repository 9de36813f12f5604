"""Named pipes, sockets, links and folders planted under the names of files: nothing hangs, nothing outside changes."""

import os
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from made_scenes import SET, make_raw_folder, tree

ROOT = Path(__file__).resolve().parents[2]
DATA = f"{shlex.quote(sys.executable)} -m gqn_data"


def command(text, folder):
    """Run a command of gqn-data; a hang is a failure."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", f"{DATA} {text}"],
        cwd=folder,
        env=environment,
        timeout=120,
        capture_output=True,
        text=True,
        check=False,
    )


def plant(path, kind, outside):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        here = os.open(".", os.O_RDONLY)
        try:
            os.chdir(path.parent)  # the name of a socket has at most about a hundred bytes
            with socket.socket(socket.AF_UNIX) as end:
                end.bind(path.name)
        finally:
            os.fchdir(here)
            os.close(here)
    else:
        path.symlink_to(outside)


PLACES = {
    "index sm5": ["train/.index", ".lock", "manifest.json", "manifest.json.partial", "train/001-of-900.index.npy"],
    "convert sm5": ["../../.work/shepard_metzler_5_parts/.lock", f"../../zarr/{SET}/manifest.json.partial"],
    "verify sm5 --deep": ["source.json", "train/001-of-900.tfrecord", "manifest.json", "SHA256SUMS"],
    "info sm5": ["source.json", "manifest.json"],
}


@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("text", PLACES)
def test_planted_pipes_and_sockets_do_not_hang_a_command(text, kind, tmp_path, faults):
    survived = 0
    for number, name in enumerate(PLACES[text]):
        root = tmp_path / str(number)
        raw = make_raw_folder(root / "data" / "raw" / SET)
        plant(raw / name, kind, None)
        workers = "" if text.startswith("info") else "--workers 1"
        done = command(f"{text} {workers}", root)
        assert done.returncode in (0, 1, 2), done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) <= 4, done.stderr
        survived += 1
    faults.record(
        "found in use: pipes and sockets under the names of files",
        holds="one line, within seconds",
        tries=len(PLACES[text]),
        survived=survived,
    )


WRITTEN = {
    "index sm5": ["manifest.json", "manifest.json.partial", "SHA256SUMS", "train/001-of-900.index.npy", ".lock"],
    "convert sm5": [
        f"../../zarr/{SET}/zarr.json",
        f"../../zarr/{SET}/zarr.json.partial",
        f"../../zarr/{SET}/manifest.json.partial",
        f"../../.work/{SET}/.lock",
        f"../../.work/{SET}/zarr/plan.json",
    ],
}


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("text", WRITTEN)
def test_a_planted_link_never_changes_a_file_outside(text, exists, tmp_path, faults):
    survived = 0
    for number, name in enumerate(WRITTEN[text]):
        root = tmp_path / str(number)
        raw = make_raw_folder(root / "data" / "raw" / SET)
        outside = tmp_path / "outside" / f"{number}.txt"
        outside.parent.mkdir(exist_ok=True)
        if exists:
            outside.write_text("precious")
        plant(raw / name, "link", outside)
        done = command(f"{text} --workers 1", root)
        assert "Traceback" not in done.stderr
        assert outside.read_text() == "precious" if exists else not outside.exists()
        if done.returncode == 0:
            found = {key for key in tree(root / "data") if key.endswith("manifest.json")}
            assert found
        survived += 1
    faults.record(
        "found in use: links under the names of files that are written",
        holds="the file that the link names is neither made nor changed",
        tries=len(WRITTEN[text]),
        survived=survived,
    )
