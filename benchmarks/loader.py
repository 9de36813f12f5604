"""The loader against its limits: bare decoding, and a bare gather of pixels; each pair in one run.

Run with: python -m benchmarks.loader

Of JPEG containers the yardstick is bare `simplejpeg.decode_jpeg` of frames that are in memory, in random order, into
one small buffer, in as many processes as the loader has workers. The buffer begins 16 bytes off a cache line: at a
multiple of 32 bytes libjpeg-turbo writes past the caches, and the yardstick would be slower by a fifth. Of the numpy
container it is numpy's gather of as many random views from a mapped array into one array that was used before. Batches
of 36 scenes, five context views and a query: six of ten views; of scenes of 300 views, 21.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from benchmarks.scenes import HEADER, SET, raw_rooms, raw_scenes, row, side_by_side
from gqn_data.bench.ceiling import frames_memory
from gqn_data.convert import convert
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.plan import Options
from gqn_data.dataset import Dataset, open_dataset
from gqn_data.loader import SceneLoader

_BATCH = 36
_CONTEXT = 5
_MANY_VIEWS, _MANY_USED, _MANY_SIZE = 300, 21, 84
_IN_MEMORY = 60_000  # frames that the yardstick decodes: as many as the loader goes through, and more than caches hold


def _decode(dataset: Dataset, frames: int, ready: Callable[[], Any]) -> None:
    pick = random.Random(0)
    encoded: list[bytes] = []
    while len(encoded) < _IN_MEMORY:
        views = dataset[pick.randrange(len(dataset))].encoded
        assert views is not None
        encoded += [bytes(view) for view in views]
    pick.shuffle(encoded)
    buffer = frames_memory(dataset.layout.frames_shape[1:])
    decode, count = simplejpeg.decode_jpeg, len(encoded)
    ready()
    for number in range(frames):
        decode(encoded[number % count], "RGB", buffer=buffer)
    ready()


def _gather(dataset: Dataset, frames: int, ready: Callable[[], Any]) -> None:
    (name,) = [file.name for file in dataset.shards[0].files if "frames" in file.name]
    pixels = np.load(Path(str(dataset.folder)) / name, mmap_mode="r")
    views = pixels.reshape(-1, *pixels.shape[2:])
    batch = np.empty((_BATCH * (1 + _CONTEXT), *views.shape[1:]), np.uint8)
    wanted = np.random.default_rng(0).integers(0, len(views), (max(1, frames // len(batch)), len(batch)))
    views.take(wanted[0], axis=0, out=batch, mode="clip")
    ready()
    for of_batch in wanted:
        views.take(of_batch, axis=0, out=batch, mode="clip")  # any other mode makes a copy first
    ready()


def limit(path: Path, processes: int, frames: int) -> float:
    """Frames/s at best, in so many processes."""
    dataset = open_dataset(path)
    work = _gather if dataset.manifest.format == "numpy" else _decode
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(processes + 1)
    share = frames // processes
    workers = [context.Process(target=work, args=(dataset, share, barrier.wait)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    barrier.wait()
    begin = time.perf_counter()
    barrier.wait()
    seconds = time.perf_counter() - begin
    for worker in workers:
        worker.join()
    return share * processes / seconds


def loader_rate(path: Path, workers: int, frames: int, context: int = _CONTEXT, batch: int = _BATCH) -> float:
    """Frames/s that the loader hands out, after its first batches."""
    per_batch = batch * (1 + context)
    loader = SceneLoader(path, batch_size=batch, context=(context, context), workers=workers)
    batches = iter(loader)
    for _ in range(8 + 4 * workers):  # until every block of memory was used once
        next(batches)
    count = max(10, frames // per_batch)
    begin = time.perf_counter()
    for _ in range(count):
        next(batches)
    seconds = time.perf_counter() - begin
    loader.close()
    return count * per_batch / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=10_000)
    parser.add_argument("--frames", type=int, default=80_000, help="frames to decode in one run")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="keep the source files here, for another run")
    options = parser.parse_args()
    with raw_rooms(options.scenes, options.folder) as raw, tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        convert(raw.folder, SET, root, Options(formats=("zarr", "webdataset", "numpy"), shard_bytes=4 << 30))
        index_raw_folder(raw, workers=2)
        print(f"{options.scenes:,} scenes, batches of {_BATCH}, {1 + _CONTEXT} of {raw.layout.views} views; medians")
        print(HEADER)
        places = {
            "zarr": root / "zarr" / SET.name,
            "webdataset": root / "webdataset" / SET.name,
            "tfrecord": raw.folder,
            "numpy": root / "numpy" / SET.name,
        }
        for name, path in places.items():
            pixels = name == "numpy"
            frames = options.frames * (4 if pixels else 1)
            for workers in (0, 1, 2) if pixels else (1, 2):
                figures = side_by_side(
                    lambda path=path, workers=workers: limit(path, max(1, workers), frames),  # type: ignore[misc]  # noqa: B023
                    lambda path=path, workers=workers: loader_rate(path, workers, frames),  # type: ignore[misc]  # noqa: B023
                    options.runs,
                )
                label = f"{name}, {workers} worker{'s'[: workers != 1]}"
                print(row(label, "frames/s", figures, 0.8 if pixels else 0.85), flush=True)
    with (
        raw_scenes(SET, 400, rendered=20, views=_MANY_VIEWS, frame_size=_MANY_SIZE) as raw,
        tempfile.TemporaryDirectory() as scratch,
    ):
        convert(raw.folder, SET, Path(scratch), Options(formats=("zarr",)))
        path, frames = Path(scratch) / "zarr" / SET.name, options.frames // 2
        for workers in (1, 2):
            figures = side_by_side(
                lambda workers=workers: limit(path, workers, frames),  # type: ignore[misc]
                lambda workers=workers: loader_rate(path, workers, frames, _MANY_USED - 1, 12),  # type: ignore[misc]
                options.runs,
            )
            label = f"{_MANY_USED} of {_MANY_VIEWS} views, {workers} worker{'s'[: workers != 1]}"
            print(row(label, "frames/s", figures, 0.85), flush=True)


if __name__ == "__main__":
    main()
