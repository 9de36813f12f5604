"""Random number streams: an independent one per (seed, scene set, split, scene).

The generator is counter-based, so a scene does not depend on the worker or on the number of scenes.
"""

from __future__ import annotations

import zlib

import numpy as np

from gqn_data.schema.catalog import SPLITS, Split


def scene_stream(seed: int, scene_set: str, split: Split, index: int) -> np.random.Generator:
    """Return the Philox generator of a scene, keyed by all four arguments.

    Args:
        seed: seed, not negative.
        scene_set: DeepMind's name of the set.
        split: `train` or `test`.
        index: index of the scene in the split, from 0.
    """
    # hash() of a string changes from run to run, and a set's position in the catalogue with every new set.
    key = (zlib.crc32(scene_set.encode()), SPLITS.index(split), index)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))
