"""The networks that read the context views: a file each, and a line in the dict.

The dict names classes as text, so that the configuration and `--help` can list them without torch.
Floor: above `network`, below `config`. Imports it alone, where a class is made.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

# Name -> "module:class". A class takes (channels, frame_size, pose) and maps frames (N, 3, H, W) in [0, 1] and poses
# (N, pose) to r: (N, channels, H/4, W/4), or (N, channels, 1, 1) where the network keeps no map.
REPRESENTATIONS: dict[str, str] = {
    "tower": "gqn_model.model.tower:Tower",
    "pool": "gqn_model.model.pool:Pool",
    "pyramid": "gqn_model.model.pyramid:Pyramid",
}


def make_representation(name: str, channels: int, frame_size: int, pose: int) -> nn.Module:
    """A new representation network.

    Args:
        name: a name of `REPRESENTATIONS`.
        channels: channels of r.
        frame_size: height and width of a frame in pixels.
        pose: numbers of a pose.
    """
    module, _, attribute = REPRESENTATIONS[name].partition(":")
    network: nn.Module = getattr(importlib.import_module(module), attribute)(channels, frame_size, pose)
    return network
