"""Encoders: networks that map context views to the scene representation; `ENCODERS` names them.

Sources: Eslami et al., Science 360, 2018, supplement, figure S2.

Shapes: N views of all samples in one batch, R channels of the representation r, P numbers per pose, H = W frame size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gqn_model.model.convolutions import convolve
from gqn_model.model.init import draw_before_relu


class Tower(nn.Module):
    """Residual network; r is a map: frames (N, 3, H, W) and poses (N, P) to r (N, R, H/4, W/4).

    Args:
        channels: R; 256 in the paper.
        frame_size: H; any multiple of 4.
        pose: P; 7 for DeepMind's cameras.
    """

    def __init__(self, channels: int, frame_size: int, pose: int) -> None:  # noqa: ARG002  the signature of all encoders
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
        """Return r of each view."""
        x = functional.relu(self.enter(frames))  # (N, R, H/2, W/2)
        skip = functional.relu(self.skip_down(x))
        x = functional.relu(self.down_2(functional.relu(self.down_1(x)))) + skip  # (N, R, H/4, W/4)
        posed = [x, poses[:, :, None, None].expand(-1, -1, *x.shape[2:])]
        # Two layers with the same input run as one convolution.
        two = (self.skip_posed, self.posed_1)
        bias = torch.cat([layer.bias for layer in two if layer.bias is not None])
        both = functional.relu(convolve(posed, torch.cat([layer.weight for layer in two]), bias))
        skip, x = torch.split(both, [layer.out_channels for layer in two], 1)
        x = functional.relu(self.posed_2(x)) + skip
        return functional.relu(self.leave(x))


class Pool(Tower):
    """The tower averaged over its map: frames (N, 3, H, W) and poses (N, P) to r (N, R, 1, 1)."""

    def forward(self, frames: Tensor, poses: Tensor) -> Tensor:
        """Return r of each view."""
        return super().forward(frames, poses).mean((2, 3), keepdim=True)


class Pyramid(nn.Module):
    """The lightest encoder: frames (N, 3, H, W) and poses (N, P) to r (N, R, 1, 1).

    The last kernel spans the whole map, the paper's 8x8 at H = 64. If H/4 is odd (84 pixels: maps of 42 and 21), the
    third layer pads its right and bottom border with zeros, so that it drops no pixel.

    Args:
        channels: R; 256 in the paper, after layers of 32, 64 and 128.
        frame_size: H; any multiple of 4.
        pose: P; 7 for DeepMind's cameras.
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
        """Return r of each view."""
        poses = poses[:, :, None, None].expand(-1, -1, *frames.shape[2:])
        r: Tensor = functional.relu(self.layers(torch.cat([frames, poses], 1)))
        return r


# A class takes (channels, frame_size, pose). `gqn_model.config.ENCODERS` lists the same names without torch.
ENCODERS: dict[str, type[nn.Module]] = {"tower": Tower, "pool": Pool, "pyramid": Pyramid}
