"""How parameters are drawn at the start, where torch's own way is not the one taken.

Torch draws a convolution with a third of the variance that keeps a signal's size, and sets no part of a joined input
apart. Through the tower's layers r then hardly depends on the frame, and the few numbers of a pose are lost among a
hundred channels; what GQN must find, products of poses and what is seen, starts too small to be followed. So:
variances that keep the size of a signal (He et al., 2015, before a ReLU; LeCun et al., 1998, else), and the weights
that read a pose drawn as if they read nothing else.
"""

from __future__ import annotations

import math

from torch import Tensor, nn


def draw_before_relu(layer: nn.Conv2d, *, pose: int = 0) -> None:
    """Draws the parameters of a convolution that a ReLU follows.

    Args:
        layer: the convolution.
        pose: how many of the last channels of its input are a pose.
    """
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    if pose:
        _draw(layer.weight[:, -pose:], pose, gain=2.0)


def draw_gates(weights: list[Tensor], bias: Tensor | None, *, channels: int, pose: tuple[int, int]) -> None:
    """Draws the parts of the gate convolutions of a ConvLSTM; the first of them reads the static input.

    Args:
        weights: of the parts, each (rows, channels of the part, k, k).
        bias: of the gates.
        channels: of all parts joined.
        pose: where in the static input the pose begins, and its numbers.
    """
    for weight in weights:
        _draw(weight, channels)
    at, numbers = pose
    _draw(weights[0][:, at : at + numbers], numbers)
    if bias is not None:
        nn.init.zeros_(bias)


def _draw(weight: Tensor, channels: int, gain: float = 1.0) -> None:
    """Normal, of a variance that keeps the size of a signal of that many channels, times `gain`."""
    nn.init.normal_(weight.detach(), std=math.sqrt(gain / (channels * weight.shape[2] * weight.shape[3])))
