"""What a container is to the rest of the project: how a shard is written, finished, and opened again.

A format is a module of this folder that offers these functions, and a line in `formats.FORMATS`.
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

# Opens a file of a dataset, from its place, its row of the manifest, and the byte from which on it is kept at hand.
Opener = Callable[[AnyPath, FileRow, int | None], RangedFile]


@dataclass(frozen=True, kw_only=True)
class ShardLocation:
    """Which shard of which dataset.

    Attributes:
        folder: of the dataset.
        split: the split.
        number: of the shard in the split, from 0.
        first_scene: the number in the split of its first scene.
        scenes: scenes in it.
        scenes_per_shard: of every shard but the last.
        frames: how frames are kept.
        layout: what every scene looks like.
        index_folder: where indexes lie, if not in `folder` (source files that may not be written beside).
        opener: opens the files; None to read them where they lie.
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

    def open(self, row: FileRow, *, kept_from: int | None = None) -> RangedFile:
        """A file of the shard, to read ranges of.

        Args:
            row: which file.
            kept_from: the byte from which on it is asked for again and again, 0 for an index: of a file that lies far
                away that part is better kept here; None where no part is.
        """
        path = self.folder / row.name
        return RangedFile(path, row.bytes) if self.opener is None else self.opener(path, row, kept_from)


class OpenShard(Protocol):
    """A shard to read scenes from; scenes are numbered from 0 in the shard."""

    def cameras(self, scene: int) -> NDArray[np.float32]:
        """The raw cameras of one scene: (views, camera numbers)."""

    def all_cameras(self) -> NDArray[np.float32]:
        """The raw cameras of all scenes: (scenes, views, camera numbers)."""

    def scene(self, scene: int) -> Scene:
        """One scene; frames as they are kept, JPEG bytes or pixels. What carries a checksum of its own is checked."""

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
        """Frames and cameras of all scenes, where they lie on a disk as they are needed; None elsewhere."""

    def decode_into(self, scene: int, views: Sequence[int], out: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Fills the first rows of `out`, (rows, height, width, 3), with the frames of those views.

        Returns all raw cameras of the scene, (views, camera numbers): they lie beside the frames' offsets.
        """


@dataclass(frozen=True, kw_only=True)
class Format:
    """A container.

    Attributes:
        name: as in `--format` and in the manifest.
        encodings: how it can keep frames, the usual way first.
        names: the files of a shard, from the dataset's folder.
        write_shard: writes one shard, whole or not at all, from its scenes in order; runs in any process.
        finish: writes the metadata of all splits, when all shards are there; returns the files by split.
        open_shard: opens a shard of the manifest's.
        stored_bytes: bytes for (scenes, encoded bytes of them, layout, encoding).
        views_together: encodings in which a view is read with the others of its scene or not at all.
    """

    name: str
    encodings: tuple[Encoding, ...]
    names: Callable[[ShardLocation], tuple[str, ...]]
    write_shard: Callable[[ShardLocation, Iterable[Scene]], ShardRow]
    finish: Callable[[AnyPath, Manifest], dict[Split, tuple[FileRow, ...]]]
    open_shard: Callable[[ShardLocation, ShardRow], OpenShard]
    stored_bytes: Callable[[int, int, SceneLayout, Encoding], int]
    views_together: tuple[Encoding, ...] = ()


def no_metadata(folder: AnyPath, manifest: Manifest) -> dict[Split, tuple[FileRow, ...]]:  # noqa: ARG001
    """`finish` of a container whose shards are all there is."""
    return {}
