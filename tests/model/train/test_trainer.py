"""The training: what it writes, how it stops, and that a resumed run equals an uninterrupted one."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_counts import FaultCounts
from synthetic import Lines, Source, small, small_inputs

from gqn_data.errors import (
    CheckpointError,
    LossNotFinite,
    NoSpace,
    OptionError,
    RunMismatch,
    TrainingStopped,
    WorkerLost,
)
from gqn_data.loader import Batch
from gqn_model import load_model
from gqn_model.checkpoint.best import Score, read_best
from gqn_model.checkpoint.checkpoint import checkpoint_steps, load_checkpoint, write_config
from gqn_model.config import MODEL_NAMES, Config
from gqn_model.device import choose_device
from gqn_model.loggers.json_lines import JsonLines
from gqn_model.model.contract import Network
from gqn_model.model.inputs import Inputs
from gqn_model.train import trainer
from gqn_model.train.step import StepResult, TrainStep
from gqn_model.train.trainer import train

SUPPORT = Path(__file__).resolve().parents[2] / "support"


def _train(run: Path, config: Config, *, resume: bool = False, **options: object) -> Network:
    run.mkdir(exist_ok=True)
    write_config(run, config)
    source = Source(config, broken_from=options.pop("broken_from", None))  # type: ignore[arg-type]
    checkpoint = load_checkpoint(run) if resume else None
    return train(run, config, source, checkpoint=checkpoint, **options)  # type: ignore[arg-type]


def _hash(run: Path) -> str:
    state = load_checkpoint(run)
    digest = hashlib.sha256(str(state.step).encode())
    for value in state.model.values():
        digest.update(value.numpy().tobytes())
    for row in state.optimizer["state"].values():
        for value in row.values():
            digest.update(value.numpy().tobytes())
    return digest.hexdigest()


# With one generation step some weights are frozen.
@pytest.mark.parametrize(
    "changes", [{"core_steps": 3}, {"core_steps": 1}, {"targets": 2}, {"model": "plane_sweep"}], ids=str
)
def test_a_training_in_two_halves_equals_an_uninterrupted_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = small(steps=12, checkpoint_every=6, **changes)
    whole = _train(tmp_path / "whole", config)
    _train(tmp_path / "halves", config.replaced({"steps": 6}))
    halves = _train(tmp_path / "halves", config, resume=True)
    for one, other in zip(whole.parameters(), halves.parameters(), strict=True):
        assert torch.equal(one, other)
    assert _hash(tmp_path / "whole") == _hash(tmp_path / "halves")


_CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from synthetic import Source, small
from gqn_data.errors import TrainingStopped
from gqn_model.checkpoint.checkpoint import checkpoint_steps, load_checkpoint, write_config
from gqn_model.train.trainer import train

class Slow(Source):
    def __iter__(self):
        for batch in super().__iter__():
            time.sleep(float(sys.argv[3]))
            yield batch

run = Path(sys.argv[2])
run.mkdir(exist_ok=True)
config = small(model=sys.argv[4], steps=60, checkpoint_every=5)
write_config(run, config)
checkpoint = load_checkpoint(run) if checkpoint_steps(run) else None
try:
    train(run, config, Slow(config), checkpoint=checkpoint)
except TrainingStopped as error:
    print(error)
    sys.exit(130)
"""


def _child(run: Path, pause: float, model: str) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join(sys.path)
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(SUPPORT), str(run), str(pause), model],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": paths},
    )


def _wait_for_step(run: Path, step: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (checkpoint_steps(run) or [0])[-1] >= step:
            return
        time.sleep(0.01)
    raise TimeoutError(f"no checkpoint of step {step}")


@pytest.mark.parametrize("model", ["gqn", pytest.param("plane_sweep", marks=pytest.mark.slow)])
def test_a_killed_and_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, model: str) -> None:
    once = _child(tmp_path / "once", 0.0, model)
    killed = tmp_path / "killed"
    # Killed, stopped by SIGTERM, stopped by Ctrl-C, and then left to finish.
    for step, number, code in ((5, signal.SIGKILL, -9), (15, signal.SIGTERM, 130), (25, signal.SIGINT, 130)):
        child = _child(killed, 0.02, model)
        _wait_for_step(killed, step)
        child.send_signal(number)
        assert child.wait(60) == code
    assert checkpoint_steps(killed)[-1] < 60
    assert _child(killed, 0.0, model).wait(60) == 0
    assert once.wait(60) == 0
    assert _hash(killed) == _hash(tmp_path / "once")


