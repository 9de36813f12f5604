"""The contract of a peer: functions that write its files and read its batches, and its entry in the table.

Every peer delivers batches of 36 scenes in random order with six randomly drawn views per scene. Libraries of peers are
imported inside functions, so that this package can be imported without them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gqn_data.dataset import Dataset

Form = Literal["jpeg", "raw"]

BATCH = 36
VIEWS = 6  # per scene in a batch
BUFFER = 1000  # scenes in the shuffle buffer of peers that use one
SHARDS = 16  # files of the dataset, for peers whose workers divide the files


class PeerBatch(NamedTuple):
    """A batch of torch tensors or numpy arrays.

    Attributes:
        frames: uint8 (B, VIEWS, H, W, 3).
        cameras: float32 (B, VIEWS, C), cameras or poses.
        scenes: integers (B,), indices of the scenes.
        views: integers (B, VIEWS), indices of the views.
    """

    frames: Any
    cameras: Any
    scenes: Any
    views: Any


class PeerScene(NamedTuple):
    """A scene from a worker of a peer; the peer's collation stacks these into a `PeerBatch`."""

    frames: Any
    cameras: Any
    scene: int
    views: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The pipeline of a peer.

    Attributes:
        batches: yields one epoch, or infinitely many batches, each time it is iterated.
        ahead: maximum number of prefetched batches; these are discarded before the clock starts.
    """

    batches: Iterable[PeerBatch]
    ahead: int


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A data loader to compare with.

    Attributes:
        title: name in the table.
        packages: distributions that it needs; their versions are printed.
        settings: its settings in a few words.
        decodes: what it reads and decodes of a scene, per form.
        write: function that writes all scenes of a dataset to a folder, in the peer's format.
        read: function that opens the written files with a number of workers.
        tolerance: maximum mean difference of frames between its JPEG decoder and ours, in levels of 255.
    """

    title: str
    packages: tuple[str, ...]
    settings: str
    decodes: dict[Form, str]
    write: Callable[[Dataset, Path, Form], None]
    read: Callable[[Path, Form, int], Opened]
    tolerance: float = 0.0


def jpegs_of(source: Dataset, scene: int) -> list[bytes]:
    """Return the JPEG bytes of all views of a scene."""
    encoded = source[scene].encoded
    assert encoded is not None
    return [bytes(view) for view in encoded]


def draw_views(views: int) -> NDArray[np.int64]:
    """Draw the indices of VIEWS views without repetition, from the generator that torch seeds in each worker."""
    return np.array(random.sample(range(views), VIEWS), np.int64)


def parts(scenes: int, count: int = SHARDS) -> list[range]:
    """Split the scenes into at most `count` parts of about equal size, none of them empty."""
    count = min(count, scenes)
    bounds = [scenes * part // count for part in range(count + 1)]
    return [range(begin, end) for begin, end in pairwise(bounds)]
