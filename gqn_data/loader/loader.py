"""Batches of scenes for PyTorch, from any container; the only file of gqn_data that imports torch.

    for batch in SceneLoader("data/zarr/rooms_ring_camera", batch_size=36, workers=4):
        ...

The stream of scenes and views depends on the dataset, the seed, the batch size and the number of targets. It does not
depend on the number of workers, on interruptions, or on the location of the dataset. Worker processes decode only the
views that a batch uses, into memory shared with this process. Scenes of a large dataset in a store come in windows of
shards, from a local cache or by ranged reads (docs/streaming.md). See docs/loader.md for examples.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import sys
import time
import warnings
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from gqn_data.cache.policy import Reading, Remote
from gqn_data.cache.prefetch import Position, WindowFetcher
from gqn_data.counts import as_array, as_count, as_flag
from gqn_data.errors import GQNError, IterationEnded, OptionError
from gqn_data.loader.batch_maker import BatchMaker, BatchRequest, BatchShape, BatchWorker
from gqn_data.loader.datasets import DatasetMixture, Paths
from gqn_data.loader.shared_memory import Ring
from gqn_data.loader.worker_pool import Start, WorkerPool
from gqn_data.sampling.batch_sampler import BatchSampler, Tail
from gqn_data.sampling.permutation import ENDLESS
from gqn_data.sampling.views import ContextPer, check_context
from gqn_data.schema.cameras import PoseOrder, pose_fields
from gqn_data.schema.catalog import SCENE_SETS, Split
from gqn_data.schema.jpeg import Fit, Resize, square_side

_AHEAD = 2  # batches that each worker makes in advance
_REQUESTS = 16  # scenes of a batch that are read by range at the same time
_HELD = 3  # blocks for batches that the consumer holds while the next ones are made
_NO_DATA_LOADER = (
    "found a SceneLoader inside torch's DataLoader, expected a loop over the SceneLoader, which yields whole batches. "
    "Use SceneLoader(..., batch_size=B, workers=N) in place of DataLoader"
)
_POSITION = ("epoch", "batches", "windows", "shards")  # keys of a state that are not options of the stream


class Batch(NamedTuple):
    """A batch of B scenes, each with up to S = 1 + K views of H by W pixels.

    The first view is the query, the others are the context. With `context="all"` they are all views in order. With
    several targets a scene, the batch is a `TargetsBatch`.

    Attributes:
        frames: uint8 (B, S, H, W, 3); zeros in empty slots.
        poses: float32 (B, S, 7): x, y, z, sin yaw, cos yaw, sin pitch, cos pitch; zeros in empty slots. Cameras with
            other than DeepMind's five numbers are passed through unchanged (see `SceneLoader.pose_fields`).
        views: int64 (B, S), numbers of the views in the scene; -1 in empty slots.
        scenes: int64 (B,), numbers of the scenes in the split; -1 for padding.
        datasets: int64 (B,), numbers of the scenes' datasets, in the loader's order; -1 for padding.
    """

    frames: torch.Tensor
    poses: torch.Tensor
    views: torch.Tensor
    scenes: torch.Tensor
    datasets: torch.Tensor

    @property
    def target(self) -> torch.Tensor:
        """The true frame of the query, uint8 (B, H, W, 3)."""
        return self.frames[:, 0]

    @property
    def query_pose(self) -> torch.Tensor:
        """The camera of the query, float32 (B, 7)."""
        return self.poses[:, 0]

    @property
    def _targets(self) -> int:
        """Number of queries: the views before the context."""
        return 1

    @property
    def context_frames(self) -> torch.Tensor:
        """The observed frames, uint8 (B, K, H, W, 3)."""
        return self.frames[:, self._targets :]

    @property
    def context_poses(self) -> torch.Tensor:
        """Their cameras, float32 (B, K, 7)."""
        return self.poses[:, self._targets :]

    @property
    def context_mask(self) -> torch.Tensor:
        """Bool (B, K); False for empty slots."""
        return self.views[:, self._targets :] >= 0

    @property
    def valid(self) -> torch.Tensor:
        """Bool (B,); False for padding (`tail="pad"`), whose frames and poses are zeros."""
        return self.scenes >= 0

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """Return the batch on another device."""
        return type(self)(*(part.to(device, non_blocking=non_blocking) for part in self))

    def pin_memory(self) -> Batch:
        """Return the batch in pinned host memory, so that copies to a GPU overlap with its work."""
        return type(self)(*(part.pin_memory() for part in self))


class _SixParts(NamedTuple):
    """The fields of a `TargetsBatch`."""

    frames: torch.Tensor
    poses: torch.Tensor
    views: torch.Tensor
    scenes: torch.Tensor
    datasets: torch.Tensor
    queries: torch.Tensor


class TargetsBatch(_SixParts, Batch):  # type: ignore[misc]  # two tuples without other slots fit together
    """A batch of B scenes with T > 1 queries each: the first T of S = T + K views; the context comes after them.

    The number of targets is in the shape of `queries`, so that it survives slices and copies of all fields.

    Attributes:
        frames, poses, views, scenes, datasets: as in `Batch`.
        queries: int64 (B, T), numbers of the queries' views, the first T of `views`; -1 for padding.
    """

    __slots__ = ()

    @property
    def _targets(self) -> int:
        return self.queries.shape[1]

    @property
    def target(self) -> torch.Tensor:
        """The true frames of the queries, uint8 (B, T, H, W, 3)."""
        return self.frames[:, : self._targets]

    @property
    def query_pose(self) -> torch.Tensor:
        """The cameras of the queries, float32 (B, T, 7)."""
        return self.poses[:, : self._targets]


@dataclass(frozen=True, kw_only=True)
class _Options:
    """The options that decide what a batch holds; those of `SceneLoader`, with defaults resolved.

    Attributes:
        context: smallest and largest number of context views; None for all views of a scene in order.
        samples: as given, as an array.
        shuffle: False for a list of samples.
        frame_size: height and width of frames in pixels.
    """

    batch_size: int
    context: tuple[int, int] | None
    context_per: ContextPer
    targets: int
    samples: NDArray[np.int64] | None
    epoch_scenes: int | None
    seed: int
    shuffle: bool
    tail: Tail
    frame_size: int
    resize: Resize
    fit: Fit | None
    poses: PoseOrder
    rank: int
    ranks: int


class SceneLoader:
    """Iterate over batches of scenes of one split in a reproducible order.

    Each scene comes exactly once per epoch. Its number of context views, its views and its query are drawn for each
    epoch from (seed, epoch, scene); a query is not among the context views.

    Args:
        path: the folder or URL of a dataset, or of an indexed raw folder; or the address of scenes that the workers
            render on demand, `render:SET` or `render:SET,scenes=N,seed=S`. Without a number of scenes, those are
            endless and come in the order of their numbers. To mix several: a list, so that each scene comes once per
            epoch, or a mapping of each to its weight.
        batch_size: scenes per batch, over all ranks.
        split: `train` or `test`.
        context: smallest and largest number of context views; None for 1 to the paper's number for the set, or 1 to
            all views but the queries for a set outside the catalogue. `all` gives all views of a scene in order
            (`Batch.frames`, `Batch.poses`).
        context_per: draw the number of context views per `scene`, or per `batch`; then K is that number.
        targets: T, queries per scene, all different. With more than one, batches are `TargetsBatch`: `target` is
            (B, T, H, W, 3) and `query_pose` (B, T, 7). The context and the first query are those of one target.
        samples: (N, 1 + T + K) integers: scene, queries and context views of each sample, -1 for fewer context views.
            Samples come in this order in every epoch; `context` and `shuffle` are ignored.
        scenes: numbers of the scenes to use, each once; None for all. In rising order unless shuffled. For one
            dataset.
        seed: seed of the order and of the choice of views.
        workers: number of processes that read and decode; 0 to do it in this process.
        start: how workers are started: `fork` or `spawn`. None for `fork` on Linux, and for `spawn` elsewhere or if a
            dataset is in a store, which a forked process cannot read.
        shuffle: permute the scenes of each epoch, or keep them in source order.
        epochs: number of epochs; None for no limit.
        epoch_scenes: scenes per epoch of several datasets; None for the sum of their scenes.
        frame_size: resize frames to this height and width in pixels; None to keep their size.
        resize: `area` or `bilinear`, see `gqn_data.schema.jpeg.resize`.
        fit: `crop` or `pad` for frames that are not square (`gqn_data.schema.jpeg.make_square`); None to refuse them.
        poses: `sin_first`, as in DeepMind's reader; `cos_first`, as in many PyTorch trainers; `raw`, the cameras.
        rank: the slice of each batch that this process takes.
        ranks: number of slices; divides `batch_size`.
        tail: what happens to an incomplete last batch of an epoch: `drop` it; `pad` it with rows that are not
            `valid`; `exact`, yield it shorter, with its scenes divided among the ranks as evenly as possible.
        pin_memory: yield batches in pinned memory.
        window: shards per window. Scenes are shuffled within a window, and windows follow each other. None for all
            shards on a disk, and for 8 GB of shards in a store.
        remote: how a dataset in a store is read: `cache`, by copies of whole files; `range`, only the views of a
            batch; `auto`, the cheaper of the two.
        cache: the folder of copies; None for `$GQN_CACHE`, else `~/.cache/gqn-toolkit`.
        cache_gb: maximum size of the cache in GB; None for 50, or half of the free disk space if that is less.

    Attributes:
        waited: total seconds spent waiting for batches. Pinning and copying, which may wait for the GPU, do not count.

    Raises:
        OptionError: the dataset does not allow a value.
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
        targets: int = 1,
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
        fit: Fit | None = None,
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
        batch_size, workers = as_count("batch_size", batch_size, 1), as_count("workers", workers, 0)
        ranks, seed = as_count("ranks", ranks, 1), as_count("seed", seed)
        window, epochs = (
            None if value is None else as_count(name, value, 1)
            for name, value in (("window", window), ("epochs", epochs))
        )
        if batch_size % ranks:
            raise OptionError(f"batch_size is {batch_size}, expected a multiple of ranks, {ranks}")
        rank = as_count("rank", rank, 0, ranks - 1)
        shuffle, pin_memory = as_flag("shuffle", shuffle), as_flag("pin_memory", pin_memory)
        if pin_memory and not torch.cuda.is_available():
            raise OptionError("pin_memory is True, but torch cannot find a GPU; leave it out")
        self._mixture = mixture = DatasetMixture(
            path, split, scenes=scenes, remote=remote, cache=cache, cache_gb=cache_gb, listed=samples is not None
        )
        dataset = mixture.datasets[0]
        self.datasets = mixture.datasets
        self.dataset = dataset
        self.views = min(each.layout.views for each in mixture.datasets)
        self.scene_set = dataset.manifest.scene_set
        self.pose_fields = pose_fields(dataset.layout.camera_fields, poses)
        self.targets = as_count("targets", targets, 1)
        self.context = self._resolve_context(context)
        layouts = [each.layout for each in mixture.datasets]
        if frame_size is not None:
            frame_size = as_count("frame_size", frame_size, 1)
        self.frame_size, *_ = [
            _resolve_frame_size(frame_size, each.height, each.width, resize, fit) for each in layouts
        ]
        mixture.check_compatible(resized=frame_size is not None)
        self.batch_size = batch_size
        self.seed = seed
        self.workers = workers
        self.epochs = epochs
        self.start: Start = _resolve_start(start, remote=mixture.any_remote)
        self._pin = pin_memory
        self._options = _Options(
            batch_size=batch_size,
            context=None if isinstance(context, str) else self.context,
            context_per=context_per,
            targets=self.targets,
            samples=None if samples is None else as_array("samples", samples),
            epoch_scenes=epoch_scenes,
            seed=seed,
            shuffle=shuffle and samples is None,
            tail=tail,
            frame_size=self.frame_size,
            resize=resize,
            fit=fit,
            poses=poses,
            rank=rank,
            ranks=ranks,
        )
        self._window_given = window is not None
        self._set_window(window)
        if epochs is not None and self.is_endless:
            raise OptionError(
                f"{dataset.folder}: epochs is {epochs}, expected None: the scenes are endless. "
                "Give a number of scenes, as in render:SET,scenes=N"
            )
        if not self._per_epoch:
            raise OptionError(
                f"{dataset.folder}: {self.scenes} {split} scenes are fewer than a batch of {batch_size}. "
                f"Pass batch_size={self.scenes} or less, or tail='pad' or 'exact'"
            )
        self._delivered = 0  # batches, over all epochs
        self._is_loaded = False  # a state was loaded, and not iterated from
        self.waited = 0.0
        # Weak: the caller's iterator holds the workers, so that they end with the loop.
        self._running: weakref.ref[_Iteration] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy has the same position. Its iterations and workers are its own.
        return {**self.__dict__, "_running": None}

    def __copy__(self) -> Self:
        return copy.deepcopy(self)

    def _resolve_context(self, given: tuple[int, int] | str | None) -> tuple[int, int]:
        """Return the smallest and largest number of context views."""
        if isinstance(given, str) and given == "all":
            return self.views - 1, self.views - 1
        if given is None:
            rows = [SCENE_SETS.get(dataset.manifest.scene_set) for dataset in self.datasets]
            limits = [self.views - self.targets, *(row.context_views for row in rows if row is not None)]
            given = 1, max(1, min(limits))
        return check_context(given, self.views, self.targets)

    def _set_window(self, window: int | None) -> None:
        """Set the order of scenes, and how they are read in it."""
        mixture, options = self._mixture, self._options
        used_views = self.views if options.context is None else self.targets + sum(self.context) / 2
        mixture.set_order(window, seed=options.seed, shuffle=options.shuffle, used_views=used_views)
        sampler = BatchSampler(
            mixture.members,
            weights=mixture.weights,
            batch_size=options.batch_size,
            context=options.context,
            context_per=options.context_per,
            targets=options.targets,
            samples=options.samples,
            epoch_scenes=options.epoch_scenes,
            seed=options.seed,
            shuffle=options.shuffle,
            tail=options.tail,
        )
        self.scenes = sampler.scenes
        self._per_epoch = sampler.batches
        self._stream: dict[str, int | str] = {"dataset": mixture.fingerprint, "split": mixture.split}
        self._stream |= sampler.identity
        if options.poses != "sin_first":
            self._stream["poses"] = options.poses
        self._order = self._stream | mixture.windows_identity
        self.reading: Reading | None = mixture.reading  # None for datasets on a disk
        self._maker = BatchMaker(
            mixture.datasets,
            sampler,
            size=options.frame_size,
            resize=options.resize,
            fit=options.fit,
            poses=options.poses,
            rank=options.rank,
            ranks=options.ranks,
            threads=_REQUESTS if self.reading == "range" else 1,
        )

    @property
    def fingerprint(self) -> str:
        """Identifies the scenes; the same for all containers."""
        return self._mixture.fingerprint

    @property
    def is_endless(self) -> bool:
        """Whether the scenes are endless, so that `len` raises: the first epoch does not end."""
        return self.scenes == ENDLESS

    def __len__(self) -> int:
        """Return the number of batches per epoch.

        Raises:
            EndlessError: the scenes are endless. It is a `TypeError`, as for any object without a length.
        """
        if self.is_endless:
            len(self.dataset)  # raises
        return self._per_epoch

    def __iter__(self) -> Iterator[Batch]:
        """Iterate from the current position: after the last batch delivered, or from the loaded state.

        After the last batch of `epochs`, the next iteration starts with the first epoch. If a loaded state is at the
        end, one iteration is empty, with a warning. A loader has one iteration at a time: a new one ends the old one.

        Raises:
            OptionError: this is a worker process of torch's `DataLoader`; each would yield all scenes.
            IterationEnded: raised by the old iterator, if it is asked for another batch.
        """
        if torch.utils.data.get_worker_info() is not None:
            raise OptionError(_NO_DATA_LOADER)
        self._end_iteration("a newer iteration of the same loader. For two at once, use copy.deepcopy(loader)")
        if self._is_over and self._is_loaded:
            warnings.warn(
                f"the loaded state is at the end of {self.epochs} epochs: this iteration yields no batches, and the "
                "next one starts with the first epoch",
                stacklevel=2,
            )
        elif self._is_over:
            self._delivered = 0
        self._is_loaded = False
        iteration = _Iteration(self._run())
        self._running = weakref.ref(iteration)
        return iteration

    def __getitem__(self, index: object) -> NoReturn:
        """Raise; torch's `DataLoader` indexes what it is given.

        Raises:
            OptionError: always.
        """
        raise OptionError(_NO_DATA_LOADER)

    @property
    def _end(self) -> int | None:
        """Number of batches in all epochs; None for no limit."""
        return None if self.epochs is None else self.epochs * self._per_epoch

    @property
    def _is_over(self) -> bool:
        """Whether the last batch of all epochs was delivered."""
        return self._end is not None and self._delivered >= self._end

    def _run(self) -> Generator[Batch]:
        end = self._end
        if self._is_over:
            return
        for dataset in self.datasets:
            dataset.prepare()
        # Enough blocks for the batches that workers make in advance, and for some that the consumer holds.
        ring = Ring(under_way=max(1, _AHEAD * self.workers), spare=_HELD, size=self._maker.largest.bytes)
        worker = BatchWorker(self._maker, ring, self.workers)
        fetching = self._mixture.window_fetcher(self.epochs) or contextlib.nullcontext()
        # The workers end with the last batch. Prefetching ends after it: other ranks may wait for its files.
        with fetching as fetcher:
            with contextlib.closing(self._results(worker, ring, fetcher, end)) as results:
                while True:
                    asked = time.perf_counter()
                    request, result = next(results)
                    self.waited += time.perf_counter() - asked
                    if isinstance(result, GQNError):
                        raise result
                    block = torch.from_numpy(ring.hand_out(request.block))
                    if self._pin:
                        block = block.pin_memory()
                    # Counted before the batch is yielded, so that the state of its holder continues after it.
                    self._delivered += 1
                    if self._delivered == end:
                        break
                    yield _as_batch(result, block)
                    del block, result  # not held while waiting for the next batch
            yield _as_batch(result, block)

    def _position(self, number: int, within: int) -> Position:
        """Return the position of a batch's first scene (`within` 0) or last scene (1).

        Args:
            number: number of the batch over all epochs.
            within: 0 or 1.
        """
        epoch, batch = divmod(number, self._per_epoch)
        return Position(epoch, min((batch + within) * self.batch_size, self.scenes) - within)

    def _results(
        self, worker: BatchWorker, ring: Ring, fetcher: WindowFetcher | None, end: int | None
    ) -> Generator[tuple[BatchRequest, BatchShape | GQNError]]:
        """Yield each request with its result, made in this process or by worker processes."""
        numbers = itertools.count(self._delivered) if end is None else iter(range(self._delivered, end))
        under_way: deque[BatchRequest] = deque()

        def requests() -> Iterator[BatchRequest]:
            for number in numbers:
                if fetcher is not None:
                    fetcher.need(self._position(self._delivered, 0), self._position(number, 1))
                epoch, batch = divmod(number, self._per_epoch)
                under_way.append(BatchRequest(epoch=epoch, batch=batch, block=ring.take()))
                yield under_way[-1]

        if not self.workers:
            for request in requests():
                yield under_way.popleft(), worker(request)
            return
        with WorkerPool(
            worker, self.workers, start=self.start, begin=worker.begin, describe=worker.last_scene
        ) as workers:
            for result in workers.in_order(requests(), _AHEAD):
                yield under_way.popleft(), result

    def state_dict(self) -> dict[str, int | str]:
        """Return the position: the dataset and order that it belongs to, and the batches delivered."""
        epoch, batches = divmod(self._delivered, self._per_epoch)
        return {**self._order, "epoch": epoch, "batches": batches}

    def load_state_dict(self, state: Mapping[str, int | str]) -> None:
        """Continue from a state; immediate at any position. The next iteration uses it, and ends the current one.

        Raises:
            OptionError: the state is malformed, or of another dataset or order; the message lists the differences.
        """
        if not isinstance(state, Mapping):
            raise OptionError(
                f"the loader state is a {type(state).__name__}, expected the mapping that state_dict returns"
            )
        # Keys that only the state has are differences, too: this stream was not given that option.
        self._check_same(state, dict.fromkeys((*self._stream, *(name for name in state if name not in _POSITION))))
        windows = state.get("windows", 1)
        if not self._window_given and type(windows) is int and self._mixture.accepts_windows(windows):
            # `window` was left to the default here, so the windows of the state are kept.
            self._set_window(-(-len(self.dataset.shards) // windows))
        self._check_same(state, ("windows", "shards"))
        epoch, batches = state.get("epoch"), state.get("batches")
        # By type, not isinstance: True is an int, but not a position.
        if type(epoch) is not int or type(batches) is not int or epoch < 0 or not 0 <= batches < self._per_epoch:
            raise OptionError(
                f"the loader state has epoch {epoch!r} and batches {batches!r}, "
                f"expected an epoch from 0 and batches from 0 to {self._per_epoch - 1}"
            )
        self._end_iteration("load_state_dict")
        self._delivered = epoch * self._per_epoch + batches
        self._is_loaded = True

    def _check_same(self, state: Mapping[str, int | str], names: Iterable[str]) -> None:
        """Raise unless a state agrees with this stream in all of `names`."""
        differing = [
            f"{name} {state.get(name)!r}, here {self._order.get(name)!r}"
            for name in names
            if state.get(name) != self._order.get(name)
        ]
        if differing:
            raise OptionError(f"the loader state is of another stream: {'; '.join(differing)}")

    def close(self) -> None:
        """End the current iteration and its workers; the loader can be iterated again."""
        self._end_iteration("")

    def _end_iteration(self, by: str) -> None:
        """End the current iteration; if batches are left and `by` says what ended it, its iterator raises that."""
        running = None if self._running is None else self._running()
        self._running = None
        if running is not None:
            running.close("" if self._is_over else by)


class _Iteration(Iterator[Batch]):
    """One iteration of a loader; it ends with its last reference.

    Args:
        batches: the batches.
    """

    def __init__(self, batches: Generator[Batch]) -> None:
        self._batches = batches
        self._process = os.getpid()
        self._ended_by = ""

    def __next__(self) -> Batch:
        if self._ended_by:
            raise IterationEnded(f"this iteration was ended before its last batch by {self._ended_by}")
        if os.getpid() != self._process:
            raise OptionError(
                f"this iteration was started in process {self._process}, found process {os.getpid()}: each would yield "
                "the same scenes. Iterate the loader in one process; SceneLoader(..., workers=N) starts its own"
            )
        return next(self._batches)

    def close(self, by: str = "") -> None:
        """End the iteration.

        Args:
            by: what ends it before its last batch, for the error of the next call; empty if the caller wants the end.
        """
        self._ended_by = by
        self._batches.close()


def on_device(batches: Iterable[Batch], device: torch.device | str) -> Generator[Batch]:
    """Yield batches on a device; on a GPU, copies overlap with the work on earlier batches.

    Each batch is copied from pinned memory on a separate stream. Training steps are only queued on the GPU, so the next
    batch is requested and copied long before the step is done. A step that waits for the GPU (`loss.item()`) prevents
    the overlap. Batches are not read in advance, so the loader's `state_dict` stays exact.

    Args:
        batches: batches of a loader, preferably with `pin_memory=True`; others are pinned here.
        device: the device; on the CPU batches are passed through unchanged.
    """
    device = torch.device(device)
    if device.type != "cuda":
        for batch in batches:
            yield batch.to(device)
            del batch  # not held while waiting for the next one
        return
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for batch in batches:
        pinned = batch if batch.frames.is_pinned() else batch.pin_memory()
        with torch.cuda.stream(copying):
            copied = pinned.to(device, non_blocking=True)
        working = torch.cuda.current_stream(device)
        working.wait_stream(copying)
        for part in copied:
            part.record_stream(working)  # keep its memory until that stream is done with it
        yield copied
        del batch, pinned, copied, part


def _resolve_start(wanted: Start | None, *, remote: bool) -> Start:
    """Return how workers are started."""
    if wanted not in (None, "fork", "spawn"):
        raise OptionError(f"start is {wanted!r}, expected fork or spawn")
    if wanted == "fork" and remote:
        raise OptionError("start is 'fork', but a forked process cannot read an object store; leave it out")
    return wanted or ("fork" if sys.platform == "linux" and not remote else "spawn")


def _resolve_frame_size(wanted: int | None, height: int, width: int, resize: Resize, fit: Fit | None) -> int:
    """Return the height and width of the frames of a batch in pixels."""
    if resize not in ("area", "bilinear"):
        raise OptionError(f"resize is {resize!r}, expected area or bilinear")
    if height != width and fit is None:
        raise OptionError(f"frames of {width}x{height} are not square, expected fit='crop' or fit='pad'")
    side = height if fit is None else square_side(height, width, fit)
    if wanted is None:
        return side
    if resize == "area" and wanted > side:
        raise OptionError(
            f"frame_size is {wanted}, expected {side} or less for frames of {width}x{height}. "
            "Pass resize='bilinear' to enlarge them"
        )
    return wanted


def _as_batch(shape: BatchShape, block: torch.Tensor) -> Batch:
    parts = (
        block[start : start + size].view(getattr(torch, name)).view(dimensions)
        for name, dimensions, start, size in shape.parts()
    )
    return Batch(*parts) if shape.targets == 1 else TargetsBatch(*parts)
