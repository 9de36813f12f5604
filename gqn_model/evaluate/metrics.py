"""Errors of predicted frames, and their means over scenes.

Frames are clamped to [0, 1]. MAE and RMSE are on the scale 0..255, as in Tobin et al. 2019 (table 1). An estimate is a
mean over scenes with its standard error. Samples of a scene are averaged first, because they are not independent.

- MAE, RMSE, PSNR, SSIM: computed per frame, then averaged over scenes.
- *CRPS* (Gneiting and Raftery, JASA 102(477), 2007): of each number of a frame, averaged; unbiased for any number of
  samples. It is the MAE of a prediction without spread, and least for draws from the true distribution.
- *Spread over error*: root of the mean variance of the samples over the RMSE of their mean. It is near 1 for draws from
  the true distribution, below it if they differ too little.
- *PSNR of the mean error*: of the squared error averaged over scenes. It never exceeds the mean PSNR.

Shapes: S samples, B scenes, H = W frame size.
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
# of 11x11 with standard deviation 1.5, K1 = 0.01, K2 = 0.03. The data range is 1.
SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2


class Estimate(NamedTuple):
    """A mean over scenes and its standard error; the error is NaN for a single scene."""

    mean: float
    error: float


class Errors(NamedTuple):
    """Errors per frame against the ground truth; float64 on the CPU, (B,) or (S, B).

    Attributes:
        absolute: mean absolute difference, frames in [0, 1].
        squared: mean squared difference.
        similarity: SSIM, 1 for equal frames; NaN for frames smaller than its window.
    """

    absolute: Tensor
    squared: Tensor
    similarity: Tensor


class Spread(NamedTuple):
    """Samples against the ground truth; float64 on the CPU, (B,), frames in [0, 1].

    Attributes:
        crps: mean over a frame's numbers.
        variance: of S samples, without bias, mean over a frame.
        squared: mean squared error of the samples' mean over 1 + 1/S, its excess for draws from the true distribution.
    """

    crps: Tensor
    variance: Tensor
    squared: Tensor

    @property
    def over_error(self) -> float:
        """Root of the quotient of mean variance and mean squared error."""
        return math.sqrt(float(self.variance.mean() / self.squared.mean()))


@dataclass(frozen=True, kw_only=True)
class Score:
    """Metrics of one kind of prediction; MAE and RMSE on the scale 0..255, PSNR in dB.

    Attributes:
        name: name of the prediction.
        mae: mean absolute error.
        rmse: root mean squared error per frame, averaged over scenes.
        psnr: PSNR per frame, averaged over scenes.
        psnr_of_mean_error: PSNR of the squared error averaged over scenes; its standard error is of first order.
        ssim: structural similarity; NaN for frames under 11 pixels.
    """

    name: str
    mae: Estimate
    rmse: Estimate
    psnr: Estimate
    psnr_of_mean_error: Estimate
    ssim: Estimate


def frame_errors(frames: Tensor, target: Tensor) -> Errors:
    """Return the errors of predicted frames.

    Args:
        frames: (B, 3, H, W), or (S, B, 3, H, W); clamped to [0, 1] here.
        target: (B, 3, H, W) in [0, 1].
    """
    frames = frames.clamp(0, 1)
    difference, pixels = frames - target, (-3, -2, -1)
    absolute = difference.abs().mean(pixels, dtype=torch.float64)
    squared = difference.square().mean(pixels, dtype=torch.float64)
    return Errors(*(part.double().cpu() for part in (absolute, squared, ssim(frames, target))))


def sample_spread(samples: Tensor, target: Tensor) -> Spread:
    """Return how far samples lie from each other and from the ground truth.

    Args:
        samples: (S, B, 3, H, W), S at least 2; clamped to [0, 1] here.
        target: (B, 3, H, W) in [0, 1].
    """
    samples, count, pixels = samples.clamp(0, 1), len(samples), (-3, -2, -1)
    # The mean distance of pairs, from the sorted samples: the i-th of S is above i and below S - 1 - i of them.
    weights = 2 * torch.arange(count, dtype=samples.dtype, device=samples.device) - (count - 1)
    apart = torch.einsum("s,sbchw->bchw", weights, samples.sort(0).values) / (count * (count - 1) / 2)
    crps = ((samples - target).abs().mean(0) - apart / 2).mean(pixels, dtype=torch.float64)
    variance = samples.var(0).mean(pixels, dtype=torch.float64)
    squared = (samples.mean(0) - target).square().mean(pixels, dtype=torch.float64) / (1 + 1 / count)
    return Spread(crps.cpu(), variance.cpu(), squared.cpu())


def best_of(errors: Errors) -> Errors:
    """Select the sample of least squared error for each scene: (S, B) becomes (B,)."""
    best = errors.squared.argmin(0, keepdim=True)
    return Errors(*(part.gather(0, best)[0] for part in errors))


def score(name: str, errors: Errors) -> Score:
    """Return the metrics of one kind of prediction, from its errors (B,) or (S, B)."""
    of_mean = errors.squared.mean()
    spread = estimate(errors.squared).error
    return Score(
        name=name,
        mae=estimate(255 * errors.absolute),
        rmse=estimate(255 * errors.squared.sqrt()),
        psnr=estimate(psnr(errors.squared)),
        # d(-10 log10 m) = -10 / (ln 10 m) dm
        psnr_of_mean_error=Estimate(float(psnr(of_mean)), 10 / math.log(10) * spread / float(of_mean)),
        ssim=estimate(errors.similarity),
    )


def estimate(values: Tensor) -> Estimate:
    """Return the mean over scenes and its standard error, from values (B,) or (S, B)."""
    by_scene = values if values.dim() == 1 else values.mean(0)
    error = float(by_scene.std()) / math.sqrt(len(by_scene)) if len(by_scene) > 1 else math.nan
    return Estimate(float(by_scene.mean()), error)


def ssim(frames: Tensor, target: Tensor) -> Tensor:
    """Return the SSIM of frames in [0, 1], (B,) or (S, B), the mean over channels and window positions.

    The window stays inside the frame, and moments are not corrected for its size, as in the authors' program.

    Args:
        frames: (B, 3, H, W), or (S, B, 3, H, W).
        target: (B, 3, H, W), of the same dtype.
    """
    if min(target.shape[-2:]) < SSIM_WINDOW:
        return torch.full(frames.shape[:-3], math.nan, dtype=frames.dtype, device=frames.device)
    down, across = (_window(side).to(target) for side in target.shape[-2:])

    def local(values: Tensor) -> Tensor:
        return down @ values @ across.T

    # One scene at a time, so that its dozen maps stay in the CPU's cache.
    result = torch.empty(frames.shape[:-3], dtype=frames.dtype, device=frames.device)
    for scene, truth in enumerate(target):
        predicted = frames[..., scene, :, :, :]
        mean, mean_t = local(predicted), local(truth)
        variance, variance_t = local(predicted**2) - mean**2, local(truth**2) - mean_t**2
        covariance = local(predicted * truth) - mean * mean_t
        similarity = (2 * mean * mean_t + _C1) * (2 * covariance + _C2)
        similarity /= (mean**2 + mean_t**2 + _C1) * (variance + variance_t + _C2)
        result[..., scene] = similarity.mean((-3, -2, -1))
    return result


@lru_cache
def _window(side: int) -> Tensor:
    """Return the Gaussian window at every position along a side, as a matrix (side - 10, side), float64.

    The window is separable, so two matrix products replace the convolution.
    """
    offsets = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    weights = torch.exp(-0.5 * (offsets / _SSIM_SIGMA) ** 2)
    positions = side - SSIM_WINDOW + 1
    matrix = torch.zeros(positions, side, dtype=torch.float64)
    for start in range(positions):
        matrix[start, start : start + SSIM_WINDOW] = weights / weights.sum()
    return matrix
