"""The request for a rendering run: validated parameters, and its scenes laid out in DeepMind's source files.

Nothing is rendered or written here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict, Unpack

from gqn_data.counts import as_count
from gqn_data.errors import OptionError
from gqn_data.executors.pool import usable_cores
from gqn_data.render import ONE_RAY_SETS, RENDERER_VERSION, STATUS_LINE_SET, RenderedScene, find_renderer
from gqn_data.schema import origin
from gqn_data.schema.catalog import SCENE_SETS, SPLITS, SceneSet, Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Chosen by bytes per frame, and by comparison with frames of known quality (docs/rendering.md).
DEFAULT_QUALITY = 95
FRAME_SIZES = (16, 512)
VIEWS = (1, 1000)
QUALITIES = (1, 100)

# A worker takes a few seconds to start; a core casts this many rays in about three.
_RAYS_WORTH_A_WORKER = 3 << 24


class ParameterOptions(TypedDict, total=False):
    """Keyword arguments of `Parameters.of`."""

    seed: int
    frame_size: int | None
    views: int | None
    quality: int
    supersample: bool | None
    status_line: bool


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Parameters shared by every scene of a run.

    Attributes:
        scene_set: DeepMind's name of the set.
        seed: seed of the scene set, not negative.
        frame_size: height and width of a frame in pixels.
        views: views per scene.
        quality: JPEG quality.
        supersample: cast 2x2 rays per pixel instead of one.
        status_line: draw the status line of the real frames (mazes only).
    """

    scene_set: str
    seed: int
    frame_size: int
    views: int
    quality: int
    supersample: bool
    status_line: bool = True

    @property
    def row(self) -> SceneSet:
        """The set's row in the catalogue."""
        return SCENE_SETS[self.scene_set]

    @property
    def origin(self) -> origin.Origin:
        """The origin that `source.json` and the manifest record."""
        return origin.Origin(
            kind="rendered",
            details={
                "renderer": "gqn-toolkit",
                "version": RENDERER_VERSION,
                "seed": self.seed,
                "frame_size": self.frame_size,
                "views": self.views,
                "jpeg_quality": self.quality,
                "supersample": self.supersample,
                **({"status_line": self.status_line} if self.scene_set == STATUS_LINE_SET else {}),
            },
        )

    @classmethod
    def of(
        cls,
        name: str,
        *,
        seed: int = 0,
        frame_size: int | None = None,
        views: int | None = None,
        quality: int = DEFAULT_QUALITY,
        supersample: bool | None = None,
        status_line: bool = True,
    ) -> Parameters:
        """Return validated parameters; None for the value of the set.

        Raises:
            UnknownName: the set is unknown or cannot be rendered.
            ExtraMissing: numba is not installed.
            OptionError: a number is out of range.
        """
        scene_set, _ = find_renderer(name)
        row = SCENE_SETS[scene_set]
        if not status_line and scene_set != STATUS_LINE_SET:
            raise OptionError(f"{scene_set}: only {STATUS_LINE_SET} has a status line; leave out --no-status-line")
        return cls(
            scene_set=scene_set,
            seed=as_count("seed", seed, 0),
            frame_size=as_count("frame_size", row.frame_size if frame_size is None else frame_size, *FRAME_SIZES),
            views=as_count("views", row.views if views is None else views, *VIEWS),
            quality=as_count("quality", quality, *QUALITIES),
            supersample=scene_set not in ONE_RAY_SETS if supersample is None else supersample,
            status_line=status_line,
        )

    def render(
        self, split: Split, index: int, *, chosen: Sequence[int] | None = None, out: NDArray[np.uint8] | None = None
    ) -> RenderedScene:
        """Render scene `index` of a split; see `Renderer` for the other arguments."""
        _, render = find_renderer(self.scene_set)
        extra = {} if self.status_line else {"status_line": False}
        return render(
            index,
            seed=self.seed,
            split=split,
            frame_size=self.frame_size,
            views=self.views,
            supersample=self.supersample,
            chosen=chosen,
            out=out,
            **extra,
        )

    @property
    def rays(self) -> int:
        """Primary rays per scene, shadow rays not counted."""
        return self.views * self.frame_size**2 * (4 if self.supersample else 1)

    def useful_workers(self, scenes: int) -> int:
        """Return the number of workers: one per core, fewer if a worker would start longer than it renders."""
        return max(1, min(usable_cores(), scenes * self.rays // _RAYS_WORTH_A_WORKER))


@dataclass(frozen=True, kw_only=True)
class PlannedFile:
    """One source file: scenes [first, last) of its split.

    Attributes:
        name: path relative to the raw folder, such as `train/0001-of-2160.tfrecord`.
        split: split of the scenes.
        first: index in the split of the first scene.
        last: one past the index of the last scene.
        full: number of scenes in DeepMind's file of that name.
    """

    name: str
    split: Split
    first: int
    last: int
    full: int

    @property
    def scenes(self) -> int:
        """Number of scenes in the file."""
        return self.last - self.first


@dataclass(frozen=True, kw_only=True)
class Request:
    """Scenes to render, and the source files that will hold them.

    Attributes:
        parameters: parameters of every scene.
        wanted: number of scenes per split.
        files: source files, in order, split by split.
    """

    parameters: Parameters
    wanted: dict[Split, int]
    files: tuple[PlannedFile, ...]

    @classmethod
    def of(cls, name: str, *, scenes: int, split: Split | None = None, **options: Unpack[ParameterOptions]) -> Request:
        """Return the request for the arguments of `render_scene_set`; `options` are those of `Parameters.of`.

        Raises:
            UnknownName: the set is unknown or cannot be rendered.
            OptionError: a number is out of range.
        """
        parameters = Parameters.of(name, **options)
        wanted = split_scenes(as_count("scenes", scenes, 1), split)
        files = [file for split_name, count in wanted.items() for file in _planned(parameters.row, split_name, count)]
        return cls(parameters=parameters, wanted=wanted, files=tuple(files))

    def of_split(self, split: Split) -> Sequence[PlannedFile]:
        """Return the files of one split."""
        return [file for file in self.files if file.split == split]


def split_scenes(scenes: int, split: Split | None) -> dict[Split, int]:
    """Return the number of scenes per split.

    With None, nine in ten are for training; from two scenes on, at least one is for testing.
    """
    if split is not None:
        if split not in SPLITS:
            raise OptionError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
        return {split: scenes}
    test = max(1, round(scenes / 10)) if scenes >= 2 else 0
    return {"train": scenes - test, "test": test} if test else {"train": scenes}


def _planned(row: SceneSet, split: Split, scenes: int) -> list[PlannedFile]:
    """Return the files that hold the first `scenes` scenes of a split, under DeepMind's names."""
    facts = row.split(split)
    if scenes > facts.scenes:
        raise OptionError(
            f"number of {split} scenes of {row.name} is {scenes}, expected 1 to {facts.scenes}, DeepMind's number"
        )
    files: list[PlannedFile] = []
    first, number = 0, 1
    while first < scenes:
        full = facts.scenes_in_file(number)
        last = min(first + full, scenes)
        name = row.source_name(split, number)
        files.append(PlannedFile(name=name, split=split, first=first, last=last, full=full))
        first, number = last, number + 1
    return files
