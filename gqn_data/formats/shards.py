"""The two kinds of open shards behind all containers: JPEG bytes at indexed offsets, and decoded pixels.

Both read only the requested ranges and cache nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cache
from operator import add
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import CorruptFrame, ShardChecksumError
from gqn_data.formats.contract import ShardLocation
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath
from gqn_data.io.ranged import RangedFile, Rows, npy_header
from gqn_data.schema import jpeg
from gqn_data.schema.layout import SceneLayout
from gqn_data.schema.manifest import FileRow
from gqn_data.schema.scene import Scene

# Up to this many bytes, one read is faster than a read per view (measured: docs/decisions.md).
_ONE_READ = 1 << 16

_BLOCK_BYTES = 2 << 20


def index_dtype(layout: SceneLayout) -> np.dtype[np.void]:
    """Return the dtype of an index row, which locates a scene in its file and holds its cameras.

    `record` and `size` are the extent of the whole record (or sample) in bytes, `offset` and `length` the extent of
    each view's JPEG.
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
    """Return the fields of `index_dtype` before the cameras as a struct, which unpacks one row faster than numpy."""
    return Struct(f"<2Q{views}Q{views}L")


def write_npy(folder: AnyPath, name: str, array: NDArray[Any]) -> FileRow:
    """Write an array as `.npy` under the dataset's folder; return its row of the manifest."""
    with atomic.writing(folder / name) as file, atomic.ChecksummedFile(file) as out:
        out.write(npy_header(array.dtype, array.shape))
        out.write(array.tobytes())
        return FileRow(name=name, sha256=out.finish(), bytes=out.position)


