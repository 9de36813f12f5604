"""Runs: their folders, how one begins and how one goes on. The course of a training is in `training`.

A run's folder holds `config.json` (all settings, resolved), `run.json` (dataset and versions), `log.jsonl`,
`checkpoints/`, `pictures/`, `evaluation/`. Of several ranks the first alone reads and writes it, and tells the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gqn_data.errors import CheckpointError, DestinationError, GQNError, OptionError
from gqn_data.io import atomic, strict_json
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
from gqn_model.config import Config
from gqn_model.data import fixed_batches, training_batches
from gqn_model.device import choose_device, describe
from gqn_model.loggers import check_loggers, open_loggers
from gqn_model.model.inputs import Inputs, to_device
from gqn_model.train.distributed import Ranks, current_ranks, process_group
from gqn_model.train.step import check_computing
from gqn_model.train.trainer import train

RUN_FILE = "run.json"

# What may differ when a run goes on: nothing of it changes a step that both would take, but for rounding.
CHANGEABLE = (
    "steps", "workers", "threads", "device", "logger", "project", "visdom_server", "visdom_port",
    "visdom_env", "log_every", "probe_every", "picture_every",
    "checkpoint_every", "keep", "remote", "cache", "cache_gb", "accumulate", "compile", "cuda_graph", "tf32", "profile",
)  # fmt: skip

_PROBED = 32


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a run was made from, beside its configuration.

    Attributes:
        shards: the dataset, as given; absolute where it is a local path.
        scene_set: its name.
        fingerprint: the dataset's.
        versions: of Python, torch and this project.
        commit: of this project, where it ran from a checkout of git; with `+` where files differed from it.
    """

    shards: str
    scene_set: str
    fingerprint: str
    versions: Mapping[str, str]
    commit: str = ""


def read_facts(run: Path) -> RunFacts:
    """The facts of a run.

    Raises:
        CheckpointError: the folder is no run, or the file says something else.
    """
    path = run / RUN_FILE
    try:
        return RunFacts(**strict_json.read_json(path))
    except FileNotFoundError as error:
        raise CheckpointError(f"{run}: no {RUN_FILE} there; expected the folder of a `gqn train`") from error
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be understood ({error}); restore it, or train anew") from error


def start_run(shards: str, config: Config, *, out: Path | None = None, label: str = "run") -> Path:
    """Trains a new run and gives its folder.

    Args:
        shards: a dataset, or an indexed folder of TFRecords.
        config: frame size and largest context may be left to the dataset (0).
        out: the run's folder; None: `runs/<set>-<label>-<n>`, the first n that is free.
        label: part of that name, the preset's by custom.

    Raises:
        DestinationError: `out` holds a run already.
    """
    ranks = current_ranks()
    # A wrong name or number is told before anything is written, or any other rank waited for.
    device = choose_device(config.training.device, ranks.local)
    check_computing(config.training, ranks.count, device)
    check_loggers(config.training.logger)
    if ranks.first and out is not None and (out / CONFIG_FILE).exists():
        raise DestinationError(
            f"{out}: holds a run already; go on with `gqn train --resume {out}`, or give another --out"
        )
    with process_group(ranks):
        batches, config = training_batches(shards, config, rank=ranks.rank, ranks=ranks.count)
        try:
            run = ranks.broadcast(out or _free_folder(batches.scene_set, label))
            with _held(run, ranks):
                if ranks.first:
                    facts = RunFacts(
                        shards=shards if "://" in shards else str(Path(shards).absolute()),
                        scene_set=batches.scene_set,
                        fingerprint=batches.fingerprint,
                        versions=versions(),
                        commit=_commit(),
                    )
                    atomic.write_json(run / RUN_FILE, dataclasses.asdict(facts))
                    write_config(run, config)
                    how = {"cache": ", through the cache", "range": ", read by range", None: ""}[batches.reading]
                    where = _where(config, ranks)
                    _log(f"run {run}: {batches.scene_set}, {batches.scenes} training scenes{how}, on {where}")
                _train(run, config, batches, shards, ranks=ranks, checkpoint=None)
        finally:
            batches.close()
    return run


