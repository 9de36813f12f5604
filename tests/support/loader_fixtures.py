"""Small datasets in every container, written by the project, and their content as ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from gqn_data.convert import convert
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.plan import Options
from gqn_data.io import atomic
from gqn_data.schema.catalog import SPLITS, find_scene_set
from gqn_data.schema.origin import SOURCE_FILE, Origin
from gqn_data.sources.raw_folder import open_raw_folder
from gqn_data.tfrecord.framing import RecordWriter, serialize_example

SET = "shepard_metzler_5_parts"
SIZE = 16
VIEWS = 5

# tfrecord is read in place; zarr-raw is the zarr container with decoded frames.
CONTAINERS = ("tfrecord", "zarr", "zarr-raw", "numpy", "webdataset")


class Truth(NamedTuple):
    """Content of one split, by scene: JPEG bytes of each view, and cameras (views, 5)."""

    jpegs: list[list[bytes]]
    cameras: list[NDArray[np.float32]]

    def frame(self, scene: int, view: int) -> NDArray[np.uint8]:
        """Decode a frame with only the JPEG library."""
        return np.asarray(simplejpeg.decode_jpeg(self.jpegs[scene][view], "RGB"))


class Raw(NamedTuple):
    """Raw folder and its content."""

    folder: Path
    train: Truth
    test: Truth


def write_raw(
    folder: Path,
    *,
    train: Sequence[int] = (6, 4, 11),
    test: Sequence[int] = (3,),
    size: int = SIZE,
    views: int = VIEWS,
    seed: int = 0,
) -> Raw:
    """Write a raw folder of coarse random frames, marked as rendered.

    `train` and `test` are the numbers of scenes per source file.
    """
    rng = np.random.default_rng(seed)
    facts = find_scene_set(SET)
    truths = {}
    for split, counts in zip(SPLITS, (train, test)):
        truth = truths[split] = Truth([], [])
        for number, scenes in enumerate(counts, 1):
            path = folder / split / facts.split(split).file_name(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                writer = RecordWriter(file)
                for _ in range(scenes):
                    frames = rng.integers(0, 256, (views, -(-size // 4), -(-size // 4), 3), np.uint8)
                    frames = frames.repeat(4, 1).repeat(4, 2)[:, :size, :size]
                    jpegs = [simplejpeg.encode_jpeg(np.ascontiguousarray(frame), 90, "RGB", "420") for frame in frames]
                    cameras = rng.normal(size=(views, 5)).astype(np.float32)
                    writer.write(serialize_example(jpegs, cameras))
                    truth.jpegs.append(jpegs)
                    truth.cameras.append(cameras)
    details = {"frame_size": size, "views": views, "seed": seed}
    atomic.write_json(folder / SOURCE_FILE, Origin(kind="rendered", details=details).to_json())
    return Raw(folder, truths["train"], truths["test"])


def index(folder: Path, name: str = SET) -> Path:
    """Index a raw folder, and return it."""
    index_raw_folder(open_raw_folder(folder, find_scene_set(name)))
    return folder


def convert_to(
    container: str, folder: Path, root: Path, *, name: str = SET, shard_bytes: int = 30_000, overwrite: bool = False
) -> Path:
    """Convert to a container of `CONTAINERS`, and return the folder of the dataset."""
    format_name, _, raw = container.partition("-")
    options = Options(
        formats=(format_name,),
        frames="raw" if raw else None,
        shard_bytes=shard_bytes,
        overwrite=overwrite,
        workers=1,
    )
    return convert(folder, find_scene_set(name), root / container, options)[0].folder


def make_all(raw_folder: Path, root: Path, *, name: str = SET, shard_bytes: int = 30_000) -> dict[str, Path]:
    """Convert to all containers, and return the folder of the dataset by container."""
    index(raw_folder, name)
    made = {"tfrecord": raw_folder}
    for container in CONTAINERS[1:]:
        made[container] = convert_to(container, raw_folder, root, name=name, shard_bytes=shard_bytes)
    return made
