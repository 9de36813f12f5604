"""mosaicml-streaming over MDS shards.

Settings (docs.mosaicml.com, "Quick Start" and "Performance Tuning"): shards written by `MDSWriter` with its defaults,
uncompressed; `StreamingDataset(local=..., shuffle=True, batch_size=36)` with the default shuffling `py1e`, its
`__getitem__` extended as in its guide on images; `StreamingDataLoader(batch_size=36, num_workers=N, drop_last=True,
persistent_workers=True)`. JPEG form: a column `jpeg_array` with the JPEGs of a scene, read as lazy Pillow images;
six are decoded. Raw form: a column `ndarray:uint8` of fixed shape.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.contract import BATCH, Form, Opened, Peer, PeerScene, draw_views, jpegs_of
from benchmarks.peers.torch_files import Loaded
from gqn_data.dataset import Dataset


def _write(source: Dataset, folder: Path, form: Form) -> None:
    import streaming

    views = source.layout.views
    frames = "jpeg_array" if form == "jpeg" else "ndarray:uint8:" + ",".join(map(str, source.layout.frames_shape))
    columns = {"frames": frames, "cameras": f"ndarray:float32:{views},{source.cameras_of(0).shape[1]}", "scene": "int"}
    with streaming.MDSWriter(out=str(folder / "mds"), columns=columns) as writer:
        for scene in range(len(source)):
            content: Any = jpegs_of(source, scene) if form == "jpeg" else np.ascontiguousarray(source[scene].frames)
            cameras = np.ascontiguousarray(source.cameras_of(scene))
            writer.write({"frames": content, "cameras": cameras, "scene": scene})


def _read(folder: Path, form: Form, workers: int) -> Opened:
    import streaming

    class Scenes(streaming.StreamingDataset):  # type: ignore[misc]  # not installed for type checks
        def __getitem__(self, at: int) -> PeerScene:
            sample = super().__getitem__(at)
            views = draw_views(len(sample["cameras"]))
            if form == "jpeg":
                frames = np.stack([np.asarray(sample["frames"][view]) for view in views])
            else:
                frames = sample["frames"][views]
            return PeerScene(frames, sample["cameras"][views], sample["scene"], views)

    streaming.base.util.clean_stale_shared_memory()  # from an interrupted run
    dataset = Scenes(local=str(folder / "mds"), shuffle=True, batch_size=BATCH)
    loader = streaming.StreamingDataLoader(
        dataset, batch_size=BATCH, num_workers=workers, drop_last=True, persistent_workers=True
    )
    return Opened(batches=Loaded(loader), ahead=2 * workers)


PEER = Peer(
    title="mosaicml-streaming, MDS",
    packages=("mosaicml-streaming", "torch"),
    settings="StreamingDataset(local, shuffle, py1e), StreamingDataLoader(persistent_workers); Pillow",
    decodes={"jpeg": "reads all, decodes the six", "raw": "reads all"},
    write=_write,
    read=_read,
)
