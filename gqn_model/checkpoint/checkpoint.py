"""Checkpoints: the complete state of a training, written atomically and checked when read.

A run's folder holds `config.json` and `checkpoints/00001000.pt` with `00001000.pt.sha256` next to it, in the format of
`sha256sum -c`. The checksum is written last: a checkpoint without one is incomplete. Checkpoints hold tensors and plain
values only and load with `weights_only=True`, so that a file from a stranger runs no code.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gqn_data.counts import as_count
from gqn_data.errors import CheckpointError, OptionError, UnknownName
from gqn_data.io import atomic
from gqn_model.checkpoint.best import BEST_FILE, Best, Score, read_best, write_best
from gqn_model.checkpoint.files import (
    FOLDER,
    checkpoint_path,
    checkpoint_steps,
    read_checked,
    refuse_packed,
    remove_checkpoints,
    sum_path,
    write_sum,
)
from gqn_model.checkpoint.run_folder import CONFIG_FILE, read_config, write_config
from gqn_model.checkpoint.validate import Shape, check_finite, check_optimizer, check_weights, network_shapes, shape_of
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

# Raised when an older program could not read new files, or would misread them. In format 1 noise came from generators
# whose states were saved; it can be read, and a resumed run then draws other noise.
FORMAT = 2
_READ = (1, FORMAT)

# Generous: an entry of the archive with its name and its place in the pickled table; settings, states and the rest.
_BYTES_BESIDE_A_TENSOR, _BYTES_BESIDE = 4096, 4 << 20

# A checkpoint: a step, the best, or (None) the newest.
Step = int | Literal["best"] | None

# Order of the numbers of a pose of DeepMind's cameras. Other implementations put cos before sin; weights fit one order.
POSE_ORDER = "x y z sin_yaw cos_yaw sin_pitch cos_pitch"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """State of a training after `step` steps.

    Attributes:
        step: steps done; the schedules are functions of it.
        config: the run's configuration.
        model: the network's parameters by name.
        optimizer: the optimiser's state dict.
        loader: position in the stream of batches.
        fingerprint: the dataset's.
        scene_set: its name.
        pose_order: its pose numbers, from `pose_order`.
        score: quality of the network; None if not measured.
        format: format of the file that it was read from.
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
    """Return the names of a pose's numbers in order, as one string."""
    return " ".join(field.replace(" ", "_") for field in fields)


