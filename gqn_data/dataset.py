"""Random access to the scenes of a dataset, for any container and without torch.

Example::

    scenes = gqn_data.open("data/zarr/rooms_ring_camera")
    scenes[7].frames     # decoded on access: uint8 (views, height, width, 3)
    scenes.cameras       # float32 (scenes, views, 5)
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import ManifestError, OptionError, SourceMissing, UnknownName
from gqn_data.formats import FORMATS
from gqn_data.formats.contract import Opener, OpenShard, ShardLocation
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath, DatasetPath, RenderAddress, StorePath, parse_dataset_path
from gqn_data.sampling.permutation import ENDLESS
from gqn_data.schema.catalog import SCENE_SETS, SPLITS, Split
from gqn_data.schema.manifest import MANIFEST_FILE, Manifest, ShardRow, read_manifest
from gqn_data.schema.scene import Scene
from gqn_data.sources.npy_mirror import is_mirror

if TYPE_CHECKING:
    from gqn_data.render.stream import Stream


def identity_of(folder: DatasetPath) -> tuple[int, ...] | None:
    """Return what distinguishes the dataset in a local folder from one that replaces it; None without a manifest."""
    if not isinstance(folder, Path):
        return None
    try:
        found = (folder / MANIFEST_FILE).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class Dataset(Sequence[Scene]):
    """Sequence of the scenes of one split, in source order. Use `open_dataset` to create one.

    Args:
        folder: folder of the dataset; a relative path counts from the current working directory, also later. The
            address of scenes that are rendered on access, in `RenderedDataset`.
        manifest: manifest of the dataset.
        split: `train` or `test`.
        index_folder: folder of the indexes; None for `folder`.

    Raises:
        ManifestError: the container is unknown to this version.
    """

    def __init__(
        self, folder: DatasetPath, manifest: Manifest, split: Split, index_folder: AnyPath | None = None
    ) -> None:
        if not isinstance(folder, RenderAddress) and manifest.format not in FORMATS:
            raise ManifestError(
                f"{folder / MANIFEST_FILE}: format is {manifest.format[:100]!r}, expected one of {', '.join(FORMATS)}. "
                "Copy or convert the dataset again"
            )
        self.folder: DatasetPath = (
            folder.absolute()
        )  # files are opened later, when the working directory may have changed
        self.manifest = manifest
        self.split: Split = split
        self.layout = manifest.layout
        self._index_folder = index_folder and index_folder.absolute()
        row = manifest.splits[split]
        self._scenes = row.scenes
        self._shards = row.shards
        self._per_shard = row.scenes_per_shard
        self._first = [0, *accumulate(shard.scenes for shard in row.shards)]
        self._open: dict[int, OpenShard] = {}
        self._opener: Opener | None = None
        self._identity = identity_of(self.folder)

    def __len__(self) -> int:
        return self._scenes

    def __getitem__(self, scene: int) -> Scene:  # type: ignore[override]  # slices would read many scenes at once
        """Return one scene, whose views are decoded on access. Negative indices count from the end.

        Raises:
            IndexError: the index is out of range.
            TypeError: `scene` is a slice, which would read many scenes at once.
        """
        if isinstance(scene, slice):
            raise TypeError("found a slice, expected an integer. Use [scenes[i] for i in range(start, stop)]")
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
        """Return (shard, index in the shard) of a scene. Negative indices count from the end.

        Raises:
            IndexError: the index is out of range.
        """
        if not -self._scenes <= scene < self._scenes:
            raise IndexError(f"scene {scene} is out of range for {self.split} of {self._scenes} scenes")
        if scene < 0:
            scene += self._scenes
        if self._per_shard:
            return divmod(scene, self._per_shard)
        shard = bisect.bisect_right(self._first, scene) - 1
        return shard, scene - self._first[shard]

    @property
    def is_endless(self) -> bool:
        """Whether the scenes are endless, so that `len` raises."""
        return False

    def prepare(self) -> None:
        """Do what workers would otherwise repeat, before they are started."""

    @property
    def shards(self) -> tuple[ShardRow, ...]:
        """Manifest rows of the shards, in source order."""
        return self._shards

    @property
    def is_by_view(self) -> bool:
        """Whether a view can be read without the other views of its scene."""
        return self.manifest.frames.encoding not in FORMATS[self.manifest.format].whole_scene_encodings

    def read_through(self, opener: Opener) -> None:
        """Open files through `opener` from now on, for example through a cache of local copies."""
        self._opener = opener
        self._open.clear()

    def shard(self, number: int) -> OpenShard:
        """Return a shard of the split, opened."""
        shard = self._open.get(number)
        if shard is None:
            row, folder = self._shards[number], self.folder
            assert not isinstance(folder, RenderAddress)  # noqa: S101  `RenderedDataset` has its own shard
            location = ShardLocation(
                folder=folder,
                split=self.split,
                number=number,
                first_scene=self._first[number],
                scenes=row.scenes,
                scenes_per_shard=self._per_shard,
                frames=self.manifest.frames,
                layout=self.layout,
                index_folder=self._index_folder,
                opener=self._opener,
                guard=self._check_identity if self._identity else None,
            )
            kind = FORMATS[self.manifest.format]
            found, expected = tuple(file.name for file in row.files), () if kind.pieces else kind.names(location)
            if found != expected and expected:
                raise ManifestError(
                    f"{self.folder}: shard {number} of {self.split} has the files {', '.join(found)}, "
                    f"expected {', '.join(expected)}. Copy or convert the dataset again"
                )
            shard = self._open.setdefault(number, kind.open_shard(location, row))  # shared by threads
        return shard

    def _check_identity(self) -> None:
        """Raise if another dataset has taken the place of this one.

        A manifest that was written again with the same content, as by another run of `index`, is accepted.

        Raises:
            ManifestError: the manifest was replaced or removed.
        """
        found = identity_of(self.folder)
        assert not isinstance(self.folder, RenderAddress)  # noqa: S101  only folders have one
        if found != self._identity and found is not None and read_manifest(self.folder) == self.manifest:
            self._identity = found
        elif found != self._identity:
            raise ManifestError(f"{self.folder}: the dataset was replaced while it was in use. Open it again")

    def keep_open(self, shards: Collection[int]) -> None:
        """Close the files of all other shards, if files are opened through an opener.

        A local copy that the cache has removed occupies the disk until it is closed.
        """
        if self._opener is not None:
            for number in [*self._open]:
                if number not in shards:
                    self._open.pop(number, None)  # a thread that is reading from it keeps it open

    def cameras_of(self, scene: int) -> NDArray[np.float32]:
        """Return the raw cameras of one scene: float32 (views, camera fields)."""
        shard, within = self.locate(scene)
        return self.shard(shard).cameras(within)

    def decode_into(self, scene: int, views: Sequence[int], out: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Decode the frames of some views of a scene into the first rows of `out`.

        Args:
            scene: index of the scene.
            views: indices of the views, in the order of the rows.
            out: uint8 (rows, height, width, 3).

        Returns:
            The raw cameras of all views of the scene: float32 (views, camera fields).
        """
        shard, within = self.locate(scene)
        return self.shard(shard).decode_into(within, views, out)

    @cached_property
    def cameras(self) -> NDArray[np.float32]:
        """Raw cameras of all scenes: float32 (scenes, views, camera fields). Read once and kept in memory."""
        parts = [self.shard(number).all_cameras() for number in range(len(self._shards))]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @property
    def fingerprint(self) -> str:
        """Hash of the scenes and their order. Containers of the same scenes have the same fingerprint."""
        return self.manifest.fingerprint(self.split)


