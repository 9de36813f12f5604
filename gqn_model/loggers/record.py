"""What a logger takes: the figures of a line, and what is known of the run when its loggers are opened.

Imports nothing but the standard library, so that the configuration may name loggers without cost.
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
    """The figures of one line: means over the steps since the line before.

    A field more is shown by every logger without a word there; one that is not always measured is None.

    Attributes:
        step: steps done.
        steps: steps of the training in all.
        rate: steps a second.
        wait: share of the time spent waiting for batches, 0 to 1.
        loss: -ELBO in nats a frame.
        excess: what of the loss lies above the Gaussian floor at the sigma of each step, in nats.
        kl: divergence of posterior from prior in nats, summed over the generation steps.
        kl_steps: the same, of each generation step.
        mse: mean squared error of the posterior's prediction, frames in [0, 1].
        psnr: mean over samples of the PSNR of the posterior's prediction in dB.
        prior_sample: mean PSNR of a prior sample on the probe in dB; None where it was not measured.
        prior_mean: the same with the mean of the prior as latent at every step.
        sigma: deviation of a pixel at the last step.
        learning_rate: at the last step.
        left: seconds left at this rate.
        gradient_norm: before it was limited; None where there is no limit.
    """

    step: int
    steps: int
    rate: float
    wait: float
    loss: float
    excess: float
    kl: float
    kl_steps: tuple[float, ...]
    mse: float
    psnr: float
    prior_sample: float | None
    prior_mean: float | None
    sigma: float
    learning_rate: float
    left: float
    gradient_norm: float | None = None

    def figures(self) -> Iterator[tuple[str, float]]:
        """Every figure that was measured, by name; `kl_steps/00` and so on for those of each generation step.

        Step and number of steps are no figures but the axis.
        """
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in ("step", "steps") or value is None:
                continue
            if isinstance(value, tuple):
                yield from ((f"{one.name}/{place:02d}", float(part)) for place, part in enumerate(value))
            else:
                yield one.name, float(value)

    def to_json(self) -> dict[str, Any]:
        """The record for a line of JSON; what is no finite number is null, for JSON has no word for it."""
        return {name: _plain(value) for name, value in dataclasses.asdict(self).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, kw_only=True)
class LoggerContext:
    """What a logger is opened with.

    Attributes:
        run: the run's folder.
        start: step from which the training goes on; 0 where it begins.
        config: the resolved configuration, as `Config.to_json` gives it.
    """

    run: Path
    start: int = 0
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def training(self) -> Mapping[str, Any]:
        """The settings of the training, among them the loggers' own."""
        return self.config.get("training", {})

    @property
    def label(self) -> str:
        """What the run is called where many runs are seen: the name of its folder."""
        return self.run.absolute().name


class Logger(Protocol):
    """What takes the figures and pictures of a run."""

    def log(self, record: Record) -> None:
        """Takes one line."""

    def picture(self, step: int, image: Image) -> None:
        """Takes a picture of predictions."""

    def close(self) -> None:
        """Writes out what is held back."""
