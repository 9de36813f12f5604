"""Interface of a container: how its shards are written, finished and opened.

To add a container, write a module in this folder with a `FORMAT`, and list it in `formats.FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gqn_data.io.paths import AnyPath
from gqn_data.io.ranged import RangedFile
from gqn_data.schema.catalog import Split
from gqn_data.schema.layout import SceneLayout
from gqn_data.schema.manifest import Encoding, FileRow, FramesRow, Manifest, ShardRow
from gqn_data.schema.scene import Scene

# Opens a file of a dataset, given its path, its row in the manifest, and `cache_from` (see `ShardLocation.open`).
Opener = Callable[[AnyPath, FileRow, int | None], RangedFile]


@dataclass(frozen=True, kw_only=True)
class ShardLocation:
    """Location of one shard of a dataset.

    Attributes:
        folder: folder of the dataset.
        split: the split.
        number: number of the shard in the split, from 0.
        first_scene: number of its first scene in the split.
        scenes: number of its scenes.
        scenes_per_shard: number of scenes of every shard but the last; 0 for source files, which differ.
        frames: encoding of the frames.
        layout: shape of every scene.
        index_folder: folder of the indexes, if not `folder` (for source files in a read-only folder).
        opener: opens the files; None to read them in place.
        guard: called whenever a file in place was opened; raises if the dataset was replaced.
    """

    folder: AnyPath
    split: Split
    number: int
    first_scene: int
    scenes: int
    scenes_per_shard: int
    frames: FramesRow
    layout: SceneLayout
    index_folder: AnyPath | None = None
    opener: Opener | None = None
    guard: Callable[[], None] | None = None

    def open(self, row: FileRow, *, cache_from: int | None = None) -> RangedFile:
        """Open a file of the shard for ranged reads.

        Args:
            row: the file's row in the manifest.
            cache_from: offset of the part that is read repeatedly, 0 for an index; a remote file's part from there on
                is worth caching locally. None for a file without such a part.
        """
        path = self.folder / row.name
        return RangedFile(path, row.bytes, self.guard) if self.opener is None else self.opener(path, row, cache_from)


class OpenShard(Protocol):
    """Open shard; scenes are numbered from 0 within the shard."""

    def cameras(self, scene: int) -> NDArray[np.float32]:
        """Return the raw cameras of one scene: (views, camera numbers)."""

    def all_cameras(self) -> NDArray[np.float32]:
        """Return the raw cameras of all scenes: (scenes, views, camera numbers)."""

    def scene(self, scene: int) -> Scene:
        """Read one scene with its frames as stored, JPEG bytes or pixels, and check checksums stored with it."""

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
        """Return frames and cameras of all scenes, if a local disk holds them decoded; otherwise None."""

    def decode_into(self, scene: int, views: Sequence[int], out: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Decode the frames of `views` into the first rows of `out`: (rows, height, width, 3).

        Returns:
            All raw cameras of the scene, (views, camera numbers), which are stored beside the frames' offsets.
        """


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """How a container of one shard per split is written in pieces, in any order and by any process.

    The shards of a plan are then pieces: `Format.names` returns their unfinished files, and `Format.write_shard`
    writes a piece into them.

    Attributes:
        are_written: returns whether the files have the size that the row of a piece needs.
        join: checks the pieces of all splits against their rows, and publishes the files; returns the shard of each
            split.
    """

    are_written: Callable[[ShardLocation, ShardRow], bool]
    join: Callable[[AnyPath, Manifest], dict[Split, ShardRow]]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A container.

    Attributes:
        name: name in `--format` and in the manifest.
        encodings: supported encodings of frames, the default first.
        names: returns the files of a shard, relative to the dataset's folder.
        write_shard: writes one shard atomically from its scenes in order; runs in any process.
        finish: writes the metadata of all splits, after all shards; returns the files by split.
        open_shard: opens a shard from its row in the manifest.
        stored_bytes: estimates the size in bytes from (scenes, their encoded bytes, layout, encoding).
        whole_scene_encodings: encodings that read a scene's views only all together.
        pieces: how a split's only shard is written in pieces; None for containers of any number of shards.
    """

    name: str
    encodings: tuple[Encoding, ...]
    names: Callable[[ShardLocation], tuple[str, ...]]
    write_shard: Callable[[ShardLocation, Iterable[Scene]], ShardRow]
    finish: Callable[[AnyPath, Manifest], dict[Split, tuple[FileRow, ...]]]
    open_shard: Callable[[ShardLocation, ShardRow], OpenShard]
    stored_bytes: Callable[[int, int, SceneLayout, Encoding], int]
    whole_scene_encodings: tuple[Encoding, ...] = ()
    pieces: Pieces | None = None


def no_metadata(folder: AnyPath, manifest: Manifest) -> dict[Split, tuple[FileRow, ...]]:  # noqa: ARG001
    """Return an empty dict: `finish` of a container without metadata."""
    return {}
