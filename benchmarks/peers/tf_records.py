"""tf.data over TFRecords.

Settings (tensorflow.org, "Better performance with the tf.data API"): files interleaved with
`num_parallel_calls=AUTOTUNE` and `deterministic=False`, `shuffle(1000)`, `repeat()`, one `map` with AUTOTUNE that
parses, draws six views and decodes only these (like DeepMind's reader), `batch(36, drop_remainder=True)`,
`prefetch(AUTOTUNE)`. tf.data uses threads instead of worker processes: the size of its private pool and its CPU budget
are the number of workers, with one thread per operation. Both forms are written by its own writer: DeepMind's records
with the scene's index added; in the raw form the pixels of a scene are one string, read by `decode_raw`. Batches are
numpy arrays.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.peers.contract import BATCH, BUFFER, VIEWS, Form, Opened, Peer, PeerBatch, jpegs_of, parts
from gqn_data.dataset import Dataset


def _write(source: Dataset, folder: Path, form: Form) -> None:
    import tensorflow as tf

    def feature(values: list[bytes]) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    for number, scenes in enumerate(parts(len(source))):
        with tf.io.TFRecordWriter(str(folder / f"scenes-{number:05d}.tfrecord")) as writer:
            for scene in scenes:
                frames = jpegs_of(source, scene) if form == "jpeg" else [source[scene].frames.tobytes()]
                cameras = source.cameras_of(scene)
                features = {
                    "frames": feature(frames),
                    "cameras": tf.train.Feature(float_list=tf.train.FloatList(value=cameras.reshape(-1).tolist())),
                    "scene": tf.train.Feature(int64_list=tf.train.Int64List(value=[scene])),
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())
    shape = (*source.layout.frames_shape, source.cameras_of(0).shape[1])
    (folder / "shape").write_text(" ".join(str(size) for size in shape))


class _Batches:
    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __iter__(self) -> Iterator[PeerBatch]:
        return (PeerBatch(*batch) for batch in self._dataset.as_numpy_iterator())


def _read(folder: Path, form: Form, workers: int) -> Opened:
    import tensorflow as tf

    views, height, width, channels, numbers = (int(size) for size in (folder / "shape").read_text().split())
    described = {
        "frames": tf.io.FixedLenFeature([views if form == "jpeg" else 1], tf.string),
        "cameras": tf.io.FixedLenFeature([views, numbers], tf.float32),
        "scene": tf.io.FixedLenFeature([], tf.int64),
    }

    def scene_of(record: Any) -> tuple[Any, Any, Any, Any]:
        example = tf.io.parse_single_example(record, described)
        chosen = tf.random.shuffle(tf.range(views, dtype=tf.int64))[:VIEWS]
        if form == "jpeg":
            jpegs = tf.gather(example["frames"], chosen)
            frames = tf.stack([tf.io.decode_jpeg(jpegs[number], channels=channels) for number in range(VIEWS)])
        else:
            pixels = tf.reshape(tf.io.decode_raw(example["frames"][0], tf.uint8), (views, height, width, channels))
            frames = tf.gather(pixels, chosen)
        frames = tf.ensure_shape(frames, (VIEWS, height, width, channels))
        return frames, tf.gather(example["cameras"], chosen), example["scene"], chosen

    files = sorted(str(path) for path in folder.glob("*.tfrecord"))
    dataset = (
        tf.data.Dataset.from_tensor_slices(files)
        .shuffle(len(files))
        .repeat()
        .interleave(tf.data.TFRecordDataset, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
        .shuffle(BUFFER)
        .map(scene_of, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
        .batch(BATCH, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )
    options = tf.data.Options()
    options.threading.private_threadpool_size = workers
    options.threading.max_intra_op_parallelism = 1
    options.autotune.cpu_budget = workers
    return Opened(batches=_Batches(dataset.with_options(options)), ahead=16)


PEER = Peer(
    title="tf.data, TFRecords",
    packages=("tensorflow-cpu",),
    settings="interleave, shuffle(1000), map, prefetch, all AUTOTUNE; threads and budget: number of workers",
    decodes={"jpeg": "reads all, decodes the six (decode_jpeg)", "raw": "reads all (decode_raw)"},
    write=_write,
    read=_read,
    tolerance=1.5,  # by default it uses the faster, less accurate inverse DCT
)
