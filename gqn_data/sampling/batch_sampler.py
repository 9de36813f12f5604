"""Which scenes and views each batch holds: a pure function of (seed, epoch, batch), for one dataset or several.

No state and no memory, so that every rank and worker computes its own share of any batch, and resuming costs nothing.
Several datasets are mixed exactly: of an epoch's scenes each gets a number by its weight, the places in the epoch are
permuted, and each dataset goes through its own scenes, each once, before it begins anew. numpy only. Imports `order`,
`views`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import OptionError
from gqn_data.sampling.permutation import Windows, key, permute
from gqn_data.sampling.views import ContextPer, choose_views, numbers_of_batches

Tail = Literal["drop", "pad", "exact"]
TAILS: tuple[Tail, ...] = ("drop", "pad", "exact")

# Streams of numbers under one seed, as in `order` and `views`.
_PLACES_STREAM = 3001
_MEMBER_STREAM = 3002

# Views that are drawn at a time: many numpy calls on a few numbers each would cost as much as decoding some frames.
_AT_ONCE = 1 << 16


class Sample(NamedTuple):
    """What a rank's share of a batch holds: B scenes, each with up to S views.

    Attributes:
        members: int64 (B,): which dataset; -1 where the batch is padded.
        scenes: int64 (B,): number of the scene in its split; -1 where padded.
        views: int64 (B, S): the query and the context, or all views in order; -1 beyond a scene's own number of them.
    """

    members: NDArray[np.int64]
    scenes: NDArray[np.int64]
    views: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Member:
    """A dataset of the mixture.

    Attributes:
        scenes: how many an epoch of it has: those of the split, or those chosen.
        views: in a scene.
        chosen: int64 (scenes,): their numbers in the split, rising; None for all.
        windows: the way through its shards; None for all scenes at once.
    """

    scenes: int
    views: int
    chosen: NDArray[np.int64] | None = None
    windows: Windows | None = None


class BatchSampler:
    """The batches of all epochs.

    Args:
        members: the datasets.
        batch_size: scenes in a batch, over all ranks.
        context: the smallest and the largest number of context views; None for all views of a scene, in order.
        seed: of the order and of the choice of views.
        shuffle: permute the scenes of each epoch, or keep them in source order, dataset after dataset.
        tail: what becomes of the last batch of an epoch where it is not full: `drop`; `pad` it with scenes that are
            none; `exact`, give it shorter, divided as evenly as it goes.
        context_per: whether each scene has its own number of context views, or each batch.
        weights: of the datasets; None for the number of their scenes, so that each scene comes once an epoch.
        epoch_scenes: scenes in an epoch; None for all that there are.
        samples: int64 (N, 2 + K): scene, query and context views of each sample of an epoch, in this order; -1 where
            it has fewer context views. For one dataset.

    Raises:
        OptionError: a value that the datasets do not allow.
    """

    def __init__(
        self,
        members: Sequence[Member],
        *,
        batch_size: int,
        context: tuple[int, int] | None,
        seed: int,
        shuffle: bool = True,
        tail: Tail = "drop",
        context_per: ContextPer = "scene",
        weights: Sequence[float] | None = None,
        epoch_scenes: int | None = None,
        samples: NDArray[np.int64] | None = None,
    ) -> None:
        if tail not in TAILS:
            raise OptionError(f"tail is {tail!r}, expected one of {', '.join(TAILS)}")
        if context_per not in ("scene", "batch"):
            raise OptionError(f"context_per is {context_per!r}, expected scene or batch")
        self._members = list(members)
        self.batch_size = batch_size
        self.context = context
        self._seed = seed
        self._shuffle = shuffle
        self.tail = tail
        self._per = context_per
        self._samples = None if samples is None else _checked(samples, self._members)
        counts = _counts([member.scenes for member in members], weights, epoch_scenes)
        # Positions of an epoch, before they are permuted: those of the first dataset, those of the second, ...
        self._ends = np.cumsum(counts)
        self._counts = counts
        self.scenes = len(samples) if samples is not None else int(counts.sum())
        if context is None:
            numbers = {member.views for member in members}
            if len(numbers) > 1:
                raise OptionError(
                    f"scenes of {sorted(numbers)} views cannot be put into one batch with all their views"
                )
            self.slots = numbers.pop()
        else:
            self.slots = 1 + context[1]
        if self._samples is not None:
            self.slots = self._samples.shape[1] - 1
        self.batches = self.scenes // batch_size if tail == "drop" else -(-self.scenes // batch_size)
        self._kept: tuple[tuple[int, int, int, int], list[Sample]] | None = None
        self._in_use: tuple[tuple[int, int, int], frozenset[int]] | None = None

    @property
    def identity(self) -> dict[str, int | str]:
        """Tells streams apart, beside the datasets themselves."""
        told: dict[str, int | str] = {
            "seed": self._seed,
            "batch_size": self.batch_size,
            "context": "all" if self.context is None else "{}-{}".format(*self.context),
            "shuffle": int(self._shuffle),
            "tail": self.tail,
        }
        if self._per != "scene":
            told["context_per"] = self._per
        if not self._goes_through_one_member:
            told["mixture"] = ", ".join(map(str, self._counts.tolist()))
        if self._samples is not None:
            del told["context"]
            told["samples"] = f"{len(self._samples)}, {_digest(self._samples)}"
        chosen = [member.chosen for member in self._members]
        if any(numbers is not None for numbers in chosen):
            told["scenes"] = "; ".join(
                "all" if numbers is None else f"{len(numbers)}, {_digest(numbers)}" for numbers in chosen
            )
        return told

    def batch(self, epoch: int, batch: int, *, rank: int = 0, ranks: int = 1) -> Sample:
        """One rank's share of a batch.

        Args:
            epoch: from 0.
            batch: in the epoch, from 0.
            rank: which share.
            ranks: number of shares; divides the batch size.
        """
        most = max(member.views for member in self._members)
        chunk = max(1, _AT_ONCE // (most * max(1, self.batch_size // ranks)))
        first = batch - batch % chunk
        if self._kept is None or self._kept[0] != (epoch, first, rank, ranks):
            self._kept = (epoch, first, rank, ranks), [*self._some(epoch, first, chunk, rank, ranks)]
        return self._kept[1][batch - first]

    def shards_of(self, epoch: int, batch: int) -> frozenset[int] | None:
        """The shards of a batch's windows: all that its ranks read; None where the scenes of any shard may come.

        Args:
            epoch: from 0.
            batch: in the epoch, from 0.
        """
        windows = self._members[0].windows
        if windows is None or windows.count == 1 or not self._goes_through_one_member:
            return None
        begin = batch * self.batch_size
        last = min(begin + self.batch_size, self.scenes) - 1
        span = epoch, windows.window_at(begin, epoch), windows.window_at(last, epoch)
        if self._in_use is None or self._in_use[0] != span:
            shards = [windows.shards_of(window, epoch).tolist() for window in range(span[1], span[2] + 1)]
            self._in_use = span, frozenset(chain.from_iterable(shards))
        return self._in_use[1]

    @property
    def _goes_through_one_member(self) -> bool:
        """Whether an epoch is one of the only dataset, whose scenes then come in the dataset's own order."""
        return len(self._members) == 1 and int(self._counts[0]) == self._members[0].scenes

    def _some(self, epoch: int, first: int, count: int, rank: int, ranks: int) -> Iterator[Sample]:
        """Shares of several batches, which are cheaper together."""
        shares = [self._share(batch, rank, ranks) for batch in range(first, min(first + count, self.batches))]
        sizes = [stop - start for start, stop, _ in shares]
        positions = np.concatenate([np.arange(start, stop) for start, stop, _ in shares])
        numbers = None
        if self.context is not None and self._per == "batch":
            batches = np.arange(first, first + len(shares))
            numbers = numbers_of_batches(batches, context=self.context, seed=self._seed, epoch=epoch)
        drawn = self._drawn(epoch, positions, None if numbers is None else numbers.repeat(sizes))
        taken = 0
        for share, (size, (_, _, padding)) in enumerate(zip(sizes, shares)):
            sample = Sample(*(part[taken : taken + size] for part in drawn))
            taken += size
            if numbers is not None:  # of which all scenes have as many, so that no slot is empty
                sample = sample._replace(views=sample.views[:, : 1 + int(numbers[share])])
            if padding:
                sample = Sample(*(_padded(part, padding) for part in sample))
            yield sample

    def _share(self, batch: int, rank: int, ranks: int) -> tuple[int, int, int]:
        """First and last position of a share, and how many scenes it is padded with."""
        begin = batch * self.batch_size
        size = min(self.batch_size, self.scenes - begin)
        if size < self.batch_size and self.tail == "exact":
            return begin + size * rank // ranks, begin + size * (rank + 1) // ranks, 0
        share = self.batch_size // ranks
        start, stop = (min(size, share * number) for number in (rank, rank + 1))
        return begin + start, begin + stop, share - (stop - start)

    def _drawn(self, epoch: int, positions: NDArray[np.int64], numbers: NDArray[np.int64] | None) -> Sample:
        if self._samples is not None:
            rows = self._samples[positions]
            return Sample(np.zeros(len(rows), np.int64), rows[:, 0], rows[:, 1:])
        if self._goes_through_one_member:
            scenes, views = self._of_member(0, epoch, positions, numbers, self._seed)
            return Sample(np.zeros_like(scenes), scenes, views)
        places = positions
        if self._shuffle:
            places = permute(positions, self.scenes, seed=key(self._seed, _PLACES_STREAM), epoch=epoch)
        members = np.searchsorted(self._ends, places, side="right")
        drawn = Sample(members, np.empty_like(places), np.full((len(places), self.slots), -1, np.int64))
        for member in np.unique(members).tolist():
            count, size = int(self._counts[member]), self._members[member].scenes
            running = epoch * count + places - (int(self._ends[member]) - count)
            for own in np.unique(running[members == member] // size).tolist():
                here = (members == member) & (running // size == own)
                seed = key(self._seed, _MEMBER_STREAM, member)
                of_these = None if numbers is None else numbers[here]
                drawn.scenes[here], drawn.views[here] = self._of_member(
                    member, own, running[here] - own * size, of_these, seed
                )
        return drawn

    def _of_member(
        self, number: int, own: int, positions: NDArray[np.int64], numbers: NDArray[np.int64] | None, seed: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Scenes and views at positions of a dataset's own epoch, with so many context views each."""
        member = self._members[number]
        if member.windows is not None:
            scenes = member.windows.scenes_at(positions, own)
        elif self._shuffle:
            scenes = permute(positions, member.scenes, seed=seed, epoch=own)
        else:
            scenes = positions
        if member.chosen is not None:
            scenes = member.chosen[scenes]
        if self.context is None:
            return scenes, np.broadcast_to(np.arange(member.views), (len(scenes), member.views))
        choice = choose_views(scenes, views=member.views, context=self.context, seed=seed, epoch=own, numbers=numbers)
        return scenes, choice.views


def _padded(part: NDArray[np.int64], by: int) -> NDArray[np.int64]:
    return np.concatenate([part, np.full((by, *part.shape[1:]), -1, np.int64)])


def _digest(numbers: NDArray[np.int64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(numbers, "<i8").tobytes()).hexdigest()[:8]


def _counts(sizes: list[int], weights: Sequence[float] | None, scenes: int | None) -> NDArray[np.int64]:
    """How many scenes of an epoch each dataset gives: by its weight, the remainders to the largest of them."""
    if scenes is not None and scenes < 1:
        raise OptionError(f"epoch_scenes is {scenes}, expected 1 or more")
    total = sum(sizes) if scenes is None else scenes
    shares = np.array(sizes if weights is None else weights, np.float64)
    if len(shares) != len(sizes) or not np.isfinite(shares).all() or (shares <= 0).any():
        raise OptionError(f"weights are {list(weights or ())}, expected {len(sizes)} numbers above 0")
    exact = total * (shares / shares.sum())
    counts: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    for number in np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())].tolist():
        counts[number] += 1
    if not counts.all():
        number = int(np.argmin(counts))
        raise OptionError(
            f"dataset {number} of the mixture has a weight of {shares[number]:g} in {shares.sum():g}: none of an "
            f"epoch's {total} scenes; give it more, or epoch_scenes"
        )
    return counts


def _checked(samples: NDArray[np.int64], members: list[Member]) -> NDArray[np.int64]:
    """The list of samples, if every row of it names views of a scene that is there."""
    if len(members) > 1:
        raise OptionError("samples name scenes of one dataset; here are several")
    (member,) = members
    rows: NDArray[np.int64] = np.asarray(samples)
    if rows.ndim != 2 or rows.shape[1] < 3 or not len(rows) or not np.issubdtype(rows.dtype, np.integer):
        raise OptionError(
            f"samples are {rows.dtype} of shape {rows.shape}, expected whole numbers (N, 2 + K): scene, query, context"
        )
    rows = rows.astype(np.int64)
    views = rows[:, 1:]
    ordered = np.sort(views, axis=1)
    wrong = (rows[:, 0] < 0) | (rows[:, 0] >= member.scenes) | (views >= member.views).any(1) | (views < -1).any(1)
    wrong |= (rows[:, 1] < 0) | (rows[:, 2] < 0)
    wrong |= ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(1)  # a view twice
    wrong |= ((views[:, 1:] >= 0) & (views[:, :-1] < 0)).any(1)  # -1 before a view
    if wrong.any():
        number = int(np.argmax(wrong))
        raise OptionError(
            f"sample {number} is {rows[number].tolist()}: expected a scene below {member.scenes}, a query and at least "
            f"one context view, all different and below {member.views}, and -1 only behind them"
        )
    return rows
