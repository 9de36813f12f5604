"""Runs from a stranger: links in them never lead what is written out of the run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gqn_model.cli import main as gqn


@pytest.fixture
def run(bars_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bars_run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation")))


@pytest.mark.parametrize("name", ["evaluation", "pictures", "checkpoints"])
@pytest.mark.parametrize("command", ["evaluate", "resume"])
def test_a_folder_of_a_run_that_leads_out_of_it_is_refused(
    name: str, command: str, run: Path, tmp_path: Path, faults: Any
) -> None:
    outside = tmp_path / "outside"
    if (run / name).exists():
        shutil.move(run / name, outside)
    outside.mkdir(exist_ok=True)
    (run / name).symlink_to(outside)
    before = sorted(path.name for path in outside.iterdir())
    words = ["evaluate", str(run), "--scenes", "2", "--samples", "1", "--context", "1"]
    if command == "resume":
        words = ["train", "--resume", str(run), "--steps", "100000"]
    done = CliRunner().invoke(gqn, words)
    assert done.exit_code == 1
    assert "a link to" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in outside.iterdir()) == before
    faults.record(
        "found in use: links under the names of files that are written",
        holds="the file that the link names is neither made nor changed",
        tries=1,
        survived=1,
    )


@pytest.mark.parametrize("name", ["index-test-2.json", "index-test-2.json.partial", "result-test-2.json.partial"])
def test_a_link_in_the_folder_of_evaluations_is_not_followed(name: str, run: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("precious")
    (run / "evaluation").mkdir()
    (run / "evaluation" / name).symlink_to(precious)
    CliRunner().invoke(gqn, ["evaluate", str(run), "--scenes", "2", "--samples", "1", "--context", "1"])
    assert precious.read_text() == "precious"
