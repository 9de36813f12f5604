"""Options of the loader accept integers of Python, numpy and torch, and refuse other values with an `OptionError`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fault_counts import FaultCounts
from loader_fixtures import SET, index, write_raw
from loader_streams import stream

from gqn_data.errors import GQNError, OptionError
from gqn_data.loader import SceneLoader
from gqn_data.sampling.batch_sampler import BatchSampler, Member

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

COUNTS = {
    "batch_size": 4,
    "seed": 3,
    "workers": 1,
    "ranks": 2,
    "rank": 1,
    "epochs": 2,
    "window": 2,
    "frame_size": 8,
    "epoch_scenes": 12,
}
OPTIONAL = {"epochs", "window", "frame_size", "epoch_scenes"}
KINDS: list[Callable[[int], Any]] = [np.int64, np.uint8, np.array, torch.tensor]
WRONG: list[Any] = [None, 4.0, "4", True, np.True_, [4], torch.tensor(4.0), float("nan"), b"4", {}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index(write_raw(tmp_path_factory.mktemp("scenes") / SET).folder)


def _options(name: str) -> dict[str, Any]:
    """Return options with which an option of `COUNTS` is allowed."""
    return {"ranks": 2} if name == "rank" else {}


@pytest.mark.parametrize("kind", KINDS)
def test_an_integer_of_any_kind_gives_the_same_stream_and_state(
    folder: Path, faults: FaultCounts, kind: Callable[[int], Any]
) -> None:
    survived = 0
    cases: dict[str, tuple[Any, Any]] = {name: (value, kind(value)) for name, value in COUNTS.items()}
    cases["context"] = (1, 3), (kind(1), kind(3))
    for name, (plain, given) in cases.items():
        options = _options(name)
        state = SceneLoader(folder, **{"batch_size": 4, **options, name: given}).state_dict()
        survived += (
            stream(folder, 4, **{**options, name: given}) == stream(folder, 4, **{**options, name: plain})
            and json.loads(json.dumps(state))
            == SceneLoader(folder, **{"batch_size": 4, **options, name: plain}).state_dict()
        )
    faults.record(
        "found in use: integers of numpy and torch as options",
        holds="the stream and the state of the same integers of Python",
        tries=len(cases),
        survived=survived,
    )


@pytest.mark.parametrize("context", [np.array([1, 3]), torch.tensor([1, 3]), [1, 3], np.array([1, 3], np.uint8)])
def test_a_context_may_be_any_pair_of_integers(folder: Path, context: Any) -> None:
    assert SceneLoader(folder, batch_size=4, context=context).context == (1, 3)


@pytest.mark.parametrize("name", COUNTS)
def test_a_value_that_is_no_integer_is_an_option_error(folder: Path, faults: FaultCounts, name: str) -> None:
    tried = [value for value in WRONG if value is not None or name not in OPTIONAL]
    survived = 0
    for value in tried:
        with pytest.raises(OptionError, match=rf"^{name} is "):
            SceneLoader(folder, **{"batch_size": 4, **_options(name), name: value})
        survived += 1
    faults.record(
        "found in use: a value of the wrong type as an option",
        holds="an error names the option, the value and what was expected",
        tries=len(tried),
        survived=survived,
    )


@pytest.mark.parametrize(
    "options",
    [
        *({"context": value} for value in [3, (1,), (1, 2, 3), (1.0, 2), (True, 2), ("1", "2"), "12", np.eye(2)]),
        *({"shuffle": value} for value in ["no", None, 2, 0.0, np.array([0, 1])]),
        *({"pin_memory": value} for value in ["yes", None]),
        *({"split": value} for value in [None, 3, "val"]),
        *({"remote": value} for value in [None, "disk"]),
        *({"cache_gb": value} for value in ["1", True, [1]]),
        *({"samples": value} for value in ["1", 5, [[0, 1, 2], [1]], [[0, 1.0, 2]], [None], True]),
        *({"scenes": value} for value in ["1", 5, [[1], [2, 3]], [0.5], [None], [True, False], {1, 2}]),
        *({"path": value} for value in [None, 5, b"folder", [None], {5: 1}]),
    ],
    ids=repr,
)
def test_other_options_of_the_wrong_type_are_refused(folder: Path, options: dict[str, Any]) -> None:
    given = {"path": folder, "batch_size": 2, **options}
    with pytest.raises(GQNError):
        SceneLoader(**given)


@pytest.mark.parametrize("weight", ["1", None, True, [1], "a"])
def test_a_weight_that_is_no_number_is_refused(folder: Path, weight: Any) -> None:
    with pytest.raises(OptionError, match="weight of "):
        SceneLoader({folder: weight}, batch_size=4)


@pytest.mark.parametrize("weight", [np.float32(2), np.int64(2), torch.tensor(2.0), 2])
def test_a_weight_may_be_any_number(folder: Path, weight: Any) -> None:
    assert len(SceneLoader({folder: weight}, batch_size=4)) == 5


@pytest.mark.parametrize("option", ["batch_size", "seed", "epoch_scenes"])
def test_a_sampler_takes_integers_of_any_kind_only(option: str) -> None:
    def sampler(value: Any) -> BatchSampler:
        options = {"batch_size": 4, "context": (1, 3), "seed": 3, "epoch_scenes": 4, option: value}
        return BatchSampler([Member(scenes=10, views=5)], **options)

    plain, given = sampler(4), sampler(np.int64(4))
    assert plain.identity == given.identity
    assert all(np.array_equal(one, other) for one, other in zip(plain.batch(0, 0), given.batch(0, 0), strict=True))
    for value in (4.0, "4", True):
        with pytest.raises(OptionError, match=rf"^{option} is "):
            sampler(value)
