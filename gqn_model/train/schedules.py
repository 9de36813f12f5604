"""The two schedules of a training: the deviation of a pixel and the learning rate. Plain arithmetic, no torch."""

from __future__ import annotations

from gqn_model.config import TrainingConfig


def linear(start: float, end: float, length: int, step: int) -> float:
    """The value at `step` of a line from `start` at step 0 to `end` at step `length`, and `end` from there on."""
    return end + (start - end) * max(0.0, 1.0 - step / length)


def sigma_at(config: TrainingConfig, step: int) -> float:
    """The deviation of a pixel at a step, in units of a frame in [0, 1] (paper, supplement, section 4)."""
    return linear(config.sigma, config.sigma_end, config.sigma_steps, step)


def learning_rate_at(config: TrainingConfig, step: int) -> float:
    """The learning rate at a step: the paper's line, times a linear rise over the warm-up where there is one."""
    rate = linear(config.learning_rate, config.learning_rate_end, config.learning_rate_steps, step)
    return rate * min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else rate
