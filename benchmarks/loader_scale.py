"""The loader on ten million scenes, and how long the trainer waits for it.

Run with: python -m benchmarks.loader_scale

Measured are the time to the first batch, the memory of a worker, and resuming far ahead. Ten million scenes of JPEGs
would fill a disk: the shards of the large set are links to the files of one small shard, under as many names. Manifest,
indexes, order and the files that are open are those of ten million scenes.
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
    # what the process wrote itself; pages that it shares with its parent, or with the system, count for nobody
    lines = open(f"/proc/{process}/smaps_rollup").read().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Dirty:", "Pss_Anon:"))) / 2 / 1024

if __name__ == "__main__":
    path, workers, number, batches = sys.argv[1], *map(int, sys.argv[2:5])
    began_again = time.perf_counter()
    loader = SceneLoader(path, batch_size=36, context=(5, 5), workers=workers, epochs=None)
    if number:
        epoch, batch = divmod(number, len(loader))
        loader.load_state_dict({**loader.state_dict(), "epoch": epoch, "batches": batch})
    stream = iter(loader)
    next(stream)
    first = time.perf_counter() - began_again
    for _ in range(batches):
        next(stream)
    children = multiprocessing.active_children()
    used = [memory(child.pid) for child in children]
    loader.close()
    print(json.dumps({"import": imported - began, "first": first, "worker": max(used, default=0)}))
"""


def many_shards(folder: Path, shards: int) -> None:
    """Makes a dataset of one shard into one of so many, by links."""
    manifest = read_manifest(folder)
    row = manifest.splits["train"]
    (shard,) = row.shards
    rows = []
    for number in range(shards):
        files = []
        for file in shard.files:
            # Names hold the shard's number: in zarr as a part of the path, in tars as the last number.
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
    """Figures of one process: seconds to import and to the first batch from `number` on, MiB of a worker's own."""
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


def waits(path: Path, preset: str, steps: int) -> float:
    """The share of its time that the trainer waits for batches, with one worker."""
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
    return float(shares[-1])  # the first lines wait for the workers to start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=2000, help="of 5,000 scenes each")
    parser.add_argument("--batches", type=int, default=1500, help="until the memory of a worker is looked at")
    parser.add_argument("--steps", type=int, default=200, help="of the trainer")
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
            label = f"{kind}, a worker's own memory in MiB"
            print(f"{label:<44} {used[0]:>12.0f} {used[1]:>12.0f}  grows by {growth:.0f}, under 50", flush=True)
            ahead = [measure(kinds[kind, "large"], workers=0, number=number)["first"] for number in (0, 100_000)]
            label = f"{kind}, first batch from 0 and 100,000, s"
            print(f"{label:<44} {ahead[0]:>12.2f} {ahead[1]:>12.2f}  equal", flush=True)
        share = waits(kinds["zarr", "small"], "tiny", options.steps)
        print(f"trainer `tiny` on the CPU, 1 worker: waits {share:.2%} of its time, under 1 %")


if __name__ == "__main__":
    main()
