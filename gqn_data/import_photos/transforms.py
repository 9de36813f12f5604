"""`transforms.json` of nerfstudio, instant-ngp and Blender's NeRF scenes.

Its cameras look along -z with y up (OpenGL). Source: docs.nerf.studio, "Data conventions".
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import PhotosError
from gqn_data.import_photos.capture import MAX_PHOTOS, Capture, Photo, checked_rotation, resolve_photo, size_of
from gqn_data.import_photos.lens import is_number, lens_of
from gqn_data.io.strict_json import read_json

NAME = "transforms.json"
_MAX_BYTES = 64 << 20

# Blender's scenes leave out the suffix.
_SUFFIXES = ("", ".png", ".jpg", ".jpeg")

_OPENCV_OF_OPENGL = np.diag((1.0, -1.0, -1.0))


def read_transforms(folder: Path) -> Capture:
    """Read the capture of a folder with `transforms.json`.

    Raises:
        PhotosError: the file or a photo is invalid.
        SourceMissing: a photo does not exist.
    """
    path = folder / NAME
    try:
        table = read_json(path, _MAX_BYTES)
    except ValueError as error:
        raise PhotosError(f"{path}: {error}, expected nerfstudio's JSON of cameras") from error
    frames = table.get("frames") if isinstance(table, dict) else None
    if not isinstance(frames, list) or not 1 <= len(frames) <= MAX_PHOTOS:
        raise PhotosError(f"{path}: no list 'frames', expected 1 to {MAX_PHOTOS:,} frames with their cameras")
    shared = {key: value for key, value in table.items() if key != "frames"}
    return Capture(
        folder=folder,
        kind=NAME,
        photos=[_photo(folder, shared, frame, f"{path}: frame {number}") for number, frame in enumerate(frames)],
    )


def _photo(folder: Path, shared: dict[str, Any], frame: Any, where: str) -> Photo:
    if not isinstance(frame, dict):
        raise PhotosError(f"{where}: {type(frame).__name__}, expected an object")
    for key in ("file_path", "transform_matrix"):
        if key not in frame:
            raise PhotosError(f"{where}: {key} is missing, expected it in each frame")
    path = resolve_photo(folder, frame["file_path"], where, _SUFFIXES)
    where = f"{where} ({frame['file_path']})"
    keys = shared | frame  # a frame may override the shared lens
    size, is_turned = size_of(path, "by size", _stated_size(keys, where))
    matrix = _matrix(frame["transform_matrix"], where)
    return Photo(
        path=path,
        lens=lens_of(keys, size, where),
        rotation=checked_rotation(matrix[:, :3], where) @ _OPENCV_OF_OPENGL,
        position=matrix[:, 3],
        is_turned=is_turned,
    )


def _stated_size(keys: dict[str, Any], where: str) -> tuple[int, int] | None:
    if "w" not in keys or "h" not in keys:
        return None
    size = keys["w"], keys["h"]
    if not all(is_number(side) and side == side // 1 for side in size):
        raise PhotosError(f"{where}: w and h are {str(size)[:60]}, expected whole numbers of pixels")
    return int(size[0]), int(size[1])


def _matrix(value: Any, where: str) -> NDArray[np.float64]:
    """Return the upper three rows of a camera-to-world matrix: (3, 4)."""
    rows = value if isinstance(value, list) and all(isinstance(row, list) for row in value) else []
    try:
        matrix = np.array(value, np.float64) if all(map(is_number, chain(*rows))) else np.empty(0)
    except (ValueError, OverflowError):
        matrix = np.empty(0)
    if matrix.shape not in ((4, 4), (3, 4)):
        raise PhotosError(f"{where}: transform_matrix is not 4x4 numbers, expected a camera-to-world matrix")
    if not (np.abs(matrix) < 1e9).all():
        raise PhotosError(f"{where}: transform_matrix has NaN, infinity or numbers above 1e9, expected finite ones")
    if matrix.shape == (4, 4) and np.abs(matrix[3] - (0, 0, 0, 1)).max() > 1e-6:
        raise PhotosError(f"{where}: the last row of transform_matrix is {matrix[3].tolist()}, expected 0, 0, 0, 1")
    return matrix[:3]
