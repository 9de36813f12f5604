"""What the network reads: a batch of the loader, brought to the device as floats.

Frames travel as uint8 and become floats in [0, 1] on the device: a quarter of the bytes to copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gqn_data.loader import Batch


class Context(NamedTuple):
    """The observed views of a batch: B samples, K slots for views, of which each sample fills its own M.

    Attributes:
        frames: (B, K, 3, H, W) in [0, 1].
        poses: (B, K, P); P is 7 of DeepMind's cameras.
        mask: bool (B, K), True where a slot holds a view.
    """

    frames: Tensor
    poses: Tensor
    mask: Tensor


class Inputs(NamedTuple):
    """A batch on the device.

    Attributes:
        context: the observed views.
        query: (B, P), the pose asked about.
        target: (B, 3, H, W) in [0, 1], the true frame there.
    """

    context: Context
    query: Tensor
    target: Tensor


def to_device(batch: Batch, device: torch.device, dtype: torch.dtype = torch.float32) -> Inputs:
    """The inputs of the network made from a batch of the loader."""

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    frames, poses = move(batch.frames), move(batch.poses).to(dtype)
    context = Context(frames=pixels(frames[:, 1:], dtype), poses=poses[:, 1:], mask=move(batch.context_mask))
    return Inputs(context, poses[:, 0], pixels(frames[:, 0], dtype))


def pixels(frames: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Frames uint8 (..., H, W, 3) as floats in [0, 1] (..., 3, H, W)."""
    return frames.movedim(-1, -3).to(dtype) / 255
