"""Spool: the scenes of a shard in a temporary file until the shard is full, so that memory holds one scene.

The file is unnamed if the system supports that, so that a killed process leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gqn_data.io import atomic
from gqn_data.schema.layout import SceneLayout
from gqn_data.schema.scene import Encoded, Scene

_BUFFER = 1 << 20
_LENGTH = np.dtype("<u4")
_NUMBER = np.dtype("<f4")


class Spool:
    """Scenes in a temporary file, in the order in which they were added.

    Args:
        layout: layout of every scene.
        encoded: True if frames are JPEG bytes, False if they are pixels.
        folder: folder of the file; None for the system's temporary folder.

    Attributes:
        layout: layout of every scene.
        encoded: True if frames are JPEG bytes, False if they are pixels.
        count: number of scenes.
        bytes: size of their frames.
    """

    def __init__(self, layout: SceneLayout, *, encoded: bool, folder: Path | None) -> None:
        self.layout = layout
        self.encoded = encoded
        self._folder = folder or Path(tempfile.gettempdir())
        self._file = tempfile.TemporaryFile(buffering=_BUFFER, dir=folder)  # noqa: SIM115  closed by `close`
        self.count = 0
        self.bytes = 0

    def add(self, scene: Scene) -> list[Encoded]:
        """Append a scene, and return the parts written: lengths of JPEGs, cameras, frames.

        Raises:
            NoSpace: the disk is full.
        """
        parts: list[Encoded] = [np.ascontiguousarray(scene.cameras, _NUMBER).tobytes()]
        if scene.encoded is None:
            assert scene.pixels is not None  # noqa: S101  a scene has one or the other
            parts.append(scene.pixels.data.cast("B"))
        else:
            parts.insert(0, np.array([*map(len, scene.encoded)], _LENGTH).tobytes())
            parts += scene.encoded
        with atomic.report_full_disk(self._folder):
            for part in parts:
                self._file.write(part)
        self.count += 1
        self.bytes += sum(len(part) for part in parts[-1 if scene.encoded is None else 2 :])
        return parts

    def scenes(self) -> Iterator[Scene]:
        """Yield all scenes; none may be added meanwhile."""
        layout = self.layout
        with atomic.report_full_disk(self._folder):
            self._file.seek(0)
        for _ in range(self.count):
            lengths = np.frombuffer(self._file.read(_LENGTH.itemsize * layout.views if self.encoded else 0), _LENGTH)
            numbers = np.frombuffer(self._file.read(_NUMBER.itemsize * int(np.prod(layout.cameras_shape))), _NUMBER)
            cameras = numbers.reshape(layout.cameras_shape)
            if self.encoded:
                jpegs = [self._file.read(length) for length in lengths.tolist()]
                yield Scene(cameras, encoded=jpegs, size=(layout.height, layout.width))
            else:
                pixels = np.frombuffer(self._file.read(layout.views * layout.frame_bytes), np.uint8)
                yield Scene(cameras, pixels=pixels.reshape(layout.frames_shape))

    def clear(self) -> None:
        """Remove all scenes."""
        self._file.seek(0)
        self._file.truncate()
        self.count = self.bytes = 0

    def close(self) -> None:
        """Close and remove the file."""
        with contextlib.suppress(OSError):  # on a full disk the flush fails, and its bytes are not needed
            self._file.close()
