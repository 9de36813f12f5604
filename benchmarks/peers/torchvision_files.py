"""torch's DataLoader over one file or folder per scene, with torchvision's decoder and torch's file format.

Settings as in `torch_files`. JPEG form: a folder per scene with a file per view, read by `torchvision.io.read_file` and
`decode_jpeg` (docs.pytorch.org, torchvision.io, which recommends this for uint8 tensors from files). Raw form: a
`torch.save` file per scene, read by `torch.load(weights_only=True, mmap=True)`, as its documentation recommends for
partial reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.contract import Form, Opened, Peer, PeerScene, draw_views
from benchmarks.peers.torch_files import map_style, scene_folder, write_jpegs
from gqn_data.dataset import Dataset


def _write(source: Dataset, folder: Path, form: Form) -> None:
    if form == "jpeg":
        write_jpegs(source, folder)
        return
    import torch

    for scene in range(len(source)):
        cameras = torch.from_numpy(source.cameras_of(scene).copy())
        path = scene_folder(folder, scene).with_suffix(".pt")
        path.parent.mkdir(exist_ok=True)
        torch.save({"frames": torch.from_numpy(source[scene].frames.copy()), "cameras": cameras}, path)


class _JpegFolders:
    def __init__(self, folder: Path) -> None:
        import torchvision.io

        self.io: Any = torchvision.io
        self.folders = [path.parent for path in sorted(folder.glob("*/*/cameras.npy"))]

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, scene: int) -> PeerScene:
        import torch

        own = self.folders[scene]
        cameras = torch.from_numpy(np.load(own / "cameras.npy"))
        views = draw_views(len(cameras))
        files = [self.io.read_file(str(own / f"{view:02d}.jpg")) for view in views]
        frames = torch.stack([self.io.decode_jpeg(file, mode=self.io.ImageReadMode.RGB) for file in files])
        return PeerScene(frames, cameras[views], scene, views)


class _Tensors:
    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("*/*.pt"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, scene: int) -> PeerScene:
        import torch

        tensors = torch.load(self.files[scene], weights_only=True, mmap=True)
        views = draw_views(len(tensors["cameras"]))
        return PeerScene(tensors["frames"][views], tensors["cameras"][views], scene, views)


def _read(folder: Path, form: Form, workers: int) -> Opened:
    if form == "jpeg":
        return map_style(_JpegFolders(folder), workers, channels_first=True)
    return map_style(_Tensors(folder), workers)


PEER = Peer(
    title="torch DataLoader, files, torchvision",
    packages=("torchvision", "torch"),
    settings="map-style, shuffle, persistent_workers; JPEG: folder per scene, decode_jpeg; raw: torch.load(mmap=True)",
    decodes={"jpeg": "reads and decodes the six", "raw": "maps the file, reads the six"},
    write=_write,
    read=_read,
    tolerance=1.0,
)
