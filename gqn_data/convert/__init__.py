"""Conversion: source files to shards, from a folder, a bucket or a renderer; `SceneWriter` for your own scenes.

`engine` writes shards as their source files arrive; `run` feeds it a folder, `from_bucket` downloads, `from_renderer`
renderings. `plan` decides which scenes make which shard, `shard_task` writes one, `destination` publishes the dataset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from gqn_data.convert.run import convert as convert

__all__ = ["convert"]

__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={"run": ["convert"]})
