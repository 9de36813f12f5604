"""What this machine could do at most with the frames of a dataset: bare decoding, or bare copying of pixels.

No scene is looked up and no batch is made: the yardstick that `bench` holds the loader against. The decoder is called
bare as well, not through `images`. Imports `dataset`, `images`, `loading`, `stores`.
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
from gqn_data.io.paths import StorePath
from gqn_data.loader.worker_pool import Start, WorkerPool
from gqn_data.schema.jpeg import FRAMES_BEGIN

_SAMPLE_BYTES = 32 << 20  # of frames that are kept at hand
_SAMPLE_SCENES, _SAMPLE_FAR = 200, 20  # a scene in a store is a request
_BLOCK = 64  # frames between two looks at the clock


def frames_memory(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """An array that begins as the frames of a batch do."""
    count = int(np.prod(shape))
    memory = np.zeros(count + 64, np.uint8)
    start = (FRAMES_BEGIN - memory.ctypes.data) % 64
    return memory[start : start + count].reshape(shape)


def _rate(one: Callable[[], int], seconds: float) -> float:
    """Frames a second of `one`, which tells how many it did, called again and again for so long."""
    one()  # in cold memory
    done, begin = 0, time.perf_counter()
    while True:
        done += one()
        taken = time.perf_counter() - begin
        if taken >= seconds:
            return done / taken


@dataclass(frozen=True)
class BareDecoding:
    """Decodes the same frames again and again, into one frame's memory; told seconds, gives frames a second.

    Attributes:
        jpegs: their bytes.
        shape: of a frame.
    """

    jpegs: list[bytes]
    shape: tuple[int, ...]

    def __call__(self, seconds: float) -> float:
        """Frames a second."""
        out = frames_memory(self.shape)
        decode, jpegs = simplejpeg.decode_jpeg, itertools.cycle(self.jpegs)

        def block() -> int:
            for jpeg in itertools.islice(jpegs, _BLOCK):
                decode(jpeg, "RGB", buffer=out)
            return _BLOCK

        return _rate(block, seconds)


@dataclass(frozen=True)
class BareGathering:
    """Copies views of scenes, drawn at random, into memory for a batch; told seconds, gives frames a second.

    Attributes:
        source: `.npy` files (scenes, views, height, width, 3), or such an array.
        views: copied of each scene.
    """

    source: tuple[Path, ...] | NDArray[np.uint8]
    views: int

    def __call__(self, seconds: float) -> float:
        """Frames a second."""
        if isinstance(self.source, tuple):
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


Bare = BareDecoding | BareGathering


def bare_work(dataset: Dataset, views: int) -> Bare:
    """The bare work that a dataset's batches consist of.

    Args:
        dataset: one split.
        views: used of each scene.

    Raises:
        GQNError: scenes cannot be read.
    """
    layout = dataset.layout
    if dataset.manifest.format == "numpy" and isinstance(dataset.folder, Path):
        return BareGathering(tuple(dataset.folder / shard.files[0].name for shard in dataset.shards), views)
    most = _SAMPLE_FAR if isinstance(dataset.folder, StorePath) else _SAMPLE_SCENES
    numbers = np.unique(np.linspace(0, len(dataset) - 1, most).astype(int)).tolist()
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
    """What the limit is of."""
    return "decoding" if isinstance(bare, BareDecoding) else "gathering"


def limit(bare: Bare, processes: int, seconds: float, start: Start) -> float:
    """Frames a second of bare work in so many processes at once.

    Args:
        bare: from `bare_work`.
        processes: at least one.
        seconds: about how long.
        start: how processes are started.
    """
    with WorkerPool(bare, processes, start=start) as workers:
        for _ in workers.in_order(iter([0.0] * processes), 1):
            pass  # now all are there, and begin at the same time
        return sum(workers.in_order(iter([seconds] * processes), 1))