def test_a_stopped_training_saves_its_last_step_and_names_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = TrainStep.__call__

    def step_and_stop(self: TrainStep, step: int, inputs: Inputs) -> StepResult:
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, step, inputs)

    monkeypatch.setattr(TrainStep, "__call__", step_and_stop)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingStopped, match=r"SIGTERM.* step 3\b.*--resume"):
        _train(tmp_path, small(steps=10, checkpoint_every=100))
    assert checkpoint_steps(tmp_path) == [0, 3]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("checkpoint_every", [2, 100])  # the last step is saved already, or not
def test_a_signal_that_ends_the_workers_too_saves_the_last_step(
    tmp_path: Path, checkpoint_every: int, faults: FaultCounts
) -> None:
    config = small(steps=10, checkpoint_every=checkpoint_every)
    write_config(tmp_path, config)

    class Lost(Source):
        def __iter__(self) -> Iterator[Batch]:
            yield from itertools.islice(super().__iter__(), 4)
            os.kill(os.getpid(), signal.SIGTERM)
            raise WorkerLost("a worker is gone")

    with pytest.raises(TrainingStopped, match=r"SIGTERM.* step 4\b.*--resume"):
        train(tmp_path, config, Lost(config))
    assert checkpoint_steps(tmp_path)[-1] == 4
    _train(tmp_path, config, resume=True)
    _train(tmp_path / "whole", config)
    faults.record(
        "found in use: a signal to a training and its workers",
        holds="the last step is saved",
        tries=1,
        survived=int(_hash(tmp_path) == _hash(tmp_path / "whole")),
    )


def test_a_lost_worker_without_a_signal_is_an_error(tmp_path: Path) -> None:
    config = small(steps=10, checkpoint_every=100)
    write_config(tmp_path, config)

    class Lost(Source):
        def __iter__(self) -> Iterator[Batch]:
            yield from itertools.islice(super().__iter__(), 4)
            raise WorkerLost("a worker is gone")

    with pytest.raises(WorkerLost):
        train(tmp_path, config, Lost(config))


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
@pytest.mark.parametrize("ignored", [False, True])  # as under nohup
def test_a_closed_terminal_saves_and_stops_unless_it_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignored: bool
) -> None:
    original = TrainStep.__call__

    def step_and_hang_up(self: TrainStep, step: int, inputs: Inputs) -> StepResult:
        if step == 2:
            os.kill(os.getpid(), signal.SIGHUP)
        return original(self, step, inputs)

    monkeypatch.setattr(TrainStep, "__call__", step_and_hang_up)
    # Not SIG_DFL, which would end pytest if the training did not handle the signal.
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else lambda *_: None)
    try:
        with contextlib.nullcontext() if ignored else pytest.raises(TrainingStopped, match="SIGHUP"):
            _train(tmp_path, small(steps=6, checkpoint_every=100))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert checkpoint_steps(tmp_path) == [0, 6 if ignored else 3]


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_a_nan_loss_stops_training_and_keeps_the_last_good_checkpoint(tmp_path: Path, model: str) -> None:
    with pytest.raises(LossNotFinite, match=r" step 7\b.* step 6\b"):
        _train(tmp_path, small(model=model, steps=20, checkpoint_every=3, log_every=5), broken_from=7)
    assert all(bool(torch.isfinite(value).all()) for value in load_checkpoint(tmp_path).model.values())


def test_non_finite_weights_are_not_saved(tmp_path: Path) -> None:
    # The loss of this step is finite, its update is not.
    with pytest.raises(LossNotFinite, match=r" step 1\b.*weight"):
        _train(tmp_path, small(steps=1, learning_rate=1e38, learning_rate_end=1e38, warmup_steps=0, clip=0.0))
    assert checkpoint_steps(tmp_path) == [0]


