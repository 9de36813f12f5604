"""Runs: start one, resume one. The training loop is in `trainer`.

A run's folder holds `config.json` (all settings, resolved), `run.json` (dataset and versions), `log.jsonl`,
`checkpoints/`, `pictures/` and `evaluation/`. Only rank 0 reads and writes it; it broadcasts what the others need.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from gqn_data.dataset import open_dataset
from gqn_data.errors import DestinationError, GQNError, OptionError, RunMismatch
from gqn_data.io import atomic
from gqn_data.io.paths import DatasetPath, local_path, parse_dataset_path
from gqn_data.progress import message
from gqn_data.units import count_of
from gqn_model.checkpoint.checkpoint import (
    CONFIG_FILE,
    Checkpoint,
    Step,
    checkpoint_steps,
    load_checkpoint,
    read_config,
    rewind,
    update_best,
    write_config,
)
from gqn_model.checkpoint.run_folder import (
    RunFacts,
    check_encodable,
    check_links,
    describe_finished,
    match_dataset,
    read_facts,
    write_facts,
    write_held_out,
)
from gqn_model.config import Config, declaration
from gqn_model.data import Batches, bounded, fixed_batches, held_out_scenes, note_on_geometry, training_batches
from gqn_model.device import choose_device, choose_precision, describe
from gqn_model.loggers import Logger, check_loggers, open_loggers
from gqn_model.model.inputs import Inputs, to_device
from gqn_model.train.distributed import Ranks, current_ranks, process_group
from gqn_model.train.step import check_computing
from gqn_model.train.trainer import train

if TYPE_CHECKING:
    from gqn_data.loader import Batch
    from gqn_data.schema.catalog import Split

# Settings that `--resume` may change: none affects the steps of a training beyond rounding.
CHANGEABLE = (
    "steps", "workers", "threads", "device", "logger", "project", "visdom_server", "visdom_port",
    "visdom_env", "log_every", "probe_every", "picture_every",
    "checkpoint_every", "keep", "remote", "cache", "cache_gb", "accumulate", "compile", "cuda_graph", "tf32", "profile",
)  # fmt: skip

_PROBE_SCENES = 32
_MEASURED_STEPS = 2


def start_run(shards: str | DatasetPath, config: Config, *, out: str | Path | None = None, label: str = "run") -> Path:
    """Train a new run and return its folder, an absolute path.

    Args:
        shards: a dataset, an indexed folder of TFRecords, or a `render:` address.
        config: frame size and `context_max` may be 0, for the dataset's.
        out: the run's folder; None for `runs/<set>-<label>-<n>` with the first free n.
        label: part of that name, by convention the preset.

    Raises:
        OptionError: a path is a URL that a run cannot use.
        DestinationError: `out` is a run already.
        OptionError: a value is not possible, or `shards` is not UTF-8.
    """
    shards = parse_dataset_path(shards)
    ranks = current_ranks()
    # Check names and numbers before writing a file or waiting for another rank.
    check_encodable(shards)
    _check(config, ranks)
    if not config.training.probe_every:
        config = config.replaced({"held_out": 0})  # nothing would be measured on them
    out = None if out is None else local_path(out, "runs are written")
    if ranks.first and out is not None and (out / CONFIG_FILE).exists():
        raise DestinationError(
            f"{out}: is a run already; resume it with `gqn train --resume {out}`, or pass another --out"
        )
    with process_group(ranks):
        batches, config = training_batches(shards, config, rank=ranks.rank, ranks=ranks.count)
        with closing(batches):
            device = choose_device(config.training.device, ranks.local)
            precision = choose_precision(config.training.precision, device)
            config = config.replaced({"precision": ranks.broadcast(precision)})
            run = ranks.broadcast((out or _free_folder(batches.scene_set, label)).absolute())
            with _lock(run, ranks):
                if ranks.first:
                    write_facts(run, shards, batches.scene_set, batches.fingerprint)
                    write_config(run, config)
                    how = {"cache": ", through the cache", "range": ", read by range", None: ""}[batches.reading]
                    count = "endless" if batches.is_endless else f"{batches.scenes:,}"
                    scenes = f"{count} training scene{'s' if batches.scenes != 1 else ''}"
                    message(f"run {run}: {batches.scene_set}, {scenes}{how}, on {_where(config, ranks)}")
                    _log_late_schedules(config)
                    if note := note_on_geometry(config.model, shards):
                        message(note)
                with _loggers(run, config, ranks, start=0) as loggers:
                    probe = _probe(run, shards, config, ranks)
                    timed = _estimate_duration(batches, config, ranks, start=0)
                    train(run, config, timed, loggers=loggers, probe=probe, ranks=ranks)
    return run


def resume_run(
    run: str | Path, changes: Mapping[str, Any], shards: str | DatasetPath | None = None, step: Step = None
) -> Path:
    """Resume a run from a checkpoint and return its folder, an absolute path; a finished run stays unchanged.

    Args:
        run: the run's folder; only rank 0 needs to see it.
        changes: settings to change, from `CHANGEABLE`.
        shards: where the dataset lies now; None for the path in `run.json`.
        step: checkpoint to resume from; later ones are removed. None for the newest.

    Raises:
        OptionError: a setting cannot change.
        CheckpointError: the folder is not a run, or the checkpoint is missing or damaged.
        RunMismatch: `shards` is another dataset.
    """
    fixed = sorted(set(changes) - set(CHANGEABLE))
    if fixed:
        raise OptionError(f"{', '.join(fixed)} cannot change when a run is resumed; possible: {', '.join(CHANGEABLE)}")
    run = local_path(run, "runs lie").absolute()
    ranks = current_ranks()
    config = read_config(run).replaced(changes) if ranks.first else Config().replaced(changes)
    with process_group(ranks):
        known = (config, parse_dataset_path(shards or read_facts(run).shards)) if ranks.first else (config, Path())
        config, shards = ranks.broadcast(known)
        _check(config, ranks)
        with _lock(run, ranks):
            checkpoint = _checkpoint_to_resume(run, step) if ranks.first else None
            if ranks.first:
                _check_dataset(run, shards, checkpoint or read_facts(run))
            start = ranks.broadcast(checkpoint.step if checkpoint else 0)
            if ranks.broadcast(start >= config.training.steps):
                if ranks.first:
                    if checkpoint:
                        update_best(run, checkpoint)
                    message(describe_finished(run, start))
                return run
            batches, config = training_batches(shards, config, rank=ranks.rank, ranks=ranks.count)
            with closing(batches):
                if ranks.first:
                    write_config(run, config)
                    if checkpoint and step is not None:
                        rewind(run, start)
                    if checkpoint:
                        update_best(run, checkpoint)  # the run may have been killed between saving it and this
                    message(
                        f"run {run}: resumes at step {start} of {config.training.steps}, on {_where(config, ranks)}"
                    )
                with _loggers(run, config, ranks, start=start) as loggers:
                    probe = _probe(run, shards, config, ranks)
                    timed = _estimate_duration(batches, config, ranks, start=start)
                    train(run, config, timed, loggers=loggers, probe=probe, checkpoint=checkpoint, ranks=ranks)
    return run


def _check(config: Config, ranks: Ranks) -> None:
    """Raise OptionError unless this machine supports the configuration."""
    check_computing(config.training, ranks.count, choose_device(config.training.device, ranks.local))
    check_loggers(config.training.logger)


def _checkpoint_to_resume(run: Path, step: Step) -> Checkpoint | None:
    if step is None and not checkpoint_steps(run):
        return None  # the run ended before its first checkpoint
    checkpoint = load_checkpoint(run, step)
    if checkpoint.format == 1:
        message(
            f"warning: {run} comes from an earlier version that drew noise differently: it resumes with other noise"
        )
    return checkpoint


def _check_dataset(run: Path, shards: DatasetPath, trained: Checkpoint | RunFacts) -> None:
    """Raise RunMismatch unless the dataset is the one that the run was trained on."""
    match = match_dataset(shards, trained.scene_set, trained.fingerprint, other_set=True)
    if match.fingerprint != trained.fingerprint:
        raise RunMismatch(
            f"{run}: {shards} is {match}; pass --shards with the dataset that it was trained on, or train a new run"
        )


def _lock(run: Path, ranks: Ranks) -> AbstractContextManager[Any]:
    """Lock the run's folder against other writers; only on rank 0."""
    if not ranks.first:
        return contextlib.nullcontext()
    check_links(run)
    return atomic.exclusive_writer(run)


