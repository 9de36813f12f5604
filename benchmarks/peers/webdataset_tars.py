"""The stock webdataset pipeline over tars.

Settings (webdataset.github.io, and the package's README): `WebDataset(shards, shardshuffle=100).shuffle(1000)`,
a choice of views, `.decode("rgb8")`, `.batched(36)` in the workers, `WebLoader(batch_size=None, num_workers=N)`;
shards repeat infinitely (`repeat()`), which it recommends instead of epochs. JPEG form: the tars of `gqn-data convert`,
which are standard; a `map` before `decode` keeps six views, so that the others are not decoded. Raw form: written by
its `ShardWriter`, one array of all views per scene (`frames.npy`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.contract import (
    BATCH,
    BUFFER,
    SHARDS,
    Form,
    Opened,
    Peer,
    PeerBatch,
    draw_views,
)
from gqn_data.convert import convert
from gqn_data.convert.plan import Options
from gqn_data.dataset import Dataset
from gqn_data.schema.catalog import find_scene_set

_AHEAD = 2  # torch's default per worker


def _write(source: Dataset, folder: Path, form: Form) -> None:
    if form == "jpeg":
        total = sum(row.bytes for shard in source.shards for row in shard.files)
        options = Options(formats=("webdataset",), workers=1, splits=(source.split,), shard_bytes=-(-total // SHARDS))
        convert(Path(str(source.folder)), find_scene_set(source.manifest.scene_set), folder, options)
        return
    import webdataset

    pattern, scenes_per_shard = str(folder / "scenes-%06d.tar"), -(-len(source) // SHARDS)
    with webdataset.ShardWriter(pattern, maxcount=scenes_per_shard, verbose=0) as writer:
        for scene in range(len(source)):
            arrays = {"cameras.npy": source.cameras_of(scene), "frames.npy": source[scene].frames}
            writer.write({"__key__": f"{scene:010d}", **arrays})


def _choose_jpegs(sample: dict[str, Any]) -> dict[str, Any]:
    """Return the sample with six of its JPEGs, renamed so that all samples have the same names."""
    views = draw_views(sum(name.endswith(".jpg") for name in sample))
    chosen = {f"{number}.jpg": sample[f"{view:02d}.jpg"] for number, view in enumerate(views)}
    return {"__key__": sample["__key__"], "cameras.npy": sample["cameras.npy"], "__views__": views, **chosen}


def _stack_jpegs(sample: dict[str, Any]) -> tuple[Any, Any, int, Any]:
    views = sample["__views__"]
    frames = np.stack([sample[f"{number}.jpg"] for number in range(len(views))])
    return frames, sample["cameras.npy"][views], int(sample["__key__"]), views


def _choose_pixels(sample: dict[str, Any]) -> tuple[Any, Any, int, Any]:
    views = draw_views(len(sample["cameras.npy"]))
    return sample["frames.npy"][views], sample["cameras.npy"][views], int(sample["__key__"]), views


class _Batches:
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[PeerBatch]:
        return (PeerBatch(*batch) for batch in self._loader)


def _read(folder: Path, form: Form, workers: int) -> Opened:
    import webdataset

    shards = [str(path) for path in sorted(folder.rglob("*.tar"))]
    pipeline = webdataset.WebDataset(shards, shardshuffle=100, seed=0).repeat().shuffle(BUFFER)
    if form == "jpeg":
        pipeline = pipeline.map(_choose_jpegs).decode("rgb8").map(_stack_jpegs)
    else:
        pipeline = pipeline.decode().map(_choose_pixels)
    loader = webdataset.WebLoader(pipeline.batched(BATCH, partial=False), batch_size=None, num_workers=workers)
    return Opened(batches=_Batches(loader), ahead=_AHEAD * workers)


PEER = Peer(
    title="webdataset",
    packages=("webdataset", "torch"),
    settings="WebDataset(shardshuffle=100).shuffle(1000), decode('rgb8'), batched in workers, WebLoader",
    decodes={"jpeg": "reads all, decodes the six (map before decode)", "raw": "reads all"},
    write=_write,
    read=_read,
)
