"""Scene: frames, encoded or decoded, and their cameras. Frames are decoded on access."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gqn_data.schema import jpeg

# JPEG bytes of one frame. A memoryview of a mapped file avoids a copy.
Encoded = bytes | bytearray | memoryview


@dataclass(frozen=True, eq=False)
class Scene:
    """One scene, whose views are decoded on access. Either `encoded` or `pixels` is given.

    Attributes:
        cameras: float32 (views, camera fields), the raw numbers of the source.
        encoded: JPEG bytes of each view; None if the source contains pixels.
        pixels: uint8 (views, height, width, 3); None if the source contains JPEG bytes.
        size: required height and width of every frame; None if unknown.
    """

    cameras: NDArray[np.float32]
    encoded: Sequence[Encoded] | None = None
    pixels: NDArray[np.uint8] | None = None
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        """Return the number of views."""
        return len(self.cameras)

    def frame(self, view: int) -> NDArray[np.uint8]:
        """Return the frame of one view: uint8 (height, width, 3).

        Raises:
            CorruptFrame: the frame cannot be decoded, or its size is not `size`.
        """
        if self.pixels is not None:
            frame: NDArray[np.uint8] = self.pixels[view]
            return frame
        assert self.encoded is not None  # noqa: S101  a scene has one or the other
        if self.size is None:
            return jpeg.decode(self.encoded[view])
        decoded = np.empty((*self.size, 3), np.uint8)  # bounds the memory, even if the JPEG claims more pixels
        jpeg.decode_into(self.encoded[view], decoded)
        return decoded

    @cached_property
    def frames(self) -> NDArray[np.uint8]:
        """All frames, decoded once and kept: uint8 (views, height, width, 3)."""
        if self.pixels is not None:
            return self.pixels
        return np.stack([self.frame(view) for view in range(len(self))])
