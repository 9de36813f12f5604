"""`cameras.csv`: a table with the five numbers of GQN's cameras, and the lens, one row per photo.

    image,x,y,z,yaw,pitch,fl_x
    00.jpg,0.5,-0.2,0.1,1.57,0.0,812.5

Angles are in radians; z is up, and yaw grows counter-clockwise seen from above. The camera is level. The lens has keys
of `transforms.json`: `fl_x` in pixels or `camera_angle_x` in radians, and optionally `cx`, `k1` and so on.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import PhotosError
from gqn_data.import_photos.capture import MAX_PHOTOS, Capture, Photo, resolve_photo, size_of
from gqn_data.import_photos.lens import KEYS, lens_of, number_of
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
        lines = csv.reader(text.splitlines(), strict=True, skipinitialspace=True)
        header = [name.strip() for name in next(lines, [])]
        _check_header(header, f"{path}: line 1")
        rows = [(lines.line_num, row) for row in islice(lines, MAX_PHOTOS + 1) if row]
    except (ValueError, csv.Error) as error:
        raise PhotosError(f"{path}: {error}, expected a table with a header, in UTF-8") from error
    if not 1 <= len(rows) <= MAX_PHOTOS:
        raise PhotosError(f"{path}: {len(rows):,} rows, expected a header and 1 to {MAX_PHOTOS:,} rows, one per photo")
    return Capture(
        folder=folder,
        kind=NAME,
        photos=[_photo(folder, header, row, f"{path}: line {number}") for number, row in rows],
        has_z_up=True,
    )


def _check_header(header: Sequence[str], where: str) -> None:
    missing = [name for name in (_IMAGE, *CAMERA_FIELDS) if name not in header]
    if missing:
        raise PhotosError(
            f"{where}: no column {', '.join(missing)} in {','.join(header)[:80]!r}, "
            f"expected {_IMAGE},{','.join(CAMERA_FIELDS)} and columns of the lens, with commas"
        )
    if len(set(header)) < len(header):
        raise PhotosError(f"{where}: a column is repeated in {','.join(header)[:200]!r}, expected different ones")
    unknown = [name for name in header if name not in (_IMAGE, *CAMERA_FIELDS, *KEYS)]
    if unknown:
        raise PhotosError(
            f"{where}: unknown column {unknown[0][:40]!r}, expected {_IMAGE}, {', '.join(CAMERA_FIELDS)}, "
            f"{', '.join(KEYS)}. Remove it if it does not describe the camera"
        )


def _photo(folder: Path, header: Sequence[str], cells: Sequence[str], where: str) -> Photo:
    if len(cells) != len(header):
        raise PhotosError(f"{where}: {len(cells)} cells, expected {len(header)} as in the header")
    row = dict(zip(header, cells))
    path = resolve_photo(folder, row[_IMAGE].strip(), where)
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
