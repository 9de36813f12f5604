"""Pictures as PNG or JPEG files, and matplotlib figures also as PDF or SVG, written atomically."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gqn_data.errors import ExtraMissing, OptionError, install_hint
from gqn_data.io import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_FIGURES = {**_PICTURES, ".pdf": "PDF", ".svg": "SVG"}

# Files depend only on the figure: without dates, and with a fixed salt for SVG's identifiers. Text in a PDF or SVG
# stays text, which publishers ask for; matplotlib's default fonts in PDF are of a kind that some refuse.
_STYLE: Any = {"svg.hashsalt": "gqn", "svg.fonttype": "none", "pdf.fonttype": 42}
_METADATA = {"PDF": {"CreationDate": None}, "SVG": {"Date": None}}


def picture_kind(path: Path) -> str:
    """Return `PNG` or `JPEG`, inferred from the file extension.

    Raises:
        OptionError: the extension is unknown.
    """
    return _kind(path, _PICTURES)


def figure_kind(path: Path) -> str:
    """Return `PNG`, `JPEG`, `PDF` or `SVG`, inferred from the file extension.

    Raises:
        OptionError: the extension is unknown.
    """
    return _kind(path, _FIGURES)


def _kind(path: Path, kinds: Mapping[str, str]) -> str:
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


def literal_text(text: str) -> str:
    """Return a text as matplotlib shows it literally: `$` escaped, and bytes that are not UTF-8 as escapes."""
    return text.encode(errors="backslashreplace").decode().replace("$", r"\$")


def check_plot(path: Path, alternative: str) -> None:
    """Raise if a plot cannot be written, before minutes are spent on its data.

    Args:
        path: output file.
        alternative: where the user finds the numbers without a plot, for the message.

    Raises:
        ExtraMissing: matplotlib is not installed.
        OptionError: the file extension is unknown.
    """
    figure_kind(path)
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as error:
        raise ExtraMissing(
            f"a plot needs matplotlib, which is not installed; {alternative}. Install it with: {install_hint('plot')}"
        ) from error


def write_figure(figure: Figure, path: Path) -> None:
    """Write a matplotlib figure as PNG, JPEG, PDF or SVG, atomically.

    Raises:
        OptionError: the file extension is unknown.
    """
    import matplotlib as mpl

    kind = figure_kind(path)
    with mpl.rc_context(_STYLE), atomic.writing(path) as file:
        figure.savefig(file, format=kind.lower(), metadata=_METADATA.get(kind))
