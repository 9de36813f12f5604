"""What a scene of a dataset looks like: its views, frame size and camera numbers.

The catalogue says what is expected of a set; rendered and imported scenes say it themselves.
Imports `errors`, `origin`, `scene_sets`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gqn_data.errors import OriginError
from gqn_data.origin import Origin
from gqn_data.scene_sets import CAMERA_FIELDS, SceneSet


@dataclass(frozen=True, kw_only=True)
class SceneLayout:
    """The shape of every scene of a dataset.

    Attributes:
        views: views in a scene.
        height: of a frame, in pixels.
        width: of a frame, in pixels.
        camera_fields: the names of a camera's numbers, in order.
        because: who says so; for messages.
    """

    views: int
    height: int
    width: int
    camera_fields: tuple[str, ...] = CAMERA_FIELDS
    because: str = field(default="", compare=False)

    @property
    def cameras_shape(self) -> tuple[int, int]:
        """(views, camera numbers)."""
        return self.views, len(self.camera_fields)

    @property
    def frames_shape(self) -> tuple[int, int, int, int]:
        """(views, height, width, 3)."""
        return self.views, self.height, self.width, 3

    @property
    def frame_bytes(self) -> int:
        """Bytes of one decoded frame."""
        return self.height * self.width * 3

    @property
    def remedy(self) -> str:
        """What to do where a frame does not fit."""
        return f"fetch the file again, or name the right set with --set ({self.because})"


def layout_of(scene_set: SceneSet, origin: Origin) -> SceneLayout:
    """The layout of a raw folder: the catalogue's, or what the renderer noted in `source.json`.

    Raises:
        OriginError: `source.json` tells a size or a number of views that cannot be.
    """
    size, views = scene_set.frame_size, scene_set.views
    because = f"{scene_set.name} has {views} views of {size}x{size}"
    if origin.kind == "rendered":
        size = origin.details.get("frame_size", size)
        views = origin.details.get("views", views)
        because = f"source.json says {views} views of {size}x{size}"
        if not (isinstance(size, int) and isinstance(views, int) and size > 0 and views > 0):
            raise OriginError(f"source.json: expected a frame size and a number of views; found {size!r}, {views!r}")
    return SceneLayout(views=views, height=size, width=size, camera_fields=scene_set.camera_fields, because=because)
