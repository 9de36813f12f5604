"""A loader state resumes the same stream at any batch, and no other stream, for all options."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_fixtures import SET, convert_to, index, write_raw
from loader_streams import Row, joined, rows_of, snapshot, stream, taken

from gqn_data.errors import OptionError
from gqn_data.loader import SceneLoader
from gqn_data.sampling.batch_sampler import TAILS

TRAIN = 21  # scenes: three source files of 6, 4 and 11

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index(write_raw(tmp_path_factory.mktemp("scenes") / SET).folder)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make another dataset, of 7 views."""
    return index(write_raw(tmp_path_factory.mktemp("other") / SET, train=(5, 4), views=7, seed=1).folder)


# One stream, for any options


def _options(draw: st.DrawFn) -> dict[str, Any]:
    ranks = draw(st.integers(1, 4))
    targets = draw(st.sampled_from([1, 1, 2, 4]))  # of scenes of 5 views
    low = draw(st.integers(1, 5 - targets))
    high = draw(st.integers(low, 5 - targets))
    options: dict[str, Any] = {
        "batch_size": ranks * draw(st.integers(1, 4)),
        "seed": draw(st.integers(0, 2**63 - 1)),
        "shuffle": draw(st.booleans()),
        "tail": draw(st.sampled_from(TAILS)),
        "context": draw(st.sampled_from([(low, high), "all"])) if targets == 1 else (low, high),
        "targets": targets,
        "context_per": draw(st.sampled_from(["scene", "batch"])),
        "poses": draw(st.sampled_from(["sin_first", "cos_first", "raw"])),
    }
    match draw(st.sampled_from(["whole", "scenes", "window", "mixture", "samples"])):
        case "scenes":
            chosen = draw(st.sets(st.integers(0, TRAIN - 1), min_size=options["batch_size"]))
            options |= {"scenes": sorted(chosen), "window": draw(st.sampled_from([None, 1, 2]))}
        case "window":
            options["window"] = draw(st.integers(1, 3))
        case "mixture":
            options |= {"mixed": draw(st.sampled_from([None, 1, 2.5])), "epoch_scenes": draw(st.integers(20, 40))}
            if options["context"] == "all":
                options["context"] = (1, 4)
        case "samples":
            row = st.tuples(st.integers(0, TRAIN - 1), st.permutations(range(5)), st.integers(1 + targets, 5)).map(
                lambda drawn: [drawn[0], *drawn[1][: drawn[2]], *[-1] * (5 - drawn[2])]
            )
            options["samples"] = draw(st.lists(row, min_size=options["batch_size"], max_size=20))
    return {"ranks": ranks, **options}


OPTIONS = st.composite(_options)()


def _loader(folder: Path, other: Path, options: dict[str, Any], **more: Any) -> SceneLoader:
    options = {**options, **more}
    if "mixed" in options:
        weight = options.pop("mixed")
        return SceneLoader([folder, other] if weight is None else {folder: 1, other: weight}, **options)
    return SceneLoader(folder, **options)


@settings(max_examples=25)
@given(options=OPTIONS, data=st.data())
def test_a_stream_resumes_at_any_batch_with_other_ranks(
    folder: Path, other: Path, options: dict[str, Any], data: st.DataObject
) -> None:
    ranks = options.pop("ranks")
    options["epochs"] = 2
    whole = list(_loader(folder, other, options))
    number = data.draw(st.integers(0, len(whole) - 1), "batches given before")
    # Some rank of those before gives the state; all save the same.
    before = _loader(folder, other, options, rank=data.draw(st.integers(0, ranks - 1), "rank"), ranks=ranks)
    taken(before, number)
    state = json.loads(json.dumps(before.state_dict()))
    possible = [count for count in range(1, options["batch_size"] + 1) if options["batch_size"] % count == 0]
    then = data.draw(st.sampled_from(possible), "ranks that resume")
    parts = []
    for rank in range(then):
        resumed = _loader(folder, other, options, rank=rank, ranks=then)
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        parts.append(list(resumed))
    for shares, batch in zip(zip(*parts, strict=True), whole[number:], strict=True):
        assert snapshot(joined(shares)) == snapshot(batch)


