"""The loader under the real `torchrun`: one stream for 1, 2 and 4 ranks, and after a resume between them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch.distributed
from loader_fixtures import SET, index, write_raw
from loader_streams import rows_of

from gqn_data.loader import SceneLoader

TRAIN = 21  # scenes
BATCH = 4
EPOCH = 6  # batches, the last of one scene
SUPPORT = Path(__file__).resolve().parents[2] / "support"
OPTIONS: dict[str, Any] = {"batch_size": BATCH, "seed": 5, "context": [1, 4], "tail": "exact"}

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index(write_raw(tmp_path_factory.mktemp("scenes") / SET).folder)


def _run(ranks: int, path: Path, **job: Any) -> dict[str, Any]:
    """What rank 0 of so many processes printed."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RANK", "WORLD", "MASTER"))},
        "PYTHONPATH": str(SUPPORT.parents[1]),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}"]
    # A port that is free; `--standalone` alone would name this host, which a machine without a network cannot look up.
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
    job = {"path": str(path), "options": OPTIONS, **job}
    done = subprocess.run(
        [*command, str(SUPPORT / "torchrun_stream.py"), json.dumps(job)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    told: dict[str, Any] = json.loads(line)
    assert told["ranks"] == ranks
    return told


def _alone(path: Path, first: int, last: int, options: dict[str, Any] = OPTIONS) -> dict[str, Any]:
    """What such a run must print of batches `first` to `last`, by one process without torchrun."""
    loader = SceneLoader(path, **{**options, "context": tuple(options["context"]), "workers": 0})
    told, scenes = hashlib.sha256(), []
    for number, batch in enumerate(loader):
        if number == last:
            break
        if number >= first:
            told.update(
                json.dumps([[dataset, scene, list(views)] for dataset, scene, views in rows_of(batch)]).encode()
            )
            scenes.append(batch.scenes.tolist())
    return {"hash": told.hexdigest(), "scenes": scenes}


def _epoch(scenes: list[list[int]]) -> list[int]:
    return sorted(scene for batch in scenes for scene in batch if scene >= 0)


def test_two_ranks_and_one_that_goes_on_give_the_stream_of_one(folder: Path, tmp_path: Path) -> None:
    state = str(tmp_path / "state.json")
    first = _run(2, folder, batches=4, save=state)
    then = _run(1, folder, batches=5, load=state)
    assert first == {"ranks": 2, **_alone(folder, 0, 4)}
    assert then == {"ranks": 1, **_alone(folder, 4, 9)}
    assert _epoch((first["scenes"] + then["scenes"])[:EPOCH]) == [*range(TRAIN)]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("tail", ["drop", "pad", "exact"])
def test_the_stream_is_the_same_for_one_two_and_four_ranks(folder: Path, tail: str, workers: int) -> None:
    options = {**OPTIONS, "tail": tail, "workers": workers}
    epoch = EPOCH - (tail == "drop")
    batches = epoch + epoch // 2
    expected = _alone(folder, 0, batches, options)
    for ranks in (1, 2, 4):
        told = _run(ranks, folder, options=options, batches=batches)
        assert told == {"ranks": ranks, **expected}
        given = _epoch(told["scenes"][:epoch])
        assert len(set(given)) == len(given) == (20 if tail == "drop" else TRAIN)
        second = _epoch(told["scenes"][epoch:])
        assert len(set(second)) == len(second)


@pytest.mark.slow
@pytest.mark.parametrize("tail", ["pad", "exact"])
def test_a_stream_of_four_ranks_goes_on_with_two_and_then_one(folder: Path, tmp_path: Path, tail: str) -> None:
    options = {**OPTIONS, "tail": tail, "workers": 1}
    one, two = str(tmp_path / "one.json"), str(tmp_path / "two.json")
    runs = [
        _run(4, folder, options=options, batches=3, save=one),
        _run(2, folder, options=options, batches=4, load=one, save=two),
        _run(1, folder, options=options, batches=5, load=two),
    ]
    for told, (first, last) in zip(runs, [(0, 3), (3, 7), (7, 12)], strict=True):
        expected = _alone(folder, first, last, options)
        assert (told["hash"], told["scenes"]) == (expected["hash"], expected["scenes"])
    scenes = [batch for told in runs for batch in told["scenes"]]
    for epoch in (0, 1):
        assert _epoch(scenes[epoch * EPOCH : epoch * EPOCH + EPOCH]) == [*range(TRAIN)]
