"""Runs: their schedules, and the scenes that they hold out, from start to resume."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_counts import FaultCounts

from gqn_model.checkpoint.checkpoint import read_config
from gqn_model.config import PRESETS, resolve
from gqn_model.loggers.json_lines import read_lines
from gqn_model.train.run import resume_run, start_run
from gqn_model.train.schedules import learning_rate_at, sigma_at

# Networks small enough for a test, with the schedules of the preset.
NETWORKS = {
    "gqn": {"representation_channels": 8, "pooled_channels": 0, "hidden": 4, "canvas": 4, "core_steps": 1, "kernel": 1},
    "plane_sweep": {"planes": 2, "width": 4, "dim": 8, "depth": 1, "heads": 1},
}
TINY = {
    "frame_size": 16,
    "batch_size": 4,
    "context_min": 1,
    "context_max": 2,
    "threads": 1,
    "workers": 0,
    "device": "cpu",
    "logger": "none",
    "log_every": 1,
    "picture_every": 0,
}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_resumed_run_with_more_steps_keeps_its_schedules(
    bars: Path, tmp_path: Path, preset: str, faults: FaultCounts
) -> None:
    model = PRESETS[preset].get("model", "gqn")
    began = resolve(preset, (), {**TINY, **NETWORKS[model], "steps": 3, "probe_every": 0})
    run = start_run(str(bars), began, out=tmp_path / "run")
    resume_run(run, {"steps": 6})
    lines = {line["step"]: (line["learning_rate"], line["sigma"]) for line in read_lines(run)}
    expected = {
        step + 1: (
            learning_rate_at(began.training, step),
            sigma_at(began.training, step) if model == "gqn" else None,
        )
        for step in range(6)
    }
    assert read_config(run).training.steps == 6
    faults.record(
        "found in use: a resumed run with more steps",
        holds="the schedules are those that the run began with",
        tries=1,
        survived=int(lines == expected),
    )
