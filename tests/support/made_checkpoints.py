"""Runs with checkpoints created directly instead of by training, which takes milliseconds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from synthetic import small, small_network

from gqn_model.checkpoint.best import Score
from gqn_model.checkpoint.checkpoint import POSE_ORDER, Checkpoint, checkpoint_path, save_checkpoint, write_config
from gqn_model.config import Config
from gqn_model.train.optimizer import JointOptimizer

# The smallest possible network. Its checkpoint has tens of kilobytes, so tests can try many of its bytes.
SMALLEST = {"hidden": 2, "canvas": 2, "core_steps": 2, "latent": 1, "kernel": 1, "shared_cores": True,
            "representation": "pyramid", "representation_channels": 8}  # fmt: skip


def smallest(**changes: object) -> Config:
    """Return a configuration of the smallest network."""
    return small(**(SMALLEST | changes))


def made(step: int, config: Config | None = None, score: Score | None = None) -> Checkpoint:
    """Create a checkpoint of a step, which also seeds its weights and the moments of its optimiser."""
    config = config or smallest()
    model = small_network(config, seed=step)
    optimizer = JointOptimizer(model, config.training)
    for parameter in model.parameters():
        parameter.grad = torch.rand_like(parameter)
    optimizer.step()
    return Checkpoint(
        step=step,
        config=config,
        model=model.state_dict(),
        optimizer=optimizer.state_dict(),
        loader={"place": step, "seed": "0"},
        fingerprint="f" * 64,
        scene_set="bars",
        pose_order=POSE_ORDER,
        score=score,
    )


def made_run(run: Path, steps: tuple[int, ...] = (2, 4), config: Config | None = None) -> Path:
    """Create a run with checkpoints of these steps."""
    run.mkdir(parents=True, exist_ok=True)
    write_config(run, config or smallest())
    for step in steps:
        save_checkpoint(run, made(step, config), keep=len(steps))
    return run


def overwrite(run: Path, step: int, raw: bytes) -> None:
    """Overwrite a checkpoint with other bytes and a matching checksum, as an attacker would."""
    path = checkpoint_path(run, step)
    path.write_bytes(raw)
    path.with_name(path.name + ".sha256").write_text(f"{hashlib.sha256(raw).hexdigest()}  {path.name}\n")


def prior(psnr: float) -> Score:
    """Return the score of a network with this PSNR of the prior."""
    return Score(prior_psnr=psnr, excess=1.0, sigma=0.7)


def same(one: Checkpoint, other: Checkpoint) -> bool:
    """Return whether two checkpoints are bitwise equal."""
    moments = [
        torch.equal(value, other.optimizer["state"][number][name])
        for number, held in one.optimizer["state"].items()
        for name, value in held.items()
    ]
    weights = [torch.equal(value, other.model[name]) for name, value in one.model.items()]
    rest = [(c.step, c.config, c.loader, c.fingerprint, c.scene_set, c.pose_order, c.score) for c in (one, other)]
    return all(moments) and all(weights) and rest[0] == rest[1] and one.model.keys() == other.model.keys()
