"""Time of a training step on the CPU: the plain network against ours, and the presets as they are.

    python -m benchmarks.training [--repeats 5] [--threads 2] [--json]

The plain network is the oracle of the tests (canvas of full size, joined inputs, nothing computed ahead), with all
context views in one batch in both, so that the ratio tells of the steps alone. Both take the same forward and
backward pass on the same batch in the same run, in turns; the least time of each counts.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from gqn_model.config import resolve
from gqn_model.inputs import Context, Inputs
from gqn_model.model import GQN

SIGMA = 1.0


@dataclass(frozen=True)
class Case:
    """A network to time.

    Attributes:
        name: in the table.
        preset: where its settings start from.
        changes: settings that differ.
        batch: scenes.
        views: context views of each.
    """

    name: str
    preset: str
    changes: dict[str, Any]
    batch: int
    views: int


CASES = (
    Case("tiny", "tiny", {}, 16, 5),
    Case("tiny, separate cores", "tiny", {"shared_cores": False}, 16, 5),
    Case("paper, shared cores", "paper", {"frame_size": 64, "shared_cores": True}, 2, 3),
    Case("paper, separate cores", "paper", {"frame_size": 64}, 2, 3),
)


@dataclass(frozen=True)
class Result:
    """Seconds a step of both networks, and the ratio of plain to ours."""

    name: str
    plain: float
    ours: float
    ratio: float


def inputs_for(size: int, case: Case) -> Inputs:
    """A batch of noise."""
    generator = torch.Generator().manual_seed(0)
    context = Context(
        torch.rand(case.batch, case.views, 3, size, size, generator=generator),
        torch.rand(case.batch, case.views, 7, generator=generator),
        torch.ones(case.batch, case.views, dtype=torch.bool),
    )
    query = torch.rand(case.batch, 7, generator=generator)
    return Inputs(context, query, torch.rand(case.batch, 3, size, size, generator=generator))


def plain_step(model: GQN, inputs: Inputs) -> Callable[[], None]:
    """A step of the plain network on the parameters of ours."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "model"))
    naive = importlib.import_module("naive")
    sys.path.pop(0)
    parameters = dict(model.named_parameters())

    def step() -> None:
        noise = model.noise(inputs.query)
        model.zero_grad()
        loss = -naive.naive_elbo(
            parameters, model.config, inputs.context, inputs.query, inputs.target, SIGMA, noise, model.represent
        ).mean()
        loss.backward()

    return step


def our_step(model: GQN, inputs: Inputs) -> Callable[[], None]:
    """A step of ours, in the layout in memory that the trainer gives it."""

    def step() -> None:
        model.zero_grad()
        (-model(inputs, SIGMA).value.mean()).backward()

    return step


def compare(case: Case, repeats: int) -> Result:
    """Times both networks of a case, in turns."""
    config = resolve(case.preset, (), case.changes).model
    torch.manual_seed(0)
    inputs = inputs_for(config.frame_size, case)
    plain_model = GQN(config)
    fast_model = GQN(config)
    fast_model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = {"plain": plain_step(plain_model, inputs), "ours": our_step(fast_model, inputs)}
    best = dict.fromkeys(steps, float("inf"))
    for repeat in range(repeats + 1):  # the first warms up
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if repeat:
                best[name] = min(best[name], time.perf_counter() - began)
    return Result(case.name, best["plain"], best["ours"], best["plain"] / best["ours"])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    results = [compare(case, chosen.repeats) for case in CASES]
    if chosen.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
        return
    print(f"{'':24} {'plain':>10} {'ours':>10} {'ratio':>7}   ({chosen.threads} threads, forward and backward)")
    for result in results:
        print(f"{result.name:24} {result.plain:8.3f} s {result.ours:8.3f} s {result.ratio:7.2f}")


if __name__ == "__main__":
    main()
