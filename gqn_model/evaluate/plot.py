"""An evaluation as a picture: each metric over the number of context views, baselines beside. Imports `reports`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gqn_data.io.pictures import check_plot, write_figure
from gqn_model.evaluate.metrics import Figure
from gqn_model.evaluate.report import BASELINES, AtContext, Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Plot

_METRICS = {
    "psnr": "PSNR (dB), mean over scenes",
    "psnr_of_mean_error": "PSNR of the mean error (dB)",
    "ssim": "SSIM",
    "mae": "MAE (0..255)",
    "rmse": "RMSE (0..255)",
}
_BASELINE_COLOURS = ("0.45", "0.7")


def write_plot(result: Evaluation, path: Path) -> None:
    """Writes metrics over the number of context views, with standard errors, as a picture.

    Raises:
        OptionError: matplotlib is not installed, or a name of another ending.
    """
    check_plot(path, "the figures are in the result's JSON")
    write_figure(_plot(result), path)


def _plot(result: Evaluation) -> Plot:
    from matplotlib.figure import Figure as Plot
    from matplotlib.ticker import MaxNLocator

    plot = Plot(figsize=(12, 7), layout="constrained")
    panels = plot.subplots(2, 3).ravel()
    low, high = result.trained_with
    numbers = [found.context for found in result.sweep]
    for axes, (metric, label) in zip(panels, _METRICS.items(), strict=False):
        for place, first in enumerate(result.sweep[0].scores):
            figures = [getattr(found.scores[place], metric) for found in result.sweep]
            _curve(axes, numbers, figures, first.name, **_look(first.name, place))
        axes.set(ylabel=label)
    _nats(panels[-1], numbers, result.sweep)
    for axes in panels:
        axes.axvspan(low - 0.25, high + 0.25, color="tab:blue", alpha=0.06, lw=0, zorder=0)
        axes.set(xlabel="context views", xlim=(min(numbers) - 0.5, max(numbers) + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize="small")
    panels[-1].legend(fontsize="small")
    plot.suptitle(
        f"{Path(result.run).name}, step {result.step}: {result.scenes} {result.split} scenes of {result.scene_set}, "
        f"{result.samples} prior samples; bars are standard errors, shaded what it was trained with",
        fontsize="medium",
    )
    return plot


def _nats(axes: Any, numbers: Sequence[int], sweep: Sequence[AtContext]) -> None:
    _curve(axes, numbers, [found.excess for found in sweep], "excess over the floor", fmt="o-", color="tab:purple")
    _curve(axes, numbers, [found.kl for found in sweep], "KL", fmt="o-", color="tab:brown")
    axes.set(ylabel="nats a frame")


def _look(name: str, place: int) -> dict[str, Any]:
    if name in BASELINES:
        return {"fmt": "s--", "color": _BASELINE_COLOURS[BASELINES.index(name)]}
    return {"fmt": "o-", "color": f"C{place}"}


def _curve(axes: Any, numbers: Sequence[int], figures: Sequence[Figure], label: str, **look: Any) -> None:
    """What can be drawn: a PSNR without error is infinite, the error of one scene is none."""
    drawn = [(number, *figure) for number, figure in zip(numbers, figures, strict=True) if math.isfinite(figure.mean)]
    if not drawn:
        return
    at, means, errors = zip(*drawn, strict=True)
    bars = [error if math.isfinite(error) else 0.0 for error in errors]
    axes.errorbar(at, means, yerr=bars, label=label, capsize=2, ms=4, lw=1.2, **look)
