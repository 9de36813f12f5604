"""The figures of a training, summed on the device from line to line of the log."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from gqn_model.model.distributions import psnr
from gqn_model.model.gqn import Elbo
from gqn_model.train.distributed import Ranks

# No training comes to this step.
_NEVER = 2**62


class TrainingMetrics:
    """Sums of figures on the device since the last line of the log; reading them is what waits."""

    def __init__(self, device: torch.device, core_steps: int, ranks: Ranks) -> None:
        self._device, self._core_steps, self._ranks = device, core_steps, ranks
        # Kept over lines: the first step whose loss was no number, or none that will ever be.
        self._bad = torch.full((), _NEVER, dtype=torch.int64, device=device)
        self.clear()

    def clear(self) -> None:
        """Begins anew."""
        self.steps, self.waited, self.began = 0, 0.0, time.perf_counter()
        self._parts, self._floor = 0, 0.0
        self._norms: Tensor | None = None
        self._sums = torch.zeros(3 + self._core_steps, dtype=torch.float64, device=self._device)

    @torch.no_grad()
    def add(self, step: int, loss: Tensor, elbo: Elbo, target: Tensor, floor: float) -> None:
        """Takes a part of a batch; reads nothing back."""
        errors = ((elbo.mean.float() - target.float()) ** 2).mean((1, 2, 3))
        figures = torch.stack([loss.detach(), errors.mean(), psnr(errors).mean()])
        self._sums += torch.cat([figures, elbo.kl.detach().mean(0)])
        self._bad = torch.where(torch.isfinite(loss.detach()), self._bad, torch.clamp(self._bad, max=step))
        self._parts += 1
        self._floor += floor

    def end_step(self, gradient_norm: Tensor | None) -> None:
        """Counts a step, of whose gradient the norm is known where it was limited."""
        self.steps += 1
        if gradient_norm is not None:
            self._norms = gradient_norm if self._norms is None else self._norms + gradient_norm

    def gradient_norm(self) -> float | None:
        """The mean norm of the gradients, before they were limited; None where they were not; waits for the device."""
        return None if self._norms is None else float(self._norms) / self.steps

    @property
    def floor(self) -> float:
        """The Gaussian floor, the mean over the steps."""
        return self._floor / max(1, self._parts)

    def bad_step(self) -> int | None:
        """The first step whose loss was no number on this rank; waits for the device."""
        bad = int(self._bad.item())
        return None if bad == _NEVER else bad

    def all_reduce(self) -> None:
        """Joins what the ranks have summed; each of them calls it after the same step."""
        self._sums = self._ranks.mean(self._sums)
        self._bad = -self._ranks.most(-self._bad)

    def means(self) -> list[float]:
        """Loss, squared error, PSNR, then the KL of each generation step; waits for the device."""
        return [float(value) for value in (self._sums / max(1, self._parts)).tolist()]