@settings(max_examples=25)
@given(options=OPTIONS, epoch=st.integers(0, 2**40))
def test_every_scene_comes_once_per_epoch_over_all_ranks(
    folder: Path, other: Path, options: dict[str, Any], epoch: int
) -> None:
    ranks = options.pop("ranks")
    rows: list[Row] = []
    length = 0
    for rank in range(ranks):
        loader = _loader(folder, other, options, rank=rank, ranks=ranks)
        loader.load_state_dict({**loader.state_dict(), "epoch": epoch})
        length = loader.scenes
        for batch in itertools.islice(loader, len(loader)):
            rows += [row for row in rows_of(batch) if row[1] >= 0]
        loader.close()
    if options["tail"] == "drop":
        length = length // options["batch_size"] * options["batch_size"]
    assert len(rows) == length
    if "samples" in options:
        left = [[scene, *views] for _, scene, views in rows]
        assert all(left.count(row) <= options["samples"].count(row) for row in left)
        return
    scenes = [row[:2] for row in rows]
    allowed = set(options.get("scenes", range(TRAIN)))
    assert {scene for dataset, scene in scenes if dataset == 0} <= allowed
    if "mixed" in options:
        return  # the epoch of a mixture is counted in tests/data/sampling/test_batch_sampler.py
    assert len(set(scenes)) == len(scenes)
    if options["tail"] != "drop":
        assert {scene for _, scene in scenes} == allowed


@pytest.mark.parametrize(
    "options",
    [
        {"tail": "exact"},
        {"tail": "pad", "context_per": "batch"},
        {"context": "all", "window": 2},
        {"scenes": [*range(3, 19)], "tail": "exact", "frame_size": 9},
        {"mixed": 2, "epoch_scenes": 25, "tail": "pad"},
    ],
)
def test_any_number_of_workers_yields_the_same_stream(folder: Path, other: Path, options: dict[str, Any]) -> None:
    all_reduce_max: dict[str, Any] = {"batch_size": 4, "seed": 11, "epochs": 2, **options}
    alone = taken(_loader(folder, other, all_reduce_max))
    for workers in (1, 2, 7):
        assert taken(_loader(folder, other, all_reduce_max, workers=workers)) == alone


def test_a_stream_resumes_with_other_workers_and_ranks(folder: Path) -> None:
    options: dict[str, Any] = {"batch_size": 4, "seed": 11, "epochs": 2, "tail": "exact"}
    whole = list(SceneLoader(folder, **options))
    expected = [*map(snapshot, whole)]
    turns = itertools.cycle([(0, 7, 1), (7, 1, 2), (1, 2, 4), (2, 0, 1)])
    for number, (first, then, ranks) in zip(range(len(whole)), turns):
        loader = SceneLoader(folder, workers=first, rank=1, ranks=2, **options)
        taken(loader, number)
        parts = []
        for rank in range(ranks):
            resumed = SceneLoader(folder, workers=then if rank == 0 else 0, rank=rank, ranks=ranks, **options)
            resumed.load_state_dict(loader.state_dict())
            parts.append(list(resumed))
        assert [snapshot(joined(shares)) for shares in zip(*parts, strict=True)] == expected[number:]


# States of other streams

