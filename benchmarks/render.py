"""Measure the frames per second of every renderer, or compare rendered frames with real ones.

python -m benchmarks.render                                  print the tables of docs/rendering.md
python -m benchmarks.render --json                           print the same as JSON
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from gqn_data.executors.pool import usable_cores
from gqn_data.render import RENDERERS
from gqn_data.render.write import render_scene_set
from gqn_data.schema.catalog import SCENE_SETS

_WARM_UP = 3  # scenes

# Frames/s of a prototype on one core, with 2x2 supersampling and shadows: the minimum to reach.
PROTOTYPE = {
    "rooms_ring_camera": 466,
    "rooms_free_camera_with_object_rotations": 90,
    "jaco": 203,
    "mazes": 974,
}
# Time limits in seconds for the command with 2000 ring scenes on two cores: with 2x2 supersampling, and without.
COMMAND_SET, COMMAND_WORKERS = "rooms_ring_camera", 2
COMMAND_LIMITS = {True: 45.0, False: 20.0}


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Frames/s of one set.

    Attributes:
        scene_set: name of the set.
        supersample: whether 2x2 rays per pixel were cast.
        bare: renderer only, on one core, per second of processor time.
        written: rendering to TFRecords on the disk, by wall time, per number of workers.
        prototype: `bare` of the prototype with 2x2 supersampling; None for sets without a prototype.
    """

    scene_set: str
    supersample: bool
    bare: float
    written: dict[int, float]
    prototype: int | None


@dataclass(frozen=True, kw_only=True)
class Command:
    """Duration of the command `gqn-data render`.

    Attributes:
        supersample: whether 2x2 rays per pixel were cast.
        container: format that was written.
        scenes: number of scenes.
        seconds: wall time.
        limit: time limit for this number of scenes; None unless TFRecords were written.
    """

    supersample: bool
    container: str
    scenes: int
    seconds: float
    limit: float | None


def bare(name: str, frames: int, supersample: bool) -> float:
    """Return frames per second of processor time of the renderer, on one core."""
    row, render = SCENE_SETS[name], RENDERERS[name]

    def one(index: int) -> int:
        scene = render(
            index, seed=0, split="train", frame_size=row.frame_size, views=row.views, supersample=supersample
        )
        return len(scene.frames)

    for index in range(_WARM_UP):
        one(index)
    begin = time.process_time()
    made = sum(one(index) for index in range(max(1, frames // row.views)))
    return made / (time.process_time() - begin)


def written(name: str, frames: int, supersample: bool, workers: int) -> float:
    """Return frames/s of rendering to TFRecords on the disk, with the start of the workers."""
    scenes = max(1, frames // SCENE_SETS[name].views)
    with tempfile.TemporaryDirectory() as folder:
        report = render_scene_set(
            Path(folder), name, scenes=scenes, split="train", supersample=supersample, workers=workers
        )
    return report.frames / report.seconds


def command(scenes: int, supersample: bool, container: str) -> Command:
    """Time the command in a new process with two workers; the ray caster must be compiled already."""
    options = ["--workers", str(COMMAND_WORKERS), "--format", container]
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        subprocess.run(
            [
                *(
                    sys.executable,
                    "-c",
                    "from gqn_data.cli import main; main()",
                    "render",
                    COMMAND_SET,
                    "--scenes",
                    str(scenes),
                ),
                *options,
                *("--supersample" if supersample else "--no-supersample", "--root", folder),
            ],
            check=True,
            capture_output=True,
        )
        seconds = time.monotonic() - begin
    limit = COMMAND_LIMITS[supersample] * scenes / 2000 if container == "tfrecord" else None
    return Command(supersample=supersample, container=container, scenes=scenes, seconds=seconds, limit=limit)


def measure_sets(frames: int, workers: list[int], to: TextIO) -> list[Rates]:
    """Measure the rates of all sets, and print each row."""
    counts = "".join(f"{label:>11}" for label in (f"{count} worker{'s'[: count != 1]}" for count in workers))
    head = f"  bare{counts}"
    print(f"{'frames/s':39} | {'2x2 supersampling':^{len(head) + 18}} | one ray per pixel", file=to)
    print(f"{'':39} | {head} | prototype: ratio | {head}", file=to)
    rows = []
    for name in RENDERERS:
        cells = [f"{name:39}"]
        for supersample in (True, False):
            rates = Rates(
                scene_set=name,
                supersample=supersample,
                bare=bare(name, frames // 4, supersample),
                written={count: written(name, frames, supersample, count) for count in workers},
                prototype=PROTOTYPE.get(name) if supersample else None,
            )
            cells.append(f"{rates.bare:6.0f}" + "".join(f"{rate:11.0f}" for rate in rates.written.values()))
            if supersample:
                known = rates.prototype
                cells.append(f"{known:9} {rates.bare / known:5.1f} x" if known else f"{'':17}")
            rows.append(rates)
        print(" | ".join(cells), file=to, flush=True)
    return rows


def measure_command(scenes: int, to: TextIO) -> list[Command]:
    """Time and print the command with and without supersampling, to TFRecords and to zarr."""
    rows = []
    for supersample in (True, False):
        for container in ("tfrecord", "zarr"):
            found = command(scenes, supersample, container)
            limit = f", limit {found.limit:.1f} s" if found.limit is not None else ""
            rays = "2x2 supersampling" if supersample else "one ray per pixel"
            views = SCENE_SETS[COMMAND_SET].views
            print(
                f"gqn-data render {COMMAND_SET} --scenes {scenes} --workers {COMMAND_WORKERS} --format {container}, "
                f"{rays}: {found.seconds:.1f} s{limit}, {scenes * views / found.seconds:.0f} frames/s",
                file=to,
                flush=True,
            )
            rows.append(found)
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=10_000, help="approximate number of frames per measurement")
    parser.add_argument("--scenes", type=int, default=2000, help="scenes of the command")
    parser.add_argument("--workers", help="numbers of workers, such as 1,2,4; default: 1, even numbers, and all cores")
    parser.add_argument("--json", action="store_true", help="print JSON; the tables go to stderr")
    arguments = parser.parse_args()
    to = sys.stderr if arguments.json else sys.stdout
    load, cores = os.getloadavg(), usable_cores()
    workers = (
        [int(count) for count in arguments.workers.split(",")]
        if arguments.workers
        else sorted({1, *range(2, cores, 2), cores})
    )
    print(f"{cores} cores, load before the run {', '.join(f'{value:.1f}' for value in load)}", file=to)
    rates = measure_sets(arguments.frames, workers, to)
    commands = measure_command(arguments.scenes, to)
    if arguments.json:
        found = {
            "cores": cores,
            "load": load,
            "sets": [dataclasses.asdict(row) for row in rates],
            "command": [dataclasses.asdict(row) for row in commands],
        }
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
