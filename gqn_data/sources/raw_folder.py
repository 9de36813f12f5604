"""Raw folders: the source files of a scene set, found by their exact names, and the set that a path stands for.

Imports `errors`, `layout`, `manifest`, `origin`, `scene_sets`, `storage`, `stores`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gqn_data.errors import SourceMissing, UnknownSceneSet
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath, StorePath, parse_path
from gqn_data.schema.catalog import SCENE_SETS, SPLITS, SceneSet, Split, SplitFacts, find_scene_set, is_in_catalogue
from gqn_data.schema.layout import SceneLayout, layout_of
from gqn_data.schema.manifest import MANIFEST_FILE, Manifest, read_manifest
from gqn_data.schema.origin import Origin, read_origin
from gqn_data.sources.npy_mirror import is_mirror

_QUESTIONS_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One source file that is there.

    Attributes:
        path: of the file.
        name: from the raw folder, with forward slashes: `train/0001-of-2160.tfrecord`.
        bytes: its size.
        expected_scenes: what the catalogue announces for it.
    """

    path: AnyPath
    name: str
    bytes: int
    expected_scenes: int


@dataclass(frozen=True, kw_only=True)
class RawFolder:
    """A folder of source files.

    Attributes:
        folder: holds `train/` and `test/`.
        scene_set: the set that it holds.
        origin: where its scenes come from.
        files: the source files that are there, by split, in source order.
    """

    folder: AnyPath
    scene_set: SceneSet
    origin: Origin
    files: dict[Split, tuple[SourceFile, ...]]

    @property
    def layout(self) -> SceneLayout:
        """What every scene should look like."""
        return layout_of(self.scene_set, self.origin)


