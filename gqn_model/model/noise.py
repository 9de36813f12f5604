"""The noise of a training step: a pure function of the run's seed and the step, drawn for the whole batch.

So nothing about it needs to be kept in a checkpoint, and it does not depend on how a batch is divided: every rank
draws all of it and takes the rows of its own samples, and so does every part of an accumulated batch.

Shapes: B samples of the batch over all ranks, L steps of generation, Z channels of a latent, h = w the side of the
maps.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from gqn_model.config import ModelConfig


def step_noise(config: ModelConfig, seed: int, step: int, batch: int, device: torch.device) -> Tensor:
    """Standard normal noise (L, B, Z, h, w), float32, for one sample of every latent.

    Args:
        config: of the network, its frame size settled.
        seed: of the training.
        step: counted from 0.
        batch: B.
        device: where it is drawn; a CPU and a GPU draw different numbers.
    """
    # A hash, not a sum: neighbouring steps of neighbouring seeds are to share nothing.
    key = hashlib.blake2b(f"{seed} {step}".encode(), digest_size=8).digest()
    generator = torch.Generator(device).manual_seed(int.from_bytes(key, "little") >> 1)
    side = config.frame_size // 4
    shape = (config.core_steps, batch, config.latent, side, side)
    return torch.randn(shape, device=device, generator=generator)
