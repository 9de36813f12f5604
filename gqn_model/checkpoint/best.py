"""The best checkpoint of a run: the metrics that decide, and `best.json` in the run's folder, which carries a checksum.

Does not import torch.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gqn_data.errors import CheckpointError
from gqn_data.io import strict_json

BEST_FILE = "best.json"


@dataclass(frozen=True, kw_only=True)
class Score:
    """Quality of a network.

    Attributes:
        prior_psnr: mean PSNR in dB of predictions of the probe scenes; None if not measured.
        excess: loss above its least value, over the preceding training steps; for GQN in nats.
        sigma: pixel standard deviation of that loss; 0 for a model without a likelihood.
    """

    prior_psnr: float | None
    excess: float
    sigma: float

    def beats(self, other: Score) -> bool:
        """Return whether this network is better.

        Predictions of unseen scenes decide. If neither was measured the excess decides, between equal sigmas: an error
        costs `error^2 / 2 sigma^2`, so an untrained network has a small excess at sigma 2.
        """
        if self.prior_psnr is not None and other.prior_psnr is not None:
            return self.prior_psnr > other.prior_psnr
        if (self.prior_psnr is None) != (other.prior_psnr is None):
            return self.prior_psnr is not None
        return self.excess < other.excess if self.sigma == other.sigma else self.sigma < other.sigma

    @property
    def finite(self) -> bool:
        """Whether every metric is finite."""
        return all(math.isfinite(value) for value in (self.prior_psnr or 0.0, self.excess, self.sigma))

    def to_json(self) -> dict[str, float | None]:
        """Return the metrics as JSON."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(value: Any) -> Score:
        """Return the metrics from the value of `to_json`.

        Raises:
            ValueError: the value has other fields or types.
        """
        names = [field.name for field in dataclasses.fields(Score)]
        if not isinstance(value, dict) or list(value) != names:
            raise ValueError(f"metrics are {str(value)[:80]}, expected {', '.join(names)}")
        if not all(isinstance(value[name], float) or (name == "prior_psnr" and value[name] is None) for name in names):
            raise ValueError(f"metrics are {str(value)[:80]}, expected numbers")
        return Score(**value)


class Best(NamedTuple):
    """Step and quality of the best checkpoint."""

    step: int
    score: Score


def read_best(run: Path) -> Best | None:
    """Read `best.json`; return None if it is missing.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = run / BEST_FILE
    try:
        note = strict_json.read_note(path)
        step = note.pop("step", None)
        if type(step) is not int:
            raise ValueError(f"step is {str(step)[:80]}")
        return Best(step, Score.from_json(note))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged ({error}); pass --step with a number") from error


def write_best(run: Path, best: Best) -> None:
    """Write `best.json`.

    Raises:
        NoSpace: the disk is full; the previous file stays.
    """
    strict_json.write_note(run / BEST_FILE, {"step": best.step, **best.score.to_json()})
