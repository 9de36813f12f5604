"""Checkpoints: everything that a training needs to go on, written whole and checked when read.

A run's folder holds `config.json` and `checkpoints/00001000.pt` with `00001000.pt.sha256` beside it, in the form that
`sha256sum -c` reads. The sum is written last: a checkpoint without one is none. Tensors and plain values only, read
with `weights_only=True`: a checkpoint from a stranger runs no code. Which one is the best is in `best`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gqn_data.errors import CheckpointError, OptionError, UnknownName
from gqn_data.io import atomic, strict_json
from gqn_model.checkpoint.best import BEST_FILE, Best, Score, read_best, write_best
from gqn_model.checkpoint.files import (
    FOLDER,
    check_sum,
    checkpoint_path,
    checkpoint_steps,
    refuse_packed,
    remove_checkpoints,
    sum_path,
    write_sum,
)
from gqn_model.checkpoint.validate import check_optimizer, check_weights, network_shapes, shape_of
from gqn_model.config import Config

__all__ = [
    "CONFIG_FILE",
    "FORMAT",
    "POSE_ORDER",
    "Checkpoint",
    "Step",
    "checkpoint_path",
    "checkpoint_steps",
    "load_checkpoint",
    "pose_order",
    "read_config",
    "rewind",
    "save_checkpoint",
    "update_best",
    "write_config",
]

# Changes when an older program could no longer read what is written, or would read it wrongly. In format 1 noise came
# from random generators whose states were kept; it is read, and the noise of a run that goes on is then another.
FORMAT = 2
_READ = (1, FORMAT)

CONFIG_FILE = "config.json"

# Of which checkpoint: of a step, of the best one, or (None) of the newest.
Step = int | Literal["best"] | None

# The order of the numbers of a pose of DeepMind's cameras; peers differ (cos before sin), and weights do not fit
# another order.
POSE_ORDER = "x y z sin_yaw cos_yaw sin_pitch cos_pitch"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The state of a training after `step` steps.

    Attributes:
        step: steps done; the schedules of sigma and learning rate are functions of it.
        config: the run's configuration.
        model: the network's parameters by name.
        optimizer: the optimiser's state, as torch gives it.
        loader: the position in the stream of batches.
        fingerprint: the dataset's.
        scene_set: its name.
        pose_order: the numbers of its poses, as `pose_order` tells them.
        score: how good the network is; None where nothing was measured.
        format: that of the file that it was read from.
    """

    step: int
    config: Config
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    loader: dict[str, int | str]
    fingerprint: str
    scene_set: str
    pose_order: str
    score: Score | None = None
    format: int = FORMAT


def pose_order(fields: tuple[str, ...]) -> str:
    """The numbers of a pose and their order, as a checkpoint tells them."""
    return " ".join(field.replace(" ", "_") for field in fields)


def write_config(run: Path, config: Config) -> None:
    """Writes the resolved configuration into the run's folder."""
    atomic.write_json(run / CONFIG_FILE, config.to_json())


def read_config(run: Path) -> Config:
    """The configuration of a run.

    Raises:
        CheckpointError: the folder is no run.
        OptionError: the file is there and cannot be understood.
    """
    path = run / CONFIG_FILE
    try:
        return Config.from_json(strict_json.read_json(path), path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{run}: no {CONFIG_FILE} there; expected the folder of a `gqn train`") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}); restore it, or train anew") from error


