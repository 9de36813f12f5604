"""`cameras.csv`: a table with the five numbers of GQN's cameras, and the lens, one row per photo.

    image,x,y,z,yaw,pitch,fl_x
    00.jpg,0.5,-0.2,0.1,1.57,0.0,812.5

Angles are in radians; z is up, and yaw grows counter-clockwise seen from above. The camera is level. The lens has keys
of `transforms.json`: `fl_x` in pixels or `camera_angle_x` in radians, and optionally `cx`, `k1` and so on.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import PhotosError
from gqn_data.import_photos.capture import Capture, Photo, resolve_photo, size_of
from gqn_data.import_photos.lens import lens_of, number_of
from gqn_data.io.atomic import read_bounded
from gqn_data.schema.catalog import CAMERA_FIELDS

NAME = "cameras.csv"
_IMAGE = "image"
_MODEL = "camera_model"
_MAX_BYTES = 64 << 20


def read_camera_table(folder: Path) -> Capture:
    """Read the capture of a folder with `cameras.csv`.

    Raises:
        PhotosError: the file or a photo is invalid.
        SourceMissing: a photo does not exist.
    """
    path = folder / NAME
    try:
        text = read_bounded(path, _MAX_BYTES).decode("utf-8-sig")
        rows = list(csv.DictReader(text.splitlines(), strict=True))
    except (ValueError, csv.Error) as error:
        raise PhotosError(f"{path}: {error}, expected a table with a header, in UTF-8") from error
    if not rows:
        raise PhotosError(f"{path}: no rows, expected a header and a row per photo")
    missing = [name for name in (_IMAGE, *CAMERA_FIELDS) if name not in rows[0]]
    if missing:
        raise PhotosError(f"{path}: no column {', '.join(missing)}, expected {_IMAGE},{','.join(CAMERA_FIELDS)}")
    return Capture(
        folder=folder,
        kind=NAME,
        photos=[_photo(folder, row, f"{path}: line {number}") for number, row in enumerate(rows, 2)],
        has_z_up=True,
    )


def _photo(folder: Path, row: dict[str | Any, str | Any], where: str) -> Photo:
    if None in row or None in row.values():
        raise PhotosError(f"{where}: more or fewer cells than the header has, expected as many")
    path = resolve_photo(folder, row[_IMAGE], where)
    keys = {name: _value(name, text, where) for name, text in row.items() if name != _IMAGE and text.strip()}
    x, y, z, yaw, pitch = (number_of(keys, name, where) for name in CAMERA_FIELDS)
    if abs(pitch) > math.pi / 2:
        raise PhotosError(f"{where}: pitch {pitch:g}, expected radians between -pi/2 and pi/2")
    size, is_turned = size_of(path, "by size", None)
    return Photo(
        path=path,
        lens=lens_of(keys, size, where),
        rotation=_rotation(yaw, pitch),
        position=np.array((x, y, z)),
        is_turned=is_turned,
    )


def _value(name: str, text: str, where: str) -> Any:
    if name == _MODEL:
        return text.strip()
    try:
        return float(text)
    except ValueError:
        raise PhotosError(f"{where}: {name} is {text[:40]!r}, expected a number") from None


def _rotation(yaw: float, pitch: float) -> NDArray[np.float64]:
    """Return the camera-to-world rotation of a level camera; columns right, down, forward."""
    forward = np.array((math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch)))
    right = np.array((math.sin(yaw), -math.cos(yaw), 0.0))
    return np.column_stack([right, np.cross(forward, right), forward])
