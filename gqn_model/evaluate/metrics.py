"""How far a predicted frame is from the true one, and figures over many scenes. Files and networks are not known here.

All on frames clamped to [0, 1]; MAE and RMSE are told on the scale 0..255, as by Tobin et al. 2019 (table 1). A figure
is a mean over scenes with its standard error; samples of one scene are averaged first, for they are not independent.

- MAE, RMSE, PSNR, SSIM: of each frame, then the mean over scenes.
- *PSNR of the mean error*: of the squared error averaged over scenes. It is never the larger of the two.

Shapes: S samples, B scenes, H = W the side of a frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from gqn_model.model.distributions import psnr

# Wang, Bovik, Sheikh, Simoncelli, IEEE Transactions on Image Processing 13(4), 2004, section III-C: a Gaussian window
# of 11x11 with deviation 1.5, K1 = 0.01, K2 = 0.03; the range of the data is 1 here.
SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2


class Figure(NamedTuple):
    """A mean over scenes and its standard error, which is NaN of a single scene."""

    mean: float
    error: float


class Errors(NamedTuple):
    """What separates frames from the truth, one value a frame; float64 on the CPU, (B,) or (S, B).

    Attributes:
        absolute: mean absolute difference, frames in [0, 1].
        squared: mean squared difference.
        similarity: the structural similarity, 1 for equal frames; NaN of frames smaller than its window.
    """

    absolute: Tensor
    squared: Tensor
    similarity: Tensor


@dataclass(frozen=True, kw_only=True)
class Score:
    """How well one way of predicting does; errors on the scale 0..255, PSNR in dB.

    Attributes:
        name: of the way.
        mae: mean absolute error.
        rmse: root of the mean squared error of a frame, then the mean over scenes.
        psnr: of each frame, then the mean over scenes.
        psnr_of_mean_error: of the mean over scenes of the squared error; its standard error to first order.
        ssim: structural similarity; NaN of frames under 11 pixels.
    """

    name: str
    mae: Figure
    rmse: Figure
    psnr: Figure
    psnr_of_mean_error: Figure
    ssim: Figure


def frame_errors(frames: Tensor, target: Tensor) -> Errors:
    """The errors of frames.

    Args:
        frames: (B, 3, H, W), or (S, B, 3, H, W); clamped to [0, 1] here.
        target: (B, 3, H, W) in [0, 1].
    """
    frames = frames.clamp(0, 1)
    off, pixels = frames - target, (-3, -2, -1)
    parts = off.abs().mean(pixels, dtype=torch.float64), off.square().mean(pixels, dtype=torch.float64)
    return Errors(*(part.double().cpu() for part in (*parts, ssim(frames, target))))


def best_of(errors: Errors) -> Errors:
    """Of each scene the errors of the sample whose squared error is least: (S, B) becomes (B,)."""
    best = errors.squared.argmin(0, keepdim=True)
    return Errors(*(part.gather(0, best)[0] for part in errors))


def score(name: str, errors: Errors) -> Score:
    """What is told of one way of predicting."""
    of_mean = errors.squared.mean()
    spread = figure(errors.squared).error
    return Score(
        name=name,
        mae=figure(255 * errors.absolute),
        rmse=figure(255 * errors.squared.sqrt()),
        psnr=figure(psnr(errors.squared)),
        # d(-10 log10 m) = -10 / (ln 10 m) dm
        psnr_of_mean_error=Figure(float(psnr(of_mean)), 10 / math.log(10) * spread / float(of_mean)),
        ssim=figure(errors.similarity),
    )


def figure(values: Tensor) -> Figure:
    """The mean over scenes, which are the last dimension, and its standard error: (B,) or (S, B)."""
    by_scene = values if values.dim() == 1 else values.mean(0)
    error = float(by_scene.std()) / math.sqrt(len(by_scene)) if len(by_scene) > 1 else math.nan
    return Figure(float(by_scene.mean()), error)


def ssim(frames: Tensor, target: Tensor) -> Tensor:
    """The structural similarity of frames in [0, 1] and the truth: (B,) or (S, B), the mean over channels and places.

    The window stays inside the frame, and moments are those of the window, as in the authors' program.

    Args:
        frames: (B, 3, H, W), or (S, B, 3, H, W).
        target: (B, 3, H, W), of the same type.
    """
    if min(target.shape[-2:]) < SSIM_WINDOW:
        return torch.full(frames.shape[:-3], math.nan, dtype=frames.dtype, device=frames.device)
    down, across = (_window(side).to(target) for side in target.shape[-2:])

    def local(values: Tensor) -> Tensor:
        return down @ values @ across.T

    # A scene at a time: its dozen maps stay in the caches of a CPU.
    found = torch.empty(frames.shape[:-3], dtype=frames.dtype, device=frames.device)
    for scene, truth in enumerate(target):
        some = frames[..., scene, :, :, :]
        mean, mean_t = local(some), local(truth)
        variance, variance_t = local(some**2) - mean**2, local(truth**2) - mean_t**2
        shared = local(some * truth) - mean * mean_t
        likeness = (2 * mean * mean_t + _C1) * (2 * shared + _C2)
        likeness /= (mean**2 + mean_t**2 + _C1) * (variance + variance_t + _C2)
        found[..., scene] = likeness.mean((-3, -2, -1))
    return found


@lru_cache
def _window(side: int) -> Tensor:
    """The Gaussian window at each of its places along a side, as a matrix (side - 10, side), float64.

    The window is the product of one along each axis, so that two products of matrices do what a convolution would.
    """
    at = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    weights = torch.exp(-0.5 * (at / _SSIM_SIGMA) ** 2)
    places = side - SSIM_WINDOW + 1
    matrix = torch.zeros(places, side, dtype=torch.float64)
    for place in range(places):
        matrix[place, place : place + SSIM_WINDOW] = weights / weights.sum()
    return matrix
