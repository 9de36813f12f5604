"""Noise of training steps, samples and evaluation questions, as pure functions of their keys.

No generator state enters a checkpoint, and noise does not depend on how a batch is divided: every rank and every
micro-batch draws the noise of the whole batch and takes its rows.

Shapes: B samples of the batch over all ranks, L generation steps, Z channels of a latent, h = w size of the maps. The
noise of a plane sweep has the same axes, with L = h = w = 1.
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


def noise_shape(config: ModelConfig) -> tuple[int, int, int, int]:
    """Return the shape of the noise of one sample of a frame, (L, Z, h, w); Z is 0 if the model draws no samples.

    Args:
        config: of the network, with the frame size set.
    """
    if config.model == "plane_sweep":
        return 1, config.noise, 1, 1
    side = config.frame_size // 4
    return config.core_steps, config.latent, side, side


def step_noise(config: ModelConfig, seed: int, step: int, batch: int, device: torch.device, draws: int = 1) -> Tensor:
    """Return the standard normal noise of a training step, (draws L, B, Z, h, w) float32.

    Args:
        config: of the network, with the frame size set.
        seed: of the training.
        step: counted from 0.
        batch: B.
        device: device to draw on; a CPU and a GPU draw different numbers.
        draws: samples of each frame.
    """
    # A hash, not a sum: neighbouring steps of neighbouring seeds must not share noise.
    digest = hashlib.blake2b(f"{seed} {step}".encode(), digest_size=8).digest()
    generator = torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)
    steps, *maps = noise_shape(config)
    return torch.randn((draws * steps, batch, *maps), device=device, generator=generator)


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
    shape = (count, *noise_shape(config))
    size = math.prod(shape)
    # On a CPU torch draws normal numbers in blocks of 16. It redraws the last block if that is incomplete.
    whole = torch.randn(-(-size // _BLOCK) * _BLOCK, generator=generator)
    return whole[:size].view(shape)
