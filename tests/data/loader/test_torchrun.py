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

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index(write_raw(tmp_path_factory.mktemp("scenes") / SET).folder)


def _run(ranks: int, path: Path, **job: Any) -> dict[str, Any]:
    """Run `ranks` processes and return what rank 0 printed."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RANK", "WORLD", "MASTER"))},
        "PYTHONPATH": str(SUPPORT.parents[1]),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}"]
    # Picks a free port; `--standalone` would use the host name, which cannot be resolved without a network.
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
    printed: dict[str, Any] = json.loads(line)
    assert printed["ranks"] == ranks
    return printed


def _alone(path: Path, first: int, last: int, options: dict[str, Any] = OPTIONS) -> dict[str, Any]:
    """Return the expected output for batches `first` to `last`, from one process without torchrun."""
    loader = SceneLoader(path, **{**options, "context": tuple(options["context"]), "workers": 0})
    digest, scenes = hashlib.sha256(), []
    for number, batch in enumerate(loader):
        if number == last:
            break
        if number >= first:
            digest.update(
                json.dumps([[dataset, scene, list(views)] for dataset, scene, views in rows_of(batch)]).encode()
            )
            scenes.append(batch.scenes.tolist())
    return {"hash": digest.hexdigest(), "scenes": scenes}


def _epoch(scenes: list[list[int]]) -> list[int]:
    return sorted(scene for batch in scenes for scene in batch if scene >= 0)


def test_two_ranks_and_one_resuming_yield_the_stream_of_one(folder: Path, tmp_path: Path) -> None:
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
        printed = _run(ranks, folder, options=options, batches=batches)
        assert printed == {"ranks": ranks, **expected}
        given = _epoch(printed["scenes"][:epoch])
        assert len(set(given)) == len(given) == (20 if tail == "drop" else TRAIN)
        second = _epoch(printed["scenes"][epoch:])
        assert len(set(second)) == len(second)


@pytest.mark.slow
@pytest.mark.parametrize("tail", ["pad", "exact"])
def test_a_stream_of_four_ranks_resumes_with_two_and_then_one(folder: Path, tmp_path: Path, tail: str) -> None:
    options = {**OPTIONS, "tail": tail, "workers": 1}
    one, two = str(tmp_path / "one.json"), str(tmp_path / "two.json")
    runs = [
        _run(4, folder, options=options, batches=3, save=one),
        _run(2, folder, options=options, batches=4, load=one, save=two),
        _run(1, folder, options=options, batches=5, load=two),
    ]
    for printed, (first, last) in zip(runs, [(0, 3), (3, 7), (7, 12)], strict=True):
        expected = _alone(folder, first, last, options)
        assert (printed["hash"], printed["scenes"]) == (expected["hash"], expected["scenes"])
    scenes = [batch for printed in runs for batch in printed["scenes"]]
    for epoch in (0, 1):
        assert _epoch(scenes[epoch * EPOCH : epoch * EPOCH + EPOCH]) == [*range(TRAIN)]
