"""Initial values of parameters, where they differ from torch's defaults.

Torch initialises a convolution with a third of the variance that preserves a signal's scale, and treats all input
channels alike. Through the tower's layers r then hardly depends on the frame, and the few numbers of a pose vanish
among a hundred channels: the products of poses and appearance that GQN must find start too small to learn from.
So variances preserve the scale (He et al., 2015, before a ReLU; LeCun et al., 1998, otherwise), and the weights that
read a pose are drawn as if they read nothing else.
"""

from __future__ import annotations

import math

from torch import Tensor, nn


def draw_before_relu(layer: nn.Conv2d, *, pose: int = 0) -> None:
    """Initialise a convolution followed by a ReLU.

    Args:
        layer: the convolution.
        pose: number of its last input channels that are a pose.
    """
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    if pose:
        _draw(layer.weight[:, -pose:], pose, gain=2.0)


def draw_gates(weights: list[Tensor], bias: Tensor | None, *, channels: int, pose: tuple[int, int]) -> None:
    """Initialise the gate convolutions of a ConvLSTM; the first weight reads the static input.

    Args:
        weights: each (rows, its input channels, k, k).
        bias: of the gates.
        channels: input channels of all weights together.
        pose: channel of the static input at which the pose begins, and its numbers.
    """
    for weight in weights:
        _draw(weight, channels)
    at, numbers = pose
    _draw(weights[0][:, at : at + numbers], numbers)
    if bias is not None:
        nn.init.zeros_(bias)


def _draw(weight: Tensor, channels: int, gain: float = 1.0) -> None:
    """Fill with normal values whose variance preserves the scale of a signal of `channels` channels, times `gain`."""
    nn.init.normal_(weight.detach(), std=math.sqrt(gain / (channels * weight.shape[2] * weight.shape[3])))