def save_checkpoint(run: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Writes a checkpoint and removes all but the newest `keep` and the best; gives its path.

    Raises:
        NoSpace: the disk is full; the checkpoints there stay.
    """
    path = checkpoint_path(run, checkpoint.step)
    value = {
        "format": FORMAT,
        "pose_order": checkpoint.pose_order,
        "step": checkpoint.step,
        "config": checkpoint.config.to_json(),
        "model": checkpoint.model,
        "optimizer": checkpoint.optimizer,
        "loader": checkpoint.loader,
        "fingerprint": checkpoint.fingerprint,
        "scene_set": checkpoint.scene_set,
        "score": checkpoint.score and checkpoint.score.to_json(),
    }
    sum_path(path).unlink(missing_ok=True)
    with atomic.writing(path) as file:
        torch.save(value, file)
    write_sum(path)
    # Before others are removed, and not before this one is whole.
    best = update_best(run, checkpoint)
    remove_checkpoints(run, [step for step in checkpoint_steps(run)[:-keep] if best is None or step != best.step])
    atomic.remove_temporaries(run / FOLDER)  # of a run that was killed on its way to a step that never came again
    return path


def update_best(run: Path, checkpoint: Checkpoint) -> Best | None:
    """The best checkpoint of a run, which is noted as such where it is this one.

    A run that goes on calls it with where it goes on from: it may have been killed before that one was noted.

    Args:
        run: the run's folder.
        checkpoint: one of its whole ones.

    Raises:
        NoSpace: the disk is full.
    """
    try:
        noted = best = read_best(run)
        lost = best is not None and best.step not in checkpoint_steps(run)
    except CheckpointError:
        noted, lost = None, True
    if lost:
        best = _best_of(run)
    score = checkpoint.score
    better = best is None or best.step == checkpoint.step or (score is not None and score.beats(best.score))
    if score is not None and score.finite and better:
        best = Best(checkpoint.step, score)
    if best is not None and best != noted:
        write_best(run, best)
    return best


def rewind(run: Path, step: int) -> None:
    """Removes what a run has of later steps than `step`, which is then its newest checkpoint."""
    remove_checkpoints(run, [later for later in checkpoint_steps(run) if later > step])
    best = _noted(run)
    if best is None or best.step > step:
        (run / BEST_FILE).unlink(missing_ok=True)
        best = _best_of(run)
        if best is not None:
            write_best(run, best)


def load_checkpoint(run: Path, step: Step = None) -> Checkpoint:
    """A checkpoint of a run; its tensors on the CPU.

    Raises:
        CheckpointError: the folder is no run, it has no such checkpoint, or the bytes are not those written, or not
            the network that the run's configuration describes.
    """
    config = read_config(run)
    steps = checkpoint_steps(run)
    if not steps:
        raise CheckpointError(f"{run}: no whole checkpoint in {FOLDER}/; train it first (`gqn train`)")
    step = _chosen(run, step, steps)
    path = checkpoint_path(run, step)
    raw = path.read_bytes()
    check_sum(run, step, raw)
    try:
        refuse_packed(raw)
        value = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:
        reason = "".join(filter(str.isprintable, str(error).split("\n", 1)[0]))
        raise CheckpointError(f"{path}: cannot be read as weights and plain values ({reason})") from error
    if not isinstance(value, dict) or value.get("format") not in _READ:
        found = value.get("format") if isinstance(value, dict) else type(value).__name__
        raise CheckpointError(f"{path}: format {str(found)[:40]}, expected {FORMAT}; use the version that wrote it")
    for name, kind in _KINDS.items():
        if not isinstance(value.get(name), kind):
            raise CheckpointError(f"{path}: {name} is no {kind.__name__}; use the version that wrote it")
    if value["step"] != step:
        raise CheckpointError(f"{path}: holds step {value['step']}; give it back the name that it had")
    # A run that has settled their number has seen other cameras than DeepMind's, in an order of their own.
    if not config.model.pose_numbers and value["pose_order"] != POSE_ORDER:
        raise CheckpointError(f"{path}: poses are {value['pose_order']!r}, expected {POSE_ORDER!r}")
    try:
        saved = Config.from_json(value["config"], path)
        score = None if value.get("score") is None else Score.from_json(value["score"])
    except (OptionError, UnknownName, ValueError) as error:
        raise CheckpointError(f"{path}: {error}; use the version that wrote it") from error
    if saved.model != config.model:
        raise CheckpointError(
            f"{path}: of another model than {run / CONFIG_FILE}: {saved.model} against {config.model}; "
            "put the config.json back that belongs to it"
        )
    shapes = network_shapes(saved.model, len(value["model"]), path)
    check_weights({name: shape_of(tensor) for name, tensor in value["model"].items()}, shapes, path)
    check_optimizer(value["optimizer"], shapes, path)
    return Checkpoint(
        step=step,
        config=saved,
        model=dict(value["model"]),
        optimizer=value["optimizer"],
        loader=value["loader"],
        fingerprint=value["fingerprint"],
        scene_set=value["scene_set"],
        pose_order=value["pose_order"],
        score=score,
        format=value["format"],
    )


# What a checkpoint holds, and of which type; `score` may be absent.
_KINDS: dict[str, type] = {
    "step": int,
    "config": dict,
    "model": dict,
    "optimizer": dict,
    "loader": dict,
    "fingerprint": str,
    "scene_set": str,
    "pose_order": str,
}


def _chosen(run: Path, step: Step, steps: list[int]) -> int:
    there = f"there are {', '.join(map(str, steps))}"
    if step == "best":
        best = read_best(run)
        if best is None:
            raise CheckpointError(f"{run}: no {BEST_FILE} says which checkpoint is the best; give a step: {there}")
        step = best.step
    step = steps[-1] if step is None else step
    if step not in steps:
        raise CheckpointError(f"{run}: no checkpoint of step {step}; {there}")
    return step


def _noted(run: Path) -> Best | None:
    """The note, or None where it is absent or damaged."""
    try:
        return read_best(run)
    except CheckpointError:
        return None


def _best_of(run: Path) -> Best | None:
    """The best of the checkpoints that are there, by what they say themselves; the long way, for want of a note."""
    best: Best | None = None
    for step in checkpoint_steps(run):
        try:
            score = load_checkpoint(run, step).score
        except CheckpointError:
            continue
        if score is not None and (best is None or score.beats(best.score)):
            best = Best(step, score)
    return best