BASE: dict[str, Any] = {"batch_size": 4, "seed": 7, "context": (1, 3)}
STREAMS: dict[str, dict[str, Any]] = {
    "seed": {"seed": 8},
    "batch_size": {"batch_size": 5},
    "context": {"context": (1, 4)},
    "context all": {"context": "all"},
    "shuffle": {"shuffle": False},
    "tail": {"tail": "exact"},
    "context_per": {"context_per": "batch"},
    "targets": {"targets": 2},
    "samples": {"samples": [[0, 0, 1]] * 8},
    "scenes": {"scenes": [*range(12)]},
    "poses": {"poses": "cos_first"},
    "windows": {"window": 1},
    "mixture": {"epoch_scenes": 30},
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_state_of_other_options_is_refused_in_both_directions(folder: Path, name: str) -> None:
    # Without `window`, the loader adopts the windows of the state; here it is given.
    base = SceneLoader(folder, **BASE, window=3 if name == "windows" else None)
    loader = SceneLoader(folder, **{**BASE, **STREAMS[name]})
    for state, into in ((base.state_dict(), loader), (loader.state_dict(), base)):
        before = into.state_dict()
        with pytest.raises(OptionError, match=rf"of another stream: (.*; )?{name.split(maxsplit=1)[0]} .*, here "):
            into.load_state_dict({**state, "epoch": 5})
        assert into.state_dict() == before
    # Both still give their own streams from the beginning.
    assert taken(loader, 2) == stream(folder, 2, **{**BASE, **STREAMS[name]})
    assert taken(base, 2) == stream(folder, 2, **BASE)


@pytest.mark.parametrize(("one", "two"), [*itertools.combinations(STREAMS, 2)])
def test_states_of_any_two_streams_differ(folder: Path, one: str, two: str) -> None:
    first, second = (SceneLoader(folder, **{**BASE, **STREAMS[name]}) for name in (one, two))
    for giver, taker in ((first, second), (second, first)):
        with pytest.raises(OptionError, match="of another stream"):
            taker.load_state_dict(giver.state_dict())


@pytest.mark.parametrize(
    ("here", "there", "message"),
    [
        ({"samples": [[0, 0, 1]] * 4}, {"samples": [[0, 0, 2]] * 4}, r"samples '4, \w{8}', here '4, \w{8}'"),
        ({"scenes": [0, 1, 2, 3]}, {"scenes": [0, 1, 2, 4]}, r"scenes '4, \w{8}', here '4, \w{8}'"),
        ({"scenes": [0, 1, 2, 3]}, {}, r"scenes None, here '4, \w{8}'"),
        ({}, {"scenes": [0, 1, 2, 3]}, r"scenes '4, \w{8}', here None"),
        ({"context_per": "batch"}, {}, "context_per None, here 'batch'"),
        ({"targets": 2}, {}, "targets None, here 2"),
        ({}, {"targets": 2}, "targets 2, here None"),
        ({}, {"poses": "raw"}, "poses 'raw', here None"),
        ({"context": "all"}, {"context": (1, 3)}, "context '1-3', here 'all'"),
        ({"window": 2}, {"window": 1}, "windows 3, here 2"),
        ({"window": 3}, {"window": 1}, "windows 3, here None"),
        ({"epoch_scenes": 30}, {}, "mixture None, here '30'"),
    ],
)
def test_the_message_lists_the_differences(folder: Path, here: Any, there: Any, message: str) -> None:
    loader = SceneLoader(folder, **{**BASE, **here})
    with pytest.raises(OptionError, match=message):
        loader.load_state_dict(SceneLoader(folder, **{**BASE, **there}).state_dict())


def test_options_that_do_not_change_the_stream_may_change(folder: Path, tmp_path: Path) -> None:
    whole = stream(folder, epochs=2)
    loader = SceneLoader(folder, **BASE)
    taken(loader, 3)
    for options in ({"workers": 1}, {"workers": 1, "start": "spawn"}, {"window": 3}, {"epoch_scenes": TRAIN}):
        resumed = SceneLoader(folder, epochs=2, **BASE, **options)  # type: ignore[arg-type]
        resumed.load_state_dict(loader.state_dict())
        assert taken(resumed, 3) == whole[3:6]
    converted = SceneLoader(convert_to("numpy", folder, tmp_path), **BASE)
    converted.load_state_dict(loader.state_dict())
    assert taken(converted, 3) == whole[3:6]
    smaller = SceneLoader(folder, frame_size=20, resize="bilinear", **BASE)
    smaller.load_state_dict(loader.state_dict())
    (batch,) = itertools.islice(smaller, 1)
    assert batch.frames.shape[2:] == (20, 20, 3)
    assert snapshot(batch)[1:] == whole[3][1:]  # all but the frames


def test_a_state_is_one_small_dictionary_of_plain_values(folder: Path, other: Path) -> None:
    options: dict[str, Any] = {"batch_size": 4, "context_per": "batch", "poses": "raw", "epoch_scenes": 25}
    loader = SceneLoader([folder, other], **options)
    taken(loader, 8)
    state = loader.state_dict()
    assert (state["epoch"], state["batches"]) == (1, 2)
    assert all(type(value) in (int, str) for value in state.values())
    text = json.dumps(state)
    assert len(text) < 500
    resumed = SceneLoader([folder, other], **options)
    resumed.load_state_dict(json.loads(text))
    assert taken(resumed, 2) == taken(loader, 2)
