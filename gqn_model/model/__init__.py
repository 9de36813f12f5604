"""The network: GQN, its encoders and cores, and the tensors that it reads.

Modules here import torch; importing this package does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from gqn_model.model.gqn import GQN as GQN
    from gqn_model.model.inputs import Context as Context
    from gqn_model.model.inputs import Inputs as Inputs

__all__ = ["GQN", "Context", "Inputs"]

__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={"gqn": ["GQN"], "inputs": ["Context", "Inputs"]})
