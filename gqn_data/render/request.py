"""What is to be rendered: numbers checked against their ranges, scenes shared among DeepMind's source files.

Nothing is rendered or written here. Imports the rest of the package, `origin` and `scene_sets`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gqn_data.errors import OptionError
from gqn_data.executors.pool import usable_cores
from gqn_data.render import RENDERER_VERSION, find_renderer
from gqn_data.schema import origin
from gqn_data.schema.catalog import SCENE_SETS, SPLITS, SceneSet, Split

# Chosen by bytes a frame and by how frames of known quality look (docs/rendering.md).
DEFAULT_QUALITY = 95
FRAME_SIZES = (16, 512)
VIEWS = (1, 1000)
QUALITIES = (1, 100)

# A worker takes some seconds to start; a core casts as many rays in about three.
_RAYS_WORTH_A_WORKER = 3 << 24


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What every scene of a run is rendered with.

    Attributes:
        scene_set: DeepMind's name of the set.
        seed: not negative.
        frame_size: height and width of a frame in pixels.
        views: views of a scene.
        quality: of the JPEGs.
        supersample: casts 2x2 rays for a pixel instead of one.
    """

    scene_set: str
    seed: int
    frame_size: int
    views: int
    quality: int
    supersample: bool

    @property
    def row(self) -> SceneSet:
        """The set's row in the catalogue."""
        return SCENE_SETS[self.scene_set]

    @property
    def origin(self) -> origin.Origin:
        """What `source.json` and the manifest say of where the scenes come from."""
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
            },
        )

    @property
    def rays(self) -> int:
        """Rays of a scene, shadows aside."""
        return self.views * self.frame_size**2 * (4 if self.supersample else 1)

    def enough_workers(self, scenes: int) -> int:
        """As many workers as there are cores, but none that would take longer to start than to do its part."""
        return max(1, min(usable_cores(), scenes * self.rays // _RAYS_WORTH_A_WORKER))


@dataclass(frozen=True, kw_only=True)
class PlannedFile:
    """One source file: scenes [first, last) of its split.

    Attributes:
        name: from the raw folder: `train/0001-of-2160.tfrecord`.
        split: of the scenes.
        first: the number in the split of its first scene.
        last: the number after that of its last one.
        full: how many scenes DeepMind's file of that name holds.
    """

    name: str
    split: Split
    first: int
    last: int
    full: int

    @property
    def scenes(self) -> int:
        """Scenes in it."""
        return self.last - self.first


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be rendered.

    Attributes:
        parameters: of every scene.
        wanted: scenes of each split.
        files: that hold them, split by split, in order.
    """

    parameters: Parameters
    wanted: dict[Split, int]
    files: tuple[PlannedFile, ...]

    @classmethod
    def of(
        cls,
        name: str,
        *,
        scenes: int,
        split: Split | None = None,
        seed: int = 0,
        frame_size: int | None = None,
        views: int | None = None,
        quality: int = DEFAULT_QUALITY,
        supersample: bool = True,
    ) -> Request:
        """What `render_scene_set` is asked for; arguments as its own.

        Raises:
            UnknownName: no such set, or no renderer for it.
            OptionError: a number that cannot be.
        """
        scene_set, _ = find_renderer(name)
        row = SCENE_SETS[scene_set]
        parameters = Parameters(
            scene_set=scene_set,
            seed=at_least("seed", seed, 0),
            frame_size=_within("frame size", row.frame_size if frame_size is None else frame_size, FRAME_SIZES, " px"),
            views=_within("number of views", row.views if views is None else views, VIEWS),
            quality=_within("JPEG quality", quality, QUALITIES),
            supersample=supersample,
        )
        wanted = share(at_least("number of scenes", scenes, 1), split)
        files = [file for split_name, count in wanted.items() for file in _planned(row, split_name, count)]
        return cls(parameters=parameters, wanted=wanted, files=tuple(files))

    def of_split(self, split: Split) -> Sequence[PlannedFile]:
        """The files of one split."""
        return [file for file in self.files if file.split == split]


def share(scenes: int, split: Split | None) -> dict[Split, int]:
    """How many scenes each split gets; None shares them nine to one, with a test scene as soon as there are two."""
    if split is not None:
        if split not in SPLITS:
            raise OptionError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
        return {split: scenes}
    test = max(1, round(scenes / 10)) if scenes >= 2 else 0
    return {"train": scenes - test, "test": test} if test else {"train": scenes}


def at_least(what: str, value: int, low: int) -> int:
    """The value, which is not below `low`.

    Raises:
        OptionError: it is.
    """
    if value < low:
        raise OptionError(f"{what} is {value}, expected {low} or more")
    return value


def _within(what: str, value: int, allowed: tuple[int, int], unit: str = "") -> int:
    low, high = allowed
    if not low <= value <= high:
        raise OptionError(f"{what} is {value}{unit}, expected {low} to {high}{unit}")
    return value


def _planned(row: SceneSet, split: Split, scenes: int) -> list[PlannedFile]:
    """The files that hold the first `scenes` scenes of a split, under DeepMind's names."""
    facts = row.split(split)
    if scenes > facts.scenes:
        raise OptionError(
            f"{scenes} {split} scenes of {row.name}, expected 1 to {facts.scenes}, as DeepMind's files hold"
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
