"""Records and pictures for tests of loggers."""

from __future__ import annotations

import dataclasses
from typing import Any

from PIL import Image

from gqn_model.config import resolve
from gqn_model.loggers import Record

CONFIG = resolve("tiny", (), {"logger": "none", "project": "bars"}).to_json()


@dataclasses.dataclass(frozen=True, kw_only=True)
class More(Record):
    """Record with metrics that loggers do not know, as later versions may add."""

    novelty: float | None = None
    memory: float | None = None


def record(step: int, **changes: Any) -> More:
    """Return a record whose values depend on step and field."""
    figures: dict[str, Any] = {
        "step": step,
        "steps": 6000,
        "rate": 7.5,
        "wait": 0.001,
        "loss": 1800.0 + step,
        "excess": 70.0 + step,
        "kl": 6.0,
        "kl_steps": (1.0, 2.0, 3.0),
        "mse": 0.01,
        "psnr": 20.0,
        "prior_sample": None if step % 200 else 17.0,
        "prior_mean": None if step % 200 else 18.0,
        "sigma": 1.5,
        "learning_rate": 1e-3,
        "left": 800.0,
        "gradient_norm": 123.456,
        "novelty": 0.25,
    }
    return More(**figures | changes)


def plain(step: int) -> Record:
    """Return a `Record` without the additional metrics, as sent to another process."""
    return Record(**{one.name: getattr(record(step), one.name) for one in dataclasses.fields(Record)})


def picture(shade: int = 200) -> Image.Image:
    return Image.new("RGB", (12, 8), (shade, 0, 0))
