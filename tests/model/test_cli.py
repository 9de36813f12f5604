"""The command `gqn`: what it reports before torch is imported, and its exit statuses."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bars import make_bars
from click.testing import CliRunner
from made_checkpoints import made_run, smallest

from gqn_model.checkpoint.run_folder import write_facts
from gqn_model.cli import main as gqn
from gqn_model.model.inputs import Inputs
from gqn_model.train.run import resume_run
from gqn_model.train.step import StepResult, TrainStep


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


@pytest.mark.parametrize(
    "command", ["evaluate RUN", "sample RUN -o x.png", "explore RUN", "train --resume RUN --steps 9"]
)
def test_a_run_whose_dataset_has_moved_names_the_option(command: str, tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    write_facts(run, tmp_path / "gone", "bars", "f" * 64)
    done = CliRunner().invoke(gqn, [str(run) if word == "RUN" else word for word in command.split()])
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert "gone: no such folder" in line
    assert f"{run} was trained on it; pass its new place with --shards" in line


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


@pytest.mark.parametrize(
    ("package", "command", "extra"),
    [
        ("torch", "train --shards DATA", "train"),
        ("torch", "evaluate RUN", "train"),
        ("torch", "sample RUN -o x.png", "train"),
        ("torch", "export RUN -o x.safetensors", "train"),
        ("safetensors", "export RUN -o x.safetensors", "train"),
        ("matplotlib", "plot RUN -o x.png", "plot"),
        ("av", "sample RUN --walk -o x.mp4", "video"),
    ],
)
def test_a_missing_package_is_one_line_and_status_1(
    package: str, command: str, extra: str, bars: Path, bars_run: Path, tmp_path: Path, faults: Any
) -> None:
    places = {"RUN": str(bars_run), "DATA": str(bars), "x": str(tmp_path / "x")}
    words = [places.get(word, word.replace("x.", f"{tmp_path}/x.")) for word in command.split()]
    done = _without([package], *words)
    assert done.returncode == 1
    assert _one_line(done), done.stderr
    assert f"pip install '.[{extra}]'" in done.stderr
    faults.record(
        "found in use: a package that is not installed",
        holds="exit status 1, and one line with the command that installs it",
        tries=1,
        survived=1,
    )


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory."),
    ],
)
def test_a_full_memory_is_one_line(error: Exception, bars_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr("gqn_model.evaluate.run_evaluation.load_run", full)
    done = CliRunner().invoke(gqn, ["evaluate", str(bars_run)])
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: not enough memory")


def test_a_logger_without_its_package_is_status_1(bars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gqn_model.loggers._installed", lambda _: False)
    done = CliRunner().invoke(gqn, ["train", "--shards", str(bars), "--preset", "tiny", "--logger", "wandb"])
    assert done.exit_code == 1
    assert "pip install '.[wandb]'" in done.stderr


def test_only_exporting_needs_safetensors(bars_run: Path, tmp_path: Path) -> None:
    done = _without(["safetensors"], "sample", bars_run, "-o", tmp_path / "x.png", "--scenes", "1")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("value", [None, 5, 0.5, True, [], ["x"], {"a": 1}], ids=repr)
@pytest.mark.parametrize("field", ["shards", "scene_set", "fingerprint", "versions", "commit", "another"])
def test_run_json_with_a_field_of_another_type_is_refused(
    field: str, value: Any, bars_run: Path, tmp_path: Path, faults: Any
) -> None:
    run = Path(shutil.copytree(bars_run, tmp_path / "run"))
    facts = json.loads((run / "run.json").read_text())
    if field == "versions" and isinstance(value, dict):
        value = [value]
    (run / "run.json").write_text(json.dumps({**facts, field: value}))
    for words in (["train", "--resume", run, "--steps", 9], ["evaluate", run], ["sample", run, "-o", "x.png"]):
        done = CliRunner().invoke(gqn, [str(word) for word in words])
        assert done.exit_code == 1
        assert done.stderr.startswith(f"Error: {run / 'run.json'}: cannot be read (")
        assert field in done.stderr
        assert done.stderr.count("\n") == 1
    faults.record(
        "found in use: run.json with a field of another type",
        holds="one line that names the file and the field",
        tries=3,
        survived=3,
    )


@pytest.mark.parametrize("content", [b"", b"[]", b"5", b"null", b'"x"', b"\xff", b"{", b'{"shards": NaN}', b"[" * 9999])
@pytest.mark.parametrize("file", ["run.json", "config.json"])
def test_a_file_of_a_run_that_is_not_its_table_is_refused(
    file: str, content: bytes, bars_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(bars_run, tmp_path / "run"))
    (run / file).write_bytes(content)
    for words in (["train", "--resume", run, "--steps", 9], ["evaluate", run], ["export", run, "-o", "x.safetensors"]):
        if file == "run.json" and words[0] == "export":
            continue  # an export does not read it
        done = CliRunner().invoke(gqn, [str(word) for word in words])
        assert done.exit_code in (1, 2)
        assert done.stderr.startswith(f"Error: {run / file}: ")
        assert done.stderr.count("\n") == 1


# A byte that is not UTF-8, as Python shows it in a path.
ODD = "not-\udcff-utf8"


def test_paths_that_are_not_utf8_are_refused_at_once_or_work(
    bars: Path, bars_run: Path, tmp_path: Path, faults: Any
) -> None:
    if sys.platform != "linux":
        pytest.skip("file names are UTF-8 here")
    shards = shutil.copytree(bars, tmp_path / ODD)
    run = shutil.copytree(bars_run, tmp_path / f"run-{ODD}")
    evaluation = ["--scenes", 1, "--samples", 1, "--context", 1]
    training = ["--preset", "tiny", "--steps", 1, "--batch-size", 4, "--frame-size", 16, "--logger", "none"]
    refused: list[list[Any]] = [
        ["train", "--shards", shards, *training, "--out", tmp_path / "new"],
        ["train", "--shards", bars, *training, "--out", tmp_path / "new", "--cache", ODD],
        ["train", "--shards", bars, *training, "--out", tmp_path / "new", "--project", ODD],
        ["evaluate", bars_run, "--shards", shards, *evaluation],
        ["evaluate", run, *evaluation],
        ["evaluate", bars_run, "--index", tmp_path / ODD / "index.json", *evaluation],
    ]
    taken: list[list[Any]] = [
        ["sample", run, "--shards", shards, "-o", tmp_path / f"{ODD}.png", "--scenes", 1],
        ["export", run, "-o", tmp_path / f"{ODD}.safetensors"],
        ["plot", run, "-o", tmp_path / f"{ODD}-curves.png"],
        ["train", "--resume", run, "--steps", 7],
    ]
    for words in refused + taken:
        code = "from gqn_model.cli import main; main(prog_name='gqn')"
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, words)],
            capture_output=True,
            check=False,
            timeout=120,
            env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},  # as on most terminals
        )
        error = done.stderr.decode()
        assert "Traceback" not in error
        if words in refused:
            assert done.returncode == 2
            assert error.startswith("Error: ")
            assert error.count("\n") == 1
            assert "UTF-8" in error
        else:
            assert done.returncode == 0, error
            assert os.fsencode(ODD) in done.stdout
    assert not (tmp_path / "new").exists()
    faults.record(
        "found in use: a path that is not UTF-8",
        holds="works, or is refused in one line before anything is written",
        tries=len(refused + taken),
        survived=len(refused + taken),
    )


def test_cameras_that_are_not_finite_are_reported_as_the_datasets(
    bars_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: Any
) -> None:
    monkeypatch.setattr("gqn_data.tfrecord.example.check_finite", lambda _: None)  # as versions before 0.3 indexed it
    shards = make_bars(tmp_path / "rooms_ring_camera", camera=math.nan)
    monkeypatch.chdir(tmp_path)
    training = ["--preset", "tiny", "--batch-size", 4, "--frame-size", 16, "--logger", "none", "--workers", 0]
    commands: list[list[Any]] = [
        ["train", "--shards", shards, *training, "--steps", 40],
        ["evaluate", bars_run, "--shards", shards, "--samples", 1, "--context", 9],
        ["sample", bars_run, "--shards", shards, "-o", "x.png", "--context", 9],
        ["sample", bars_run, "--shards", shards, "--walk", "-o", "x.gif", "--scene", 3],
    ]
    for words in commands:
        done = CliRunner().invoke(gqn, [str(word) for word in words])
        assert done.exit_code == 1
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
        assert "scene 3, view 2: its camera" in line
        assert f"gqn-data verify --deep {shards}" in line
        assert "learning-rate" not in line
    faults.record(
        "found in use: cameras that are not finite",
        holds="one line that names the scene and the view, not the learning rate",
        tries=len(commands),
        survived=len(commands),
    )


@pytest.mark.parametrize(("seconds", "said"), [(10.0, True), (0.001, False)])
def test_a_training_of_days_on_a_cpu_is_announced_with_the_preset_tiny(
    seconds: float, said: bool, bars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: Any
) -> None:
    clock = itertools.count()
    monkeypatch.setattr("gqn_model.train.run.time", SimpleNamespace(monotonic=lambda: 2 * seconds * next(clock)))
    original = TrainStep.__call__

    def step_and_stop(self: TrainStep, step: int, inputs: Inputs) -> StepResult:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, step, inputs)

    monkeypatch.setattr(TrainStep, "__call__", step_and_stop)
    words = ["train", "--shards", str(bars), "--preset", "tiny", "--steps", "2000000", "--out", str(tmp_path / "run")]
    words += ["--batch-size", "4", "--frame-size", "16", "--logger", "none", "--workers", "0", "--device", "cpu"]
    done = CliRunner().invoke(gqn, words)
    assert done.exit_code == 130
    assert ("2,000,000 steps of 10 s take about 231 days" in done.stderr) == said
    assert ("--preset tiny" in done.stderr) == said
    faults.record(
        "found in use: a training of days on a CPU",
        holds="its duration is said after three steps, with the preset that fits",
        tries=1,
        survived=1,
    )
