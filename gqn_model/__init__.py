"""gqn_model: the generative query network, its training and its evaluation.

`from gqn_model import GQN` gives the network and imports torch; importing the package does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from gqn_model.model.gqn import GQN as GQN

__all__ = ["GQN"]

__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={"model.gqn": ["GQN"]})
