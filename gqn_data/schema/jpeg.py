"""JPEG frames: their size read from the header, decoding, encoding.

The one place that knows the JPEG library. Imports `errors` alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import simplejpeg

from gqn_data.errors import CorruptFrame, OptionError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

Resize = Literal["area", "bilinear"]

# Bytes behind a cache line at which memory for frames begins: where rows of pixels begin at a multiple of 32,
# libjpeg-turbo writes them past the caches and has to wait for the memory. Decoding then takes a fifth more
# (docs/loader-results.md).
FRAMES_BEGIN = 16

DECODER = f"simplejpeg {simplejpeg.__version__}"

# ITU-T T.81, table B.1: markers that start a frame; C4, C8 and CC are tables and extensions.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_IMAGE = b"\xff\xd8"
_END_OF_IMAGE = b"\xff\xd9"

MOST_PIXELS = 1 << 26  # of a frame: a header of some bytes may claim 65535x65535, twelve gigabytes of pixels


def header_of(jpeg: bytes | bytearray | memoryview) -> tuple[int, int, int]:
    """The height and width in pixels, and the length in bytes of the header through the frame segment.

    Walks the segments of ITU-T T.81 annex B up to the start of frame; nothing is decoded.

    Raises:
        CorruptFrame: the bytes are no JPEG of three colour components.
    """
    if bytes(jpeg[:2]) != _START_OF_IMAGE:
        raise CorruptFrame(f"not a JPEG: begins with {bytes(jpeg[:4]).hex()}, expected ffd8")
    at, end = 2, len(jpeg)
    while at + 4 <= end:
        if jpeg[at] != 0xFF:
            raise CorruptFrame(f"not a JPEG: a marker was expected at byte {at}")
        marker = jpeg[at + 1]
        if marker == 0xFF:  # any number of fill bytes may stand before a marker
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
            if length != 8 + 3 * components:  # B.2.2; a header that ends before its size would stand for any size
                raise CorruptFrame(f"a JPEG with a frame segment of {length} bytes, expected {8 + 3 * components}")
            if at + 2 + length > end:
                break
            return height, width, at + 2 + length
        if length < 2:
            break
        at += 2 + length
    raise CorruptFrame(f"a JPEG cut short: no frame header in its {end} bytes")


class FrameChecker:
    """Tells whether JPEG bytes are a whole frame of one size, at the cost of one comparison.

    The frames of a set are written by one encoder, so their headers through the frame segment are equal to the
    byte. A header that was walked once and found good is remembered; the next frame needs only begin alike.

    Args:
        height: expected height in pixels.
        width: expected width in pixels.

    Attributes:
        good: the headers that are remembered.
    """

    _REMEMBERED = 16

    def __init__(self, height: int, width: int) -> None:
        self.height = height
        self.width = width
        self.good: tuple[bytes, ...] = ()

    def check(self, data: bytes, start: int, stop: int) -> None:
        """Returns where `data[start:stop]` is a good frame.

        Raises:
            CorruptFrame: not a JPEG, cut short, or of another size.
        """
        if not data.startswith(self.good, start, stop):
            height, width, length = header_of(memoryview(data)[start:stop])
            if (height, width) != (self.height, self.width):
                raise CorruptFrame(f"a frame of {width}x{height} pixels, expected {self.width}x{self.height}")
            self.good = (data[start : start + length], *self.good[: self._REMEMBERED - 1])
        if data[stop - 2 : stop] != _END_OF_IMAGE:
            raise CorruptFrame("a JPEG cut short: its end marker is missing")


def decode(jpeg: bytes | bytearray | memoryview) -> NDArray[np.uint8]:
    """The pixels of one frame of unknown size: uint8 (height, width, 3), RGB.

    Raises:
        CorruptFrame: the bytes cannot be decoded, or claim more pixels than any frame has.
    """
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
        if height * width > MOST_PIXELS:
            raise CorruptFrame(f"a frame of {width}x{height} pixels, expected {MOST_PIXELS} pixels at most")
        return np.asarray(simplejpeg.decode_jpeg(jpeg, "RGB"))
    except ValueError as error:
        raise CorruptFrame(f"the JPEG cannot be decoded: {error}") from error


def decode_into(jpeg: bytes | bytearray | memoryview, out: NDArray[np.uint8]) -> None:
    """Decodes one frame straight into `out`: uint8 (height, width, 3), contiguous.

    Raises:
        CorruptFrame: the bytes cannot be decoded, or the frame has not the size of `out`.
    """
    try:
        decoded = simplejpeg.decode_jpeg(jpeg, "RGB", buffer=out)
    except ValueError as error:
        raise CorruptFrame(f"the JPEG cannot be decoded: {error}") from error
    if decoded.shape != out.shape:
        raise CorruptFrame(f"a frame of shape {decoded.shape}, expected {out.shape}")


def decode_all_into(jpegs: Iterable[bytes | memoryview], out: NDArray[np.uint8]) -> None:
    """Decodes frames into the first rows of `out`: uint8 (rows, height, width, 3), contiguous.

    Raises:
        CorruptFrame: one cannot be decoded, or has not the size of the rows.
    """
    decode, shape = simplejpeg.decode_jpeg, out.shape[1:]
    try:
        for jpeg, row in zip(jpegs, out):
            decoded = decode(jpeg, "RGB", buffer=row)
            if decoded.shape != shape:
                raise CorruptFrame(f"a frame of shape {decoded.shape}, expected {shape}")
    except ValueError as error:
        raise CorruptFrame(f"the JPEG cannot be decoded: {error}") from error


def encode(frame: NDArray[np.uint8], quality: int) -> bytes:
    """The JPEG bytes of one frame: baseline, 4:2:0, as DeepMind's are.

    Args:
        frame: uint8 (height, width, 3), RGB.
        quality: 1 to 100.
    """
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality, "RGB", "420"))


def resize_area(frames: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Frames of another size, each new pixel the mean of the area that it covers: uint8 (..., size, size, 3).

    Args:
        frames: uint8 (..., height, width, 3), RGB.
        size: new height and width in pixels, at most the old ones.

    Raises:
        OptionError: the new size is larger than the old one, or none.
    """
    height, width = frames.shape[-3:-1]
    if not 1 <= size <= min(height, width):
        raise OptionError(f"frames of {width}x{height} cannot be resized to {size}x{size} by area: expected less")
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
    """(new, old): the share of each new pixel that each old one covers; rows sum to one."""
    edges = np.arange(new + 1) * (old / new)
    pixels = np.arange(old)
    low = np.maximum(edges[:-1, None], pixels)
    high = np.minimum(edges[1:, None], pixels + 1)
    return np.asarray(np.clip(high - low, 0, None) * (new / old), np.float32)


