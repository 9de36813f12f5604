"""A training whose terminal, streams or process group go away: it saves what it has done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_counts import FaultCounts
from processes import wait_until

from gqn_model.checkpoint.checkpoint import checkpoint_steps, load_checkpoint
from gqn_model.loggers.json_lines import read_lines

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs signals and terminals of Unix")

SUPPORT = Path(__file__).resolve().parents[2] / "support"

# A script of a user, whose streams are not guarded as those of the command are.
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from synthetic import small
from gqn_model.train.run import start_run
if __name__ == "__main__":
    shards, run, steps = sys.argv[2:]
    config = small(steps=int(steps), workers=2, log_every=1, probe_every=0, checkpoint_every=10**6)
    start_run(shards, config, out=run)
"""


def _command(shards: Path, run: Path, steps: int) -> list[str]:
    options = [
        "--preset=tiny",
        "--device=cpu",
        "--threads=1",
        "--workers=2",
        "--logger=none",
        "--frame-size=16",
        "--hidden=8",
        "--canvas=6",
        "--core-steps=3",
        "--batch-size=4",
        "--log-every=1",
        "--probe-every=0",
        "--picture-every=0",
        "--checkpoint-every=1000000",
    ]
    return ["-m", "gqn_model", "train", "--shards", str(shards), *options, f"--steps={steps}", f"--out={run}"]


def _script(shards: Path, run: Path, steps: int) -> list[str]:
    path = run.with_suffix(".py")
    path.write_text(SCRIPT)
    return [str(path), str(SUPPORT), str(shards), str(run), str(steps)]


def _start(words: list[str], stderr: int) -> subprocess.Popen[bytes]:
    """Start a training as the leader of a process group, so that a signal to the group reaches its workers."""
    return subprocess.Popen(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        start_new_session=True,
        # The tests may run under `nohup`, whose ignored signal is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509  without threads here
    )


@pytest.mark.parametrize("program", [_command, _script])
@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_a_training_goes_on_when_the_reader_of_its_messages_is_gone(
    bars: Path, tmp_path: Path, kind: str, program: Callable[[Path, Path, int], list[str]], faults: FaultCounts
) -> None:
    run, steps = tmp_path / "run", 40
    ours, theirs = os.pipe() if kind == "pipe" else os.openpty()
    process = _start(program(bars, run, steps), theirs)
    os.close(theirs)
    os.read(ours, 1)  # the first line has come
    os.close(ours)
    process.wait(300)
    faults.record(
        "found in use: a training whose reader or terminal has gone",
        holds="it takes all steps and saves the last",
        tries=1,
        survived=int(checkpoint_steps(run)[-1] == steps and len(read_lines(run)) == steps),
    )


@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM", "SIGINT"])
def test_a_signal_to_the_whole_process_group_saves_the_last_step(
    bars: Path, tmp_path: Path, name: str, faults: FaultCounts
) -> None:
    run = tmp_path / "run"
    process = _start(_command(bars, run, 10**6), subprocess.DEVNULL)
    wait_until(lambda: (run / "log.jsonl").exists() and len(read_lines(run)) > 3)
    os.killpg(process.pid, signal.Signals[name])
    try:
        code = process.wait(120)
    finally:
        process.kill()
    state = load_checkpoint(run)
    faults.record(
        "found in use: a signal to a training and its workers",
        holds="the last step is saved",
        tries=1,
        survived=int(code == 130 and state.step >= len(read_lines(run)) > 0),
    )
