"""grain over ArrayRecord files.

Settings (google-grain.readthedocs.io, "Dataset Basics" and "Reading ArrayRecord Files"): files written with
`group_size:1` for random access; `MapDataset.source(ArrayRecordDataSource).seed().shuffle().repeat().random_map()`,
`.to_iter_dataset(ReadOptions(...))`, `.batch(36)`, `.mp_prefetch(MultiprocessingOptions(num_workers=N))`. Its
random generator per record draws the views. Records are msgpack (its tutorial uses pickle); six JPEGs are decoded with
Pillow. Batches are numpy arrays. Each process reads with two threads, 72 scenes ahead: the default of 16 threads and
500 scenes is for remote disks, and was a fifth slower for JPEG and half as fast for raw. Its recommendation for data in
memory, no threads, was as fast as two.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.peers.contract import BATCH, VIEWS, Form, Opened, Peer, PeerBatch, PeerScene, jpegs_of, parts
from gqn_data.dataset import Dataset

_READ_THREADS = 2
_READ_AHEAD = 72  # scenes


def _write(source: Dataset, folder: Path, form: Form) -> None:
    import msgpack
    from array_record.python import array_record_module

    for number, scenes in enumerate(parts(len(source))):
        path = folder / f"scenes-{number:05d}.array_record"
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1,uncompressed")
        for scene in scenes:
            frames: Any = jpegs_of(source, scene) if form == "jpeg" else source[scene].frames.tobytes()
            shape = source.layout.frames_shape
            writer.write(msgpack.packb((scene, shape, source.cameras_of(scene).tobytes(), frames)))
        writer.close()


def _scene(record: bytes, generator: np.random.Generator) -> PeerScene:
    import msgpack

    scene, shape, camera_bytes, content = msgpack.unpackb(record)
    cameras = np.frombuffer(camera_bytes, np.float32).reshape(shape[0], -1)
    views = generator.permutation(shape[0])[:VIEWS]
    if isinstance(content, bytes):
        frames = np.frombuffer(content, np.uint8).reshape(shape)[views]
    else:
        frames = np.stack([np.asarray(Image.open(io.BytesIO(content[view]))) for view in views])
    return PeerScene(frames, cameras[views], scene, views)


class _Batches:
    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __iter__(self) -> Iterator[PeerBatch]:
        return (PeerBatch(*batch) for batch in self._dataset)


def _read(folder: Path, _form: Form, workers: int) -> Opened:
    import grain

    files = sorted(str(path) for path in folder.glob("*.array_record"))
    dataset = (
        grain.MapDataset.source(grain.sources.ArrayRecordDataSource(files))
        .seed(0)
        .shuffle()
        .repeat()
        .random_map(_scene)
        .to_iter_dataset(grain.ReadOptions(num_threads=_READ_THREADS, prefetch_buffer_size=_READ_AHEAD))
        .batch(BATCH, drop_remainder=True)
        .mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    )
    return Opened(batches=_Batches(dataset), ahead=(2 + _READ_AHEAD // BATCH) * workers)


PEER = Peer(
    title="grain, ArrayRecord",
    packages=("grain", "array_record"),
    settings="MapDataset: shuffle, random_map; ReadOptions(2 threads, 72 ahead), batch, mp_prefetch; Pillow",
    decodes={"jpeg": "reads all, decodes the six", "raw": "reads all"},
    write=_write,
    read=_read,
)
