"""Training data from an object store, beside the same data on the disk, each pair in one run.

Run with: python -m benchmarks.streaming

The store is moto's S3 server on this machine, in a process of its own: a Python program, whose own rate bounds all that
comes from it and is measured first. Batches of 36 scenes, five context views and a query of ten views, as in
`benchmarks.loader`.
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
_SHARD_BYTES = 16 << 20  # many shards of a small set, so that windows are what they are for large ones

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
    """A bucket on a server of this machine, named by the environment as S3's users name theirs."""
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
    """Frames/s of a loader after its first batches."""
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
    """Bytes/s of reading the training shards through the store's client, and doing nothing with them."""
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
    """One epoch by a trainer whose step takes so many seconds: seconds to the first batch and in all, share waited."""
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
    """Scenes/s of a pass with an empty cache, as every epoch is of a set that the cache cannot hold."""
    shutil.rmtree(cache, ignore_errors=True)
    loader = SceneLoader(
        url, batch_size=12, context=(context, context), epochs=1, remote=remote, cache=cache, cache_gb=50, window=2
    )
    begin = time.perf_counter()
    count = sum(len(batch.scenes) for batch in loader)
    seconds = time.perf_counter() - begin
    loader.close()
    return count / seconds


def _warm(root: Path, bucket: StorePath, places: dict[str, Path], options: argparse.Namespace) -> None:
    cache = root / "warm"
    print(f"\nwarm cache against local files; batches of {_BATCH}, {1 + _CONTEXT} of 10 views; medians")
    print(HEADER)
    for name, path in places.items():
        url = f"{bucket}/{name}"
        for workers in (1, 2):
            _rate(url, options.frames, workers=workers, cache=cache)  # fills the cache
            figures = side_by_side(
                lambda path=path, workers=workers: _rate(path, options.frames, workers=workers, cache=cache),  # type: ignore[misc]
                lambda url=url, workers=workers: _rate(url, options.frames, workers=workers, cache=cache),  # type: ignore[misc]
                options.runs,
            )
            print(row(f"{name}, {workers} worker{'s'[: workers - 1]}", "frames/s", figures, 0.9))


def _cold(root: Path, url: str) -> None:
    total = sum(file.bytes for shard in open_dataset(url).shards for file in shard.files)
    bound = _download(url)
    print(f"\ncold: the server alone gives {bound / 1e6:,.0f} MB/s, {total / bound:.1f} s for the training split")
    print(f"{'':<34} {'first batch':>12} {'epoch':>8} {'waited':>8} {'scenes/s':>9} {'MB/s':>6}")
    for name, window, step in itertools.product(("cold", "warm"), (None, 2), (0.0, 0.01, 0.1)):
        cache = root / f"cold-{window}-{step}"
        first, seconds, waited, scenes = _epoch(url, cache, step=step, workers=2, window=window)
        label = f"{name}, {'one window' if window is None else f'windows of {window}'}, steps of {step * 1000:.0f} ms"
        rate = total / seconds / 1e6
        print(f"{label:<34} {first:>10.2f} s {seconds:>6.1f} s {waited:>7.0%} {scenes:>9,.0f} {rate:>6,.0f}")


def _ranges(root: Path, bucket: StorePath, options: argparse.Namespace) -> None:
    print("\nby range against whole shards, nothing cached before; in vain: what whole shards bring and no batch uses")
    print(f"{'':<34} {'whole':>10} {'by range':>10} {'':<9} ratio (range)")
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
                vain = total / scenes * (1 - used / views) / 1000
                print(row(f"{name}, {used} of {views} views", "scenes/s", figures, 0) + f"  {vain:,.0f} kB in vain")
    print(f"chosen now: by range above {REQUEST_BYTES / 1000:,.0f} kB in vain a view, where the cache holds not all")


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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=9_000)
    parser.add_argument("--frames", type=int, default=40_000, help="frames to decode in one run of a warm cache")
    parser.add_argument("--many", type=int, default=6_000, help="frames of each set that is read by range")
    parser.add_argument("--runs", type=int, default=3)
    parts = ("warm", "cold", "range", "memory")
    parser.add_argument("--only", choices=parts, nargs="+", default=parts, help="measure these alone")
    options = parser.parse_args()
    with raw_rooms(options.scenes) as raw, tempfile.TemporaryDirectory() as scratch, _server() as bucket:
        root = Path(scratch)
        convert(raw.folder, SET, root, Options(formats=("zarr", "webdataset"), shard_bytes=_SHARD_BYTES))
        index_raw_folder(raw, workers=2)
        places = {
            "zarr": root / "zarr" / SET.name,
            "webdataset": root / "webdataset" / SET.name,
            "tfrecord": Path(str(raw.folder)),
        }
        for name, path in places.items():
            _upload(path, bucket / name)
        print(f"{options.scenes:,} scenes of rendered rooms in moto's S3 server on this machine")
        if "warm" in options.only:
            _warm(root, bucket, places, options)
        if "cold" in options.only:
            _cold(root, f"{bucket}/zarr")
        if "range" in options.only:
            _ranges(root, bucket, options)
        if "memory" in options.only:
            _memory(root, bucket, options)


if __name__ == "__main__":
    main()