class RenderedDataset(Dataset):
    """Sequence of scenes that are rendered on access. Use `open_dataset` to create one.

    Args:
        stream: the scenes.
        split: `train` or `test`.

    Raises:
        OptionError: test scenes are endless. One would not know which scenes a result was measured on.
    """

    def __init__(self, stream: Stream, split: Split) -> None:
        if split == "test" and stream.scenes is None:
            raise OptionError(
                f"{stream.address}: test scenes are endless, expected a number: {stream.address.bounded(1000)}"
            )
        super().__init__(stream.address, stream.manifest, split)
        self._stream = stream

    def __len__(self) -> int:
        """Return the number of scenes.

        Raises:
            EndlessError: they are endless. It is a `TypeError`, as for any object without a length.
        """
        if self.is_endless:
            from gqn_data.render.stream import no_length

            raise no_length(self._stream.address)
        return self._scenes

    def __iter__(self) -> Iterator[Scene]:
        return (self[scene] for scene in range(self._scenes))

    def __repr__(self) -> str:
        parameters = self._stream.parameters
        count = "endless" if self.is_endless else f"{len(self)}"
        size = parameters.frame_size
        return (
            f"<{parameters.scene_set} {self.split}: {count} scenes of {parameters.views} views, {size}x{size}, render>"
        )

    @property
    def is_endless(self) -> bool:
        """Whether the scenes are endless, so that `len` raises."""
        return self._scenes == ENDLESS

    def prepare(self) -> None:
        """Compile the ray caster, unless its machine code is on the disk."""
        from gqn_data.render.stream import warm_up_stream

        warm_up_stream(self._stream)

    @property
    def is_by_view(self) -> bool:
        """True: a view is rendered without the other views of its scene."""
        return True

    def shard(self, number: int) -> OpenShard:
        """Return the only shard, which renders its scenes."""
        shard = self._open.get(number)
        if shard is None:
            from gqn_data.render.stream import RenderedShard

            shard = self._open[number] = RenderedShard(stream=self._stream, split=self.split)
        return shard


