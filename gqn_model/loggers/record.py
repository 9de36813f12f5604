"""What a logger receives: the metrics of one line, and the run that it is opened for.

Only the standard library is imported, so that the configuration can name loggers cheaply.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class Record:
    """Metrics of one log line: means over the steps since the line before.

    Every logger shows every field, also later additions. Fields that are not always measured are None.

    Attributes:
        step: steps done.
        steps: steps of the whole training.
        rate: steps per second.
        wait: share of the time spent waiting for batches, 0 to 1.
        loss: what is minimised: -ELBO in nats per frame, or the root of the squared error of the plane sweep.
        excess: loss above the Gaussian floor at the sigma of each step, in nats; None without a likelihood, as are the
            other figures of the ELBO.
        kl: KL divergence of the posterior from the prior in nats, summed over the generation steps.
        kl_steps: the same per generation step; empty without a likelihood.
        mse: mean squared error of the predictions in training, GQN's from the posterior; frames in [0, 1].
        psnr: PSNR of the same predictions in dB, mean over frames.
        prior_sample: mean PSNR of a prior sample on the probe scenes in dB; None if not measured.
        prior_mean: the same of the prediction without randomness, GQN's with every latent at the mean of its prior.
        sigma: pixel standard deviation at the last step.
        learning_rate: learning rate at the last step.
        left: seconds left at this rate.
        gradient_norm: gradient norm before clipping; None without clipping.
    """

    step: int
    steps: int
    rate: float
    wait: float
    loss: float
    excess: float | None
    kl: float | None
    kl_steps: tuple[float, ...]
    mse: float
    psnr: float
    prior_sample: float | None
    prior_mean: float | None
    sigma: float | None
    learning_rate: float
    left: float
    gradient_norm: float | None = None

    def metrics(self) -> Iterator[tuple[str, float]]:
        """Yield (name, value) of every measured metric; `kl_steps/00` and so on for the generation steps.

        `step` and `steps` are the axis of a plot and are omitted.
        """
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in ("step", "steps") or value is None:
                continue
            if isinstance(value, tuple):
                yield from ((f"{one.name}/{index:02d}", float(part)) for index, part in enumerate(value))
            else:
                yield one.name, float(value)

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON; NaN and infinity become null, as JSON cannot represent them."""
        return {name: _plain(value) for name, value in dataclasses.asdict(self).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, kw_only=True)
class LoggerContext:
    """The run that a logger is opened for.

    Attributes:
        run: the run's folder.
        start: step at which the training starts or resumes.
        config: resolved configuration, as `Config.to_json` returns it.
    """

    run: Path
    start: int = 0
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def training(self) -> Mapping[str, Any]:
        """Settings of the training, including those of the loggers."""
        return self.config.get("training", {})

    @property
    def label(self) -> str:
        """Name of the run's folder, which identifies the run among others."""
        return self.run.absolute().name


class Logger(Protocol):
    """Receives the metrics and pictures of a run."""

    def log(self, record: Record) -> None:
        """Log the metrics of one line."""

    def picture(self, step: int, image: Image) -> None:
        """Log a picture of predictions."""

    def close(self) -> None:
        """Flush and close."""
