"""Compare the time of a training step of the plain network and of ours, on the CPU.

    python -m benchmarks.training [--only NAME ...] [--repeats 5] [--threads 2] [--compile] [--json]

The plain network is the oracle of the tests: full-size canvas, one weight over all joined inputs of a core, nothing
precomputed. Both networks encode all context views in one batch, so the ratio compares the steps only. Forward and
backward passes of both alternate on the same batch. `--compile` adds our step compiled like `gqn train --compile`.
Complete steps on a GPU are measured by `benchmarks.gpu`.

Prints per case the minimum seconds per step of each variant and the speed-up over the plain network, then the peak
memory of the process.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from gqn_model.config import resolve
from gqn_model.model.gqn import GQN
from gqn_model.model.inputs import Context, Inputs

SIGMA = 1.0
Step = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """A network to time.

    Attributes:
        name: label in the table.
        preset: preset of the settings.
        changes: settings that differ from the preset.
        batch: scenes per batch.
        views: context views per scene.
        bf16: run ours in bfloat16 if the processor supports it; the plain network stays in float32.
    """

    name: str
    preset: str
    changes: dict[str, Any]
    batch: int
    views: int
    bf16: bool = False


PAPER = {"frame_size": 64}
SHARED = PAPER | {"shared_cores": True}
CASES = (
    Case("tiny", "tiny", {}, 16, 5),
    Case("tiny, separate cores", "tiny", {"shared_cores": False}, 16, 5),
    Case("medium", "medium", PAPER, 8, 3),
    Case("paper, shared cores", "paper", SHARED, 4, 3),
    Case("paper, shared cores, pool", "paper", SHARED | {"representation": "pool"}, 4, 3),
    Case("paper, shared cores, pyramid", "paper", SHARED | {"representation": "pyramid"}, 4, 3),
    Case("paper, shared cores, bf16", "paper", SHARED, 4, 3, bf16=True),
    Case("paper, separate cores, batch 2", "paper", PAPER, 2, 3),
    Case("paper, separate cores, batch 4", "paper", PAPER, 4, 3),
    Case("paper, separate cores, pyramid", "paper", PAPER | {"representation": "pyramid"}, 2, 3),
)


@dataclass
class Result:
    """Minimum seconds per step of each variant.

    Attributes:
        name: label of the case.
        batch: scenes per step.
        seconds: seconds per variant, the plain network first; empty if not measured.
        notes: remarks, such as the reason why nothing was measured.
    """

    name: str
    batch: int
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def inputs_for(size: int, case: Case) -> Inputs:
    """Return a batch of noise."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    views = (case.batch, case.views)
    context = Context(draw(*views, 3, size, size), draw(*views, 7), torch.ones(views, dtype=torch.bool))
    return Inputs(context, draw(case.batch, 7), draw(case.batch, 3, size, size))


def plain_step(model: GQN, *, learn: bool = False) -> Callable[[Inputs], None]:
    """Return a step function of the plain network, with the joined parameters of `model` on the same device."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    naive = importlib.import_module("naive")
    sys.path.pop(0)
    joined = naive.plain_parameters(dict(model.named_parameters()), model.config)
    parameters = {name: value.detach().contiguous().requires_grad_() for name, value in joined.items()}
    # `represent` uses the parameters of the model
    learned = [*(v for n, v in parameters.items() if "representation" not in n), *model.representation.parameters()]
    optimizer = torch.optim.Adam(learned, fused=True) if learn else None

    def step(inputs: Inputs) -> None:
        for parameter in learned:
            parameter.grad = None
        elbo = naive.naive_elbo(
            parameters,
            model.config,
            inputs.context,
            inputs.query,
            inputs.target,
            SIGMA,
            model.noise(inputs.query),
            model.represent,
        )
        (-elbo.mean()).backward()
        if optimizer is not None:
            optimizer.step()

    return step


def our_step(model: GQN, inputs: Inputs, *, bf16: bool = False) -> Step:
    """Return a step function of our network."""
    sigma = torch.full((), SIGMA)
    parameters = list(model.parameters())

    def step() -> None:
        for parameter in parameters:
            parameter.grad = None
        with torch.autocast("cpu", dtype=torch.bfloat16) if bf16 else contextlib.nullcontext():
            loss = -model(inputs, sigma, model.noise(inputs.query)).value.mean()
        loss.backward()

    return step


def least(steps: dict[str, Step], repeats: int) -> dict[str, float]:
    """Return the minimum seconds of each step; the steps alternate after one warm-up."""
    best = dict.fromkeys(steps, float("inf"))
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if repeat:
                best[name] = min(best[name], time.perf_counter() - began)
    return best


def compare(case: Case, repeats: int, *, compiled: bool = False) -> Result:
    """Time both networks of a case on the CPU."""
    result = Result(case.name, case.batch)
    if case.bf16 and not torch.cpu._is_avx512_bf16_supported():
        result.notes.append("not measured: this processor does not support bfloat16")
        return result
    config = resolve(case.preset, (), case.changes).model
    torch.manual_seed(0)
    inputs = inputs_for(config.frame_size, case)
    plain_model = GQN(config)
    model = GQN(config).to_memory_format(torch.device("cpu"))
    plain = plain_step(plain_model)
    steps: dict[str, Step] = {"plain": lambda: plain(inputs), "ours": our_step(model, inputs, bf16=case.bf16)}
    if compiled:
        began = time.perf_counter()
        compiled_model = GQN(config).to_memory_format(torch.device("cpu"))
        compiled_model.compile_parts()
        steps["compiled"] = our_step(compiled_model, inputs, bf16=case.bf16)
        steps["compiled"]()
        result.notes.append(f"compiled in {time.perf_counter() - began:.0f} s")
    result.seconds = least(steps, repeats)
    return result


def main(arguments: list[str] | None = None) -> None:
    """Run the cases of the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="run only cases whose names contain NAME; repeatable",
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed steps per variant")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    parser.add_argument("--compile", action="store_true", help="also time our compiled network")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)

    def is_selected(case: Case) -> bool:
        return not chosen.only or any(word in case.name for word in chosen.only)

    results = []
    if not chosen.json:
        print(f"{chosen.threads} threads, torch {torch.__version__}; seconds per step", flush=True)
    for case in filter(is_selected, CASES):
        result = compare(case, chosen.repeats, compiled=chosen.compile)
        results.append(result)
        if not chosen.json:
            print(line(result), flush=True)
    if chosen.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"peak memory of the process with all networks: {peak:.1f} GB")


def line(result: Result) -> str:
    """Return the row of a result."""
    plain = next(iter(result.seconds.values()), 0.0)
    parts = [
        f"{name} {seconds:.4f}" + (f" ({plain / seconds:.2f} times)" if number else "")
        for number, (name, seconds) in enumerate(result.seconds.items())
    ]
    return f"{result.name:32} batch {result.batch:2}: {'; '.join([*parts, *result.notes])}"


if __name__ == "__main__":
    main()
