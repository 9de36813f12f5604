"""Read the files `cameras`, `images` and `points3D` of a COLMAP model, binary or text.

The formats are those of COLMAP's documentation, "Output format". The package pycolmap reads them too, and much else; it
takes 135 MB. Counts in a file are checked against its size.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from gqn_data.errors import PhotosError
from gqn_data.io.regular import open_read

# Names of the parameters by model, in the keys of `lens.lens_of`. The number of a model in binary files is its place.
PARAMETERS: dict[str, tuple[str, ...]] = {
    "SIMPLE_PINHOLE": ("fl_x", "cx", "cy"),
    "PINHOLE": ("fl_x", "fl_y", "cx", "cy"),
    "SIMPLE_RADIAL": ("fl_x", "cx", "cy", "k1"),
    "RADIAL": ("fl_x", "cx", "cy", "k1", "k2"),
    "OPENCV": ("fl_x", "fl_y", "cx", "cy", "k1", "k2", "p1", "p2"),
    "OPENCV_FISHEYE": ("fl_x", "fl_y", "cx", "cy", "k1", "k2", "k3", "k4"),
    "FULL_OPENCV": ("fl_x", "fl_y", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    "FOV": ("fl_x", "fl_y", "cx", "cy", "omega"),
    "SIMPLE_RADIAL_FISHEYE": ("fl_x", "cx", "cy", "k1"),
    "RADIAL_FISHEYE": ("fl_x", "cx", "cy", "k1", "k2"),
    "THIN_PRISM_FISHEYE": ("fl_x", "fl_y", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "sx1", "sy1"),
}
_MODELS = tuple(PARAMETERS)

_MAX_LINE = 64 << 20  # of a text file: all points of an image
_MAX_NAME = 1 << 12
_MAX_DIGITS = 20

_CAMERA = struct.Struct("<IiQQ")  # number, model, width, height
_IMAGE = struct.Struct("<I7dI")  # number, quaternion w x y z, translation, camera
_POINT = struct.Struct("<Q3d3BdQ")  # number, place, colour, error, length of the track
_COUNT = struct.Struct("<Q")
_SEEN_POINT = 24  # bytes of a point in an image: column, row, number


class CameraRow(NamedTuple):
    """Camera of a COLMAP model: a row of `cameras`."""

    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


class ImageRow(NamedTuple):
    """Image of a COLMAP model: a row of `images`.

    Quaternion (w, x, y, z) and translation lead from the world to the camera.
    """

    quaternion: tuple[float, ...]
    translation: tuple[float, ...]
    camera: int
    name: str


_Row = TypeVar("_Row", CameraRow, ImageRow)


class PointRow(NamedTuple):
    """Point of a COLMAP model, a row of `points3D`: its position, and the numbers of the images that see it."""

    place: tuple[float, ...]
    images: tuple[int, ...]


def read_cameras(path: Path) -> dict[int, CameraRow]:
    """Read `cameras.bin` or `cameras.txt`.

    Raises:
        PhotosError: the file is damaged, or of another format.
    """
    with _Source(path) as source:
        return _unique(_binary_cameras(source) if path.suffix == ".bin" else _text_cameras(source))


def read_images(path: Path) -> dict[int, ImageRow]:
    """Read `images.bin` or `images.txt`.

    Raises:
        PhotosError: the file is damaged, or of another format.
    """
    with _Source(path) as source:
        return _unique(_binary_images(source) if path.suffix == ".bin" else _text_images(source))


def read_points(path: Path) -> Iterator[PointRow]:
    """Yield the rows of `points3D.bin` or `points3D.txt`.

    Raises:
        PhotosError: the file is damaged, or of another format.
    """
    with _Source(path) as source:
        yield from _binary_points(source) if path.suffix == ".bin" else _text_points(source)


class _Source:
    """File read from start to end, as a context manager whose errors name the offset of a fault."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: io.BufferedReader = open_read(path, 1 << 20)
        self._size = os.fstat(self._file.fileno()).st_size

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        place = self._file.tell()
        self._file.close()
        if isinstance(error, ValueError | OverflowError):
            raise PhotosError(
                f"{self._path}: before byte {place}: {error}, expected COLMAP's format. Write the model again: "
                "colmap model_converter"
            ) from error

    def unpack(self, layout: struct.Struct) -> tuple[float, ...]:
        return layout.unpack(self.read(layout.size))

    def read(self, length: int) -> bytes:
        self._check(length)
        return self._file.read(length)

    def skip(self, length: int) -> None:
        self._check(length)
        self._file.seek(length, os.SEEK_CUR)

    def _check(self, length: int) -> None:
        if length > self._size - self._file.tell():
            raise ValueError("the file ends within a row")

    def count(self, least: int) -> int:
        """Return a number of rows; each has at least `least` bytes."""
        number = int(self.unpack(_COUNT)[0])
        self._check(number * least)
        return number

    def name(self) -> str:
        found = bytearray()
        while (byte := self.read(1)) != b"\0":
            found += byte
            if len(found) > _MAX_NAME:
                raise ValueError(f"a name of more than {_MAX_NAME} bytes")
        return found.decode()

    def lines(self) -> Iterator[str]:
        """Yield the lines without their ends, also empty ones, but not comments."""
        while line := self._file.readline(_MAX_LINE + 1):
            if len(line) > _MAX_LINE:
                raise ValueError(f"a line of more than {_MAX_LINE} bytes")
            if not line.startswith(b"#"):
                yield line.decode().rstrip("\r\n")


