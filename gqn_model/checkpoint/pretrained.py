"""Trained weights that are part of the package, one folder per scene set: the layout of `gqn push`.

`tools/pretrained.py` writes them. torch is not imported.
"""

from __future__ import annotations

from pathlib import Path

from gqn_data.errors import UnknownName
from gqn_data.schema.catalog import find_scene_set, is_in_catalogue

PRETRAINED = Path(__file__).parents[1] / "pretrained"


def pretrained_names() -> list[str]:
    """Return the scene sets that have weights."""
    return sorted(path.parent.name for path in PRETRAINED.glob("*/model.safetensors"))


def pretrained_folder(name: str) -> Path:
    """Return the folder of the weights for a scene set, given its name or an alias; it is read-only.

    Raises:
        UnknownName: no weights have this name; the message offers the nearest, or all.
    """
    known = pretrained_names()
    found = find_scene_set(name).name if is_in_catalogue(name) else name
    if found not in known:
        raise UnknownName("pretrained model", name, known)
    return PRETRAINED / found
