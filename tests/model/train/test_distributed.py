"""Several ranks under the real `torchrun`: the same training as on one rank, and the loss of a rank."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gqn_data.errors import OptionError, RankLost
from gqn_model import load_model
from gqn_model.checkpoint.checkpoint import checkpoint_steps, load_checkpoint
from gqn_model.checkpoint.run_folder import read_facts
from gqn_model.config import ModelConfig, resolve
from gqn_model.model.noise import step_noise
from gqn_model.train.distributed import ALONE, StopFlag, current_ranks, rank_lost
from gqn_model.train.run import resume_run
from gqn_model.train.step import check_computing

ROOT = Path(__file__).resolve().parents[3]
STEPS = 6
OPTIONS = (
    "--device=cpu --threads=1 --workers=0 --logger=none --frame-size=16 --batch-size=8 --context-max=3 "
    f"--steps={STEPS} --log-every=1 --probe-every=3 --picture-every=6 --checkpoint-every=3 --learning-rate-steps=5"
).split()
NETWORKS = {
    "gqn": "--preset=tiny --representation-channels=16 --hidden=8 --canvas=6 --core-steps=3 --clip=50 --sigma-steps=5",
    "plane_sweep": "--preset=sweep_tiny --planes=4 --width=8 --dim=16 --depth=1 --heads=2 --precision=float32",
}

needs_torchrun = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="torch was built without torch.distributed"
)


def _start(ranks: int, *words: str) -> subprocess.Popen[str]:
    """Start `gqn train` on `ranks` ranks: one without torchrun, several with it."""
    launcher = ["torch.distributed.run", f"--nproc-per-node={ranks}", "--rdzv-backend=c10d"]
    # Port 0 takes a free port. `--standalone` would look up the host name, which fails without a network.
    launcher += ["--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1", "-m"]
    command = [sys.executable, "-m", *(launcher if ranks > 1 else []), "gqn_model", "train", *words]
    names = ("RANK", "WORLD", "MASTER", "LOCAL_RANK")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _output(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    return out, err


def _metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def _assert_same_training(run: Path, other: Path) -> None:
    """Compare two runs up to float32 rounding, since a mean over ranks sums in another order."""
    for ours, theirs in zip(_metrics(run), _metrics(other), strict=True):
        for name in ("loss", "kl", "mse", "psnr", "prior_mean"):
            assert ours[name] == (theirs[name] and pytest.approx(theirs[name], rel=2e-4)), (ours["step"], name)
        assert (ours["kl"] is None) == (ours["excess"] is None)
    one, two = load_checkpoint(run), load_checkpoint(other)
    for name, value in one.model.items():
        torch.testing.assert_close(value, two.model[name], rtol=1e-3, atol=2e-4)
    assert one.loader == two.loader


@pytest.fixture(scope="module", params=["gqn", pytest.param("plane_sweep", marks=pytest.mark.slow)])
def options(request: pytest.FixtureRequest) -> list[str]:
    """Return the options of a small training of each model."""
    return [*NETWORKS[request.param].split(), *OPTIONS]


@pytest.fixture(scope="module")
def one_rank_run(bars: Path, options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("one") / "run"
    _output(_start(1, "--shards", str(bars), *options, "--out", str(run)))
    return run


@needs_torchrun
def test_two_ranks_train_like_one(one_rank_run: Path, bars: Path, options: list[str], tmp_path: Path) -> None:
    out, err = _output(_start(2, "--shards", str(bars), *options, "--out", str(tmp_path / "two")))
    assert out == f"{tmp_path / 'two'}\n"  # only rank 0 prints
    assert "2 ranks" in err
    assert len(_metrics(tmp_path / "two")) == STEPS
    _assert_same_training(tmp_path / "two", one_rank_run)


@needs_torchrun
@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "parts"), [(4, 1), (4, 2), (2, 4)])
def test_ranks_and_micro_batches_train_like_one_rank(
    one_rank_run: Path, bars: Path, options: list[str], tmp_path: Path, ranks: int, parts: int
) -> None:
    run = tmp_path / "run"
    _output(_start(ranks, "--shards", str(bars), *options, f"--accumulate={parts}", "--out", str(run)))
    _assert_same_training(run, one_rank_run)


@needs_torchrun
@pytest.mark.slow
def test_a_run_resumes_with_another_number_of_ranks(
    one_rank_run: Path, bars: Path, options: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    _output(_start(2, "--shards", str(bars), *options, "--steps=2", "--out", str(run)))
    _output(_start(4, "--resume", str(run), "--steps=4"))
    _output(_start(1, "--resume", str(run), f"--steps={STEPS}"))
    assert len(_metrics(run)) == STEPS
    losses = [[line["loss"] for line in _metrics(folder)] for folder in (run, one_rank_run)]
    assert losses[0] == pytest.approx(losses[1], rel=2e-4)


def _rank_processes(launcher: int) -> list[int]:
    """Return the process ids of the ranks that torchrun started, oldest first."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == launcher:
            found.append(int(folder.name))
    return sorted(found)


