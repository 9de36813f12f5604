"""gqn_model: the generative query network and a plane sweep, their training and their evaluation.

    from gqn_model import load_model
    model = load_model("runs/first")

Names are imported on first use and import torch; importing the package does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from gqn_model.checkpoint.load import load_model as load_model
    from gqn_model.checkpoint.load import load_pretrained as load_pretrained
    from gqn_model.checkpoint.load import load_safetensors as load_safetensors
    from gqn_model.model.gqn import GQN as GQN

__all__ = ["GQN", "load_model", "load_pretrained", "load_safetensors"]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "model.gqn": ["GQN"],
        "checkpoint.load": ["load_model", "load_pretrained", "load_safetensors"],
    },
)
