"""The camera files that can be read, and the folders that hold one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gqn_data.errors import SourceMissing
from gqn_data.import_photos import transforms
from gqn_data.import_photos.capture import Capture


def capture_folders(folder: Path) -> list[Path]:
    """Return the folder if it holds a camera file, else its subfolders that do, sorted by name.

    Raises:
        SourceMissing: none does.
    """
    if not folder.is_dir():
        raise SourceMissing(f"{folder}: not a folder, expected photos with a camera file")
    if _reader_of(folder) is not None:
        return [folder]
    found = sorted(each for each in folder.iterdir() if each.is_dir() and _reader_of(each) is not None)
    if not found:
        raise SourceMissing(f"{folder}: no camera file, expected {' or '.join(_READERS)} in it or in its folders")
    return found


def read_capture(folder: Path) -> Capture:
    """Read the capture of a folder.

    Raises:
        SourceMissing: there is no camera file, or a photo does not exist.
        PhotosError: the camera file or a photo is invalid.
    """
    read = _reader_of(folder)
    if read is None:
        raise SourceMissing(f"{folder}: no camera file, expected {' or '.join(_READERS)}")
    return read(folder)


_READERS: dict[str, tuple[Callable[[Path], bool], Callable[[Path], Capture]]] = {
    transforms.NAME: (lambda folder: (folder / transforms.NAME).exists(), transforms.read_transforms),
}


def _reader_of(folder: Path) -> Callable[[Path], Capture] | None:
    return next((read for is_there, read in _READERS.values() if is_there(folder)), None)
