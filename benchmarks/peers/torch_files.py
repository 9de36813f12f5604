"""torch's DataLoader over one file or folder per scene, as in early GQN trainers in PyTorch.

Settings: a map-style `Dataset`, `DataLoader(batch_size=36, shuffle=True, drop_last=True, num_workers=N,
persistent_workers=True)` with the default collation and the default prefetch of two batches per worker
(docs.pytorch.org, torch.utils.data). JPEG form: a folder per scene with a file per view, decoded with Pillow as in
torch's tutorial on custom datasets. Raw form: an uncompressed `.npz` file per scene (`numpy.savez`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.peers.contract import BATCH, Form, Opened, Peer, PeerBatch, PeerScene, draw_views, jpegs_of
from gqn_data.dataset import Dataset

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

_AHEAD = 2  # torch's default per worker


def scene_folder(folder: Path, scene: int) -> Path:
    """Return the folder of a scene; a thousand scenes share a parent folder."""
    return folder / f"{scene // 1000:04d}" / f"{scene:07d}"


def write_jpegs(source: Dataset, folder: Path) -> None:
    """Write a folder per scene with `00.jpg`, `01.jpg` ... and `cameras.npy`."""
    for scene in range(len(source)):
        own = scene_folder(folder, scene)
        own.mkdir(parents=True)
        np.save(own / "cameras.npy", source.cameras_of(scene))
        for view, jpeg in enumerate(jpegs_of(source, scene)):
            (own / f"{view:02d}.jpg").write_bytes(jpeg)


def _write(source: Dataset, folder: Path, form: Form) -> None:
    if form == "jpeg":
        write_jpegs(source, folder)
        return
    for scene in range(len(source)):
        path = scene_folder(folder, scene).with_suffix(".npz")
        path.parent.mkdir(exist_ok=True)
        np.savez(path, frames=source[scene].frames, cameras=source.cameras_of(scene))


class MapStyle(Protocol):
    """Protocol of a map-style dataset of torch."""

    def __len__(self) -> int: ...

    def __getitem__(self, scene: int) -> PeerScene: ...


class _JpegFolders:
    def __init__(self, folder: Path) -> None:
        self.folders = [path.parent for path in sorted(folder.glob("*/*/cameras.npy"))]

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, scene: int) -> PeerScene:
        own = self.folders[scene]
        cameras = np.load(own / "cameras.npy")
        views = draw_views(len(cameras))
        frames = np.stack([self._frame(own / f"{view:02d}.jpg") for view in views])
        return PeerScene(frames, cameras[views], scene, views)

    @staticmethod
    def _frame(path: Path) -> NDArray[np.uint8]:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))


class _Arrays:
    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("*/*.npz"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, scene: int) -> PeerScene:
        with np.load(self.files[scene]) as arrays:
            frames, cameras = arrays["frames"], arrays["cameras"]
        views = draw_views(len(cameras))
        return PeerScene(frames[views], cameras[views], scene, views)


class Loaded:
    """Batches of a DataLoader of `PeerScene`s, with channels last.

    Args:
        loader: loader that yields `PeerScene`s of stacked tensors.
        channels_first: whether its frames are (B, VIEWS, 3, H, W); they are permuted without a copy.
    """

    def __init__(self, loader: DataLoader[PeerScene], *, channels_first: bool = False) -> None:
        self._loader = loader
        self._channels_first = channels_first

    def __iter__(self) -> Iterator[PeerBatch]:
        for frames, cameras, scenes, views in self._loader:
            yield PeerBatch(frames.permute(0, 1, 3, 4, 2) if self._channels_first else frames, cameras, scenes, views)


def map_style(dataset: MapStyle, workers: int, *, channels_first: bool = False) -> Opened:
    """Open a map-style dataset with a DataLoader, as in torch's documentation."""
    import torch
    from torch.utils.data import DataLoader

    loader = DataLoader(
        cast("torch.utils.data.Dataset[PeerScene]", dataset),  # torch needs only the two methods
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        generator=torch.Generator().manual_seed(0),
    )
    return Opened(batches=Loaded(loader, channels_first=channels_first), ahead=_AHEAD * workers)


def _read(folder: Path, form: Form, workers: int) -> Opened:
    return map_style(_JpegFolders(folder) if form == "jpeg" else _Arrays(folder), workers)


PEER = Peer(
    title="torch DataLoader, files, Pillow",
    packages=("torch", "pillow"),
    settings="map-style, shuffle, persistent_workers; JPEG: folder per scene, Pillow; raw: .npz per scene",
    decodes={"jpeg": "reads and decodes the six", "raw": "reads all"},
    write=_write,
    read=_read,
)
