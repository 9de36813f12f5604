"""Measure the loader on data in an object store, against the same data on the local disk.

Run with: python -m benchmarks.streaming [--only warm cold range memory]

The store is moto's S3 server on this machine, a separate Python process whose own rate limits the results. Batches have
36 scenes with five context views and a query of ten views, as in `benchmarks.loader`. Prints:

- warm: frames/s from local files and from a filled cache, and the ratio.
- cold: the rate of the server; then time to the first batch, epoch time, and fraction of time waited.
- range: scenes/s with whole shards and with ranged reads, and the ratio.
- memory: peak memory of consumer and worker, for two sizes of the dataset.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.scenes import HEADER, SET, raw_rooms, row, side_by_side
from gqn_data.cache.policy import REQUEST_BYTES, Remote
from gqn_data.convert import convert
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.plan import Options
from gqn_data.dataset import open_dataset
from gqn_data.io.paths import StorePath, parse_path
from gqn_data.loader import SceneLoader
from gqn_data.render.write import render_scene_set
from gqn_data.sources.raw_folder import open_raw_folder

_BATCH = 36
_CONTEXT = 5
_SHARD_BYTES = 16 << 20  # many shards in a small dataset, so that windows behave as in large ones

_SERVER = """
import logging, os, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("http://%s:%d" % server.get_host_and_port(), flush=True)
sys.stdin.read()
os._exit(0)
"""

_MEMORY = """
import sys
from itertools import islice
from pathlib import Path
from gqn_data.loader import SceneLoader

def peak(process):
    return next(int(line.split()[1]) for line in open(f"/proc/{process}/status") if line.startswith("VmHWM"))

if __name__ == "__main__":
    import multiprocessing
    url, remote, cache, batches = *sys.argv[1:4], int(sys.argv[4])
    where = {"remote": remote, "cache": cache, "cache_gb": 50}
    loader = SceneLoader(url, batch_size=36, context=(5, 5), workers=1, window=2, **where)
    stream = iter(loader)
    for _ in islice(stream, batches):
        pass
    (worker,) = multiprocessing.active_children()
    print(peak("self"), peak(worker.pid))
"""


@contextmanager
def _server() -> Iterator[StorePath]:
    """Start a server, and yield an empty bucket; the environment variables of S3 are set."""
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        address = process.stdout.readline().decode().strip()
        keys = {"AWS_ACCESS_KEY_ID": "anybody", "AWS_SECRET_ACCESS_KEY": "anything", "AWS_REGION": "us-east-1"}
        os.environ.update({"AWS_ENDPOINT_URL": address, **keys})
        bucket = uuid.uuid4().hex
        urllib.request.urlopen(urllib.request.Request(f"{address}/{bucket}", method="PUT")).close()
        found = parse_path(f"s3://{bucket}")
        assert isinstance(found, StorePath)
        try:
            yield found
        finally:
            process.stdin.close()


def _upload(folder: Path, to: StorePath) -> str:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                (to / path.relative_to(folder).as_posix()).put(file)
    return str(to)


def _rate(path: Path | str, frames: int, *, workers: int, cache: Path) -> float:
    """Return frames/s of a loader after its first batches."""
    per_batch = _BATCH * (1 + _CONTEXT)
    loader = SceneLoader(path, batch_size=_BATCH, context=(_CONTEXT, _CONTEXT), workers=workers, cache=cache)
    batches = iter(loader)
    for _ in range(2 + 2 * workers):
        next(batches)
    count = max(10, frames // per_batch)
    begin = time.perf_counter()
    for _ in range(count):
        next(batches)
    seconds = time.perf_counter() - begin
    loader.close()
    return count * per_batch / seconds


def _download(url: str) -> float:
    """Return bytes/s of reading the training shards through the store's client and discarding them."""
    dataset = open_dataset(url)
    folder = dataset.folder
    assert isinstance(folder, StorePath)
    begin = time.perf_counter()
    total = 0
    for shard in dataset.shards:
        for file in shard.files:
            total += sum(map(len, (folder / file.name).blocks()))
    return total / (time.perf_counter() - begin)


