"""Plot the rates of a benchmark. matplotlib is imported only to plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gqn_data.bench.measure import Bench
from gqn_data.io import pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_plot(path: Path) -> None:
    """Raise if a plot cannot be written, before minutes are spent on measuring.

    Raises:
        OptionError: matplotlib is not installed, or the name has another ending.
    """
    pictures.check_plot(path, "--json prints the numbers")


def write_plot(result: Bench, path: Path) -> None:
    """Write a plot of frames/s over the number of workers, for the loader and the limit.

    Raises:
        OptionError: matplotlib is not installed, or the name has another ending.
    """
    check_plot(path)
    pictures.write_figure(_plot(result), path)


def _plot(result: Bench) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    rows = result.measured
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    limits = [one for one in rows if one.workers] or rows  # 0 workers have the limit of 1
    axes.plot(
        [one.workers for one in limits],
        [one.limit_frames_per_second for one in limits],
        "s--",
        color="0.6",
        label=f"bare {result.limit} in as many processes",
    )
    axes.plot(
        [one.workers for one in rows],
        [one.frames_per_second for one in rows],
        "o-",
        color="tab:blue",
        label="the loader",
    )
    views = rows[-1].frames_per_second / rows[-1].scenes_per_second

    def as_scenes(frames: Any) -> Any:
        return frames / views

    def as_frames(scenes: Any) -> Any:
        return scenes * views

    scenes = axes.secondary_yaxis("right", functions=(as_scenes, as_frames))
    axes.set(xlabel="workers", ylabel="frames/s", ylim=(0, None), title=Path(result.folder).name)
    scenes.set_ylabel(f"scenes/s, of {views:.1f} views")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in (axes.yaxis, scenes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure
