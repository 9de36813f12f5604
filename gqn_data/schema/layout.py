"""What a scene of a dataset looks like: its views, frame size and camera numbers.

The catalogue says what is expected of a set; rendered and imported scenes say it themselves.
Imports `errors`, `images`, `origin`, `scene_sets`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gqn_data.errors import OriginError
from gqn_data.schema.catalog import CAMERA_FIELDS, SceneSet
from gqn_data.schema.jpeg import MOST_PIXELS
from gqn_data.schema.origin import Origin

# Far beyond any set; what a file claims beyond them is no scene, and no room is made for it.
_MOST = 1 << 16  # views, and pixels a side
_MOST_SCENE_BYTES = 4 << 30  # decoded


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


def layout_fault(views: object, height: object, width: object) -> str | None:
    """Why no scene has so many views of that size, found against possible; None where one may."""
    numbers = []
    for name, value in (("views", views), ("height", height), ("width", width)):
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST:
            return f"{name} is {repr(value)[:100]}, expected 1 to {_MOST}"
        numbers.append(value)
    count, high, wide = numbers
    if high * wide > MOST_PIXELS or count * high * wide * 3 > _MOST_SCENE_BYTES:
        return (
            f"scenes of {count} views of {wide}x{high} pixels, expected {MOST_PIXELS} pixels a frame "
            f"and {_MOST_SCENE_BYTES >> 30} GiB a scene at most"
        )
    return None


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
        fault = layout_fault(views, size, size)
        if fault is not None:
            raise OriginError(f"source.json: {fault}; write it anew")
        because = f"source.json says {views} views of {size}x{size}"
    return SceneLayout(views=views, height=size, width=size, camera_fields=scene_set.camera_fields, because=because)