def write_pixels(out: atomic.ChecksummedFile, scenes: Iterable[Scene], location: ShardLocation) -> NDArray[np.float32]:
    """Write the decoded frames of a shard's scenes, and return their cameras: (scenes, views, camera numbers)."""
    layout = location.layout
    cameras = np.zeros((location.scenes, *layout.cameras_shape), np.float32)
    in_block = max(1, _BLOCK_BYTES // (layout.views * layout.frame_bytes))
    block = np.empty((in_block, *layout.frames_shape), np.uint8)
    filled = 0
    for number, scene in enumerate(scenes):
        cameras[number] = scene.cameras
        fill_pixels(scene, block[filled])
        filled += 1
        if filled == in_block:
            out.write(block.data.cast("B"))
            block = np.empty_like(block)
            filled = 0
    out.write(block[:filled].tobytes())
    return cameras


class EncodedShard(ABC):
    """Open shard that stores JPEG bytes in one file.

    Args:
        file: the file.
        layout: shape of every scene.
    """

    def __init__(self, file: RangedFile, layout: SceneLayout) -> None:
        self.file = file
        self.layout = layout

    @abstractmethod
    def describe(self, scene: int) -> tuple[Sequence[int], Sequence[int], NDArray[np.float32]]:
        """Return the offset in the file and the length of each view's JPEG, in bytes, and the raw cameras."""

    @abstractmethod
    def cameras(self, scene: int) -> NDArray[np.float32]:
        """Return the raw cameras of one scene: (views, camera numbers)."""

    @abstractmethod
    def all_cameras(self) -> NDArray[np.float32]:
        """Return the raw cameras of all scenes: (scenes, views, camera numbers)."""

    def scene(self, scene: int) -> Scene:
        """Read one scene with its JPEG bytes."""
        offsets, lengths, cameras = self.describe(scene)
        size = self.layout.height, self.layout.width
        return Scene(cameras, encoded=self._read(scene, offsets, lengths), size=size)

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
        """Return None: the frames are not decoded."""
        return None

    def decode_into(self, scene: int, views: Sequence[int], out: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Decode `views` into the first rows of `out`, (rows, height, width, 3); return all raw cameras.

        Raises:
            ShardChecksumError: a frame cannot be read or decoded; the message names file, scene and view.
        """
        try:
            return self._decode_into(scene, views, out)
        except ShardChecksumError:
            if not self._refetch():
                raise
        return self._decode_into(scene, views, out)

    def _refetch(self) -> bool:
        """Replace damaged local copies of remote files; return whether any was replaced."""
        return self.file.reopened()

    def _decode_into(self, scene: int, views: Sequence[int], out: NDArray[np.uint8]) -> NDArray[np.float32]:
        offsets, lengths, cameras = self.describe(scene)
        starts = [offsets[view] for view in views]
        frames = self._read(scene, starts, [lengths[view] for view in views])
        try:
            jpeg.decode_all_into(frames, out)
        except CorruptFrame:
            self._raise_for_view(scene, views, starts, frames, out)
            raise
        return cameras

    def _raise_for_view(
        self,
        scene: int,
        views: Sequence[int],
        starts: list[int],
        frames: Sequence[bytes],
        out: NDArray[np.uint8],
    ) -> None:
        """Raise an error that names the first view that cannot be decoded."""
        for view, start, frame, pixels in zip(views, starts, frames, out):
            try:
                jpeg.decode_into(frame, pixels)
            except CorruptFrame as error:
                raise ShardChecksumError(
                    f"{self.file.path}: scene {scene} of the file, view {view}, at byte {start}: {error}; "
                    "check the dataset with gqn-data verify"
                ) from error

    def _read(self, scene: int, offsets: Sequence[int], lengths: Sequence[int]) -> Sequence[bytes]:
        if not offsets:
            return []
        ends = [*map(add, offsets, lengths)]
        first, last = min(offsets), max(ends)
        file = self.file
        if last > file.size:
            raise ShardChecksumError(
                f"{file.path}: scene {scene} of the file ends at byte {last} of {file.size}: its index is damaged or "
                "of another file; check the dataset with gqn-data verify"
            )
        if file.is_remote:
            return file.read_many([*zip(offsets, lengths)])
        if last - first <= _ONE_READ or last - first <= 2 * sum(lengths):
            block = file.read(first, last - first)
            # Copies, because the decoder takes longer to get a buffer from a memoryview than to copy two kilobytes.
            return [block[offset - first : end - first] for offset, end in zip(offsets, ends)]
        return [file.read(offset, length) for offset, length in zip(offsets, lengths)]


class IndexedShard(EncodedShard):
    """Open shard of JPEG bytes with a separate index: a TFRecord or a tar.

    Args:
        file: the file.
        index: rows of `index_dtype`.
        layout: shape of every scene.
    """

    def __init__(self, file: RangedFile, index: Rows, layout: SceneLayout) -> None:
        super().__init__(file, layout)
        self.index = index

    def _refetch(self) -> bool:
        return any([super()._refetch(), self.index.file.reopened()])

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
    """Open shard that stores decoded frames in one file, scene after scene.

    Args:
        frames: uint8 rows (views, height, width, 3).
        cameras: float32 rows (views, camera numbers).
    """

    def __init__(self, frames: Rows, cameras: Rows) -> None:
        self._frames = frames
        self._cameras = cameras

    def cameras(self, scene: int) -> NDArray[np.float32]:
        """Return the raw cameras of one scene: (views, camera numbers)."""
        return self._cameras[scene].astype(np.float32, copy=False)

    def all_cameras(self) -> NDArray[np.float32]:
        """Return the raw cameras of all scenes: (scenes, views, camera numbers)."""
        return self._cameras.all().astype(np.float32, copy=False)

    def scene(self, scene: int) -> Scene:
        """Read one scene with the pixels of all its views."""
        return Scene(self.cameras(scene), pixels=self._frames[scene].astype(np.uint8, copy=False))

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
        """Return memory maps of the frames and cameras of all scenes; None if they are in an object store.

        Call this for every batch: only this call detects that a file was truncated since.

        Raises:
            ShardChecksumError: a file was truncated.
        """
        if self._frames.file.is_remote or self._cameras.file.is_remote:
            return None
        frames, cameras = self._frames.mapped(), self._cameras.mapped()
        return frames.astype(np.uint8, copy=False), cameras.astype(np.float32, copy=False)

    def decode_into(self, scene: int, views: Sequence[int], out: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Read `views` into the first rows of `out`, (rows, height, width, 3); return all raw cameras."""
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
    """Return the JPEG bytes of a scene's views; pixels are encoded at `quality`.

    Raises:
        CorruptFrame: the scene holds pixels, and `quality` is missing.
    """
    if scene.encoded is not None:
        return scene.encoded
    if quality is None:
        raise CorruptFrame("the source holds pixels; pass --jpeg-quality to write JPEG")
    return [jpeg.encode(frame, quality) for frame in scene.frames]


def fill_pixels(scene: Scene, out: NDArray[np.uint8]) -> None:
    """Decode all frames of a scene into `out`: (views, height, width, 3).

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
