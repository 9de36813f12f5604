"""Training from an object store: every step equals the same step from the disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic import small

from gqn_data.convert import convert
from gqn_data.convert.plan import Options
from gqn_data.errors import OptionError
from gqn_data.io.paths import parse_path
from gqn_data.schema.catalog import find_scene_set
from gqn_model.checkpoint.checkpoint import load_checkpoint
from gqn_model.evaluate.run_evaluation import evaluate
from gqn_model.train.run import resume_run, start_run

STEPS = 6
SETTINGS: dict[str, Any] = {"steps": STEPS, "log_every": 1, "probe_every": 3, "picture_every": 0, "checkpoint_every": 3}


@pytest.fixture
def store_url(bars: Path, s3: str) -> str:
    """Return the URL of a bucket with the bars as indexed TFRecords and as small Zarr shards."""
    for path in bars.rglob("*"):
        if path.is_file():
            (parse_path(s3) / "raw" / path.relative_to(bars).as_posix()).put(path.read_bytes())
    options = Options(formats=("zarr",), shard_bytes=60_000, workers=1)
    convert(bars, find_scene_set(bars.name), parse_path(s3), options)
    return s3


def _logged(run: Path) -> list[dict[str, Any]]:
    """Return the logged steps, without metrics that depend on the clock or on the number of steps."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    left_out = ("rate", "wait", "left", "steps")
    return [{name: value for name, value in line.items() if name not in left_out} for line in lines]


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run).model


@pytest.mark.parametrize("remote", ["cache", "range"])
def test_training_from_a_store_equals_training_from_the_disk(
    bars: Path, store_url: str, tmp_path: Path, remote: str
) -> None:
    from_disk = start_run(str(bars), small(**SETTINGS), out=tmp_path / "disk")
    store = {"remote": remote, "cache": str(tmp_path / "cache"), "cache_gb": 0.1}
    for name, shards in (("raw", f"{store_url}/raw"), ("zarr", f"{store_url}/zarr/{bars.name}")):
        run = start_run(shards, small(**SETTINGS, **store), out=tmp_path / name)
        assert _logged(run) == _logged(from_disk)
        assert len(_logged(run)) == STEPS
        assert all(torch.equal(value, _weights(from_disk)[key]) for key, value in _weights(run).items())


def test_a_run_with_windows_resumes_from_a_store_and_from_the_disk(bars: Path, store_url: str, tmp_path: Path) -> None:
    shards, cache = f"{store_url}/zarr/{bars.name}", str(tmp_path / "cache")
    settings = {**SETTINGS, "window": 2, "workers": 1}
    whole = start_run(shards, small(**settings, cache=cache), out=tmp_path / "whole")
    first = start_run(shards, small(**{**settings, "steps": 3}, cache=cache), out=tmp_path / "first")
    resume_run(first, {"steps": STEPS, "workers": 0, "remote": "range"})
    assert _logged(first) == _logged(whole)
    assert load_checkpoint(first).loader["windows"] > 1  # type: ignore[operator]
    convert(bars, find_scene_set(bars.name), tmp_path, Options(formats=("zarr",), shard_bytes=60_000, workers=1))
    second = start_run(shards, small(**{**settings, "steps": 3}, cache=cache), out=tmp_path / "second")
    resume_run(second, {"steps": STEPS, "workers": 0}, str(tmp_path / "zarr" / bars.name))
    assert _logged(second) == _logged(whole)
    with pytest.raises(OptionError, match=r"^window\b"):
        resume_run(second, {"window": 1})


def test_evaluating_from_a_store_equals_evaluating_from_the_disk(
    bars: Path, bars_run: Path, store_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GQN_CACHE", str(tmp_path / "cache"))
    from_disk = evaluate(bars_run, str(bars), scenes=4, context=[1, 3], samples=2)
    from_store = evaluate(bars_run, f"{store_url}/zarr/{bars.name}", scenes=4, context=[1, 3], samples=2)
    assert from_store.to_json()["sweep"] == from_disk.to_json()["sweep"]
    assert from_store.questions == from_disk.questions
