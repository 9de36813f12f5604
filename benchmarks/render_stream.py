"""Compare scenes rendered straight into batches with bare rendering, on one core.

Run with: python -m benchmarks.render_stream

Prints for every set: frames per second of processor time of the bare renderer, whole scenes; of the same choice of
views without batches; and of a loader without workers at `render:SET`. The last two use the views of a batch only. The
ratios are of pairs of runs that alternate. The last columns say how many scenes and cores a training step needs.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gqn_data.dataset import RenderedDataset, open_dataset
from gqn_data.loader import SceneLoader
from gqn_data.render import RENDERERS
from gqn_data.sampling.views import choose_views

BATCH = 36
STEP = 0.020  # seconds, of a training step
AIM = 0.9
_DRAWN = 5000  # scenes whose views are drawn in advance


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Frames per second of processor time, on one core.

    Attributes:
        bare: the renderer, all views of a scene.
        chosen: the renderer, the views of the loader's batches.
        batches: the loader.
        views: mean number of views per scene in the batches.
    """

    bare: float
    chosen: float
    batches: float
    views: float

    @property
    def cores(self) -> float:
        """Cores that make a batch in the time of a step."""
        return BATCH * self.views / self.batches / STEP


def rate(work: Callable[[], int], seconds: float) -> float:
    """Return what `work` counts, per second of processor time."""
    begin, done = time.process_time(), 0
    while time.process_time() - begin < seconds:
        done += work()
    return done / (time.process_time() - begin)


def measure(name: str, seconds: float, runs: int) -> list[Rates]:
    """Measure one set; `seconds` of each of the three per run."""
    address = f"render:{name}"
    dataset = open_dataset(address)
    assert isinstance(dataset, RenderedDataset)
    numbers = itertools.count()
    loader = SceneLoader(address, batch_size=BATCH)
    batches = iter(loader)
    shard = dataset.shard(0)
    # The views of the loader's stream.
    count = dataset.layout.views
    drawn = choose_views(np.arange(_DRAWN), views=count, context=loader.context, seed=0, epoch=0).views
    used = itertools.cycle([[int(view) for view in row if view >= 0] for row in drawn])
    frames = next(batches).frames[0].numpy().copy()

    def bare() -> int:
        return len(dataset[next(numbers)].frames)

    def chosen() -> int:
        row = next(used)
        shard.decode_into(next(numbers), row, frames)
        return len(row)

    def batch() -> int:
        return int((next(batches).views >= 0).sum())

    for work in (bare, chosen, batch):
        rate(work, seconds / 4)  # textures and machine code
    mean = 1 + sum(loader.context) / 2
    found = [
        Rates(bare=rate(bare, seconds), chosen=rate(chosen, seconds), batches=rate(batch, seconds), views=mean)
        for _ in range(runs)
    ]
    loader.close()
    return found


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.5, help="seconds of processor time per measurement")
    parser.add_argument("--runs", type=int, default=3, help="runs per set")
    parser.add_argument("--sets", nargs="+", default=list(RENDERERS), choices=list(RENDERERS), metavar="SET")
    options = parser.parse_args()
    print(f"frames/s of one core, medians of {options.runs} runs; aim: {AIM} of bare rendering")
    heads = "bare", "chosen", "batches", "of bare", "of chosen", "views/scene", f"cores, {STEP * 1000:g} ms"
    print(f"{'':40}" + "".join(f"{head:>13}" for head in heads))
    for name in options.sets:
        found = measure(name, options.seconds, options.runs)
        middle = statistics.median
        cells = [
            *(f"{middle(getattr(each, part) for each in found):,.0f}" for part in ("bare", "chosen", "batches")),
            f"{middle(each.batches / each.bare for each in found):.2f}",
            f"{middle(each.batches / each.chosen for each in found):.2f}",
            f"{found[0].views:.1f}",
            f"{math.ceil(10 * middle(each.cores for each in found)) / 10:.1f}",
        ]
        print(f"{name:40}" + "".join(f"{cell:>13}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
