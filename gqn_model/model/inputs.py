"""Inputs of the network: a batch of the loader on the device, as floats.

Frames travel as uint8 and become floats in [0, 1] on the device: a quarter of the bytes to copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gqn_data.loader import Batch


class Context(NamedTuple):
    """Observed views of a batch: B samples, K slots; each sample fills M of them.

    Attributes:
        frames: (B, K, 3, H, W) in [0, 1].
        poses: (B, K, P); P is 7 for DeepMind's cameras.
        mask: bool (B, K), True for slots that hold a view.
    """

    frames: Tensor
    poses: Tensor
    mask: Tensor


class Inputs(NamedTuple):
    """A batch on the device.

    Attributes:
        context: the observed views.
        query: (B, P), the query pose; (B, T, P) for T query views.
        target: (B, 3, H, W) in [0, 1], the true frame at the query; (B, T, 3, H, W) for T query views.
    """

    context: Context
    query: Tensor
    target: Tensor


def to_device(batch: Batch, device: torch.device, dtype: torch.dtype = torch.float32) -> Inputs:
    """Return the network's inputs from a batch of the loader."""

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    mask = move(batch.context_mask)
    batch = batch._replace(frames=move(batch.frames), poses=move(batch.poses).to(dtype))
    context = Context(frames=pixels(batch.context_frames, dtype), poses=batch.context_poses, mask=mask)
    return Inputs(context, batch.query_pose, pixels(batch.target, dtype))


def select_rows(inputs: Inputs, rows: slice) -> Inputs:
    """Return some samples of a batch, as views."""
    context = Context(*(tensor[rows] for tensor in inputs.context))
    return Inputs(context, inputs.query[rows], inputs.target[rows])


def pixels(frames: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Convert uint8 frames (..., H, W, 3) to floats in [0, 1] (..., 3, H, W)."""
    return frames.movedim(-1, -3).to(dtype) / 255
