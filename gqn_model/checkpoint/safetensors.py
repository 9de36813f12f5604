"""Weights of a run as one safetensors file, without optimiser state.

The metadata in the file's header is one JSON table: configuration, scene set, order of the pose's numbers, step,
fingerprint, and a checksum of all of it and of the tensors. A file from a stranger is checked, header first, before a
network is built.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from gqn_data.errors import CheckpointError, OptionError
from gqn_data.io import atomic, strict_json
from gqn_model.checkpoint.checkpoint import POSE_ORDER, Step, load_checkpoint
from gqn_model.checkpoint.validate import Shape, check_finite, check_weights, network_shapes
from gqn_model.config import Config, declarations

FORMAT = 1
ENDING = ".safetensors"

# One entry: safetensors writes several in random order, and the bytes must be reproducible.
_KEY = "gqn"
# Settings of the machine that trained, which are not exported.
PRIVATE = {"cache": "", "visdom_server": "localhost", "visdom_env": ""}

_MOST_FACTS = 1 << 16

# Types of stored tensors by their names in the file; all are read as float32.
PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}
_TYPES = {"F32": "float32", "BF16": "float32"}


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights of a network, with what is needed to use them.

    Attributes:
        config: the training's, with the network's as `config.model`.
        step: training steps.
        scene_set: scene set of the training.
        pose_order: its pose numbers, from `checkpoint.pose_order`.
        fingerprint: the dataset's.
        tensors: the parameters by name, float32, on the CPU.
    """

    config: Config
    step: int
    scene_set: str
    pose_order: str
    fingerprint: str
    tensors: dict[str, Tensor]


def export_weights(run: Path, output: Path, step: Step = None, *, precision: str = "float32") -> Path:
    """Write the weights of a run as a safetensors file and return its path; the bytes are reproducible.

    Args:
        run: the run's folder.
        output: the file.
        step: checkpoint to export: a step, `best`, or None for the newest.
        precision: type in the file: float32, or bf16, which halves the file and rounds the weights.

    Raises:
        OptionError: the file name does not end in .safetensors, or the precision is not possible.
        CheckpointError: the folder is not a run, or the checkpoint is missing or damaged.
        NoSpace: the disk is full.
    """
    if output.suffix != ENDING:
        raise OptionError(f"{output}: ends in {output.suffix or 'nothing'}, expected {ENDING}")
    if precision not in PRECISIONS:
        raise OptionError(f"precision is {precision!r}; possible: {', '.join(PRECISIONS)}")
    checkpoint = load_checkpoint(run, step)
    tensors = {name: value.contiguous().to(PRECISIONS[precision]) for name, value in checkpoint.model.items()}
    facts = {
        "format": FORMAT,
        "step": checkpoint.step,
        "scene_set": checkpoint.scene_set,
        "pose_order": checkpoint.pose_order,
        "fingerprint": checkpoint.fingerprint,
        "config": checkpoint.config.replaced(PRIVATE).to_json(),
    }
    table = atomic.json_bytes({**facts, "sha256": _checksum(facts, tensors)}).decode()
    with atomic.writing(output) as file:
        file.write(save(tensors, {_KEY: table}))
    return output


def read_weights(path: Path, shown: object = None) -> Weights:
    """Read the weights that `export_weights` wrote.

    Args:
        path: the file.
        shown: its name in messages; None for the path.

    Raises:
        CheckpointError: the file is missing, of another kind, or damaged.
    """
    where = path if shown is None else shown
    if not path.is_file():
        raise CheckpointError(f"{where}: file not found; write it with `gqn export RUN -o {path.name}`")
    try:
        with safe_open(path, framework="pt") as file:
            facts = _facts((file.metadata() or {}).get(_KEY))
            config = _config(facts["config"])
            found = {name: _shape(file.get_slice(name)) for name in file.keys()}  # noqa: SIM118  not a mapping
            check_weights(found, network_shapes(config.model, where), where)
            tensors = {name: file.get_tensor(name) for name in found}
    except CheckpointError:
        raise
    except Exception as error:
        reason = "".join(filter(str.isprintable, str(error).split("\n", 1)[0]))[:200]
        kind = "safetensors" if isinstance(error, SafetensorError) else "weights of `gqn export`"
        raise CheckpointError(f"{where}: not {kind} ({reason}); export it again") from error
    expected = facts.pop("sha256")
    if _checksum(facts, tensors) != expected:
        raise CheckpointError(f"{where}: damaged, the checksum does not match; export or copy it again")
    check_finite(tensors, where)
    if not config.model.pose_numbers and facts["pose_order"] != POSE_ORDER:
        raise CheckpointError(f"{where}: poses are {facts['pose_order']!r}, expected {POSE_ORDER!r}")
    return Weights(
        config=config,
        step=facts["step"],
        scene_set=facts["scene_set"],
        pose_order=facts["pose_order"],
        fingerprint=facts["fingerprint"],
        tensors={name: tensor.float() for name, tensor in tensors.items()},
    )


_KINDS = {
    "format": int,
    "step": int,
    "scene_set": str,
    "pose_order": str,
    "fingerprint": str,
    "config": dict,
    "sha256": str,
}


def _facts(text: str | None) -> dict[str, Any]:
    if text is None:
        raise ValueError(f"metadata without the entry {_KEY!r}")
    if len(text) > _MOST_FACTS:
        raise ValueError(f"metadata of {len(text)} characters, expected at most {_MOST_FACTS}")
    facts = strict_json.parse_json(text.encode())
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ValueError(f"format {str(facts)[:80]}, expected {FORMAT}")
    for name, kind in _KINDS.items():
        if not isinstance(facts.get(name), kind):
            raise ValueError(f"its {name} is {type(facts.get(name)).__name__}, expected {kind.__name__}")
    return facts


def _config(value: dict[str, Any]) -> Config:
    """Return the configuration of a file; training settings that this version does not know do not matter here."""
    known = {one.name for one in declarations() if one.part == "training"}
    training = {name: setting for name, setting in value.get("training", {}).items() if name in known}
    return Config.from_json({"model": value["model"], "training": training}, "config")


def _shape(part: Any) -> Shape:
    return Shape(_TYPES.get(part.get_dtype(), part.get_dtype()), tuple(part.get_shape()))


def _checksum(facts: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(atomic.json_bytes(facts))
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
