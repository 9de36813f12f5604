"""What a converted dataset says of itself: a card for people, a Croissant description for catalogues.

Both are pure functions of the manifest: no time, host or path enters them, and two runs give the same bytes.
Imports the rest of the package, `manifest` and `storage`.
"""

from __future__ import annotations

from gqn_data.io import atomic
from gqn_data.publish.card import dataset_card
from gqn_data.publish.croissant import croissant
from gqn_data.schema.manifest import CARD_FILE, CROISSANT_FILE, Manifest

__all__ = ["croissant", "dataset_card", "descriptions"]


def descriptions(manifest: Manifest) -> dict[str, bytes]:
    """The files that describe a converted dataset, by name, in the order in which they are written.

    Args:
        manifest: whole, with the rows of all shards.

    Raises:
        UnknownName: the manifest names a container of another version.
    """
    return {
        CARD_FILE: dataset_card(manifest).encode(),
        CROISSANT_FILE: atomic.json_bytes(croissant(manifest)),
    }
