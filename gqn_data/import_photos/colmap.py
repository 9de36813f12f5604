"""Sparse models of COLMAP: cameras, poses, and the depths of the points that the images see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import PhotosError, SourceMissing
from gqn_data.import_photos.capture import Capture, Photo, checked_rotation, resolve_photo, size_of
from gqn_data.import_photos.colmap_files import (
    PARAMETERS,
    CameraRow,
    ImageRow,
    PointRow,
    read_cameras,
    read_images,
    read_points,
)
from gqn_data.import_photos.lens import Lens, lens_of

NAME = "a COLMAP model"

# Where models lie in the folder of a project; `image_undistorter` and nerfstudio have their own places.
_MODELS = ("sparse/[0-9]*", "sparse", "colmap/sparse/[0-9]*", "")
_IMAGES = ("images", "")

_MAX_SIDE = 1 << 20  # pixels
_MOST_DEPTHS = 200_000  # enough for percentiles


def find_model(folder: Path) -> tuple[Path, str] | None:
    """Return the folder of a project's sparse model and the suffix of its files; None without one.

    COLMAP writes several models if it cannot join all photos: the one with the largest file of images is taken.
    """
    for place in _MODELS:
        homes = [folder] if not place else sorted(folder.glob(place))
        found = [
            (home, suffix)
            for home in homes
            for suffix in (".bin", ".txt")
            if all((home / f"{name}{suffix}").is_file() for name in ("cameras", "images"))
        ]
        if found:
            return max(found, key=lambda each: (each[1] == ".bin", (each[0] / f"images{each[1]}").stat().st_size))
    return None


def read_colmap(folder: Path) -> Capture:
    """Read the capture of a folder with a sparse model and its images, in the order of their names.

    Raises:
        PhotosError: the model or a photo is invalid.
        SourceMissing: the model or a photo is missing.
    """
    found = find_model(folder)
    if found is None:
        raise SourceMissing(f"{folder}: no sparse model, expected cameras.bin and images.bin in sparse/0")
    model, suffix = found
    cameras, images = model / f"cameras{suffix}", model / f"images{suffix}"
    lenses = {key: _lens(row, f"{cameras}: camera {key}") for key, row in read_cameras(cameras).items()}
    rows = sorted(read_images(images).items(), key=lambda item: item[1].name)
    if not rows:
        raise PhotosError(f"{images}: no images, expected 2 or more")
    home = next(folder / place for place in _IMAGES if (folder / place).is_dir())
    photos = [_photo(home, row, lenses, f"{images}: image {key}") for key, row in rows]
    points = model / f"points3D{suffix}"
    order = {key: number for number, (key, _) in enumerate(rows)}
    depths = _depths(read_points(points), photos, order) if points.exists() else np.empty(0)
    return Capture(folder=folder, kind=NAME, photos=photos, depths=depths)


def _lens(row: CameraRow, where: str) -> Lens:
    names = PARAMETERS.get(row.model, ())
    if names and len(names) != len(row.parameters):
        raise PhotosError(f"{where}: {len(row.parameters)} parameters, expected {len(names)} of {row.model}")
    if not (0 < row.width < _MAX_SIDE and 0 < row.height < _MAX_SIDE):
        raise PhotosError(f"{where}: {row.width}x{row.height} pixels, expected the size of its images")
    keys = dict(zip(names, row.parameters))
    return lens_of({**keys, "camera_model": row.model}, (row.width, row.height), where)


def _photo(home: Path, row: ImageRow, lenses: dict[int, Lens], where: str) -> Photo:
    if row.camera not in lenses:
        raise PhotosError(f"{where}: camera {row.camera} is not among those of the model, expected it there")
    path, lens = resolve_photo(home, row.name, where), lenses[row.camera]
    # COLMAP ignores EXIF's orientation.
    size_of(path, "stored", (lens.width, lens.height))
    if not all(abs(number) < 1e9 for number in (*row.quaternion, *row.translation)):
        raise PhotosError(f"{where}: NaN, infinity or numbers above 1e9 in its pose, expected finite ones")
    rotation = checked_rotation(_matrix(row.quaternion).T, where)
    return Photo(
        path=path, lens=lens, rotation=rotation, position=-rotation @ np.array(row.translation), is_turned=False
    )


def _matrix(quaternion: Sequence[float]) -> NDArray[np.float64]:
    """Return the rotation (3, 3) of a quaternion w, x, y, z; scaled by its squared length."""
    w, x, y, z = quaternion
    return np.array(
        [
            [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
        ]
    )


def _depths(points: Iterable[PointRow], photos: Sequence[Photo], order: dict[int, int]) -> NDArray[np.float64]:
    """Return depths (n,) of points in the photos that see them; of a large model a part.

    Args:
        points: the points.
        photos: the photos.
        order: place among the photos by the number of the image.
    """
    places: list[tuple[float, ...]] = []
    seen: list[int] = []
    for point in points:
        seen += [order[key] for key in point.images if key in order]
        places += [point.place] * (len(seen) - len(places))
        if len(seen) > 2 * _MOST_DEPTHS:
            places, seen = places[::2], seen[::2]
    if not seen:
        return np.empty(0)
    positions = np.stack([photo.position for photo in photos])[seen]
    forward = np.stack([photo.rotation[:, 2] for photo in photos])[seen]
    with np.errstate(all="ignore"):  # points may be anywhere
        depths: NDArray[np.float64] = np.einsum("ni,ni->n", np.array(places) - positions, forward)
    return depths[np.isfinite(depths) & (depths > 0)]