def _epoch(
    url: str, cache: Path, *, step: float, workers: int, window: int | None
) -> tuple[float, float, float, float]:
    """Run one epoch with a simulated training step of `step` seconds.

    Returns:
        Seconds to the first batch, seconds of the epoch, fraction of the time waited, and scenes/s.
    """
    loader = SceneLoader(
        url, batch_size=_BATCH, context=(_CONTEXT, _CONTEXT), workers=workers, epochs=1, window=window, cache=cache
    )
    begin = time.perf_counter()
    batches = iter(loader)
    waited, first, count = 0.0, 0.0, 0
    while True:
        asked = time.perf_counter()
        if next(batches, None) is None:
            break
        got = time.perf_counter()
        if count:
            waited += got - asked
        else:
            first = got - begin
        count += 1
        time.sleep(step)
    seconds = time.perf_counter() - begin
    return first, seconds, waited / max(1e-9, seconds - first), count * _BATCH / seconds


def _one_pass(url: str, remote: Remote, cache: Path, context: int) -> float:
    """Return scenes/s of an epoch with an empty cache, as for a dataset that is larger than the cache."""
    shutil.rmtree(cache, ignore_errors=True)
    loader = SceneLoader(
        url, batch_size=12, context=(context, context), epochs=1, remote=remote, cache=cache, cache_gb=50, window=2
    )
    begin = time.perf_counter()
    count = sum(len(batch.scenes) for batch in loader)
    seconds = time.perf_counter() - begin
    loader.close()
    return count / seconds


def _warm(root: Path, bucket: StorePath, datasets: dict[str, Path], options: argparse.Namespace) -> None:
    cache = root / "warm"
    print(f"\nwarm cache against local files; batches of {_BATCH}, {1 + _CONTEXT} of 10 views; medians")
    print(HEADER)
    for name, path in datasets.items():
        url = f"{bucket}/{name}"
        for workers in (1, 2):
            _rate(url, options.frames, workers=workers, cache=cache)  # fills the cache
            figures = side_by_side(
                lambda path=path, workers=workers: _rate(path, options.frames, workers=workers, cache=cache),  # type: ignore[misc]
                lambda url=url, workers=workers: _rate(url, options.frames, workers=workers, cache=cache),  # type: ignore[misc]
                options.runs,
            )
            print(row(f"{name}, {workers} worker{'s'[: workers != 1]}", "frames/s", figures, 0.9))


def _cold(root: Path, url: str) -> None:
    total = sum(file.bytes for shard in open_dataset(url).shards for file in shard.files)
    bound = _download(url)
    print(f"\ncold: the server delivers {bound / 1e6:,.0f} MB/s, {total / bound:.1f} s for the training split")
    print(f"{'':<34} {'first batch':>12} {'epoch':>8} {'waited':>8} {'scenes/s':>9} {'MB/s':>6}")
    for name, window, step in itertools.product(("cold", "warm"), (None, 2), (0.0, 0.01, 0.1)):
        cache = root / f"cold-{window}-{step}"
        first, seconds, waited, scenes = _epoch(url, cache, step=step, workers=2, window=window)
        windows = f"windows of {window}" if window else "one window"
        label = f"{name}, {windows}, steps of {step * 1000:.0f} ms"
        rate = total / seconds / 1e6
        print(f"{label:<34} {first:>10.2f} s {seconds:>6.1f} s {waited:>7.0%} {scenes:>9,.0f} {rate:>6,.0f}")