@contextlib.contextmanager
def _loggers(run: Path, config: Config, ranks: Ranks, *, start: int) -> Iterator[list[Logger]]:
    """Open the loggers inside the block; none except on rank 0."""
    loggers = open_loggers(config.training.logger, run, start, config=config.to_json()) if ranks.first else []
    try:
        yield loggers
    finally:
        for logger in loggers:
            logger.close()


def _probe(run: Path, shards: DatasetPath, config: Config, ranks: Ranks) -> Inputs | None:
    """Return held-out scenes on rank 0's device, or test scenes of a run that holds none out, and list them in the run.

    None on other ranks, if not wanted, or without such scenes.
    """
    training = config.training
    if not ranks.first or not (training.probe_every or training.picture_every):
        return None
    context = training.context_max
    scenes = held_out_scenes(shards, config)
    split: Split = "train" if len(scenes) else "test"
    try:
        if split == "test":
            shards = bounded(shards, _PROBE_SCENES)
            scenes = np.arange(min(_PROBE_SCENES, len(open_dataset(shards, split))))
        batches = fixed_batches(
            shards, config, split=split, scenes=scenes, context=context, batch_size=len(scenes), seed=0
        )
    except GQNError as error:
        message(f"no test scenes for predictions: {error}")
        return None
    if training.probe_every:
        write_held_out(run, split, scenes.tolist())
        why = "few training scenes: none are held out, and " if training.held_out else ""
        message(
            f"{count_of(len(scenes), 'training scene')} held out to choose the best checkpoint"
            if split == "train"
            else f"{why}the best checkpoint is chosen on test scenes"
        )
    with closing(batches):
        batch = next(iter(batches))
    return to_device(batch, choose_device(training.device, ranks.local))


