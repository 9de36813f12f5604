"""Scenes that are rendered when they are asked for, at an address such as `render:rooms_ring_camera`.

Scene i of a split depends on the scene set, the parameters, the seed, the split and i only. It equals scene i of
`gqn-data render` with the same parameters, without the loss of JPEG.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gqn_data import progress
from gqn_data.counts import as_count
from gqn_data.errors import EndlessError, OptionError, UnknownName
from gqn_data.io.paths import RenderAddress
from gqn_data.render import Renderer, find_renderer
from gqn_data.render.request import FRAME_SIZES, VIEWS, Parameters
from gqn_data.sampling.permutation import ENDLESS
from gqn_data.schema.cameras import POSE_FIELDS
from gqn_data.schema.catalog import SPLITS, Split
from gqn_data.schema.geometry import geometry_of
from gqn_data.schema.manifest import CamerasRow, FramesRow, Manifest, ShardRow, SplitRow
from gqn_data.schema.origin import Origin
from gqn_data.schema.scene import Scene
from gqn_data.version import TOOL

FORMAT = "render"  # in place of a container's name in the manifest
MOST_SCENES = 100_000_000  # ten times DeepMind's largest set; their numbers are shuffled in memory
MOST_SEED = (1 << 64) - 1

_COMPILING = "compiling the ray caster with numba, once: a few seconds"


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The scenes at an address.

    Attributes:
        address: the address.
        parameters: parameters of every scene.
        scenes: number of scenes of each split; None for training scenes without end.
    """

    address: RenderAddress
    parameters: Parameters
    scenes: int | None

    @property
    def manifest(self) -> Manifest:
        """A manifest as of a dataset, with one shard per split, and only the split train without end."""
        parameters, row = self.parameters, self.parameters.row
        # The fingerprint covers the origin: version of the renderer, seed and parameters. No frame is a JPEG.
        rendered = parameters.origin.details
        origin = Origin(kind="rendered", details={key: rendered[key] for key in rendered if key != "jpeg_quality"})
        scenes = ENDLESS if self.scenes is None else self.scenes
        split = SplitRow(
            scenes=scenes,
            scenes_per_shard=scenes,
            expected_scenes=0,
            expected_files=0,
            shards=(ShardRow(scenes=scenes, files=()),),
            sources=(),
        )
        size = parameters.frame_size
        return Manifest(
            scene_set=parameters.scene_set,
            format=FORMAT,
            frames=FramesRow(encoding="raw", views=parameters.views, height=size, width=size),
            cameras=CamerasRow(fields=row.camera_fields, angles=row.angles, pose=POSE_FIELDS),
            origin=origin,
            splits={"train": split} if self.scenes is None else dict.fromkeys(SPLITS, split),
            tool=TOOL,
            geometry=geometry_of(parameters.scene_set, origin),
        )


def open_stream(address: RenderAddress) -> Stream:
    """Return the scenes at an address; nothing is rendered yet.

    Raises:
        UnknownName: the scene set is unknown or cannot be rendered, or an option is unknown.
        ExtraMissing: numba is not installed.
        OptionError: the value of an option is invalid.
    """
    values: dict[str, Any] = {}
    for name, text in address.options:
        if name not in _OPTIONS:
            raise UnknownName("option of a render: address", name, _OPTIONS)
        try:
            values[name] = _OPTIONS[name](name, text)
        except OptionError as error:
            raise OptionError(f"{address}: {error}") from None
    scenes = values.pop("scenes", None)
    return Stream(address=address, parameters=Parameters.of(address.scene_set, **values), scenes=scenes)


def _count(least: int, most: int) -> Callable[[str, str], int]:
    def parse(name: str, text: str) -> int:
        # Digits of other scripts are decimal, too; 20 digits hold every allowed number.
        number = int(text) if text.isascii() and text.isdecimal() and len(text) <= 20 else text
        return as_count(name, number, least, most)

    return parse


def _flag(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise OptionError(f"{name} is {text!r}, expected true or false")
    return text == "true"


# Parser of each option's value; the names are those of `render_scene_set`.
_OPTIONS: dict[str, Callable[[str, str], Any]] = {
    "scenes": _count(1, MOST_SCENES),
    "seed": _count(0, MOST_SEED),
    "frame_size": _count(*FRAME_SIZES),
    "views": _count(*VIEWS),
    "supersample": _flag,
    "status_line": _flag,
}


@dataclass(frozen=True, kw_only=True)
class RenderedShard:
    """The scenes of a split, rendered on access; an open shard as `formats.contract.OpenShard` describes it."""

    stream: Stream
    split: Split

    def cameras(self, scene: int) -> NDArray[np.float32]:
        """Return the raw cameras of one scene: (views, camera numbers)."""
        return self.stream.parameters.render(self.split, scene, chosen=()).cameras

    def all_cameras(self) -> NDArray[np.float32]:
        """Return the raw cameras of all scenes: (scenes, views, camera numbers).

        Raises:
            EndlessError: the scenes are endless.
        """
        if self.stream.scenes is None:
            raise no_length(self.stream.address)
        return np.stack([self.cameras(scene) for scene in range(self.stream.scenes)])

    def scene(self, scene: int) -> Scene:
        """Render all views of one scene."""
        rendered = self.stream.parameters.render(self.split, scene)
        return Scene(rendered.cameras, pixels=rendered.frames)

    def arrays(self) -> None:
        """Return None: no array holds all scenes."""
        return

    def decode_into(self, scene: int, views: Sequence[int], out: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Render the frames of `views` into the first rows of `out`: (rows, height, width, 3).

        Returns:
            All raw cameras of the scene, (views, camera numbers).
        """
        rows = out[: len(views)]
        target = rows if rows.flags.c_contiguous else None
        rendered = self.stream.parameters.render(self.split, scene, chosen=views, out=target)
        if target is None:
            rows[...] = rendered.frames
        return rendered.cameras


def no_length(address: RenderAddress) -> EndlessError:
    """Return the error for the length of scenes without end."""
    return EndlessError(
        f"{address}: endless scenes do not have a length, expected a number of them: {address.bounded(1000)}"
    )


def warm_up(render: Renderer) -> None:
    """Compile the ray caster if needed, so that forked workers have the machine code, and others load it from disk."""
    from gqn_data.render.compiled import on_compile

    with on_compile(lambda: progress.message(_COMPILING)):
        render(0, seed=0, split="train", frame_size=FRAME_SIZES[0], views=1, supersample=False)


def warm_up_stream(stream: Stream) -> None:
    """Compile the ray caster of a stream, see `warm_up`."""
    warm_up(find_renderer(stream.parameters.scene_set)[1])
