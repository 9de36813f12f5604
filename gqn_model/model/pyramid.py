"""The pyramid: the lightest of the three, one vector a view (paper, supplement, figure S2).

Shapes: N views of all samples in one batch, R channels of r, P numbers of a pose, H = W the side of a frame.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gqn_model.model.init import draw_before_relu


class Pyramid(nn.Module):
    """Frames (N, 3, H, W) and poses (N, P) to r (N, R, 1, 1).

    The last kernel spans the whole map, which at H = 64 is the paper's 8x8. Where H/4 is odd (84 pixels: maps
    of 42, 21) the third layer pads its right and lower border with zeros, so that it drops no pixel: 11.

    Args:
        channels: R; 256 in the paper, and 32, 64, 128 in the layers before.
        frame_size: H; any multiple of 4.
        pose: P; 7 of DeepMind's cameras.
    """

    def __init__(self, channels: int, frame_size: int, pose: int) -> None:
        super().__init__()
        last = -(-frame_size // 8)
        self.layers = nn.Sequential(
            nn.Conv2d(3 + pose, channels // 8, 2, 2),
            nn.ReLU(),
            nn.Conv2d(channels // 8, channels // 4, 2, 2),
            nn.ReLU(),
            nn.ZeroPad2d((0, frame_size // 4 % 2, 0, frame_size // 4 % 2)),
            nn.Conv2d(channels // 4, channels // 2, 2, 2),
            nn.ReLU(),
            nn.Conv2d(channels // 2, channels, last, last),
        )
        for at, layer in enumerate(self.layers):
            if isinstance(layer, nn.Conv2d):
                draw_before_relu(layer, pose=0 if at else pose)

    def forward(self, frames: Tensor, poses: Tensor) -> Tensor:
        """The representation of each view on its own."""
        poses = poses[:, :, None, None].expand(-1, -1, *frames.shape[2:])
        r: Tensor = functional.relu(self.layers(torch.cat([frames, poses], 1)))
        return r
