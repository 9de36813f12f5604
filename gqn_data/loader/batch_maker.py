"""Make batches in worker processes: decode frames into shared memory, with poses and the numbers of scenes and views.

numpy only.
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
from gqn_data.errors import GQNError
from gqn_data.loader.shared_memory import Ring, SharedArray
from gqn_data.sampling.batch_sampler import BatchSampler
from gqn_data.schema import jpeg
from gqn_data.schema.cameras import POSE_NUMBERS, PoseOrder, pose_fields, poses_of

_ALIGNED = 64  # parts of a batch begin on a cache line, except the frames


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """The layout of a batch in one block of memory; workers and consumer exchange one block instead of five arrays.

    Attributes:
        scenes: B.
        views: S, slots for views: the queries and the context, or all views.
        size: height and width of a frame in pixels.
        pose: numbers per pose.
        targets: T, queries per scene; their views are another part of the batch if there are several.
    """

    scenes: int
    views: int
    size: int
    pose: int = POSE_NUMBERS
    targets: int = 1

    def parts(self) -> list[tuple[str, tuple[int, ...], int, int]]:
        """Return dtype, shape, first byte and number of bytes of the fields of a `Batch`."""
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
            *([("int64", (self.scenes, self.targets))] if self.targets > 1 else []),
        ):
            size = math.prod(dimensions) * np.dtype(name).itemsize
            yield name, dimensions, start, size
            start = -(-(start + size) // _ALIGNED) * _ALIGNED

    @property
    def bytes(self) -> int:
        """Bytes that a block needs."""
        *_, (_, _, start, size) = self.parts()
        return start + size


@lru_cache(maxsize=64)
def _parts(shape: BatchShape) -> list[tuple[str, tuple[int, ...], int, int]]:
    return [*shape._each()]


@dataclass(frozen=True, kw_only=True)
class BatchRequest:
    """A batch to make.

    Attributes:
        epoch: number of the epoch, from 0.
        batch: number of the batch in the epoch, from 0.
        block: number of the block of memory to fill.
    """

    epoch: int
    batch: int
    block: int


class BatchMaker:
    """Make the batches of one rank.

    Args:
        datasets: the datasets, numbered as in `sampling`.
        sampling: chooses scenes and views.
        size: height and width to which frames are resized, in pixels.
        resize: how frames are resized.
        fit: how frames that are not square become square; None if all are.
        poses: order of the pose numbers, or `raw` cameras.
        rank: the slice of each batch to make.
        ranks: number of slices.
        threads: scenes read at the same time. More than one pays off if each read is a request to a store.

    Attributes:
        current: int64 (2,), the dataset and scene being read, for messages; -1 before the first.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        sampling: BatchSampler,
        *,
        size: int,
        resize: jpeg.Resize = "area",
        fit: jpeg.Fit | None = None,
        poses: PoseOrder = "sin_first",
        rank: int = 0,
        ranks: int = 1,
        threads: int = 1,
    ) -> None:
        self._datasets = list(datasets)
        self._sampling = sampling
        self._size = size
        self._resize: jpeg.Resize = resize
        self._fit: jpeg.Fit | None = fit
        self._poses: PoseOrder = poses
        self._rank = rank
        self._ranks = ranks
        self._threads = threads
        self._camera_fields = self._datasets[0].layout.camera_fields
        self._max_views = max(dataset.layout.views for dataset in self._datasets)
        self.current: NDArray[np.int64] = np.full(2, -1, np.int64)

    @cached_property
    def largest(self) -> BatchShape:
        """The shape of a full batch."""
        return self._shape(self._sampling.batch_size // self._ranks, self._sampling.slots)

    def _shape(self, scenes: int, views: int) -> BatchShape:
        pose = len(pose_fields(self._datasets[0].layout.camera_fields, self._poses))
        return BatchShape(scenes=scenes, views=views, size=self._size, pose=pose, targets=self._sampling.targets)

    def describe(self, member: int, scene: int) -> str:
        """Return a scene of one of the datasets as text for messages."""
        dataset = self._datasets[member]
        return f"scene {scene} of {dataset.split} in {dataset.folder}"

    def make(self, request: BatchRequest, block: NDArray[np.uint8]) -> BatchShape:
        """Fill a block with a batch and return its layout. The block may hold anything before.

        Raises:
            GQNError: a frame cannot be read or decoded.
        """
        in_use = self._sampling.shards_of(request.epoch, request.batch)
        if in_use is not None:  # an open copy takes disk space until it is closed, even after its removal
            self._datasets[0].keep_open(in_use)
        sample = self._sampling.batch(request.epoch, request.batch, rank=self._rank, ranks=self._ranks)
        shape = self._shape(*sample.views.shape)
        frames, poses, views, scenes, members, *queries = (
            block[start : start + count].view(name).reshape(dimensions)
            for name, dimensions, start, count in shape.parts()
        )
        views[...] = sample.views
        scenes[...] = sample.scenes
        members[...] = sample.members
        for part in queries:
            part[...] = sample.views[:, : shape.targets]
        cameras = np.zeros((len(scenes), self._max_views, len(self._camera_fields)), np.float32)
        used = (sample.views >= 0).sum(1)
        slots = [*zip(range(len(scenes)), sample.members.tolist(), scenes.tolist(), sample.views, used.tolist())]
        if self._threads == 1:
            self._fill(slots, frames, cameras)
        else:
            with ThreadPoolExecutor(self._threads) as threads:
                parts = [slots[first :: self._threads] for first in range(self._threads)]
                for _ in threads.map(lambda part: self._fill(part, frames, cameras), parts):
                    pass
        # An empty slot is -1, which indexes the last view; its pose is overwritten below.
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
        """Read scenes into their slots.

        Args:
            slots: slot, dataset, scene, views and number of views of each scene.
            frames: uint8 (B, S, H, W, 3), written.
            cameras: float32 (B, V, C), written: all V views of each scene.
        """
        current, size, datasets = self.current, self._size, self._datasets
        opened: dict[tuple[int, int], _OpenShard] = {}
        for slot, member, scene, listed, used in slots:
            here, wanted = frames[slot], listed
            if used < len(here):
                here[used:] = 0
                if not used:  # padding
                    continue
                here, wanted = here[:used], listed[:used]
            current[0] = member
            current[1] = scene
            number, within = datasets[member].locate(scene)
            source = opened.get((member, number))
            if source is None:
                source = opened[member, number] = _OpenShard(datasets[member], number)
            decoded = here if source.size == (size, size) else np.empty((used, *source.size, 3), np.uint8)
            if source.arrays is None:
                cameras[slot, : source.views] = source.shard.decode_into(within, wanted.tolist(), decoded)
            else:
                # Any other mode makes a copy first; the views are valid, so nothing is clipped.
                source.arrays[0][within].take(wanted, axis=0, out=decoded, mode="clip")
                cameras[slot, : source.views] = source.arrays[1][within]
            if decoded is not here:
                if self._fit is not None:
                    decoded = jpeg.make_square(decoded, self._fit)
                here[:] = jpeg.resize(decoded, size, self._resize)


class _OpenShard:
    """A shard, open for the duration of a batch."""

    __slots__ = ("arrays", "shard", "size", "views")

    def __init__(self, dataset: Dataset, number: int) -> None:
        self.shard = dataset.shard(number)
        self.arrays = self.shard.arrays()
        self.size = dataset.layout.height, dataset.layout.width
        self.views = dataset.layout.views


class BatchWorker:
    """Make batches on request, in worker processes or in the consumer's.

    Args:
        maker: makes the batches.
        ring: memory for the batches.
        workers: number of worker processes.
    """

    def __init__(self, maker: BatchMaker, ring: Ring, workers: int) -> None:
        self._maker = maker
        self._ring = ring
        # The dataset and scene that each worker reads: readable here after a worker was lost.
        self._progress = SharedArray((max(1, workers), 2), np.int64)
        self._progress.array[:] = -1

    def begin(self, worker: int) -> None:
        """Set up a worker process; the pool calls it first."""
        self._maker.current = self._progress.array[worker]

    def last_scene(self, worker: int) -> str:
        """Return what a worker read last, as text for messages."""
        member, scene = self._progress.array[worker].tolist()
        return "before it had read a scene" if scene < 0 else f"at {self._maker.describe(member, scene)}"

    def __call__(self, request: BatchRequest) -> BatchShape | GQNError:
        """Make a batch; return the error, for the consumer to raise, if a frame cannot be read."""
        try:
            return self._maker.make(request, self._ring.block(request.block))
        except GQNError as error:
            return error  # its message suffices; raised here, it would carry the worker's traceback
        except MemoryError as error:
            scene = self._maker.describe(*self._maker.current.tolist())
            error.add_note(f"while reading {scene}; use fewer workers or smaller batches (workers=, batch_size=)")
            raise
