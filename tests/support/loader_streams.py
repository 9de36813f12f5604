"""What tests of the loader do with batches: keep them as bytes, name their views, hold them against the truth."""

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
    """All of a batch as bytes: kept without keeping its memory, and compared to the last bit."""
    return tuple(f"{part.dtype} {tuple(part.shape)} ".encode() + part.numpy().tobytes() for part in batch)


def stream(paths: Any, count: int | None = None, **options: Any) -> list[Snapshot]:
    """The first `count` batches, or all of `epochs`."""
    return taken(SceneLoader(paths, **{"batch_size": 4, "seed": 7, "context": (1, 3), **options}), count)


def taken(loader: SceneLoader, count: int | None = None) -> list[Snapshot]:
    """The next `count` batches of a loader, or all that are left; its workers are gone then."""
    try:
        return [snapshot(batch) for batch in islice(loader, count)]
    finally:
        loader.close()


def rows_of(batch: Batch) -> list[Row]:
    """The dataset, scene and views of each slot."""
    return [*zip(batch.datasets.tolist(), batch.scenes.tolist(), map(tuple, batch.views.tolist()))]


def joined(shares: Sequence[Batch]) -> Batch:
    """One batch of the shares of all ranks."""
    return Batch(*(torch.cat(parts) for parts in zip(*shares)))


def pose(camera: NDArray[np.float32]) -> list[float]:
    """x, y, z, sin yaw, cos yaw, sin pitch, cos pitch, by Python's own functions."""
    x, y, z, yaw, pitch = camera.tolist()
    return [x, y, z, math.sin(yaw), math.cos(yaw), math.sin(pitch), math.cos(pitch)]


def hold_against(batch: Batch, truths: Sequence[Truth]) -> int:
    """Asserts that frames and poses are those of the views that the batch names; how many there were."""
    seen = 0
    for slot, (dataset, scene, views) in enumerate(rows_of(batch)):
        assert (dataset < 0) == (scene < 0)
        for place, view in enumerate(views):
            frame, numbers = batch.frames[slot, place].numpy(), batch.poses[slot, place].numpy()
            if view < 0:
                assert not frame.any()
                assert not numbers.any()
                continue
            seen += 1
            np.testing.assert_array_equal(frame, truths[dataset].frame(scene, view))
            np.testing.assert_allclose(numbers, pose(truths[dataset].cameras[scene][view]), rtol=0, atol=3e-7)
    return seen
