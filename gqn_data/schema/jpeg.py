"""JPEG frames: parsing headers, decoding, encoding and resizing. Only this module uses the JPEG library.

The messages of `header_of` and `FrameChecker` end up in manifests, as reasons of skipped records, and so in the
fingerprint of a dataset. Do not change them.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

import numpy as np
import simplejpeg
from PIL import Image

from gqn_data.errors import CorruptFrame, OptionError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

Resize = Literal["area", "bilinear"]
Fit = Literal["crop", "pad"]

# Offset in bytes from a cache line at which memory for frames starts. If rows of pixels are aligned to 32 bytes,
# libjpeg-turbo uses stores that bypass the caches, and decoding takes a fifth longer (docs/loader-results.md).
FRAMES_BEGIN = 16

DECODER = f"simplejpeg {simplejpeg.__version__}"

# Start-of-frame markers of ITU-T T.81, table B.1. C4, C8 and CC are tables and extensions.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_IMAGE = b"\xff\xd8"
_END_OF_IMAGE = b"\xff\xd9"

MAX_PIXELS = 1 << 26  # per frame; a tiny file may claim 65535x65535 pixels, which are 12 GB

# Decoding passes over all pixels once per scan, and an empty scan takes ten bytes. A progressive JPEG has ten scans.
MAX_SCANS = 100
_BYTES_PER_SCAN = 10
_MAX_PASSES = 1 << 30  # scans times pixels: some seconds
_HARMLESS_PASSES = 1 << 26  # a fraction of a second
_START_OF_SCAN = b"\xff\xda"  # compressed data cannot contain it: after ff follows 00 there

_EXIF, _ORIENTATION, _UPRIGHT = b"Exif\0\0", 0x0112, 1


def header_of(jpeg: bytes | bytearray | memoryview) -> tuple[int, int, int]:
    """Return the height and width in pixels, and the length in bytes of the header through the frame segment.

    Walk the segments of ITU-T T.81, annex B, up to the start of frame. Nothing is decoded.

    Raises:
        CorruptFrame: the bytes are not a JPEG of three colour components.
    """
    if bytes(jpeg[:2]) != _START_OF_IMAGE:
        raise CorruptFrame(f"not a JPEG: begins with {bytes(jpeg[:4]).hex()}, expected ffd8")
    at, end = 2, len(jpeg)
    while at + 4 <= end:
        if jpeg[at] != 0xFF:
            raise CorruptFrame(f"not a JPEG: a marker was expected at byte {at}")
        marker = jpeg[at + 1]
        if marker == 0xFF:  # any number of fill bytes may precede a marker
            at += 1
            continue
        length = jpeg[at + 2] << 8 | jpeg[at + 3]
        if marker in _START_OF_FRAME:
            if at + 10 > end:
                break
            height, width = jpeg[at + 5] << 8 | jpeg[at + 6], jpeg[at + 7] << 8 | jpeg[at + 8]
            components = jpeg[at + 9]
            if components != 3:
                raise CorruptFrame(f"a JPEG of {components} colour components, expected 3")
            if length != 8 + 3 * components:  # B.2.2; `FrameChecker` must never remember a header without a size
                raise CorruptFrame(f"a JPEG with a frame segment of {length} bytes, expected {8 + 3 * components}")
            if at + 2 + length > end:
                break
            return height, width, at + 2 + length
        if length < 2:
            break
        at += 2 + length
    raise CorruptFrame(f"a JPEG cut short: no frame header in its {end} bytes")


def check_scans(jpeg: bytes | bytearray | memoryview, pixels: int) -> None:
    """Raise if a JPEG would take long to decode.

    Args:
        jpeg: the bytes.
        pixels: pixels of the frame.

    Raises:
        CorruptFrame: too many scans for its pixels.
    """
    if len(jpeg) <= harmless_bytes(pixels):
        return
    scans = bytes(jpeg).count(_START_OF_SCAN)
    most = max(10, min(MAX_SCANS, _MAX_PASSES // max(1, pixels)))
    if scans > most:
        raise CorruptFrame(f"a JPEG of {scans} scans, expected {most} at most for {pixels} pixels")


def harmless_bytes(pixels: int) -> int:
    """Return the size of a JPEG up to which its number of scans does not matter, because so few fit into it."""
    return _BYTES_PER_SCAN * _HARMLESS_PASSES // max(1, pixels)


def orientation_of(jpeg: bytes) -> int:
    """Return the orientation in the EXIF data of a JPEG: 1 for upright, or none."""
    if _EXIF not in jpeg:
        return _UPRIGHT
    try:
        with Image.open(io.BytesIO(jpeg)) as image:
            return int(image.getexif().get(_ORIENTATION, _UPRIGHT))
    except (OSError, ValueError, TypeError, SyntaxError):  # Pillow's of damaged EXIF data, which shows nothing
        return _UPRIGHT


class FrameChecker:
    """Checks that JPEG bytes are a complete frame of one size, usually by one comparison.

    The frames of a set come from one encoder, so their headers through the frame segment are identical. A valid
    header is remembered, and later frames only need to start with it.

    Args:
        height: expected height in pixels.
        width: expected width in pixels.

    Attributes:
        good: valid headers, most recent first.
    """

    _REMEMBERED = 16

    def __init__(self, height: int, width: int) -> None:
        self.height = height
        self.width = width
        self.good: tuple[bytes, ...] = ()

    def check(self, data: bytes, start: int, stop: int) -> None:
        """Raise unless `data[start:stop]` is a valid frame.

        Raises:
            CorruptFrame: it is not a JPEG, truncated, or of another size.
        """
        if not data.startswith(self.good, start, stop):
            height, width, length = header_of(memoryview(data)[start:stop])
            if (height, width) != (self.height, self.width):
                raise CorruptFrame(f"a frame of {width}x{height} pixels, expected {self.width}x{self.height}")
            self.good = (data[start : start + length], *self.good[: self._REMEMBERED - 1])
        if data[stop - 2 : stop] != _END_OF_IMAGE:
            raise CorruptFrame("a JPEG cut short: its end marker is missing")


def decode(jpeg: bytes | bytearray | memoryview) -> NDArray[np.uint8]:
    """Decode one frame of unknown size: uint8 (height, width, 3), RGB.

    Raises:
        CorruptFrame: the bytes cannot be decoded, or claim more than `MAX_PIXELS`.
    """
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
        if height * width > MAX_PIXELS:
            raise CorruptFrame(f"a frame of {width}x{height} pixels, expected {MAX_PIXELS} pixels at most")
        check_scans(jpeg, height * width)
        return np.asarray(simplejpeg.decode_jpeg(jpeg, "RGB"))
    except ValueError as error:
        raise CorruptFrame(f"the JPEG cannot be decoded: {error}") from error


def decode_into(jpeg: bytes | bytearray | memoryview, out: NDArray[np.uint8]) -> None:
    """Decode one frame into `out`: uint8 (height, width, 3), contiguous.

    Raises:
        CorruptFrame: the bytes cannot be decoded, or the size differs from `out`.
    """
    check_scans(jpeg, out.shape[0] * out.shape[1])
    try:
        decoded = simplejpeg.decode_jpeg(jpeg, "RGB", buffer=out)
    except ValueError as error:
        raise CorruptFrame(f"the JPEG cannot be decoded: {error}") from error
    if decoded.shape != out.shape:
        raise CorruptFrame(f"a frame of shape {decoded.shape}, expected {out.shape}")


def decode_all_into(jpegs: Iterable[bytes | memoryview], out: NDArray[np.uint8]) -> None:
    """Decode frames into the first rows of `out`: uint8 (rows, height, width, 3), contiguous.

    Raises:
        CorruptFrame: a frame cannot be decoded, or its size differs from the rows.
    """
    decode, shape = simplejpeg.decode_jpeg, out.shape[1:]
    pixels = shape[0] * shape[1]
    harmless = harmless_bytes(pixels)
    try:
        for jpeg, row in zip(jpegs, out):
            if len(jpeg) > harmless:
                check_scans(jpeg, pixels)
            decoded = decode(jpeg, "RGB", buffer=row)
            if decoded.shape != shape:
                raise CorruptFrame(f"a frame of shape {decoded.shape}, expected {shape}")
    except ValueError as error:
        raise CorruptFrame(f"the JPEG cannot be decoded: {error}") from error


def encode(frame: NDArray[np.uint8], quality: int) -> bytes:
    """Encode one frame as a baseline JPEG with 4:2:0 subsampling, like DeepMind's frames.

    Args:
        frame: uint8 (height, width, 3), RGB.
        quality: 1 to 100.
    """
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality, "RGB", "420"))


def square_side(height: int, width: int, fit: Fit) -> int:
    """Return the side of the squares that `make_square` returns.

    Raises:
        OptionError: `fit` is unknown.
    """
    if fit not in ("crop", "pad"):
        raise OptionError(f"fit is {fit!r}, expected crop or pad")
    return min(height, width) if fit == "crop" else max(height, width)


def make_square(frames: NDArray[np.uint8], fit: Fit) -> NDArray[np.uint8]:
    """Crop frames to their centred square, or pad them with black: uint8 (..., side, side, 3).

    Args:
        frames: uint8 (..., height, width, 3), RGB.
        fit: `crop` for the largest square inside, `pad` for the smallest around them.

    Raises:
        OptionError: `fit` is unknown.
    """
    height, width = frames.shape[-3:-1]
    side = square_side(height, width, fit)
    if fit == "crop":
        top, left = (height - side) // 2, (width - side) // 2
        return frames[..., top : top + side, left : left + side, :]
    squares = np.zeros((*frames.shape[:-3], side, side, 3), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    squares[..., top : top + height, left : left + width, :] = frames
    return squares


def resize_area(frames: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize frames to a smaller size by area averaging: uint8 (..., size, size, 3).

    Args:
        frames: uint8 (..., height, width, 3), RGB.
        size: new height and width in pixels, at most the old ones.

    Raises:
        OptionError: `size` is less than 1, or larger than the old size.
    """
    height, width = frames.shape[-3:-1]
    if not 1 <= size <= min(height, width):
        largest = min(height, width)
        raise OptionError(
            f"frames of {width}x{height} cannot be resized to {size}x{size} by area, expected 1 to {largest}"
        )
    if size == height == width:
        return frames
    if height == width and height % size == 0 and (factor := height // size) <= 16:
        total = np.zeros((*frames.shape[:-3], size, size, 3), np.uint16)
        for row in range(factor):
            for column in range(factor):
                total += frames[..., row::factor, column::factor, :]
        return np.asarray((total + factor * factor // 2) // (factor * factor), np.uint8)
    rows, columns = _area_weights(height, size), _area_weights(width, size)
    resized = np.einsum("ih,...hwc,jw->...ijc", rows, frames.astype(np.float32), columns, optimize=True)
    return np.asarray(np.clip(np.floor(resized + 0.5), 0, 255), np.uint8)


def _area_weights(old: int, new: int) -> NDArray[np.float32]:
    """Return (new, old): the fraction of each new pixel covered by each old one. Rows sum to one."""
    edges = np.arange(new + 1) * (old / new)
    pixels = np.arange(old)
    low = np.maximum(edges[:-1, None], pixels)
    high = np.minimum(edges[1:, None], pixels + 1)
    return np.asarray(np.clip(high - low, 0, None) * (new / old), np.float32)


def resize(frames: NDArray[np.uint8], size: int, method: Resize = "area") -> NDArray[np.uint8]:
    """Resize frames: uint8 (..., size, size, 3). Frames of this size are returned unchanged.

    Args:
        frames: uint8 (..., height, width, 3), RGB.
        size: new height and width in pixels.
        method: `area` for `resize_area`, which only downscales, or `bilinear` for `resize_bilinear`.

    Raises:
        OptionError: the method is unknown, or does not support the size.
    """
    if method == "area":
        return resize_area(frames, size)
    if method == "bilinear":
        return resize_bilinear(frames, size)
    raise OptionError(f"resize is {method!r}, expected area or bilinear")


def resize_bilinear(frames: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize frames by bilinear interpolation: uint8 (..., size, size, 3).

    Pixel centres lie at half-integers, borders are repeated, and there is neither smoothing nor antialiasing. It
    matches torch's `interpolate` (`mode="bilinear", align_corners=False, antialias=False`) and OpenCV's
    `INTER_LINEAR`. Downscaling by more than 2 skips pixels, unlike `resize_area`.

    Args:
        frames: uint8 (..., height, width, 3), RGB.
        size: new height and width in pixels.

    Raises:
        OptionError: `size` is less than 1.
    """
    height, width = frames.shape[-3:-1]
    if size < 1:
        raise OptionError(f"frames cannot be resized to {size}x{size}, expected 1 pixel or more")
    if size == height == width:
        return frames
    rows, columns = _bilinear_weights(height, size), _bilinear_weights(width, size)
    new = np.einsum("ih,...hwc,jw->...ijc", rows, frames.astype(np.float32), columns, optimize=True)
    return np.asarray(np.clip(np.floor(new + 0.5), 0, 255), np.uint8)


def _bilinear_weights(old: int, new: int) -> NDArray[np.float32]:
    """Return (new, old): the weight of each old pixel in each new one. Rows sum to one."""
    centres = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    return np.asarray(np.clip(1 - np.abs(centres[:, None] - np.arange(old)), 0, None), np.float32)
