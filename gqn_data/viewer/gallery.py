"""Scenes of a dataset for a page: frames and cameras with a known geometry."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gqn_data.dataset import open_dataset
from gqn_data.errors import OptionError
from gqn_data.io.paths import DatasetPath, RenderAddress, parse_dataset_path
from gqn_data.schema.cameras import check_finite
from gqn_data.schema.catalog import CAMERA_FIELDS, Split
from gqn_data.schema.geometry import Geometry

# Scenes of a `render:` address without a number of scenes.
RENDERED_SCENES = 1000

# Shown for datasets that do not state theirs: the lens of the rooms.
_ASSUMED = Geometry(field_of_view=50.0, yaw_sign=1, depth_range=(0.1, 10.0))

_KEPT_SCENES = 8


class Views(NamedTuple):
    """The views of a scene.

    Attributes:
        frames: uint8 (V, H, W, 3).
        cameras: float32 (V, 5), all finite.
    """

    frames: NDArray[np.uint8]
    cameras: NDArray[np.float32]


class Gallery:
    """Scenes of a dataset with cameras of known meaning. One thread may use it.

    Args:
        path: a dataset, or a `render:` address, whose first 1,000 scenes are shown if it is endless.
        read: return the views of a scene; None to read them at the dataset's frame size.
        first: split that a page begins with, if the dataset has it.
        geometry: how its cameras see; None for what the dataset states.

    Raises:
        OptionError: the cameras are not x, y, z, yaw, pitch.
        SourceMissing: the path is not a dataset.
        ManifestError: the manifest is invalid.
    """

    def __init__(
        self,
        path: str | DatasetPath,
        read: Callable[[Split, int], Views] | None = None,
        first: Split = "train",
        geometry: Geometry | None = None,
    ) -> None:
        path = parse_dataset_path(path)
        if isinstance(path, RenderAddress):
            path = path.bounded(RENDERED_SCENES)
        opened = open_dataset(path)
        manifest, layout = opened.manifest, opened.layout
        if layout.camera_fields != CAMERA_FIELDS:
            raise OptionError(
                f"{path}: cameras of the numbers {', '.join(layout.camera_fields)}, expected "
                f"{', '.join(CAMERA_FIELDS)}: the meaning of others is unknown. Draw frames only: gqn-data view {path}"
            )
        self.path = path
        self.scene_set = manifest.scene_set
        self.views = layout.views
        self.size = (layout.height, layout.width)
        self.origin = manifest.origin.kind
        self.datasets = {
            split: open_dataset(path, split)
            for split in sorted(manifest.splits, key=lambda split: split != first)
            if manifest.splits[split].scenes
        }
        if not self.datasets:
            raise OptionError(f"{path}: 0 scenes, expected at least 1 to show")
        for dataset in self.datasets.values():
            dataset.prepare()
        known = geometry or manifest.geometry
        self.is_assumed = known is None
        self.geometry = known or _ASSUMED
        self._read = read or self._decode
        self._kept: OrderedDict[tuple[Split, int], Views] = OrderedDict()

    @property
    def assumption(self) -> str:
        """What is assumed about the cameras, as a sentence; empty if the dataset states its geometry."""
        if not self.is_assumed:
            return ""
        return (
            f"the dataset does not state its geometry: assuming a field of view of {_ASSUMED.field_of_view:g} degrees "
            "and a yaw that grows counter-clockwise; state it with SceneWriter(field_of_view=, yaw_sign=, depth_range=)"
        )

    def views_of(self, split: Split, scene: int) -> Views:
        """Return the views of a scene; the last few scenes are kept.

        Raises:
            CorruptFrame: a frame cannot be decoded, or a camera is not finite.
            GQNError: a shard cannot be read.
        """
        key = split, scene
        views = self._kept.pop(key, None)
        if views is None:
            views = self._read(split, scene)
            check_finite(views.cameras)
        self._kept[key] = views
        if len(self._kept) > _KEPT_SCENES:
            self._kept.popitem(last=False)
        return views

    def _decode(self, split: Split, scene: int) -> Views:
        found = self.datasets[split][scene]
        return Views(found.frames, found.cameras)
