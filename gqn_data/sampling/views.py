"""Random choice of the context views and the queries, for every scene and epoch.

Each scene has its own number of context views and its own views; a query is never among the context.
The choice is a pure function of (seed, epoch, scene), vectorized over a batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gqn_data.counts import as_count
from gqn_data.errors import OptionError
from gqn_data.sampling.permutation import draw, key
from gqn_data.units import count_of

# Independent random streams under one seed. `permutation.permute` uses the streams from 0 on for its rounds.
_VIEWS_STREAM = 1001
_COUNT_STREAM = 1002
_BATCH_COUNT_STREAM = 1003

ContextPer = Literal["scene", "batch"]


class ViewChoice(NamedTuple):
    """Views of a batch of B scenes, with T queries and at most K context views.

    Attributes:
        views: int64 (B, T + K): the queries, then the context views; padded with -1.
        context: int64 (B,): number of context views of each scene.
    """

    views: NDArray[np.int64]
    context: NDArray[np.int64]


def check_context(context: object, views: int, targets: int = 1) -> tuple[int, int]:
    """Validate a range of numbers of context views and return it as ints.

    Args:
        context: smallest and largest number of context views, as a sequence or an array.
        views: views per scene.
        targets: queries per scene, which need other views than the context.

    Raises:
        OptionError: the value is not two integers; or the range is empty, starts below 1, or needs more views than a
            scene has.
    """
    if isinstance(context, str) or not isinstance(context, Iterable) or len(ends := list(context)) != 2:
        raise OptionError(f"context is {context!r}, expected (smallest, largest) or 'all'")
    low, high = (as_count("a number of context views", end) for end in ends)
    if views < 2:
        raise OptionError(
            f"a scene has {views} view, expected at least 2: a context and a query; or pass context='all'"
        )
    if not 1 <= low <= high:
        raise OptionError(f"context views {low} to {high}: expected 1 <= smallest <= largest")
    if high + targets > views:
        needed = f"{high + targets} views; a scene has {views}"
        if targets == 1:
            raise OptionError(f"context views {low} to {high} and a query need {needed}: ask for at most {views - 1}")
        fewer = ((views - targets, "context view"), (views - high, "target"))
        remedy = ", or ".join(f"at most {count_of(most, name)}" for most, name in fewer if most > 0)
        raise OptionError(
            f"context views {low} to {high} and {targets} targets need {needed}: ask for {remedy or 'fewer of both'}"
        )
    return low, high


def choose_views(
    scenes: NDArray[np.int64],
    *,
    views: int,
    context: tuple[int, int],
    seed: int,
    epoch: int,
    counts: NDArray[np.int64] | None = None,
    targets: int = 1,
) -> ViewChoice:
    """Choose the queries and the context views of each scene.

    The context and the first query do not depend on the number of queries.

    Args:
        scenes: int64 (B,), numbers of the scenes in the split.
        views: views per scene.
        context: smallest and largest number of context views, drawn uniformly.
        seed: seed of the run.
        epoch: epoch, from 0.
        counts: int64 (B,), number of context views of each scene; None to draw them.
        targets: queries per scene.
    """
    high = context[1]
    counters = scenes[:, None] * views + np.arange(views)
    ranks = draw(key(seed, epoch, _VIEWS_STREAM), counters)
    order = np.argsort(ranks, axis=1, kind="stable")
    # Further queries follow the longest context, so that they do not change the other choices.
    chosen = np.concatenate([order[:, :1], order[:, 1 + high : high + targets], order[:, 1 : 1 + high]], axis=1)
    if counts is None:
        counts = _draw_counts(context, key(seed, epoch, _COUNT_STREAM), scenes)
    chosen[np.arange(targets + high) >= targets + counts[:, None]] = -1
    return ViewChoice(chosen, counts)


def draw_batch_counts(
    batches: NDArray[np.int64], *, context: tuple[int, int], seed: int, epoch: int
) -> NDArray[np.int64]:
    """Draw one number of context views per batch, shared by its scenes: int64, of the shape of `batches`."""
    return _draw_counts(context, key(seed, epoch, _BATCH_COUNT_STREAM), batches)


def _draw_counts(context: tuple[int, int], base: int, counters: NDArray[np.int64]) -> NDArray[np.int64]:
    low, high = context
    return (low + draw(base, counters) % np.uint64(high - low + 1)).astype(np.int64)
