"""Shuffled order of scenes: a permutation per epoch, computed from (seed, epoch, position)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gqn_data.sampling.permutation import draw, key, mix, permute

SEEDS = st.integers(0, 2**63 - 1)
EPOCHS = st.integers(0, 2**31)


def _epoch(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return permute(np.arange(count), count, seed=seed, epoch=epoch)


def _chi_square(observed: NDArray[np.int64]) -> float:
    """Compute Pearson's statistic against equal frequencies, in standard deviations above its expectation."""
    expected = observed.sum() / observed.size
    freedom = observed.size - 1
    return float((((observed - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


@settings(deadline=None)
@given(count=st.integers(1, 700), seed=SEEDS, epoch=EPOCHS)
def test_every_scene_comes_exactly_once_in_an_epoch(count: int, seed: int, epoch: int) -> None:
    assert sorted(_epoch(count, seed, epoch).tolist()) == list(range(count))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 4095, 4096, 4097, 100_003])
def test_counts_around_powers_of_four_are_permuted(count: int) -> None:
    assert np.bincount(_epoch(count, 5, 2), minlength=count).tolist() == [1] * count


@pytest.mark.parametrize("count", [10_800_000, 2**40 + 1, 2**62])
def test_scenes_of_huge_sets_are_in_range_and_distinct(count: int) -> None:
    positions = np.unique(np.concatenate([np.arange(500), count - 1 - np.arange(500), np.arange(500) * (count // 501)]))
    scenes = permute(positions, count, seed=1, epoch=0)
    assert scenes.min() >= 0
    assert scenes.max() < count
    assert len(np.unique(scenes)) == len(positions)


@settings(deadline=None)
@given(data=st.data(), count=st.integers(1, 300), seed=SEEDS, epoch=EPOCHS)
def test_scenes_do_not_depend_on_the_grouping(data: st.DataObject, count: int, seed: int, epoch: int) -> None:
    whole = _epoch(count, seed, epoch)
    asked = np.array(data.draw(st.lists(st.integers(0, count - 1), max_size=20)), np.int64)
    np.testing.assert_array_equal(permute(asked, count, seed=seed, epoch=epoch), whole[asked])
    for position in asked.tolist():
        assert permute(np.array([position]), count, seed=seed, epoch=epoch).tolist() == [whole[position]]


@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (3, 2, 1)])
def test_positions_may_have_any_shape(shape: tuple[int, ...]) -> None:
    positions = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    scenes = permute(positions, 50, seed=3, epoch=1)
    assert scenes.shape == shape
    np.testing.assert_array_equal(scenes, _epoch(50, 3, 1)[positions])


def test_permute_does_not_modify_its_input() -> None:
    positions = np.arange(20)
    permute(positions, 20, seed=0, epoch=0)
    assert positions.tolist() == list(range(20))


def test_another_seed_or_epoch_gives_another_order() -> None:
    orders = {tuple(_epoch(100, seed, epoch).tolist()) for seed in range(20) for epoch in range(20)}
    assert len(orders) == 400


def test_seed_and_epoch_are_not_interchangeable() -> None:
    assert _epoch(100, 1, 2).tolist() != _epoch(100, 2, 1).tolist()
    assert _epoch(100, 0, 3).tolist() != _epoch(100, 3, 0).tolist()


def test_the_order_is_the_same_in_every_version() -> None:
    # States saved by one version are resumed by the next: these numbers are part of the checkpoint format.
    assert _epoch(10, 0, 0).tolist() == [9, 2, 1, 0, 4, 6, 8, 3, 5, 7]
    assert _epoch(10, 7, 3).tolist() == [7, 3, 5, 9, 2, 8, 0, 4, 6, 1]


@pytest.mark.parametrize("count", [7, 10, 16, 33])
def test_every_scene_is_equally_likely_at_every_position(count: int) -> None:
    epochs = 4000
    orders = np.stack([_epoch(count, 11, epoch) for epoch in range(epochs)])
    table = np.stack([np.bincount(orders[:, position], minlength=count) for position in range(count)])
    # Rows and columns of the table sum to the number of epochs, so that there are fewer degrees of freedom.
    assert _chi_square(table) < 5
    for position in range(count):
        assert _chi_square(table[position]) < 6


def test_every_pair_of_neighbours_is_equally_likely() -> None:
    count = 8
    table = np.zeros((count, count), np.int64)
    for seed in range(3000):
        order = _epoch(count, seed, 0)
        np.add.at(table, (order[:-1], order[1:]), 1)
    assert not table.diagonal().any()
    assert _chi_square(table[~np.eye(count, dtype=bool)]) < 5


def test_the_order_is_uncorrelated_with_the_source_order() -> None:
    order = _epoch(50_000, 4, 0)
    steps = np.abs(np.diff(order))
    # Two of 50,000 uniform scenes are neighbours with probability 2 / 50,000: 2 such pairs are expected.
    assert (steps == 1).sum() < 15
    assert np.corrcoef(order[:-1], order[1:])[0, 1] == pytest.approx(0, abs=0.03)
    assert np.corrcoef(order, np.arange(len(order)))[0, 1] == pytest.approx(0, abs=0.03)


def test_two_epochs_are_uncorrelated() -> None:
    first, second = _epoch(50_000, 4, 0), _epoch(50_000, 4, 1)
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(0, abs=0.03)
    assert (first == second).sum() < 15  # one is expected


def test_mix_is_splitmix64() -> None:
    # The first outputs of SplitMix64 seeded with 1234567, as published with the Rosetta Code task "Pseudo-random
    # numbers/Splitmix64" and by the generator's author.
    states = np.array([(1234567 + (step + 1) * 0x9E3779B97F4A7C15) % 2**64 for step in range(5)], np.uint64)
    assert mix(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_draw_is_elementwise() -> None:
    ordered = draw(key(3, 4), np.arange(12).reshape(3, 4))
    for counter in range(12):
        assert draw(key(3, 4), np.array([counter]))[0] == ordered.ravel()[counter]
    assert len(np.unique(ordered)) == 12


def test_keys_depend_on_every_part_and_on_their_order() -> None:
    parts = [(seed, epoch, step) for seed in range(12) for epoch in range(12) for step in range(12)]
    assert len({key(*part) for part in parts}) == 12**3
    assert key(1, 2) != key(2, 1)
    assert key(1) != key(1, 0)
    assert 0 <= key(-1, 2**70) < 2**64
