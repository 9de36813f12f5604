"""A dataset opened for reading: scenes by number, for any container, without torch.

    scenes = gqn_data.open("data/zarr/rooms_ring_camera")
    scenes[7].frames     # decoded now: uint8 (views, height, width, 3)
    scenes.cameras       # float32 (scenes, views, 5)

Imports `formats`, `manifest`, `scene`, `stores`.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import ManifestError, OptionError, SourceMissing, UnknownName
from gqn_data.formats import FORMATS
from gqn_data.formats.contract import Opener, OpenShard, ShardLocation
from gqn_data.io.paths import AnyPath, StorePath, parse_path
from gqn_data.schema.catalog import SPLITS, Split
from gqn_data.schema.manifest import MANIFEST_FILE, Manifest, ShardRow, read_manifest
from gqn_data.schema.scene import Scene
from gqn_data.sources.npy_mirror import is_mirror


class Dataset(Sequence[Scene]):
    """The scenes of one split, in source order. Made by `open_dataset`.

    Args:
        folder: of the dataset.
        manifest: its manifest.
        split: which split.
        index_folder: where indexes lie, if not in `folder`.

    Raises:
        ManifestError: the manifest names a container of another version.
    """

    def __init__(self, folder: AnyPath, manifest: Manifest, split: Split, index_folder: AnyPath | None = None) -> None:
        if manifest.format not in FORMATS:
            raise ManifestError(
                f"{folder / MANIFEST_FILE}: format {manifest.format[:100]!r}, expected {', '.join(FORMATS)}: written "
                "by another version, or damaged; copy or convert the dataset again"
            )
        self.folder = folder
        self.manifest = manifest
        self.split: Split = split
        self.layout = manifest.layout
        self._index_folder = index_folder
        row = manifest.splits[split]
        self._scenes = row.scenes
        self._shards = row.shards
        self._per_shard = row.scenes_per_shard
        self._first = [0, *accumulate(shard.scenes for shard in row.shards)]
        self._open: dict[int, OpenShard] = {}
        self._opener: Opener | None = None

    def __len__(self) -> int:
        return self._scenes

    def __getitem__(self, scene: int) -> Scene:  # type: ignore[override]  # slices would read many scenes at once
        """One scene; its views are decoded when asked for.

        Raises:
            IndexError: there is no scene of that number.
            TypeError: not a number; a slice would read many scenes at once.
        """
        if isinstance(scene, slice):
            raise TypeError("scenes are read one by one: [scenes[i] for i in range(start, stop)]")
        shard, within = self.locate(scene)
        return self.shard(shard).scene(within)

    def __iter__(self) -> Iterator[Scene]:
        return (self[scene] for scene in range(len(self)))

    def __repr__(self) -> str:
        layout = self.layout
        return (
            f"<{self.manifest.scene_set} {self.split}: {len(self)} scenes of {layout.views} views, "
            f"{layout.width}x{layout.height}, {self.manifest.format}, {self.manifest.origin.kind}>"
        )

    def locate(self, scene: int) -> tuple[int, int]:
        """The number of the shard that holds a scene, and the scene's number in it.

        Raises:
            IndexError: there is no scene of that number.
        """
        if scene < 0:
            scene += self._scenes
        if not 0 <= scene < self._scenes:
            raise IndexError(f"scene {scene} of {self._scenes}")
        if self._per_shard:
            return divmod(scene, self._per_shard)
        shard = bisect.bisect_right(self._first, scene) - 1
        return shard, scene - self._first[shard]

    @property
    def shards(self) -> tuple[ShardRow, ...]:
        """The rows of the split's shards, in source order."""
        return self._shards

    @property
    def is_by_view(self) -> bool:
        """Whether a view can be read without the others of its scene."""
        return self.manifest.frames.encoding not in FORMATS[self.manifest.format].views_together

    def read_through(self, opener: Opener) -> None:
        """From now on opens files through `opener`, such as one that keeps local copies."""
        self._opener = opener
        self._open.clear()

    def shard(self, number: int) -> OpenShard:
        """A shard of the split, opened."""
        shard = self._open.get(number)
        if shard is None:
            row = self._shards[number]
            place = ShardLocation(
                folder=self.folder,
                split=self.split,
                number=number,
                first_scene=self._first[number],
                scenes=row.scenes,
                scenes_per_shard=self._per_shard,
                frames=self.manifest.frames,
                layout=self.layout,
                index_folder=self._index_folder,
                opener=self._opener,
            )
            kind = FORMATS[self.manifest.format]
            found, expected = tuple(file.name for file in row.files), kind.names(place)
            if found != expected and expected:
                raise ManifestError(
                    f"{self.folder}: shard {number} of {self.split} has the files {', '.join(found)}, "
                    f"expected {', '.join(expected)}; copy or convert the dataset again"
                )
            shard = self._open.setdefault(number, kind.open_shard(place, row))  # one for all threads
        return shard

    def keep_open(self, shards: Collection[int]) -> None:
        """Lets go of the files of all other shards, where they may be local copies of remote ones.

        One that the cache has removed takes room on the disk for as long as anybody has it open.
        """
        if self._opener is not None:
            for number in [*self._open]:
                if number not in shards:
                    self._open.pop(number, None)  # threads may share this dataset; who reads from one still holds it

    def cameras_of(self, scene: int) -> NDArray[np.float32]:
        """The raw cameras of one scene: (views, camera numbers)."""
        shard, within = self.locate(scene)
        return self.shard(shard).cameras(within)

    def decode_into(self, scene: int, views: Sequence[int], out: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Fills the first rows of `out`, uint8 (rows, height, width, 3), with the frames of those views of a scene.

        Returns all raw cameras of the scene: float32 (views, camera numbers).
        """
        shard, within = self.locate(scene)
        return self.shard(shard).decode_into(within, views, out)

    @cached_property
    def cameras(self) -> NDArray[np.float32]:
        """The raw cameras of all scenes: float32 (scenes, views, camera numbers); read once, kept in memory."""
        parts = [self.shard(number).all_cameras() for number in range(len(self._shards))]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @property
    def fingerprint(self) -> str:
        """Tells scenes apart, not containers: equal for all containers of the same scenes in the same order."""
        return self.manifest.fingerprint(self.split)


def open_dataset(path: str | os.PathLike[str] | StorePath, split: Split | None = None) -> Dataset:
    """The scenes of one split of a dataset, or of a raw folder that was indexed.

    Args:
        path: the folder or URL that holds `manifest.json`; or `train` or `test` below it.
        split: `train` or `test`; None for the one that the path names, else for `train` if it is there.

    Raises:
        OptionError: the path names one split and `split` the other.
        SourceMissing: no such folder, or no dataset in it.
        ManifestError: the manifest cannot be used, or has no such split.
        UnknownName: a split of another name.
    """
    folder = parse_path(path)
    if split is not None and split not in SPLITS:
        raise UnknownName("split", split, SPLITS)
    if not (folder / MANIFEST_FILE).exists() and folder.name in SPLITS and (folder.parent / MANIFEST_FILE).exists():
        named: Split = "train" if folder.name == "train" else "test"
        if split not in (None, named):  # to train on the split that the user did not point at would go unnoticed
            raise OptionError(f"{folder}: the path names the split {named}, {split} is asked for; give {folder.parent}")
        split, folder = named, folder.parent
    if not (folder / MANIFEST_FILE).exists():
        raise SourceMissing(f"{folder}: {_why_no_dataset(folder)}")
    manifest = read_manifest(folder)
    if split is None:
        split = "train" if "train" in manifest.splits else next(iter(manifest.splits))
    if split not in manifest.splits:
        raise ManifestError(f"{folder}: has no split {split!r}, only {', '.join(manifest.splits)}")
    return Dataset(folder, manifest, split)


open = open_dataset  # noqa: A001  `gqn_data.open`


def _why_no_dataset(folder: AnyPath) -> str:
    if isinstance(folder, StorePath):
        return f"no {MANIFEST_FILE} there, so no dataset: give the URL of the folder that holds it"
    if not folder.exists():
        return "no such folder"
    if any(folder.glob("*/*.tfrecord")) or any(folder.glob("*.tfrecord")):
        return f"TFRecords without an index; make one with: gqn-data index {folder}"
    if is_mirror(folder):
        return f"arrays of the numpy mirror; convert them first: gqn-data convert {folder}"
    below = sorted(path.parent for path in folder.glob(f"*/*/{MANIFEST_FILE}"))
    if below:
        return f"no dataset but a data root; did you mean {below[0]}?"
    return f"no {MANIFEST_FILE}, so no dataset: a conversion that did not end, perhaps; run it again"
