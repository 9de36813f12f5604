"""gqn_data: convert, check, read and batch the GQN scene sets. Only `gqn_data.loader` needs torch.

    import gqn_data
    scenes = gqn_data.open("data/zarr/rooms_ring_camera")
    with gqn_data.SceneWriter("data/zarr/my_scenes") as writer: ...

Names are imported on first use, so that `import gqn_data` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

from gqn_data.version import VERSION

if TYPE_CHECKING:
    from gqn_data.convert.scene_writer import SceneWriter
    from gqn_data.dataset import Dataset, open  # noqa: A004  the name that users look for
    from gqn_data.schema.catalog import SCENE_SETS, find_scene_set
    from gqn_data.schema.scene import Scene

__version__ = VERSION
__all__ = ["SCENE_SETS", "Dataset", "Scene", "SceneWriter", "__version__", "find_scene_set", "open"]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "convert.scene_writer": ["SceneWriter"],
        "dataset": ["Dataset", "open"],
        "schema.catalog": ["SCENE_SETS", "find_scene_set"],
        "schema.scene": ["Scene"],
    },
)
