"""The two kinds of shards that all containers come down to: JPEG bytes at known places, and pixels.

Both read ranges and keep nothing; what they are asked for is all they touch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from operator import add
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import CorruptFrame, ShardChecksumError
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath
from gqn_data.io.ranged import RangedFile, Rows, npy_header
from gqn_data.schema import jpeg
from gqn_data.schema.layout import SceneLayout
from gqn_data.schema.manifest import FileRow
from gqn_data.schema.scene import Scene

# One read of up to so many bytes costs less than a read for each view (measured: docs/decisions.md).
_ONE_READ = 1 << 16


def index_dtype(layout: SceneLayout) -> np.dtype[np.void]:
    """One row of an index: where a scene lies in its file, and its cameras.

    `record` and `size` span the whole record (or sample) in bytes, `offset` and `length` the JPEG of each view.
    """
    views = layout.views
    return np.dtype(
        [
            ("record", "<u8"),
            ("size", "<u8"),
            ("offset", "<u8", (views,)),
            ("length", "<u4", (views,)),
            ("cameras", "<f4", layout.cameras_shape),
        ]
    )


@cache
def _extents(views: int) -> Struct:
    """The fields of `index_dtype` without the cameras: numpy takes as few apart more slowly."""
    return Struct(f"<2Q{views}Q{views}L")


def write_npy(folder: AnyPath, name: str, array: NDArray[Any]) -> FileRow:
    """Writes an array as `.npy`, below the dataset's folder; returns its row of the manifest."""
    with atomic.writing(folder / name) as file, atomic.ChecksummedFile(file) as out:
        out.write(npy_header(array.dtype, array.shape))
        out.write(array.tobytes())
        return FileRow(name=name, sha256=out.finish(), bytes=out.position)


