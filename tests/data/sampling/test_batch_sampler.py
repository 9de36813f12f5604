"""Scenes and views of batches, for any number of ranks, any tail and any mixture."""

from __future__ import annotations

import itertools
import tracemalloc
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gqn_data.errors import OptionError
from gqn_data.sampling.batch_sampler import TAILS, BatchSampler, Member, Sample
from gqn_data.sampling.permutation import Windows, permute

SEEDS = st.integers(0, 2**63 - 1)
TAIL = st.sampled_from(TAILS)


def _rows(sample: Sample) -> list[tuple[int, int, tuple[int, ...]]]:
    return [*zip(sample.members.tolist(), sample.scenes.tolist(), map(tuple, sample.views.tolist()))]


def _epoch(sampling: BatchSampler, epoch: int, ranks: int = 1) -> list[list[tuple[int, int, tuple[int, ...]]]]:
    """Concatenate the shares of all ranks to the batches of an epoch."""
    return [
        [row for rank in range(ranks) for row in _rows(sampling.batch(epoch, batch, rank=rank, ranks=ranks))]
        for batch in range(sampling.batches)
    ]


def _one(scenes: int = 21, views: int = 5, **options: Any) -> BatchSampler:
    return BatchSampler(
        [Member(scenes=scenes, views=views)], **{"batch_size": 4, "context": (1, 3), "seed": 0, **options}
    )


@settings(deadline=None)
@given(
    scenes=st.integers(1, 60),
    share=st.integers(1, 6),
    ranks=st.integers(1, 5),
    seed=SEEDS,
    epoch=st.integers(0, 1000),
    shuffle=st.booleans(),
    tail=TAIL,
    per=st.sampled_from(["scene", "batch"]),
)
def test_ranks_share_every_batch_and_an_epoch_has_every_scene_once(
    scenes: int, share: int, ranks: int, seed: int, epoch: int, shuffle: bool, tail: Any, per: Any
) -> None:
    options = {"batch_size": share * ranks, "seed": seed, "shuffle": shuffle, "tail": tail, "context_per": per}
    sampling = _one(scenes, **options)
    whole = _epoch(sampling, epoch)
    assert _epoch(_one(scenes, **options), epoch, ranks) == whole
    seen = [scene for batch in whole for _, scene, _ in batch]
    order = np.arange(scenes)
    if shuffle:
        order = permute(order, scenes, seed=seed, epoch=epoch)
    full = scenes // (share * ranks) * share * ranks
    padding = -scenes % (share * ranks)
    expected = {"drop": order[:full].tolist(), "exact": order.tolist(), "pad": order.tolist() + [-1] * padding}
    assert seen == expected[tail]
    for batch in whole:
        for member, scene, views in batch:
            assert (member < 0) == (scene < 0) == (views[0] < 0)
            used = [view for view in views if view >= 0]
            assert len(set(used)) == len(used)
            assert scene < 0 or 2 <= len(used) <= 4


@settings(deadline=None)
@given(scenes=st.integers(1, 60), share=st.integers(1, 6), ranks=st.integers(1, 5))
def test_shares_of_ranks_are_even(scenes: int, share: int, ranks: int) -> None:
    for tail in TAILS:
        sampling = _one(scenes, batch_size=share * ranks, tail=tail)
        for batch in range(sampling.batches):
            sizes = [len(sampling.batch(0, batch, rank=rank, ranks=ranks).scenes) for rank in range(ranks)]
            assert max(sizes) - min(sizes) <= (tail == "exact")
            assert tail == "exact" or sizes[0] == share


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_batch_does_not_depend_on_earlier_requests(shuffle: bool) -> None:
    # 300 views of 36 scenes are drawn a few batches at a time.
    options = {"scenes": 5000, "views": 300, "batch_size": 36, "shuffle": shuffle}
    sampling = _one(**options)
    straight = [_rows(sampling.batch(3, batch)) for batch in range(30)]
    for batch in (29, 0, 13, 12, 28):
        assert _rows(_one(**options).batch(3, batch)) == straight[batch]
    assert _rows(sampling.batch(2, 4)) != straight[4]


def test_a_late_batch_needs_no_more_memory_than_the_first() -> None:
    sampling = _one(10_800_000, views=15, batch_size=36)
    tracemalloc.start()
    try:
        for batch in (0, 1000, 277_777):
            sampling.batch(3, batch)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000  # a table of the order would take 86 MB


# Context views.


def test_context_counts_are_drawn_per_scene_or_per_batch() -> None:
    def numbers(per: Any) -> list[list[int]]:
        sampling = _one(400, context_per=per, tail="exact")
        return [[sum(view >= 0 for view in views) - 1 for *_, views in batch] for batch in _epoch(sampling, 0)]

    by_scene, by_batch = numbers("scene"), numbers("batch")
    for drawn in (by_scene, by_batch):
        counts = Counter(itertools.chain.from_iterable(drawn))
        assert sorted(counts) == [1, 2, 3]
        assert min(counts.values()) > 80
    assert any(len(set(batch)) > 1 for batch in by_scene)
    assert all(len(set(batch)) == 1 for batch in by_batch)


