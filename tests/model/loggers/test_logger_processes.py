"""Loggers in a separate process: one that hangs, fails or dies costs a warning and no training step."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from made_records import CONFIG, picture, plain
from PIL import Image
from processes import wait_until
from synthetic import Source, small, small_inputs

from gqn_model.checkpoint.checkpoint import load_checkpoint, write_config
from gqn_model.loggers import LoggerContext, SafeLogger, subprocess_logger
from gqn_model.loggers.subprocess_logger import SubprocessLogger

_MADE = """
import os, sys, time
from pathlib import Path


class Keeps:
    def __init__(self, context):
        self.path = Path(context.run) / "kept"
        self.add(f"opened {context.start} {context.config['training']['project']}")

    def add(self, text):
        with self.path.open("a") as file:
            file.write(text + "\\n")

    def log(self, record):
        print("chatter")
        self.add(f"line {record.step} {record.kl_steps} {record.prior_mean}")

    def picture(self, step, image):
        self.add(f"picture {step} {image.size} {image.getpixel((3, 3))}")

    def close(self):
        self.add("closed")


class Asks(Keeps):
    def log(self, record):
        self.add(repr(sys.stdin.read()))


class FailsAtOnce(Keeps):
    def __init__(self, context):
        raise OSError("no route\\nand more")


class FailsLater(Keeps):
    def log(self, record):
        raise ValueError("cannot draw that")


class Dies(Keeps):
    def log(self, record):
        os._exit(3)


class Hangs(Keeps):
    def log(self, record):
        time.sleep(3600)


class HangsAtOnce(Keeps):
    def __init__(self, context):
        time.sleep(3600)


class HangsAtTheEnd(Keeps):
    def close(self):
        time.sleep(3600)
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run's folder, and make the misbehaving loggers importable from `made_loggers`."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "made_loggers.py").write_text(_MADE)
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def _start(kind: str, run: Path, timeout: float = 60.0) -> SubprocessLogger:
    context = LoggerContext(run=run, start=7, config=CONFIG)
    return SubprocessLogger("made", f"made_loggers:{kind}", context, timeout=timeout)


def test_a_logger_in_a_process_receives_everything_in_order(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logger = _start("Keeps", made)
    logger.log(plain(100))
    logger.picture(100, picture(150))
    logger.log(plain(200))
    logger.close()
    assert (made / "kept").read_text().splitlines() == [
        "opened 7 bars",
        "line 100 (1.0, 2.0, 3.0) None",
        "picture 100 (12, 8) (150, 0, 0)",
        "line 200 (1.0, 2.0, 3.0) 18.0",
        "closed",
    ]
    out, err = capfd.readouterr()
    assert out == ""  # stdout is only for results
    assert err == "chatter\nchatter\n"


def test_a_logger_that_asks_a_question_reads_an_empty_answer(made: Path) -> None:
    logger = _start("Asks", made)
    logger.log(plain(100))
    logger.close()
    assert (made / "kept").read_text().splitlines()[1] == "''"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("FailsAtOnce", "made: no route; retried every 10 s (training continues)"),
        ("FailsLater", "made: cannot draw that; retried every 10 s (training continues)"),
        ("Dies", "made: ended"),
    ],
)
def test_a_failing_logger_in_a_process_causes_one_warning(
    made: Path, capfd: pytest.CaptureFixture[str], kind: str, words: str
) -> None:
    logger = _start(kind, made)
    for step in (100, 200, 300):
        logger.log(plain(step))
        logger.picture(step, picture())
        if kind == "Dies":
            logger._process.wait(60)
    logger.close()
    err = capfd.readouterr().err
    assert err.count("warning: ") == 1
    assert words in err


@pytest.mark.parametrize("kind", ["Hangs", "HangsAtOnce", "HangsAtTheEnd"])
def test_a_hanging_logger_is_killed_with_a_warning(made: Path, capfd: pytest.CaptureFixture[str], kind: str) -> None:
    logger = _start(kind, made, timeout=0.3)
    logger.log(plain(100))
    logger.close()
    assert logger._process.returncode == -signal.SIGKILL
    assert not logger._feeder.is_alive()
    assert re.search("^warning: made: .* 0.3 s .*\\(training continues\\)\n", capfd.readouterr().err, re.M)


def test_a_slow_logger_loses_lines_and_never_blocks_the_training(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logger = _start("HangsAtOnce", made, timeout=0.1)
    # More than queue and pipe hold together: a logger that waits would never return.
    noise = Image.frombytes("RGB", (200, 200), os.urandom(200 * 200 * 3))
    for step in range(200):
        logger.picture(step, noise)
    logger.close()
    err = capfd.readouterr().err
    assert err.count("warning: ") == 1
    assert "does not keep up" in err


def test_a_logger_ends_with_a_killed_training_and_ignores_signals(made: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from gqn_model.loggers import LoggerContext\n"
        "from gqn_model.loggers.subprocess_logger import SubprocessLogger\n"
        "context = LoggerContext(run=Path(sys.argv[1]), start=7, config={'training': {'project': 'bars'}})\n"
        "logger = SubprocessLogger('made', 'made_loggers:Keeps', context)\n"
        "print(logger._process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    training = subprocess.Popen([sys.executable, "-c", code, str(made)], stdout=subprocess.PIPE, env=path)
    assert training.stdout is not None
    with training, training.stdout:
        logger = int(training.stdout.readline())
        wait_until((made / "kept").exists)
        os.kill(logger, signal.SIGINT)
        os.kill(logger, signal.SIGTERM)
        assert os.getsid(logger) != os.getsid(training.pid)
        training.kill()
        training.wait(60)
    wait_until(lambda: "closed" in (made / "kept").read_text())


def test_a_failed_logger_is_opened_again_after_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path
) -> None:
    receiver = subprocess_logger._Receiver("made", "made_loggers:FailsLater", LoggerContext(run=made, config=CONFIG))
    line = {"record": dataclasses.asdict(plain(100))}
    receiver.handle(line)
    receiver.handle(line)  # too soon
    assert (made / "kept").read_text().count("opened") == 1
    monkeypatch.setattr(subprocess_logger, "RETRY_AFTER", 0.0)
    receiver._retry_at = 0.0
    receiver.handle(line)
    receiver.handle(line)
    assert (made / "kept").read_text().count("opened") == 3


def test_a_failing_logger_in_this_process_causes_one_warning(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("FailsAtOnce", "FailsLater"):
        logger = SafeLogger("made", f"made_loggers:{kind}", LoggerContext(run=made, config=CONFIG))
        for step in (100, 200):
            logger.log(plain(step))
        logger.close()
        err = capsys.readouterr().err
        assert err.count("warning: made: ") == err.count("(training continues)") == 1


def test_loggers_that_hang_or_fail_do_not_change_the_weights(made: Path) -> None:
    config = small(steps=6, log_every=2, picture_every=3, probe_every=3)
    hashes = []
    for name in ("plain", "watched"):
        from gqn_model.train.trainer import train

        run = made / name
        run.mkdir()
        write_config(run, config)
        watching = [_start("Hangs", run, 0.1), _start("Dies", run), _start("Keeps", run)] if name == "watched" else []
        train(run, config, Source(config), loggers=watching, probe=small_inputs(config))
        for logger in watching:
            logger.close()
        hashes.append({name: value.numpy().tobytes() for name, value in load_checkpoint(run).model.items()})
    assert hashes[0] == hashes[1]
    kept = (made / "watched" / "kept").read_text()
    assert [kept.count(word) for word in ("line 2 ", "line 4 ", "line 6 ", "picture 3 ", "picture 6 ")] == [1] * 5
