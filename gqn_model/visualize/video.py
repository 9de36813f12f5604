"""Animations as files: GIF with Pillow, MP4 with PyAV."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from gqn_data.errors import ExtraMissing, OptionError, install_hint
from gqn_data.io import atomic

_EXTENSIONS = (".gif", ".mp4")

# The palette of a GIF is made from this number of evenly spaced frames.
_PALETTE_FRAMES = 16


def check_animation(path: Path) -> None:
    """Raise unless an animation can be written to the path; called before frames are computed.

    Raises:
        ExtraMissing: PyAV is not installed.
        OptionError: the file extension is not supported.
    """
    extension = path.suffix.lower()
    if extension not in _EXTENSIONS:
        found = extension or "a file without an extension"
        raise OptionError(f"{path}: cannot write {found} as an animation, expected one of {', '.join(_EXTENSIONS)}")
    if extension == ".mp4":
        try:
            import av  # noqa: F401
        except ModuleNotFoundError as error:
            raise ExtraMissing(
                f"{path}: MP4 needs PyAV, which is not installed; write a .gif, or install it with: "
                f"{install_hint('video')}"
            ) from error


def write_animation(frames: Sequence[Image.Image], path: Path, rate: float) -> None:
    """Write images as an animation, atomically; a GIF repeats.

    Args:
        frames: RGB images of one size; at least one.
        path: the file; its extension sets the format.
        rate: frames per second.

    Raises:
        ExtraMissing: PyAV is not installed.
        OptionError: the file extension is not supported.
    """
    check_animation(path)
    encode = _mp4 if path.suffix.lower() == ".mp4" else _gif
    data = encode(frames, rate)
    with atomic.writing(path) as file:
        file.write(data)


def _gif(frames: Sequence[Image.Image], rate: float) -> bytes:
    # One palette for all frames and no dithering, so that still parts do not flicker.
    chosen = np.linspace(0, len(frames) - 1, _PALETTE_FRAMES).round().astype(int).tolist()
    width, height = frames[0].size
    joined = Image.new("RGB", (width, height * len(chosen)))
    for row, number in enumerate(chosen):
        joined.paste(frames[number], (0, row * height))
    palette = joined.quantize(256, method=Image.Quantize.MEDIANCUT)
    first, *others = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in frames]
    # GIF counts in hundredths of a second; viewers slow down frames of less than two.
    duration = 10 * max(2, round(100 / rate))
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=duration, loop=0)
    return buffer.getvalue()


def _mp4(frames: Sequence[Image.Image], rate: float) -> bytes:
    import av

    width, height = (side + side % 2 for side in frames[0].size)  # H.264 with 4:2:0 needs even sides
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000), options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for image in frames:
            pixels = np.pad(
                np.asarray(image), ((0, height - image.height), (0, width - image.width), (0, 0)), mode="edge"
            )
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()