def _free_folder(scene_set: str, label: str) -> Path:
    runs = Path("runs")
    pattern = re.compile(re.escape(f"{scene_set}-{label}-") + r"(\d+)")
    taken = [int(match[1]) for path in runs.glob("*") if (match := pattern.fullmatch(path.name))]
    return runs / f"{scene_set}-{label}-{max(taken, default=0) + 1}"


def _where(config: Config, ranks: Ranks) -> str:
    device = choose_device(config.training.device, ranks.local)
    where = describe(device, config.training.threads)
    where = f"{ranks.count} ranks, the first on {where}" if ranks.count > 1 else where
    return f"{where}, in {config.training.precision}"


def _log_late_schedules(config: Config) -> None:
    """Log the schedules that end after the last step, as those of `paper` do in a short training."""
    training = config.training
    names = ("learning_rate_steps", "sigma_steps")
    late = [
        name
        for name in names
        if getattr(training, name) > training.steps and declaration(name).owner in (None, config.model.model)
    ]
    if late:
        found = ", ".join(f"{name} is {getattr(training, name):,}" for name in late)
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in late)
        message(f"{found}: this run ends before, after {training.steps:,} steps; pass {flags} to change that")


class _TimedBatches:
    """Batches that log how long the training takes, if its first steps show that it takes days."""

    def __init__(self, batches: Batches, steps: int) -> None:
        self._batches, self._steps = batches, steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)

    def __iter__(self) -> Iterator[Batch]:
        begin = 0.0
        for number, batch in enumerate(self._batches):
            if number == 1:  # the first step allocates memory
                begin = time.monotonic()
            elif number == 1 + _MEASURED_STEPS:
                seconds = (time.monotonic() - begin) / _MEASURED_STEPS
                days = seconds * self._steps / 86_400
                if days > 1:
                    message(
                        f"{self._steps:,} steps of {seconds:.2g} s take about {days:,.0f} days on this CPU; "
                        "train on a GPU, or with --preset tiny or sweep_tiny, which take minutes here"
                    )
            yield batch


def _estimate_duration(batches: Batches, config: Config, ranks: Ranks, *, start: int) -> Batches:
    """Return the batches, on a CPU with an estimate of the training's duration after the first steps."""
    if not ranks.first or choose_device(config.training.device, ranks.local).type != "cpu":
        return batches
    return cast("Batches", _TimedBatches(batches, config.training.steps - start))
