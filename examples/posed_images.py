"""Turns a folder of posed images into a scene set that trains.

    python examples/posed_images.py photos data/zarr/my_photos --size 64 --test-every 10
    gqn train --shards data/zarr/my_photos --preset tiny

A scene is a folder of images with a file of cameras beside them:

    photos/
      scene-0001/
        00.jpg
        01.jpg
        cameras.csv
      scene-0002/
        ...

`cameras.csv` has a header and a row for each image; the numbers are floats, angles in radians:

    image,x,y,z,yaw,pitch
    00.jpg,0.5,-0.2,0.1,1.57,0.0
    01.jpg,0.4,-0.3,0.1,1.31,0.0

Or `cameras.json`, the same as a list: [{"image": "00.jpg", "x": 0.5, "y": -0.2, ...}, ...]. Columns of other names
than these five are taken as the numbers of a camera of another kind, as they are.

All scenes have as many images; where some have more, say `--views N`, and N of them are taken at equal steps. With
`--size` images are cropped to a square about their middle and scaled; without it, JPEG files of one size are taken as
they are, byte for byte.
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

CAMERA_FILES = ("cameras.csv", "cameras.json")


class PosedScene(NamedTuple):
    """A folder of images.

    Attributes:
        images: the files, in the order of the file of cameras.
        cameras: float64 (images, camera numbers).
        fields: the names of the numbers.
    """

    images: list[Path]
    cameras: NDArray[np.float64]
    fields: tuple[str, ...]


def scene_folders(folder: Path) -> list[Path]:
    """The folders below `folder` that hold a scene, by name.

    Raises:
        SourceMissing: there are none.
    """
    found = sorted(path.parent for name in CAMERA_FILES for path in folder.glob(f"*/{name}"))
    if not found:
        raise SourceMissing(
            f"{folder}: no scenes; expected folders with images and {' or '.join(CAMERA_FILES)} in each"
        )
    return found


def read_scene(folder: Path) -> PosedScene:
    """The images and cameras of one folder.

    Raises:
        OptionError: the file of cameras says something that cannot be.
        SourceMissing: an image that it names is absent.
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
            raise OptionError(f"{path}: row {number}: expected a number for each of {', '.join(fields)}") from error
        if not (folder / name).is_file():
            raise SourceMissing(f"{path}: row {number}: no image {name!r} beside it")
        images.append(folder / name)
    return PosedScene(images, np.array(cameras), fields)


def _rows(path: Path) -> Sequence[Mapping[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = json.load(file) if path.suffix == ".json" else list(csv.DictReader(file))
    except ValueError as error:
        raise OptionError(f"{path}: cannot be read ({error})") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) and "image" in row for row in rows):
        raise OptionError(f"{path}: expected rows with an image and the numbers of its camera")
    return rows


def chosen(scene: PosedScene, views: int | None) -> PosedScene:
    """So many views of a scene, at equal steps; all of them for None.

    Raises:
        OptionError: it has fewer.
    """
    count = len(scene.images)
    if views is None:
        return scene
    if views > count:
        raise OptionError(f"{scene.images[0].parent}: {count} images, expected {views} or more")
    kept = np.linspace(0, count - 1, views).round().astype(int)
    return PosedScene([scene.images[view] for view in kept], scene.cameras[kept], scene.fields)


def frames_of(scene: PosedScene, size: int | None) -> NDArray[np.uint8] | list[bytes]:
    """The frames of a scene: JPEG bytes as they are where that can be, else pixels (views, height, width, 3).

    Raises:
        OptionError: a file that is no image, or images of several sizes.
    """
    if size is None and all(path.suffix.lower() in (".jpg", ".jpeg") for path in scene.images):
        return [path.read_bytes() for path in scene.images]
    frames = list(_pixels(scene.images, size))
    sizes = {frame.shape for frame in frames}
    if len(sizes) > 1:
        raise OptionError(f"{scene.images[0].parent}: images of several sizes ({sizes}); say --size")
    return np.stack(frames)


def _pixels(paths: Sequence[Path], size: int | None) -> Iterator[NDArray[np.uint8]]:
    for path in paths:
        try:
            with Image.open(path) as file:
                image = ImageOps.exif_transpose(file).convert("RGB")  # cameras held upright note it beside the pixels
        except (UnidentifiedImageError, OSError) as error:
            raise OptionError(f"{path}: cannot be read as an image ({error})") from error
        if size is not None:
            image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
        yield np.asarray(image, np.uint8)


@click.command()
@click.argument("photos", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("dataset")
@click.option("--name", help="Of the scene set.  [default: the dataset folder's name]")
@click.option("--format", "container", default="zarr", show_default=True, help="The container.")
@click.option("--size", type=click.IntRange(8, 4096), help="Crop to a square and scale to so many pixels.")
@click.option("--views", type=click.IntRange(2), help="So many images of each scene.  [default: all]")
@click.option("--test-every", type=click.IntRange(2), help="Every so-manieth scene goes to the test split.")
@click.option("--jpeg-quality", type=click.IntRange(1, 100), help="Keep decoded images as JPEG.")
@click.option("--overwrite", is_flag=True, help="Replace a dataset that is there.")
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
    """Turns PHOTOS, a folder of posed images, into DATASET, the folder of a scene set."""
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
                scene = chosen(read_scene(folder), views)
                if scene.fields != writer.camera_fields:
                    raise OptionError(
                        f"{folder}: cameras of {scene.fields}, the first scene's of {writer.camera_fields}"
                    )
                split: Split = "test" if test_every and number % test_every == 0 else "train"
                try:
                    writer.add(frames_of(scene, size), scene.cameras, split)
                except GQNError as error:
                    raise click.ClickException(f"{folder}: {error}") from error
    except GQNError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{dataset}: {len(folders)} scenes")


if __name__ == "__main__":
    main()
