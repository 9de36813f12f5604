"""Layout of the scenes of a dataset: views, frame size and camera fields.

Rendered scenes have the layout in their `source.json`, all others the layout in the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gqn_data.errors import OriginError
from gqn_data.schema.catalog import CAMERA_FIELDS, SceneSet
from gqn_data.schema.jpeg import MAX_PIXELS
from gqn_data.schema.origin import Origin

# Far above any set. They bound the memory allocated on the word of a file.
_MAX_COUNT = 1 << 16  # views, and pixels per side
_MAX_SCENE_BYTES = 4 << 30  # decoded


@dataclass(frozen=True, kw_only=True)
class SceneLayout:
    """Shape of every scene of a dataset.

    Attributes:
        views: views per scene.
        height: height of a frame in pixels.
        width: width of a frame in pixels.
        camera_fields: names of the numbers of a camera, in order.
        because: source of these values, for messages.
    """

    views: int
    height: int
    width: int
    camera_fields: tuple[str, ...] = CAMERA_FIELDS
    because: str = field(default="", compare=False)

    @property
    def cameras_shape(self) -> tuple[int, int]:
        """(views, camera fields)."""
        return self.views, len(self.camera_fields)

    @property
    def frames_shape(self) -> tuple[int, int, int, int]:
        """(views, height, width, 3)."""
        return self.views, self.height, self.width, 3

    @property
    def frame_bytes(self) -> int:
        """Size of one decoded frame in bytes."""
        return self.height * self.width * 3

    @property
    def remedy(self) -> str:
        """What the user can do if a frame does not match."""
        return f"fetch the file again, or pass the right set with --set ({self.because})"


def layout_fault(views: object, height: object, width: object) -> str | None:
    """Return why a layout is invalid: what was found and what is possible. None if it is valid."""
    numbers = []
    for name, value in (("views", views), ("height", height), ("width", width)):
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MAX_COUNT:
            return f"{name} is {repr(value)[:100]}, expected 1 to {_MAX_COUNT}"
        numbers.append(value)
    count, high, wide = numbers
    if high * wide > MAX_PIXELS or count * high * wide * 3 > _MAX_SCENE_BYTES:
        return (
            f"scenes of {count} views of {wide}x{high} pixels, expected at most {MAX_PIXELS} pixels per frame "
            f"and {_MAX_SCENE_BYTES >> 30} GiB per scene"
        )
    return None


def layout_of(scene_set: SceneSet, origin: Origin) -> SceneLayout:
    """Return the layout of a raw folder: from `source.json` if the scenes are rendered, else from the catalogue.

    Raises:
        OriginError: `source.json` contains an invalid frame size or number of views.
    """
    size, views = scene_set.frame_size, scene_set.views
    because = f"{scene_set.name} has {views} views of {size}x{size}"
    if origin.kind == "rendered":
        size = origin.details.get("frame_size", size)
        views = origin.details.get("views", views)
        fault = layout_fault(views, size, size)
        if fault is not None:
            raise OriginError(f"source.json: {fault}. Correct the file, or render the scenes again")
        because = f"source.json says {views} views of {size}x{size}"
    return SceneLayout(views=views, height=size, width=size, camera_fields=scene_set.camera_fields, because=because)
