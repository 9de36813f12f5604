"""Batches of scenes for PyTorch, from any container; the only file of gqn_data that imports torch.

    for batch in SceneLoader("data/zarr/rooms_ring_camera", batch_size=36, workers=4):
        ...

The stream of scenes and views depends on the dataset, the seed and the batch size: not on the number of workers,
nor on where it was interrupted, nor on where the dataset lies. Only the views that a batch uses are decoded. Scenes of
a large dataset in a store come in windows of shards, from a cache on this machine or by range (docs/streaming.md).
Imports `batches`, `cache`, `dataset`, `order`, `prefetch`, `spawned`, `streaming`, `views`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from gqn_data.batches import BatchMaker, BatchShape, Ticket
from gqn_data.cache import ShardCache, open_cache
from gqn_data.cameras import pose_fields
from gqn_data.dataset import open_dataset
from gqn_data.errors import GQNError, OptionError
from gqn_data.order import Windows
from gqn_data.places import StorePath
from gqn_data.prefetch import Position, WindowFetcher
from gqn_data.scene_sets import SCENE_SETS, Split
from gqn_data.spawned import SpawnedWorkers
from gqn_data.streaming import CachedFiles, Reading, Remote, choose_reading, default_window
from gqn_data.views import check_context

_PAGE = 4096
_AHEAD = 2  # batches that each worker makes ahead
_REQUESTS = 16  # scenes of a batch that are read at the same time by range
_HELD = 3  # blocks for batches that the consumer still holds when the next are made


class Batch(NamedTuple):
    """A batch of B scenes, each with up to K context views; frames of H by W pixels.

    Attributes:
        context_frames: uint8 (B, K, H, W, 3); zeros beyond a scene's own number of context views.
        context_poses: float32 (B, K, 7): x, y, z, sin yaw, cos yaw, sin pitch, cos pitch; zeros beyond, too. Of
            cameras other than DeepMind's five numbers: the numbers as they are (`SceneLoader.pose_fields`).
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