def _unique(rows: Iterator[tuple[int, _Row]]) -> dict[int, _Row]:
    found: dict[int, _Row] = {}
    for number, row in rows:
        if number in found:
            raise ValueError(f"a second row of number {number}")
        found[number] = row
    return found


def _whole(text: str) -> int:
    """Return a whole number of a text file; all that COLMAP writes have at most 64 bits."""
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _binary_cameras(source: _Source) -> Iterator[tuple[int, CameraRow]]:
    for _ in range(source.count(_CAMERA.size)):
        number, model, width, height = map(int, source.unpack(_CAMERA))
        if not 0 <= model < len(_MODELS):
            raise ValueError(f"camera {number} of the unknown model {model}; undistort with colmap image_undistorter")
        name = _MODELS[model]
        parameters = source.unpack(struct.Struct(f"<{len(PARAMETERS[name])}d"))
        yield number, CameraRow(name, width, height, parameters)


def _text_cameras(source: _Source) -> Iterator[tuple[int, CameraRow]]:
    for line in filter(str.strip, source.lines()):
        number, model, width, height, *parameters = line.split()
        yield _whole(number), CameraRow(model, _whole(width), _whole(height), tuple(map(float, parameters)))


def _binary_images(source: _Source) -> Iterator[tuple[int, ImageRow]]:
    for _ in range(source.count(_IMAGE.size)):
        number, *pose, camera = source.unpack(_IMAGE)
        name = source.name()
        source.skip(_SEEN_POINT * int(source.unpack(_COUNT)[0]))
        yield int(number), ImageRow(tuple(pose[:4]), tuple(pose[4:]), int(camera), name)


def _text_images(source: _Source) -> Iterator[tuple[int, ImageRow]]:
    lines = source.lines()
    for line in lines:
        if not line.strip():
            continue
        number, *pose, camera, name = line.split(maxsplit=9)
        if len(pose) != 7:
            raise ValueError(f"an image of {len(pose)} numbers")
        next(lines, "")  # the points that it sees
        quaternion, translation = tuple(map(float, pose[:4])), tuple(map(float, pose[4:]))
        yield _whole(number), ImageRow(quaternion, translation, _whole(camera), name)


def _binary_points(source: _Source) -> Iterator[PointRow]:
    for _ in range(source.count(_POINT.size)):
        row = source.unpack(_POINT)
        length = int(row[-1])
        track = struct.unpack(f"<{2 * length}I", source.read(8 * length))
        yield PointRow(tuple(row[1:4]), track[::2])


def _text_points(source: _Source) -> Iterator[PointRow]:
    for line in filter(str.strip, source.lines()):
        _, x, y, z, _, _, _, _, *track = line.split()
        yield PointRow((float(x), float(y), float(z)), tuple(map(_whole, track[::2])))
