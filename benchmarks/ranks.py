"""Two ranks against one, on the CPU with gloo: a fixed batch a rank, one thread a rank.

    python -m benchmarks.ranks [--repeats 3] [--json]

Three things are timed in turns, and the least time of a step counts: one process alone; two that know nothing of each
other, at once; two ranks that exchange gradients. The first against the third is the efficiency. The second tells what
bounds it: two processes share caches and memory whether or not they exchange anything.
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
        preset: its settings.
        mods: over them.
        batch: scenes a rank.
        views: context views of each.
        steps: timed, after three that are not.
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
    """Seconds a step, and what follows.

    Attributes:
        name: of the case.
        alone: one process.
        apart: each of two that exchange nothing.
        together: two ranks.
        megabytes: of gradients that are exchanged a step.
    """

    name: str
    alone: float
    apart: float
    joined: float
    megabytes: float

    @property
    def efficiency(self) -> float:
        """Of two ranks: 1 where twice the scenes take no longer."""
        return self.alone / self.joined

    @property
    def possible(self) -> float:
        """The same of two processes that exchange nothing."""
        return self.alone / self.apart


def _child(number: int) -> None:
    """Runs in each process: takes steps on noise, and prints the least time of one."""
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
    """The slowest of so many launches at once, of so many ranks each."""
    launcher = ["torch.distributed.run", f"--nproc-per-node={ranks}", "--rdzv-backend=c10d"]
    launcher += ["--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1", "-m"]
    command = [sys.executable, "-m", *(launcher if ranks > 1 else []), "benchmarks.ranks", "--child", str(number)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    started = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(processes)
    ]
    told: list[dict[str, float]] = []
    for process in started:
        out, _ = process.communicate(timeout=600)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
        told.append(json.loads(out.decode().splitlines()[-1]))
    return max(told, key=lambda one: one["least"])


def measure(number: int, repeats: int) -> Result:
    """Times a case."""
    case = CASES[number]
    kinds = {"alone": (1, 1), "apart": (2, 1), "together": (1, 2)}
    least = dict.fromkeys(kinds, float("inf"))
    megabytes = 0.0
    for _ in range(repeats):
        for name, (processes, ranks) in kinds.items():
            found = _run(number, processes=processes, ranks=ranks)
            least[name], megabytes = min(least[name], found["least"]), found["megabytes"]
    words = " ".join((case.preset, *case.mods))
    return Result(f"{words}, {case.batch} a rank", **least, megabytes=megabytes)


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        _child(arguments.child)
        return
    head = f"{'network':32} {'alone':>8} {'apart':>8} {'2 ranks':>8} {'exchange':>9} {'efficiency':>10} {'apart':>6}"
    if not arguments.json:
        print(head, flush=True)
    results = []
    for number in range(len(CASES)):
        results.append(one := measure(number, arguments.repeats))
        if not arguments.json:
            print(
                f"{one.name:32} {one.alone:7.3f}s {one.apart:7.3f}s {one.joined:7.3f}s {one.megabytes:6.1f} MB "
                f"{one.efficiency:10.2f} {one.possible:6.2f}",
                flush=True,
            )
    if arguments.json:
        rows = [asdict(one) | {"efficiency": one.efficiency, "possible": one.possible} for one in results]
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
