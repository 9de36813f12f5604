"""Descriptions of a converted dataset: a card for people, a Croissant file for catalogues.

Both are pure functions of the manifest. They contain neither time, host nor path, so two runs give the same bytes.
"""

from __future__ import annotations

from gqn_data.io import atomic
from gqn_data.publish.card import dataset_card
from gqn_data.publish.croissant import croissant
from gqn_data.schema.manifest import CARD_FILE, CROISSANT_FILE, Manifest

__all__ = ["croissant", "dataset_card", "descriptions"]


def descriptions(manifest: Manifest) -> dict[str, bytes]:
    """Return the files that describe a converted dataset, by name, in the order of writing.

    Args:
        manifest: the complete manifest, with the rows of all shards.

    Raises:
        UnknownName: this version does not know the manifest's format.
    """
    return {
        CARD_FILE: dataset_card(manifest).encode(),
        CROISSANT_FILE: atomic.json_bytes(croissant(manifest)),
    }
