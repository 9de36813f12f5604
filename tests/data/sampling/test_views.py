"""The choice of views: the query, and the context that it is never among."""

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
    """A number of views, and context views that a scene of so many allows."""
    views = draw(st.integers(2, 20))
    high = draw(st.integers(1, views - 1))
    return views, (draw(st.integers(1, high)), high)


def _choose(scenes: list[int] | range, views: int, context: tuple[int, int], seed: int, epoch: int = 0) -> ViewChoice:
    return choose_views(np.array(scenes, np.int64), views=views, context=context, seed=seed, epoch=epoch)


def _chi_square(observed: NDArray[np.int64]) -> float:
    """Pearson's statistic against equal frequencies, in standard deviations above its expectation."""
    expected = observed.sum() / observed.size
    freedom = observed.size - 1
    return float((((observed - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


@settings(deadline=None)
@given(scenes=SCENES, ranges=_ranges(), seed=SEEDS, epoch=st.integers(0, 2**31))
def test_the_query_is_never_among_the_context_and_no_view_comes_twice(
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
def test_the_choice_depends_on_the_scene_and_not_on_the_batch_it_is_in(
    data: st.DataObject, scenes: list[int], ranges: tuple[int, tuple[int, int]], seed: int, epoch: int
) -> None:
    views, context = ranges
    alone = [_choose([scene], views, context, seed, epoch) for scene in scenes]
    order = data.draw(st.permutations(range(len(scenes))))
    all_reduce = _choose([scenes[place] for place in order], views, context, seed, epoch)
    for row, place in enumerate(order):
        assert all_reduce.views[row].tolist() == alone[place].views[0].tolist()
        assert all_reduce.context[row] == alone[place].context[0]


def test_each_scene_has_its_own_number_of_context_views_all_about_as_often() -> None:
    choice = _choose(range(20_000), 10, (2, 7), 3)
    counts = np.bincount(choice.context, minlength=10)
    assert counts[:2].tolist() == [0, 0]
    assert counts[8:].tolist() == [0, 0]
    assert _chi_square(counts[2:8]) < 5
    # Of a batch of 36, as in the paper, not all have the same number.
    assert all(len(set(batch)) > 1 for batch in choice.context[: 36 * 100].reshape(100, 36).tolist())


def test_a_number_of_context_views_may_be_fixed() -> None:
    choice = _choose(range(100), 6, (3, 3), 0)
    assert set(choice.context.tolist()) == {3}
    assert (choice.views >= 0).all()


def test_every_view_is_the_query_as_often_and_the_context_as_often() -> None:
    views = 10
    choice = _choose(range(20_000), views, (1, 5), 9)
    assert _chi_square(np.bincount(choice.views[:, 0], minlength=views)) < 5
    for place in range(1, 6):
        used = choice.views[:, place]
        assert _chi_square(np.bincount(used[used >= 0], minlength=views)) < 5


def test_every_pair_of_query_and_context_is_as_likely() -> None:
    views = 6
    choice = _choose(range(30_000), views, (1, 1), 2)
    table = np.zeros((views, views), np.int64)
    np.add.at(table, (choice.views[:, 0], choice.views[:, 1]), 1)
    assert not table.diagonal().any()
    assert _chi_square(table[~np.eye(views, dtype=bool)]) < 5


def test_the_number_of_context_views_does_not_tell_the_query() -> None:
    choice = _choose(range(30_000), 6, (1, 4), 5)
    table = np.zeros((6, 4), np.int64)
    np.add.at(table, (choice.views[:, 0], choice.context - 1), 1)
    assert _chi_square(table) < 5


def test_epochs_and_seeds_choose_anew() -> None:
    first = _choose(range(200), 15, (1, 5), 0, 0)
    for seed, epoch in ((0, 1), (1, 0), (1, 1), (0, 2)):
        other = _choose(range(200), 15, (1, 5), seed, epoch)
        # A query is the same by chance once in 15, a number of context views once in 5.
        assert (first.views[:, 0] == other.views[:, 0]).mean() < 0.25
        assert (first.context == other.context).mean() < 0.45


def test_all_views_of_a_scene_may_be_used() -> None:
    choice = _choose(range(50), 4, (3, 3), 0)
    assert all(sorted(row) == [0, 1, 2, 3] for row in choice.views.tolist())


def test_no_scenes_give_an_empty_choice() -> None:
    choice = _choose([], 5, (1, 3), 0)
    assert choice.views.shape == (0, 4)
    assert choice.context.shape == (0,)


def test_the_choice_is_the_same_in_every_version() -> None:
    # A state saved by one version goes on in the next: these numbers are part of the format of a checkpoint.
    choice = _choose([0, 1, 77], 8, (1, 4), 5, 2)
    assert choice.views.tolist() == [[6, 4, 2, -1, -1], [7, 1, 0, 6, 4], [5, 3, 6, -1, -1]]


@settings(deadline=None)
@given(ranges=_ranges())
def test_context_that_a_scene_allows_is_taken_as_it_is(ranges: tuple[int, tuple[int, int]]) -> None:
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
def test_context_that_cannot_be_is_refused_with_what_can(context: tuple[int, int], views: int, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        check_context(context, views)
