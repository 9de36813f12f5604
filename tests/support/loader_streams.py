"""Operations on batches for tests of the loader: snapshots, views per slot, comparison with the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from loader_fixtures import Truth
from numpy.typing import NDArray

from gqn_data.loader import Batch, SceneLoader

Snapshot = tuple[bytes, ...]
Row = tuple[int, int, tuple[int, ...]]


def snapshot(batch: Batch) -> Snapshot:
    """Return the batch as bytes, for bitwise comparison and without keeping its memory."""
    return tuple(f"{part.dtype} {tuple(part.shape)} ".encode() + part.numpy().tobytes() for part in batch)


def stream(paths: Any, count: int | None = None, **options: Any) -> list[Snapshot]:
    """Return the first `count` batches of a new loader, or all of `epochs`."""
    return taken(SceneLoader(paths, **{"batch_size": 4, "seed": 7, "context": (1, 3), **options}), count)


def taken(loader: SceneLoader, count: int | None = None) -> list[Snapshot]:
    """Return the next `count` batches of a loader, or all remaining ones, and close the loader."""
    try:
        return [snapshot(batch) for batch in islice(loader, count)]
    finally:
        loader.close()


def rows_of(batch: Batch) -> list[Row]:
    """Return the dataset, scene and views of each slot."""
    return [*zip(batch.datasets.tolist(), batch.scenes.tolist(), map(tuple, batch.views.tolist()))]


def joined(shares: Sequence[Batch]) -> Batch:
    """Concatenate the shares of all ranks to one batch."""
    return type(shares[0])(*(torch.cat(parts) for parts in zip(*shares)))


def pose(camera: NDArray[np.float32]) -> list[float]:
    """Compute x, y, z, sin yaw, cos yaw, sin pitch, cos pitch with Python's functions."""
    x, y, z, yaw, pitch = camera.tolist()
    return [x, y, z, math.sin(yaw), math.cos(yaw), math.sin(pitch), math.cos(pitch)]


def hold_against(batch: Batch, truths: Sequence[Truth]) -> int:
    """Assert that frames and poses match the views of the batch, and return the number of views."""
    seen = 0
    for slot, (dataset, scene, views) in enumerate(rows_of(batch)):
        assert (dataset < 0) == (scene < 0)
        for position, view in enumerate(views):
            frame, numbers = batch.frames[slot, position].numpy(), batch.poses[slot, position].numpy()
            if view < 0:
                assert not frame.any()
                assert not numbers.any()
                continue
            seen += 1
            np.testing.assert_array_equal(frame, truths[dataset].frame(scene, view))
            np.testing.assert_allclose(numbers, pose(truths[dataset].cameras[scene][view]), rtol=0, atol=3e-7)
    return seen
