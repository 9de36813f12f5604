"""`import_photos`: a folder of photos with known cameras to a dataset.

Everything is read and checked before the first frame is made: camera files, sizes of photos, directions, the common
field of view. The dataset appears when its last frame is written.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gqn_data.convert.scene_writer import SceneWriter
from gqn_data.counts import as_count
from gqn_data.errors import OptionError, UnknownName
from gqn_data.import_photos.capture import Capture, read_pixels
from gqn_data.import_photos.plan import (
    Roll,
    Scene,
    check_resolution,
    count_scenes,
    cut_scenes,
    find_depths,
    find_tangent,
    find_worlds,
    place_photos,
    views_of,
    warn_of_outliers,
)
from gqn_data.import_photos.readers import capture_folders, read_capture
from gqn_data.import_photos.warp import warp
from gqn_data.import_photos.world import World
from gqn_data.io.paths import StorePath, local_path, parse_path
from gqn_data.progress import bar, message
from gqn_data.schema.catalog import Split
from gqn_data.units import count_of

SIZES = (16, 512)  # of frames, as for rendered sets
TEST_EVERY = 8  # of LLFF's scenes, and of most papers on novel views since

_FEW_SCENES = 100


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Result of `import_photos`.

    Attributes:
        folder: folder of the dataset.
        scenes: scenes per split.
        views: views per scene.
        photos: photos found.
        dropped: photos left out because of their roll.
        field_of_view: of all frames, in degrees.
        limited_by: the photo that allows no larger one, or that it was asked for.
        depth_range: least and largest depth, in units of the dataset.
        depths_from: how the depth range is known.
        scales: least and largest factor from the positions in the camera files to those of the dataset.
        max_roll: largest roll of a photo that was levelled, in degrees.
    """

    folder: str
    scenes: dict[Split, int]
    views: int
    photos: int
    dropped: int
    field_of_view: float
    limited_by: str
    depth_range: tuple[float, float]
    depths_from: str
    scales: tuple[float, float]
    max_roll: float

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return asdict(self)

    def lines(self, shown: object) -> list[str]:
        """Return the report of a command.

        Args:
            shown: the folder as its user would write it.
        """
        scenes = ", ".join(f"{count} {split}" for split, count in self.scenes.items())
        low, high = (f"{value:.4g}" for value in self.scales)
        near, far = self.depth_range
        return [
            f"{shown}: {count_of(sum(self.scenes.values()), 'scene')} ({scenes}) of {count_of(self.views, 'view')}",
            f"  field of view {self.field_of_view:.2f} degrees (limited by {self.limited_by})",
            f"  positions multiplied by {low if low == high else f'{low} to {high}'}",
            f"  depths {near:.3g} to {far:.3g} ({self.depths_from})",
            f"  {count_of(self.photos, 'photo')}, {self.dropped} dropped; roll of up to {self.max_roll:.1f} degrees "
            "turned out",
        ]


