"""Moving pictures as files: GIF by Pillow, MP4 by PyAV. Takes images, knows nothing of what they show."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from gqn_data.errors import OptionError, install_hint
from gqn_data.io import atomic

_KINDS = (".gif", ".mp4")

# Colours of all frames are chosen from so many of them, evenly taken.
_PALETTE_FROM = 16


def check_animation(path: Path) -> None:
    """Returns where a moving picture can be written under that name, before frames are computed.

    Raises:
        OptionError: another ending, or PyAV is not installed.
    """
    ending = path.suffix.lower()
    if ending not in _KINDS:
        raise OptionError(
            f"{path}: cannot write {ending or 'a file of no ending'} that moves; possible: {', '.join(_KINDS)}"
        )
    if ending == ".mp4":
        try:
            import av  # noqa: F401
        except ModuleNotFoundError as error:
            raise OptionError(
                f"{path}: MP4 needs PyAV, which is not installed; write a .gif, or install it with: "
                f"{install_hint('video')}"
            ) from error


def write_animation(frames: Sequence[Image.Image], path: Path, rate: float) -> None:
    """Writes images of one size as a moving picture that repeats, whole or not at all.

    Args:
        frames: the images, RGB; at least one.
        path: of the file; its ending tells the format.
        rate: frames a second.

    Raises:
        OptionError: as `check_animation`.
    """
    check_animation(path)
    encode = _mp4 if path.suffix.lower() == ".mp4" else _gif
    data = encode(frames, rate)
    with atomic.writing(path) as file:
        file.write(data)


def _gif(frames: Sequence[Image.Image], rate: float) -> bytes:
    # One palette for all and no dithering: where nothing changes, nothing flickers.
    some = [frames[number] for number in np.linspace(0, len(frames) - 1, _PALETTE_FROM).round().astype(int).tolist()]
    width, height = frames[0].size
    joined = Image.new("RGB", (width, height * len(some)))
    for place, image in enumerate(some):
        joined.paste(image, (0, place * height))
    palette = joined.quantize(256, method=Image.Quantize.MEDIANCUT)
    first, *others = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in frames]
    # GIF counts in hundredths of a second, and viewers slow down what is shorter than two.
    duration = 10 * max(2, round(100 / rate))
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=duration, loop=0)
    return buffer.getvalue()


def _mp4(frames: Sequence[Image.Image], rate: float) -> bytes:
    import av

    width, height = (side + side % 2 for side in frames[0].size)  # H.264 with 4:2:0 takes even sides
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
