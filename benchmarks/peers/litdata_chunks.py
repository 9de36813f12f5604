"""litdata over optimized chunks.

Settings (the package's README): `optimize(chunk_bytes="64MB")`, `StreamingDataset(folder, shuffle=True,
drop_last=True, transform=...)`, `StreamingDataLoader(batch_size=36, num_workers=N, persistent_workers=True)`. JPEG
form: its `JpegArray` would decode all views of a scene, so each view is a leaf of `bytes`, which its README recommends
for custom decoding; six are decoded by torchvision, which its image type uses, too. Raw form: one array of all views
per scene. `batch_decode=0` unpacks one item at a time: the default unpacks 256 scenes for the few that are used, and
had a fifteenth of the rate for raw.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.contract import BATCH, Form, Opened, Peer, PeerScene, draw_views, jpegs_of
from benchmarks.peers.torch_files import Loaded
from gqn_data.dataset import Dataset, open_dataset


def _sample(path: str, form: Form, scene: int) -> dict[str, Any]:
    source = _opened.get(path) or _opened.setdefault(path, open_dataset(path))
    sample: dict[str, Any] = {"cameras": np.ascontiguousarray(source.cameras_of(scene)), "scene": scene}
    if form == "jpeg":
        return sample | {f"frame-{view}": jpeg for view, jpeg in enumerate(jpegs_of(source, scene))}
    return sample | {"frames": np.ascontiguousarray(source[scene].frames)}


_opened: dict[str, Dataset] = {}  # per process that writes


def _write(source: Dataset, folder: Path, form: Form) -> None:
    import litdata

    litdata.optimize(
        fn=partial(_sample, str(source.folder), form),
        inputs=list(range(len(source))),
        output_dir=str(folder / "chunks"),
        chunk_bytes="64MB",
        num_workers=1,
        start_method="fork",
        verbose=False,
    )


def _choose_jpegs(sample: dict[str, Any], *_: object) -> PeerScene:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    views = draw_views(len(sample["cameras"]))
    jpegs = [torch.frombuffer(bytearray(sample[f"frame-{view}"]), dtype=torch.uint8) for view in views]
    frames = torch.stack([decode_jpeg(jpeg, mode=ImageReadMode.RGB) for jpeg in jpegs])
    return PeerScene(frames, sample["cameras"][views], sample["scene"], views)


def _choose_pixels(sample: dict[str, Any], *_: object) -> PeerScene:
    views = draw_views(len(sample["cameras"]))
    return PeerScene(sample["frames"][views], sample["cameras"][views], sample["scene"], views)


def _read(folder: Path, form: Form, workers: int) -> Opened:
    import litdata

    choose = _choose_jpegs if form == "jpeg" else _choose_pixels
    dataset = litdata.StreamingDataset(
        str(folder / "chunks"), shuffle=True, drop_last=True, transform=choose, batch_decode=0
    )
    loader = litdata.StreamingDataLoader(
        dataset, batch_size=BATCH, num_workers=workers, drop_last=True, persistent_workers=True
    )
    return Opened(batches=Loaded(loader, channels_first=form == "jpeg"), ahead=2 * workers)


PEER = Peer(
    title="litdata, chunks",
    packages=("litdata", "torchvision", "torch"),
    settings="optimize(64MB), StreamingDataset(shuffle, batch_decode=0), StreamingDataLoader(persistent_workers)",
    decodes={"jpeg": "reads all, decodes the six (torchvision)", "raw": "reads all"},
    write=_write,
    read=_read,
    tolerance=1.0,
)
