"""One batch: which scenes and views it holds, and its frames decoded into a block of memory.

Runs in the loader's workers; numpy only. Imports `cameras`, `dataset`, `images`, `order`, `views`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gqn_data import images
from gqn_data.cameras import POSE_NUMBERS, pose_fields, poses_of
from gqn_data.dataset import Dataset
from gqn_data.order import Windows, scenes_of_batch
from gqn_data.views import choose_views

_ALIGNED = 64  # parts of a batch begin on a cache line


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """The layout of a batch in one block of memory: one block is handed from worker to consumer, not seven arrays.

    Attributes:
        scenes: B.
        views: 1 + K, the query and the context.
        size: height and width of a frame in pixels.
        pose: numbers of a pose.
    """

    scenes: int
    views: int
    size: int
    pose: int = POSE_NUMBERS

    def parts(self) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
        """Type, dimensions, first byte and bytes of frames, poses, views and scenes."""
        slots = (self.scenes, self.views)
        start = 0
        for name, dimensions in (
            ("uint8", (*slots, self.size, self.size, 3)),
            ("float32", (*slots, self.pose)),
            ("int64", slots),
            ("int64", (self.scenes,)),
        ):
            size = int(np.prod(dimensions)) * np.dtype(name).itemsize
            yield name, dimensions, start, size
            start += -(-size // _ALIGNED) * _ALIGNED

    @property
    def bytes(self) -> int:
        """What the block must hold."""
        *_, (_, _, start, size) = self.parts()
        return start + size


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """Which batch to make.

    Attributes:
        epoch: from 0.
        batch: in the epoch, from 0.
        block: which block of the loader's memory it goes to; None for one of its own.
    """

    epoch: int
    batch: int
    block: int | None = None


class BatchMaker:
    """Makes the batches of one rank.

    Args:
        dataset: where the scenes are.
        batch_size: scenes in a batch, over all ranks.
        context: the smallest and the largest number of context views.
        seed: of the order and of the choice of views.
        shuffle: permute the scenes of each epoch, or keep them in source order.
        size: frames are resized by area to so many pixels.
        rank: which slice of every batch.
        ranks: number of slices.
        windows: the way through the shards; None for all scenes at once.
        at_once: scenes read at the same time, by threads: where every read is a request to a store, most of it is
            waiting.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        context: tuple[int, int],
        seed: int,
        shuffle: bool,
        size: int,
        rank: int,
        ranks: int,
        windows: Windows | None = None,
        at_once: int = 1,
    ) -> None:
        self._dataset = dataset
        self._batch_size = batch_size
        self._context = context
        self._seed = seed
        self._shuffle = shuffle
        self._size = size
        self._rank = rank
        self._ranks = ranks
        self._windows = windows
        self._at_once = at_once

    @cached_property
    def largest(self) -> BatchShape:
        """The shape of a full batch."""
        return self._shape(self._batch_size // self._ranks)

    def _shape(self, scenes: int) -> BatchShape:
        pose = len(pose_fields(self._dataset.layout.camera_fields))
        return BatchShape(scenes=scenes, views=1 + self._context[1], size=self._size, pose=pose)

    def make(self, ticket: Ticket, block: NDArray[np.uint8]) -> BatchShape:
        """Fills the block, which may hold anything before; returns how the batch lies in it.

        Raises:
            GQNError: a frame cannot be read or decoded.
        """
        dataset, size = self._dataset, self._size
        layout = dataset.layout
        scenes = scenes_of_batch(
            ticket.batch,
            batch_size=self._batch_size,
            count=len(dataset),
            seed=self._seed,
            epoch=ticket.epoch,
            shuffle=self._shuffle,
            rank=self._rank,
            ranks=self._ranks,
            windows=self._windows,
        )
        choice = choose_views(scenes, views=layout.views, context=self._context, seed=self._seed, epoch=ticket.epoch)
        shape = self._shape(len(scenes))
        frames, poses, views, numbers = (
            block[start : start + count].view(name).reshape(dimensions)
            for name, dimensions, start, count in shape.parts()
        )
        views[...] = choice.views
        numbers[...] = scenes
        cameras = np.empty((len(scenes), *layout.cameras_shape), np.float32)
        chosen = [*zip(itertools.count(), scenes.tolist(), choice.views.tolist(), (choice.context + 1).tolist())]

        def fill(slots: Sequence[tuple[int, int, list[int], int]]) -> None:
            # Decoding writes pixel by pixel: into small memory of one's own, which stays in the cache, and then all at
            # once into the block, it takes a tenth less than straight into shared pages.
            decoded = np.empty((shape.views, *layout.frames_shape[1:]), np.uint8)
            for slot, scene, wanted, used in slots:
                cameras[slot] = dataset.decode_into(scene, wanted[:used], decoded)
                frames[slot, :used] = images.resize_area(decoded[:used], size)
                if used < shape.views:
                    frames[slot, used:] = 0

        if self._at_once == 1:
            fill(chosen)
        else:
            with ThreadPoolExecutor(self._at_once) as threads:
                for _ in threads.map(fill, (chosen[first :: self._at_once] for first in range(self._at_once))):
                    pass
        absent = choice.views < 0
        of_views = np.where(absent, 0, choice.views)[:, :, None]
        poses[...] = poses_of(np.take_along_axis(cameras, of_views, axis=1), layout.camera_fields)
        poses[absent] = 0
        return shape
