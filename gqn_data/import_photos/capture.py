"""The photos of one folder, each with its lens and pose."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from gqn_data.errors import PhotosError, SourceMissing
from gqn_data.import_photos.lens import Lens
from gqn_data.io.regular import open_read

# Formats whose decoders are Pillow's own code or common libraries; others start programs, such as Ghostscript for EPS.
# "JPEG" includes the MPO files of some phones.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")

# Pixels of a photo: twice those of a large camera (60 million), 0.4 GB decoded. Pillow's own limit is 179 million.
MAX_PIXELS = 120_000_000

MAX_PHOTOS = 100_000  # of a capture

_ORIENTATION = 0x0112  # tag of EXIF
_SWAPS_SIDES = (5, 6, 7, 8)
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")

_RIGID = 1e-3  # largest error of the scalar products of a rotation's axes; files have 6 digits or more

# What the camera file says of EXIF's orientation: its pixels are turned by it, are not, or it depends on the size.
Exif = Literal["turned", "stored", "by size"]


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A photo with its camera.

    Attributes:
        path: the image file, inside of its capture's folder.
        lens: its lens.
        rotation: float64 (3, 3), camera to world. The columns are the camera's right, down and forward.
        position: float64 (3,), position of the camera.
        is_turned: whether the image is turned by its EXIF orientation before use.
    """

    path: Path
    lens: Lens
    rotation: NDArray[np.float64]
    position: NDArray[np.float64]
    is_turned: bool


@dataclass(frozen=True, kw_only=True)
class Capture:
    """The photos of one place, from one folder.

    Attributes:
        folder: the folder.
        kind: kind of the camera file, such as `transforms.json`.
        photos: the photos, in the order of the camera file.
        has_z_up: whether the camera file defines z to be up.
        depths: float64 (n,), depths of points seen in the photos, in units of the positions; empty if unknown.
    """

    folder: Path
    kind: str
    photos: Sequence[Photo]
    has_z_up: bool = False
    depths: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        """Raise `PhotosError` if a photo is listed twice: it could be in both splits."""
        seen: set[Path] = set()
        for photo in self.photos:
            if photo.path in seen:
                raise PhotosError(
                    f"{photo.path}: listed twice in {self.kind}, expected each photo once. Remove one of its entries"
                )
            seen.add(photo.path)


def resolve_photo(folder: Path, name: object, where: str, suffixes: Sequence[str] = ("",)) -> Path:
    """Return the path of a photo that a camera file names.

    Args:
        folder: folder of the capture, which holds all of its photos.
        name: name in the camera file, relative to the folder.
        where: place in the camera file, for messages.
        suffixes: tried in turn after the name.

    Raises:
        PhotosError: the name leads out of the folder.
        SourceMissing: the file does not exist.
    """
    if not isinstance(name, str) or not name or not name.isprintable():
        raise PhotosError(f"{where}: photo {str(name)[:80]!r}, expected the name of a file")
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts:
        raise PhotosError(f"{where}: photo {name[:200]!r}, expected a path inside of {folder} without '..'")
    home = folder.resolve()
    for suffix in suffixes:
        try:
            path = (home / f"{pure}{suffix}").resolve()
            if not path.is_file():
                continue
        except (OSError, RuntimeError):  # a name that is too long, a circle of links
            continue
        if not path.is_relative_to(home):
            raise PhotosError(f"{where}: photo {name[:200]!r} is a link out of {folder}, expected a file inside of it")
        return path
    raise SourceMissing(f"{where}: photo {name[:200]!r} is missing, expected it in {folder}")


def size_of(path: Path, exif: Exif, expected: tuple[int, int] | None) -> tuple[tuple[int, int], bool]:
    """Return the size (width, height) of an image, and whether its EXIF orientation is applied.

    Args:
        path: the image.
        exif: what the camera file says of the orientation.
        expected: size in the camera file; None if it states none.

    Raises:
        PhotosError: it is not an image, is too large, or has another size.
    """
    with _opened(path) as image:
        stored, orientation = image.size, image.getexif().get(_ORIENTATION, 1)
    swapped = stored[::-1] if orientation in _SWAPS_SIDES else stored
    turns = orientation in range(2, 9) and exif != "stored"
    if exif == "by size" and turns and expected is not None and expected != swapped:
        turns = False
    found = swapped if turns else stored
    if expected is not None and found != expected:
        raise PhotosError(
            f"{path}: {found[0]}x{found[1]} pixels, expected {'x'.join(str(side)[:20] for side in expected)} as in the "
            "camera file"
        )
    return found, turns


def read_pixels(photo: Photo) -> Image.Image:
    """Return the pixels of a photo as an RGB image; what is transparent becomes white.

    Raises:
        PhotosError: the image is damaged, has another size than before, or has more than 8 bits per channel.
    """
    with _opened(photo.path) as file:
        if file.mode not in _EIGHT_BITS:
            raise PhotosError(f"{photo.path}: mode {file.mode}, expected 8 bits per channel. Save it as RGB")
        image = ImageOps.exif_transpose(file) if photo.is_turned else file
        if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
    if image.size != (photo.lens.width, photo.lens.height):
        raise PhotosError(f"{photo.path}: changed during the import, expected the same file throughout")
    return image


class _opened:  # noqa: N801  a context manager that is used like a function
    """Context manager of an image, whose decoding errors become `PhotosError`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Image.Image:
        self._file = open_read(self._path)
        self._quiet = warnings.catch_warnings(action="ignore")  # of large images, checked below, and of damaged EXIF
        self._quiet.__enter__()
        try:
            image = Image.open(self._file, formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
        except BaseException as error:
            self.__exit__(type(error), error)
            raise
        return image

    def __exit__(self, kind: object, error: BaseException | None, trace: object = None) -> None:
        self._quiet.__exit__(None, None, None)
        self._file.close()
        if isinstance(error, Image.DecompressionBombError):
            raise PhotosError(
                f"{self._path}: too many pixels, expected at most {MAX_PIXELS:,}. Make it smaller first"
            ) from error
        if isinstance(error, UnidentifiedImageError):
            raise PhotosError(f"{self._path}: not an image, expected one of {', '.join(FORMATS)}") from error
        # Pillow's decoders raise these for damaged files.
        if isinstance(error, OSError | ValueError | SyntaxError | IndexError | EOFError | TypeError | struct.error):
            raise PhotosError(f"{self._path}: damaged image ({error}), expected a complete file") from error


def checked_rotation(matrix: NDArray[np.float64], where: str) -> NDArray[np.float64]:
    """Return the rotation nearest to a matrix (3, 3) that is one up to rounding.

    Raises:
        PhotosError: it holds NaN or infinity, or is not a rotation.
    """
    if not np.isfinite(matrix).all() or np.abs(matrix).max() > 2:
        raise PhotosError(f"{where}: numbers of the rotation are not finite or above 2, expected a rotation")
    error = float(np.abs(matrix.T @ matrix - np.eye(3)).max())
    if error > _RIGID or np.linalg.det(matrix) < 0:
        fault = "it mirrors" if error <= _RIGID else f"its axes are off by {error:.2g}"
        raise PhotosError(f"{where}: the matrix is not rigid ({fault}), expected a rotation and a position")
    left, _, right = np.linalg.svd(matrix)
    nearest: NDArray[np.float64] = left @ right
    return nearest
