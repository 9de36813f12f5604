"""Pictures and matplotlib figures as PNG or JPEG files, written atomically."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gqn_data.errors import ExtraMissing, OptionError, install_hint
from gqn_data.io import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def picture_kind(path: Path) -> str:
    """Return `PNG` or `JPEG`, inferred from the file extension.

    Raises:
        OptionError: the extension is unknown.
    """
    kinds = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        ending = path.suffix or "a file without an extension"
        raise OptionError(f"{path}: cannot write {ending}, expected one of {', '.join(kinds)}")
    return kind


def write_picture(picture: NDArray[np.uint8], path: Path) -> None:
    """Write a picture, uint8 (height, width, 3), as PNG or JPEG.

    Raises:
        OptionError: the file extension is unknown.
    """
    kind = picture_kind(path)
    with atomic.writing(path) as file:
        Image.fromarray(picture).save(file, kind)


def check_plot(path: Path, alternative: str) -> None:
    """Raise if a plot cannot be written, before minutes are spent on its data.

    Args:
        path: output file.
        alternative: where the user finds the numbers without a plot, for the message.

    Raises:
        ExtraMissing: matplotlib is not installed.
        OptionError: the file extension is unknown.
    """
    picture_kind(path)
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as error:
        raise ExtraMissing(
            f"a plot needs matplotlib, which is not installed; {alternative}. Install it with: {install_hint('plot')}"
        ) from error


def write_figure(figure: Figure, path: Path) -> None:
    """Write a matplotlib figure as PNG or JPEG, atomically.

    Raises:
        OptionError: the file extension is unknown.
    """
    with atomic.writing(path) as file:
        figure.savefig(file, format=picture_kind(path).lower())
