"""`make demo` with few scenes and steps: the script runs to its end, and a second call resumes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_demo_trains_and_compares_both_models(tmp_path: Path) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, module in (("gqn", "gqn_model"), ("gqn-data", "gqn_data")):
        file = commands / name
        file.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        file.chmod(0o755)
    small = {"SCENES": "60", "SWEEP_STEPS": "3", "GQN_STEPS": "4"}
    paths = {"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    for steps in ("3", "5"):  # the second call resumes one of the two trainings
        done = subprocess.run(
            ["sh", str(ROOT / "demo.sh")],
            cwd=tmp_path,
            env={**os.environ, **paths, **small, "SWEEP_STEPS": steps},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    demo = tmp_path / "demo"
    results = {run: list((demo / run / "evaluation").glob("result-*.json")) for run in ("plane_sweep", "gqn")}
    assert {run: len(found) for run, found in results.items()} == {"plane_sweep": 2, "gqn": 1}
    assert len({json.loads(path.read_bytes())["questions"] for found in results.values() for path in found}) == 1
    table = (demo / "evaluation.txt").read_text()
    for row in ("plane_sweep, step 5: prediction", "gqn, step 4: prior mean", "nearest view", "mean image"):
        assert table.count(f"  {row} ") == 3 + table.count(f"  {row} over"), row  # once per number of context views
    assert table in done.stdout
    precisions = {json.loads((demo / run / "config.json").read_bytes())["training"]["precision"] for run in results}
    assert len(precisions) == 1
    assert (demo / "timings.txt").read_text().count(f"trained, in {precisions.pop()}\n") == 2
    with Image.open(demo / "prediction.png") as picture:
        assert picture.height > 9 * 128  # five context views, the ground truth, a row of one model and two of the other
