"""The curves of runs as a picture, from the `log.jsonl` of each; a run that still goes on is as good as any.

Takes what is in the logs: a field that an older run did not write, or a last line that is only half there, is left out.
No torch here. Imports `loggers` alone.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gqn_data.errors import CheckpointError, OptionError
from gqn_data.io.pictures import check_plot, write_figure
from gqn_model.loggers.json_lines import LOG_FILE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel: the fields of the log that it shows, each with the style of its line, and how it is scaled."""

    title: str
    fields: tuple[tuple[str, str, str], ...]
    log: bool = False


# What the fields mean: `gqn_model.loggers.record` and docs/training.md.
PANELS = (
    Panel(title="excess over the floor (nats a frame)", fields=(("excess", "-", ""),), log=True),
    Panel(title="KL (nats a frame)", fields=(("kl", "-", ""),)),
    Panel(title="PSNR, posterior (dB)", fields=(("psnr", "-", ""),)),
    Panel(
        title="PSNR, prior, test scenes (dB)",
        fields=(("prior_mean", "-", "mean latents"), ("prior_sample", ":", "one sample")),
    ),
    Panel(title="MSE, posterior", fields=(("mse", "-", ""),), log=True),
    Panel(title="sigma", fields=(("sigma", "-", ""),)),
    Panel(title="learning rate", fields=(("learning_rate", "-", ""),)),
    Panel(title="steps/s", fields=(("rate", "-", ""),)),
)


def read_log(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, in rising order of steps; what is no whole line of one is left out.

    Raises:
        CheckpointError: there is no log, or nothing in it.
    """
    path = run / LOG_FILE
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(f"{run}: no {LOG_FILE} there; expected the folder of a `gqn train`") from error
    lines: dict[float, dict[str, Any]] = {}
    for text in data.splitlines():
        try:
            line = json.loads(text)
        except ValueError:  # a line cut short by a kill, or one that is being written
            continue
        step = _number(line, "step") if isinstance(line, dict) else None
        if step is not None:
            lines[step] = line  # a step that was done again after a kill counts as it was done last
    if not lines:
        raise CheckpointError(f"{path}: no line of a training in it yet; wait for the first, or see --log-every")
    return [lines[step] for step in sorted(lines)]


def write_curves(runs: Sequence[Path], path: Path) -> None:
    """Writes the curves of runs over steps as a picture, one colour a run.

    Args:
        runs: their folders.
        path: the picture; its ending tells the format.

    Raises:
        OptionError: no run, matplotlib is not installed, or a name of another ending.
        CheckpointError: a folder has no log.
    """
    if not runs:
        raise OptionError("no run to draw; give the folders of one or more")
    check_plot(path, f"the figures are in each run's {LOG_FILE}")
    write_figure(_plot([read_log(run) for run in runs], _names(runs)), path)


def _plot(logs: Sequence[list[dict[str, Any]]], names: Sequence[str]) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(14, 7), layout="constrained")
    panels = figure.subplots(2, 4).ravel()
    for axes, panel in zip(panels, PANELS, strict=True):
        drawn = []
        for colour, log in enumerate(logs):
            for field, style, _ in panel.fields:
                steps, values = _course(log, field)
                drawn += values
                # a run of one line is a point
                mark = "." if len(steps) < 3 else ""
                axes.plot(steps, values, style, marker=mark, color=f"C{colour % 10}", lw=1.2)
        if panel.log and drawn and min(drawn) > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title(panel.title, fontsize="medium")
        axes.set_xlabel("step")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.3)
        if not drawn:
            axes.text(0.5, 0.5, "not in the log", transform=axes.transAxes, ha="center", color="0.5")
        elif len(panel.fields) > 1:
            keys = [axes.plot([], [], style, color="0.3", label=label)[0] for _, style, label in panel.fields]
            axes.legend(handles=keys, fontsize="small")
    runs = [Line2D([], [], color=f"C{colour % 10}", label=name) for colour, name in enumerate(names)]
    figure.legend(handles=runs, loc="outside lower center", ncols=min(4, len(runs)))
    return figure


def _course(log: list[dict[str, Any]], field: str) -> tuple[list[float], list[float]]:
    """Steps and values where the log has one."""
    found = [(_number(line, "step"), _number(line, field)) for line in log]
    course = [(step, value) for step, value in found if step is not None and value is not None]
    return [step for step, _ in course], [value for _, value in course]


def _number(line: dict[str, Any], field: str) -> float | None:
    value = line.get(field)
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable and value is not None else None


def _names(runs: Sequence[Path]) -> list[str]:
    """The runs' folders by name; by path where two have the same."""
    names = [run.resolve().name for run in runs]
    count = Counter(names)
    return [name if count[name] == 1 else str(run) for name, run in zip(names, runs, strict=True)]