def _ranges(root: Path, bucket: StorePath, options: argparse.Namespace) -> None:
    print("\nwhole shards against ranged reads, empty cache; unused: kB per scene that only whole shards transfer")
    print(f"{'':<34} {'whole':>10} {'ranged':>10} {'':<9} ratio (range)")
    for views in (10, 60, 300):
        made = root / f"many-{views}"
        raw = made / "raw" / SET.name
        scenes = max(24, options.many // views)
        render_scene_set(made, SET.name, scenes=scenes, split="train", seed=1, views=views)
        index_raw_folder(open_raw_folder(raw, SET))
        convert(raw, SET, made, Options(formats=("zarr",), shard_bytes=_SHARD_BYTES))
        for name, folder in (("zarr", made / "zarr" / SET.name), ("tfrecord", raw)):
            url = _upload(folder, bucket / f"many-{views}" / name)
            total = sum(file.bytes for shard in open_dataset(url).shards for file in shard.files)
            for used in sorted({2, max(2, round(0.07 * views)), views // 2}):
                figures = side_by_side(
                    lambda url=url, used=used: _one_pass(url, "cache", root / "passes", used - 1),  # type: ignore[misc]
                    lambda url=url, used=used: _one_pass(url, "range", root / "passes", used - 1),  # type: ignore[misc]
                    options.runs,
                )
                unused = total / scenes * (1 - used / views) / 1000
                print(row(f"{name}, {used} of {views} views", "scenes/s", figures, 0) + f"  {unused:,.0f} kB unused")
    print(
        f"current choice: ranged reads above {REQUEST_BYTES / 1000:,.0f} kB unused per view, if the cache is too small"
    )


def _memory(root: Path, bucket: StorePath, options: argparse.Namespace) -> None:
    print(f"\n{'peak memory in MiB':<34} {'consumer':>10} {'worker':>10}")
    program = root / "memory.py"
    program.write_text(_MEMORY)
    for scenes in (options.scenes // 3, options.scenes):
        with raw_rooms(scenes) as raw:
            convert(raw.folder, SET, root / f"of-{scenes}", Options(formats=("zarr",), shard_bytes=_SHARD_BYTES))
        url = _upload(root / f"of-{scenes}" / "zarr" / SET.name, bucket / f"of-{scenes}")
        for remote in ("cache", "range"):
            command = [sys.executable, str(program), url, remote, str(root / f"cache-{scenes}"), str(scenes // _BATCH)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            consumer, worker = (int(figure) / 1024 for figure in done.stdout.split())
            print(f"{f'{scenes:,} scenes, {remote}':<34} {consumer:>10,.0f} {worker:>10,.0f}")


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=9_000, help="scenes in the dataset")
    parser.add_argument("--frames", type=int, default=40_000, help="frames per run with a warm cache")
    parser.add_argument("--many", type=int, default=6_000, help="frames per dataset of the range benchmark")
    parser.add_argument("--runs", type=int, default=3, help="runs per row")
    parts = ("warm", "cold", "range", "memory")
    parser.add_argument("--only", choices=parts, nargs="+", default=parts, help="run only these parts")
    options = parser.parse_args()
    with raw_rooms(options.scenes) as raw, tempfile.TemporaryDirectory() as scratch, _server() as bucket:
        root = Path(scratch)
        convert(raw.folder, SET, root, Options(formats=("zarr", "webdataset"), shard_bytes=_SHARD_BYTES))
        index_raw_folder(raw, workers=2)
        datasets = {
            "zarr": root / "zarr" / SET.name,
            "webdataset": root / "webdataset" / SET.name,
            "tfrecord": Path(str(raw.folder)),
        }
        for name, path in datasets.items():
            _upload(path, bucket / name)
        print(f"{options.scenes:,} scenes of rendered rooms in moto's S3 server on this machine")
        if "warm" in options.only:
            _warm(root, bucket, datasets, options)
        if "cold" in options.only:
            _cold(root, f"{bucket}/zarr")
        if "range" in options.only:
            _ranges(root, bucket, options)
        if "memory" in options.only:
            _memory(root, bucket, options)


if __name__ == "__main__":
    main()
