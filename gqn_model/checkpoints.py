"""Checkpoints: everything that a training needs to go on, written whole and checked when read.

A run's folder holds `config.json` and `checkpoints/00001000.pt` with `00001000.pt.sha256` beside it, in the form that
`sha256sum -c` reads. The sum is written last: a checkpoint without one is none. Tensors and plain values only, read
with `weights_only=True`: a checkpoint from a stranger runs no code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gqn_data import json_files, storage
from gqn_data.errors import CheckpointError, OptionError, UnknownName
from gqn_model.config import Config

# Changes when an older program could no longer read what is written, or would read it wrongly.
FORMAT = 1

CONFIG_FILE = "config.json"
_FOLDER = "checkpoints"

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
        random: the states of the random generators, by device.
        loader: the position in the stream of batches.
        fingerprint: the dataset's.
        scene_set: its name.
        pose_order: the numbers of its poses, as `pose_order` tells them.
    """

    step: int
    config: Config
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    random: dict[str, Tensor]
    loader: dict[str, int | str]
    fingerprint: str
    scene_set: str
    pose_order: str


def pose_order(fields: tuple[str, ...]) -> str:
    """The numbers of a pose and their order, as a checkpoint tells them."""
    return " ".join(field.replace(" ", "_") for field in fields)


def checkpoint_path(run: Path, step: int) -> Path:
    """Where the checkpoint of that step lies."""
    return run / _FOLDER / f"{step:08d}.pt"


def checkpoint_steps(run: Path) -> list[int]:
    """The steps of which the run has whole checkpoints, ascending."""
    found = (path.with_suffix("") for path in (run / _FOLDER).glob("*.pt.sha256"))
    return sorted(int(path.stem) for path in found if path.stem.isdecimal() and path.exists())


def write_config(run: Path, config: Config) -> None:
    """Writes the resolved configuration into the run's folder."""
    storage.write_json(run / CONFIG_FILE, config.to_json())


def read_config(run: Path) -> Config:
    """The configuration of a run.

    Raises:
        CheckpointError: the folder is no run.
        OptionError: the file is there and cannot be understood.
    """
    path = run / CONFIG_FILE
    try:
        return Config.from_json(json_files.read_json(path), path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{run}: no {CONFIG_FILE} there; expected the folder of a `gqn train`") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}); restore it, or train anew") from error


def save_checkpoint(run: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Writes a checkpoint and removes all but the newest `keep`; gives its path.

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
        "random": checkpoint.random,
        "loader": checkpoint.loader,
        "fingerprint": checkpoint.fingerprint,
        "scene_set": checkpoint.scene_set,
    }
    _sum_path(path).unlink(missing_ok=True)
    with storage.writing(path) as file:
        torch.save(value, file)
    with storage.writing(_sum_path(path)) as file:
        file.write(f"{storage.sha256_of(path)}  {path.name}\n".encode())
    for step in checkpoint_steps(run)[:-keep]:
        old = checkpoint_path(run, step)
        _sum_path(old).unlink(missing_ok=True)  # first, so that what is left is never taken for whole
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(run: Path, step: int | None = None) -> Checkpoint:
    """The checkpoint of a step of a run, or the newest; its tensors on the CPU.

    Raises:
        CheckpointError: the folder is no run, it has no such checkpoint, or the bytes are not those written.
    """
    config = read_config(run)
    steps = checkpoint_steps(run)
    if not steps:
        raise CheckpointError(f"{run}: no whole checkpoint in {_FOLDER}/; train it first (`gqn train`)")
    step = steps[-1] if step is None else step
    if step not in steps:
        raise CheckpointError(f"{run}: no checkpoint of step {step}; there are {', '.join(map(str, steps))}")
    path = checkpoint_path(run, step)
    raw = path.read_bytes()
    _verify(path, raw, [other for other in steps if other < step])
    try:
        _refuse_packed(raw)
        value = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:
        reason = "".join(filter(str.isprintable, str(error).split("\n", 1)[0]))
        raise CheckpointError(f"{path}: cannot be read as weights and plain values ({reason})") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        found = value.get("format") if isinstance(value, dict) else type(value).__name__
        raise CheckpointError(f"{path}: format {found}, expected {FORMAT}; use the version that wrote it")
    absent = {field.name for field in dataclasses.fields(Checkpoint)} - set(value)
    if absent:
        raise CheckpointError(f"{path}: holds no {', '.join(sorted(absent))}; use the version that wrote it")
    # A run that has settled their number has seen other cameras than DeepMind's, in an order of their own.
    if not config.model.pose_numbers and value["pose_order"] != POSE_ORDER:
        raise CheckpointError(f"{path}: poses are {value['pose_order']!r}, expected {POSE_ORDER!r}")
    try:
        saved = Config.from_json(value["config"], path)
    except (OptionError, UnknownName) as error:
        raise CheckpointError(f"{error}; use the version that wrote it") from error
    if saved.model != config.model:
        raise CheckpointError(
            f"{path}: of another model than {run / CONFIG_FILE}: {saved.model} against {config.model}; "
            "put the config.json back that belongs to it"
        )
    return Checkpoint(
        step=value["step"],
        config=saved,
        model=value["model"],
        optimizer=value["optimizer"],
        random=value["random"],
        loader=value["loader"],
        fingerprint=value["fingerprint"],
        scene_set=value["scene_set"],
        pose_order=str(value["pose_order"]),
    )


def random_states(device: torch.device) -> dict[str, Tensor]:
    """The states of the generators that a training on `device` draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random(states: dict[str, Tensor], device: torch.device) -> None:
    """Sets the generators to what `random_states` gave."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        if "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"], device)
        else:
            warnings.warn("the checkpoint was made on a CPU: the noise from here on is another", stacklevel=2)


def _sum_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _refuse_packed(raw: bytes) -> None:
    """Raises ValueError where parts of the archive are packed: torch packs nothing, and a bomb would be unpacked."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        held = sum(part.file_size for part in archive.infolist())
    if held > len(raw):
        raise ValueError(f"its parts take {held} bytes, the file has {len(raw)}")


def _verify(path: Path, raw: bytes, earlier: list[int]) -> None:
    expected = _sum_path(path).read_text().split()[:1]
    found = hashlib.sha256(raw).hexdigest()
    if expected != [found]:
        remedy = f"remove both files to go on from step {earlier[-1]}" if earlier else "train anew"
        raise CheckpointError(
            f"{path}: damaged: sha256 {found[:12]}, expected {(expected or ['nothing'])[0][:12]}; {remedy}"
        )
