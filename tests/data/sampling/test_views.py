"""The choice of views: a query is never among the context."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gqn_data.errors import OptionError
from gqn_data.sampling.views import ViewChoice, check_context, choose_views

SEEDS = st.integers(0, 2**63 - 1)
SCENES = st.lists(st.integers(0, 20_000_000), min_size=1, max_size=12)


@st.composite
def _ranges(draw: st.DrawFn) -> tuple[int, tuple[int, int]]:
    """Draw a number of views, and a range of context views that it allows."""
    views = draw(st.integers(2, 20))
    high = draw(st.integers(1, views - 1))
    return views, (draw(st.integers(1, high)), high)


def _choose(scenes: list[int] | range, views: int, context: tuple[int, int], seed: int, epoch: int = 0) -> ViewChoice:
    return choose_views(np.array(scenes, np.int64), views=views, context=context, seed=seed, epoch=epoch)


def _chi_square(observed: NDArray[np.int64]) -> float:
    """Compute Pearson's statistic against equal frequencies, in standard deviations above its expectation."""
    expected = observed.sum() / observed.size
    freedom = observed.size - 1
    return float((((observed - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


@settings(deadline=None)
@given(scenes=SCENES, ranges=_ranges(), seed=SEEDS, epoch=st.integers(0, 2**31))
def test_the_query_is_not_in_the_context_and_no_view_repeats(
    scenes: list[int], ranges: tuple[int, tuple[int, int]], seed: int, epoch: int
) -> None:
    views, (low, high) = ranges
    choice = _choose(scenes, views, (low, high), seed, epoch)
    assert choice.views.shape == (len(scenes), 1 + high)
    assert choice.context.shape == (len(scenes),)
    assert choice.views.dtype == choice.context.dtype == np.int64
    for row, number in zip(choice.views.tolist(), choice.context.tolist()):
        assert low <= number <= high
        query, context, rest = row[0], row[1 : 1 + number], row[1 + number :]
        assert query not in context
        assert len({query, *context}) == 1 + number
        assert all(0 <= view < views for view in (query, *context))
        assert rest == [-1] * (high - number)


@settings(deadline=None)
@given(data=st.data(), scenes=SCENES, ranges=_ranges(), seed=SEEDS, epoch=st.integers(0, 1000))
def test_the_choice_depends_on_the_scene_not_on_its_batch(
    data: st.DataObject, scenes: list[int], ranges: tuple[int, tuple[int, int]], seed: int, epoch: int
) -> None:
    views, context = ranges
    single = [_choose([scene], views, context, seed, epoch) for scene in scenes]
    order = data.draw(st.permutations(range(len(scenes))))
    batch = _choose([scenes[index] for index in order], views, context, seed, epoch)
    for row, index in enumerate(order):
        assert batch.views[row].tolist() == single[index].views[0].tolist()
        assert batch.context[row] == single[index].context[0]


@settings(deadline=None)
@given(data=st.data(), scenes=SCENES, ranges=_ranges(), seed=SEEDS, epoch=st.integers(0, 1000))
def test_more_targets_change_neither_the_first_nor_the_context(
    data: st.DataObject, scenes: list[int], ranges: tuple[int, tuple[int, int]], seed: int, epoch: int
) -> None:
    views, (low, high) = ranges
    targets = data.draw(st.integers(1, views - high))
    one = _choose(scenes, views, (low, high), seed, epoch)
    choice = choose_views(
        np.array(scenes, np.int64), views=views, context=(low, high), seed=seed, epoch=epoch, targets=targets
    )
    assert choice.views.shape == (len(scenes), targets + high)
    assert choice.context.tolist() == one.context.tolist()
    assert choice.views[:, 0].tolist() == one.views[:, 0].tolist()
    assert choice.views[:, targets:].tolist() == one.views[:, 1:].tolist()
    for row in choice.views.tolist():
        assert len(set(row[:targets])) == targets
        assert set(row[:targets]) <= set(range(views)) - set(row[targets:])


def test_every_view_is_equally_often_each_target() -> None:
    choice = choose_views(np.arange(20_000), views=10, context=(1, 5), seed=9, epoch=0, targets=4)
    for slot in range(4):
        assert _chi_square(np.bincount(choice.views[:, slot], minlength=10)) < 5


def test_context_counts_are_drawn_per_scene_uniformly() -> None:
    choice = _choose(range(20_000), 10, (2, 7), 3)
    counts = np.bincount(choice.context, minlength=10)
    assert counts[:2].tolist() == [0, 0]
    assert counts[8:].tolist() == [0, 0]
    assert _chi_square(counts[2:8]) < 5
    # Within each batch of 36, the paper's batch size, the numbers differ.
    assert all(len(set(batch)) > 1 for batch in choice.context[: 36 * 100].reshape(100, 36).tolist())


def test_the_number_of_context_views_can_be_fixed() -> None:
    choice = _choose(range(100), 6, (3, 3), 0)
    assert set(choice.context.tolist()) == {3}
    assert (choice.views >= 0).all()


def test_every_view_is_equally_often_query_and_context() -> None:
    views = 10
    choice = _choose(range(20_000), views, (1, 5), 9)
    assert _chi_square(np.bincount(choice.views[:, 0], minlength=views)) < 5
    for slot in range(1, 6):
        used = choice.views[:, slot]
        assert _chi_square(np.bincount(used[used >= 0], minlength=views)) < 5


def test_every_pair_of_query_and_context_is_equally_likely() -> None:
    views = 6
    choice = _choose(range(30_000), views, (1, 1), 2)
    table = np.zeros((views, views), np.int64)
    np.add.at(table, (choice.views[:, 0], choice.views[:, 1]), 1)
    assert not table.diagonal().any()
    assert _chi_square(table[~np.eye(views, dtype=bool)]) < 5


def test_the_number_of_context_views_is_independent_of_the_query() -> None:
    choice = _choose(range(30_000), 6, (1, 4), 5)
    table = np.zeros((6, 4), np.int64)
    np.add.at(table, (choice.views[:, 0], choice.context - 1), 1)
    assert _chi_square(table) < 5


def test_other_epochs_and_seeds_give_other_choices() -> None:
    first = _choose(range(200), 15, (1, 5), 0, 0)
    for seed, epoch in ((0, 1), (1, 0), (1, 1), (0, 2)):
        other = _choose(range(200), 15, (1, 5), seed, epoch)
        # By chance, 1 of 15 queries and 1 of 5 numbers of context views are equal.
        assert (first.views[:, 0] == other.views[:, 0]).mean() < 0.25
        assert (first.context == other.context).mean() < 0.45


def test_all_views_of_a_scene_can_be_used() -> None:
    choice = _choose(range(50), 4, (3, 3), 0)
    assert all(sorted(row) == [0, 1, 2, 3] for row in choice.views.tolist())


def test_no_scenes_give_an_empty_choice() -> None:
    choice = _choose([], 5, (1, 3), 0)
    assert choice.views.shape == (0, 4)
    assert choice.context.shape == (0,)


def test_the_choice_is_the_same_in_every_version() -> None:
    # States saved by one version are resumed by the next: these numbers are part of the checkpoint format.
    choice = _choose([0, 1, 77], 8, (1, 4), 5, 2)
    assert choice.views.tolist() == [[6, 4, 2, -1, -1], [7, 1, 0, 6, 4], [5, 3, 6, -1, -1]]
    choice = choose_views(np.array([0, 1, 77]), views=8, context=(1, 4), seed=5, epoch=2, targets=3)
    assert choice.views.tolist() == [[6, 7, 1, 4, 2, -1, -1], [7, 3, 5, 1, 0, 6, 4], [5, 1, 0, 3, 6, -1, -1]]


@settings(deadline=None)
@given(ranges=_ranges())
def test_valid_context_ranges_are_returned_unchanged(ranges: tuple[int, tuple[int, int]]) -> None:
    views, context = ranges
    assert check_context(context, views) == context


@pytest.mark.parametrize(
    ("context", "views", "message"),
    [
        ((0, 3), 5, r"context views 0 to 3: expected 1 <= smallest <= largest"),
        ((-2, -1), 5, r"context views -2 to -1: expected 1 <= smallest <= largest"),
        ((3, 2), 5, r"context views 3 to 2: expected 1 <= smallest <= largest"),
        ((1, 5), 5, r"need 6 views; a scene has 5: ask for at most 4"),
        ((300, 300), 300, r"need 301 views; a scene has 300: ask for at most 299"),
    ],
)
def test_invalid_context_ranges_name_the_valid_ones(context: tuple[int, int], views: int, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        check_context(context, views)


@pytest.mark.parametrize(
    ("context", "targets", "message"),
    [
        ((1, 3), 3, r"1 to 3 and 3 targets need 6 views; a scene has 5: .* most 2 context views, or at most 2 targets"),
        ((1, 1), 5, r"1 to 1 and 5 targets need 6 views; a scene has 5: ask for at most 4 targets$"),
        ((2, 5), 2, r"2 to 5 and 2 targets need 7 views; a scene has 5: ask for at most 3 context views$"),
        ((5, 5), 9, r"5 to 5 and 9 targets need 14 views; a scene has 5: ask for fewer of both"),
    ],
)
def test_too_few_views_for_context_and_targets_name_both(context: tuple[int, int], targets: int, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        check_context(context, 5, targets)
