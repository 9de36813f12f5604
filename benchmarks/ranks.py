"""Measure data-parallel training with two ranks on the CPU (gloo), with a fixed batch and one thread per rank.

    python -m benchmarks.ranks [--repeats 3] [--json]

Prints per network the minimum seconds per step of one process, of two independent processes at the same time, and of
two ranks that exchange gradients; the megabytes exchanged; the efficiency (one process over two ranks); and its upper
bound (one process over two independent ones, which share caches and memory but exchange nothing).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Case:
    """A network to train.

    Attributes:
        preset: preset of the settings.
        mods: modifications of the preset.
        batch: scenes per rank.
        views: context views per scene.
        steps: timed steps, after three warm-up steps.
    """

    preset: str
    mods: tuple[str, ...]
    batch: int
    views: int
    steps: int


CASES = (
    Case("tiny", (), 16, 5, 30),
    Case("medium", (), 4, 5, 10),
    Case("paper", ("shared_cores",), 1, 3, 4),
)


@dataclass(frozen=True)
class Result:
    """Seconds per step.

    Attributes:
        name: label of the case.
        single: one process.
        independent: the slower of two processes that exchange nothing.
        ranks: two ranks.
        megabytes: gradients exchanged per step.
    """

    name: str
    single: float
    independent: float
    ranks: float
    megabytes: float

    @property
    def efficiency(self) -> float:
        """Efficiency of two ranks: 1 if twice the scenes take the same time."""
        return self.single / self.ranks

    @property
    def bound(self) -> float:
        """Upper bound of the efficiency, from two independent processes."""
        return self.single / self.independent


def _child(number: int) -> None:
    """Train on noise in a child process, and print the minimum time per step."""
    import torch

    from gqn_model.config import resolve
    from gqn_model.model.inputs import Context, Inputs
    from gqn_model.train.distributed import current_ranks, process_group
    from gqn_model.train.step import TrainStep

    case = CASES[number]
    torch.set_num_threads(1)
    ranks = current_ranks()
    changes = {"frame_size": 32 if case.preset == "tiny" else 64, "batch_size": case.batch * ranks.count}
    config = resolve(case.preset, case.mods, changes)
    cpu = torch.device("cpu")
    with process_group(ranks):
        take_step = TrainStep(config, cpu, ranks)
        size, scenes, views = config.model.frame_size, case.batch, case.views
        context = Context(
            torch.rand(scenes, views, 3, size, size), torch.rand(scenes, views, 7), torch.ones(scenes, views) > 0
        )
        inputs = Inputs(context, torch.rand(scenes, 7), torch.rand(scenes, 3, size, size))
        least = float("inf")
        for step in range(case.steps + 3):
            began = time.perf_counter()
            take_step(step, inputs)
            if step >= 3:
                least = min(least, time.perf_counter() - began)
    numbers = sum(parameter.numel() for parameter in take_step.model.parameters())
    if ranks.first:
        print(json.dumps({"least": least, "megabytes": numbers * 4 / 1e6}))


def _run(number: int, *, processes: int, ranks: int) -> dict[str, float]:
    """Run `processes` launches of `ranks` ranks at the same time; return the results of the slowest."""
    launcher = ["torch.distributed.run", f"--nproc-per-node={ranks}", "--rdzv-backend=c10d"]
    launcher += ["--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1", "-m"]
    command = [sys.executable, "-m", *(launcher if ranks > 1 else []), "benchmarks.ranks", "--child", str(number)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    started = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(processes)
    ]
    results: list[dict[str, float]] = []
    for process in started:
        out, _ = process.communicate(timeout=600)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
        results.append(json.loads(out.decode().splitlines()[-1]))
    return max(results, key=lambda one: one["least"])


def measure(number: int, repeats: int) -> Result:
    """Measure a case; the variants alternate."""
    case = CASES[number]
    kinds = {"single": (1, 1), "independent": (2, 1), "ranks": (1, 2)}
    least = dict.fromkeys(kinds, float("inf"))
    megabytes = 0.0
    for _ in range(repeats):
        for name, (processes, ranks) in kinds.items():
            found = _run(number, processes=processes, ranks=ranks)
            least[name], megabytes = min(least[name], found["least"]), found["megabytes"]
    words = " ".join((case.preset, *case.mods))
    return Result(f"{words}, {case.batch} per rank", **least, megabytes=megabytes)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="launches per variant")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        _child(arguments.child)
        return
    head = f"{'network':32} {'single':>8} {'indep.':>8} {'2 ranks':>8} {'exchange':>9} {'efficiency':>10} {'bound':>6}"
    if not arguments.json:
        print(head, flush=True)
    results = []
    for number in range(len(CASES)):
        results.append(one := measure(number, arguments.repeats))
        if not arguments.json:
            print(
                f"{one.name:32} {one.single:7.3f}s {one.independent:7.3f}s {one.ranks:7.3f}s {one.megabytes:6.1f} MB "
                f"{one.efficiency:10.2f} {one.bound:6.2f}",
                flush=True,
            )
    if arguments.json:
        rows = [asdict(one) | {"efficiency": one.efficiency, "bound": one.bound} for one in results]
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
