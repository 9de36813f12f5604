"""Which views of a scene are context and which is the query: drawn anew for every scene and epoch.

Each scene has its own number of context views and its own views; the query is never among the context.
A pure function of (seed, epoch, scene), computed for a whole batch at once. Imports `order`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import OptionError
from gqn_data.sampling.permutation import draw, key

# Streams of numbers under one seed that must not depend on each other, nor on the rounds of `order.permute`,
# which count from 0.
_VIEWS_STREAM = 1001
_COUNT_STREAM = 1002
_BATCH_COUNT_STREAM = 1003

ContextPer = Literal["scene", "batch"]


class ViewChoice(NamedTuple):
    """The views of a batch of B scenes, K the largest number of context views.

    Attributes:
        views: int64 (B, 1 + K): the query, then the context; -1 beyond a scene's own number of context views.
        context: int64 (B,): that number.
    """

    views: NDArray[np.int64]
    context: NDArray[np.int64]


def check_context(context: tuple[int, int], views: int) -> tuple[int, int]:
    """The smallest and the largest number of context views, where a scene of that many views allows them.

    Raises:
        OptionError: it does not; the query is one view more.
    """
    low, high = context
    if views < 2:
        raise OptionError(
            f"a scene has {views} view: a context and a query need 2; context='all' gives scenes as they are"
        )
    if not 1 <= low <= high:
        raise OptionError(f"context views {low} to {high}: expected 1 <= smallest <= largest")
    if high >= views:
        raise OptionError(
            f"context views {low} to {high} and a query need {high + 1} views; a scene has {views}: "
            f"ask for at most {views - 1}"
        )
    return low, high


def choose_views(
    scenes: NDArray[np.int64],
    *,
    views: int,
    context: tuple[int, int],
    seed: int,
    epoch: int,
    numbers: NDArray[np.int64] | None = None,
) -> ViewChoice:
    """The query and the context views of each scene.

    Args:
        scenes: int64 (B,), numbers of scenes in the split.
        views: views in a scene.
        context: the smallest and the largest number of context views, each as likely.
        seed: of the run.
        epoch: from 0.
        numbers: int64 (B,), how many context views each scene has; None to draw them.
    """
    high = context[1]
    counters = scenes[:, None] * views + np.arange(views)
    ranks = draw(key(seed, epoch, _VIEWS_STREAM), counters)
    chosen = np.argsort(ranks, axis=1, kind="stable")[:, : 1 + high]
    if numbers is None:
        numbers = _numbers(context, key(seed, epoch, _COUNT_STREAM), scenes)
    chosen[np.arange(high + 1) > numbers[:, None]] = -1
    return ViewChoice(chosen, numbers)


def numbers_of_batches(
    batches: NDArray[np.int64], *, context: tuple[int, int], seed: int, epoch: int
) -> NDArray[np.int64]:
    """How many context views all scenes of a batch have, of each batch: int64, of the shape of `batches`."""
    return _numbers(context, key(seed, epoch, _BATCH_COUNT_STREAM), batches)


def _numbers(context: tuple[int, int], base: int, counters: NDArray[np.int64]) -> NDArray[np.int64]:
    low, high = context
    return (low + draw(base, counters) % np.uint64(high - low + 1)).astype(np.int64)
