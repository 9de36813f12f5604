"""Catalogue of scene sets, one entry of `SCENE_SETS` per set.

Counts come from DeepMind's reader and README and are called *expected*. All other modules count what they find.

Sources:
    google-deepmind/gqn-datasets, data_reader.py: files, frame sizes, views.
    Eslami et al., Science 360, 2018, supplement: largest number of context views.
    Listing of the bucket, as reported by users: scenes, bytes.
    josh-tobin/egqn-datasets: files, splits, frame sizes, views and camera numbers of the three E-GQN sets (Tobin et
        al., NeurIPS 2019). It states neither scenes nor bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from gqn_data.errors import OptionError, UnknownSceneSet

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

# The five numbers of a camera in DeepMind's order. Angles are in radians, positions in units of the set.
CAMERA_FIELDS = ("x", "y", "z", "yaw", "pitch")

# Cameras of two E-GQN sets: their reader passes these numbers on unchanged, and their meaning is undocumented.
_NINE_NUMBERS = tuple(f"number_{number}" for number in range(1, 10))

# Unit of the angles in a camera.
Angles = Literal["radians", "undocumented"]

_GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class SplitFacts:
    """Expected facts of one split.

    Attributes:
        files: number of source files in the bucket.
        runs: (files, scenes per file) in file order, where the files sum to `files`; empty if the counts are unknown.
        settled: False if sources disagree about the number of scenes, or do not state it.
        first: number of the first source file.
        total: total in the file names, if both splits share one numbering; None for `files`.
    """

    files: int
    runs: tuple[tuple[int, int], ...]
    settled: bool = True
    first: int = 1
    total: int | None = None

    @property
    def scenes(self) -> int:
        """Expected number of scenes; 0 if unknown."""
        return sum(files * scenes for files, scenes in self.runs)

    @property
    def numbers(self) -> range:
        """Numbers of the source files."""
        return range(self.first, self.first + self.files)

    def scenes_in_file(self, number: int) -> int:
        """Return the expected number of scenes in source file `number`; 0 if unknown.

        Raises:
            OptionError: the number is out of range.
        """
        index = self._check_number(number) - self.first
        last = 0
        for files, scenes in self.runs:
            last += files
            if index < last:
                return scenes
        return 0

    def file_name(self, number: int) -> str:
        """Return the name of source file `number` in DeepMind's scheme, such as `0001-of-2160.tfrecord`.

        Raises:
            OptionError: the number is out of range.
        """
        total = self.total or self.files
        return f"{self._check_number(number):0{len(str(total))}d}-of-{total}.tfrecord"

    def _check_number(self, number: int) -> int:
        if number not in self.numbers:
            last = self.first + self.files - 1
            raise OptionError(f"source file {number} is out of range, expected files {self.first} to {last}")
        return number


@dataclass(frozen=True, kw_only=True)
class SceneSet:
    """Scene set: one entry of the catalogue.

    Attributes:
        name: DeepMind's name.
        aliases: short names for the command line.
        frame_size: height and width of a frame in pixels.
        views: views per scene.
        context_views: largest number of context views in the paper.
        raw_bytes: total size of the source files in bytes; 0 if unknown.
        train: facts of the training split.
        test: facts of the test split.
        camera_fields: names of the numbers of a camera.
        angles: unit of the angles in a camera.
        bucket: public bucket on Google Cloud Storage with the source files.
        about: what the scenes show, after the READMEs of both readers.
        split_folders: whether source files lie in `train/` and `test/`; otherwise all lie in the folder of the set.
        settled: False if it is uncertain that the bucket still serves the files.
    """

    name: str
    aliases: tuple[str, ...]
    frame_size: int
    views: int
    context_views: int
    raw_bytes: int
    train: SplitFacts
    test: SplitFacts
    camera_fields: tuple[str, ...] = CAMERA_FIELDS
    angles: Angles = "radians"
    bucket: str = "gqn-dataset"
    about: str = ""
    split_folders: bool = True
    settled: bool = True

    @property
    def bucket_url(self) -> str:
        """HTTPS URL of the bucket. The URL of a source file is `<bucket_url>/<set>/<source_name>`."""
        return f"https://storage.googleapis.com/{self.bucket}"

    def source_name(self, split: Split, number: int) -> str:
        """Return the path of a source file in the folder of the set, such as `train/0001-of-2160.tfrecord`."""
        name = self.split(split).file_name(number)
        return f"{split}/{name}" if self.split_folders else name

    def split(self, name: Split) -> SplitFacts:
        """Return the facts of a split."""
        return self.train if name == "train" else self.test


def _even(files: int, scenes: int, *, settled: bool = True) -> SplitFacts:
    return SplitFacts(files=files, runs=((files, scenes),), settled=settled)


def _egqn(name: str, alias: str, about: str, *, train: range, test: range, total: int, nine_numbers: bool) -> SceneSet:
    """Return a set of E-GQN: both splits lie in one folder, under one numbering."""
    splits = [
        SplitFacts(files=len(numbers), runs=(), settled=False, first=numbers.start, total=total)
        for numbers in (train, test)
    ]
    return SceneSet(
        name=name,
        about=about,
        aliases=(alias,),
        frame_size=128,
        views=4,
        context_views=3,
        raw_bytes=0,
        train=splits[0],
        test=splits[1],
        camera_fields=_NINE_NUMBERS if nine_numbers else CAMERA_FIELDS,
        angles="undocumented" if nine_numbers else "radians",
        bucket="egqn-datasets",
        split_folders=False,
        settled=False,
    )


# The first 500 training files of both Shepard-Metzler sets have 20 scenes each. They are complete.
_SHEPARD_METZLER_TRAIN = SplitFacts(files=900, runs=((500, 20), (400, 2000)))

SCENE_SETS: dict[str, SceneSet] = {
    row.name: row
    for row in (
        SceneSet(
            name="jaco",
            about="a robotic arm of nine joints in a room, beside a ball; the joints, colours and textures vary",
            aliases=("j",),
            frame_size=64,
            views=11,
            context_views=7,
            raw_bytes=199 * _GIB,
            train=_even(3600, 2000),
            test=_even(400, 2000),
        ),
        SceneSet(
            name="mazes",
            about="mazes on a grid of 7 by 7, with one or two rooms and corridors, seen along a walk",
            aliases=("maze", "m"),
            frame_size=84,
            views=300,
            context_views=20,
            raw_bytes=136 * _GIB,
            train=_even(1080, 100),
            test=_even(120, 100),
        ),
        SceneSet(
            name="rooms_free_camera_no_object_rotations",
            about="a square room with one to three objects that stand upright as they are, seen from anywhere",
            aliases=("rooms_free_camera", "rooms_free", "rfc"),
            frame_size=64,
            views=10,
            context_views=5,
            raw_bytes=256 * _GIB,
            train=_even(2160, 5000),
            test=_even(240, 5000),
        ),
        SceneSet(
            name="rooms_free_camera_with_object_rotations",
            about="a square room with one to three objects, each turned about its vertical axis, seen from anywhere",
            aliases=("rooms_free_camera_object_rotations", "rooms_free_rotations", "rfcr"),
            frame_size=128,
            views=10,
            context_views=5,
            raw_bytes=599 * _GIB,
            train=_even(2034, 5000),
            test=_even(226, 5000, settled=False),  # reports differ: 0.63 M and 1.13 M scenes
        ),
        SceneSet(
            name="rooms_ring_camera",
            about="a square room with one to three objects, seen from a ring by a camera that faces the centre",
            aliases=("rooms_ring", "rrc"),
            frame_size=64,
            views=10,
            context_views=5,
            raw_bytes=251 * _GIB,
            train=_even(2160, 5000),
            test=_even(240, 5000),
        ),
        SceneSet(
            name="shepard_metzler_5_parts",
            about="an object of 5 coloured cubes joined by a random walk, seen from a fixed distance",
            aliases=("shepard_metzler_5", "sm5"),
            frame_size=64,
            views=15,
            context_views=14,
            raw_bytes=21 * _GIB,
            train=_SHEPARD_METZLER_TRAIN,
            test=_even(100, 2000),
        ),
        SceneSet(
            name="shepard_metzler_7_parts",
            about="an object of 7 coloured cubes joined by a random walk, seen from a fixed distance",
            aliases=("shepard_metzler_7", "sm7"),
            frame_size=64,
            views=15,
            context_views=14,
            raw_bytes=24 * _GIB,
            # reports differ: 810 k and 806.4 k scenes
            train=SplitFacts(files=900, runs=_SHEPARD_METZLER_TRAIN.runs, settled=False),
            test=_even(100, 2000),
        ),
        _egqn(
            "openai-block",
            "oab",
            "a robot's hand with a lettered cube in it; fingers, light and textures vary",
            train=range(1, 2001),
            test=range(2001, 2501),
            total=2500,
            nine_numbers=True,
        ),
        _egqn(
            "disco-humanoid",
            "disco",
            "a humanoid with all its joints at random; light and textures vary",
            train=range(1, 2001),
            test=range(2001, 2501),
            total=2500,
            nine_numbers=True,
        ),
        _egqn(
            "rooms-random-objects",
            "rro",
            "one to four objects of ShapeNet dropped into a room; light and textures vary",
            train=range(2, 1601),  # the public reader skips file 1
            test=range(1601, 1944),
            total=1943,
            nine_numbers=False,
        ),
    )
}


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_")


_BY_ANY_NAME = {_plain(name): row for row in SCENE_SETS.values() for name in (row.name, *row.aliases)}

_OWN_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

_SOURCE_NAME = re.compile(r"(\d+)-of-(\d+)\.tfrecord")


def find_scene_set(name: str) -> SceneSet:
    """Return the scene set of a name or alias, ignoring case and treating hyphens as underscores.

    Raises:
        UnknownSceneSet: the name is unknown. The message suggests the nearest one.
    """
    row = _BY_ANY_NAME.get(_plain(name))
    if row is None:
        raise UnknownSceneSet("scene set", name, _BY_ANY_NAME)
    return row


def is_set_name(name: str) -> bool:
    """Return whether a dataset may have this name: one of the catalogue, or another plain name such as `my_scenes`."""
    return _OWN_NAME.fullmatch(name) is not None


def is_in_catalogue(name: str) -> bool:
    """Return whether `find_scene_set` accepts the name."""
    return _plain(name) in _BY_ANY_NAME


def source_file_number(name: str) -> int | None:
    """Return the number, from 1, of a source file given its name; None for any other file.

    Other files are `.DS_Store`, `._0001-of-2160.tfrecord`, partial downloads and temporary files.
    """
    match = _SOURCE_NAME.fullmatch(name)
    if match is None:
        return None
    number, total = match.groups()
    same_width = len(number) == len(total)
    return int(number) if same_width and 1 <= int(number) <= int(total) else None
