"""One batch: its frames decoded into a block of memory, with the poses, and which scenes and views they are.

Runs in the loader's workers; numpy only. Imports `cameras`, `dataset`, `images`, `sampling`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from gqn_data.dataset import Dataset
from gqn_data.sampling.batch_sampler import BatchSampler
from gqn_data.schema import jpeg
from gqn_data.schema.cameras import POSE_NUMBERS, PoseOrder, pose_fields, poses_of

_ALIGNED = 64  # parts of a batch begin on a cache line, but for frames


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """The layout of a batch in one block of memory: one block is handed from worker to consumer, not seven arrays.

    Attributes:
        scenes: B.
        views: slots for views: the query and the context, or all views.
        size: height and width of a frame in pixels.
        pose: numbers of a pose.
    """

    scenes: int
    views: int
    size: int
    pose: int = POSE_NUMBERS

    def parts(self) -> list[tuple[str, tuple[int, ...], int, int]]:
        """Type, dimensions, first byte and bytes of frames, poses, views, scenes and datasets."""
        return _parts(self)

    def _each(self) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
        slots = (self.scenes, self.views)
        start = jpeg.FRAMES_BEGIN
        for name, dimensions in (
            ("uint8", (*slots, self.size, self.size, 3)),
            ("float32", (*slots, self.pose)),
            ("int64", slots),
            ("int64", (self.scenes,)),
            ("int64", (self.scenes,)),
        ):
            size = math.prod(dimensions) * np.dtype(name).itemsize
            yield name, dimensions, start, size
            start = -(-(start + size) // _ALIGNED) * _ALIGNED

    @property
    def bytes(self) -> int:
        """What the block must hold."""
        *_, (_, _, start, size) = self.parts()
        return start + size


@lru_cache(maxsize=64)
def _parts(shape: BatchShape) -> list[tuple[str, tuple[int, ...], int, int]]:
    return [*shape._each()]


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """Which batch to make.

    Attributes:
        epoch: from 0.
        batch: in the epoch, from 0.
        block: which block of the loader's memory it goes to.
    """

    epoch: int
    batch: int
    block: int


class BatchMaker:
    """Makes the batches of one rank.

    Args:
        datasets: where the scenes are, as `sampling` numbers them.
        sampling: which scenes and views.
        size: frames are resized to so many pixels.
        resize: how.
        poses: in what order, or cameras as they are.
        rank: which slice of every batch.
        ranks: number of slices.
        at_once: scenes read at the same time, by threads: where every read is a request to a store, most of it is
            waiting.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        sampling: BatchSampler,
        *,
        size: int,
        resize: jpeg.Resize = "area",
        poses: PoseOrder = "sin_first",
        rank: int = 0,
        ranks: int = 1,
        at_once: int = 1,
    ) -> None:
        self._datasets = list(datasets)
        self._sampling = sampling
        self._size = size
        self._resize: jpeg.Resize = resize
        self._poses: PoseOrder = poses
        self._rank = rank
        self._ranks = ranks
        self._at_once = at_once
        self._camera_fields = self._datasets[0].layout.camera_fields
        self._most_views = max(dataset.layout.views for dataset in self._datasets)
        # Which dataset and scene is being read, for whoever wonders when this process is gone; elsewhere in a worker.
        self.at: NDArray[np.int64] = np.full(2, -1, np.int64)

    @cached_property
    def largest(self) -> BatchShape:
        """The shape of a full batch."""
        return self._shape(self._sampling.batch_size // self._ranks, self._sampling.slots)

    def _shape(self, scenes: int, views: int) -> BatchShape:
        pose = len(pose_fields(self._datasets[0].layout.camera_fields, self._poses))
        return BatchShape(scenes=scenes, views=views, size=self._size, pose=pose)

    def place(self, member: int, scene: int) -> str:
        """A scene of one of the datasets, for messages."""
        dataset = self._datasets[member]
        return f"scene {scene} of {dataset.split} in {dataset.folder}"

    def make(self, ticket: BatchRequest, block: NDArray[np.uint8]) -> BatchShape:
        """Fills the block, which may hold anything before; returns how the batch lies in it.

        Raises:
            GQNError: a frame cannot be read or decoded.
        """
        in_use = self._sampling.shards_of(ticket.epoch, ticket.batch)
        if in_use is not None:  # an open copy of what is behind would take room until the next epoch, removed or not
            self._datasets[0].keep_open(in_use)
        sample = self._sampling.batch(ticket.epoch, ticket.batch, rank=self._rank, ranks=self._ranks)
        shape = self._shape(*sample.views.shape)
        frames, poses, views, scenes, members = (
            block[start : start + count].view(name).reshape(dimensions)
            for name, dimensions, start, count in shape.parts()
        )
        views[...] = sample.views
        scenes[...] = sample.scenes
        members[...] = sample.members
        cameras = np.zeros((len(scenes), self._most_views, len(self._camera_fields)), np.float32)
        used = (sample.views >= 0).sum(1)
        chosen = [*zip(range(len(scenes)), sample.members.tolist(), scenes.tolist(), sample.views, used.tolist())]
        if self._at_once == 1:
            self._fill(chosen, frames, cameras)
        else:
            with ThreadPoolExecutor(self._at_once) as threads:
                parts = [chosen[first :: self._at_once] for first in range(self._at_once)]
                for _ in threads.map(lambda part: self._fill(part, frames, cameras), parts):
                    pass
        # -1 is the last view, and its pose is put out again.
        of_views = cameras[np.arange(len(scenes))[:, None], sample.views]
        poses[...] = poses_of(of_views, self._camera_fields, self._poses)
        poses[sample.views < 0] = 0
        return shape

    def _fill(
        self,
        slots: Sequence[tuple[int, int, int, NDArray[np.int64], int]],
        frames: NDArray[np.uint8],
        cameras: NDArray[np.float32],
    ) -> None:
        """Reads scenes: (slot, dataset, scene, views, number of views) of each."""
        at, size, datasets = self.at, self._size, self._datasets
        opened: dict[tuple[int, int], _Source] = {}
        for slot, member, scene, listed, used in slots:
            here, wanted = frames[slot], listed
            if used < len(here):
                here[used:] = 0
                if not used:  # padding
                    continue
                here, wanted = here[:used], listed[:used]
            at[0] = member
            at[1] = scene
            number, within = datasets[member].locate(scene)
            source = opened.get((member, number))
            if source is None:
                source = opened[member, number] = _Source(datasets[member], number)
            decoded = here if source.size == (size, size) else np.empty((used, *source.size, 3), np.uint8)
            if source.arrays is None:
                cameras[slot, : source.views] = source.shard.decode_into(within, wanted.tolist(), decoded)
            else:
                # Any other mode makes a copy first; there are no such views, so nothing is clipped.
                source.arrays[0][within].take(wanted, axis=0, out=decoded, mode="clip")
                cameras[slot, : source.views] = source.arrays[1][within]
            if decoded is not here:
                here[:] = jpeg.resize(decoded, size, self._resize)


class _Source:
    """A shard, for the time of a batch."""

    __slots__ = ("arrays", "shard", "size", "views")

    def __init__(self, dataset: Dataset, number: int) -> None:
        self.shard = dataset.shard(number)
        self.arrays = self.shard.arrays()
        self.size = dataset.layout.height, dataset.layout.width
        self.views = dataset.layout.views