def test_a_full_disk_at_a_checkpoint_does_not_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = trainer.save_checkpoint

    def full(run: Path, state: object, keep: int) -> Path:
        if state.step == 2:  # type: ignore[attr-defined]
            raise NoSpace("the disk is full")
        return original(run, state, keep)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer, "save_checkpoint", full)
    _train(tmp_path, small(steps=4, checkpoint_every=2))
    assert "warning: the disk is full" in capsys.readouterr().err
    assert checkpoint_steps(tmp_path) == [0, 4]


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    _train(tmp_path, small(steps=10, checkpoint_every=2, keep=2))
    assert checkpoint_steps(tmp_path) == [8, 10]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 4


@pytest.fixture(scope="module", params=MODEL_NAMES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained")
    _train(run, small(model=request.param, steps=4, checkpoint_every=2))
    return run


def test_loading_from_a_folder_that_is_not_a_run_fails(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="gqn train"):
        load_model(tmp_path)


def test_a_run_is_not_resumed_on_another_dataset(trained: Path) -> None:
    config = load_checkpoint(trained).config
    source = Source(config)
    source.fingerprint = "another"
    with pytest.raises(RunMismatch, match="another"):
        train(trained, config, source, checkpoint=load_checkpoint(trained))


def test_load_model_returns_the_saved_weights_in_evaluation_mode(trained: Path) -> None:
    model = load_model(trained)
    assert not model.training
    saved = load_checkpoint(trained).model
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


def test_the_log_reports_the_excess_over_the_floor(tmp_path: Path) -> None:
    lines = Lines()
    config = small(steps=6, log_every=3, probe_every=3, picture_every=6)
    _train(tmp_path, config, loggers=[lines], probe=small_inputs(config))
    assert [record.step for record in lines.records] == [3, 6]
    for record in lines.records:
        assert record.excess is not None
        assert record.kl is not None
        assert record.sigma is not None
        assert record.excess > record.kl > 0
        assert record.kl == pytest.approx(sum(record.kl_steps))
        # The excess is the divergence plus the squared error, weighted by a sigma of about 2.
        squared = record.mse * 3 * 16 * 16 / 2 / record.sigma**2
        assert record.excess - record.kl == pytest.approx(squared, rel=0.3)
        assert record.prior_sample is not None
        assert 0 <= record.wait <= 1
    assert (tmp_path / "pictures" / "00000006.png").exists()


def test_a_model_that_predicts_the_mean_logs_no_figures_of_an_elbo(tmp_path: Path) -> None:
    lines = Lines()
    config = small(model="plane_sweep", steps=4, log_every=2, probe_every=4, checkpoint_every=4)
    _train(tmp_path, config, loggers=[lines], probe=small_inputs(config))
    for record in lines.records:
        assert (record.excess, record.kl, record.sigma, record.kl_steps, record.prior_sample) == (None,) * 3 + (
            (),
            None,
        )
        assert record.loss == pytest.approx(record.mse**0.5, rel=0.1)
    best = read_best(tmp_path)
    assert best is not None
    assert best.score == Score(prior_psnr=lines.records[-1].prior_mean, excess=lines.records[-1].loss, sigma=0.0)


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_probes_and_pictures_do_not_change_the_training(tmp_path: Path, model: str) -> None:
    config = small(model=model, steps=6)
    _train(tmp_path / "plain", config)
    watched = config.replaced({"probe_every": 2, "picture_every": 3, "log_every": 1})
    _train(tmp_path / "watched", watched, loggers=[Lines()], probe=small_inputs(config))
    assert _hash(tmp_path / "plain") == _hash(tmp_path / "watched")


def test_resuming_removes_log_lines_of_steps_that_will_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 5}\n{"step": 10}\n{"step": 15}\n{"ste')
    JsonLines(tmp_path, 10).close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [5, 10]


def test_an_unavailable_device_is_refused_with_the_available_ones() -> None:
    for name in ("gpu", "cuda:99", "meta"):
        with pytest.raises(OptionError, match=rf"'{name}'.*auto, cpu"):
            choose_device(name)
