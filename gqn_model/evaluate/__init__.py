"""Evaluation of a run: questions, metrics, baselines, and the result as table, JSON and plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from gqn_model.evaluate.run_evaluation import evaluate as evaluate

__all__ = ["evaluate"]

__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={"run_evaluation": ["evaluate"]})
