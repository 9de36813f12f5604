"""Raw folders: source files of a scene set, found by exact name, and the scene set that a name or path means."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gqn_data.errors import SourceMissing, UnknownSceneSet
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath, DatasetPath, RenderAddress, StorePath, parse_dataset_path, parse_path
from gqn_data.schema.catalog import (
    SCENE_SETS,
    SPLITS,
    SceneSet,
    Split,
    SplitFacts,
    find_scene_set,
    is_in_catalogue,
    is_set_name,
)
from gqn_data.schema.layout import SceneLayout, layout_of
from gqn_data.schema.manifest import MANIFEST_FILE, Manifest, read_manifest
from gqn_data.schema.origin import Origin, read_origin
from gqn_data.sources.npy_mirror import is_mirror

_PARALLEL_REQUESTS = 16


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """An existing source file.

    Attributes:
        path: the file.
        name: path relative to the raw folder, with forward slashes: `train/0001-of-2160.tfrecord`.
        bytes: its size.
        expected_scenes: number of its scenes according to the catalogue.
    """

    path: AnyPath
    name: str
    bytes: int
    expected_scenes: int


@dataclass(frozen=True, kw_only=True)
class RawFolder:
    """A folder of source files.

    Attributes:
        folder: the folder, with `train/` and `test/` in it.
        scene_set: the scene set it holds.
        origin: origin of its scenes.
        files: existing source files by split, in source order.
    """

    folder: AnyPath
    scene_set: SceneSet
    origin: Origin
    files: dict[Split, tuple[SourceFile, ...]]

    @property
    def layout(self) -> SceneLayout:
        """Expected shape of every scene."""
        return layout_of(self.scene_set, self.origin)


def open_raw_folder(folder: AnyPath, scene_set: SceneSet) -> RawFolder:
    """List the source files in `folder` by DeepMind's exact names; other files are ignored.

    Raises:
        SourceMissing: the folder does not exist, or holds no source file of the scene set.
    """
    if not folder.is_dir():
        raise SourceMissing(
            f"{folder}: no such folder; pass a folder with TFRecords of {scene_set.name}, "
            "or make one with gqn-data render"
        )
    files: dict[Split, tuple[SourceFile, ...]] = {}
    for split in SPLITS:
        facts = scene_set.split(split)
        numbers = {facts.file_name(number): number for number in facts.numbers}
        found = [
            SourceFile(
                path=folder / (relative := scene_set.source_name(split, numbers[name])),
                name=relative,
                bytes=size,
                expected_scenes=facts.scenes_in_file(numbers[name]),
            )
            for name, size in _sizes(folder / split if scene_set.split_folders else folder, numbers)
        ]
        if found:
            files[split] = tuple(found)
    if not files:
        raise SourceMissing(f"{folder}: {_describe_missing(folder, scene_set)}")
    return RawFolder(folder=folder, scene_set=scene_set, origin=read_origin(folder), files=files)


def _sizes(folder: AnyPath, names: Collection[str]) -> list[tuple[str, int]]:
    """Return the given names that are files in a folder, in order, with their sizes in bytes."""
    if isinstance(folder, StorePath):
        if folder.can_be_listed:
            return [(name, size) for name, size in folder.files() if name in names]
        with ThreadPoolExecutor(_PARALLEL_REQUESTS) as threads:  # a web server, which cannot list: one request a name
            sizes = threads.map(_size, (folder / name for name in names))
            return [(name, size) for name, size in zip(names, sizes) if size is not None]
    if not atomic.is_present(folder):
        return []
    found = []
    for path in sorted(path for path in folder.glob("*.tfrecord") if path.name in names):
        if not atomic.is_present(path) or not path.is_file():
            raise SourceMissing(f"{path}: not a regular file, expected a source file. Remove or rename it")
        found.append((path.name, path.stat().st_size))
    return found


def _size(path: StorePath) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _describe_missing(folder: AnyPath, scene_set: SceneSet) -> str:
    """Describe what a folder without source files of the set holds instead, and what to do."""
    wanted = scene_set.source_name("train", scene_set.train.first)
    if atomic.is_present(folder / MANIFEST_FILE) and not read_manifest(folder).in_place:
        return "already a converted dataset, without source files; use it directly"
    if is_mirror(folder):
        return "arrays of the numpy mirror, without source files; convert them with gqn-data convert"
    if isinstance(folder, StorePath):
        return f"no source files of {scene_set.name}; expected files named like {wanted}"
    others = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.tfrecord"))
    if folder.name in SPLITS and others:
        return f"the folder of one split; pass its parent: {folder.parent}"
    if others:
        return (
            f"no source files of {scene_set.name} (named like {wanted}); found other TFRecords ({len(others)}, "
            f"first {others[0]}); pass the right set with --set"
        )
    return f"no source files; expected files named like {wanted}"


def resolve_scene_set(path: AnyPath, set_name: str | None) -> SceneSet:
    """Return the scene set called `set_name`; if None, infer it from the folder's name.

    Raises:
        UnknownSceneSet: `set_name` is unknown.
        SourceMissing: the folder's name is not the name of a scene set.
    """
    if set_name is not None:
        return find_scene_set(set_name)
    name = path.resolve().name
    try:
        return find_scene_set(name)
    except UnknownSceneSet as error:
        found = _describe_unnamed(path) if isinstance(path, Path) else None
        near = f", {error.near}" if error.near else ""
        unknown = f"cannot infer the scene set from the folder's name {name!r}{near}; pass --set NAME (gqn-data list)"
        raise SourceMissing(f"{path}: {found or unknown}") from error


def _describe_unnamed(path: Path) -> str | None:
    """Describe a path that is not the folder of a set, and what to pass instead; None if nothing is known about it."""
    if path.is_file():
        folder = path.parent.parent if path.parent.name in SPLITS else path.parent
        return f"a file, expected the folder of a set. Pass {folder}, with --set NAME if its name is not a set's"
    if path.name in SPLITS and (atomic.is_present(path.parent / MANIFEST_FILE) or any(path.glob("*.tfrecord"))):
        return f"the folder of one split, expected its parent. Pass {path.parent}"
    if (path / path.name).is_dir():
        return f"contains a folder of the same name. Pass {path / path.name}"
    datasets = [found.parent for found in sorted(path.glob(f"*/{MANIFEST_FILE}"))[:4]]
    if datasets:
        names = ", ".join(map(str, datasets[:3])) + (" ..." if len(datasets) > 3 else "")
        return f"a folder of datasets, expected one of them. Pass one: {names}"
    if any((path / split / "zarr.json").exists() or any((path / split).glob("scenes-*")) for split in SPLITS):
        return f"{MANIFEST_FILE} is missing: an unfinished conversion or copy. Convert or copy the dataset again"
    return None


def scene_set_of_manifest(manifest: Manifest) -> SceneSet:
    """Return the catalogue's scene set of a dataset; for a custom set, build it from the manifest."""
    known = SCENE_SETS.get(manifest.scene_set)
    if known is not None:
        return known
    frames = manifest.frames
    empty = SplitFacts(files=0, runs=())
    return SceneSet(
        name=manifest.scene_set,
        aliases=(),
        frame_size=frames.height,
        views=frames.views,
        context_views=max(1, frames.views - 1),
        raw_bytes=0,
        train=empty,
        test=empty,
        camera_fields=manifest.cameras.fields,
        angles=manifest.cameras.angles,
    )


