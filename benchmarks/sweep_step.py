"""Measure a training step of the plane sweep on the CPU, and its matrix products against the machine's rate.

    python -m benchmarks.sweep_step [--preset sweep_medium --size 64] [--precision bf16] [--context 3] [--profile]

The step is that of a preset without its loader: forward, backward and the optimiser. Its matrix products and
convolutions, counted by `torch.utils.flop_counter`, would take a part of its time at the rate of a product of square
matrices in the same precision. The sweep has no gradient: its share of the step is what the loader's workers could
take over at most.

Prints the minimum processor seconds of a step and of its sweep, the operations, the machine's rate and the shares. With
--profile also the costliest operators of torch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from gqn_model.config import resolve
from gqn_model.device import keep_freed_memory
from gqn_model.model.contract import build_network
from gqn_model.model.inputs import Context
from gqn_model.model.plane_sweep import PlaneSweep
from gqn_model.train.optimizer import JointOptimizer

SIDE = 1024  # of the matrices whose product gives the machine's rate
LENS = {"field_of_view": 50.0, "yaw_sign": 1, "near": 0.35, "far": 2.4}  # of rooms_ring_camera


def least(call: Callable[[], object], repeats: int) -> float:
    """Return the minimum processor seconds of a call, after one to warm up."""
    best = float("inf")
    for repeat in range(repeats + 1):
        began = time.process_time()
        call()
        if repeat:
            best = min(best, time.process_time() - began)
    return best


def main() -> None:
    """Print the figures of the command line's step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="sweep_tiny", help="preset of the plane sweep")
    parser.add_argument("--size", type=int, default=32, help="frame size in pixels")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="bf16", help="precision of the network")
    parser.add_argument("--context", type=int, default=3, help="context views")
    parser.add_argument("--repeats", type=int, default=9, help="timed steps")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--profile", action="store_true", help="list the costliest operators")
    chosen = parser.parse_args()
    keep_freed_memory()  # as a training does
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    config = resolve(chosen.preset, (), {**LENS, "frame_size": chosen.size})
    training, size = config.training, config.model.frame_size
    model = build_network(config.model).to_memory_format(torch.device("cpu"))
    assert isinstance(model, PlaneSweep)
    optimizer = JointOptimizer(model, training)
    dtype = torch.bfloat16 if chosen.precision == "bf16" else torch.float32
    batch, targets = training.batch_size, training.targets
    angles = torch.rand(batch, chosen.context + targets) * 6.2832
    level = torch.zeros_like(angles)
    # Cameras on a ring that look at its middle.
    poses = torch.stack([angles.cos(), angles.sin(), level, -angles.sin(), -angles.cos(), level, level + 1], -1)
    mask = torch.ones(batch, chosen.context, dtype=torch.bool)
    context = Context(torch.rand(batch, chosen.context, 3, size, size), poses[:, : chosen.context], mask)
    query, target = poses[:, chosen.context :], torch.rand(batch, targets, 3, size, size)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=chosen.precision == "bf16"):
            frames = model.predict(context, query)
        model.loss(frames, target).value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        optimizer.step()

    with torch.autocast("cpu", torch.bfloat16, enabled=chosen.precision == "bf16"), torch.no_grad():
        encoded = model.encode(context)
    with FlopCounterMode(display=False) as counter:
        step()
    operations = counter.get_total_flops()
    square = torch.randn(SIDE, SIDE, dtype=dtype)
    rate = 2 * SIDE**3 / least(lambda: square @ square, chosen.repeats)
    seconds = least(step, chosen.repeats)
    sweep = least(lambda: model.sweep(encoded, query), chosen.repeats)
    print(f"{chosen.precision}, {batch} scenes, {chosen.context} context views, {targets} targets of {size} pixels")
    print(f"step {1e3 * seconds:.0f} ms, of it the sweep {1e3 * sweep:.0f} ms ({sweep / seconds:.2f})")
    print(f"products of a step {operations / 1e9:.1f} GFLOP; this machine {rate / 1e9:.0f} GFLOP/s")
    print(f"products at that rate, share of the step: {operations / rate / seconds:.2f}")
    if chosen.profile:
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            step()
        print(profiled.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=40))


if __name__ == "__main__":
    main()
