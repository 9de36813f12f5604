"""Where the scenes of a conversion come from: a folder that is there, or a server that source files are fetched from.

Imports `convert`, `fetched`, `fetching`, `source_files`.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from gqn_data.convert.destination import WORK_FOLDER, Conversion, Say
from gqn_data.convert.from_bucket import convert_from_bucket
from gqn_data.convert.plan import Options
from gqn_data.convert.run import convert
from gqn_data.download.bucket import Bucket
from gqn_data.download.store_remote import StoreRemote
from gqn_data.errors import OptionError, SourceMissing
from gqn_data.io.paths import AnyPath, StorePath
from gqn_data.schema.catalog import SPLITS, SceneSet
from gqn_data.schema.manifest import MANIFEST_FILE
from gqn_data.sources.npy_mirror import is_mirror
from gqn_data.sources.raw_folder import locate, open_raw_folder


@dataclass(frozen=True, kw_only=True)
class ResolvedSource:
    """Where scenes come from.

    Attributes:
        folder: a dataset or a raw folder; where files are fetched, the raw folder that they would have.
        scene_set: the set.
        bucket: where source files are fetched from; None where they are in the folder.
        is_folder: whether that is somebody's own folder in a store: what is there of the set is all that is wanted.
    """

    folder: AnyPath
    scene_set: SceneSet
    bucket: Bucket | None = None
    is_folder: bool = False


def locate_source(
    source: str,
    root: AnyPath,
    out: AnyPath,
    set_name: str | None,
    *,
    base_url: str | None = None,
    fetch: bool = False,
) -> ResolvedSource:
    """Where the scenes come from that a user names.

    A set that is named is fetched where none of its source files are in the data root, where a conversion that
    fetched them was cut off, or where fetching is asked for; what is there is not fetched again.

    Args:
        source: a path or URL, or the name of a set.
        root: the data root.
        out: the data root for what is written.
        set_name: what `--set` said.
        base_url: of a mirror.
        fetch: whether what is missing is to be fetched, though some source files are there.

    Raises:
        OptionError: a path is given, and fetching is asked for.
        SourceMissing, UnknownSceneSet: as `locate`.
    """
    folder, scene_set = locate(source, root, set_name)
    named = folder == root / "raw" / scene_set.name
    if isinstance(folder, StorePath):
        if (folder / MANIFEST_FILE).exists() or is_mirror(folder):
            return ResolvedSource(folder=folder, scene_set=scene_set)
        if not named or (not fetch and folder.is_dir()):
            remote = StoreRemote(folder, prefix=f"{scene_set.name}/")
            return ResolvedSource(
                folder=folder, scene_set=scene_set, bucket=Bucket(scene_set, remote=remote), is_folder=True
            )
        return ResolvedSource(folder=folder, scene_set=scene_set, bucket=Bucket(scene_set, base_url))
    if not named:
        if fetch or base_url is not None:
            raise OptionError(f"{source}: is a folder; to fetch source files, name the scene set: {scene_set.name}")
        return ResolvedSource(folder=folder, scene_set=scene_set)
    begun = (out / WORK_FOLDER / scene_set.name / "counted").is_dir()
    if fetch or base_url is not None or begun or not _has_source_files(folder, scene_set):
        return ResolvedSource(folder=folder, scene_set=scene_set, bucket=Bucket(scene_set, base_url))
    return ResolvedSource(folder=folder, scene_set=scene_set)


def _has_source_files(folder: Path, scene_set: SceneSet) -> bool:
    if (folder / MANIFEST_FILE).exists() or is_mirror(folder):
        return True
    if scene_set.split_folders and not any((folder / split).is_dir() for split in SPLITS):
        return False
    try:
        open_raw_folder(folder, scene_set)
    except SourceMissing:
        return False
    return True


def convert_source(
    supply: ResolvedSource,
    root: AnyPath,
    options: Options,
    log: Say = lambda _: None,
    *,
    files: tuple[int, ...] | None = None,
    keep_raw: bool = False,
    window: int | None = None,
    executor: Executor | None = None,
) -> list[Conversion]:
    """Converts what `locate_source` found; arguments as those of `convert_from_bucket`.

    Raises:
        OptionError: source files are to be kept in a store.
        GQNError: as `convert` and `convert_from_bucket`.
    """
    if supply.bucket is None:
        return convert(supply.folder, supply.scene_set, root, options, log, executor=executor)
    if keep_raw and isinstance(supply.folder, StorePath):
        raise OptionError(f"{supply.folder}: source files are kept on a disk; give a path with --root")
    with supply.bucket as bucket:
        return convert_from_bucket(
            bucket,
            root,
            options,
            log,
            raw_folder=supply.folder if isinstance(supply.folder, Path) else None,
            keep_raw=keep_raw,
            window=window,
            files=files,
            whole_set=not supply.is_folder,
            executor=executor,
        )
