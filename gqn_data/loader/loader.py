"""Batches of scenes for PyTorch, from any container; the only file of gqn_data that imports torch.

    for batch in SceneLoader("data/zarr/rooms_ring_camera", batch_size=36, workers=4):
        ...

The stream of scenes and views depends on the dataset, the seed and the batch size: not on the number of workers,
nor on where it was interrupted, nor on where the dataset lies. Only the views that a batch uses are decoded, by worker
processes, straight into memory that they share with this one. Scenes of a large dataset in a store come in windows of
shards, from a cache on this machine or by range (docs/streaming.md). docs/loader.md shows it all in use.
Imports `caching`, `loading`, `views`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike

from gqn_data.cache.policy import Reading, Remote
from gqn_data.cache.prefetch import Position, WindowFetcher
from gqn_data.errors import GQNError, OptionError
from gqn_data.loader.batch_maker import BatchMaker, BatchRequest, BatchShape
from gqn_data.loader.datasets import DatasetMixture, Paths
from gqn_data.loader.shared_memory import Ring
from gqn_data.loader.worker_pool import Start, WorkerPool
from gqn_data.sampling.batch_sampler import BatchSampler, Tail
from gqn_data.sampling.views import ContextPer, check_context
from gqn_data.schema.cameras import PoseOrder, pose_fields
from gqn_data.schema.catalog import SCENE_SETS, Split
from gqn_data.schema.jpeg import Resize

_AHEAD = 2  # batches that each worker makes ahead
_REQUESTS = 16  # scenes of a batch that are read at the same time by range
_HELD = 3  # blocks for batches that the consumer still holds when the next are made
_LESS = "use fewer workers or smaller batches"
_PLACE = ("epoch", "batches", "windows", "shards")  # of a state: what is no option


class Batch(NamedTuple):
    """A batch of B scenes, each with up to S = 1 + K views; frames of H by W pixels.

    The first view is the query, the others are the context; with `context="all"` they are all views in their order.

    Attributes:
        frames: uint8 (B, S, H, W, 3); zeros beyond a scene's own number of views.
        poses: float32 (B, S, 7): x, y, z, sin yaw, cos yaw, sin pitch, cos pitch; zeros beyond, too. Of cameras other
            than DeepMind's five numbers: the numbers as they are (`SceneLoader.pose_fields`).
        views: int64 (B, S): numbers of the views in the scene; -1 beyond.
        scenes: int64 (B,), numbers of the scenes in the split; -1 where the batch is padded.
        datasets: int64 (B,): which of the loader's datasets a scene is from; -1 where the batch is padded.
    """

    frames: torch.Tensor
    poses: torch.Tensor
    views: torch.Tensor
    scenes: torch.Tensor
    datasets: torch.Tensor

    @property
    def target(self) -> torch.Tensor:
        """uint8 (B, H, W, 3), the frame that the query asks for."""
        return self.frames[:, 0]

    @property
    def query_pose(self) -> torch.Tensor:
        """float32 (B, 7)."""
        return self.poses[:, 0]

    @property
    def context_frames(self) -> torch.Tensor:
        """uint8 (B, K, H, W, 3)."""
        return self.frames[:, 1:]

    @property
    def context_poses(self) -> torch.Tensor:
        """float32 (B, K, 7)."""
        return self.poses[:, 1:]

    @property
    def context_mask(self) -> torch.Tensor:
        """Bool (B, K); True for the context views of a scene."""
        return self.views[:, 1:] >= 0

    @property
    def valid(self) -> torch.Tensor:
        """Bool (B,); False where the batch is padded (`tail="pad"`), and frames and poses are zeros."""
        return self.scenes >= 0

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The batch on another device."""
        return Batch(*(part.to(device, non_blocking=non_blocking) for part in self))

    def pin_memory(self) -> Batch:
        """The batch in pinned host memory, from which copies to a GPU overlap with its work."""
        return Batch(*(part.pin_memory() for part in self))