class EncodedShard(ABC):
    """A shard that keeps JPEG bytes in one file.

    Args:
        file: the file.
        layout: what every scene looks like.
    """

    def __init__(self, file: RangedFile, layout: SceneLayout) -> None:
        self.file = file
        self.layout = layout

    @abstractmethod
    def describe(self, scene: int) -> tuple[Sequence[int], Sequence[int], NDArray[np.float32]]:
        """Where the JPEG of each view begins in the file, its length in bytes, and the raw cameras."""

    @abstractmethod
    def cameras(self, scene: int) -> NDArray[np.float32]:
        """The raw cameras of one scene: (views, camera numbers)."""

    @abstractmethod
    def all_cameras(self) -> NDArray[np.float32]:
        """The raw cameras of all scenes: (scenes, views, camera numbers)."""

    def scene(self, scene: int) -> Scene:
        """One scene, its JPEG bytes as they are kept."""
        offsets, lengths, cameras = self.describe(scene)
        size = self.layout.height, self.layout.width
        return Scene(cameras, encoded=self._read(scene, offsets, lengths), size=size)

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
        """None: what lies there is JPEG bytes."""
        return None

    def decode_into(self, scene: int, views: Sequence[int], out: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Fills the first rows of `out`, (rows, height, width, 3), with those views; returns all raw cameras.

        Raises:
            ShardChecksumError: a frame cannot be read or decoded; the message tells file, scene and view.
        """
        try:
            return self._decode_into(scene, views, out)
        except ShardChecksumError:
            if not self._fetched_again():
                raise
        return self._decode_into(scene, views, out)

    def _fetched_again(self) -> bool:
        """Whether what was read was a damaged local copy of a remote file, and is another one now."""
        return self.file.reopened()

    def _decode_into(self, scene: int, views: Sequence[int], out: NDArray[np.uint8]) -> NDArray[np.float32]:
        offsets, lengths, cameras = self.describe(scene)
        starts = [offsets[view] for view in views]
        frames = self._read(scene, starts, [lengths[view] for view in views])
        try:
            jpeg.decode_all_into(frames, out)
        except CorruptFrame:
            self._tell_which(scene, views, starts, frames, out)
            raise
        return cameras

    def _tell_which(
        self,
        scene: int,
        views: Sequence[int],
        starts: list[int],
        frames: Sequence[bytes],
        out: NDArray[np.uint8],
    ) -> None:
        for view, start, frame, pixels in zip(views, starts, frames, out):
            try:
                jpeg.decode_into(frame, pixels)
            except CorruptFrame as error:
                raise ShardChecksumError(
                    f"{self.file.path}: scene {scene} of the file, view {view}, at byte {start}: {error}; "
                    "run gqn-data verify on the dataset"
                ) from error

    def _read(self, scene: int, offsets: Sequence[int], lengths: Sequence[int]) -> Sequence[bytes]:
        if not offsets:
            return []
        ends = [*map(add, offsets, lengths)]
        first, last = min(offsets), max(ends)
        file = self.file
        if last > file.size:
            raise ShardChecksumError(
                f"{file.path}: scene {scene} of the file would end at byte {last} of {file.size}; "
                "its index is damaged or not its own: run gqn-data verify on the dataset"
            )
        if file.is_remote:
            return file.read_many([*zip(offsets, lengths)])
        if last - first <= _ONE_READ or last - first <= 2 * sum(lengths):
            block = file.read(first, last - first)
            # Copies: taking a buffer from a memoryview costs the decoder more than copying two kilobytes does.
            return [block[offset - first : end - first] for offset, end in zip(offsets, ends)]
        return [file.read(offset, length) for offset, length in zip(offsets, lengths)]


class IndexedShard(EncodedShard):
    """A file of JPEG bytes with an index beside it: a TFRecord, a tar.

    Args:
        file: the file.
        index: rows of `index_dtype`.
        layout: what every scene looks like.
    """

    def __init__(self, file: RangedFile, index: Rows, layout: SceneLayout) -> None:
        super().__init__(file, layout)
        self.index = index

    def _fetched_again(self) -> bool:
        return any([super()._fetched_again(), self.index.file.reopened()])

    def describe(self, scene: int) -> tuple[Sequence[int], Sequence[int], NDArray[np.float32]]:  # noqa: D102
        row = self.index.bytes_of(scene)
        layout = self.layout
        fields = _extents(layout.views)
        extents = fields.unpack_from(row)
        cameras = np.frombuffer(row, "<f4", offset=fields.size).reshape(layout.cameras_shape)
        return extents[2 : 2 + layout.views], extents[2 + layout.views :], cameras

    def cameras(self, scene: int) -> NDArray[np.float32]:  # noqa: D102
        cameras: NDArray[np.float32] = self.index[scene]["cameras"]
        return cameras

    def all_cameras(self) -> NDArray[np.float32]:  # noqa: D102
        return np.ascontiguousarray(self.index.all()["cameras"])


class PixelShard:
    """A shard that keeps decoded frames, scene after scene, in one file.

    Args:
        frames: uint8 rows (views, height, width, 3).
        cameras: float32 rows (views, camera numbers).
    """

    def __init__(self, frames: Rows, cameras: Rows) -> None:
        self._frames = frames
        self._cameras = cameras

    def cameras(self, scene: int) -> NDArray[np.float32]:
        """The raw cameras of one scene: (views, camera numbers)."""
        return self._cameras[scene].astype(np.float32, copy=False)

    def all_cameras(self) -> NDArray[np.float32]:
        """The raw cameras of all scenes: (scenes, views, camera numbers)."""
        return self._cameras.all().astype(np.float32, copy=False)

    def scene(self, scene: int) -> Scene:
        """One scene, all its pixels read."""
        return Scene(self.cameras(scene), pixels=self._frames[scene].astype(np.uint8, copy=False))

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
        """Frames and cameras of all scenes where they lie on a disk, mapped; None where they are in a store.

        Good for a batch, and to be asked for again with the next: only here is it seen that a file was cut short.

        Raises:
            ShardChecksumError: it was.
        """
        if self._frames.file.is_remote or self._cameras.file.is_remote:
            return None
        frames, cameras = self._frames.mapped(), self._cameras.mapped()
        return frames.astype(np.uint8, copy=False), cameras.astype(np.float32, copy=False)

    def decode_into(self, scene: int, views: Sequence[int], out: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Fills the first rows of `out`, (rows, height, width, 3), with those views; returns all raw cameras."""
        frames = self._frames
        start = frames.start + scene * frames.row_bytes
        view_bytes = frames.row_bytes // frames.shape[0]
        if frames.file.is_remote:
            parts = frames.file.read_many([(start + view * view_bytes, view_bytes) for view in views])
            for position, part in enumerate(parts):
                out[position] = np.frombuffer(part, np.uint8).reshape(frames.shape[1:])
            return self.cameras(scene)
        for position, view in enumerate(views):
            frames.file.read_into(start + view * view_bytes, out[position])
        return self.cameras(scene)


def encoded_frames(scene: Scene, quality: int | None) -> Sequence[bytes | bytearray | memoryview]:
    """The JPEG bytes of a scene's views: its own where it has them, else encoded at `quality`.

    Raises:
        CorruptFrame: the scene holds pixels and no quality was asked for.
    """
    if scene.encoded is not None:
        return scene.encoded
    if quality is None:
        raise CorruptFrame("the source holds pixels; to write JPEG, say --jpeg-quality")
    return [jpeg.encode(frame, quality) for frame in scene.frames]


def fill_pixels(scene: Scene, out: NDArray[np.uint8]) -> None:
    """Fills `out`, (views, height, width, 3), with all frames of a scene.

    Raises:
        CorruptFrame: a frame cannot be decoded.
    """
    if scene.encoded is None:
        out[...] = scene.frames
        return
    for view, frame in enumerate(scene.encoded):
        try:
            jpeg.decode_into(frame, out[view])
        except CorruptFrame as error:
            raise CorruptFrame(f"view {view}: {error}") from error