def open_raw_folder(folder: AnyPath, scene_set: SceneSet) -> RawFolder:
    """The source files below `folder`, by DeepMind's exact names; anything else there is left alone.

    Raises:
        SourceMissing: there is no such folder, or no source file of the set in it.
    """
    if not folder.is_dir():
        raise SourceMissing(
            f"{folder}: no such folder; give the path of a folder of {scene_set.name}'s TFRecords, "
            "or make some with gqn-data render"
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
        raise SourceMissing(f"{folder}: {_nothing_found(folder, scene_set)}")
    return RawFolder(folder=folder, scene_set=scene_set, origin=read_origin(folder), files=files)


def _sizes(folder: AnyPath, names: Collection[str]) -> list[tuple[str, int]]:
    """Those of the names that are files in a folder, in order, and their sizes."""
    if isinstance(folder, StorePath):
        if folder.can_be_listed:
            return [(name, size) for name, size in folder.files() if name in names]
        with ThreadPoolExecutor(_QUESTIONS_AT_ONCE) as threads:  # a web server: asked for each name
            sizes = threads.map(_size, (folder / name for name in names))
            return [(name, size) for name, size in zip(names, sizes) if size is not None]
    paths = sorted(path for path in folder.glob("*.tfrecord") if path.name in names)
    return [(path.name, path.stat().st_size) for path in paths if path.is_file()]


def _size(path: StorePath) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _nothing_found(folder: AnyPath, scene_set: SceneSet) -> str:
    wanted = scene_set.source_name("train", scene_set.train.first)
    if (folder / MANIFEST_FILE).exists() and not read_manifest(folder).in_place:
        return "a dataset, and no source files; it is ready as it is"
    if is_mirror(folder):
        return "arrays of the numpy mirror, and no source files; convert them as they are"
    if isinstance(folder, StorePath):
        return f"no source files of {scene_set.name}; expected files named like {wanted} below it"
    others = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.tfrecord"))
    if folder.name in SPLITS and others:
        return f"holds one split; give the folder above it: {folder.parent}"
    if others:
        return (
            f"no source file of {scene_set.name} (named like {wanted}), but {len(others)} other TFRecords, "
            f"{others[0]} first; name the right set with --set"
        )
    return f"no source files; expected files named like {wanted} below it"


def set_of(path: AnyPath, given: str | None) -> SceneSet:
    """The scene set of a path: the one given, else the one that the folder's name tells.

    Raises:
        UnknownSceneSet: the name given is unknown, or the folder's name tells nothing.
    """
    if given is not None:
        return find_scene_set(given)
    name = path.resolve().name
    try:
        return find_scene_set(name)
    except UnknownSceneSet as error:
        raise SourceMissing(
            f"{path}: the folder's name {name!r} tells no scene set; name it with --set ({error})"
        ) from error


def set_of_manifest(manifest: Manifest) -> SceneSet:
    """The row of a dataset's set: the catalogue's, or for a set of somebody's own what its manifest says."""
    known = SCENE_SETS.get(manifest.scene_set)
    if known is not None:
        return known
    frames = manifest.frames
    none = SplitFacts(files=0, runs=())
    return SceneSet(
        name=manifest.scene_set,
        aliases=(),
        frame_size=frames.height,
        views=frames.views,
        context_views=max(1, frames.views - 1),
        raw_bytes=0,
        train=none,
        test=none,
        camera_fields=manifest.cameras.fields,
        angles=manifest.cameras.angles,
    )


def locate(source: str, root: AnyPath, given: str | None) -> tuple[AnyPath, SceneSet]:
    """The folder and the set that a user means by a name or a path.

    Args:
        source: a path or URL, or the name or alias of a set, which stands for its raw folder under the data root.
        root: the data root.
        given: what `--set` said.

    Raises:
        SourceMissing: a path that is not there, or whose set cannot be told.
        UnknownSceneSet: neither a path nor a name.
    """
    path = parse_path(source)
    if isinstance(path, StorePath) or path.exists() or os.sep in source or given is not None:
        if isinstance(path, Path) and not path.exists():
            raise SourceMissing(f"{path}: no such file or folder")
        if (path / MANIFEST_FILE).exists() and (given is None or not is_in_catalogue(given)):
            row = set_of_manifest(read_manifest(path))
            if given in (None, row.name):
                return path, row
        return path, set_of(path, given)
    scene_set = find_scene_set(source)
    return root / "raw" / scene_set.name, scene_set


def locate_either(source: str, root: AnyPath, given: str | None, formats: Sequence[str]) -> tuple[AnyPath, SceneSet]:
    """The same as `locate`, but a name stands for a converted folder where there is no raw one; as `locate_dataset`."""
    folder, scene_set = locate(source, root, given)
    if isinstance(folder, StorePath) or folder.exists():
        return folder, scene_set
    return _first_converted(root, scene_set, formats) or folder, scene_set


def locate_dataset(source: str, root: AnyPath, given: str | None, formats: Sequence[str]) -> AnyPath:
    """The dataset that a user wants to read, by a name or a path.

    Args:
        source: a path or URL, or the name or alias of a set, which stands for the first of its converted folders that
            there is under the data root, and for its raw folder where there is none.
        root: the data root.
        given: what `--set` said.
        formats: containers, in the order in which they are looked for.

    Raises:
        SourceMissing: a path that is not there.
        UnknownSceneSet: neither a path nor a name.
    """
    path = parse_path(source)
    if isinstance(path, StorePath) or path.exists():
        return path
    folder, scene_set = locate(source, root, given)
    return _first_converted(root, scene_set, formats) or folder


def _first_converted(root: AnyPath, scene_set: SceneSet, formats: Sequence[str]) -> AnyPath | None:
    converted = (converted_folder(root, name, scene_set) for name in formats)
    return next((folder for folder in converted if (folder / MANIFEST_FILE).exists()), None)


def converted_folder(root: AnyPath, format_name: str, scene_set: SceneSet) -> AnyPath:
    """Where a converted set lies below a data root."""
    return atomic.data_root(root) / format_name / scene_set.name
