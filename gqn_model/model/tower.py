"""The tower: a residual network whose r is a map at a quarter of the frame's side (paper, supplement, figure S2).

Shapes: N views of all samples in one batch, R channels of r, P numbers of a pose, H = W the side of a frame.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gqn_model.model.convolutions import convolve
from gqn_model.model.init import draw_before_relu


class Tower(nn.Module):
    """Frames (N, 3, H, W) and poses (N, P) to r (N, R, H/4, W/4).

    Args:
        channels: R; 256 in the paper.
        frame_size: H; any multiple of 4.
        pose: P; 7 of DeepMind's cameras.
    """

    def __init__(self, channels: int, frame_size: int, pose: int) -> None:  # noqa: ARG002  every network takes all
        super().__init__()
        half, posed = channels // 2, channels + pose
        self.enter = nn.Conv2d(3, channels, 2, 2)
        self.skip_down = nn.Conv2d(channels, channels, 2, 2)
        self.down_1 = nn.Conv2d(channels, half, 3, padding=1)
        self.down_2 = nn.Conv2d(half, channels, 2, 2)
        self.skip_posed = nn.Conv2d(posed, channels, 3, padding=1)
        self.posed_1 = nn.Conv2d(posed, half, 3, padding=1)
        self.posed_2 = nn.Conv2d(half, channels, 3, padding=1)
        self.leave = nn.Conv2d(channels, channels, 1)
        for layer in (self.enter, self.skip_down, self.down_1, self.down_2, self.posed_2, self.leave):
            draw_before_relu(layer)
        for layer in (self.skip_posed, self.posed_1):
            draw_before_relu(layer, pose=pose)

    def forward(self, frames: Tensor, poses: Tensor) -> Tensor:
        """The representation of each view on its own."""
        x = functional.relu(self.enter(frames))  # (N, R, H/2, W/2)
        skip = functional.relu(self.skip_down(x))
        x = functional.relu(self.down_2(functional.relu(self.down_1(x)))) + skip  # (N, R, H/4, W/4)
        posed = [x, poses[:, :, None, None].expand(-1, -1, *x.shape[2:])]
        # Two layers that read the same are one convolution.
        two = (self.skip_posed, self.posed_1)
        bias = torch.cat([layer.bias for layer in two if layer.bias is not None])
        both = functional.relu(convolve(posed, torch.cat([layer.weight for layer in two]), bias))
        skip, x = torch.split(both, [layer.out_channels for layer in two], 1)
        x = functional.relu(self.posed_2(x)) + skip
        return functional.relu(self.leave(x))