def save_checkpoint(run: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint, remove all but the newest `keep` and the best, and return its path.

    Raises:
        NoSpace: the disk is full; earlier checkpoints stay.
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
    # After this checkpoint is complete and before others are removed.
    best = update_best(run, checkpoint)
    remove_checkpoints(run, [step for step in checkpoint_steps(run)[:-keep] if best is None or step != best.step])
    atomic.remove_temporaries(run / FOLDER)  # left by a killed run at a step that was not reached again
    return path


def update_best(run: Path, checkpoint: Checkpoint) -> Best | None:
    """Record the checkpoint in `best.json` if it is the best, and return the best checkpoint.

    A resumed run calls it with the checkpoint it resumes from: the run may have been killed before recording it.

    Args:
        run: the run's folder.
        checkpoint: a complete checkpoint of the run.

    Raises:
        NoSpace: the disk is full.
    """
    try:
        recorded = best = read_best(run)
        lost = best is not None and best.step not in checkpoint_steps(run)
    except CheckpointError:
        recorded, lost = None, True
    if lost:
        best = _find_best(run)
    score = checkpoint.score
    better = best is None or best.step == checkpoint.step or (score is not None and score.beats(best.score))
    if score is not None and score.finite and better:
        best = Best(checkpoint.step, score)
    if best is not None and best != recorded:
        write_best(run, best)
    return best


def rewind(run: Path, step: int) -> None:
    """Remove the checkpoints after `step`, which becomes the newest."""
    remove_checkpoints(run, [later for later in checkpoint_steps(run) if later > step])
    best = _recorded_best(run)
    if best is None or best.step > step:
        (run / BEST_FILE).unlink(missing_ok=True)
        best = _find_best(run)
        if best is not None:
            write_best(run, best)


def load_checkpoint(run: Path, step: Step = None) -> Checkpoint:
    """Load a checkpoint of a run, its tensors on the CPU.

    Raises:
        CheckpointError: the folder is not a run, the checkpoint is missing or damaged, or it holds another network
            than the run's configuration describes.
        OptionError: `step` is neither a number nor `best`, or the run's configuration has an impossible value.
    """
    config = read_config(run)
    steps = checkpoint_steps(run)
    if not steps:
        raise CheckpointError(f"{run}: {FOLDER}/ is empty, expected a checkpoint; train the run first with `gqn train`")
    step = _resolve_step(run, step, steps)
    path = checkpoint_path(run, step)
    shapes = network_shapes(config.model, run / CONFIG_FILE)
    raw = read_checked(run, step, _most_bytes(shapes))
    try:
        refuse_packed(raw)
        value = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:
        reason = "".join(filter(str.isprintable, str(error).split("\n", 1)[0]))
        raise CheckpointError(f"{path}: not weights and plain values ({reason}); restore it") from error
    if not isinstance(value, dict) or value.get("format") not in _READ:
        found = value.get("format") if isinstance(value, dict) else type(value).__name__
        raise CheckpointError(f"{path}: format {str(found)[:40]}, expected {FORMAT}; use the version that wrote it")
    for name, kind in _KINDS.items():
        if not isinstance(value.get(name), kind):
            raise CheckpointError(
                f"{path}: {name} is {type(value.get(name)).__name__}, expected {kind.__name__}; "
                "use the version that wrote it"
            )
    if value["step"] != step:
        raise CheckpointError(f"{path}: holds step {value['step']}, expected {step}; restore its original name")
    # A run with `pose_numbers` set has other cameras than DeepMind's, with another order.
    if not config.model.pose_numbers and value["pose_order"] != POSE_ORDER:
        raise CheckpointError(f"{path}: poses are {value['pose_order']!r}, expected {POSE_ORDER!r}")
    try:
        saved = Config.from_json(value["config"], path)
        score = None if value.get("score") is None else Score.from_json(value["score"])
    except (OptionError, UnknownName, ValueError) as error:
        raise CheckpointError(f"{path}: {error}; use the version that wrote it") from error
    if saved.model != config.model:
        raise CheckpointError(
            f"{path}: model {saved.model}, expected {config.model} as in {run / CONFIG_FILE}; "
            "restore the config.json that belongs to it"
        )
    check_weights({name: shape_of(tensor) for name, tensor in value["model"].items()}, shapes, path)
    check_finite(value["model"], path)
    check_optimizer(value["optimizer"], shapes, saved, path)
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


def _most_bytes(shapes: Mapping[str, Shape]) -> int:
    """Return the largest size of a checkpoint of a network: its float32 weights, two moments of each, and the rest."""
    return 3 * sum(4 * math.prod(shape.size) + _BYTES_BESIDE_A_TENSOR for shape in shapes.values()) + _BYTES_BESIDE


# Required fields of a checkpoint and their types.
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


def _resolve_step(run: Path, step: Step, steps: list[int]) -> int:
    possible = f"possible: {', '.join(map(str, steps))}"
    if step == "best":
        best = read_best(run)
        if best is None:
            raise CheckpointError(
                f"{run}: {BEST_FILE} is missing, which names the best checkpoint; pass --step with a number, {possible}"
            )
        step = best.step
    step = steps[-1] if step is None else as_count("step", step, 0)
    if step not in steps:
        raise CheckpointError(f"{run}: checkpoint of step {step} is missing; {possible}")
    return step


def _recorded_best(run: Path) -> Best | None:
    """Return the recorded best checkpoint, or None if `best.json` is missing or damaged."""
    try:
        return read_best(run)
    except CheckpointError:
        return None


def _find_best(run: Path) -> Best | None:
    """Return the best checkpoint by reading the score of each; for a missing or damaged `best.json`."""
    best: Best | None = None
    for step in checkpoint_steps(run):
        try:
            score = load_checkpoint(run, step).score
        except CheckpointError:
            continue
        if score is not None and (best is None or score.beats(best.score)):
            best = Best(step, score)
    return best
