"""Runs: their folders, how one begins and how one goes on. The steps themselves are in `training`.

A run's folder holds `config.json` (all settings, resolved), `run.json` (dataset and versions), `log.jsonl`,
`checkpoints/`, `pictures/`, `evaluation/`.
"""

from __future__ import annotations

import dataclasses
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gqn_data import json_files, storage
from gqn_data.errors import CheckpointError, DestinationError, GQNError, OptionError
from gqn_model.batches import fixed_batches, training_batches
from gqn_model.checkpoints import CONFIG_FILE, checkpoint_steps, load_checkpoint, read_config, write_config
from gqn_model.config import Config
from gqn_model.inputs import Inputs, to_device
from gqn_model.logs import open_loggers
from gqn_model.training import choose_device, train

RUN_FILE = "run.json"

# What may differ when a run goes on: nothing of it changes a step that both would take.
CHANGEABLE = (
    "steps", "workers", "threads", "device", "logger", "log_every", "probe_every", "picture_every",
    "checkpoint_every", "keep", "remote", "cache", "cache_gb",
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
    """

    shards: str
    scene_set: str
    fingerprint: str
    versions: Mapping[str, str]


def read_facts(run: Path) -> RunFacts:
    """The facts of a run.

    Raises:
        CheckpointError: the folder is no run, or the file says something else.
    """
    path = run / RUN_FILE
    try:
        return RunFacts(**json_files.read_json(path))
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
    if out is not None and (out / CONFIG_FILE).exists():
        raise DestinationError(
            f"{out}: holds a run already; go on with `gqn train --resume {out}`, or give another --out"
        )
    choose_device(config.training.device)  # a wrong name is told before anything is written
    batches, config = training_batches(shards, config)
    try:
        run = out or _free_folder(batches.scene_set, label)
        with storage.sole_writer(run):
            facts = RunFacts(
                shards=shards if "://" in shards else str(Path(shards).absolute()),
                scene_set=batches.scene_set,
                fingerprint=batches.fingerprint,
                versions=versions(),
            )
            storage.write_json(run / RUN_FILE, dataclasses.asdict(facts))
            write_config(run, config)
            how = {"cache": ", through the cache", "range": ", read by range", None: ""}[batches.reading]
            _say(f"run {run}: {batches.scene_set}, {batches.scenes} training scenes{how}, on {_where(config)}")
            _train(run, config, batches, shards, resume=False)
    finally:
        batches.close()
    return run


def resume_run(run: Path, changes: Mapping[str, Any], shards: str | None = None) -> Path:
    """Trains a run on from its newest checkpoint and gives its folder.

    Args:
        run: the run's folder.
        changes: settings given anew; those in `CHANGEABLE` alone.
        shards: where the dataset lies now; None: where it lay.

    Raises:
        OptionError: a setting was given that a run cannot change.
        CheckpointError: the folder is no run, or its newest checkpoint is damaged.
    """
    fixed = sorted(set(changes) - set(CHANGEABLE))
    if fixed:
        raise OptionError(f"{', '.join(fixed)} cannot change when a run goes on; possible: {', '.join(CHANGEABLE)}")
    config = read_config(run).replaced(changes)
    shards = shards or read_facts(run).shards
    with storage.sole_writer(run):
        batches, config = training_batches(shards, config)
        try:
            write_config(run, config)
            _train(run, config, batches, shards, resume=True)
        finally:
            batches.close()
    return run


def versions() -> dict[str, str]:
    """The versions that a run may depend on."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        ours = version("gqn-toolkit")
    except PackageNotFoundError:
        ours = "not installed"
    return {"python": platform.python_version(), "torch": torch.__version__, "gqn-toolkit": ours}


def _train(run: Path, config: Config, batches: Any, shards: str, *, resume: bool) -> None:
    checkpoint = load_checkpoint(run) if resume and checkpoint_steps(run) else None
    start = checkpoint.step if checkpoint else 0
    if resume:
        _say(f"run {run}: goes on at step {start} of {config.training.steps}, on {_where(config)}")
    loggers = open_loggers(config.training.logger, run, start)
    try:
        train(
            run,
            config,
            batches,
            loggers=loggers,
            probe=_probe(shards, config),
            checkpoint=checkpoint,
        )
    finally:
        for logger in loggers:
            logger.close()


def _probe(shards: str, config: Config) -> Inputs | None:
    """Some test scenes on the device, or None where there are none to be had."""
    training = config.training
    if not (training.probe_every or training.picture_every):
        return None
    try:
        batches = fixed_batches(shards, config, split="test", context=training.context_max, batch_size=_PROBED, seed=0)
    except GQNError as error:
        _say(f"no test scenes to measure predictions on: {error}")
        return None
    try:
        batch = next(iter(batches), None)
    finally:
        batches.close()
    return None if batch is None else to_device(batch, choose_device(training.device))


def _free_folder(scene_set: str, label: str) -> Path:
    runs = Path("runs")
    pattern = re.compile(re.escape(f"{scene_set}-{label}-") + r"(\d+)")
    taken = [int(match[1]) for path in runs.glob("*") if (match := pattern.fullmatch(path.name))]
    return runs / f"{scene_set}-{label}-{max(taken, default=0) + 1}"


def _where(config: Config) -> str:
    device = choose_device(config.training.device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = config.training.threads or torch.get_num_threads()
    return f"the CPU, {threads} thread{'s' if threads > 1 else ''}"


def _say(message: str) -> None:
    sys.stderr.write(message + "\n")
    sys.stderr.flush()
