"""Predictions that need no training, for a network to be measured against.

Shapes: B samples, K slots for context views, H = W the side of a frame.
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
    """The mean of all targets, (3, H, W) in [0, 1]."""
    total, count = torch.zeros(()), 0
    for batch in batches:
        total = total + pixels(batch.target, torch.float64).sum(0)
        count += len(batch.target)
    return (total / max(1, count)).float()


def nearest_view(context: Context, query: Tensor) -> Tensor:
    """Of each sample the context frame whose camera is nearest to the query's, (B, 3, H, W).

    The distance of two cameras is that of their positions joined with their unit directions of view, so that on a
    ring, where every camera looks at the centre, it is the distance along the ring. Of poses whose numbers are not
    DeepMind's seven nothing is known, and their distance is that of the numbers.

    Args:
        context: the observed views.
        query: poses (B, P).
    """
    apart = (_place(context.poses) - _place(query)[:, None]).square().sum(-1)
    nearest = apart.masked_fill(~context.mask, torch.inf).argmin(1)
    return context.frames[torch.arange(len(query), device=query.device), nearest]


def _place(poses: Tensor) -> Tensor:
    if poses.shape[-1] != POSE_NUMBERS:
        return poses
    sin_yaw, cos_yaw, sin_pitch, cos_pitch = poses[..., 3:].unbind(-1)
    direction = torch.stack([cos_yaw * cos_pitch, sin_yaw * cos_pitch, sin_pitch], -1)
    return torch.cat([poses[..., :3], direction], -1)