def locate(source: str, root: AnyPath, set_name: str | None) -> tuple[AnyPath, SceneSet]:
    """Return the folder and the scene set that a name or path means.

    Args:
        source: path, URL, or the name or alias of a scene set; a name means its raw folder under the data root.
        root: the data root.
        set_name: value of `--set`.

    Raises:
        SourceMissing: the path does not exist, or its scene set cannot be inferred.
        UnknownSceneSet: `source` is neither a path nor the name of a scene set.
    """
    path = parse_path(source)
    if isinstance(path, StorePath) or path.exists() or os.sep in source or set_name is not None:
        if isinstance(path, Path) and not path.exists():
            raise SourceMissing(f"{path}: no such file or folder")
        if atomic.is_present(path / MANIFEST_FILE) and (set_name is None or not is_in_catalogue(set_name)):
            row = scene_set_of_manifest(read_manifest(path))
            if set_name in (None, row.name):
                return path, row
        return path, resolve_scene_set(path, set_name)
    own = None if is_in_catalogue(source) else _own_dataset(source, root)
    if own is not None:
        return own, scene_set_of_manifest(read_manifest(own))
    scene_set = find_scene_set(source)
    return root / "raw" / scene_set.name, scene_set


def _own_dataset(name: str, root: AnyPath) -> Path | None:
    """Return the first dataset of this name under a local data root, such as `data/zarr/my_photos`."""
    if not isinstance(root, Path) or not is_set_name(name):
        return None
    return next((path.parent for path in sorted(root.glob(f"*/{name}/{MANIFEST_FILE}"))), None)


def locate_source_or_dataset(
    source: str, root: AnyPath, set_name: str | None, formats: Sequence[str]
) -> tuple[AnyPath, SceneSet]:
    """Return what `locate` returns; without a raw folder, a name means the first converted one among `formats`."""
    folder, scene_set = locate(source, root, set_name)
    if isinstance(folder, StorePath) or folder.exists():
        return folder, scene_set
    return _first_converted(root, scene_set, formats) or folder, scene_set


def locate_dataset(source: str, root: AnyPath, set_name: str | None, formats: Sequence[str]) -> DatasetPath:
    """Return the folder of the dataset that a name or path means, or a `render:` address.

    Args:
        source: path, URL, `render:` address, or the name or alias of a scene set; a name means its first existing
            converted folder under the data root, else its raw folder.
        root: the data root.
        set_name: value of `--set`.
        formats: containers to look for, in order of preference.

    Raises:
        SourceMissing: the path does not exist.
        UnknownSceneSet: `source` is neither a path nor the name of a scene set.
    """
    path = parse_dataset_path(source)
    if isinstance(path, StorePath | RenderAddress) or path.exists():
        return path
    folder, scene_set = locate(source, root, set_name)
    if atomic.is_present(folder / MANIFEST_FILE) and not is_in_catalogue(scene_set.name):
        return folder
    return _first_converted(root, scene_set, formats) or folder


def unindexed(folder: AnyPath, set_name: str | None) -> RawFolder | None:
    """Return the raw folder at a path on a disk if it is still without an index; else None."""
    if not isinstance(folder, Path) or not folder.is_dir() or atomic.is_present(folder / MANIFEST_FILE):
        return None
    try:
        return open_raw_folder(folder, resolve_scene_set(folder, set_name))
    except SourceMissing:
        return None  # opening it as a dataset says what is wrong


def _first_converted(root: AnyPath, scene_set: SceneSet, formats: Sequence[str]) -> AnyPath | None:
    converted = (converted_folder(root, name, scene_set) for name in formats)
    return next((folder for folder in converted if atomic.is_present(folder / MANIFEST_FILE)), None)


def converted_folder(root: AnyPath, format_name: str, scene_set: SceneSet) -> AnyPath:
    """Return the folder of a converted scene set under a data root."""
    return atomic.data_root(root) / format_name / scene_set.name
