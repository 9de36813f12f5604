"""Compare the loader with its upper limits: JPEG decoding, and gathering pixels.

Run with: python -m benchmarks.loader

Prints frames/s of limit and loader, and the ratio, per format and number of workers. The two alternate. Batches have
36 scenes with five context views and a query, six of ten views; of scenes of 300 views, 21 views are used.

The limit for JPEG formats is `simplejpeg.decode_jpeg` of frames in memory, in random order, into one small buffer, in
as many processes as the loader has workers. The buffer starts 16 bytes off a cache line, because libjpeg-turbo writes
past the caches at multiples of 32 bytes, which would slow the limit by a fifth. The limit for the numpy format is
numpy's gather of random views from a memory-mapped array into a reused array.
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
_IN_MEMORY = 60_000  # frames that the baseline decodes: as many as the loader visits, and more than fit in the caches


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
    chosen = np.random.default_rng(0).integers(0, len(views), (max(1, frames // len(batch)), len(batch)))
    views.take(chosen[0], axis=0, out=batch, mode="clip")
    ready()
    for batch_views in chosen:
        views.take(batch_views, axis=0, out=batch, mode="clip")  # the other modes copy first
    ready()


def limit(path: Path, processes: int, frames: int) -> float:
    """Return the maximum frames/s in `processes` processes."""
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
    """Return frames/s of the loader after its first batches."""
    per_batch = batch * (1 + context)
    loader = SceneLoader(path, batch_size=batch, context=(context, context), workers=workers)
    batches = iter(loader)
    for _ in range(8 + 4 * workers):  # until every block of shared memory was used once
        next(batches)
    count = max(10, frames // per_batch)
    begin = time.perf_counter()
    for _ in range(count):
        next(batches)
    seconds = time.perf_counter() - begin
    loader.close()
    return count * per_batch / seconds


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=10_000, help="scenes in the dataset")
    parser.add_argument("--frames", type=int, default=80_000, help="frames per run")
    parser.add_argument("--runs", type=int, default=7, help="runs per row")
    parser.add_argument("--folder", type=Path, help="keep the source files in this folder and reuse them")
    options = parser.parse_args()
    with raw_rooms(options.scenes, options.folder) as raw, tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        convert(raw.folder, SET, root, Options(formats=("zarr", "webdataset", "numpy"), shard_bytes=4 << 30))
        index_raw_folder(raw, workers=2)
        print(f"{options.scenes:,} scenes, batches of {_BATCH}, {1 + _CONTEXT} of {raw.layout.views} views; medians")
        print(HEADER)
        datasets = {
            "zarr": root / "zarr" / SET.name,
            "webdataset": root / "webdataset" / SET.name,
            "tfrecord": raw.folder,
            "numpy": root / "numpy" / SET.name,
        }
        for name, path in datasets.items():
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
