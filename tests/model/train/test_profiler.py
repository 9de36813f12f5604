"""The profile of a training: which steps it covers, and that it does not change the weights."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from gqn_data.errors import NoSpace
from gqn_model.train import profiler
from gqn_model.train.profiler import Profile

CPU = torch.device("cpu")


def _train(run: Path, steps: int, *, wanted: bool = True, first: int = 0, stop_after: int | None = None) -> Profile:
    """Run a plain training loop; return its profile, with the final weights as an attribute."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.Adam(model.parameters())
    profile = Profile(run, CPU, first=first, last=steps, wanted=wanted, steps=3, warm_up=2)
    with profile:
        for step in range(first, steps):
            loss = model(torch.randn(8, 4)).relu().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            profile.step()
            if step + 1 == stop_after:
                raise KeyboardInterrupt
    profile.weights = model.weight.detach()  # type: ignore[attr-defined]
    return profile


def _names(run: Path) -> list[str]:
    folder = run / "profile"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def _calls(run: Path, name: str) -> int:
    (path,) = (run / "profile").glob("*.json.gz")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return sum(event.get("name") == name for event in events)


def test_a_profile_covers_only_the_steps_after_the_warm_up(tmp_path: Path) -> None:
    _train(tmp_path, 20)
    assert _names(tmp_path) == ["steps-00000003-00000005.json.gz", "steps-00000003-00000005.txt"]
    assert _calls(tmp_path, "aten::relu") == 3
    table = (tmp_path / "profile" / "steps-00000003-00000005.txt").read_text()
    assert table.startswith("3 steps on cpu")
    assert "aten::addmm" in table


def test_a_resumed_training_warms_up_again_before_its_profile(tmp_path: Path) -> None:
    _train(tmp_path, 120, first=100)
    assert _names(tmp_path)[0] == "steps-00000103-00000105.json.gz"


@pytest.mark.parametrize(("steps", "name"), [(4, "steps-00000002-00000004"), (2, "steps-00000001-00000002")])
def test_a_training_shorter_than_the_profile_is_still_profiled(tmp_path: Path, steps: int, name: str) -> None:
    _train(tmp_path, steps)
    assert _names(tmp_path) == [f"{name}.json.gz", f"{name}.txt"]


def test_a_stopped_training_leaves_a_profile_of_the_steps_done(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path, 20, stop_after=4)
    assert _names(tmp_path)[0] == "steps-00000003-00000004.json.gz"
    assert _calls(tmp_path, "aten::relu") == 2


def test_a_training_stopped_during_the_warm_up_leaves_no_profile(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path, 20, stop_after=1)
    assert _names(tmp_path) == []


def test_nothing_is_written_unless_a_profile_is_wanted(tmp_path: Path) -> None:
    assert _train(tmp_path, 20, wanted=False).written is None
    assert _names(tmp_path) == []


def test_profiling_does_not_change_the_weights(tmp_path: Path) -> None:
    profiled, plain = _train(tmp_path, 20), _train(tmp_path, 20, wanted=False)
    assert torch.equal(profiled.weights, plain.weights)  # type: ignore[attr-defined]


def test_a_full_disk_loses_the_profile_but_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path) -> None:
        raise NoSpace("the disk is full")

    monkeypatch.setattr(profiler.atomic, "writing", full)
    assert _train(tmp_path, 20).written is None
    assert "the disk is full" in capsys.readouterr().err
