"""Renderers for the scene sets, one file per family of sets; `RENDERERS` maps each set to its renderer.

numba, of the extra `render`, is imported when the first frame is rendered, because commands import this package only
to list the sets.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from gqn_data.errors import ExtraMissing, UnknownName
from gqn_data.schema.catalog import Split, find_scene_set

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

# Raise it if a pixel or a camera of any set changes for the same seed. `source.json` records it.
RENDERER_VERSION = 3


class RenderedScene(NamedTuple):
    """One rendered scene.

    Attributes:
        frames: uint8 (views, frame_size, frame_size, 3), RGB; of the chosen views if there was a choice.
        cameras: float32 (views, 5), in DeepMind's raw layout, of all views.
    """

    frames: NDArray[np.uint8]
    cameras: NDArray[np.float32]


class Renderer(Protocol):
    """Function that renders one scene of one set. The result depends only on the arguments."""

    def __call__(
        self,
        index: int,
        *,
        seed: int,
        split: Split,
        frame_size: int,
        views: int,
        supersample: bool,
        chosen: Sequence[int] | None = None,
        out: NDArray[np.uint8] | None = None,
    ) -> RenderedScene:
        """Render scene `index` of a split.

        Args:
            index: index of the scene in its split, from 0.
            seed: seed of the scene set, not negative.
            split: `train` or `test`.
            frame_size: height and width of a frame in pixels.
            views: number of views.
            supersample: cast 2x2 rays per pixel instead of one.
            chosen: numbers of the views whose frames are rendered, in this order; None for all.
            out: uint8 (chosen views, frame_size, frame_size, 3), C-contiguous, to render into; None for a new array.
        """
        ...


def _imported(module: str, function: str, *kind: str | int) -> Renderer:
    """Return a renderer that imports `function` from a module of this package when it is called.

    Args:
        module: name of the module.
        function: name of a `Renderer`, or of a function that takes `kind` before the arguments of one.
        kind: what the function renders, if it renders several sets.
    """

    def render(*arguments: Any, **options: Any) -> RenderedScene:
        found = getattr(importlib.import_module(f"{__name__}.{module}"), function)
        scene: RenderedScene = found(*kind, *arguments, **options)
        return scene

    return render


_FREE_ROOMS = ("rooms_free_camera_no_object_rotations", "rooms_free_camera_with_object_rotations")
RENDERERS: dict[str, Renderer] = {
    "jaco": _imported("jaco", "render_jaco_scene"),
    "mazes": _imported("mazes", "render_maze_scene"),
    **{name: _imported("room_cameras", "render_free_scene", name) for name in _FREE_ROOMS},
    "rooms_ring_camera": _imported("room_cameras", "render_ring_scene"),
    "shepard_metzler_5_parts": _imported("shepard_metzler", "render_chain_scene", 5),
    "shepard_metzler_7_parts": _imported("shepard_metzler", "render_chain_scene", 7),
}


# Sets whose real frames have jagged edges. The others are rendered with 2x2 rays per pixel unless asked otherwise.
ONE_RAY_SETS = frozenset({"mazes", "shepard_metzler_5_parts", "shepard_metzler_7_parts"})

STATUS_LINE_SET = "mazes"  # its renderer takes `status_line`


def find_renderer(name: str) -> tuple[str, Renderer]:
    """Return DeepMind's name of a scene set, and its renderer.

    Args:
        name: name of the set, or an alias.

    Raises:
        UnknownSceneSet: the name is unknown.
        UnknownName: this set cannot be rendered.
        ExtraMissing: numba is not installed.
    """
    scene_set = find_scene_set(name).name
    renderer = RENDERERS.get(scene_set)
    if renderer is None:
        raise UnknownName("rendered scene set", scene_set, RENDERERS)
    if importlib.util.find_spec("numba") is None:
        raise ExtraMissing("rendering needs numba, which is not installed. Run: pip install numba")
    return scene_set, renderer
