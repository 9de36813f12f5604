"""Frames a second of every renderer, and our frames beside real ones.

python -m benchmarks.render                                  the table of docs/rendering.md
python -m benchmarks.render --compare FOLDER -o sheet.png    a sheet and the figures of appearance
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from gqn_data.render import RENDERERS
from gqn_data.render.write import render_scene_set
from gqn_data.scene_sets import SCENE_SETS
from gqn_data.workers import usable_cores

_WARM_UP = 5


def bare(name: str, scenes: int, supersample: bool) -> float:
    """Frames per second of processor time of the renderer alone, on one core."""
    row, render = SCENE_SETS[name], RENDERERS[name]

    def one(index: int) -> int:
        scene = render(
            index, seed=0, split="train", frame_size=row.frame_size, views=row.views, supersample=supersample
        )
        return len(scene.frames)

    for index in range(_WARM_UP):
        one(index)
    begin = time.process_time()
    frames = sum(one(index) for index in range(scenes))
    return frames / (time.process_time() - begin)


def written(name: str, scenes: int, supersample: bool, workers: int) -> float:
    """Frames a second of the whole way to TFRecords on the disk, start of the workers included."""
    with tempfile.TemporaryDirectory() as folder:
        report = render_scene_set(
            Path(folder), name, scenes=scenes, split="train", supersample=supersample, workers=workers
        )
    return report.frames / report.seconds


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--compare", type=Path, metavar="FOLDER", help="of the reference pictures")
    parser.add_argument("-o", "--output", type=Path, default=Path("sheet.png"), help="the sheet to write")
    parser.add_argument("--scenes", type=int, default=1000, help="scenes for each figure")
    arguments = parser.parse_args()
    if arguments.compare is not None:
        from benchmarks.render_compare import compare

        compare(arguments.compare, arguments.output)
        return
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{usable_cores()} cores, load before the run {load}")
    print("frames a second          |     2x2 supersampling     |     one ray a pixel       ")
    print("set                      |  bare  1 worker  2 workers |  bare  1 worker  2 workers")
    for name in RENDERERS:
        cells = []
        for supersample in (True, False):
            figures = [bare(name, arguments.scenes // 4, supersample)]
            figures += [written(name, arguments.scenes, supersample, workers) for workers in (1, 2)]
            cells.append("{:6.0f} {:8.0f} {:10.0f}".format(*figures))
        print(f"{name:24} | {' | '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
