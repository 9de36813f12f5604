"""The order of scenes: a pure function of (seed, epoch, position). No state, no memory, any number of scenes.

Global batch k of an epoch takes positions kB to (k+1)B, a rank takes its slice of them, workers execute plans and
decide nothing. So the stream is the same for any number of workers and ranks, and resuming costs nothing. Where
scenes lie far away, `Windows` goes through them some shards at a time, by the same function.

Sources: SplitMix64's finalizer (Steele, Lea, Flood, OOPSLA 2014) mixes; a Feistel network over the next power of
four, walked until it falls into range, permutes (Black and Rogaway, CT-RSA 2002, "cycle walking").
numpy only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 6
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1

# Streams of numbers under one seed, as in `views`: the order of shards, and that of scenes in a window.
_SHARDS_STREAM = 2001
_WINDOW_STREAM = 2002


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finalizer: a bijection of 64-bit numbers that spreads every bit over all bits."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@lru_cache(maxsize=4096)
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


class _Epoch(NamedTuple):
    """The way of one epoch through S shards in N windows.

    Attributes:
        shards: (S,) numbers of the shards, in the order in which they are visited.
        ends: (S + 1,) the position at which each of them begins, then the number of scenes.
        windows: (N + 1,) the position at which each window begins, then the number of scenes.
    """

    shards: NDArray[np.int64]
    ends: NDArray[np.int64]
    windows: NDArray[np.int64]


class Windows:
    """An epoch's way through shards, a window of them at a time: a pure function of (seed, epoch, position).

    The shards are shuffled, as many of them as a window takes go together, and the scenes of a window are shuffled
    among themselves. So whoever reads in this order needs the shards of one window at a time, and those of the next
    one soon. Where one window takes all shards the order is that of `permute`: training from afar is then training
    from the disk. Windows of an epoch are of equal size, as nearly as whole shards allow.

    Args:
        shards: scenes of each shard, in source order; they may differ.
        window: the most shards in a window.
        seed: of the run.
        shuffle: whether shards and scenes are shuffled, or stay in source order.
    """

    def __init__(self, shards: Sequence[int], *, window: int, seed: int, shuffle: bool = True) -> None:
        self._sizes = np.array(shards, np.int64)
        self._firsts = np.cumsum(self._sizes) - self._sizes
        self._scenes = int(self._sizes.sum())
        self._seed = seed
        self._shuffle = shuffle
        self.count = -(-len(shards) // max(1, window))
        # The bounds of the windows, in shards.
        self._bounds = np.arange(self.count + 1, dtype=np.int64) * len(shards) // self.count
        self._epochs: dict[int, _Epoch] = {}

    @property
    def identity(self) -> dict[str, int | str]:
        """Tells orders apart that a seed alone does not: how many windows, over which shards; none of it for one."""
        if self.count == 1 or not self._shuffle:
            return {}
        sizes = hashlib.sha256(self._sizes.astype("<i8").tobytes()).hexdigest()[:8]
        return {"windows": self.count, "shards": f"{len(self._sizes)}, {sizes}"}

    @property
    def largest(self) -> int:
        """Shards in the largest window."""
        return int(np.diff(self._bounds).max())

    def scenes_at(self, positions: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """The scenes at those positions of an epoch.

        Args:
            positions: any shape, each from 0 to the number of scenes, less one.
            epoch: from 0.
        """
        if not self._shuffle:
            return positions
        if self.count == 1:
            return permute(positions, self._scenes, seed=self._seed, epoch=epoch)
        way = self._epoch(epoch)
        flat = positions.ravel()
        window_of = np.searchsorted(way.windows, flat, side="right") - 1
        shuffled = np.empty_like(flat)
        for window in np.unique(window_of).tolist():
            inside = window_of == window
            begin, end = way.windows[window : window + 2].tolist()
            seed = key(self._seed, _WINDOW_STREAM, window)
            shuffled[inside] = begin + permute(flat[inside] - begin, end - begin, seed=seed, epoch=epoch)
        visit = np.searchsorted(way.ends, shuffled, side="right") - 1
        scenes = self._firsts[way.shards[visit]] + shuffled - way.ends[visit]
        return scenes.reshape(positions.shape)

    def window_at(self, position: int, epoch: int) -> int:
        """The number of the window, from 0, in which a position of an epoch lies."""
        return int(np.searchsorted(self._epoch(epoch).windows, position, side="right")) - 1

    def shards_of(self, window: int, epoch: int) -> NDArray[np.int64]:
        """The numbers of the shards of a window of an epoch, in the order in which they are visited."""
        return self._epoch(epoch).shards[self._bounds[window] : self._bounds[window + 1]]

    def _epoch(self, epoch: int) -> _Epoch:
        way = self._epochs.get(epoch)
        if way is None:
            shards = np.arange(len(self._sizes), dtype=np.int64)
            if self._shuffle:
                shards = permute(shards, len(shards), seed=key(self._seed, _SHARDS_STREAM), epoch=epoch)
            ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._sizes[shards])])
            way = _Epoch(shards, ends, ends[self._bounds])
            for old in list(self._epochs)[:-1]:  # the present epoch and the next are what is asked for
                del self._epochs[old]
            self._epochs[epoch] = way
        return way
