"""The order of scenes: a pure function of (seed, epoch, position). No state, no memory, any number of scenes.

Global batch k of an epoch takes positions kB to (k+1)B, a rank takes its slice of them, workers execute plans and
decide nothing. So the stream is the same for any number of workers and ranks, and resuming costs nothing.

Sources: SplitMix64's finalizer (Steele, Lea, Flood, OOPSLA 2014) mixes; a Feistel network over the next power of
four, walked until it falls into range, permutes (Black and Rogaway, CT-RSA 2002, "cycle walking").
numpy only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 6
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finalizer: a bijection of 64-bit numbers that spreads every bit over all bits."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def key(*parts: int) -> int:
    """One 64-bit key of several whole numbers; the order of the numbers counts."""
    state = 0
    for part in parts:
        word = np.array([(state + part * _GOLDEN + _GOLDEN) & _MASK], np.uint64)
        state = int(mix(word)[0])
    return state


def draw(base: int, counters: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The random 64-bit number of each counter under a key: a generator without state, of the counters' shape."""
    return mix(np.uint64(base) + (counters.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN))


def permute(positions: NDArray[np.int64], count: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The scenes at those positions of an epoch: a permutation of 0 to count-1, computed where it is asked for.

    Args:
        positions: any shape, each from 0 to count-1.
        count: number of scenes.
        seed: of the run.
        epoch: from 0.
    """
    half_bits = max(1, ((count - 1).bit_length() + 1) // 2)
    keys = [np.uint64(key(seed, epoch, step)) for step in range(_ROUNDS)]
    values = positions.astype(np.uint64).ravel()  # a scalar would warn where an array wraps around
    values = _feistel(values, half_bits, keys)
    outside = values >= np.uint64(count)
    while outside.any():
        values[outside] = _feistel(values[outside], half_bits, keys)
        outside = values >= np.uint64(count)
    return values.astype(np.int64).reshape(positions.shape)


def _feistel(values: NDArray[np.uint64], half_bits: int, keys: list[np.uint64]) -> NDArray[np.uint64]:
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for round_key in keys:
        left, right = right, left ^ (mix(right ^ round_key) & mask)
    return left << shift | right


def scenes_of_batch(
    batch: int, *, batch_size: int, count: int, seed: int, epoch: int, shuffle: bool, rank: int = 0, ranks: int = 1
) -> NDArray[np.int64]:
    """The scenes of one rank's slice of a global batch, in order; the last batch of an epoch may be shorter.

    Args:
        batch: number of the global batch in the epoch, from 0.
        batch_size: scenes in a global batch.
        count: scenes in an epoch.
        seed: of the run.
        epoch: from 0.
        shuffle: whether the epoch is permuted, or in source order.
        rank: which slice.
        ranks: number of slices; divides `batch_size`.
    """
    share = batch_size // ranks
    start = batch * batch_size + rank * share
    stop = min(start + share, (batch + 1) * batch_size, count)
    positions = np.arange(start, max(start, stop), dtype=np.int64)
    return permute(positions, count, seed=seed, epoch=epoch) if shuffle else positions
