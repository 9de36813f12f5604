"""Noise of training steps and of evaluation questions, as pure functions of their keys.

No generator state enters a checkpoint, and noise does not depend on how a batch is divided: every rank and every
micro-batch draws the noise of the whole batch and takes its rows.

Shapes: B samples of the batch over all ranks, L generation steps, Z channels of a latent, h = w size of the maps.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from gqn_data.sampling.permutation import key
from gqn_model.config import ModelConfig

# Streams of noise for one question.
POSTERIOR, PRIOR, CAMERA_PATH = 1, 2, 3

_BLOCK = 16


def step_noise(config: ModelConfig, seed: int, step: int, batch: int, device: torch.device) -> Tensor:
    """Return the standard normal noise of a training step, (L, B, Z, h, w) float32.

    Args:
        config: of the network, with the frame size set.
        seed: of the training.
        step: counted from 0.
        batch: B.
        device: device to draw on; a CPU and a GPU draw different numbers.
    """
    # A hash, not a sum: neighbouring steps of neighbouring seeds must not share noise.
    digest = hashlib.blake2b(f"{seed} {step}".encode(), digest_size=8).digest()
    generator = torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)
    side = config.frame_size // 4
    shape = (config.core_steps, batch, config.latent, side, side)
    return torch.randn(shape, device=device, generator=generator)


def question_noise(config: ModelConfig, scene: int, query: int, count: int, stream: int = PRIOR) -> Tensor:
    """Return the standard normal noise of a question, (count, L, Z, h, w) on the CPU, independent of its batch.

    Args:
        config: of the network, with the frame size set.
        scene: number in the split.
        query: number of the query view.
        count: samples; fewer samples are the first of more.
        stream: POSTERIOR, PRIOR or CAMERA_PATH.
    """
    generator = torch.Generator().manual_seed(key(scene, query, stream) >> 1)
    side = config.frame_size // 4
    shape = (count, config.core_steps, config.latent, side, side)
    size = math.prod(shape)
    # On a CPU torch draws normal numbers in blocks of 16. It redraws the last block if that is incomplete.
    whole = torch.randn(-(-size // _BLOCK) * _BLOCK, generator=generator)
    return whole[:size].view(shape)