def _wait_for_step(run: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while (checkpoint_steps(run) or [-1])[-1] < step:
        assert time.monotonic() < deadline, f"no checkpoint of step {step}"
        time.sleep(0.05)


@needs_torchrun
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the ranks in /proc")
def test_a_killed_rank_ends_the_others_and_the_run_can_be_resumed(
    bars: Path, options: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    longer = ["--steps=100000", "--log-every=50", "--probe-every=0"]
    process = _start(2, "--shards", str(bars), *options, *longer, "--out", str(run))
    _wait_for_step(run, 6)
    os.kill(_rank_processes(process.pid)[-1], signal.SIGKILL)
    _, err = _output(process, 1)
    # torchrun sometimes ends the other rank before it can say why.
    assert ("another rank" in err and "--resume" in err) or "(SIGTERM)" in err, err
    kept = checkpoint_steps(run)[-1]
    again = _start(2, "--resume", str(run))
    _wait_for_step(run, kept + 3)
    again.send_signal(signal.SIGTERM)  # torchrun forwards it to every rank
    _, err = again.communicate(timeout=120)
    assert len(re.findall(r"SIGTERM after step \d+", err)) == 1  # only rank 0 reports it
    assert checkpoint_steps(run)[-1] >= kept + 3


def test_noise_depends_only_on_seed_and_step() -> None:
    config = ModelConfig(frame_size=16, core_steps=3, latent=2)
    cpu = torch.device("cpu")
    noise = step_noise(config, 1, 7, 5, cpu)
    torch.manual_seed(99)
    assert torch.equal(noise, step_noise(config, 1, 7, 5, cpu))
    assert noise.shape == (3, 5, 2, 4, 4)
    for seed, step in ((1, 8), (2, 7), (7, 1), (17, 0)):
        assert not torch.equal(noise, step_noise(config, seed, step, 5, cpu))
    many = step_noise(config, 0, 0, 2000, cpu)
    assert abs(float(many.mean())) < 0.01
    assert abs(float(many.std()) - 1) < 0.01


def test_a_batch_size_not_divisible_by_the_ranks_is_refused() -> None:
    training = resolve("tiny", (), {"batch_size": 12, "accumulate": 2}).training
    check_computing(training, 3, torch.device("cpu"))
    with pytest.raises(OptionError, match=r"batch_size\b.* 12\b.* 4 ranks\b.*accumulate 2\b.* 8\b"):
        check_computing(training, 4, torch.device("cpu"))


def test_ranks_are_read_from_the_variables_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert current_ranks() == ALONE
    assert ALONE.first
    monkeypatch.setenv("RANK", "3")
    assert current_ranks() == ALONE  # a cluster's scheduler may set one of them for another purpose
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "1")
    here = current_ranks()
    assert (here.rank, here.count, here.local, here.first) == (3, 4, 1, False)
    monkeypatch.setenv("LOCAL_RANK", "one")
    with pytest.raises(OptionError, match=r"RANK.*one"):
        current_ranks()


def test_a_single_rank_does_not_communicate() -> None:
    tensor = torch.ones(3)
    assert ALONE.mean(tensor) is tensor
    assert ALONE.max(tensor) is tensor
    assert ALONE.broadcast("value") == "value"
    stop_flag = StopFlag(ALONE)
    assert stop_flag.all_reduce_max(15) == 15
    stop_flag.close()
    assert isinstance(rank_lost(RuntimeError("Connection closed by peer. More\nlines")), RankLost)


def test_a_run_records_the_commit(bars_run: Path) -> None:
    commit = read_facts(bars_run).commit
    done = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    assert commit.rstrip("+") == (done.stdout.strip() if done.returncode == 0 else "")


def test_a_run_resumes_with_only_its_folder_given(bars: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    _output(_start(1, "--shards", str(bars), *NETWORKS["gqn"].split(), *OPTIONS, "--steps=2", "--out", str(run)))
    before = load_model(run).state_dict()
    resume_run(run, {"steps": 4})
    after = load_model(run).state_dict()
    digests = [hashlib.sha256(b"".join(v.numpy().tobytes() for v in state.values())) for state in (before, after)]
    assert digests[0].digest() != digests[1].digest()
    assert checkpoint_steps(run)[-1] == 4
