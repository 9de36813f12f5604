"""The loader against the decode limit, each pair in one run.

Run with: python -m benchmarks.loader

The yardstick is bare `simplejpeg.decode_jpeg` of as many frames into one preallocated buffer, in as many processes
as the loader has workers. Batches of 36 scenes, five context views and a query: six of ten views.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import simplejpeg

from benchmarks.scenes import HEADER, SET, raw_rooms, row, side_by_side
from gqn_data.convert import convert
from gqn_data.dataset import open_dataset
from gqn_data.index import index_raw_folder
from gqn_data.loader import SceneLoader
from gqn_data.plan import Options

_BATCH = 36
_CONTEXT = 5


def _decode(path: Path, frames: int, started: object, ended: object) -> None:
    dataset = open_dataset(path)
    encoded: list[bytes] = []
    for scene in range(min(200, len(dataset))):
        views = dataset[scene].encoded
        assert views is not None
        encoded += [bytes(view) for view in views[: 1 + _CONTEXT]]
    buffer = np.empty(dataset.layout.frames_shape[1:], np.uint8)
    started.wait()  # type: ignore[attr-defined]
    for number in range(frames):
        simplejpeg.decode_jpeg(encoded[number % len(encoded)], "RGB", buffer=buffer)
    ended.wait()  # type: ignore[attr-defined]


def decode_limit(path: Path, processes: int, frames: int) -> float:
    """Frames/s of bare decoding in so many processes."""
    context = multiprocessing.get_context("fork")
    started, ended = context.Barrier(processes + 1), context.Barrier(processes + 1)
    share = frames // processes
    workers = [context.Process(target=_decode, args=(path, share, started, ended)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    started.wait()
    begin = time.perf_counter()
    ended.wait()
    seconds = time.perf_counter() - begin
    for worker in workers:
        worker.join()
    return share * processes / seconds


def loader_rate(path: Path, workers: int, frames: int) -> float:
    """Frames/s that the loader hands out, after its first batches."""
    per_batch = _BATCH * (1 + _CONTEXT)
    loader = SceneLoader(path, batch_size=_BATCH, context=(_CONTEXT, _CONTEXT), workers=workers)
    batches = iter(loader)
    warm = 2 + 2 * workers
    for _ in range(warm):
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
    parser.add_argument("--frames", type=int, default=60_000, help="frames to decode in one run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keep the source files here, for another run")
    options = parser.parse_args()
    with raw_rooms(options.scenes, options.folder) as raw, tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        convert(raw.folder, SET, root, Options(formats=("zarr", "webdataset")))
        index_raw_folder(raw, workers=2)
        print(f"{options.scenes:,} scenes, batches of {_BATCH}, {1 + _CONTEXT} of {raw.layout.views} views; medians")
        print(HEADER)
        places = {
            "zarr": root / "zarr" / SET.name,
            "webdataset": root / "webdataset" / SET.name,
            "tfrecord": raw.folder,
        }
        for name, path in places.items():
            for workers in (1, 2):
                figures = side_by_side(
                    lambda path=path, workers=workers: decode_limit(path, workers, options.frames),  # type: ignore[misc]
                    lambda path=path, workers=workers: loader_rate(path, workers, options.frames),  # type: ignore[misc]
                    options.runs,
                )
                print(row(f"{name}, {workers} worker{'s'[: workers - 1]}", "frames/s", figures, 0.6))
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"peak memory of one process: {peak / 1024:,.0f} MiB")


if __name__ == "__main__":
    main()
