"""The order of scenes in a store: shuffled shards, then shuffled scenes within a window of shards."""

from __future__ import annotations

import tracemalloc
from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gqn_data.sampling.permutation import Windows, permute

SEEDS = st.integers(0, 2**63 - 1)
EPOCHS = st.integers(0, 2**31)
SHARDS = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def _epoch(windows: Windows, scenes: int, epoch: int) -> list[int]:
    return windows.scenes_at(np.arange(scenes), epoch).tolist()


def _shard_of(shards: list[int]) -> list[int]:
    """Return the shard of each scene."""
    return [number for number, scenes in enumerate(shards) for _ in range(scenes)]


@settings(deadline=None)
@given(shards=SHARDS, window=st.integers(1, 40), seed=SEEDS, epoch=EPOCHS, shuffle=st.booleans())
def test_an_epoch_visits_every_scene_exactly_once(
    shards: list[int], window: int, seed: int, epoch: int, shuffle: bool
) -> None:
    windows = Windows(shards, window=window, seed=seed, shuffle=shuffle)
    assert sorted(_epoch(windows, sum(shards), epoch)) == list(range(sum(shards)))


@settings(deadline=None)
@given(shards=SHARDS, window=st.integers(1, 40), seed=SEEDS, epoch=EPOCHS, shuffle=st.booleans())
def test_scenes_come_in_windows_of_bounded_size(
    shards: list[int], window: int, seed: int, epoch: int, shuffle: bool
) -> None:
    windows = Windows(shards, window=window, seed=seed, shuffle=shuffle)
    shard_of = _shard_of(shards)
    seen: list[int] = []
    at = 0
    order = _epoch(windows, sum(shards), epoch)
    for number in range(windows.count):
        members = windows.shards_of(number, epoch).tolist()
        assert 1 <= len(members) <= min(window, windows.largest)
        end = at + sum(shards[shard] for shard in members)
        assert {windows.window_at(position, epoch) for position in range(at, end)} == {number}
        if windows.count > 1 or not shuffle:
            assert {shard_of[scene] for scene in order[at:end]} == set(members)
        seen += members
        at = end
    assert at == sum(shards)
    assert sorted(seen) == list(range(len(shards)))


@settings(deadline=None)
@given(shards=SHARDS, more=st.integers(0, 5), seed=SEEDS, epoch=EPOCHS)
def test_one_window_of_all_shards_equals_the_full_permutation(
    shards: list[int], more: int, seed: int, epoch: int
) -> None:
    windows = Windows(shards, window=len(shards) + more, seed=seed)
    whole = permute(np.arange(sum(shards)), sum(shards), seed=seed, epoch=epoch).tolist()
    assert _epoch(windows, sum(shards), epoch) == whole
    assert windows.identity == {}


@settings(deadline=None)
@given(data=st.data(), shards=SHARDS, window=st.integers(1, 12), seed=SEEDS, epoch=st.integers(0, 9))
def test_positions_do_not_depend_on_grouping_or_earlier_calls(
    data: st.DataObject, shards: list[int], window: int, seed: int, epoch: int
) -> None:
    count = sum(shards)
    whole = np.array(_epoch(Windows(shards, window=window, seed=seed), count, epoch))
    asked = np.array(data.draw(st.lists(st.integers(0, count - 1), max_size=20)), np.int64)
    used = Windows(shards, window=window, seed=seed)
    for other in (epoch + 1, 0, epoch + 7, epoch):  # earlier calls change nothing
        used.scenes_at(asked, other)
    np.testing.assert_array_equal(used.scenes_at(asked, epoch), whole[asked])
    for position in asked.tolist():
        single = Windows(shards, window=window, seed=seed).scenes_at(np.array([position]), epoch)
        assert single.tolist() == [whole[position]]


def test_windows_differ_by_at_most_one_shard() -> None:
    windows = Windows([10] * 17, window=8, seed=0)
    assert windows.count == 3
    assert sorted(len(windows.shards_of(number, 0)) for number in range(3)) == [5, 6, 6]


