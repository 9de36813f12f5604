"""Resolve the source that a user names: an existing folder, or a server to download source files from."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from gqn_data.convert.destination import WORK_FOLDER, Conversion, Log
from gqn_data.convert.from_bucket import convert_from_bucket
from gqn_data.convert.plan import Options
from gqn_data.convert.run import convert
from gqn_data.download.bucket import Bucket
from gqn_data.download.store_remote import StoreRemote
from gqn_data.errors import OptionError, SourceMissing
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath, StorePath
from gqn_data.schema.catalog import SPLITS, SceneSet
from gqn_data.schema.manifest import MANIFEST_FILE
from gqn_data.sources.npy_mirror import is_mirror
from gqn_data.sources.raw_folder import locate, open_raw_folder


@dataclass(frozen=True, kw_only=True)
class ResolvedSource:
    """Resolved source of a conversion.

    Attributes:
        folder: dataset or raw folder; for downloads, the raw folder that the files would be in.
        scene_set: scene set of the source.
        bucket: bucket to download source files from; None if they are in the folder.
        is_folder: whether the bucket is a user's folder in a store, which may lack files of the set.
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
    """Resolve a source named by the user.

    A set given by name is downloaded if the data root lacks all of its source files, if an interrupted conversion was
    downloading it, or if `fetch` or `base_url` is given. Files in the data root are not downloaded again.

    Args:
        source: path, URL, or name of a scene set.
        root: data root.
        out: data root of the output.
        set_name: value of `--set`.
        base_url: URL of a mirror.
        fetch: download missing files even if the data root has some source files.

    Raises:
        OptionError: a download is requested for a path.
        SourceMissing: see `locate`.
        UnknownSceneSet: see `locate`.
    """
    folder, scene_set = locate(source, root, set_name)
    in_root = folder == root / "raw" / scene_set.name
    if isinstance(folder, StorePath):
        if atomic.is_present(folder / MANIFEST_FILE) or is_mirror(folder):
            return ResolvedSource(folder=folder, scene_set=scene_set)
        if not in_root or (not fetch and folder.is_dir()):
            remote = StoreRemote(folder, prefix=f"{scene_set.name}/")
            return ResolvedSource(
                folder=folder, scene_set=scene_set, bucket=Bucket(scene_set, remote=remote), is_folder=True
            )
        return ResolvedSource(folder=folder, scene_set=scene_set, bucket=Bucket(scene_set, base_url))
    if not in_root:
        if fetch or base_url is not None:
            raise OptionError(
                f"{source}: found a folder, expected the name of a scene set to download; use {scene_set.name}"
            )
        return ResolvedSource(folder=folder, scene_set=scene_set)
    interrupted = (out / WORK_FOLDER / scene_set.name / "counted").is_dir()
    if fetch or base_url is not None or interrupted or not _has_source_files(folder, scene_set):
        return ResolvedSource(folder=folder, scene_set=scene_set, bucket=Bucket(scene_set, base_url))
    return ResolvedSource(folder=folder, scene_set=scene_set)


def _has_source_files(folder: Path, scene_set: SceneSet) -> bool:
    if atomic.is_present(folder / MANIFEST_FILE) or is_mirror(folder):
        return True
    if scene_set.split_folders and not any((folder / split).is_dir() for split in SPLITS):
        return False
    try:
        open_raw_folder(folder, scene_set)
    except SourceMissing:
        return False
    return True


def convert_source(
    source: ResolvedSource,
    root: AnyPath,
    options: Options,
    log: Log = lambda _: None,
    *,
    files: tuple[int, ...] | None = None,
    keep_raw: bool = False,
    window: int | None = None,
    executor: Executor | None = None,
) -> list[Conversion]:
    """Convert a resolved source; see `convert_from_bucket` for the arguments.

    Raises:
        OptionError: `keep_raw` with a raw folder in a store.
        GQNError: see `convert` and `convert_from_bucket`.
    """
    if source.bucket is None:
        return convert(source.folder, source.scene_set, root, options, log, executor=executor)
    if keep_raw and isinstance(source.folder, StorePath):
        raise OptionError(
            f"{source.folder}: found an object store, expected a local path to keep source files; give one with --root"
        )
    with source.bucket as bucket:
        return convert_from_bucket(
            bucket,
            root,
            options,
            log,
            raw_folder=source.folder if isinstance(source.folder, Path) else None,
            keep_raw=keep_raw,
            window=window,
            files=files,
            whole_set=not source.is_folder,
            executor=executor,
        )
