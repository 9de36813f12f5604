"""Plots of evaluations: each metric over the number of context views, with the baselines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gqn_data.io.pictures import check_plot, literal_text, write_figure
from gqn_model.checkpoint.run_folder import run_labels
from gqn_model.evaluate.metrics import Estimate
from gqn_model.evaluate.report import BASELINES, Evaluation, SweepPoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_METRICS = {
    "psnr": "PSNR (dB), mean over scenes",
    "psnr_of_mean_error": "PSNR of the mean error (dB)",
    "ssim": "SSIM",
    "mae": "MAE (0..255)",
    "rmse": "RMSE (0..255)",
}
_BASELINE_COLOURS = ("0.45", "0.7")


def write_plot(result: Evaluation, path: Path) -> None:
    """Plot the metrics over the number of context views, with standard errors.

    Raises:
        OptionError: matplotlib is not installed, or the file extension is not supported.
    """
    check_plot(path, "the metrics are in the result's JSON")
    write_figure(_plot(result), path)


def check_comparison(path: Path) -> None:
    """Raise if a comparison cannot be written, before minutes are spent on its figures.

    Raises:
        ExtraMissing: matplotlib is not installed.
        OptionError: the file extension is not supported.
    """
    check_plot(path, "the metrics are in each result's JSON")


def write_comparison(results: Sequence[Evaluation], path: Path) -> None:
    """Plot the predictions of several runs on the same questions, one colour per run, with the baselines.

    Raises:
        ExtraMissing: matplotlib is not installed.
        OptionError: the file extension is not supported.
    """
    check_comparison(path)
    write_figure(_comparison(results), path)


def _comparison(results: Sequence[Evaluation]) -> Figure:
    from matplotlib.figure import Figure

    first = results[0]
    names = run_labels([Path(one.run) for one in results])
    contexts = [point.context for point in first.sweep]
    figure = Figure(figsize=(12, 4), layout="constrained")
    panels = figure.subplots(1, 3)
    for axes, metric in zip(panels, ("psnr", "ssim", "mae"), strict=True):
        for index, (name, one) in enumerate(zip(names, results, strict=True)):
            estimates = [getattr(point.scores[0], metric) for point in one.sweep]
            _draw_curve(axes, contexts, estimates, literal_text(name), fmt="o-", color=f"C{index % 10}")
        for name in BASELINES:
            _draw_curve(
                axes, contexts, [getattr(point.score(name), metric) for point in first.sweep], name, **_style(name, 0)
            )
        axes.set(ylabel=_METRICS[metric])
        _finish(axes, contexts)
    panels[0].legend(fontsize="small")
    figure.suptitle(
        f"{first.scenes} {first.split} scenes of {literal_text(first.scene_set)}; bars are standard errors",
        fontsize="medium",
    )
    return figure


def _finish(axes: Any, contexts: Sequence[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set(xlabel="context views", xlim=(min(contexts) - 0.5, max(contexts) + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def _plot(result: Evaluation) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    low, high = result.trained_with
    contexts = [point.context for point in result.sweep]
    for axes, (metric, label) in zip(panels, _METRICS.items(), strict=False):
        for index, first in enumerate(result.sweep[0].scores):
            estimates = [getattr(point.scores[index], metric) for point in result.sweep]
            _draw_curve(axes, contexts, estimates, first.name, **_style(first.name, index))
        axes.set(ylabel=label)
    if result.sigma is None:
        panels[-1].set_axis_off()
        panels = panels[:-1]
    else:
        _draw_nats(panels[-1], contexts, result.sweep)
        panels[-1].legend(fontsize="small")
    for axes in panels:
        axes.axvspan(low - 0.25, high + 0.25, color="tab:blue", alpha=0.06, lw=0, zorder=0)
        _finish(axes, contexts)
    panels[0].legend(fontsize="small")
    figure.suptitle(
        f"{Path(result.run).name}, step {result.step}: {result.scenes} {result.split} scenes of {result.scene_set}, "
        f"{result.answers}; bars are standard errors, the training range is shaded",
        fontsize="medium",
    )
    return figure


def _draw_nats(axes: Any, contexts: Sequence[int], sweep: Sequence[SweepPoint]) -> None:
    excess, kl = [point.excess for point in sweep if point.excess], [point.kl for point in sweep if point.kl]
    _draw_curve(axes, contexts, excess, "excess over the floor", fmt="o-", color="tab:purple")
    _draw_curve(axes, contexts, kl, "KL", fmt="o-", color="tab:brown")
    axes.set(ylabel="nats per frame")


def _style(name: str, index: int) -> dict[str, Any]:
    if name in BASELINES:
        return {"fmt": "s--", "color": _BASELINE_COLOURS[BASELINES.index(name)]}
    return {"fmt": "o-", "color": f"C{index}"}


def _draw_curve(axes: Any, contexts: Sequence[int], estimates: Sequence[Estimate], label: str, **style: Any) -> None:
    """Draw the finite estimates: the PSNR of equal frames is infinite, the error of one scene undefined."""
    finite = [(context, *one) for context, one in zip(contexts, estimates, strict=True) if math.isfinite(one.mean)]
    if not finite:
        return
    x, means, errors = zip(*finite, strict=True)
    bars = [error if math.isfinite(error) else 0.0 for error in errors]
    axes.errorbar(x, means, yerr=bars, label=label, capsize=2, ms=4, lw=1.2, **style)