def test_one_context_count_per_batch_leaves_no_empty_slots() -> None:
    sampling = _one(400, context_per="batch")
    widths = {sampling.batch(0, batch).views.shape[1] for batch in range(sampling.batches)}
    assert widths == {2, 3, 4}
    assert all((sampling.batch(0, batch).views >= 0).all() for batch in range(sampling.batches))


def test_all_views_keep_their_order() -> None:
    sampling = _one(21, context=None, tail="pad")
    assert sampling.slots == 5
    for _, scene, views in itertools.chain.from_iterable(_epoch(sampling, 0)):
        assert views == ((0, 1, 2, 3, 4) if scene >= 0 else (-1,) * 5)


# Lists of samples, and of scenes.

SAMPLES = np.array([[3, 0, 1, -1], [3, 4, 2, 3], [20, 1, 0, 2], [0, 2, 4, -1], [5, 2, 4, 1]])


@pytest.mark.parametrize("ranks", [1, 2])
def test_samples_keep_their_order_in_every_epoch(ranks: int) -> None:
    sampling = _one(samples=SAMPLES, tail="exact", batch_size=2)
    for epoch in (0, 7):
        rows = [[scene, *views] for _, scene, views in itertools.chain.from_iterable(_epoch(sampling, epoch, ranks))]
        assert rows == SAMPLES.tolist()


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [(0, 0, 21), (0, 0, -1), (1, 1, 5), (1, 1, -1), (1, 2, -1), (1, 3, 4), (2, 2, 1), (0, 3, -2)],
)
def test_samples_of_missing_scenes_or_views_are_rejected(row: int, column: int, value: int) -> None:
    samples = SAMPLES.copy()
    samples[row, column] = value
    with pytest.raises(OptionError, match=rf"sample {row} is .*all different and below 5"):
        _one(samples=samples)


@pytest.mark.parametrize("samples", [np.zeros((0, 3), int), np.zeros((2, 2), int), np.zeros((2, 3)), np.zeros(3, int)])
def test_malformed_samples_are_rejected(samples: Any) -> None:
    with pytest.raises(OptionError, match="expected whole numbers"):
        _one(samples=samples)


@given(chosen=st.sets(st.integers(0, 40), min_size=1), seed=SEEDS, window=st.integers(1, 5))
def test_chosen_scenes_come_once_per_epoch_with_or_without_windows(chosen: set[int], seed: int, window: int) -> None:
    numbers = np.array(sorted(chosen))
    sizes = np.diff(np.searchsorted(numbers, [0, 9, 10, 25, 41])).tolist()
    windows = Windows(sizes, window=window, seed=seed)
    for choice in (None, windows):
        member = Member(scenes=len(numbers), views=3, chosen=numbers, windows=choice)
        sampling = BatchSampler([member], batch_size=2, context=(1, 2), seed=seed, tail="exact")
        assert sorted(scene for batch in _epoch(sampling, 1) for _, scene, _ in batch) == numbers.tolist()


@given(
    sizes=st.lists(st.integers(1, 7), min_size=2, max_size=9),
    window=st.integers(1, 9),
    batch_size=st.integers(1, 9),
    seed=SEEDS,
    epoch=st.integers(0, 1000),
    shuffle=st.booleans(),
)
def test_the_shards_of_a_batch_are_those_of_its_windows(
    sizes: list[int], window: int, batch_size: int, seed: int, epoch: int, shuffle: bool
) -> None:
    windows = Windows(sizes, window=window, seed=seed, shuffle=shuffle)
    member = Member(scenes=sum(sizes), views=3, windows=windows)
    sampling = BatchSampler([member], batch_size=batch_size, context=(1, 2), seed=seed, tail="exact", shuffle=shuffle)
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    for number, batch in enumerate(_epoch(sampling, epoch)):
        touched = {int(shard_of[scene]) for _, scene, _ in batch}
        found = sampling.shards_of(epoch, number)
        if windows.count == 1:
            assert found is None
        else:
            of_windows = [{*windows.shards_of(each, epoch).tolist()} for each in range(windows.count)]
            assert found == set().union(*(shards for shards in of_windows if shards & touched))


def test_without_windows_any_shard_may_be_needed() -> None:
    member = Member(scenes=21, views=3, windows=Windows([7, 7, 7], window=1, seed=0))
    options: dict[str, Any] = {"batch_size": 4, "context": (1, 2), "seed": 0}
    assert BatchSampler([member], **options).shards_of(0, 0) is not None
    assert BatchSampler([member, member], **options).shards_of(0, 0) is None
    assert BatchSampler([member], epoch_scenes=40, **options).shards_of(0, 0) is None
    assert _one().shards_of(0, 0) is None