def open_dataset(path: str | os.PathLike[str] | StorePath | RenderAddress, split: Split | None = None) -> Dataset:
    """Open one split of a dataset, of an indexed raw folder, or of a `render:` address.

    Args:
        path: folder or URL that contains `manifest.json`, or `train` or `test` below it; or the address of scenes that
            are rendered on access, such as `render:rooms_ring_camera,scenes=1000`.
        split: `train` or `test`; None for the split that `path` names, else `train` if it exists.

    Raises:
        OptionError: `path` names one split and `split` the other; or an option of an address is invalid.
        SourceMissing: the folder does not exist, or is not a dataset.
        ManifestError: the manifest is invalid, or does not have the split.
        UnknownName: `split` is neither `train` nor `test`.
    """
    folder = parse_dataset_path(path)
    if split is not None and split not in SPLITS:
        raise UnknownName("split", split, SPLITS)
    if isinstance(folder, RenderAddress):
        from gqn_data.render.stream import open_stream  # numba is an extra

        return RenderedDataset(open_stream(folder), split or "train")
    if (
        not atomic.is_present(folder / MANIFEST_FILE)
        and folder.name in SPLITS
        and atomic.is_present(folder.parent / MANIFEST_FILE)
    ):
        named: Split = "train" if folder.name == "train" else "test"
        if split not in (None, named):  # training on the wrong split would go unnoticed
            raise OptionError(f"{folder}: the path names the split {named}, expected {split}. Pass {folder.parent}")
        split, folder = named, folder.parent
    if not atomic.is_present(folder / MANIFEST_FILE):
        raise SourceMissing(f"{folder}: {_why_no_dataset(folder)}")
    before = identity_of(folder)
    manifest = read_manifest(folder)
    if split is None:
        split = "train" if "train" in manifest.splits else next(iter(manifest.splits))
    if split not in manifest.splits:
        raise ManifestError(f"{folder}: split {split!r} is missing, expected {' or '.join(manifest.splits)}")
    dataset = Dataset(folder, manifest, split)
    if identity_of(folder) != before:
        raise ManifestError(f"{folder}: the dataset was replaced while it was opened. Open it again")
    return dataset


open = open_dataset  # noqa: A001  `gqn_data.open`


def _why_no_dataset(folder: AnyPath) -> str:
    if isinstance(folder, StorePath):
        return f"{MANIFEST_FILE} is missing. Pass the URL of the folder that contains it"
    if not folder.exists():
        if folder.name in SCENE_SETS and folder.parent.name == "raw":  # the name of a set, without files of it
            return f"no such folder. Make the set with gqn-data render {folder.name} --scenes N, or download it"
        beside = [path.name for path in folder.parent.glob("*")] if folder.parent.is_dir() else []
        near = get_close_matches(folder.name, beside, 1)
        return f"no such folder. Did you mean {folder.parent / near[0]}?" if near else "no such folder. Check the path"
    if any(folder.glob("*/*.tfrecord")) or any(folder.glob("*.tfrecord")):
        return f"found TFRecords without an index. Run: gqn-data index {folder}"
    if is_mirror(folder):
        return f"found arrays of the numpy mirror, expected a dataset. Run: gqn-data convert {folder}"
    below = sorted(path.parent for path in folder.glob(f"*/*/{MANIFEST_FILE}"))
    if below:
        return f"found a data root, expected a dataset. Did you mean {below[0]}?"
    return f"{MANIFEST_FILE} is missing. If a conversion was interrupted, rerun it"
