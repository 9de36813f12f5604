"""Training metrics, accumulated on the device between two log lines."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from torch import Tensor

from gqn_model.model.distributions import psnr
from gqn_model.train.distributed import Ranks
from gqn_model.train.step import StepResult

# Larger than any step.
_NEVER = 2**62


class Means(NamedTuple):
    """Means over the steps since the last log line.

    Attributes:
        loss: what is minimised: for GQN the negative ELBO in nats.
        mse: squared error of the predicted frames, those of GQN from the posterior; frames in [0, 1].
        psnr: dB, the mean over frames.
        kl_steps: KL in nats of each generation step; empty for a model without a distribution.
    """

    loss: float
    mse: float
    psnr: float
    kl_steps: tuple[float, ...]


class TrainingMetrics:
    """Sums on the device since the last log line; only reading them syncs.

    Args:
        device: device of the training.
        latent_steps: L, of the network.
        ranks: this process and the others of the training.

    Attributes:
        steps: steps since the last log line.
        waited: seconds spent waiting for batches since then.
    """

    def __init__(self, device: torch.device, latent_steps: int, ranks: Ranks) -> None:
        self._device, self._latent_steps, self._ranks = device, latent_steps, ranks
        # Survives `reset`: the first step whose loss was NaN or infinite.
        self._bad = torch.full((), _NEVER, dtype=torch.int64, device=device)
        self.reset()

    def reset(self) -> None:
        """Start the sums and the clock again."""
        self.steps, self.waited = 0, 0.0
        self._began = time.perf_counter()
        self._micro_batches, self._floor = 0, 0.0
        self._norms: Tensor | None = None
        self._sums = torch.zeros(3 + self._latent_steps, dtype=torch.float64, device=self._device)

    @torch.no_grad()
    def add(self, step: int, result: StepResult) -> None:
        """Add the outcome of a step; does not sync."""
        for loss, frames, kl, target in result.micro_batches:
            errors = ((frames.float() - target.float()) ** 2).mean((-3, -2, -1))
            figures = torch.stack([loss, errors.mean(), psnr(errors).mean()])
            self._sums += torch.cat([figures, kl.mean(0)])
            self._bad = torch.where(torch.isfinite(loss), self._bad, torch.clamp(self._bad, max=step))
            self._micro_batches += 1
            self._floor += result.loss_floor
        self.steps += 1
        if result.gradient_norm is not None:
            # Not in place: with CUDA graphs the next step overwrites the norm.
            self._norms = result.gradient_norm.clone() if self._norms is None else self._norms + result.gradient_norm

    def all_reduce(self) -> None:
        """Average the sums over ranks; every rank calls it after the same step."""
        self._sums = self._ranks.mean(self._sums)
        self._bad = -self._ranks.max(-self._bad)

    def means(self) -> Means:
        """Return the means; syncs with the device."""
        loss, mse, ratio, *kl_steps = (self._sums / max(1, self._micro_batches)).tolist()
        return Means(loss, mse, ratio, tuple(kl_steps))

    @property
    def loss_floor(self) -> float:
        """The least value of the loss, averaged over the steps."""
        return self._floor / max(1, self._micro_batches)

    def gradient_norm(self) -> float | None:
        """Return the mean gradient norm before clipping, None without clipping; syncs with the device."""
        return None if self._norms is None else float(self._norms) / self.steps

    def first_bad_step(self) -> int | None:
        """Return the first step whose loss was NaN or infinite, None if all were finite; syncs with the device."""
        bad = int(self._bad.item())
        return None if bad == _NEVER else bad

    def seconds(self) -> float:
        """Return the seconds since the last log line."""
        return time.perf_counter() - self._began
