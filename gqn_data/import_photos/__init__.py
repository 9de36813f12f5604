"""Photos with known cameras to a dataset: `import_photos`, and `gqn-data import`.

`transforms`, `colmap` and `camera_table` read one kind of camera file each, into a `capture`: a folder of photos with
lenses and poses. `world` turns its axes so that z is up and scales its positions, `lens` projects, `warp` makes frames
of one field of view, `run` does it all and writes the scenes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from gqn_data.import_photos.run import import_photos as import_photos

__all__ = ["import_photos"]

__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={"run": ["import_photos"]})
