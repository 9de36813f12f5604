"""The camera files that can be read, and the folders that hold one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gqn_data.errors import PhotosError, SourceMissing
from gqn_data.import_photos import camera_table, colmap, transforms
from gqn_data.import_photos.capture import Capture
from gqn_data.schema.manifest import MANIFEST_FILE
from gqn_data.units import count_of

# Tried in this order: nerfstudio writes transforms.json beside the model that it comes from.
READERS: dict[str, Callable[[Path], Capture]] = {
    transforms.NAME: transforms.read_transforms,
    colmap.NAME: colmap.read_colmap,
    camera_table.NAME: camera_table.read_camera_table,
}


def kind_of(folder: Path) -> str | None:
    """Return the kind of camera file that a folder holds: a key of `READERS`, or None."""
    if (folder / transforms.NAME).exists():
        return transforms.NAME
    if colmap.find_model(folder) is not None:
        return colmap.NAME
    return camera_table.NAME if (folder / camera_table.NAME).exists() else None


def capture_folders(folder: Path, log: Callable[[str], None]) -> list[Path]:
    """Return the folder if it holds a camera file, else its subfolders that do, sorted by name.

    Args:
        folder: the folder.
        log: takes one line for the user, on subfolders that are left out.

    Raises:
        SourceMissing: none does.
        PhotosError: two subfolders are one, by a link: it could be in both splits.
    """
    if not folder.is_dir():
        raise SourceMissing(f"{folder}: not a folder, expected photos with a camera file")
    if kind_of(folder) is not None:
        return [folder]
    folders = sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    found = [each for each in folders if kind_of(each) is not None]
    if not found:
        raise SourceMissing(f"{folder}: no camera file, expected {', '.join(READERS)} in it or in its folders")
    places: dict[Path, Path] = {}
    for each in found:
        other = places.setdefault(each.resolve(), each)
        if other is not each:
            raise PhotosError(f"{each}: the same folder as {other}, expected each place once. Remove one of the links")
    left_out = [each.name for each in folders if each not in found and not (each / MANIFEST_FILE).exists()]
    if left_out:
        names = ", ".join(left_out[:3]) + (", ..." if len(left_out) > 3 else "")
        log(f"{folder}: {count_of(len(left_out), 'folder')} without a camera file left out: {names}")
    return found


def read_capture(folder: Path) -> Capture:
    """Read the capture of a folder.

    Raises:
        SourceMissing: the camera file or a photo is missing.
        PhotosError: the camera file or a photo is invalid.
    """
    kind = kind_of(folder)
    if kind is None:
        raise SourceMissing(f"{folder}: no camera file, expected {', '.join(READERS)}")
    return READERS[kind](folder)
