"""PyTorch loader: batches of scenes from any container.

`from gqn_data.loader import SceneLoader` imports torch; importing this package or its other modules does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from gqn_data.loader.loader import Batch as Batch
    from gqn_data.loader.loader import SceneLoader as SceneLoader
    from gqn_data.loader.loader import on_device as on_device

__all__ = ["Batch", "SceneLoader", "on_device"]

__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={"loader": ["Batch", "SceneLoader", "on_device"]})
