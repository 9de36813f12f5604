"""Upper bound of the loader's rate: bare decoding of a dataset's frames, copying of its pixels, or rendering.

The benchmark compares the loader with it. It neither looks up scenes nor assembles batches, and calls the JPEG
library directly instead of through `schema.jpeg`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from gqn_data.bench.advice import Limit
from gqn_data.dataset import Dataset
from gqn_data.io import regular
from gqn_data.io.paths import RenderAddress, StorePath
from gqn_data.loader.worker_pool import Start, WorkerPool
from gqn_data.schema.jpeg import FRAMES_BEGIN

_SAMPLE_BYTES = 32 << 20  # of frames kept in memory
_SAMPLE_SCENES, _SAMPLE_REMOTE = 200, 20  # a scene in a store costs a request
_BLOCK = 64  # frames between two readings of the clock


def frames_memory(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return an array of zeros with the alignment of the frames of a batch."""
    count = int(np.prod(shape))
    memory = np.zeros(count + 64, np.uint8)
    start = (FRAMES_BEGIN - memory.ctypes.data) % 64
    return memory[start : start + count].reshape(shape)


def _rate(work: Callable[[], int], seconds: float) -> float:
    """Return the frames per second of `work`, repeated for that time.

    Args:
        work: processes some frames and returns their number.
        seconds: minimum duration.
    """
    work()  # warm up
    done, begin = 0, time.perf_counter()
    while True:
        done += work()
        taken = time.perf_counter() - begin
        if taken >= seconds:
            return done / taken


@dataclass(frozen=True)
class BareDecoding:
    """Decode the same JPEGs repeatedly into the memory of one frame.

    Attributes:
        jpegs: encoded frames.
        shape: shape of a frame.
    """

    jpegs: list[bytes]
    shape: tuple[int, ...]

    def __call__(self, seconds: float) -> float:
        """Run for that many seconds and return the frames per second."""
        out = frames_memory(self.shape)
        decode, jpegs = simplejpeg.decode_jpeg, itertools.cycle(self.jpegs)

        def block() -> int:
            for jpeg in itertools.islice(jpegs, _BLOCK):
                decode(jpeg, "RGB", buffer=out)
            return _BLOCK

        return _rate(block, seconds)


@dataclass(frozen=True)
class BareGathering:
    """Copy views of random scenes into the memory of a batch.

    Attributes:
        source: `.npy` files of shape (scenes, views, height, width, 3), or such an array.
        views: number of views copied per scene.
    """

    source: tuple[Path, ...] | NDArray[np.uint8]
    views: int

    def __call__(self, seconds: float) -> float:
        """Run for that many seconds and return the frames per second."""
        if isinstance(self.source, tuple):
            for path in self.source:
                regular.check_regular(path)
            arrays = [np.asarray(np.load(path, mmap_mode="r")) for path in self.source]
        else:
            arrays = [self.source]
        rng = np.random.default_rng()
        sizes = np.array([len(array) for array in arrays])
        _, slots, *frame = arrays[0].shape
        out = frames_memory((_BLOCK, self.views, *frame))

        def block() -> int:
            shards = rng.choice(len(arrays), _BLOCK, p=sizes / sizes.sum())
            scenes = rng.integers(0, sizes[shards])
            views = rng.permutation(slots)[: self.views]
            for row, shard, scene in zip(out, shards.tolist(), scenes.tolist()):
                np.take(arrays[shard][scene], views, axis=0, out=row, mode="clip")
            return _BLOCK * self.views

        return _rate(block, seconds)


@dataclass(frozen=True)
class BareRendering:
    """Render whole scenes, one after the other.

    Attributes:
        dataset: scenes that are rendered on access.
    """

    dataset: Dataset

    def __call__(self, seconds: float) -> float:
        """Run for that many seconds and return the frames per second."""
        numbers, views = itertools.count(), self.dataset.layout.views

        def scene() -> int:
            return len(self.dataset[next(numbers)].frames[:views])

        return _rate(scene, seconds)


Bare = BareDecoding | BareGathering | BareRendering


def bare_work(dataset: Dataset, views: int) -> Bare:
    """Return the bare work of loading a dataset.

    Args:
        dataset: one split.
        views: number of views used per scene.

    Raises:
        GQNError: a scene cannot be read.
    """
    layout = dataset.layout
    if isinstance(dataset.folder, RenderAddress):
        return BareRendering(dataset)
    if dataset.manifest.format == "numpy" and isinstance(dataset.folder, Path):
        return BareGathering(tuple(dataset.folder / shard.files[0].name for shard in dataset.shards), views)
    samples = _SAMPLE_REMOTE if isinstance(dataset.folder, StorePath) else _SAMPLE_SCENES
    numbers = np.unique(np.linspace(0, len(dataset) - 1, samples).astype(int)).tolist()
    jpegs: list[bytes] = []
    pixels: list[NDArray[np.uint8]] = []
    size = 0
    for number in numbers:
        scene = dataset[number]
        if scene.encoded is None:
            pixels.append(scene.frames)
            size += scene.frames.nbytes
        else:
            jpegs += [bytes(jpeg) for jpeg in scene.encoded[:views]]
            size = sum(map(len, jpegs))
        if size >= _SAMPLE_BYTES:
            break
    return BareGathering(np.stack(pixels), views) if pixels else BareDecoding(jpegs, layout.frames_shape[1:])


def kind_of(bare: Bare) -> Limit:
    """Return the kind of the bare work."""
    return {BareDecoding: "decoding", BareGathering: "gathering", BareRendering: "rendering"}[type(bare)]  # type: ignore[return-value]


def limit(bare: Bare, processes: int, seconds: float, start: Start) -> float:
    """Measure the frames per second of bare work in several processes.

    Args:
        bare: the work, from `bare_work`.
        processes: number of processes, at least one.
        seconds: approximate duration.
        start: how processes are started.
    """
    with WorkerPool(bare, processes, start=start) as workers:
        for _ in workers.in_order(iter([0.0] * processes), 1):
            pass  # every process has started, so that all measure at the same time
        return sum(workers.in_order(iter([seconds] * processes), 1))