class _Making:
    """Makes batches by ticket, in a worker or in the consumer's own process.

    Args:
        maker: makes them.
        ring: where to.
        progress: int64 (workers, 2), shared: the dataset and scene that each worker is at.
    """

    def __init__(self, maker: BatchMaker, ring: Ring, progress: Ring) -> None:
        self._maker = maker
        self._ring = ring
        self._progress = progress

    def begin(self, worker: int) -> None:
        """Called first in a worker."""
        self._maker.at = at = self._progress.block(worker)[:16].view(np.int64)
        at[:] = -1

    def at(self, worker: int) -> tuple[int, int]:
        """The dataset and scene that a worker is, or was, at; -1 before the first."""
        member, scene = self._progress.block(worker)[:16].view(np.int64).tolist()
        return member, scene

    def __call__(self, ticket: BatchRequest) -> BatchShape | GQNError:
        try:
            return self._maker.make(ticket, self._ring.block(ticket.block))
        except GQNError as error:
            return error  # raised by the consumer as it is, without a worker's traceback
        except MemoryError as error:
            error.add_note(f"while reading {self._maker.place(*self._maker.at.tolist())}; {_LESS}")
            raise


class SceneLoader:
    """Batches of scenes of one split, epoch after epoch, in an order that anyone can compute again.

    Each scene comes exactly once an epoch; each has its own number of context views, its own views, and a query
    that is not among them, drawn anew every epoch from (seed, epoch, scene).

    Args:
        path: a dataset, or a raw folder that was indexed; a folder or the URL of one. Several, to mix them: a list,
            and each scene comes once an epoch; or a mapping of each to its weight.
        batch_size: scenes in a batch, over all ranks.
        split: `train` or `test`.
        context: the smallest and the largest number of context views; None for 1 to the paper's number for the set,
            or to all views but the query where the set is not in the catalogue; `all` for all views of a scene in
            their order (`Batch.frames`, `Batch.poses`).
        context_per: whether each scene draws its own number of context views, or each batch one for all its scenes;
            then K is that number.
        samples: (N, 2 + K) whole numbers: the scene, query and context views of each sample, -1 where it has fewer
            context views. They are given in this order, epoch after epoch; `context` and `shuffle` then mean nothing.
        scenes: numbers of the scenes to use, each once, in rising order where they are not shuffled; None for all.
            Of one dataset.
        seed: of the order and of the choice of views.
        workers: processes that read and decode; 0 to do it in this one.
        start: how workers are started: `fork`, or `spawn` where a dataset lies in a store, for one cannot be asked
            from a forked process; None for `fork` on Linux where that goes, and else `spawn`.
        shuffle: permute the scenes of each epoch, or keep them in source order.
        epochs: end after so many; None to go on for ever.
        epoch_scenes: scenes in an epoch of several datasets; None for as many as they have.
        frame_size: resize frames to so many pixels; None to leave them as they are.
        resize: by `area`, or `bilinear`, see `gqn_data.schema.jpeg.resize`.
        poses: `sin_first`, as in DeepMind's reader; `cos_first`, as in many PyTorch trainers; `raw`, the cameras.
        rank: which slice of every batch this process takes.
        ranks: number of slices; divides `batch_size`.
        tail: what becomes of the last batch of an epoch where it is not full: `drop` it; `pad` it with rows that are
            not `valid`; `exact`, give it shorter, its scenes divided among the ranks as evenly as they go.
        pin_memory: hand batches out in pinned memory.
        window: shards in a window: the scenes of so many are shuffled among themselves, window after window; None for
            all shards on a disk, and for 8 GB of them in a store.
        remote: how a dataset in a store is read: `cache`, by copies of whole files; `range`, only the views of a
            batch; `auto`, by what is better.
        cache: the folder of copies; None for `$GQN_CACHE`, else `~/.cache/gqn-toolkit`.
        cache_gb: the most that copies may take, in GB; None for 50, or half of the disk's room where that is less.

    Attributes:
        waited: seconds that batches were not there yet when they were asked for, so far; pinning and copying do not
            count, which on a GPU may wait for its work.

    Raises:
        OptionError: a value that the dataset does not allow.
        GQNError: the dataset cannot be opened.
    """

    def __init__(
        self,
        path: Paths,
        *,
        batch_size: int,
        split: Split = "train",
        context: tuple[int, int] | str | None = None,
        context_per: ContextPer = "scene",
        samples: ArrayLike | None = None,
        scenes: ArrayLike | None = None,
        seed: int = 0,
        workers: int = 0,
        start: Start | None = None,
        shuffle: bool = True,
        epochs: int | None = None,
        epoch_scenes: int | None = None,
        frame_size: int | None = None,
        resize: Resize = "area",
        poses: PoseOrder = "sin_first",
        rank: int = 0,
        ranks: int = 1,
        tail: Tail = "drop",
        pin_memory: bool = False,
        window: int | None = None,
        remote: Remote = "auto",
        cache: str | os.PathLike[str] | None = None,
        cache_gb: float | None = None,
    ) -> None:
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
        self._members = members = DatasetMixture(
            path, split, chosen=scenes, remote=remote, cache=cache, cache_gb=cache_gb, one_window=samples is not None
        )
        dataset = members.datasets[0]
        layout = dataset.layout
        self.datasets = members.datasets
        self.dataset = dataset
        self.views = min(each.layout.views for each in members.datasets)
        self.scene_set = dataset.manifest.scene_set
        self.pose_fields = pose_fields(layout.camera_fields, poses)
        self.context = self._context(context)
        layouts = [each.layout for each in members.datasets]
        self.frame_size, *_ = [_frame_size(frame_size, each.height, each.width, resize) for each in layouts]
        members.check_alike(self.frame_size if frame_size is None else None)
        self.batch_size = batch_size
        self.seed = seed
        self.workers = workers
        self.epochs = epochs
        self.start: Start = _start(start, far=members.any_far)
        self._pin = pin_memory
        self._rank, self._ranks = rank, ranks
        self._of_samples: dict[str, Any] = {
            "batch_size": batch_size,
            "context": None if context == "all" else self.context,
            "context_per": context_per,
            "seed": seed,
            "shuffle": shuffle and samples is None,
            "tail": tail,
            "epoch_scenes": epoch_scenes,
            "samples": None if samples is None else np.asarray(samples),
        }
        self._of_batches: dict[str, Any] = {"size": self.frame_size, "resize": resize, "poses": poses}
        self._window_given = window is not None
        self._set_window(window)
        if not self._per_epoch:
            raise OptionError(
                f"{dataset.folder}: {self.scenes} {split} scenes are fewer than a batch of {batch_size}; "
                "choose a smaller batch, or tail='pad' or 'exact'"
            )
        self._given = 0
        self.waited = 0.0
        # Weak: whoever iterates holds the workers, so they end with the loop.
        self._running: weakref.ref[Generator[Batch]] | None = None

    def _context(self, given: tuple[int, int] | str | None) -> tuple[int, int]:
        """The smallest and largest number of context views."""
        if given == "all":
            return self.views - 1, self.views - 1
        if isinstance(given, str):
            raise OptionError(f"context is {given!r}, expected the smallest and largest number, or all")
        if given is None:
            rows = [SCENE_SETS.get(dataset.manifest.scene_set) for dataset in self.datasets]
            most = [self.views - 1, *(row.context_views for row in rows if row is not None)]
            given = 1, min(most)
        return check_context(given, self.views)

    def _set_window(self, window: int | None) -> None:
        """Settles the order, and how scenes are read in it."""
        members, options = self._members, self._of_samples
        context = options["context"]
        used = self.views if context is None else 1 + sum(self.context) / 2
        members.read_in(window, seed=self.seed, shuffle=options["shuffle"], used=used)
        self._sampling = sampling = BatchSampler(members.sampled, weights=members.weights, **options)
        self.scenes = sampling.scenes
        self._per_epoch = sampling.batches
        self._stream: dict[str, int | str] = {"dataset": members.fingerprint, "split": members.split}
        self._stream |= sampling.identity
        if self._of_batches["poses"] != "sin_first":
            self._stream["poses"] = self._of_batches["poses"]
        self._order = self._stream | members.windows_identity
        self.reading: Reading | None = members.reading  # None from a disk
        self._maker = BatchMaker(
            members.datasets,
            sampling,
            rank=self._rank,
            ranks=self._ranks,
            at_once=_REQUESTS if self.reading == "range" else 1,
            **self._of_batches,
        )

    @property
    def fingerprint(self) -> str:
        """Tells scenes apart, not containers."""
        return self._members.fingerprint

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
        ring = Ring(under_way=max(1, _AHEAD * self.workers), spare=_HELD, size=self._maker.largest.bytes)
        making = _Making(self._maker, ring, Ring(under_way=max(1, self.workers), spare=0, size=16))
        with self._fetching_ahead() as fetcher, contextlib.closing(self._made(making, ring, fetcher)) as all_made:
            while True:
                asked = time.perf_counter()
                taken = next(all_made, None)
                self.waited += time.perf_counter() - asked
                if taken is None:
                    break
                ticket, made = taken
                if isinstance(made, GQNError):
                    raise made
                block = torch.from_numpy(ring.hand_out(ticket.block))
                # Counted before it is handed out: whoever holds the batch sees a state that goes on after it.
                self._given += 1
                yield _as_batch(made, block.pin_memory() if self._pin else block)
                del block, made, taken  # not held while the next batch is waited for
        self._given = 0  # all epochs are over; a new iteration begins anew

    def _fetching_ahead(self) -> contextlib.AbstractContextManager[WindowFetcher | None]:
        return self._members.fetching_ahead(self.epochs) or contextlib.nullcontext()

    def _position(self, number: int, within: int) -> Position:
        """Of a batch, counted over all epochs, the position of its first scene, or of the last: `within` 0 or 1."""
        epoch, batch = divmod(number, self._per_epoch)
        return Position(epoch, min((batch + within) * self.batch_size, self.scenes) - within)

    def _made(
        self, making: _Making, ring: Ring, fetcher: WindowFetcher | None
    ) -> Generator[tuple[BatchRequest, BatchShape | GQNError]]:
        end = None if self.epochs is None else self.epochs * self._per_epoch
        numbers = itertools.count(self._given) if end is None else iter(range(self._given, end))
        under_way: deque[BatchRequest] = deque()

        def tickets() -> Iterator[BatchRequest]:
            for number in numbers:
                if fetcher is not None:
                    fetcher.need(self._position(self._given, 0), self._position(number, 1))
                epoch, batch = divmod(number, self._per_epoch)
                under_way.append(BatchRequest(epoch=epoch, batch=batch, block=ring.take()))
                yield under_way[-1]

        if not self.workers:
            for ticket in tickets():
                yield under_way.popleft(), making(ticket)
            return

        def doing(worker: int) -> str:
            member, scene = making.at(worker)
            if scene < 0:
                return "before it had read a scene"
            return f"at {self._maker.place(member, scene)}"

        with WorkerPool(making, self.workers, start=self.start, begin=making.begin, doing=doing) as workers:
            for made in workers.in_order(tickets(), _AHEAD):
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
        # Also what is in the state and not here: an option that this stream was not given.
        self._check_same(state, dict.fromkeys((*self._stream, *(name for name in state if name not in _PLACE))))
        windows = state.get("windows", 1)
        if not self._window_given and type(windows) is int and self._members.may_have(windows):
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


