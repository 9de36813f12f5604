"""The models, what all of them have in common (`contract`), and the tensors that they read.

Modules here import torch; importing this package does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from gqn_model.model.gqn import GQN as GQN
    from gqn_model.model.inputs import Context as Context
    from gqn_model.model.inputs import Inputs as Inputs
    from gqn_model.model.plane_sweep import PlaneSweep as PlaneSweep

__all__ = ["GQN", "Context", "Inputs", "PlaneSweep"]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={"gqn": ["GQN"], "inputs": ["Context", "Inputs"], "plane_sweep": ["PlaneSweep"]},
)
