"""tfrecord: DeepMind's source files, trainable in place through an index for each, and shards in the same schema.

Source files keep their names and differ in size. Converted shards are `<split>/scenes-00000.tfrecord` with
`<split>/scenes-00000.index.npy`, of equal size; any reader of DeepMind's files can read them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import CorruptFrame, CorruptFraming, CorruptRecord, ManifestError, ShardChecksumError
from gqn_data.formats.contract import Format, OpenShard, ShardLocation, no_metadata
from gqn_data.formats.shards import IndexedShard, encoded_frames, index_dtype, write_npy
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath
from gqn_data.io.ranged import RangedFile, npy_rows
from gqn_data.schema.catalog import Split
from gqn_data.schema.layout import SceneLayout
from gqn_data.schema.manifest import Encoding, FileRow, Manifest, ShardRow
from gqn_data.schema.scene import Scene
from gqn_data.tfrecord.example import ScannedScene, SceneScanner
from gqn_data.tfrecord.framing import (
    FOOTER_BYTES,
    HEADER_BYTES,
    Record,
    RecordWriter,
    masked_crc,
    payload_crc_error,
    read_records,
    serialize_example,
)


class TFRecordShard(IndexedShard):
    """Open TFRecord with its index."""

    def scene(self, scene: int) -> Scene:
        """Read one scene and check its record's checksum, because the file may have changed since it was indexed.

        Raises:
            CorruptRecord: the record does not match its checksum.
        """
        row = self.index[scene]
        record, size = int(row["record"]), int(row["size"])
        data = memoryview(self.file.read(record, size))
        payload, footer = data[HEADER_BYTES:-FOOTER_BYTES], data[-FOOTER_BYTES:]
        found, expected = masked_crc(payload), int.from_bytes(footer, "little")
        if found != expected:
            raise payload_crc_error(self.file.path, scene, record, found, expected)
        offsets, lengths = (row["offset"] - row["record"]).tolist(), row["length"].tolist()
        encoded = [data[offset : offset + length] for offset, length in zip(offsets, lengths)]
        return Scene(row["cameras"], encoded=encoded, size=(self.layout.height, self.layout.width))


def scenes_in_sequence(folder: AnyPath, manifest: Manifest, split: Split, first: int, count: int) -> Iterator[Scene]:
    """Yield consecutive scenes of source files without an index, checking every record.

    Args:
        folder: the raw folder.
        manifest: manifest of its files, with their counts.
        split: the split.
        first: number of the first scene in the split.
        count: number of scenes.

    Raises:
        CorruptRecord: a record is corrupt, or a file has fewer records than the manifest says.
    """
    layout = manifest.layout
    scanner = SceneScanner(layout)
    before = 0
    for shard in manifest.splits[split].shards:
        begin, end = max(first, before), min(first + count, before + shard.scenes)
        if begin < end:
            path = folder / shard.files[0].name
            left = end - begin
            for record in islice(read_records(path, first=begin - before), left):
                left -= 1
                found = scanner.scan(record, path)
                payload = memoryview(record.payload)
                encoded = [payload[offset : offset + length] for offset, length in zip(found.offsets, found.lengths)]
                yield Scene(found.cameras, encoded=encoded, size=(layout.height, layout.width))
            if left:
                reason = f"the file ends here, expected {shard.scenes} records: it changed since it was counted"
                raise CorruptFraming(path, end - before - left, path.stat().st_size, reason, "rerun the command")
        before += shard.scenes


class IndexBuilder:
    """Builder of the index of one file, fed record by record.

    Args:
        layout: shape of every scene.

    Attributes:
        scenes: number of scenes added so far.
    """

    def __init__(self, layout: SceneLayout) -> None:
        self._layout = layout
        self._records, self._sizes = array("Q"), array("Q")
        self._offsets, self._lengths = array("Q"), array("L")
        self._cameras: list[NDArray[np.float32]] = []
        self.scenes = 0

    def add(self, record: Record, scene: ScannedScene) -> None:
        """Add the next scene."""
        self._records.append(record.offset)
        self._sizes.append(HEADER_BYTES + len(record.payload) + FOOTER_BYTES)
        self._offsets.extend(scene.offsets)
        self._lengths.extend(scene.lengths)
        self._cameras.append(scene.cameras)
        self.scenes += 1

    def rows(self) -> NDArray[np.void]:
        """Return the index: rows of `index_dtype`."""
        index = np.zeros(self.scenes, index_dtype(self._layout))
        if self.scenes:
            shape = self.scenes, self._layout.views
            index["record"] = self._records
            index["size"] = self._sizes
            # Scanned offsets count from the start of the payload, index offsets from the start of the file.
            starts = (index["record"] + HEADER_BYTES)[:, None]
            index["offset"] = np.array(self._offsets, np.uint64).reshape(shape) + starts
            index["length"] = np.array(self._lengths, np.uint32).reshape(shape)
            index["cameras"] = np.stack(self._cameras)
        return index


def index_name(source_name: str) -> str:
    """Return the name of the index of a source file: `0001-of-2160.index.npy`."""
    return Path(source_name).with_suffix(".index.npy").as_posix()


def _open_shard(location: ShardLocation, row: ShardRow) -> OpenShard:
    if len(row.files) != 2:
        names = ", ".join(file.name for file in row.files)
        raise ManifestError(f"{location.folder}: found {names}, expected a source file and its index; index it again")
    source_row, index_row = row.files
    if location.index_folder is None:
        index = location.open(index_row, cache_from=0)
    else:
        index = RangedFile(location.index_folder / index_row.name, index_row.bytes, location.guard)
    rows = npy_rows(index, index_dtype(location.layout), (), row.scenes)
    source = location.open(source_row)
    if source_row.tail is not None and not source.is_remote:
        found = source.read(max(0, source.size - FOOTER_BYTES), min(FOOTER_BYTES, source.size)).hex()
        if found != source_row.tail:
            raise ShardChecksumError(
                f"{source.path}: ends with {found}, the index says {source_row.tail}: it is another file than the one "
                f"that was indexed. Run: gqn-data index {location.folder}"
            )
    return TFRecordShard(source, rows, location.layout)


def _names(location: ShardLocation) -> tuple[str, ...]:
    if not location.scenes_per_shard:
        return ()  # source files keep their names
    name = f"{location.split}/scenes-{location.number:05d}.tfrecord"
    return name, index_name(name)


def _write_shard(location: ShardLocation, scenes: Iterable[Scene]) -> ShardRow:
    records_name, shard_index_name = _names(location)
    path = location.folder / records_name
    index, scanner = IndexBuilder(location.layout), SceneScanner(location.layout)
    with atomic.writing(path) as file, atomic.ChecksummedFile(file) as out:
        writer = RecordWriter(out)
        for number, scene in enumerate(scenes):
            payload = serialize_example(encoded_frames(scene, location.frames.jpeg_quality), scene.cameras)
            record = Record(number, out.position, payload)
            try:
                index.add(record, scanner.scan(record, path))
            except CorruptRecord as error:  # the source holds a corrupt frame
                raise CorruptFrame(error.reason) from error
            writer.write(payload)
        row = FileRow(name=records_name, sha256=out.finish(), bytes=out.position)
    return ShardRow(scenes=location.scenes, files=(row, write_npy(location.folder, shard_index_name, index.rows())))


# Overhead of a record in bytes: framing, feature names and message lengths; and per frame.
_RECORD_BYTES, _FRAME_BYTES = HEADER_BYTES + FOOTER_BYTES + 48, 4


def _stored_bytes(scenes: int, encoded: int, layout: SceneLayout, encoding: Encoding) -> int:  # noqa: ARG001
    cameras = 4 * int(np.prod(layout.cameras_shape))
    return encoded + scenes * (_RECORD_BYTES + layout.views * _FRAME_BYTES + cameras + index_dtype(layout).itemsize)


FORMAT = Format(
    name="tfrecord",
    encodings=("jpeg",),
    names=_names,
    write_shard=_write_shard,
    finish=no_metadata,
    open_shard=_open_shard,
    stored_bytes=_stored_bytes,
)