def on_device(batches: Iterable[Batch], device: torch.device | str) -> Generator[Batch]:
    """The batches on a device, the copy of each going on while the device still works on those before.

    On a GPU every batch is copied from pinned memory on a stream of its own. Steps are only queued there, so this
    process asks for the next batch, and its copy begins, long before the step is done; a step that waits for the GPU
    (`loss.item()`) leaves nothing to overlap with. Nothing is taken ahead: the loader's `state_dict` stays exact.

    Args:
        batches: of a loader; with `pin_memory=True`, else they are pinned here.
        device: where to; on the CPU batches are passed on as they are.
    """
    device = torch.device(device)
    if device.type != "cuda":
        for batch in batches:
            yield batch.to(device)
            del batch  # not held while the next one is waited for
        return
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for batch in batches:
        pinned = batch if batch.frames.is_pinned() else batch.pin_memory()
        with torch.cuda.stream(copying):
            copied = pinned.to(device, non_blocking=True)
        working = torch.cuda.current_stream(device)
        working.wait_stream(copying)
        for part in copied:
            part.record_stream(working)  # its memory is used again when that stream is done with it, not before
        yield copied
        del batch, pinned, copied, part


def _start(wanted: Start | None, *, far: bool) -> Start:
    if wanted not in (None, "fork", "spawn"):
        raise OptionError(f"start is {wanted!r}, expected fork or spawn")
    if wanted == "fork" and far:
        raise OptionError("start is 'fork', but a store cannot be asked from a forked process: leave it out")
    return wanted or ("fork" if sys.platform == "linux" and not far else "spawn")


def _frame_size(wanted: int | None, height: int, width: int, how: Resize) -> int:
    if how not in ("area", "bilinear"):
        raise OptionError(f"resize is {how!r}, expected area or bilinear")
    if wanted is None:
        if height != width:
            raise OptionError(f"frames of {width}x{height} are not square; say frame_size")
        return height
    if wanted < 1:
        raise OptionError(f"frame_size is {wanted}, expected 1 or more")
    if how == "area" and wanted > min(height, width):
        raise OptionError(
            f"frames of {width}x{height} cannot be resized to {wanted} pixels by area: give fewer, or bilinear"
        )
    return wanted


def _as_batch(shape: BatchShape, block: torch.Tensor) -> Batch:
    frames, poses, views, scenes, datasets = (
        block[start : start + size].view(getattr(torch, name)).view(dimensions)
        for name, dimensions, start, size in shape.parts()
    )
    return Batch(frames=frames, poses=poses, views=views, scenes=scenes, datasets=datasets)
