"""TensorBoard's writer, whose thread fails on a full disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SUPPORT = Path(__file__).resolve().parents[2] / "support"

_FULL = """
import errno, sys, threading
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
import tensorboard.summary.writer.record_writer as record_writer
from gqn_model.loggers import SafeLogger
from gqn_model.loggers.record import LoggerContext, Record

full_from, written = int(sys.argv[3]), 0
original = record_writer.RecordWriter.write
def write(self, data):
    global written
    written += 1
    if written > full_from:
        raise OSError(errno.ENOSPC, "No space left on device")
    return original(self, data)
record_writer.RecordWriter.write = write

before = threading.excepthook
context = LoggerContext(run=Path(sys.argv[2]))
logger = SafeLogger("tensorboard", "gqn_model.loggers.tensorboard:TensorBoard", context)
names = "rate wait loss excess kl mse psnr prior_sample prior_mean sigma learning_rate left".split()
for step in range(1, 31):
    logger.log(Record(step=step, steps=30, kl_steps=(1.0,), **dict.fromkeys(names, 1.0)))
logger.close()
assert threading.excepthook is before
thread = threading.Thread(target=lambda: 1 / 0)  # errors of other threads are still reported
thread.start()
thread.join()
"""


@pytest.mark.parametrize("full_from", [0, 1, 5, 200])
def test_a_full_disk_in_tensorboards_thread_is_one_warning(full_from: int, tmp_path: Path, faults: Any) -> None:
    pytest.importorskip("tensorboard")
    command = [sys.executable, "-c", _FULL, str(SUPPORT), str(tmp_path), str(full_from)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    ours, _, others = done.stderr.partition("Exception in thread")
    assert ours.count("warning: tensorboard: ") == 1
    assert ours.count("\n") == 1
    assert "No space left on device" in ours
    assert "ZeroDivisionError" in others
    faults.record(
        "found in use: a full disk in TensorBoard's thread",
        holds="one warning; the training continues",
        tries=1,
        survived=1,
    )
