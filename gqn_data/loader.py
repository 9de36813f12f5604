"""Batches of scenes for PyTorch, from any container; the only file of gqn_data that imports torch.

    for batch in SceneLoader("data/zarr/rooms_ring_camera", batch_size=36, workers=4):
        ...

The stream of scenes and views depends on the dataset, the seed and the batch size: not on the number of workers,
nor on where it was interrupted. Only the views that a batch uses are read and decoded, straight into the batch.
Imports `cameras`, `dataset`, `images`, `order`, `views`.
"""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from gqn_data import images
from gqn_data.cameras import POSE_NUMBERS, poses_of
from gqn_data.dataset import Dataset as SceneDataset
from gqn_data.dataset import open_dataset
from gqn_data.errors import GQNError, OptionError
from gqn_data.order import scenes_of_batch
from gqn_data.scene_sets import Split, find_scene_set
from gqn_data.views import check_context, choose_views

_ALIGNED = 64  # parts of a batch begin on a cache line


class Batch(NamedTuple):
    """A batch of B scenes, each with up to K context views; frames of H by W pixels.

    Attributes:
        context_frames: uint8 (B, K, H, W, 3); zeros beyond a scene's own number of context views.
        context_poses: float32 (B, K, 7): x, y, z, sin yaw, cos yaw, sin pitch, cos pitch; zeros beyond, too.
        context_mask: bool (B, K); True for the context views of a scene.
        query_pose: float32 (B, 7).
        target: uint8 (B, H, W, 3), the frame that the query asks for.
        scenes: int64 (B,), numbers of the scenes in the split.
        views: int64 (B, 1 + K): the query view, then the context views; -1 beyond.
    """

    context_frames: torch.Tensor
    context_poses: torch.Tensor
    context_mask: torch.Tensor
    query_pose: torch.Tensor
    target: torch.Tensor
    scenes: torch.Tensor
    views: torch.Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The batch on another device."""
        return Batch(*(part.to(device, non_blocking=non_blocking) for part in self))

    def pin_memory(self) -> Batch:
        """The batch in pinned host memory, from which copies to a GPU overlap with its work."""
        return Batch(*(part.pin_memory() for part in self))


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """The layout of a batch in one block of memory: one block is handed from worker to consumer, not seven."""

    scenes: int
    views: int
    size: int

    @property
    def parts(self) -> list[tuple[torch.dtype, tuple[int, ...]]]:
        slots = (self.scenes, self.views)
        return [
            (torch.uint8, (*slots, self.size, self.size, 3)),
            (torch.float32, (*slots, POSE_NUMBERS)),
            (torch.int64, slots),
            (torch.int64, (self.scenes,)),
        ]

    def split(self, block: torch.Tensor) -> list[torch.Tensor]:
        """Frames, poses, views and scenes as tensors on the block."""
        parts, at = [], 0
        for dtype, shape in self.parts:
            size = int(np.prod(shape)) * dtype.itemsize
            parts.append(block[at : at + size].view(dtype).view(shape))
            at += -(-size // _ALIGNED) * _ALIGNED
        return parts

    @property
    def bytes(self) -> int:
        return sum(-(-int(np.prod(shape)) * dtype.itemsize // _ALIGNED) * _ALIGNED for dtype, shape in self.parts)


@dataclass(frozen=True, kw_only=True)
class _Ticket:
    """Which batch to make."""

    epoch: int
    batch: int


class _Batches(Dataset[tuple[_Shape, torch.Tensor] | GQNError]):
    """Makes batches by ticket; runs in the workers."""

    def __init__(
        self,
        scenes: SceneDataset,
        *,
        batch_size: int,
        context: tuple[int, int],
        seed: int,
        shuffle: bool,
        size: int,
        rank: int,
        ranks: int,
    ) -> None:
        self.scenes = scenes
        self.batch_size = batch_size
        self.context = context
        self.seed = seed
        self.shuffle = shuffle
        self.size = size
        self.rank = rank
        self.ranks = ranks

    def __getitem__(self, ticket: _Ticket) -> tuple[_Shape, torch.Tensor] | GQNError:
        try:
            return self._make(ticket)
        except GQNError as error:
            # torch would rebuild the error from its text alone; the consumer raises it as it is
            return error

    def _make(self, ticket: _Ticket) -> tuple[_Shape, torch.Tensor]:
        dataset, size = self.scenes, self.size
        layout = dataset.layout
        scenes = scenes_of_batch(
            ticket.batch,
            batch_size=self.batch_size,
            count=len(dataset),
            seed=self.seed,
            epoch=ticket.epoch,
            shuffle=self.shuffle,
            rank=self.rank,
            ranks=self.ranks,
        )
        choice = choose_views(scenes, views=layout.views, context=self.context, seed=self.seed, epoch=ticket.epoch)
        shape = _Shape(scenes=len(scenes), views=1 + self.context[1], size=size)
        block = _empty_block(shape.bytes)
        frames, poses, views, numbers = (part.numpy() for part in shape.split(block))
        views[...] = choice.views
        numbers[...] = scenes
        cameras = np.zeros((*choice.views.shape, len(layout.camera_fields)), np.float32)
        whole = None
        if (layout.height, layout.width) != (size, size):
            whole = np.empty(layout.frames_shape, np.uint8)
        for slot, (scene, used) in enumerate(zip(scenes.tolist(), (choice.context + 1).tolist())):
            wanted = choice.views[slot, :used].tolist()
            if whole is None:
                cameras[slot, :used] = dataset.decode_into(scene, wanted, frames[slot, :used])[wanted]
            else:
                cameras[slot, :used] = dataset.decode_into(scene, wanted, whole[:used])[wanted]
                frames[slot, :used] = images.resize_area(whole[:used], size)
        poses[...] = poses_of(cameras)
        poses[choice.views < 0] = 0
        return shape, block


def _empty_block(size: int) -> torch.Tensor:
    """Zeroed memory: shared where a worker makes it, so that the consumer need not copy it."""
    if get_worker_info() is None:
        return torch.zeros(size, dtype=torch.uint8)
    # New shared memory is zeroed by the system. torch's own default_collate makes its batches in the same way.
    storage = torch.UntypedStorage._new_shared(size)  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=torch.uint8).set_(storage)


class SceneLoader:
    """Batches of scenes of one split, epoch after epoch, in an order that anyone can compute again.

    Each scene comes exactly once an epoch; each has its own number of context views, its own views, and a query
    that is not among them, drawn anew every epoch from (seed, epoch, scene).

    Args:
        path: a dataset, or a raw folder that was indexed.
        batch_size: scenes in a batch, over all ranks.
        split: `train` or `test`.
        context: the smallest and the largest number of context views; None for 1 to the paper's number for the set.
        seed: of the order and of the choice of views.
        workers: processes that read and decode; 0 to do it in this one.
        shuffle: permute the scenes of each epoch, or keep them in source order.
        epochs: end after so many; None to go on for ever.
        frame_size: resize frames by area to so many pixels; None to leave them as they are.
        rank: which slice of every batch this process takes.
        ranks: number of slices; divides `batch_size`.
        drop_last: leave out the last batch of an epoch where it is not full, or give it shorter.
        pin_memory: hand batches out in pinned memory.

    Raises:
        OptionError: a value that the dataset does not allow.
        GQNError: the dataset cannot be opened.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        batch_size: int,
        split: Split = "train",
        context: tuple[int, int] | None = None,
        seed: int = 0,
        workers: int = 0,
        shuffle: bool = True,
        epochs: int | None = None,
        frame_size: int | None = None,
        rank: int = 0,
        ranks: int = 1,
        drop_last: bool = True,
        pin_memory: bool = False,
    ) -> None:
        dataset = open_dataset(path, split)
        layout = dataset.layout
        self.dataset = dataset
        self.scenes = len(dataset)
        self.views = layout.views
        self.scene_set = dataset.manifest.scene_set
        if context is None:
            context = 1, min(find_scene_set(self.scene_set).context_views, layout.views - 1)
        self.context = check_context(context, layout.views)
        self.frame_size = _frame_size(frame_size, layout.height, layout.width)
        for what, value, low in (("batch size", batch_size, 1), ("workers", workers, 0), ("ranks", ranks, 1)):
            if value < low:
                raise OptionError(f"{what} is {value}, expected {low} or more")
        if batch_size % ranks or not 0 <= rank < ranks:
            raise OptionError(f"a batch of {batch_size} scenes is not divided evenly by {ranks} ranks (rank {rank})")
        if epochs is not None and epochs < 1:
            raise OptionError(f"epochs is {epochs}, expected 1 or more, or None to go on for ever")
        if pin_memory and not torch.cuda.is_available():
            raise OptionError("pin_memory needs a GPU, and torch finds none; leave it out")
        self.batch_size = batch_size
        self.seed = seed
        self.workers = workers
        self.epochs = epochs
        self._pin = pin_memory
        self._per_epoch = self.scenes // batch_size if drop_last else -(-self.scenes // batch_size)
        if not self._per_epoch:
            raise OptionError(
                f"{path}: {self.scenes} {split} scenes are fewer than a batch of {batch_size}; "
                "choose a smaller batch, or drop_last=False"
            )
        self._batches = _Batches(
            dataset,
            batch_size=batch_size,
            context=self.context,
            seed=seed,
            shuffle=shuffle,
            size=self.frame_size,
            rank=rank,
            ranks=ranks,
        )
        self._order: dict[str, int | str] = {
            "dataset": dataset.fingerprint,
            "split": split,
            "seed": seed,
            "batch_size": batch_size,
            "context": f"{self.context[0]}-{self.context[1]}",
            "shuffle": int(shuffle),
            "drop_last": int(drop_last),
        }
        self._given = 0
        # Weak: whoever iterates holds the workers, so they end with the loop. Held from here as well they would be
        # part of a cycle, and torch waits five seconds for each worker that the cycle's collector ends.
        self._running: weakref.ref[Generator[Batch]] | None = None

    @property
    def fingerprint(self) -> str:
        """Tells scenes apart, not containers."""
        return self.dataset.fingerprint

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._per_epoch

    def __iter__(self) -> Iterator[Batch]:
        """The batches from where the loader stands: after those given out, or where a state was loaded."""
        self.close()
        running = self._run()
        self._running = weakref.ref(running)
        return running

    def _run(self) -> Generator[Batch]:
        for made in self._made():
            if isinstance(made, GQNError):
                raise made
            shape, block = made
            # Counted before it is handed out: whoever holds the batch sees a state that goes on after it.
            self._given += 1
            yield _as_batch(shape, block.pin_memory() if self._pin else block)
        self._given = 0  # all epochs are over; a new iteration begins anew

    def _made(self) -> Iterator[tuple[_Shape, torch.Tensor] | GQNError]:
        end = None if self.epochs is None else self.epochs * self._per_epoch
        numbers = itertools.count(self._given) if end is None else iter(range(self._given, end))
        tickets = (_Ticket(epoch=number // self._per_epoch, batch=number % self._per_epoch) for number in numbers)
        if not self.workers:
            return (self._batches[ticket] for ticket in tickets)
        return iter(
            DataLoader(
                self._batches,
                batch_size=None,
                sampler=tickets,
                num_workers=self.workers,
                collate_fn=_as_it_is,
                generator=torch.Generator(),  # torch's own is the trainer's, and is not drawn from here
            )
        )

    def state_dict(self) -> dict[str, int | str]:
        """Where the loader stands: the dataset and order it belongs to, and the batches given out."""
        epoch, batches = divmod(self._given, self._per_epoch)
        return {**self._order, "epoch": epoch, "batches": batches}

    def load_state_dict(self, state: Mapping[str, int | str]) -> None:
        """Goes on from a state, at once, whatever its position.

        Raises:
            OptionError: the state is of another dataset or order, or none at all; the message tells what differs.
        """
        if not isinstance(state, Mapping):
            raise OptionError(f"the loader's state is {type(state).__name__}, expected what state_dict gave")
        differing = [
            f"{name} {state.get(name)!r}, here {value!r}"
            for name, value in self._order.items()
            if state.get(name) != value
        ]
        if differing:
            raise OptionError(f"the loader's state is of another stream: {'; '.join(differing)}")
        epoch, batches = state.get("epoch"), state.get("batches")
        # By type, not isinstance: True is an int to Python, and no position.
        if type(epoch) is not int or type(batches) is not int or epoch < 0 or not 0 <= batches < self._per_epoch:
            raise OptionError(
                f"the loader's state says epoch {epoch!r}, batches {batches!r}; "
                f"expected an epoch from 0 and batches from 0 to {self._per_epoch - 1}"
            )
        self.close()
        self._given = epoch * self._per_epoch + batches

    def close(self) -> None:
        """Ends the workers; the loader can be iterated again."""
        running = None if self._running is None else self._running()
        self._running = None
        if running is not None:
            running.close()


def _frame_size(wanted: int | None, height: int, width: int) -> int:
    if wanted is None:
        if height != width:
            raise OptionError(f"frames of {width}x{height} are not square; say frame_size")
        return height
    if not 1 <= wanted <= min(height, width):
        raise OptionError(f"frames of {width}x{height} cannot be resized to {wanted} pixels by area: expected less")
    return wanted


def _as_batch(shape: _Shape, block: torch.Tensor) -> Batch:
    frames, poses, views, scenes = shape.split(block)
    return Batch(
        context_frames=frames[:, 1:],
        context_poses=poses[:, 1:],
        context_mask=views[:, 1:] >= 0,
        query_pose=poses[:, 0],
        target=frames[:, 0],
        scenes=scenes,
        views=views,
    )


def _as_it_is(made: Any) -> Any:
    return made