def test_without_shuffling_scenes_stay_in_source_order() -> None:
    windows = Windows([3, 5, 2, 4], window=2, seed=9, shuffle=False)
    assert _epoch(windows, 14, 5) == list(range(14))
    assert [windows.shards_of(number, 5).tolist() for number in range(2)] == [[0, 1], [2, 3]]
    assert windows.identity == {}


def test_seed_and_epoch_change_the_order_of_shards_and_scenes() -> None:
    visits, orders = set(), set()
    for seed in range(8):
        windows = Windows([20] * 12, window=3, seed=seed)
        for epoch in range(8):
            visits.add(tuple(shard for number in range(4) for shard in windows.shards_of(number, epoch).tolist()))
            orders.add(tuple(_epoch(windows, 240, epoch)))
    assert len(visits) == 64
    assert len(orders) == 64


def test_windows_of_an_epoch_are_shuffled_differently() -> None:
    windows = Windows([50] * 4, window=1, seed=2)
    order = _epoch(windows, 200, 0)
    within = {tuple(scene % 50 for scene in order[at : at + 50]) for at in range(0, 200, 50)}
    assert len(within) == 4


@pytest.mark.parametrize("shards", [[30, 30, 30, 30], [7, 50, 3, 40, 20]])
def test_a_scene_may_come_at_any_position_of_an_epoch(shards: list[int]) -> None:
    count, epochs = sum(shards), 800
    windows = Windows(shards, window=2, seed=5)
    positions = np.array(
        [np.argsort(_epoch(windows, count, epoch))[[0, count // 2, count - 1]] for epoch in range(epochs)]
    )
    # The mean of uniform positions has a standard deviation of count / sqrt(12 epochs); unequal shards widen it.
    assert np.abs(positions.mean(0) - (count - 1) / 2).max() < 6 * count / np.sqrt(12 * epochs) + 0.1 * count
    assert positions.min(0).max() < count // 10
    assert positions.max(0).min() > count - count // 10


def test_the_order_is_the_same_in_every_version() -> None:
    # A later version must resume a saved state: these numbers are part of the checkpoint format.
    windows = Windows([3, 2, 4, 1], window=2, seed=7)
    assert _epoch(windows, 10, 3) == [8, 7, 6, 9, 5, 2, 0, 3, 1, 4]
    assert windows.identity == {"windows": 2, "shards": "4, efc8893a"}


def test_orders_of_different_shards_have_different_identities() -> None:
    made = [Windows(shards, window=2, seed=0) for shards in ([4, 4, 4], [4, 4, 5], [4, 4, 4, 1])]
    assert len({str(windows.identity) for windows in made}) == 3
    assert Windows([4, 4, 4], window=2, seed=0).identity == made[0].identity
    assert Windows([4, 4, 4], window=1, seed=0).identity != made[0].identity


def test_memory_grows_with_shards_and_not_with_scenes() -> None:
    shards = [5000] * 2160
    windows = Windows(shards, window=64, seed=0)
    tracemalloc.start()
    try:
        for batch in (0, 1000, 277_777):
            windows.scenes_at(np.arange(batch * 36, (batch + 1) * 36), 3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 500_000


def test_positions_at_window_borders_fall_into_the_right_window() -> None:
    shards = [1, 9, 2, 8, 30, 1]
    windows = Windows(shards, window=2, seed=11)
    shard_of = _shard_of(shards)
    visited = [shard for number in range(3) for shard in windows.shards_of(number, 0).tolist()]
    borders = [0, *accumulate(shards[a] + shards[b] for a, b in zip(visited[::2], visited[1::2]))]
    for number, (begin, end) in enumerate(pairwise(borders)):
        for position in (begin, end - 1):
            scene = int(windows.scenes_at(np.array(position), 0))
            assert shard_of[scene] in visited[2 * number : 2 * number + 2]
