"""Batch sampler: scenes and views of each batch, as a pure function of (seed, epoch, batch).

It is stateless: every rank and worker computes its own share of any batch, and resuming is free.
Mixtures of datasets are exact. Each dataset gets a number of an epoch's scenes by its weight, and positions are
permuted over the epoch. A dataset yields each of its scenes once before any of them repeats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gqn_data.counts import as_array, as_count
from gqn_data.errors import OptionError
from gqn_data.sampling.permutation import ENDLESS, Windows, key, permute
from gqn_data.sampling.views import ContextPer, choose_views, draw_batch_counts

Tail = Literal["drop", "pad", "exact"]
TAILS: tuple[Tail, ...] = ("drop", "pad", "exact")

# Independent random streams under one seed, as in `permutation` and `views`.
_POSITIONS_STREAM = 3001
_MEMBER_STREAM = 3002

# Views drawn per numpy call: many calls on few numbers would cost as much as decoding some frames.
_DRAWN_VIEWS = 1 << 16


class Sample(NamedTuple):
    """One rank's share of a batch: B scenes with up to S views each.

    Attributes:
        members: int64 (B,): number of the dataset; -1 for padding.
        scenes: int64 (B,): number of the scene in its split; -1 for padding.
        views: int64 (B, S): the queries and the context views, or all views in order; padded with -1.
    """

    members: NDArray[np.int64]
    scenes: NDArray[np.int64]
    views: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Member:
    """One dataset of a mixture.

    Attributes:
        scenes: number of scenes to sample from: the split's, or the chosen ones; ENDLESS if they are endless.
        views: views per scene.
        chosen: int64 (scenes,): numbers of the chosen scenes in the split, ascending; None for all.
        windows: windowed shuffle of its shards; None to shuffle all scenes together.
    """

    scenes: int
    views: int
    chosen: NDArray[np.int64] | None = None
    windows: Windows | None = None


class BatchSampler:
    """Stateless sampler of the batches of all epochs.

    Args:
        members: the datasets.
        batch_size: global batch size in scenes, over all ranks.
        context: smallest and largest number of context views; None for all views of a scene, in order.
        seed: seed of the order and of the choice of views.
        shuffle: whether to permute the scenes of each epoch; otherwise they stay in source order, dataset by dataset.
        tail: treatment of an incomplete last batch: `drop` it, `pad` it with empty scenes, or `exact` to yield it
            shorter, split evenly over the ranks.
        context_per: whether the number of context views is drawn per `scene` or per `batch`.
        weights: weights of the datasets; None for their numbers of scenes, which yields each scene once per epoch.
        epoch_scenes: scenes per epoch; None for all scenes of the datasets. Endless scenes are one endless epoch,
            in the order of their numbers; in a mixture they need weights and this number.
        samples: int64 (N, 1 + T + K): scene, queries and context views of each sample of an epoch, in this order,
            padded with -1. For a single dataset.
        targets: T, queries per scene.

    Raises:
        OptionError: an option is invalid, or does not fit the datasets.
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
        targets: int = 1,
    ) -> None:
        if tail not in TAILS:
            raise OptionError(f"tail is {tail!r}, expected one of {', '.join(TAILS)}")
        if context_per not in ("scene", "batch"):
            raise OptionError(f"context_per is {context_per!r}, expected scene or batch")
        self._members = list(members)
        self.batch_size = as_count("batch_size", batch_size, 1)
        self.context = context
        self._seed = as_count("seed", seed)
        if epoch_scenes is not None:
            epoch_scenes = as_count("epoch_scenes", epoch_scenes, 1)
        self._shuffle = shuffle
        self.tail = tail
        self._context_per = context_per
        self.targets = as_count("targets", targets, 1)
        self._samples = None if samples is None else _check_samples(samples, self._members, self.targets)
        if len(members) > 1 and (weights is None or epoch_scenes is None):
            for number, member in enumerate(members):
                if member.scenes == ENDLESS:
                    raise OptionError(
                        f"dataset {number} of the mixture is endless, expected a weight of each dataset and the scenes "
                        "of an epoch: SceneLoader({PATH: 0.5, OTHER: 0.5}, epoch_scenes=N)"
                    )
        counts = _epoch_counts([member.scenes for member in members], weights, epoch_scenes)
        # Before permutation, the positions of an epoch are ordered by dataset.
        self._ends = np.cumsum(counts)
        self._counts = counts
        self.scenes = int(counts.sum()) if self._samples is None else len(self._samples)
        if context is None:
            if self.targets > 1 and self._samples is None:
                raise OptionError(f"targets is {targets}, but context='all' asks no queries; leave one of them out")
            numbers = {member.views for member in members}
            if len(numbers) > 1:
                raise OptionError(
                    f"scenes of {sorted(numbers)} views cannot be put into one batch with all their views"
                )
            self.slots = numbers.pop()
        else:
            self.slots = self.targets + context[1]
        if self._samples is not None:
            self.slots = self._samples.shape[1] - 1
        self.batches = self.scenes // self.batch_size if tail == "drop" else -(-self.scenes // self.batch_size)
        self._cached_shares: tuple[tuple[int, int, int, int], list[Sample]] | None = None
        self._cached_shards: tuple[tuple[int, int, int], frozenset[int]] | None = None

    @property
    def identity(self) -> dict[str, int | str]:
        """Everything besides the datasets that determines the stream of batches."""
        identity: dict[str, int | str] = {
            "seed": self._seed,
            "batch_size": self.batch_size,
            "context": "all" if self.context is None else "{}-{}".format(*self.context),
            "shuffle": int(self._shuffle),
            "tail": self.tail,
        }
        if self._context_per != "scene":
            identity["context_per"] = self._context_per
        if self.targets != 1:
            identity["targets"] = self.targets
        if not self._is_single_dataset:
            identity["mixture"] = ", ".join(map(str, self._counts.tolist()))
        if self._samples is not None:
            del identity["context"]
            identity["samples"] = f"{len(self._samples)}, {_digest(self._samples)}"
        chosen = [member.chosen for member in self._members]
        if any(numbers is not None for numbers in chosen):
            identity["scenes"] = "; ".join(
                "all" if numbers is None else f"{len(numbers)}, {_digest(numbers)}" for numbers in chosen
            )
        return identity

    def batch(self, epoch: int, batch: int, *, rank: int = 0, ranks: int = 1) -> Sample:
        """Return one rank's share of a batch.

        Args:
            epoch: epoch, from 0.
            batch: batch in the epoch, from 0.
            rank: the rank, from 0.
            ranks: number of ranks; must divide the batch size.
        """
        max_views = max(member.views for member in self._members)
        chunk = max(1, _DRAWN_VIEWS // (max_views * max(1, self.batch_size // ranks)))
        first = batch - batch % chunk
        if self._cached_shares is None or self._cached_shares[0] != (epoch, first, rank, ranks):
            self._cached_shares = (epoch, first, rank, ranks), [*self._shares(epoch, first, chunk, rank, ranks)]
        return self._cached_shares[1][batch - first]

    def shards_of(self, epoch: int, batch: int) -> frozenset[int] | None:
        """Return the shards of a batch's windows, which all ranks read from; None if it may need any shard.

        Args:
            epoch: epoch, from 0.
            batch: batch in the epoch, from 0.
        """
        windows = self._members[0].windows
        if windows is None or windows.count == 1 or not self._is_single_dataset:
            return None
        begin = batch * self.batch_size
        last = min(begin + self.batch_size, self.scenes) - 1
        span = epoch, windows.window_at(begin, epoch), windows.window_at(last, epoch)
        if self._cached_shards is None or self._cached_shards[0] != span:
            shards = [windows.shards_of(window, epoch).tolist() for window in range(span[1], span[2] + 1)]
            self._cached_shards = span, frozenset(chain.from_iterable(shards))
        return self._cached_shards[1]

    @property
    def _is_single_dataset(self) -> bool:
        """Whether an epoch is one pass over a single dataset, so that its positions are the dataset's."""
        return len(self._members) == 1 and int(self._counts[0]) == self._members[0].scenes

    def _shares(self, epoch: int, first: int, count: int, rank: int, ranks: int) -> Iterator[Sample]:
        """Yield one rank's shares of `count` consecutive batches, drawn together for speed."""
        shares = [self._share_range(batch, rank, ranks) for batch in range(first, min(first + count, self.batches))]
        sizes = [stop - start for start, stop, _ in shares]
        positions = np.concatenate([np.arange(start, stop) for start, stop, _ in shares])
        counts = None
        if self.context is not None and self._context_per == "batch" and self._samples is None:
            batches = np.arange(first, first + len(shares))
            counts = draw_batch_counts(batches, context=self.context, seed=self._seed, epoch=epoch)
        drawn = self._draw(epoch, positions, None if counts is None else counts.repeat(sizes))
        taken = 0
        for share, (size, (_, _, padding)) in enumerate(zip(sizes, shares)):
            sample = Sample(*(part[taken : taken + size] for part in drawn))
            taken += size
            if counts is not None:  # all scenes of the batch have the same number, so drop the empty slots
                sample = sample._replace(views=sample.views[:, : self.targets + int(counts[share])])
            if padding:
                sample = Sample(*(_pad(part, padding) for part in sample))
            yield sample

    def _share_range(self, batch: int, rank: int, ranks: int) -> tuple[int, int, int]:
        """Return start and stop position of a share, and the number of scenes to pad it with."""
        begin = batch * self.batch_size
        size = min(self.batch_size, self.scenes - begin)
        if size < self.batch_size and self.tail == "exact":
            return begin + size * rank // ranks, begin + size * (rank + 1) // ranks, 0
        share = self.batch_size // ranks
        start, stop = (min(size, share * number) for number in (rank, rank + 1))
        return begin + start, begin + stop, share - (stop - start)

    def _draw(self, epoch: int, positions: NDArray[np.int64], counts: NDArray[np.int64] | None) -> Sample:
        """Return the scenes and views at positions of an epoch, with `counts` context views each if given."""
        if self._samples is not None:
            rows = self._samples[positions]
            return Sample(np.zeros(len(rows), np.int64), rows[:, 0], rows[:, 1:])
        if self._is_single_dataset:
            scenes, views = self._draw_from(0, epoch, positions, counts, self._seed)
            return Sample(np.zeros_like(scenes), scenes, views)
        if self._shuffle:
            positions = permute(positions, self.scenes, seed=key(self._seed, _POSITIONS_STREAM), epoch=epoch)
        members = np.searchsorted(self._ends, positions, side="right")
        drawn = Sample(members, np.empty_like(positions), np.full((len(positions), self.slots), -1, np.int64))
        for member in np.unique(members).tolist():
            count, size = int(self._counts[member]), self._members[member].scenes
            # Positions in the dataset's endless stream of passes over its scenes.
            running = epoch * count + positions - (int(self._ends[member]) - count)
            for member_epoch in np.unique(running[members == member] // size).tolist():
                rows = (members == member) & (running // size == member_epoch)
                seed = key(self._seed, _MEMBER_STREAM, member)
                row_counts = None if counts is None else counts[rows]
                drawn.scenes[rows], drawn.views[rows] = self._draw_from(
                    member, member_epoch, running[rows] - member_epoch * size, row_counts, seed
                )
        return drawn

    def _draw_from(
        self, number: int, epoch: int, positions: NDArray[np.int64], counts: NDArray[np.int64] | None, seed: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the scenes and views at positions of a dataset's own epoch."""
        member = self._members[number]
        if member.windows is not None:
            scenes = member.windows.scenes_at(positions, epoch)
        elif self._shuffle and member.scenes != ENDLESS:
            scenes = permute(positions, member.scenes, seed=seed, epoch=epoch)
        else:
            scenes = positions
        if member.chosen is not None:
            scenes = member.chosen[scenes]
        if self.context is None:
            return scenes, np.broadcast_to(np.arange(member.views), (len(scenes), member.views))
        choice = choose_views(
            scenes,
            views=member.views,
            context=self.context,
            seed=seed,
            epoch=epoch,
            counts=counts,
            targets=self.targets,
        )
        return scenes, choice.views


def _pad(part: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    return np.concatenate([part, np.full((rows, *part.shape[1:]), -1, np.int64)])


def _digest(numbers: NDArray[np.int64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(numbers, "<i8").tobytes()).hexdigest()[:8]


def _epoch_counts(sizes: list[int], weights: Sequence[float] | None, scenes: int | None) -> NDArray[np.int64]:
    """Return the number of scenes per epoch of each dataset, by weight, rounded by largest remainder."""
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
            f"epoch's {total} scenes; raise its weight, or epoch_scenes"
        )
    return counts


def _check_samples(samples: NDArray[np.int64], members: list[Member], targets: int) -> NDArray[np.int64]:
    """Return the list of samples as int64, after checking that every row names views of an existing scene."""
    if len(members) > 1:
        raise OptionError(f"samples name scenes of one dataset, found {len(members)} datasets")
    (member,) = members
    rows: NDArray[np.int64] = as_array("samples", samples)
    if rows.ndim != 2 or rows.shape[1] < 2 + targets or not len(rows) or not np.issubdtype(rows.dtype, np.integer):
        columns = "(N, 2 + K): scene, query" if targets == 1 else f"(N, {1 + targets} + K): scene, {targets} queries"
        raise OptionError(f"samples are {rows.dtype} of shape {rows.shape}, expected whole numbers {columns}, context")
    rows = rows.astype(np.int64)
    views = rows[:, 1:]
    ordered = np.sort(views, axis=1)
    wrong = (rows[:, 0] >= member.scenes) | (views >= member.views).any(1) | (views < -1).any(1)
    wrong |= (rows[:, : 2 + targets] < 0).any(1)
    wrong |= ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(1)  # a repeated view
    wrong |= ((views[:, 1:] >= 0) & (views[:, :-1] < 0)).any(1)  # -1 before a view
    if wrong.any():
        number = int(np.argmax(wrong))
        queries = "a query" if targets == 1 else f"{targets} queries"
        raise OptionError(
            f"sample {number} is {rows[number].tolist()}: expected a scene below {member.scenes}, {queries} and at "
            f"least one context view, all different and below {member.views}, then only -1"
        )
    return rows