def import_photos(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str] | StorePath,
    *,
    name: str | None = None,
    format: str = "zarr",  # noqa: A002  the command line's word
    size: int = 64,
    views: int | None = None,
    test_every: int = TEST_EVERY,
    roll: Roll = "refuse",
    up: str = "auto",
    scale: float | Literal["scene", "set"] = "scene",
    field_of_view: float | None = None,
    depth_range: tuple[float, float] | None = None,
    jpeg_quality: int | None = None,
    overwrite: bool = False,
    log: Callable[[str], None] = message,
) -> Imported:
    """Write the photos of a folder to a dataset.

    The folder holds one camera file with its photos, or folders that do.

    Args:
        folder: the folder of photos.
        out: folder of the dataset; a path, or the URL of an object store.
        name: name of the scene set; None for the name of `out`.
        format: container, as in `gqn-data convert --format`.
        size: width and height of a frame in pixels.
        views: views per scene. A capture of more photos is cut into several scenes, each spread over all of it. None
            for the fewest photos of a capture, or 10 for a single capture.
        test_every: put every N-th capture, or scene of a single capture, in the test split; 0 for none.
        roll: what to do with a photo whose camera is turned about its axis by more than 5 degrees.
        up: direction that is up in the camera files: an axis such as `z` or `-y`; `auto` to estimate it.
        scale: factor of positions; `scene` to bring the cameras of each capture to distance 1, `set` for one factor.
        field_of_view: angle between the edges of a frame in degrees; None for the largest that all photos fill.
        depth_range: least and largest depth of surfaces, in units of the camera files; None to estimate it.
        jpeg_quality: 1 to 100, to store frames as JPEG.
        overwrite: replace an existing dataset.
        log: takes one line for the user.

    Raises:
        OptionError: an argument is invalid.
        SourceMissing: the camera file or a photo is missing.
        PhotosError: a camera file or a photo is invalid.
        DestinationError: there is a dataset already.
        NoSpace: the disk is full.
    """
    size = as_count("size", size, *SIZES)
    test_every = as_count("test_every", test_every, 0)
    if views is not None:
        views = as_count("views", views, 2)
    if roll not in get_args(Roll):
        raise UnknownName("roll", str(roll), get_args(Roll))
    folders = capture_folders(local_path(folder, "photos are read"), log)
    _check_apart(out, folders)
    captures = [read_capture(each) for each in folders]
    worlds = find_worlds(captures, up, scale)
    warn_of_outliers(captures, log)
    placed, dropped = place_photos(captures, worlds, roll, log)
    per_scene = views_of(captures, placed, views, log)
    scenes = cut_scenes(placed, per_scene, test_every)
    tangent, limit = find_tangent(scenes, field_of_view)
    check_resolution(scenes, tangent, size, log)
    depths = find_depths(captures, worlds, placed, tangent, depth_range)
    found = count_scenes(scenes)
    _warn_of_few(found, log)
    writer = SceneWriter(
        out,
        name=name,
        format=format,
        jpeg_quality=jpeg_quality,
        details=_details(captures, worlds),
        overwrite=overwrite,
        field_of_view=math.degrees(2 * math.atan(tangent)),
        yaw_sign=1,
        depth_range=(depths.near, depths.far),
    )
    with writer, bar(sum(len(scene.photos) for scene in scenes), "photo", "import") as progress:
        for scene in scenes:
            frames = np.stack(list(_frames(scene, tangent, size, progress.update)))
            writer.add(frames, _cameras(scene, worlds[scene.capture]), scene.split)
    factors = [world.scale for world in worlds]
    rolls = [abs(each.pose.roll) for scene in scenes for each in scene.photos]
    return Imported(
        folder=str(writer.folder),
        scenes=found,
        views=per_scene,
        photos=sum(len(capture.photos) for capture in captures),
        dropped=dropped,
        field_of_view=math.degrees(2 * math.atan(tangent)),
        limited_by=limit,
        depth_range=(depths.near, depths.far),
        depths_from=depths.source,
        scales=(min(factors), max(factors)),
        max_roll=math.degrees(max(rolls)),
    )


def _check_apart(out: str | os.PathLike[str] | StorePath, folders: Sequence[Path]) -> None:
    """Raise `OptionError` if the dataset would lie around photos or beside their camera file."""
    path = parse_path(out)
    if isinstance(path, StorePath):
        return
    for folder in folders:
        if folder.resolve().is_relative_to(path.resolve()):
            raise OptionError(f"out is {path}, expected a folder that does not hold photos, as {folder} does")


def plain_name(text: str) -> str:
    """Return a name for a scene set that resembles a text: lower-case letters, digits, - and _."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:64] or "photos"


def _warn_of_few(found: dict[Split, int], log: Callable[[str], None]) -> None:
    train = found.get("train", 0)
    if train < _FEW_SCENES:
        log(
            f"{count_of(train, 'training scene')}: too few to learn from. Networks memorise so few; hundreds of places "
            "are needed to predict new ones"
        )
    if "test" not in found:
        log("no test scenes: gqn evaluate needs some. Pass --test-every, or add photos")


def _details(captures: Sequence[Capture], worlds: Sequence[World]) -> dict[str, Any]:
    return {
        "importer": ", ".join(sorted({capture.kind for capture in captures})),
        "photos": sum(len(capture.photos) for capture in captures),
        # Where each capture went: (x, y, z, 1) of its camera file, times this matrix, is a point of the dataset.
        "captures": [
            {"folder": capture.folder.name, "scale": world.scale, "matrix": world.matrix().tolist()}
            for capture, world in zip(captures, worlds)
        ],
    }


def _frames(scene: Scene, tangent: float, size: int, done: Callable[[], Any]) -> Iterator[NDArray[np.uint8]]:
    for photo, pose in scene.photos:
        yield warp(read_pixels(photo), photo.lens, roll=pose.roll, tangent=tangent, size=size)
        done()


def _cameras(scene: Scene, world: World) -> NDArray[np.float64]:
    """Return the cameras (views, 5) of a scene: x, y, z, yaw, pitch."""
    positions = world.points(np.stack([photo.position for photo, _ in scene.photos]))
    return np.column_stack([positions, [(pose.yaw, pose.pitch) for _, pose in scene.photos]])
