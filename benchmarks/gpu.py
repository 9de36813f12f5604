"""Time complete training steps on a GPU: loader, copies, network and optimiser, plain network and ours.

    python -m benchmarks.gpu [--only WORD ...] [--without WORD ...] [--steps 100] [--batch 36] [--workers 4]
        [--shards PATH] [--profile DIR]

Our steps are those of `gqn train`: `TrainStep`, fed by `SceneLoader` through `on_device`, with its metrics. The plain
network is the oracle of the tests: full-size canvas, joined inputs, nothing precomputed; context views in one batch
like ours. It runs eagerly in float32 from the same loader, with torch's defaults (TF32 in convolutions) and without
TF32. After a warm-up, `--steps` steps (a fifth of them for the plain network) are timed together until the GPU is done.

Prints per case: milliseconds per step; `waits`, the fraction of a step that disappears if one batch is reused instead
of loading new ones (time that the GPU waits for data); `memory`, the peak that torch allocated on the GPU; and seconds
of the first step. Without `--shards`, rooms are rendered first. Without a GPU, prints that nothing was measured.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.scenes import raw_rooms
from benchmarks.training import plain_step
from gqn_data.convert.index import index_raw_folder
from gqn_data.loader import SceneLoader, on_device
from gqn_model.config import Config, resolve
from gqn_model.data import training_batches
from gqn_model.model.gqn import GQN
from gqn_model.model.inputs import Inputs, to_device
from gqn_model.train.distributed import ALONE
from gqn_model.train.metrics import TrainingMetrics
from gqn_model.train.step import TrainStep

_WARM = 8  # warm-up steps; a CUDA graph is captured in the fourth
_SCENES = 2000
Take = Callable[[int, Inputs], None]


@dataclass(frozen=True)
class Case:
    """A network and the way its steps run.

    Attributes:
        name: label in the table.
        preset: preset of the settings.
        mods: modifications of the preset.
        plain: use the plain network instead of ours.
        tf32: allow TF32 in float32 matrix products and convolutions.
    """

    name: str
    preset: str = "paper"
    mods: tuple[str, ...] = ()
    plain: bool = False
    tf32: bool = True


def _cases() -> Iterator[Case]:
    for name, preset, shared in (
        ("paper, separate cores", "paper", ()),
        ("paper, shared cores", "paper", ("shared_cores",)),
        ("medium", "medium", ()),
    ):
        yield Case(f"{name}: plain, float32, no TF32", preset, shared, plain=True, tf32=False)
        yield Case(f"{name}: plain, float32", preset, shared, plain=True)
        yield Case(f"{name}: ours, float32", preset, shared)
        for how in ((), ("compiled",), ("cuda_graph",), ("compiled", "cuda_graph")):
            yield Case(f"{name}: ours, bf16{''.join(', ' + mod for mod in how)}", preset, (*shared, "bf16", *how))


@contextmanager
def shards_at(path: str | None) -> Iterator[str]:
    """Yield the dataset at `path`, or rendered rooms that are indexed in place."""
    if path is not None:
        yield path
        return
    with raw_rooms(_SCENES) as raw:
        index_raw_folder(raw)
        yield str(raw.folder)


def plain_take(config: Config) -> Take:
    """Return the step function of the plain network, with Adam."""
    torch.manual_seed(0)
    step = plain_step(GQN(config.model).to("cuda"), learn=True)
    return lambda _, inputs: step(inputs)


def our_take(config: Config) -> Take:
    """Return the step function of our network, with the metrics of the log."""
    device = torch.device("cuda")
    take_step = TrainStep(config, device)
    metrics = TrainingMetrics(device, config.model.core_steps, ALONE)

    def take(step: int, inputs: Inputs) -> None:
        metrics.add(step, take_step(step, inputs))

    return take


def measure(case: Case, shards: str, arguments: argparse.Namespace) -> str:
    """Measure a case; return its row of the table."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    changes = {"batch_size": arguments.batch, "workers": arguments.workers, "context_max": 5}
    config = resolve(case.preset, case.mods, changes)
    torch.backends.cudnn.allow_tf32 = case.tf32
    torch.backends.cuda.matmul.allow_tf32 = case.tf32 and not case.plain  # torch's default
    batches, config = training_batches(shards, config)
    take = plain_take(config) if case.plain else our_take(config)
    stream = _stream(batches)
    began = time.perf_counter()
    inputs = next(stream)
    take(0, inputs)
    torch.cuda.synchronize()
    first = time.perf_counter() - began
    steps = max(3, arguments.steps // 5) if case.plain else arguments.steps
    fed = timed(take, stream, 1, steps)
    repeated = timed(take, iter(lambda: inputs, None), 1 + _WARM + steps, steps)
    memory = torch.cuda.max_memory_allocated() / 1e9
    if arguments.profile:
        _profile(take, inputs, arguments.profile / f"{case.name.replace(', ', '-').replace(': ', '-')}.txt")
    batches.close()
    waits = max(0.0, 1 - repeated / fed)
    return f"{case.name:48} {1e3 * fed:8.2f} ms {waits:6.1%} {memory:6.1f} GB {first:6.1f} s"


def timed(take: Take, stream: Iterator[Inputs], at: int, steps: int) -> float:
    """Return seconds per step, over `steps` steps after a warm-up."""
    for step in range(at, at + _WARM):
        take(step, next(stream))
    torch.cuda.synchronize()
    began = time.perf_counter()
    for step in range(at + _WARM, at + _WARM + steps):
        take(step, next(stream))
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps


def _stream(batches: SceneLoader) -> Iterator[Inputs]:
    device = torch.device("cuda")
    for batch in on_device(batches, device):
        yield to_device(batch, device)


def _profile(take: Take, inputs: Inputs, path: Path) -> None:
    from torch.profiler import ProfilerActivity, profile

    path.parent.mkdir(parents=True, exist_ok=True)
    activities: list[Any] = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities, record_shapes=True) as found:
        take(10**6, inputs)
        torch.cuda.synchronize()
    by_shape = found.key_averages(group_by_input_shape=True)
    tables = [
        averages.table(
            sort_by="self_cuda_time_total", row_limit=60, max_name_column_width=110, max_shapes_column_width=90
        )
        for averages in (by_shape, found.key_averages())
    ]
    path.write_text("\n\n".join(tables))


def main(arguments: list[str] | None = None) -> None:
    """Run the cases of the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="WORD",
        help="run only cases whose names contain every WORD given",
    )
    parser.add_argument(
        "--without", action="append", default=[], metavar="WORD", help="skip cases whose names contain WORD; repeatable"
    )
    parser.add_argument("--steps", type=int, default=100, help="steps to time")
    parser.add_argument("--batch", type=int, default=36, help="batch size")
    parser.add_argument("--workers", type=int, default=4, help="workers of the loader")
    parser.add_argument("--shards", metavar="PATH", help="dataset to train on; default: rendered rooms")
    parser.add_argument(
        "--profile", type=Path, metavar="DIR", help="write a profile of one step per case to this folder"
    )
    chosen = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("not measured: no GPU")
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, batch {chosen.batch}, {chosen.workers} workers")
    print(f"{'':48} {'per step':>11} {'waits':>6} {'memory':>9} {'first step':>8}", flush=True)
    with shards_at(chosen.shards) as shards:
        for case in _cases():
            wanted = all(word in case.name for word in chosen.only)
            if wanted and not any(word in case.name for word in chosen.without):
                print(measure(case, shards, chosen), flush=True)


if __name__ == "__main__":
    main()
