"""The commands that fetch damaged source files again. Imports `bucket`, `origin`, `storage`."""

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

A_MIRROR = "MIRROR"


def commands(folder: AnyPath, scene_set: SceneSet, damaged: Iterable[str]) -> tuple[str, ...]:
    """A command a split, as a user types it; none where nothing is damaged, or nothing could be fetched to there.

    Scenes that were imported come from where they came from; rendered ones from the mirror that `$GQN_BASE_URL` names,
    else the address is left open.

    Args:
        folder: the raw folder.
        scene_set: the set that it holds.
        damaged: the names of source files, from the folder; others are passed over.
    """
    found = set(damaged)
    numbers = {
        split: [number for number in scene_set.split(split).numbers if scene_set.source_name(split, number) in found]
        for split in SPLITS
    }
    place = _data_root_of(folder, scene_set)
    if place is None or not any(numbers.values()):
        return ()
    options = _base_url(folder)
    if options is None:
        return ()
    if place != atomic.data_root().absolute():
        options += ["--root", str(place)]
    found_in = {split: format_files(those) for split, those in numbers.items() if those}
    return tuple(
        shlex.join(["gqn-data", "download", scene_set.name, "--split", split, "--files", files, "--recheck", *options])
        for split, files in found_in.items()
    )


def _data_root_of(folder: AnyPath, scene_set: SceneSet) -> Path | None:
    """The data root whose raw folder of the set that is; None for any other folder, which download does not know."""
    if not isinstance(folder, Path):
        return None
    whole = folder.absolute()
    return whole.parents[1] if whole.parts[-2:] == ("raw", scene_set.name) else None


def _base_url(folder: AnyPath) -> list[str] | None:
    """The option that names where the scenes came from; None where nobody knows."""
    try:
        origin = read_origin(folder)
    except OriginError:
        return None
    if origin.kind == "deepmind" or "bucket" in origin.details:
        return []
    if origin.kind == "rendered":
        return [] if os.environ.get(BASE_URL) else ["--base-url", A_MIRROR]
    came_from = origin.details.get("from")
    return ["--base-url", came_from] if isinstance(came_from, str) else None
