"""`gqn runs`: states and figures of runs, from files only."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from made_checkpoints import made_run, smallest

from gqn_data.errors import OptionError
from gqn_data.io import atomic
from gqn_model.checkpoint.best import Best, Score, write_best
from gqn_model.checkpoint.run_folder import write_facts
from gqn_model.checkpoint.run_list import RunSummary, runs_table, summarize_runs
from gqn_model.cli import main


def _run(run: Path, *, steps: int = 4, log: tuple[dict[str, Any], ...] = (), scene_set: str = "bars") -> Path:
    """Make a run with checkpoints of steps 2 and 4."""
    made_run(run, config=smallest(steps=steps))
    write_facts(run, run / "data", scene_set, "f" * 64)
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return run


def _gqn(*words: object) -> Result:
    return CliRunner().invoke(main, ["runs", *map(str, words)])


def test_states_follow_from_checkpoints_and_locks(tmp_path: Path) -> None:
    _run(tmp_path / "finished")
    _run(tmp_path / "stopped", steps=9, log=({"step": 6, "psnr": 1.0},))
    busy = _run(tmp_path / "running", steps=9, log=({"step": 6, "psnr": 1.0},))
    (tmp_path / "no run").mkdir()
    killed = _run(tmp_path / "killed", steps=9)
    (killed / ".lock").touch()
    with atomic.exclusive_writer(busy):
        found = {Path(one.run).name: one for one in summarize_runs([tmp_path])}
    assert {name: (one.state, one.step, one.steps) for name, one in found.items()} == {
        "finished": ("finished", 4, 4),
        "stopped": ("stopped", 4, 9),  # a resumed run repeats the steps after its checkpoint
        "running": ("running", 6, 9),
        "killed": ("stopped", 4, 9),
    }


def test_a_lock_of_another_process_is_seen_and_can_still_be_taken(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from gqn_data.io import atomic\n"
        "with atomic.exclusive_writer(pathlib.Path(sys.argv[1])):\n"
        "    print(flush=True)\n"
        "    sys.stdin.read()\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert atomic.is_locked(tmp_path)
        other.communicate()
    assert not atomic.is_locked(tmp_path)
    with atomic.exclusive_writer(tmp_path):
        assert atomic.is_locked(tmp_path)


def test_figures_are_the_last_measured_ones(tmp_path: Path) -> None:
    log: tuple[dict[str, Any], ...] = (
        {"step": 1, "psnr": 10.0, "prior_mean": 8.0},
        {"step": 2, "psnr": 11.0, "prior_mean": 9.5},
        {"step": 3, "psnr": 12.0, "prior_mean": None},
        {"step": 4, "psnr": "much"},
    )
    run = _run(tmp_path / "run", log=log)
    write_best(run, Best(2, Score(prior_psnr=9.5, excess=1.0, sigma=0.7)))
    (one,) = summarize_runs([run, tmp_path])  # the same run twice
    assert (one.psnr, one.held_out_psnr, one.best_step, one.best_psnr) == (12.0, 9.5, 2, 9.5)
    assert (one.model, one.scene_set) == ("gqn", "bars")


def test_the_table_has_the_last_changed_run_at_the_end(tmp_path: Path) -> None:
    for age, name in enumerate("abc"):
        run = _run(tmp_path / name)
        for path in (run / "config.json", run / "log.jsonl", run / "checkpoints"):
            os.utime(path, (1e9 - age, 1e9 - age))
    lines = _gqn(tmp_path).output.splitlines()
    assert [line.split()[0] for line in lines] == ["run", "c", "b", "a"]
    assert "4 of 4" in lines[1]
    assert len({line.index("bars") for line in lines[1:]}) == 1
    found = json.loads(_gqn(tmp_path, "--json").output)
    assert [RunSummary(**one) for one in found] == summarize_runs([tmp_path])


def test_a_damaged_run_is_listed_with_its_reason(tmp_path: Path) -> None:
    _run(tmp_path / "good")
    (_run(tmp_path / "bad") / "config.json").write_text("{")
    done = _gqn(tmp_path)
    assert done.exit_code == 0
    assert "damaged" in done.output
    assert "config.json: not JSON" in done.output.splitlines()[-1]


_REPLACED = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a circle of links": lambda path: path.symlink_to(path.name),
    "random bytes": lambda path: path.write_bytes(random.Random(0).randbytes(3000)),
}


@pytest.mark.parametrize("what", _REPLACED)
def test_no_file_of_a_run_hides_the_others(what: str, tmp_path: Path) -> None:
    names = ("config.json", "run.json", "log.jsonl", "best.json", ".lock", "checkpoints")
    _run(tmp_path / "good")
    for name in names:
        path = _run(tmp_path / f"bad {name}") / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        _REPLACED[what](path)
    found = {Path(one.run).name: one for one in summarize_runs([tmp_path])}
    assert found["good"].state == "finished"
    for name in set(names) - {"config.json"}:  # a folder without one is not a run
        one = found[f"bad {name}"]
        assert one.state in ("damaged", "stopped", "finished")
        assert (one.state == "damaged") == (name in one.problem)
    assert _gqn(tmp_path).exit_code == 0


def test_a_file_is_no_folder_of_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="file: not a folder, expected"):
        summarize_runs([tmp_path / "file"])


def test_texts_of_a_stranger_cannot_control_the_terminal(tmp_path: Path) -> None:
    _run(tmp_path / "run\x1b[2J", scene_set="bars\x1b[31m\n" + "x" * 1000)
    lines = runs_table(summarize_runs([tmp_path]))
    assert len(lines) == 2
    assert lines[1].isprintable()
    assert len(lines[1]) < 300


def test_without_runs_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _gqn(tmp_path).output == "no runs\n"
    assert _gqn(tmp_path, "--json").output == "[]\n"
    monkeypatch.chdir(tmp_path)
    done = _gqn()
    assert done.exit_code == 2
    assert "runs: does not exist" in done.output
    with pytest.raises(OptionError, match="expected a folder of runs"):
        summarize_runs([tmp_path / "nowhere"])
