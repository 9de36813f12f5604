"""Integers of Python, numpy and torch are the same option; anything else is an `OptionError`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gqn_data.convert.plan import Options
from gqn_data.convert.scene_writer import SceneWriter
from gqn_data.counts import as_count
from gqn_data.dataset import open_dataset
from gqn_data.download import download
from gqn_data.errors import OptionError
from gqn_data.render.request import Request
from gqn_data.schema.catalog import SCENE_SETS

INTEGERS: list[Any] = [3, np.int64(3), np.uint8(3), np.array(3), np.array([5, 3])[1]]
OTHERS: list[Any] = [None, 3.0, np.float32(3), "3", b"3", True, np.True_, np.array(True), [3], (3,), np.zeros((90, 90))]


@pytest.mark.parametrize("value", INTEGERS, ids=repr)
def test_every_integer_becomes_an_int(value: Any) -> None:
    assert type(as_count("seed", value)) is int
    assert as_count("seed", value, 3, 3) == 3


def test_an_integer_of_torch_becomes_an_int() -> None:
    torch = pytest.importorskip("torch")
    assert type(as_count("seed", torch.tensor(3))) is int
    for value in (torch.tensor(3.0), torch.tensor(True)):
        with pytest.raises(OptionError):
            as_count("seed", value)


@pytest.mark.parametrize("value", OTHERS, ids=repr)
def test_what_is_no_integer_is_an_option_error(value: Any) -> None:
    with pytest.raises(OptionError, match=r"^batch_size is .*, expected an integer, 1 or more$"):
        as_count("batch_size", value, 1)


@pytest.mark.parametrize(
    ("value", "least", "most", "expected"),
    [(0, 1, None, "1 or more"), (4, None, 3, "3 or less"), (4, 1, 3, "1 to 3")],
)
def test_an_integer_out_of_range_is_an_option_error(value: Any, least: Any, most: Any, expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        as_count("rank", value, least, most)


# Every public function and class outside the loader that takes a count, with a valid one.

NUMPY = [np.int8(3), np.int64(3), np.uint8(3), np.array(3)]
WRONG = [3.0, "3", True, np.float32(3), [3], np.array([3, 3])]


def writer(tmp_path, **options):
    return SceneWriter(tmp_path / "mine", **options)


def request(_, **options):
    return Request.of("sm5", **{"scenes": 20, **options})


def fetch(tmp_path, **options):
    return download(SCENE_SETS["mazes"], tmp_path, base_url="file:///nowhere", **options)


ENTRANCES = [
    *((lambda _, **options: Options(**options), name) for name in ("jpeg_quality", "limit", "shard_bytes", "workers")),
    *((request, name) for name in ("scenes", "seed", "views", "quality")),
    (writer, "scenes_per_shard"),
    (writer, "jpeg_quality"),
    (writer, "shard_bytes"),
]
REFUSING = [*ENTRANCES, (fetch, "workers"), (fetch, "limit"), (request, "frame_size")]


@pytest.mark.parametrize("value", NUMPY, ids=lambda value: f"{type(value).__name__}")
@pytest.mark.parametrize(("call", "name"), ENTRANCES)
def test_integers_of_numpy_are_options_everywhere(tmp_path, call, name, value, faults):
    call(tmp_path, **{name: value})
    faults.record(
        "found in use: integers of numpy and torch as options",
        holds="they count as Python's; anything else is refused by name",
        tries=1,
        survived=1,
    )


@pytest.mark.parametrize("value", WRONG, ids=repr)
@pytest.mark.parametrize(("call", "name"), REFUSING)
def test_what_is_no_integer_is_refused_by_name_everywhere(tmp_path, call, name, value):
    with pytest.raises(OptionError, match=name):
        call(tmp_path, **{name: value})


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_integers_of_torch_are_options(dtype):
    torch = pytest.importorskip("torch")
    assert Options(workers=torch.tensor(3, dtype=getattr(torch, dtype))).workers == 3


def test_scenes_are_found_by_integers_of_numpy(tmp_path):
    with SceneWriter(tmp_path / "mine") as made:
        for scene in range(3):
            made.add(np.full((2, 16, 16, 3), scene, np.uint8), np.zeros((2, 5)))
    scenes = open_dataset(tmp_path / "mine")
    for number in (np.int64(2), np.uint8(2), np.int8(-1)):
        assert scenes[number].frames.max() == 2
    for number in (1.0, "1", None):
        with pytest.raises((TypeError, OptionError)):
            scenes[number]