class _Blocks:
    """Memory for batches, used again and again: a page of new memory costs more than decoding into an old one.

    A block is lent out, and comes back by itself when the last tensor on it is gone.

    Args:
        count: number of blocks.
        size: bytes of each.
        shared: whether worker processes are to write to them.
    """

    def __init__(self, count: int, size: int, *, shared: bool) -> None:
        self.memory = torch.empty((count, -(-size // _PAGE) * _PAGE), dtype=torch.uint8)
        if shared:
            self.memory.share_memory_()  # type: ignore[no-untyped-call]
        self._arrays = self.memory.numpy()
        self._free: deque[int] = deque(range(count))

    def take(self) -> int | None:
        """The number of a free block; None where all are lent out."""
        try:
            return self._free.popleft()
        except IndexError:
            return None

    def lend(self, number: int) -> torch.Tensor:
        """The block as a tensor; free again when the tensor and all views of it are gone."""
        array = self._arrays[number]
        weakref.finalize(array, self._free.append, number).atexit = False
        return torch.from_numpy(array)  # holds on to the array as long as any tensor lives on it


class _Making(Dataset[tuple[BatchShape, torch.Tensor | None] | GQNError]):
    """Makes batches by ticket, in a worker or in the consumer's own process.

    Args:
        maker: makes them.
        blocks: of `_Blocks`, where tickets name one.
        shared: whether other blocks are shared, too, so that the consumer need not copy what a worker made.
    """

    def __init__(self, maker: BatchMaker, blocks: torch.Tensor, *, shared: bool) -> None:
        self._maker = maker
        self._blocks = blocks
        self._shared = shared

    def __getitem__(self, ticket: Ticket) -> tuple[BatchShape, torch.Tensor | None] | GQNError:
        """The batch's shape, and its block where the ticket names none."""
        block = None if ticket.block is not None else _new_block(self._maker.largest.bytes, shared=self._shared)
        memory = self._blocks[ticket.block] if block is None else block
        try:
            return self._maker.make(ticket, memory.numpy()), block
        except GQNError as error:
            # torch would rebuild the error from its text alone; the consumer raises it as it is
            return error


def _new_block(size: int, *, shared: bool) -> torch.Tensor:
    """A block beside those that are lent out."""
    if not shared:
        return torch.empty(size, dtype=torch.uint8)
    storage = torch.UntypedStorage._new_shared(size)  # type: ignore[no-untyped-call]  # as torch's default_collate does
    return torch.empty(0, dtype=torch.uint8).set_(storage)


class SceneLoader:
    """Batches of scenes of one split, epoch after epoch, in an order that anyone can compute again.

    Each scene comes exactly once an epoch; each has its own number of context views, its own views, and a query
    that is not among them, drawn anew every epoch from (seed, epoch, scene).

    Args:
        path: a dataset, or a raw folder that was indexed; a folder or the URL of one.
        batch_size: scenes in a batch, over all ranks.
        split: `train` or `test`.
        context: the smallest and the largest number of context views; None for 1 to the paper's number for the set,
            or to all views but the query where the set is not in the catalogue.
        seed: of the order and of the choice of views.
        workers: processes that read and decode; 0 to do it in this one.
        shuffle: permute the scenes of each epoch, or keep them in source order.
        epochs: end after so many; None to go on for ever.
        frame_size: resize frames by area to so many pixels; None to leave them as they are.
        rank: which slice of every batch this process takes.
        ranks: number of slices; divides `batch_size`.
        drop_last: leave out the last batch of an epoch where it is not full, or give it shorter.
        pin_memory: hand batches out in pinned memory.
        window: shards in a window: the scenes of so many are shuffled among themselves, window after window; None for
            all shards on a disk, and for 8 GB of them in a store.
        remote: how a dataset in a store is read: `cache`, by copies of whole files; `range`, only the views of a
            batch; `auto`, by what is better.
        cache: the folder of copies; None for `$GQN_CACHE`, else `~/.cache/gqn-toolkit`.
        cache_gb: the most that copies may take, in GB; None for 50, or half of the disk's room where that is less.

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
        window: int | None = None,
        remote: Remote = "auto",
        cache: str | os.PathLike[str] | None = None,
        cache_gb: float | None = None,
    ) -> None:
        dataset = open_dataset(path, split)
        layout = dataset.layout
        self.dataset = dataset
        self.scenes = len(dataset)
        self.views = layout.views
        self.scene_set = dataset.manifest.scene_set
        self.pose_fields = pose_fields(layout.camera_fields)
        if context is None:
            row = SCENE_SETS.get(self.scene_set)
            context = 1, layout.views - 1 if row is None else min(row.context_views, layout.views - 1)
        self.context = check_context(context, layout.views)
        self.frame_size = _frame_size(frame_size, layout.height, layout.width)
        least = ("batch size", batch_size, 1), ("workers", workers, 0), ("ranks", ranks, 1), ("window", window, 1)
        for what, value, low in least:
            if value is not None and value < low:
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
        self._shuffle = shuffle
        self._rank, self._ranks = rank, ranks
        self._remote = remote
        self._cache: ShardCache | None = None
        if isinstance(dataset.folder, StorePath):
            self._cache = open_cache(cache, cache_gb)
        self._window_given = window is not None
        self._stream: dict[str, int | str] = {
            "dataset": dataset.fingerprint,
            "split": split,
            "seed": seed,
            "batch_size": batch_size,
            "context": f"{self.context[0]}-{self.context[1]}",
            "shuffle": int(shuffle),
            "drop_last": int(drop_last),
        }
        self._set_window(window)
        self._given = 0
        # Weak: whoever iterates holds the workers, so they end with the loop. Held from here as well they would be
        # part of a cycle, and torch waits five seconds for each worker that the cycle's collector ends.
        self._running: weakref.ref[Generator[Batch]] | None = None

    def _set_window(self, window: int | None) -> None:
        """Settles the order, and how scenes are read in it."""
        dataset = self.dataset
        if window is None:
            window = len(dataset.shards) if self._cache is None else default_window(dataset.shards)
        sizes = [shard.scenes for shard in dataset.shards]
        self._windows = Windows(sizes, window=window, seed=self.seed, shuffle=self._shuffle)
        self._order = self._stream | self._windows.identity
        self.reading: Reading | None = None  # from a disk
        if self._cache is not None:
            self.reading = choose_reading(
                self._remote,
                shards=dataset.shards,
                windows=self._windows,
                used=1 + sum(self.context) / 2 if dataset.is_by_view else self.views,
                views=self.views,
                cache=self._cache,
            )
            dataset.read_through(CachedFiles(cache=self._cache, reading=self.reading))
        self._maker = BatchMaker(
            dataset,
            batch_size=self.batch_size,
            context=self.context,
            seed=self.seed,
            shuffle=self._shuffle,
            size=self.frame_size,
            rank=self._rank,
            ranks=self._ranks,
            windows=self._windows,
            at_once=_REQUESTS if self.reading == "range" else 1,
        )

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
        # Enough for all that the workers make ahead, and for some that the consumer holds on to.
        count = _AHEAD * self.workers + _HELD
        blocks = _Blocks(count, self._maker.largest.bytes, shared=self.workers > 0)
        making = _Making(self._maker, blocks.memory, shared=self.workers > 0)
        with self._fetching_ahead() as fetcher, contextlib.closing(self._made(making, blocks, fetcher)) as all_made:
            for ticket, made in all_made:
                if isinstance(made, GQNError):
                    raise made
                shape, own = made
                block = own if ticket.block is None else blocks.lend(ticket.block)
                assert block is not None  # noqa: S101  it is one or the other
                # Counted before it is handed out: whoever holds the batch sees a state that goes on after it.
                self._given += 1
                yield _as_batch(shape, block.pin_memory() if self._pin else block)
                del block, own, made  # not held while the next batch is waited for
        self._given = 0  # all epochs are over; a new iteration begins anew

    def _fetching_ahead(self) -> contextlib.AbstractContextManager[WindowFetcher | None]:
        folder = self.dataset.folder
        if self._cache is None or self.reading != "cache" or isinstance(folder, Path):
            return contextlib.nullcontext()
        return WindowFetcher(self._cache, folder, self.dataset.shards, self._windows, self.epochs)

    def _position(self, number: int, within: int) -> Position:
        """Of a batch, counted over all epochs, the position of its first scene, or of the last: `within` 0 or 1."""
        epoch, batch = divmod(number, self._per_epoch)
        return Position(epoch, min((batch + within) * self.batch_size, self.scenes) - within)

    def _made(
        self, making: _Making, blocks: _Blocks, fetcher: WindowFetcher | None
    ) -> Generator[tuple[Ticket, tuple[BatchShape, torch.Tensor | None] | GQNError]]:
        end = None if self.epochs is None else self.epochs * self._per_epoch
        numbers = itertools.count(self._given) if end is None else iter(range(self._given, end))
        under_way: deque[Ticket] = deque()

        def tickets() -> Iterator[Ticket]:
            for number in numbers:
                if fetcher is not None:
                    fetcher.need(self._position(self._given, 0), self._position(number, 1))
                epoch, batch = divmod(number, self._per_epoch)
                under_way.append(Ticket(epoch=epoch, batch=batch, block=blocks.take()))
                yield under_way[-1]

        if not self.workers:
            for ticket in tickets():
                yield under_way.popleft(), making[ticket]
            return
        if self._cache is not None:
            with SpawnedWorkers(making.__getitem__, self.workers) as workers:
                for made in workers.in_order(tickets(), _AHEAD):
                    yield under_way.popleft(), made
            return
        loader = DataLoader(
            making,
            batch_size=None,
            sampler=tickets(),
            num_workers=self.workers,
            prefetch_factor=_AHEAD,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # torch's own is the trainer's, and is not drawn from here
        )
        for made in loader:  # in the order of the tickets
            yield under_way.popleft(), made

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
        self._check_same(state, self._stream)
        windows = state.get("windows", 1)
        if self._shuffle and not self._window_given and type(windows) is int and 1 <= windows != self._windows.count:
            # nobody chose the windows here, so those that the stream began with go on
            self._set_window(-(-len(self.dataset.shards) // windows))
        self._check_same(state, ("windows", "shards"))
        epoch, batches = state.get("epoch"), state.get("batches")
        # By type, not isinstance: True is an int to Python, and no position.
        if type(epoch) is not int or type(batches) is not int or epoch < 0 or not 0 <= batches < self._per_epoch:
            raise OptionError(
                f"the loader's state says epoch {epoch!r}, batches {batches!r}; "
                f"expected an epoch from 0 and batches from 0 to {self._per_epoch - 1}"
            )
        self.close()
        self._given = epoch * self._per_epoch + batches

    def _check_same(self, state: Mapping[str, int | str], names: Iterable[str]) -> None:
        differing = [
            f"{name} {state.get(name)!r}, here {self._order.get(name)!r}"
            for name in names
            if state.get(name) != self._order.get(name)
        ]
        if differing:
            raise OptionError(f"the loader's state is of another stream: {'; '.join(differing)}")

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


def _as_batch(shape: BatchShape, block: torch.Tensor) -> Batch:
    frames, poses, views, scenes = (
        block[start : start + size].view(getattr(torch, name)).view(dimensions)
        for name, dimensions, start, size in shape.parts()
    )
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
