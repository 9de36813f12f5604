"""What a peer is: how its files are written, how its batches are read, and what is said of it in the table.

Every peer gives the same: batches of 36 scenes in random order, six views of each, drawn anew every time. Its own
library is imported inside its functions, so that this package can be read where no peer is installed.
Imports numpy and the type of an opened dataset; no peer.
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
VIEWS = 6  # of each scene in a batch
BUFFER = 1000  # scenes in a buffer of shuffled ones, where a peer shuffles by such a buffer
SHARDS = 16  # files of a set, where a peer's workers share the files among them


class PeerBatch(NamedTuple):
    """A batch, of torch tensors or numpy arrays.

    Attributes:
        frames: uint8 (B, VIEWS, H, W, 3).
        cameras: float32 (B, VIEWS, numbers of a camera or of a pose).
        scenes: integers (B,), numbers of the scenes.
        views: integers (B, VIEWS), numbers of the views.
    """

    frames: Any
    cameras: Any
    scenes: Any
    views: Any


class PeerScene(NamedTuple):
    """A scene as one of a peer's workers makes it, to be stacked to a `PeerBatch` by the peer's own means."""

    frames: Any
    cameras: Any
    scene: int
    views: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A peer's pipeline.

    Attributes:
        batches: gives one epoch, or no end of batches, each time it is iterated.
        ahead: batches that may have been made before anybody asks; as many are taken before the clock starts.
    """

    batches: Iterable[PeerBatch]
    ahead: int


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A way of feeding scenes to a trainer, with what is to be said of it.

    Attributes:
        title: its name in the table.
        packages: distributions that it needs; the first is the one whose version is printed.
        settings: how it is set up, in a few words.
        decodes: what it reads and decodes of a scene, for each form that it is measured in.
        write: writes all scenes of a dataset into a folder in the peer's own form.
        read: opens what `write` wrote, with so many workers.
        tolerance: the mean difference of frames, in levels of 255, that its JPEG decoder may show beside ours.
    """

    title: str
    packages: tuple[str, ...]
    settings: str
    decodes: dict[Form, str]
    write: Callable[[Dataset, Path, Form], None]
    read: Callable[[Path, Form, int], Opened]
    tolerance: float = 0.0


def jpegs_of(source: Dataset, scene: int) -> list[bytes]:
    """The JPEG bytes of all views of a scene."""
    encoded = source[scene].encoded
    assert encoded is not None
    return [bytes(view) for view in encoded]


def draw_views(views: int) -> NDArray[np.int64]:
    """Numbers of VIEWS views, without repetition, from the generator that torch seeds in every worker."""
    return np.array(random.sample(range(views), VIEWS), np.int64)


def parts(scenes: int, count: int = SHARDS) -> list[range]:
    """The scenes in so many parts of about equal size, none of them empty."""
    count = min(count, scenes)
    bounds = [scenes * part // count for part in range(count + 1)]
    return [range(begin, end) for begin, end in pairwise(bounds)]
