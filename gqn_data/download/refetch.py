"""Build the commands that download damaged source files again."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from gqn_data.download.bucket import BASE_URL, format_files
from gqn_data.errors import OriginError
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath
from gqn_data.schema.catalog import SPLITS, SceneSet
from gqn_data.schema.origin import read_origin

_PLACEHOLDER = "MIRROR"


def commands(folder: AnyPath, scene_set: SceneSet, damaged: Iterable[str]) -> tuple[str, ...]:
    """Return one shell command per split; empty if no file is damaged or the folder cannot be downloaded to.

    The origin decides the server: imported scenes come from their recorded address, rendered ones from the mirror
    in `$GQN_BASE_URL`. If that is unset, the command has a placeholder.

    Args:
        folder: the raw folder.
        scene_set: the set that it holds.
        damaged: names of damaged source files, relative to the folder; other names are ignored.
    """
    found = set(damaged)
    numbers = {
        split: [number for number in scene_set.split(split).numbers if scene_set.source_name(split, number) in found]
        for split in SPLITS
    }
    root = _data_root_of(folder, scene_set)
    if root is None or not any(numbers.values()):
        return ()
    options = _base_url(folder)
    if options is None:
        return ()
    if root != atomic.data_root().absolute():
        options += ["--root", str(root)]
    files_of = {split: format_files(in_split) for split, in_split in numbers.items() if in_split}
    return tuple(
        shlex.join(["gqn-data", "download", scene_set.name, "--split", split, "--files", files, "--recheck", *options])
        for split, files in files_of.items()
    )


def _data_root_of(folder: AnyPath, scene_set: SceneSet) -> Path | None:
    """Return the data root of `<root>/raw/<set>`; None for other folders, which `download` cannot write to."""
    if not isinstance(folder, Path):
        return None
    absolute = folder.absolute()
    return absolute.parents[1] if absolute.parts[-2:] == ("raw", scene_set.name) else None


def _base_url(folder: AnyPath) -> list[str] | None:
    """Return the `--base-url` option for the folder's origin; None if the origin is unknown."""
    try:
        origin = read_origin(folder)
    except OriginError:
        return None
    if origin.kind == "deepmind" or "bucket" in origin.details:
        return []
    if origin.kind == "rendered":
        return [] if os.environ.get(BASE_URL) else ["--base-url", _PLACEHOLDER]
    address = origin.details.get("from")
    return ["--base-url", address] if isinstance(address, str) else None
