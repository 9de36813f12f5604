"""The trainer: a generative query network, its training, its evaluation.

`from gqn_model import GQN` gives the network; torch is imported then and not before. Imports `gqn_data`, which never
imports this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gqn_model.model import GQN as GQN

__all__ = ["GQN"]


def __getattr__(name: str) -> Any:
    if name == "GQN":
        from gqn_model.model import GQN

        return GQN
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