def resized(frames: NDArray[np.uint8], size: int, how: Resize = "area") -> NDArray[np.uint8]:
    """Frames of another size: uint8 (..., size, size, 3); as they are where they have it.

    Args:
        frames: uint8 (..., height, width, 3), RGB.
        size: new height and width in pixels.
        how: `area`, each new pixel the mean of the area that it covers, for smaller sizes; or `bilinear`, as
            `resize_bilinear`.

    Raises:
        OptionError: a size that this way cannot give, or another way.
    """
    if how == "area":
        return resize_area(frames, size)
    if how == "bilinear":
        return resize_bilinear(frames, size)
    raise OptionError(f"resize is {how!r}, expected area or bilinear")


def resize_bilinear(frames: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Frames of another size, each new pixel interpolated between the four old ones around its centre.

    Centres of pixels lie at half numbers, the border is repeated, and nothing is smoothed: what torch's `interpolate`
    (`mode="bilinear", align_corners=False, antialias=False`) and OpenCV's `INTER_LINEAR` do. Going to less than half
    the size skips pixels; `area` does not.

    Args:
        frames: uint8 (..., height, width, 3), RGB.
        size: new height and width in pixels, smaller or larger.

    Raises:
        OptionError: no size.
    """
    height, width = frames.shape[-3:-1]
    if size < 1:
        raise OptionError(f"frames cannot be resized to {size}x{size}: expected 1 pixel or more")
    if size == height == width:
        return frames
    rows, columns = _bilinear_weights(height, size), _bilinear_weights(width, size)
    new = np.einsum("ih,...hwc,jw->...ijc", rows, frames.astype(np.float32), columns, optimize=True)
    return np.asarray(np.clip(np.floor(new + 0.5), 0, 255), np.uint8)


def _bilinear_weights(old: int, new: int) -> NDArray[np.float32]:
    """(new, old): the weight of each old pixel in each new one; rows sum to one."""
    centres = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    return np.asarray(np.clip(1 - np.abs(centres[:, None] - np.arange(old)), 0, None), np.float32)
