"""Small synthetic scenes in DeepMind's format, written by the `tfrecord` package and Pillow.

No code of the project writes them, so they are an independent oracle.
"""

import contextlib
import io
import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tfrecord import TFRecordWriter, example_pb2

SET = "shepard_metzler_5_parts"
VIEWS, SIZE = 3, 16
FILES = {"train": 900, "test": 100}


class MadeScene(NamedTuple):
    frames: tuple[bytes, ...]
    cameras: np.ndarray


def pattern(scene, view, size=SIZE):
    """Return pixels that differ between scenes, views, rows, columns and channels."""
    row, column = np.mgrid[0:size, 0:size] * (255 // (2 * size))
    pixels = np.stack([row + 7 * scene, column + 40 * view, row // 2 + column + 13 * scene + 29 * view], axis=-1)
    return (pixels % 256).astype(np.uint8)


def jpeg(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **{"quality": 90, "subsampling": "4:2:0", **options})
    return file.getvalue()


@cache
def made_scene(number, views=VIEWS, size=SIZE):
    """Return the scene of a number. All scenes have different frames and cameras."""
    frames = tuple(jpeg(pattern(number, view, size)) for view in range(views))
    cameras = (np.arange(views * 5, dtype=np.float32).reshape(views, 5) / 7 + 100 * number).astype(np.float32)
    cameras.setflags(write=False)
    return MadeScene(frames, cameras)


def scenes_from(first, count, views=VIEWS, size=SIZE):
    return [made_scene(number, views, size) for number in range(first, first + count)]


def example_bytes(frames, cameras):
    """Serialize an `Example` with the `tfrecord` package."""
    return TFRecordWriter.serialize_tf_example(
        {"frames": (list(frames), "byte"), "cameras": (np.asarray(cameras).ravel().tolist(), "float")}
    )


def framed(payloads):
    """Return the bytes of a TFRecord file, with checksums by the `tfrecord` package."""
    parts = []
    for payload in payloads:
        length = len(payload).to_bytes(8, "little")
        parts += [length, TFRecordWriter.masked_crc(length), payload, TFRecordWriter.masked_crc(payload)]
    return b"".join(parts)


def write_source_file(path, scenes):
    """Write a source file with the writer of the `tfrecord` package."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = TFRecordWriter(str(path))
    for scene in scenes:
        datum = {"frames": (list(scene.frames), "byte"), "cameras": (scene.cameras.ravel().tolist(), "float")}
        writer.write(datum)
    writer.close()
    return path


def rendered(views=VIEWS, size=SIZE):
    return {"kind": "rendered", "details": {"seed": 5, "frame_size": size, "views": views}}


def source_name(split, number):
    return f"{number:0{len(str(FILES[split]))}d}-of-{FILES[split]}.tfrecord"


def make_raw_folder(folder, *, train=(4, 3), test=(2,), numbers=None, views=VIEWS, size=SIZE, origin=True):
    """Write a raw folder of Shepard-Metzler scenes.

    Scene s of train is `made_scene(s)`, and scene s of test is `made_scene(1000 + s)`.

    Args:
        folder: folder to create.
        train: number of scenes per training file.
        test: number of scenes per test file.
        numbers: numbers of the training files; None for 1, 2, ...
        views: views per scene.
        size: height and width of a frame.
        origin: whether to write `source.json`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if origin:
        (folder / "source.json").write_text(json.dumps(rendered(views, size)))
    for split, counts, first in (("train", train, 0), ("test", test, 1000)):
        at = first
        for index, count in enumerate(counts):
            number = numbers[index] if numbers and split == "train" else index + 1
            write_source_file(folder / split / source_name(split, number), scenes_from(at, count, views, size))
            at += count
    return folder


def tree(folder):
    """Return the bytes of every file below a folder, by relative path. Files that vanish meanwhile are skipped."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def parse(payload):
    """Parse a payload with protobuf."""
    return example_pb2.Example.FromString(payload)


def serialize_bad_camera(scene, view):
    """Serialize a scene as an `Example`, with NaN in the camera of one view."""
    cameras = scene.cameras.copy()
    cameras[view, 3] = np.nan
    return example_bytes(scene.frames, cameras)
