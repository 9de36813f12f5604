"""Which checkpoint of a run is the best: the figures that decide, and the note in the run's folder that tells.

The note is `best.json`, with a checksum of its own. Imports neither torch nor `checkpoints`.
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
    """How good a network is, from the cheapest figures that tell.

    Attributes:
        prior_psnr: mean PSNR in dB of the prior's mean on the probe scenes; None where none was measured.
        excess: loss above the Gaussian floor in nats, of the training steps before.
        sigma: deviation of a pixel at which the excess was taken.
    """

    prior_psnr: float | None
    excess: float
    sigma: float

    def beats(self, other: Score) -> bool:
        """Whether this network is the better one.

        Predictions of unseen scenes decide. Where nobody measured any the excess does, between equal sigmas: an
        error costs `error^2 / 2 sigma^2`, so that a network that has not learned yet has a small one at sigma 2.
        """
        if self.prior_psnr is not None and other.prior_psnr is not None:
            return self.prior_psnr > other.prior_psnr
        if (self.prior_psnr is None) != (other.prior_psnr is None):
            return self.prior_psnr is not None
        return self.excess < other.excess if self.sigma == other.sigma else self.sigma < other.sigma

    @property
    def finite(self) -> bool:
        """Whether every figure is a number."""
        return all(math.isfinite(value) for value in (self.prior_psnr or 0.0, self.excess, self.sigma))

    def to_json(self) -> dict[str, float | None]:
        """The figures as JSON."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(value: Any) -> Score:
        """The figures that `to_json` gave.

        Raises:
            ValueError: these are others.
        """
        names = [field.name for field in dataclasses.fields(Score)]
        if not isinstance(value, dict) or list(value) != names:
            raise ValueError(f"expected the figures {', '.join(names)}, found {str(value)[:80]}")
        if not all(isinstance(value[name], float) or (name == "prior_psnr" and value[name] is None) for name in names):
            raise ValueError("its figures are no numbers")
        return Score(**value)


class Best(NamedTuple):
    """The best checkpoint: its step and its figures."""

    step: int
    score: Score


def read_best(run: Path) -> Best | None:
    """The best checkpoint of a run as noted; None where nothing is.

    Raises:
        CheckpointError: the note is not the one that was written.
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
        raise CheckpointError(f"{path}: cannot be believed ({error}); give the number of a step") from error


def write_best(run: Path, best: Best) -> None:
    """Notes which checkpoint is the best.

    Raises:
        NoSpace: the disk is full; the note before stays.
    """
    strict_json.write_note(run / BEST_FILE, {"step": best.step, **best.score.to_json()})
