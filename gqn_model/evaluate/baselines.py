"""Predictions without training, as baselines for a network.

Shapes: B samples, K slots for context views, P numbers per pose, H = W frame size.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gqn_model.config import POSE_NUMBERS
from gqn_model.model.inputs import Context, pixels

if TYPE_CHECKING:
    from gqn_data.loader import Batch


def mean_image(batches: Iterable[Batch]) -> Tensor:
    """Return the mean of all targets, (3, H, W) in [0, 1]."""
    total, count = torch.zeros(()), 0
    for batch in batches:
        total = total + pixels(batch.target, torch.float64).sum(0)
        count += len(batch.target)
    return (total / max(1, count)).float()


def nearest_view(context: Context, query: Tensor) -> Tensor:
    """Return the context frame of each sample whose camera is nearest to the query's, (B, 3, H, W).

    The distance is Euclidean, on position and unit viewing direction joined. On a ring of cameras that look at the
    centre it grows with the distance along the ring. Other poses than DeepMind's seven numbers are compared number by
    number, because their meaning is unknown.

    Args:
        context: the observed views.
        query: (B, P), the query poses.
    """
    distances = (_position_and_direction(context.poses) - _position_and_direction(query)[:, None]).square().sum(-1)
    nearest = distances.masked_fill(~context.mask, torch.inf).argmin(1)
    return context.frames[torch.arange(len(query), device=query.device), nearest]


def _position_and_direction(poses: Tensor) -> Tensor:
    if poses.shape[-1] != POSE_NUMBERS:
        return poses
    sin_yaw, cos_yaw, sin_pitch, cos_pitch = poses[..., 3:].unbind(-1)
    direction = torch.stack([cos_yaw * cos_pitch, sin_yaw * cos_pitch, sin_pitch], -1)
    return torch.cat([poses[..., :3], direction], -1)
