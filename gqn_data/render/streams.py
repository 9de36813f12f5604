"""The random numbers of a scene: a stream of their own for every (seed, scene set, split, scene).

Counter-based, so scene i is the same whoever renders it, and however many are asked for. Imports `scene_sets`.
"""

from __future__ import annotations

import zlib

import numpy as np

from gqn_data.schema.catalog import SPLITS, Split


def scene_stream(seed: int, scene_set: str, split: Split, index: int) -> np.random.Generator:
    """The generator of scene `index` of a split: Philox, keyed by the four.

    Args:
        seed: not negative.
        scene_set: DeepMind's name of the set.
        split: train or test.
        index: of the scene in the split, from 0.
    """
    # hash() of a string changes from run to run, and the place in the catalogue with every new set.
    key = (zlib.crc32(scene_set.encode()), SPLITS.index(split), index)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))
