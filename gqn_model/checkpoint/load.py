"""Networks loaded from runs and from exported files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from gqn_data.io.paths import local_path
from gqn_model.checkpoint.checkpoint import Checkpoint, Step, load_checkpoint
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
        run: folder that `gqn train` wrote.
        step: checkpoint to load: a step, `best`, or None for the newest.

    Raises:
        CheckpointError: the folder is not a run, or the checkpoint is missing or damaged.
    """
    checkpoint = load_checkpoint(local_path(run, "runs lie"), step)
    return _network(checkpoint.config.model, checkpoint.model)


def load_safetensors(path: str | Path) -> Network:
    """Load a network from a file on the CPU, in evaluation mode.

    Args:
        path: file that `gqn export` wrote.

    Raises:
        CheckpointError: the file is missing, of another kind, or damaged.
    """
    from gqn_model.checkpoint.safetensors import read_weights  # the only user of the package safetensors

    weights = read_weights(local_path(path, "weights lie"))
    return _network(weights.config, weights.tensors)


def load_run(run: Path, step: Step, device: str) -> LoadedRun:
    """Load the network of a run on a device, and set torch's CPU threads as in training.

    Args:
        run: the run's folder.
        step: checkpoint to load: a step, `best`, or None for the newest.
        device: as in the configuration.

    Raises:
        CheckpointError: the folder is not a run, or the checkpoint is missing or damaged.
        OptionError: the device is not available.
    """
    chosen = choose_device(device)
    checkpoint = load_checkpoint(run, step)
    if checkpoint.config.training.threads:
        torch.set_num_threads(checkpoint.config.training.threads)
    return LoadedRun(_network(checkpoint.config.model, checkpoint.model).to(chosen), checkpoint, chosen)


def _network(config: ModelConfig, tensors: dict[str, torch.Tensor]) -> Network:
    return network_class(config.model).with_weights(config, tensors)
