"""Runs without optimiser state, as `gqn push` writes them: on the Hugging Face hub, or pretrained in the package.

torch is not imported, so that a command finds a wrong address before it loads torch.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import quote

from gqn_data.cache.shard_cache import open_cache
from gqn_data.errors import CheckpointError, DestinationError, OptionError
from gqn_data.io import atomic
from gqn_data.io.paths import RenderAddress, StorePath, parse_dataset_path, parse_path
from gqn_data.progress import message
from gqn_data.schema.manifest import FileRow
from gqn_model.checkpoint.files import FOLDER
from gqn_model.checkpoint.pretrained import pretrained_folder
from gqn_model.checkpoint.run_folder import RUN_FILE, read_config, read_facts, write_config

WEIGHTS_FILE = "model.safetensors"
RUNS = Path("runs")


def parse_run(text: str | os.PathLike[str] | StorePath) -> Path | StorePath:
    """Parse the local path of a run, or the address `hf://USER/NAME[@REVISION]`.

    Raises:
        OptionError: it is another URL.
    """
    path = parse_path(text)
    if isinstance(path, StorePath) and (path.repository is None or path.repository.kind != "model"):
        raise OptionError(f"{path}: found a URL, expected a local path, or hf://USER/NAME: runs lie on a local disk")
    return path


def local_run(run: str | os.PathLike[str] | StorePath) -> Path:
    """Return the folder of a run; of one on the hub a copy in `runs/USER--NAME`, renewed if it has changed.

    Raises:
        OptionError: it is another URL.
        CheckpointError: the repository holds no run.
        DestinationError: the folder of the copy holds a training.
        StoreError: the hub does not answer, or refuses.
    """
    path = parse_run(run)
    if isinstance(path, Path):
        return path
    return _copy_run(path, RUNS / quote(str(path).removeprefix("hf://").replace("/", "--"), safe="@%"))


def local_pretrained(name: str) -> Path:
    """Return the folder of a run with pretrained weights: a copy in `runs/pretrained-SET`.

    Args:
        name: scene set, or an alias.

    Raises:
        UnknownName: no weights have this name.
        DestinationError: the folder of the copy holds a training.
    """
    source = pretrained_folder(name)
    return _copy_run(source, RUNS / f"pretrained-{source.name}")


def _copy_run(source: Path | StorePath, folder: Path) -> Path:
    """Copy a run without optimiser state, or renew the copy, and return the copy's folder."""
    if (folder / FOLDER).exists():
        raise DestinationError(f"{folder}: holds a training, expected a copy of {source}. Move it")
    config, facts = read_config(source), read_facts(source)
    weights = source / WEIGHTS_FILE if isinstance(source, Path) else fetch_weights(source)
    atomic.make_folder(folder)
    write_config(folder, config)
    atomic.write_json(folder / RUN_FILE, asdict(replace(facts, shards=published_address(facts.shards))))
    with weights.open("rb") as file, atomic.writing(folder / WEIGHTS_FILE) as copy:
        shutil.copyfileobj(file, copy, 1 << 20)
    message(f"{source}: weights in {folder}")
    return folder


def fetch_weights(run: StorePath) -> Path:
    """Return the local copy of a run's weights, through the cache of remote files.

    Raises:
        CheckpointError: the repository holds no weights.
        StoreError: the hub does not answer, or refuses.
    """
    path = run / WEIGHTS_FILE
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise CheckpointError(f"{run}: {WEIGHTS_FILE} is missing, expected weights of `gqn push`") from None
    return open_cache().get(path, FileRow(name=WEIGHTS_FILE, bytes=size, sha256=None))


def is_pulled(run: Path) -> bool:
    """Return whether a folder holds the weights of a pushed run instead of checkpoints."""
    return (run / WEIGHTS_FILE).is_file() and not (run / FOLDER).exists()


def published_address(shards: str) -> str:
    """Return the address of a dataset if others can use it: on the hub, or rendered; else an empty string.

    Local paths and the names of buckets and servers are private.
    """
    path = parse_dataset_path(shards) if shards else Path()
    public = isinstance(path, RenderAddress) or (isinstance(path, StorePath) and path.repository is not None)
    return str(path) if public else ""
