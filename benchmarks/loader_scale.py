"""Measure the loader on ten million scenes, and the time that the trainer waits for it.

Run with: python -m benchmarks.loader_scale

Prints, for a small and a large dataset: seconds to the first batch, memory of a worker, seconds to resume at batch
100,000, and the fraction of its time that `gqn train` waits. Ten million scenes would fill a disk, so the shards of the
large dataset are hard links to the files of one small shard. Manifest, indexes, order and open files are those of ten
million scenes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.scenes import SET, raw_rooms
from gqn_data.convert import convert
from gqn_data.convert.plan import Options
from gqn_data.schema.manifest import read_manifest

_PER_SHARD = 5000
_FORMATS = ("zarr", "webdataset")

_PROGRAM = """
import json, sys, time
began = time.perf_counter()
from gqn_data.loader import SceneLoader
imported = time.perf_counter()
import multiprocessing

def memory(process):
    # only pages that the process wrote; pages shared with its parent or the system are not counted
    lines = open(f"/proc/{process}/smaps_rollup").read().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Dirty:", "Pss_Anon:"))) / 2 / 1024

if __name__ == "__main__":
    path, workers, number, batches = sys.argv[1], *map(int, sys.argv[2:5])
    start = time.perf_counter()
    loader = SceneLoader(path, batch_size=36, context=(5, 5), workers=workers, epochs=None)
    if number:
        epoch, batch = divmod(number, len(loader))
        loader.load_state_dict({**loader.state_dict(), "epoch": epoch, "batches": batch})
    stream = iter(loader)
    next(stream)
    first = time.perf_counter() - start
    for _ in range(batches):
        next(stream)
    children = multiprocessing.active_children()
    used = [memory(child.pid) for child in children]
    loader.close()
    print(json.dumps({"import": imported - began, "first": first, "worker": max(used, default=0)}))
"""


def many_shards(folder: Path, shards: int) -> None:
    """Turn a dataset of one shard into one of `shards` shards, with hard links."""
    manifest = read_manifest(folder)
    row = manifest.splits["train"]
    (shard,) = row.shards
    rows = []
    for number in range(shards):
        files = []
        for file in shard.files:
            # The shard's number is a part of the path in zarr, and the last number of the name in tars.
            name = (
                file.name.replace("/c/0/", f"/c/{number}/")
                if manifest.format == "zarr"
                else file.name.replace("000000", f"{number:06d}")
            )
            if number:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.link(folder / file.name, folder / name)
            files.append(replace(file, name=name))
        rows.append(replace(shard, files=tuple(files)))
    source = replace(row.sources[0], scenes=shards * shard.scenes)
    wide = replace(
        row, scenes=shards * shard.scenes, scenes_per_shard=shard.scenes, shards=tuple(rows), sources=(source,)
    )
    data = replace(manifest, splits={"train": wide}).to_bytes()
    (folder / "manifest.json").write_bytes(data)


def measure(path: Path, *, workers: int, number: int = 0, batches: int = 0) -> dict[str, float]:
    """Return, for a new process, seconds to import and to the first batch from batch `number`, and MiB of a worker."""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as program:
        program.write(_PROGRAM)
        program.flush()
        done = subprocess.run(
            [sys.executable, program.name, str(path), str(workers), str(number), str(batches)],
            check=True,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def waiting_share(path: Path, preset: str, steps: int) -> float:
    """Return the fraction of its time that the trainer waits for batches, with one worker."""
    with tempfile.TemporaryDirectory() as runs:
        run = Path(runs) / "run"
        command = [
            sys.executable,
            "-c",
            "from gqn_model.cli import main; main()",
            "train",
            "--shards",
            str(path),
            "--out",
            str(run),
        ]
        command += ["--preset", preset, "--steps", str(steps), "--workers", "1", "--log-every", str(steps // 4)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    shares = [line["wait"] for line in lines if "wait" in line]
    return float(shares[-1])  # the first lines include the start of the workers


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=2000, help="shards of the large dataset, 5,000 scenes each")
    parser.add_argument("--batches", type=int, default=1500, help="batches before the memory of a worker is read")
    parser.add_argument("--steps", type=int, default=200, help="steps of the trainer")
    options = parser.parse_args()
    large = options.shards * _PER_SHARD
    with raw_rooms(_PER_SHARD) as raw, tempfile.TemporaryDirectory() as scratch:
        kinds = {}
        for name, shards in (("small", 2), ("large", options.shards)):
            root = Path(scratch) / name
            convert(raw.folder, SET, root, Options(formats=_FORMATS, shard_bytes=1 << 30))
            for kind in _FORMATS:
                folder = root / kind / SET.name
                many_shards(folder, shards)
                kinds[kind, name] = folder
        print(f"{'':<44} {2 * _PER_SHARD:>12,} {large:>12,} scenes")
        for kind in _FORMATS:
            for workers in (0, 2):
                seconds = [measure(kinds[kind, name], workers=workers)["first"] for name in ("small", "large")]
                label = f"{kind}, {workers} workers, first batch in s"
                print(f"{label:<44} {seconds[0]:>12.2f} {seconds[1]:>12.2f}  under 2", flush=True)
            used = [
                measure(kinds[kind, name], workers=1, batches=options.batches)["worker"] for name in ("small", "large")
            ]
            growth = used[1] - used[0]
            label = f"{kind}, private memory of a worker in MiB"
            print(f"{label:<44} {used[0]:>12.0f} {used[1]:>12.0f}  grows by {growth:.0f}, under 50", flush=True)
            ahead = [measure(kinds[kind, "large"], workers=0, number=number)["first"] for number in (0, 100_000)]
            label = f"{kind}, first batch from 0 and 100,000, s"
            print(f"{label:<44} {ahead[0]:>12.2f} {ahead[1]:>12.2f}  equal", flush=True)
        share = waiting_share(kinds["zarr", "small"], "tiny", options.steps)
        print(f"trainer `tiny` on the CPU, 1 worker: waits {share:.2%} of its time, under 1 %")


if __name__ == "__main__":
    main()
