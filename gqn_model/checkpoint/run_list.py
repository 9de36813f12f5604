"""Lists of runs: their steps, figures and state, from the files in their folders. Does not import torch."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gqn_data.errors import GQNError, OptionError
from gqn_data.io import atomic
from gqn_model.checkpoint.best import read_best
from gqn_model.checkpoint.files import FOLDER, checkpoint_steps
from gqn_model.checkpoint.run_folder import CONFIG_FILE, read_config, read_facts, run_labels
from gqn_model.loggers.json_lines import LOG_FILE, read_lines

State = Literal["running", "finished", "stopped", "damaged"]

_MOST_CHARACTERS = 60  # of a cell


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run of the list.

    Attributes:
        run: the run's folder.
        state: `running` if a process holds its lock, else `finished` if its last step has a checkpoint, `stopped` if
            not, `damaged` if its files cannot be read.
        changed: when its log or checkpoints last changed, in seconds since the epoch.
        model: name of the model.
        scene_set: name of the scene set.
        step: step of the newest checkpoint or, of a running one, of the last log line.
        steps: steps of the whole training.
        psnr: PSNR of the last log line on training scenes in dB; None before.
        held_out_psnr: PSNR of predictions on held-out scenes in dB, the last one measured; None before.
        best_step: step of the best checkpoint; None before.
        best_psnr: its PSNR on held-out scenes in dB; None if not measured.
        problem: why the run is damaged.
    """

    run: str
    state: State
    changed: float
    model: str = ""
    scene_set: str = ""
    step: int = 0
    steps: int = 0
    psnr: float | None = None
    held_out_psnr: float | None = None
    best_step: int | None = None
    best_psnr: float | None = None
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON."""
        return dataclasses.asdict(self)


def summarize_runs(folders: Iterable[Path]) -> list[RunSummary]:
    """Return the runs in folders, the last changed one at the end.

    Args:
        folders: runs, or folders that hold runs.

    Raises:
        OptionError: a folder does not exist.
    """
    runs: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            found = "not a folder" if folder.exists() else "does not exist"
            raise OptionError(f"{folder}: {found}, expected a folder of runs; train one with `gqn train`")
        inside = [folder] if _is_run(folder) else sorted(folder.iterdir())
        runs |= {run.resolve(): run for run in inside if _is_run(run)}
    return sorted(map(_summary, runs.values()), key=lambda one: (one.changed, one.run))


def _is_run(folder: Path) -> bool:
    with contextlib.suppress(OSError):  # a folder of others may not be read
        return (folder / CONFIG_FILE).exists()
    return False


def _summary(run: Path) -> RunSummary:
    changed = 0.0
    try:
        for name in (CONFIG_FILE, LOG_FILE, FOLDER):
            with contextlib.suppress(FileNotFoundError):
                changed = max(changed, (run / name).stat().st_mtime)
        locked = atomic.is_locked(run)
        config, facts, best, log = read_config(run), read_facts(run), read_best(run), read_lines(run)
    except (GQNError, OSError) as error:
        return RunSummary(run=str(run), state="damaged", changed=changed, problem=str(error))
    steps = config.training.steps
    saved = max(checkpoint_steps(run), default=0)
    step = max(saved, int(log[-1]["step"])) if locked and log else saved
    return RunSummary(
        run=str(run),
        state="running" if locked else "finished" if saved >= steps else "stopped",
        changed=changed,
        model=config.model.model,
        scene_set=facts.scene_set,
        step=step,
        steps=steps,
        psnr=_last(log, "psnr"),
        held_out_psnr=_last(log, "prior_mean"),
        best_step=best and best.step,
        best_psnr=best and best.score.prior_psnr,
    )


def _last(log: Sequence[dict[str, Any]], name: str) -> float | None:
    """Return the last measured value of a field; the log may be of a stranger or of an earlier version."""
    values = (line.get(name) for line in reversed(log))
    return next((float(one) for one in values if type(one) in (int, float) and math.isfinite(one)), None)


def runs_table(found: Sequence[RunSummary]) -> list[str]:
    """Return the lines of a table of runs, and below it what is damaged."""
    if not found:
        return ["no runs"]
    head = ("run", "state", "model", "scene set", "step", "PSNR", "held out", "best", "changed")
    rows = [
        (
            name,
            one.state,
            one.model,
            one.scene_set,
            f"{one.step:,} of {one.steps:,}" if one.steps else "",
            _decibels(one.psnr),
            _decibels(one.held_out_psnr),
            "" if one.best_step is None else f"{_decibels(one.best_psnr)} at {one.best_step:,}".strip(),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(one.changed)),
        )
        for name, one in zip(run_labels([Path(one.run) for one in found]), found, strict=True)
    ]
    cells = [head, *(tuple(map(_cell, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return [*lines, *(_cell(one.problem, 1000) for one in found if one.problem)]


def _decibels(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} dB"


def _cell(text: str, most: int = _MOST_CHARACTERS) -> str:
    """Return a text of a file as a terminal may print it."""
    return "".join(one if one.isprintable() else "?" for one in text[:most])
