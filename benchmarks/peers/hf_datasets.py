"""Hugging Face datasets, streaming parquet files from the disk.

Settings (huggingface.co/docs/datasets, "Stream" and "Use with PyTorch"): `load_dataset("parquet", streaming=True)`,
`.shuffle(buffer_size=1000)`, `.map()`, torch's `DataLoader(batch_size=36, num_workers=N, persistent_workers=True)` over
enough files for all workers. The JPEGs of a scene are a list of `binary`, pixels are one `binary`. This favours the
peer: its `Image` would decode every view, and its `Array4D` would return nested lists. Six JPEGs are decoded with
Pillow, which `Image` uses, too. The library sleeps five seconds after the last file, so that threads of pyarrow end;
this is set to zero, because ends of epochs are not timed and the sleep starts long before the last batch.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.peers.contract import BATCH, BUFFER, Form, Opened, Peer, PeerScene, draw_views, jpegs_of, parts
from benchmarks.peers.torch_files import Loaded
from gqn_data.dataset import Dataset

_ROWS = 100  # per row group, the library's choice for images


def _write(source: Dataset, folder: Path, form: Form) -> None:
    import pyarrow
    import pyarrow.parquet

    frames_type = pyarrow.list_(pyarrow.binary()) if form == "jpeg" else pyarrow.binary()
    fields = [("scene", pyarrow.int64()), ("shape", pyarrow.list_(pyarrow.int64())), ("cameras", pyarrow.binary())]
    schema = pyarrow.schema([*fields, ("frames", frames_type)])
    for number, scenes in enumerate(parts(len(source))):
        path = folder / f"scenes-{number:05d}.parquet"
        with pyarrow.parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
            for begin in range(scenes.start, scenes.stop, _ROWS):
                rows = [_row(source, scene, form) for scene in range(begin, min(begin + _ROWS, scenes.stop))]
                writer.write_table(pyarrow.Table.from_pylist(rows, schema), row_group_size=_ROWS)


def _row(source: Dataset, scene: int, form: Form) -> dict[str, Any]:
    return {
        "scene": scene,
        "shape": list(source.layout.frames_shape),
        "cameras": source.cameras_of(scene).tobytes(),
        "frames": jpegs_of(source, scene) if form == "jpeg" else source[scene].frames.tobytes(),
    }


def _choose(row: dict[str, Any]) -> dict[str, Any]:
    shape, content = row["shape"], row["frames"]
    cameras = np.frombuffer(row["cameras"], np.float32).reshape(shape[0], -1)
    views = draw_views(shape[0])
    if isinstance(content, bytes):
        frames = np.frombuffer(content, np.uint8).reshape(shape)[views]
    else:
        frames = np.stack([np.asarray(Image.open(io.BytesIO(content[view]))) for view in views])
    return {"chosen": PeerScene(frames, cameras[views], row["scene"], views)}


def _collate(rows: list[dict[str, Any]]) -> Any:
    from torch.utils.data import default_collate

    return default_collate([row["chosen"] for row in rows])


def _read(folder: Path, _form: Form, workers: int) -> Opened:
    import datasets
    from torch.utils.data import DataLoader

    datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0
    files = sorted(str(path) for path in folder.glob("*.parquet"))
    stream = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    stream = stream.shuffle(seed=0, buffer_size=BUFFER).map(_choose, remove_columns=["shape", "cameras", "frames"])
    loader = DataLoader[Any](
        stream,
        batch_size=BATCH,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        collate_fn=_collate,
    )
    return Opened(batches=Loaded(loader), ahead=2 * workers)


PEER = Peer(
    title="HF datasets, streaming parquet",
    packages=("datasets", "pyarrow", "torch"),
    settings="load_dataset(streaming), shuffle(buffer_size=1000), map, DataLoader(persistent_workers); Pillow",
    decodes={"jpeg": "reads all, decodes the six", "raw": "reads all"},
    write=_write,
    read=_read,
)
