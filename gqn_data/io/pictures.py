"""Plots as files: whether one can be written, what to do where matplotlib is absent, and writing it whole.

Imports `sheet`, `storage`; matplotlib for a plot.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gqn_data.errors import OptionError
from gqn_data.io import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def picture_kind(path: Path) -> str:
    """PNG or JPEG, by the ending of a file's name.

    Raises:
        OptionError: another ending.
    """
    kinds = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        ending = path.suffix or "a file of no ending"
        raise OptionError(f"{path}: cannot write {ending}; possible: {', '.join(kinds)}")
    return kind


def write_picture(picture: NDArray[np.uint8], path: Path) -> None:
    """Writes a picture as PNG or JPEG, by the ending of its name.

    Raises:
        OptionError: another ending.
    """
    kind = picture_kind(path)
    with atomic.writing(path) as file:
        Image.fromarray(picture).save(file, kind)


def check_plot(path: Path, instead: str) -> None:
    """Returns where a plot can be written, before minutes are spent on what it shows.

    Args:
        path: of the picture.
        instead: where the figures are to be had without one.

    Raises:
        OptionError: matplotlib is not installed, or a name of another ending.
    """
    picture_kind(path)
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as error:
        raise OptionError(
            f"a plot needs matplotlib, which is not installed: pip install 'gqn-toolkit[plot]'; {instead}"
        ) from error


def write_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG or JPEG, by the ending of its name, whole or not at all.

    Raises:
        OptionError: another ending.
    """
    with atomic.writing(path) as file:
        figure.savefig(file, format=picture_kind(path).lower())
