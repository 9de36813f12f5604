"""The command `gqn`: what it reports before torch is imported, and its exit statuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from made_checkpoints import made_run, smallest

from gqn_model.cli import main as gqn
from gqn_model.train.run import resume_run


def _without(packages: list[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `gqn` in a process where some packages cannot be imported."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({packages}))\n"
        "from gqn_model.cli import main; main(sys.argv[1:], prog_name='gqn')"
    )
    words = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)


def _one_line(done: subprocess.CompletedProcess[str]) -> bool:
    return done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        ["train"],
        ["train", "--resume", "RUN"],
        ["train", "--resume", "RUN", "--steps", "9"],
        ["evaluate", "RUN"],
        ["sample", "RUN", "-o", "picture.png"],
        ["sample", "RUN", "--walk", "-o", "walk.gif"],
    ],
    ids=" ".join,
)
def test_a_wrong_dataset_is_reported_before_torch_is_imported(command: list[str], tmp_path: Path, faults: Any) -> None:
    run = made_run(tmp_path / "run")
    words = [str(run) if word == "RUN" else word for word in command]
    done = _without(["torch"], *words, "--shards", tmp_path / "nowhere")
    assert done.returncode == 1
    assert _one_line(done), done.stderr
    assert "nowhere: no such folder" in done.stderr
    faults.record(
        "found in use: a wrong --shards",
        holds="reported in one line, before torch is imported",
        tries=1,
        survived=1,
    )


def test_a_folder_that_is_not_a_run_is_reported_before_torch_is_imported(tmp_path: Path) -> None:
    for command in (["train", "--resume"], ["evaluate"], ["sample", "-o", "picture.png"]):
        done = _without(["torch"], *command, tmp_path)
        assert done.returncode == 1
        assert _one_line(done), done.stderr
        assert "gqn train" in done.stderr


def test_a_finished_run_is_reported_before_torch_is_imported(tmp_path: Path, faults: Any) -> None:
    run = made_run(tmp_path / "a run", steps=(2, 4), config=smallest(steps=4))
    for words in ([], ["--steps", "4"], ["--steps", "3"]):
        done = _without(["torch"], "train", "--resume", run, *words)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(run)
        assert "finished at step 4" in done.stderr
        assert f"gqn train --resume '{run}' --steps 8" in done.stderr
    done = _without(["torch"], "train", "--resume", run, "--steps", "5")
    assert "finished at" not in done.stderr
    faults.record(
        "found in use: --resume of a finished run",
        holds="reported as finished, with the command that trains longer, before torch is imported",
        tries=4,
        survived=4,
    )


def test_a_finished_run_is_not_changed_by_resuming_it(
    bars_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gqn_model.train.run.training_batches", None)
    before = {path: path.read_bytes() for path in bars_run.rglob("*") if path.is_file()}
    assert resume_run(bars_run, {"workers": 1}) == bars_run
    assert "finished at step 6" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in bars_run.rglob("*") if path.is_file()} == before


def test_other_settings_of_a_finished_run_are_still_checked(bars_run: Path) -> None:
    done = CliRunner().invoke(gqn, ["train", "--resume", str(bars_run), "--batch-size", "3"])
    assert done.exit_code == 2
    assert "batch_size cannot change" in done.stderr
