"""`gqn_data.loader.SceneLoader` as a peer: a zarr dataset of JPEGs, a numpy dataset of pixels.

Five context views and a query make six views. It returns poses of seven numbers; peers return cameras of five.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers.contract import BATCH, VIEWS, Form, Opened, Peer, PeerBatch
from gqn_data.dataset import Dataset

if TYPE_CHECKING:
    from gqn_data.loader import SceneLoader


class _Batches:
    def __init__(self, loader: SceneLoader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[PeerBatch]:
        return (PeerBatch(batch.frames, batch.poses, batch.scenes, batch.views) for batch in self._loader)


def _write(source: Dataset, folder: Path, form: Form) -> None:
    raise NotImplementedError("the source is already a dataset of ours")


def _read(folder: Path, _form: Form, workers: int) -> Opened:
    from gqn_data.loader import SceneLoader

    loader = SceneLoader(folder, batch_size=BATCH, context=(VIEWS - 1, VIEWS - 1), workers=workers)
    return Opened(batches=_Batches(loader), ahead=4 * workers)


PEER = Peer(
    title="ours",
    packages=("gqn-toolkit", "torch"),
    settings="SceneLoader; JPEG: zarr; raw: numpy",
    decodes={"jpeg": "reads and decodes the six", "raw": "reads the six"},
    write=_write,
    read=_read,
)
