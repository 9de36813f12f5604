"""Conversion: source files to shards, from a folder, a bucket or a renderer; `SceneWriter` for your own scenes.

`run` converts a folder; `from_bucket` and `from_renderer` convert while source files arrive (`incremental_run`).
`plan` decides which scenes make which shard, `shard_task` writes one shard, `destination` publishes the dataset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from gqn_data.convert.run import convert as convert

__all__ = ["convert"]

__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={"run": ["convert"]})
