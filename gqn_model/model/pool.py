"""The pool: the tower, then the mean over its map (paper, supplement, figure S2)."""

from __future__ import annotations

from torch import Tensor

from gqn_model.model.tower import Tower


class Pool(Tower):
    """Frames (N, 3, H, W) and poses (N, P) to r (N, R, 1, 1)."""

    def forward(self, frames: Tensor, poses: Tensor) -> Tensor:
        """The representation of each view on its own."""
        return super().forward(frames, poses).mean((2, 3), keepdim=True)
