"""Compare conversion on a Dask cluster of two worker processes with a pool of two processes.

Run with: python -m benchmarks.cluster

Prints scenes/s of both and the ratio, per format. Cluster and pool are started before the clock starts. Counting,
checks, checksums, flushes and the manifest are included. The last rows start a new pool in each run, as `gqn-data
convert` does without `--scheduler`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from concurrent.futures import Executor, ProcessPoolExecutor, wait
from pathlib import Path

from distributed import Client, LocalCluster

from benchmarks.scenes import HEADER, SET, emptied, raw_rooms, row, side_by_side
from gqn_data.convert import convert
from gqn_data.convert.plan import Options
from gqn_data.executors.dask import DaskCluster
from gqn_data.sources.raw_folder import RawFolder

_WORKERS = 2


def rate(raw: RawFolder, to: Path, name: str, shard_mb: int, executor: Executor | None) -> float:
    """Return scenes/s of a complete conversion."""
    options = Options(formats=(name,), workers=_WORKERS, shard_bytes=shard_mb << 20)
    started = time.perf_counter()
    manifest = convert(raw.folder, SET, to, options, executor=executor)[0].manifest
    return manifest.splits["train"].scenes / (time.perf_counter() - started)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=20_000, help="scenes to convert")
    parser.add_argument(
        "--shard-mb", type=int, default=32, help="MiB per shard; small, so that each worker gets several shards"
    )
    parser.add_argument("--runs", type=int, default=5, help="runs per row")
    parser.add_argument("--folder", type=Path, help="keep the source files in this folder and reuse them")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with (
        raw_rooms(options.scenes, options.folder) as raw,
        tempfile.TemporaryDirectory() as scratch,
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=_WORKERS, threads_per_worker=1, processes=True, dashboard_address=":0", host="127.0.0.1"
        ) as processes,
        Client(processes, set_as_default=False) as client,  # type: ignore[no-untyped-call]
        ProcessPoolExecutor(_WORKERS, mp_context=context) as pool,
    ):
        out = Path(scratch) / "out"
        cluster = DaskCluster(client)
        wait([pool.submit(time.sleep, 1) for _ in range(_WORKERS)])  # waits until both workers have started
        print(f"{options.scenes:,} scenes; {_WORKERS} workers each; medians")
        print(HEADER)

        def measure(label: str, name: str, yardstick: Executor | None, aim: float) -> None:
            figures = side_by_side(
                lambda: rate(raw, emptied(out), name, options.shard_mb, yardstick),
                lambda: rate(raw, emptied(out), name, options.shard_mb, cluster),
                options.runs,
            )
            print(row(label, "scenes/s", figures, aim))

        for name in ("zarr", "numpy"):
            rate(raw, emptied(out), name, options.shard_mb, pool)  # warms up imports and the page cache
            rate(raw, emptied(out), name, options.shard_mb, cluster)
            measure(f"{name}: Dask / pool", name, pool, 0.85)
        for name in ("zarr", "numpy"):
            measure(f"{name}: Dask / new pool", name, None, 0.0)


if __name__ == "__main__":
    main()