# Mixtures.


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=4),
    weights=st.lists(st.floats(0.5, 4), min_size=4, max_size=4),
    epoch_scenes=st.integers(20, 90),
    share=st.integers(1, 4),
    ranks=st.integers(1, 3),
    seed=SEEDS,
    shuffle=st.booleans(),
)
def test_mixtures_are_exact_per_epoch_and_per_pass_of_each_dataset(
    sizes: list[int],
    weights: list[float],
    epoch_scenes: int,
    share: int,
    ranks: int,
    seed: int,
    shuffle: bool,
) -> None:
    weights = weights[: len(sizes)]
    sampling = BatchSampler(
        [Member(scenes=size, views=5) for size in sizes],
        batch_size=share * ranks,
        context=(1, 3),
        seed=seed,
        shuffle=shuffle,
        tail="exact",
        weights=weights,
        epoch_scenes=epoch_scenes,
    )
    streams: list[list[int]] = [[] for _ in sizes]
    for epoch in range(3):
        rows = [*itertools.chain.from_iterable(_epoch(sampling, epoch))]
        assert [*itertools.chain.from_iterable(_epoch(sampling, epoch, ranks))] == rows
        counts = Counter(member for member, *_ in rows)
        assert sum(counts.values()) == epoch_scenes
        for member, weight in enumerate(weights):
            assert abs(counts[member] - epoch_scenes * weight / sum(weights)) < 1
            streams[member] += [scene for number, scene, _ in rows if number == member]
    for stream, size in zip(streams, sizes):
        times = Counter(stream)
        assert set(times) <= set(range(size))
        # After n full passes and a partial one, every scene was drawn n or n + 1 times.
        assert max(times.values()) - min(times[scene] for scene in range(size)) <= 1


def test_unweighted_datasets_yield_each_scene_once_and_well_mixed() -> None:
    sampling = BatchSampler(
        [Member(scenes=300, views=5), Member(scenes=100, views=9)], batch_size=20, context=(1, 3), seed=0
    )
    batches = _epoch(sampling, 0)
    assert Counter((member, scene) for batch in batches for member, scene, _ in batch) == Counter(
        [(0, scene) for scene in range(300)] + [(1, scene) for scene in range(100)]
    )
    parts = [sum(member for member, *_ in batch) for batch in batches]
    assert len(set(parts)) > 3
    assert max(parts) < 15
    assert {view for batch in batches for member, _, views in batch for view in views if member} > {5, 6, 7, 8}


def test_a_scene_repeated_in_an_epoch_has_other_views() -> None:
    sampling = BatchSampler(
        [Member(scenes=2, views=9), Member(scenes=50, views=9)],
        batch_size=10,
        context=(3, 3),
        seed=0,
        weights=[1, 1],
        epoch_scenes=100,
    )
    views = [views for batch in _epoch(sampling, 0) for member, scene, views in batch if (member, scene) == (0, 1)]
    assert len(views) == 25
    assert len(set(views)) > 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": [1, 0]}, "expected 2 numbers above 0"),
        ({"weights": [1]}, "expected 2 numbers above 0"),
        ({"weights": [1, float("nan")]}, "expected 2 numbers above 0"),
        ({"weights": [1, 1e-6]}, "dataset 1 of the mixture has a weight of 1e-06 in"),
        ({"epoch_scenes": 0}, "epoch_scenes is 0, expected 1 or more"),
        ({"tail": "cut"}, "tail is 'cut', expected one of drop, pad, exact"),
        ({"context_per": "view"}, "context_per is 'view', expected scene or batch"),
        ({"context": None}, r"scenes of \[5, 6\] views cannot be put into one batch"),
        ({"samples": SAMPLES}, "samples name scenes of one dataset"),
    ],
)
def test_options_that_a_mixture_does_not_allow_are_rejected(options: dict[str, Any], message: str) -> None:
    members = [Member(scenes=10, views=5), Member(scenes=10, views=6)]
    with pytest.raises(OptionError, match=message):
        BatchSampler(members, **{"batch_size": 2, "context": (1, 2), "seed": 0, **options})


def test_every_option_changes_the_identity() -> None:
    one = Member(scenes=10, views=5)
    base: dict[str, Any] = {"batch_size": 2, "context": (1, 2), "seed": 0}
    streams = [
        BatchSampler([one], **base),
        *(
            BatchSampler([one], **{**base, name: value})
            for name, value in [
                ("seed", 1),
                ("batch_size", 1),
                ("context", (1, 3)),
                ("context", None),
                ("shuffle", False),
                ("tail", "pad"),
                ("context_per", "batch"),
                ("epoch_scenes", 20),
                ("samples", SAMPLES[3:]),
                ("samples", SAMPLES[4:]),
            ]
        ),
        BatchSampler([Member(scenes=2, views=5, chosen=np.array([1, 2]))], **base),
        BatchSampler([Member(scenes=2, views=5, chosen=np.array([1, 3]))], **base),
        BatchSampler([one, one], **base),
        BatchSampler([one, one], **base, weights=[1, 2]),
    ]
    assert len({str(stream.identity) for stream in streams}) == len(streams)
