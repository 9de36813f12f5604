"""A scene as the project passes it around: its frames, encoded or decoded, and its cameras.

numpy only. Decoding happens in `images`, and not before somebody asks for pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gqn_data.schema import jpeg

# JPEG bytes of one frame: a slice of a mapped file where possible, so no copy is made of it.
Encoded = bytes | bytearray | memoryview


@dataclass(frozen=True, eq=False)
class Scene:
    """One scene; its views are decoded when asked for.

    Attributes:
        cameras: float32 (views, camera numbers), the raw numbers as DeepMind wrote them.
        encoded: the JPEG bytes of each view, or None where the source holds pixels.
        pixels: uint8 (views, height, width, 3), or None where the source holds JPEG bytes.
        size: height and width that every frame must have; None where nothing is known of them.
    """

    cameras: NDArray[np.float32]
    encoded: Sequence[Encoded] | None = None
    pixels: NDArray[np.uint8] | None = None
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        """The number of views."""
        return len(self.cameras)

    def frame(self, view: int) -> NDArray[np.uint8]:
        """The frame of one view: uint8 (height, width, 3).

        Raises:
            CorruptFrame: it cannot be decoded, or has another size than it must have.
        """
        if self.pixels is not None:
            frame: NDArray[np.uint8] = self.pixels[view]
            return frame
        assert self.encoded is not None  # noqa: S101  a scene has one or the other
        if self.size is None:
            return jpeg.decode(self.encoded[view])
        decoded = np.empty((*self.size, 3), np.uint8)  # no more than this, whatever the JPEG's header claims
        jpeg.decode_into(self.encoded[view], decoded)
        return decoded

    @cached_property
    def frames(self) -> NDArray[np.uint8]:
        """All frames, decoded once: uint8 (views, height, width, 3)."""
        if self.pixels is not None:
            return self.pixels
        return np.stack([self.frame(view) for view in range(len(self))])
