"""Shuffled order of scenes, as a stateless function of (seed, epoch, position) for any number of scenes.

Global batch k of an epoch takes positions kB to (k+1)B, and each rank takes its slice of them. The stream is thus the
same for any number of workers and ranks, and resuming is free. For remote data, `Windows` shuffles within a window of
shards at a time.

Sources: SplitMix64's finalizer for mixing (Steele, Lea, Flood, OOPSLA 2014); a Feistel network over the next power of
four with cycle walking for the permutation (Black and Rogaway, CT-RSA 2002).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Number of scenes of an endless dataset. No run reaches it, and its product with the views of a scene fits int64.
ENDLESS = 1 << 50

_ROUNDS = 6
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1

# Independent random streams under one seed, as in `views`: order of shards, order of scenes in a window.
_SHARDS_STREAM = 2001
_WINDOW_STREAM = 2002


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply SplitMix64's finalizer, a bijection of 64-bit numbers that spreads every bit over all bits."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@lru_cache(maxsize=4096)
def key(*parts: int) -> int:
    """Combine whole numbers into one 64-bit key, which depends on their order."""
    state = 0
    for part in parts:
        word = np.array([(state + part * _GOLDEN + _GOLDEN) & _MASK], np.uint64)
        state = int(mix(word)[0])
    return state


def draw(base: int, counters: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Draw the random 64-bit number of each counter under key `base`; a stateless generator, elementwise."""
    return mix(np.uint64(base) + (counters.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN))


def permute(positions: NDArray[np.int64], count: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the scenes at the given positions of an epoch's permutation of 0 to count-1.

    Args:
        positions: any shape, each from 0 to count-1.
        count: number of scenes.
        seed: seed of the run.
        epoch: epoch, from 0.
    """
    half_bits = max(1, ((count - 1).bit_length() + 1) // 2)
    keys = [np.uint64(key(seed, epoch, step)) for step in range(_ROUNDS)]
    values = positions.astype(np.uint64).ravel()  # numpy warns of overflow for scalars, not for arrays
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


class _EpochOrder(NamedTuple):
    """Order of S shards in N windows for one epoch.

    Attributes:
        shards: (S,) numbers of the shards, in the order of visits.
        starts: (S + 1,) first position of each shard in that order, then the number of scenes.
        windows: (N + 1,) first position of each window, then the number of scenes.
    """

    shards: NDArray[np.int64]
    starts: NDArray[np.int64]
    windows: NDArray[np.int64]


class Windows:
    """Windowed shuffle: the order of scenes as a pure function of (seed, epoch, position), a few shards at a time.

    The shards are shuffled and grouped into windows, and the scenes of each window are shuffled. A reader therefore
    needs only the shards of the current window, and soon those of the next. A single window gives the order of
    `permute`, so that remote training matches local training. The windows of an epoch have equal numbers of
    shards, up to rounding.

    Args:
        shards: number of scenes of each shard, in source order; may differ.
        window: maximum number of shards in a window.
        seed: seed of the run.
        shuffle: whether to shuffle shards and scenes, or keep source order.
    """

    def __init__(self, shards: Sequence[int], *, window: int, seed: int, shuffle: bool = True) -> None:
        self._sizes = np.array(shards, np.int64)
        self._first_scenes = np.cumsum(self._sizes) - self._sizes
        self._scenes = int(self._sizes.sum())
        self._seed = seed
        self._shuffle = shuffle
        self.count = -(-len(shards) // max(1, window))
        self._bounds = np.arange(self.count + 1, dtype=np.int64) * len(shards) // self.count
        self._epochs: dict[int, _EpochOrder] = {}

    @property
    def identity(self) -> dict[str, int | str]:
        """What the order depends on besides the seed: number of windows and shard sizes; empty for a single window."""
        if self.count == 1 or not self._shuffle:
            return {}
        sizes = hashlib.sha256(self._sizes.astype("<i8").tobytes()).hexdigest()[:8]
        return {"windows": self.count, "shards": f"{len(self._sizes)}, {sizes}"}

    @property
    def largest(self) -> int:
        """Number of shards in the largest window."""
        return int(np.diff(self._bounds).max())

    def scenes_at(self, positions: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """Return the scenes at the given positions of an epoch.

        Args:
            positions: any shape, each from 0 to the number of scenes - 1.
            epoch: epoch, from 0.
        """
        if not self._shuffle:
            return positions
        if self.count == 1:
            return permute(positions, self._scenes, seed=self._seed, epoch=epoch)
        order = self._epoch(epoch)
        flat = positions.ravel()
        window_of = np.searchsorted(order.windows, flat, side="right") - 1
        shuffled = np.empty_like(flat)
        for window in np.unique(window_of).tolist():
            inside = window_of == window
            begin, end = order.windows[window : window + 2].tolist()
            seed = key(self._seed, _WINDOW_STREAM, window)
            shuffled[inside] = begin + permute(flat[inside] - begin, end - begin, seed=seed, epoch=epoch)
        visit = np.searchsorted(order.starts, shuffled, side="right") - 1
        scenes = self._first_scenes[order.shards[visit]] + shuffled - order.starts[visit]
        return scenes.reshape(positions.shape)

    def window_at(self, position: int, epoch: int) -> int:
        """Return the number of the window, from 0, that holds a position of an epoch."""
        return int(np.searchsorted(self._epoch(epoch).windows, position, side="right")) - 1

    def shards_of(self, window: int, epoch: int) -> NDArray[np.int64]:
        """Return the numbers of the shards of a window of an epoch, in the order of visits."""
        return self._epoch(epoch).shards[self._bounds[window] : self._bounds[window + 1]]

    def _epoch(self, epoch: int) -> _EpochOrder:
        order = self._epochs.get(epoch)
        if order is None:
            shards = np.arange(len(self._sizes), dtype=np.int64)
            if self._shuffle:
                shards = permute(shards, len(shards), seed=key(self._seed, _SHARDS_STREAM), epoch=epoch)
            starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._sizes[shards])])
            order = _EpochOrder(shards, starts, starts[self._bounds])
            for old in list(self._epochs)[:-1]:  # only the current and the next epoch are needed
                del self._epochs[old]
            self._epochs[epoch] = order
        return order
