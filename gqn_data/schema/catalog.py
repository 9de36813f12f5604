"""The catalogue: what is known of each scene set. A scene set is one row of `SCENE_SETS`.

Facts only; nothing here touches a disk. Counts are what DeepMind's reader and README announce and are called
*expected*: every other module counts what it finds. Imports `errors` alone.

Sources: the public reader (google-deepmind/gqn-datasets, data_reader.py) for files, frame sizes and views;
the paper (Eslami et al., Science 360, 2018, supplement) for the largest number of context views; the
bucket's listing, as reported by users, for scenes and bytes. For the three sets of E-GQN (Tobin et al., NeurIPS 2019)
their public reader (josh-tobin/egqn-datasets) alone: it names files, splits, frame sizes, views and camera numbers,
and neither scenes nor bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from gqn_data.errors import OptionError, UnknownSceneSet

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

# The five raw numbers of a camera, in DeepMind's order; angles in radians, positions in units of the set.
CAMERA_FIELDS = ("x", "y", "z", "yaw", "pitch")

# The nine numbers of two E-GQN sets: their reader hands them on as they are, and nobody says what they mean.
_NINE_NUMBERS = tuple(f"number_{number}" for number in range(1, 10))

# What the angles among the numbers of a camera are measured in.
Angles = Literal["radians", "undocumented"]

_GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class SplitFacts:
    """What is expected of one split.

    Attributes:
        files: number of source files in the bucket.
        runs: pairs (files, scenes per file), in file order; the files sum to `files`. No scenes: nobody says how many.
        settled: false where the sources disagree about the number of scenes, or do not tell it.
        first: the number of its first source file.
        of: the number of files that their names tell, where one numbering runs through both splits; None: `files`.
    """

    files: int
    runs: tuple[tuple[int, int], ...]
    settled: bool = True
    first: int = 1
    of: int | None = None

    @property
    def scenes(self) -> int:
        """The expected number of scenes of the split; 0 where nobody says."""
        return sum(files * scenes for files, scenes in self.runs)

    @property
    def numbers(self) -> range:
        """The numbers of its source files."""
        return range(self.first, self.first + self.files)

    def scenes_in_file(self, number: int) -> int:
        """The expected number of scenes in source file `number`; 0 where nobody says."""
        place = self._checked(number) - self.first
        last = 0
        for files, scenes in self.runs:
            last += files
            if place < last:
                return scenes
        return 0

    def file_name(self, number: int) -> str:
        """DeepMind's name of source file `number`: `0001-of-2160.tfrecord`."""
        of = self.of or self.files
        return f"{self._checked(number):0{len(str(of))}d}-of-{of}.tfrecord"

    def _checked(self, number: int) -> int:
        if number not in self.numbers:
            last = self.first + self.files - 1
            raise OptionError(f"source file {number} is out of range; the split has files {self.first} to {last}")
        return number


@dataclass(frozen=True, kw_only=True)
class SceneSet:
    """One row of the catalogue.

    Attributes:
        name: DeepMind's name.
        aliases: the short names that users type.
        frame_size: height and width of a frame in pixels.
        views: views in a scene.
        context_views: the largest number of context views in the paper.
        raw_bytes: size of all source files, in bytes; 0 where nobody says.
        train: facts of the training split.
        test: facts of the test split.
        camera_fields: the names of the numbers of one camera.
        angles: what the angles among them are measured in.
        bucket: the name of the public bucket on Google Cloud Storage that holds the source files.
        about: what its scenes show, in a clause (after the READMEs beside both readers).
        split_folders: whether source files lie in `train/` and `test/`, or all in the set's own folder.
        settled: false where it is not settled whether the bucket still gives the files.
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
        """Where the bucket answers over HTTPS; a file of the set lies at `<bucket_url>/<set>/<source_name>`."""
        return f"https://storage.googleapis.com/{self.bucket}"

    def source_name(self, split: Split, number: int) -> str:
        """Where source file `number` of a split lies in the set's folder: `train/0001-of-2160.tfrecord`."""
        name = self.split(split).file_name(number)
        return f"{split}/{name}" if self.split_folders else name

    def split(self, name: Split) -> SplitFacts:
        """The facts of the split of that name."""
        return self.train if name == "train" else self.test


def _even(files: int, scenes: int, *, settled: bool = True) -> SplitFacts:
    return SplitFacts(files=files, runs=((files, scenes),), settled=settled)


def _egqn(name: str, alias: str, about: str, *, train: range, test: range, of: int, nine_numbers: bool) -> SceneSet:
    """A set of E-GQN: one folder of files, split by their numbers."""
    splits = [
        SplitFacts(files=len(numbers), runs=(), settled=False, first=numbers.start, of=of) for numbers in (train, test)
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


# The first 500 training files of both Shepard-Metzler sets hold 20 scenes each; they are whole.
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
            test=_even(226, 5000, settled=False),  # 0.63 M and 1.13 M are both reported
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
            # 806.4 k is reported as well for this one
            train=SplitFacts(files=900, runs=_SHEPARD_METZLER_TRAIN.runs, settled=False),
            test=_even(100, 2000),
        ),
        _egqn(
            "openai-block",
            "oab",
            "a robot's hand with a lettered cube in it; fingers, light and textures vary",
            train=range(1, 2001),
            test=range(2001, 2501),
            of=2500,
            nine_numbers=True,
        ),
        _egqn(
            "disco-humanoid",
            "disco",
            "a humanoid with all its joints at random; light and textures vary",
            train=range(1, 2001),
            test=range(2001, 2501),
            of=2500,
            nine_numbers=True,
        ),
        _egqn(
            "rooms-random-objects",
            "rro",
            "one to four objects of ShapeNet dropped into a room; light and textures vary",
            train=range(2, 1601),  # their reader leaves out file 1
            test=range(1601, 1944),
            of=1943,
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
    """The row of that name or alias; hyphens count as underscores, case does not count.

    Raises:
        UnknownSceneSet: no row has that name; the message offers the nearest one.
    """
    row = _BY_ANY_NAME.get(_plain(name))
    if row is None:
        raise UnknownSceneSet("scene set", name, _BY_ANY_NAME)
    return row


def is_set_name(name: str) -> bool:
    """Whether a dataset may bear the name: of the catalogue, or any plain one (`my_scenes`)."""
    return _OWN_NAME.fullmatch(name) is not None


def is_in_catalogue(name: str) -> bool:
    """Whether the catalogue knows the name, or a spelling of it."""
    return _plain(name) in _BY_ANY_NAME


def source_file_number(name: str) -> int | None:
    """The number (from 1) of a source file by its exact name, or None for any other file.

    `.DS_Store`, `._0001-of-2160.tfrecord`, half-downloaded and temporary files are no source files.
    """
    match = _SOURCE_NAME.fullmatch(name)
    if match is None:
        return None
    number, of = match.groups()
    right_width = len(number) == len(of)
    return int(number) if right_width and 1 <= int(number) <= int(of) else None
