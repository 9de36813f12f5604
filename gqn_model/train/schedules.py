"""Schedules of the pixel standard deviation and the learning rate. Plain arithmetic, without torch."""

from __future__ import annotations

import math

from gqn_model.config import TrainingConfig


def linear(start: float, end: float, length: int, step: int) -> float:
    """Return the value at `step` of a line from `start` at step 0 to `end` at step `length`, constant afterwards."""
    return end + (start - end) * max(0.0, 1.0 - step / length)


def cosine(start: float, end: float, length: int, step: int) -> float:
    """Return the value at `step` of half a cosine from `start` at step 0 to `end` at step `length`, then constant."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / length)))


_SHAPES = {"linear": linear, "cosine": cosine}


def sigma_at(config: TrainingConfig, step: int) -> float:
    """Return the pixel standard deviation at a step, for frames in [0, 1] (paper, supplement, section 4)."""
    return linear(config.sigma, config.sigma_end, config.sigma_steps, step)


def learning_rate_at(config: TrainingConfig, step: int) -> float:
    """Return the learning rate at a step: a line as in the paper, or a cosine; times a linear warm-up if one is set."""
    shape = _SHAPES[config.learning_rate_schedule]
    rate = shape(config.learning_rate, config.learning_rate_end, config.learning_rate_steps, step)
    return rate * min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else rate