def resume_run(run: Path, changes: Mapping[str, Any], shards: str | None = None, step: Step = None) -> Path:
    """Trains a run on from a checkpoint and gives its folder.

    Args:
        run: the run's folder; of several ranks only the first needs to see it.
        changes: settings given anew; those in `CHANGEABLE` alone.
        shards: where the dataset lies now; None: where it lay.
        step: from which checkpoint; those of later steps are removed. None: from the newest.

    Raises:
        OptionError: a setting was given that a run cannot change.
        CheckpointError: the folder is no run, or the checkpoint is absent or damaged.
    """
    fixed = sorted(set(changes) - set(CHANGEABLE))
    if fixed:
        raise OptionError(f"{', '.join(fixed)} cannot change when a run goes on; possible: {', '.join(CHANGEABLE)}")
    ranks = current_ranks()
    config = read_config(run).replaced(changes) if ranks.first else Config().replaced(changes)
    with process_group(ranks):
        known = (config, shards or read_facts(run).shards) if ranks.first else (config, "")
        config, shards = ranks.broadcast(known)
        check_computing(config.training, ranks.count, choose_device(config.training.device, ranks.local))
        check_loggers(config.training.logger)
        with _held(run, ranks):
            batches, config = training_batches(shards, config, rank=ranks.rank, ranks=ranks.count)
            try:
                checkpoint = None
                if ranks.first:
                    write_config(run, config)
                    checkpoint = _where_to_go_on(run, step)
                    start = checkpoint.step if checkpoint else 0
                    _log(f"run {run}: goes on at step {start} of {config.training.steps}, on {_where(config, ranks)}")
                _train(run, config, batches, shards, ranks=ranks, checkpoint=checkpoint)
            finally:
                batches.close()
    return run


def _where_to_go_on(run: Path, step: Step) -> Checkpoint | None:
    if step is None and not checkpoint_steps(run):
        return None  # it was ended before it had any
    checkpoint = load_checkpoint(run, step)
    if step is not None:
        rewind(run, checkpoint.step)
    update_best(run, checkpoint)  # in case it was ended between the two
    if checkpoint.format == 1:
        _log(f"warning: {run} is of an earlier version, whose noise was drawn otherwise: it goes on with other noise")
    return checkpoint


def _held(run: Path, ranks: Ranks) -> AbstractContextManager[Any]:
    """The folder of the run, held against other runs by the one that writes there."""
    return atomic.exclusive_writer(run) if ranks.first else contextlib.nullcontext()


def versions() -> dict[str, str]:
    """The versions that a run may depend on."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        ours = version("gqn-toolkit")
    except PackageNotFoundError:
        ours = "not installed"
    return {"python": platform.python_version(), "torch": torch.__version__, "gqn-toolkit": ours}


def _commit() -> str:
    """The commit that this project ran from; empty where it is no checkout, or there is no git."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        # An installed copy may lie inside a checkout of something else, which does not track this file.
        git("ls-files", "--error-unmatch", __file__)
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _train(
    run: Path, config: Config, batches: Any, shards: str, *, ranks: Ranks, checkpoint: Checkpoint | None
) -> None:
    if not ranks.first:
        train(run, config, batches, ranks=ranks)
        return
    start = checkpoint.step if checkpoint else 0
    loggers = open_loggers(config.training.logger, run, start, config=config.to_json())
    try:
        train(
            run,
            config,
            batches,
            loggers=loggers,
            probe=_probe(shards, config, choose_device(config.training.device, ranks.local)),
            checkpoint=checkpoint,
            ranks=ranks,
        )
    finally:
        for logger in loggers:
            logger.close()


def _probe(shards: str, config: Config, device: torch.device) -> Inputs | None:
    """Some test scenes on the device, or None where there are none to be had."""
    training = config.training
    if not (training.probe_every or training.picture_every):
        return None
    try:
        batches = fixed_batches(shards, config, split="test", context=training.context_max, batch_size=_PROBED, seed=0)
    except GQNError as error:
        _log(f"no test scenes to measure predictions on: {error}")
        return None
    try:
        batch = next(iter(batches), None)
    finally:
        batches.close()
    return None if batch is None else to_device(batch, device)


def _free_folder(scene_set: str, label: str) -> Path:
    runs = Path("runs")
    pattern = re.compile(re.escape(f"{scene_set}-{label}-") + r"(\d+)")
    taken = [int(match[1]) for path in runs.glob("*") if (match := pattern.fullmatch(path.name))]
    return runs / f"{scene_set}-{label}-{max(taken, default=0) + 1}"


def _where(config: Config, ranks: Ranks) -> str:
    device = choose_device(config.training.device, ranks.local)
    where = describe(device, config.training.threads)
    return f"{ranks.count} ranks, the first on {where}" if ranks.count > 1 else where


def _log(message: str) -> None:
    sys.stderr.write(message + "\n")
    sys.stderr.flush()
