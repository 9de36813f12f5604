"""gqn_data: the GQN scene sets as data: converted, checked, read, batched. Without torch but for the loader.

    import gqn_data
    scenes = gqn_data.open("data/zarr/rooms_ring_camera")
    with gqn_data.SceneWriter("data/zarr/my_scenes") as writer: ...

`gqn_data.loader` makes batches for PyTorch. Names are imported when first used, so that `import gqn_data` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gqn_data.version import VERSION

if TYPE_CHECKING:
    from gqn_data.dataset import Dataset
    from gqn_data.dataset import open_dataset as open  # noqa: A004  the name that users look for
    from gqn_data.own_scenes.scene_writer import SceneWriter
    from gqn_data.scene import Scene
    from gqn_data.scene_sets import SCENE_SETS, find_scene_set

__version__ = VERSION
__all__ = ["SCENE_SETS", "Dataset", "Scene", "SceneWriter", "__version__", "find_scene_set", "open"]

_HOMES = {
    "Dataset": ("gqn_data.dataset", "Dataset"),
    "open": ("gqn_data.dataset", "open_dataset"),
    "Scene": ("gqn_data.scene", "Scene"),
    "SceneWriter": ("gqn_data.own_scenes.scene_writer", "SceneWriter"),
    "SCENE_SETS": ("gqn_data.scene_sets", "SCENE_SETS"),
    "find_scene_set": ("gqn_data.scene_sets", "find_scene_set"),
}


def __getattr__(name: str) -> Any:
    try:
        module, attribute = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'gqn_data' has no attribute {name!r}") from None
    from importlib import import_module

    return getattr(import_module(module), attribute)
