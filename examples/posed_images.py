"""Convert a folder of posed images to a scene set for training.

    python examples/posed_images.py photos data/zarr/my_photos --size 64 --test-every 10
    gqn train --shards data/zarr/my_photos --preset tiny

A scene is a folder of images with a camera file:

    photos/
      scene-0001/
        00.jpg
        01.jpg
        cameras.csv
      scene-0002/
        ...

`cameras.csv` has a header and one row per image; numbers are floats, angles are in radians:

    image,x,y,z,yaw,pitch
    00.jpg,0.5,-0.2,0.1,1.57,0.0
    01.jpg,0.4,-0.3,0.1,1.31,0.0

`cameras.json` holds the same as a list: [{"image": "00.jpg", "x": 0.5, "y": -0.2, ...}, ...]. Other column names define
another kind of camera, whose numbers are stored unchanged.

All scenes must have the same number of images. If some have more, pass `--views N` to take N images at equal steps.
`--size` crops images to a centred square and resizes them. Without it, JPEG files of one size are copied byte for byte.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from gqn_data import SceneWriter
from gqn_data.errors import GQNError, OptionError, SourceMissing
from gqn_data.schema.catalog import Split
from gqn_data.schema.jpeg import orientation_of

CAMERA_FILES = ("cameras.csv", "cameras.json")


class PosedScene(NamedTuple):
    """The images and cameras of one folder.

    Attributes:
        images: image files, in the order of the camera file.
        cameras: float64 (images, len(fields)).
        fields: names of the camera numbers.
    """

    images: list[Path]
    cameras: NDArray[np.float64]
    fields: tuple[str, ...]


def scene_folders(folder: Path) -> list[Path]:
    """Return the scene folders below `folder`, sorted by name.

    Raises:
        SourceMissing: no scene was found.
    """
    found = sorted(path.parent for name in CAMERA_FILES for path in folder.glob(f"*/{name}"))
    if not found:
        raise SourceMissing(
            f"{folder}: no scenes, expected folders that contain images and {' or '.join(CAMERA_FILES)}"
        )
    return found


def read_scene(folder: Path) -> PosedScene:
    """Read the images and cameras of one folder.

    Raises:
        OptionError: the camera file is invalid.
        SourceMissing: an image of the camera file does not exist.
    """
    path = next(folder / name for name in CAMERA_FILES if (folder / name).exists())
    rows = _rows(path)
    fields = tuple(field for field in rows[0] if field != "image")
    images, cameras = [], []
    for number, row in enumerate(rows):
        name = str(row.get("image"))
        try:
            cameras.append([float(row[field]) for field in fields])
        except (KeyError, TypeError, ValueError) as error:
            raise OptionError(
                f"{path}: row {number}: {name}: invalid or missing numbers, expected {', '.join(fields)}"
            ) from error
        if not (folder / name).is_file():
            raise SourceMissing(f"{path}: row {number}: image {name!r} is missing, expected it in {folder}")
        images.append(folder / name)
    return PosedScene(images, np.array(cameras), fields)


def _rows(path: Path) -> Sequence[Mapping[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = json.load(file) if path.suffix == ".json" else list(csv.DictReader(file))
    except ValueError as error:
        raise OptionError(f"{path}: cannot be read ({error}), expected {' or '.join(CAMERA_FILES)}") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) and "image" in row for row in rows):
        raise OptionError(f"{path}: no rows with images, expected a column 'image' and the numbers of the camera")
    return rows


def choose_views(scene: PosedScene, views: int | None) -> PosedScene:
    """Return the scene with `views` of its views at equal steps, or with all of them for None.

    Raises:
        OptionError: the scene has fewer views.
    """
    count = len(scene.images)
    if views is None:
        return scene
    if views > count:
        raise OptionError(f"{scene.images[0].parent}: {count} images, expected {views} or more. Pass a smaller --views")
    kept = np.linspace(0, count - 1, views).round().astype(int)
    return PosedScene([scene.images[view] for view in kept], scene.cameras[kept], scene.fields)


def frames_of(scene: PosedScene, size: int | None) -> NDArray[np.uint8] | list[bytes]:
    """Return the frames of a scene: unchanged JPEG bytes if possible, otherwise pixels (views, height, width, 3).

    Raises:
        OptionError: a file is not an image, or the images differ in size.
    """
    if size is None and all(path.suffix.lower() in (".jpg", ".jpeg") for path in scene.images):
        encoded = [path.read_bytes() for path in scene.images]
        # Cameras store rotation in EXIF, not in the pixels.
        if all(orientation_of(each) == 1 for each in encoded):
            return encoded
    frames = list(_pixels(scene.images, size))
    sizes = {frame.shape for frame in frames}
    if len(sizes) > 1:
        raise OptionError(f"{scene.images[0].parent}: images of several sizes ({sizes}), expected one. Pass --size")
    return np.stack(frames)


def _pixels(paths: Sequence[Path], size: int | None) -> Iterator[NDArray[np.uint8]]:
    for path in paths:
        try:
            with Image.open(path) as file:
                image = ImageOps.exif_transpose(file).convert("RGB")
        except (UnidentifiedImageError, OSError) as error:
            raise OptionError(
                f"{path}: cannot be read as an image ({error}), expected a JPEG, PNG or similar"
            ) from error
        if size is not None:
            image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
        yield np.asarray(image, np.uint8)


@click.command()
@click.argument("photos", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("dataset")
@click.option("--name", help="Name of the scene set.  [default: name of the dataset folder]")
@click.option("--format", "container", default="zarr", show_default=True, help="Format of the dataset.")
@click.option("--size", type=click.IntRange(8, 4096), help="Crop to a square, and resize to this many pixels.")
@click.option("--views", type=click.IntRange(2), help="Number of images per scene.  [default: all]")
@click.option("--test-every", type=click.IntRange(2), help="Put every N-th scene in the test split.")
@click.option("--jpeg-quality", type=click.IntRange(1, 100), help="Store decoded images as JPEG of this quality.")
@click.option("--overwrite", is_flag=True, help="Replace an existing dataset.")
def main(
    photos: Path,
    dataset: str,
    name: str | None,
    container: str,
    size: int | None,
    views: int | None,
    test_every: int | None,
    jpeg_quality: int | None,
    overwrite: bool,
) -> None:
    """Convert PHOTOS, a folder of posed images, to the scene set DATASET."""
    try:
        folders = scene_folders(photos)
        writer = SceneWriter(
            dataset,
            name=name,
            format=container,
            camera_fields=read_scene(folders[0]).fields,
            jpeg_quality=jpeg_quality,
            overwrite=overwrite,
        )
        with writer:
            for number, folder in enumerate(folders, 1):
                scene = choose_views(read_scene(folder), views)
                if scene.fields != writer.camera_fields:
                    raise OptionError(
                        f"{folder}: camera fields {scene.fields}, expected {writer.camera_fields} as in the first scene"
                    )
                split: Split = "test" if test_every and number % test_every == 0 else "train"
                try:
                    writer.add(frames_of(scene, size), scene.cameras, split)
                except GQNError as error:
                    raise click.ClickException(f"{folder}: {error}") from error
    except GQNError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{dataset}: {len(folders)} scene{'s'[: len(folders) != 1]}")


if __name__ == "__main__":
    main()
