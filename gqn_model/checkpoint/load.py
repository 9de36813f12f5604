"""Networks loaded from runs and from exported files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from gqn_data.errors import OptionError
from gqn_data.io.paths import StorePath, local_path
from gqn_model.checkpoint.checkpoint import Checkpoint, Step, load_checkpoint
from gqn_model.checkpoint.pretrained import pretrained_folder
from gqn_model.checkpoint.pull import WEIGHTS_FILE, fetch_weights, is_pulled, parse_run
from gqn_model.config import ModelConfig
from gqn_model.device import choose_device
from gqn_model.model.contract import Network, network_class


class LoadedRun(NamedTuple):
    """A network on a device in evaluation mode, with the checkpoint that it came from."""

    model: Network
    checkpoint: Checkpoint
    device: torch.device


def load_model(run: str | Path, step: Step = None) -> Network:
    """Load the network of a run on the CPU, in evaluation mode.

    Args:
        run: folder that `gqn train` wrote, or `hf://USER/NAME[@REVISION]` for weights that `gqn push` published.
        step: checkpoint to load: a step, `best`, or None for the newest. A published run has one.

    Raises:
        CheckpointError: the folder is not a run, or the checkpoint is missing or damaged.
        StoreError: the hub does not answer, or refuses.
    """
    checkpoint = _load(parse_run(run), step)
    return _network(checkpoint.config.model, checkpoint.model)


def load_pretrained(name: str) -> Network:
    """Load a network that comes with the package on the CPU, in evaluation mode.

    Args:
        name: scene set that it was trained on, or an alias, such as `rooms_ring_camera`.

    Raises:
        UnknownName: no weights have this name; the message offers the nearest, or all.
        CheckpointError: the file is damaged.
    """
    return load_model(pretrained_folder(name))


def load_safetensors(path: str | Path) -> Network:
    """Load a network from a file on the CPU, in evaluation mode.

    Args:
        path: file that `gqn export` wrote.

    Raises:
        CheckpointError: the file is missing, of another kind, or damaged.
    """
    from gqn_model.checkpoint.safetensors import read_weights  # the only user of the package safetensors

    weights = read_weights(local_path(path, "weights lie"))
    return _network(weights.config.model, weights.tensors)


def load_run(run: Path, step: Step, device: str) -> LoadedRun:
    """Load the network of a run on a device, and set torch's CPU threads as in training.

    Args:
        run: the run's folder, or a copy of a published one.
        step: checkpoint to load: a step, `best`, or None for the newest.
        device: as in the configuration.

    Raises:
        CheckpointError: the folder is not a run, or the checkpoint is missing or damaged.
        OptionError: the device is not available.
    """
    chosen = choose_device(device)
    checkpoint = _load(run, step)
    if checkpoint.config.training.threads:
        torch.set_num_threads(checkpoint.config.training.threads)
    return LoadedRun(_network(checkpoint.config.model, checkpoint.model).to(chosen), checkpoint, chosen)


def _load(run: Path | StorePath, step: Step) -> Checkpoint:
    """Load a checkpoint, or the weights of a published run as one without optimiser state."""
    if isinstance(run, Path) and not is_pulled(run):
        return load_checkpoint(run, step)
    from gqn_model.checkpoint.safetensors import read_weights

    path = fetch_weights(run) if isinstance(run, StorePath) else run / WEIGHTS_FILE
    weights = read_weights(path, run / WEIGHTS_FILE)
    if step not in (None, weights.step):
        raise OptionError(f"{run}: step is {step!r}, expected {weights.step}, the only one that was published; omit it")
    return Checkpoint(
        step=weights.step,
        config=weights.config.replaced({"cache": ""}),  # a folder that a stranger chose
        model=weights.tensors,
        optimizer={},
        loader={},
        fingerprint=weights.fingerprint,
        scene_set=weights.scene_set,
        pose_order=weights.pose_order,
    )


def _network(config: ModelConfig, tensors: dict[str, torch.Tensor]) -> Network:
    return network_class(config.model).with_weights(config, tensors)
