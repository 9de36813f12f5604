"""Learning curves of runs, from their `log.jsonl`; runs may still be training.

Fields missing in older logs and damaged lines, such as a last one that is being written, are skipped. Without torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gqn_data.errors import CheckpointError
from gqn_data.io.pictures import check_plot, literal_text, write_figure
from gqn_model.checkpoint.run_folder import check_distinct, run_labels
from gqn_model.loggers.json_lines import LOG_FILE, read_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel of the plot.

    Attributes:
        title: text above the panel.
        fields: (field of the log, line style, label) per curve.
        log: use a logarithmic axis if all values are positive.
        elbo: only models with a likelihood have it: omitted if no run has.
    """

    title: str
    fields: tuple[tuple[str, str, str], ...]
    log: bool = False
    elbo: bool = False


# The fields are documented in `gqn_model.loggers.record`.
PANELS = (
    Panel(title="excess over the floor (nats per frame)", fields=(("excess", "-", ""),), log=True, elbo=True),
    Panel(title="KL (nats per frame)", fields=(("kl", "-", ""),), elbo=True),
    Panel(title="PSNR in training (dB)", fields=(("psnr", "-", ""),)),
    Panel(
        title="PSNR, unseen scenes (dB)",
        fields=(("prior_mean", "-", "prediction"), ("prior_sample", ":", "one sample")),
    ),
    Panel(title="MSE in training", fields=(("mse", "-", ""),), log=True),
    Panel(title="sigma", fields=(("sigma", "-", ""),), elbo=True),
    Panel(title="learning rate", fields=(("learning_rate", "-", ""),)),
    Panel(title="steps/s", fields=(("rate", "-", ""),)),
)


def read_log(run: Path) -> list[dict[str, Any]]:
    """Read the lines of a run's log in rising order of steps, without damaged lines.

    Raises:
        CheckpointError: the log is missing or empty.
    """
    if not (run / LOG_FILE).exists():
        raise CheckpointError(f"{run}: without {LOG_FILE}, expected the folder of a `gqn train`")
    # Of a step repeated after a kill, keep the last line.
    lines = {float(line["step"]): line for line in read_lines(run)}
    if not lines:
        raise CheckpointError(
            f"{run / LOG_FILE}: 0 lines, expected at least 1; wait for the first log line (--log-every)"
        )
    return [lines[step] for step in sorted(lines)]


def write_curves(runs: Sequence[Path], path: Path) -> None:
    """Plot the learning curves of runs over steps, one colour per run.

    Args:
        runs: folders of the runs.
        path: the picture; its extension sets the format.

    Raises:
        CheckpointError: a log is missing or empty.
        OptionError: `runs` is empty or has one twice, matplotlib is not installed, or the file extension is not
            supported.
    """
    check_distinct(runs)
    check_plot(path, f"the metrics are in each run's {LOG_FILE}")
    write_figure(_plot([read_log(run) for run in runs], _names(runs)), path)


def _plot(logs: Sequence[list[dict[str, Any]]], names: Sequence[str]) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, StrMethodFormatter

    shown = [panel for panel in PANELS if not panel.elbo or any(_curve(log, panel.fields[0][0])[0] for log in logs)]
    rows = 2 if len(shown) > 4 else 1
    figure = Figure(figsize=(14 / 4 * -(-len(shown) // rows), 3.5 * rows), layout="constrained")
    panels = figure.subplots(rows, -(-len(shown) // rows)).ravel()
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    for axes, panel in zip(panels, shown, strict=False):
        drawn = []
        for colour, log in enumerate(logs):
            for field, style, _ in panel.fields:
                steps, values = _curve(log, field)
                drawn += values
                # Without a marker, a curve of one point is invisible.
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


def _curve(log: list[dict[str, Any]], field: str) -> tuple[list[float], list[float]]:
    """Return steps and values of the lines that have the field."""
    points = [(_number(line, "step"), _number(line, field)) for line in log]
    curve = [(step, value) for step, value in points if step is not None and value is not None]
    return [step for step, _ in curve], [value for _, value in curve]


def _number(line: dict[str, Any], field: str) -> float | None:
    value = line.get(field)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if -sys.float_info.max <= value <= sys.float_info.max else None


def _names(runs: Sequence[Path]) -> list[str]:
    """Return the names of the runs, as matplotlib shows any text."""
    return [literal_text(label) for label in run_labels(runs)]
