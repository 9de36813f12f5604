"""The benchmark of peers: it runs, checks batches, and reports missing packages."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_scenes import SET, make_raw_folder

from benchmarks.peers import OURS, PEERS
from benchmarks.peers.contract import BATCH, VIEWS, Opened, Peer, PeerBatch
from benchmarks.peers.measure import PeerMismatch, Session, Stream, check
from gqn_data.convert import convert
from gqn_data.convert.plan import Options
from gqn_data.dataset import open_dataset
from gqn_data.schema.catalog import find_scene_set

ROOT = Path(__file__).resolve().parents[1]
SCENES, VIEWS_PER_SCENE = 160, 8


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Convert the same scenes to JPEGs and to pixels."""
    root = tmp_path_factory.mktemp("peers")
    raw = make_raw_folder(root / "raw" / SET, train=(SCENES,), views=VIEWS_PER_SCENE)
    convert(raw, find_scene_set(SET), root, Options(formats=("zarr", "numpy"), workers=1))
    return {"jpeg": root / "zarr" / SET, "raw": root / "numpy" / SET}


@pytest.mark.parametrize("form", ["jpeg", "raw"])
@pytest.mark.parametrize("name", ["webdataset", "torch-files"])
def test_a_peer_returns_our_frames_and_can_be_timed(name, form, sources, tmp_path):
    session = Session(name, form, sources[form], tmp_path)
    session.write()
    differ = session.open(workers=1)
    assert differ["mean"] == 0
    assert session.rate(workers=1, seconds=0, least=3)["scenes"] > 0
    session.close(workers=1)


def batches(source, spoil=lambda batch: batch):
    """Yield batches like those of a peer, read from our dataset."""
    dataset = open_dataset(source)
    rng = np.random.default_rng(0)
    for _ in range(4):
        scenes = rng.permutation(SCENES)[:BATCH]
        views = np.stack([rng.permutation(VIEWS_PER_SCENE)[:VIEWS] for _ in scenes])
        frames = np.stack([dataset[int(scene)].frames[chosen] for scene, chosen in zip(scenes, views)])
        cameras = np.stack([dataset.cameras_of(int(scene))[chosen] for scene, chosen in zip(scenes, views)])
        yield spoil(PeerBatch(frames, cameras, scenes, views))


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda batch: batch._replace(frames=batch.frames[:, ::-1]), "frames differ"),
        (lambda batch: batch._replace(frames=batch.frames.astype(np.float32)), "frames: found"),
        (lambda batch: batch._replace(frames=batch.frames[:, :, ::2]), "frames: found"),
        (lambda batch: batch._replace(cameras=batch.cameras + 1), "cameras"),
        (lambda batch: batch._replace(views=batch.views // 2), "views of a scene"),
    ],
)
def test_a_peer_that_violates_the_contract_is_rejected(spoil, found, sources):
    stream = Stream(Opened(batches=batches(sources["raw"], spoil), ahead=0))
    with pytest.raises(PeerMismatch, match=found):
        check(stream, open_dataset(sources["raw"]), 0)


def test_correct_batches_pass_the_check(sources):
    stream = Stream(Opened(batches=batches(sources["raw"]), ahead=0))
    assert check(stream, open_dataset(sources["raw"]), 0) == {"mean": 0, "max": 0}


def test_a_missing_package_has_no_version(sources, tmp_path, monkeypatch):
    missing = Peer(title="x", packages=("no-such-package",), settings="", decodes={}, write=print, read=print)
    monkeypatch.setitem(PEERS, "missing", missing)
    assert Session("missing", "raw", sources["raw"], tmp_path).versions() == {"no-such-package": None}


def test_the_requirements_pin_every_package_of_a_peer():
    lines = (ROOT / "benchmarks" / "peers" / "requirements.txt").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines if re.fullmatch(r"[a-z_-]+==[\w.]+", line)}
    assert {package for name, peer in PEERS.items() if name != OURS for package in peer.packages} <= pinned


def test_the_command_prints_a_row_per_peer_and_writes_json(tmp_path):
    make_raw_folder(
        tmp_path / "raw" / SET, train=(SCENES,), test=(), views=VIEWS_PER_SCENE
    )  # existing scenes are reused, not rendered
    few = ["--peer", "torch-files", "--form", "jpeg", "--workers", "1", "--seconds", "0", "--least", "3", "--runs", "1"]
    options = ["--scenes", str(SCENES), "--folder", tmp_path, "--json", tmp_path / "json"]
    command = [sys.executable, "-m", "benchmarks.peers", *few, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (result,) = json.loads((tmp_path / "json").read_text())["results"]
    assert result["why_not"] == ""
    assert result["ratio"][0] == pytest.approx(result["our_rate"] / result["peer_rate"])
    assert PEERS["torch-files"].title in done.stdout
