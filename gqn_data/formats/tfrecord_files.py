"""tfrecord: DeepMind's own files, trainable in place by an index beside each.

Nothing is written here but the index: TFRecords are made by the renderer, or fetched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from gqn_data.errors import CorruptFraming, ManifestError, OptionError
from gqn_data.formats.contract import Format, OpenShard, ShardPlace, no_metadata
from gqn_data.formats.shards import IndexedShard, index_dtype
from gqn_data.layout import SceneLayout
from gqn_data.manifest import Encoding, Manifest, ShardRow
from gqn_data.places import Place
from gqn_data.reading import RangedFile, npy_rows
from gqn_data.scene import Scene
from gqn_data.scene_sets import Split
from gqn_data.tfrecords import FOOTER_BYTES, HEADER_BYTES, masked_crc, read_records, wrong_payload
from gqn_data.wire import SceneScanner


class TFRecordShard(IndexedShard):
    """A TFRecord with its index."""

    def scene(self, scene: int) -> Scene:
        """One scene, the checksum of its record checked again: the file may have changed since it was indexed.

        Raises:
            CorruptRecord: the record's bytes do not match their checksum.
        """
        row = self.index[scene]
        record, size = int(row["record"]), int(row["size"])
        data = memoryview(self.file.read(record, size))
        payload, footer = data[HEADER_BYTES:-FOOTER_BYTES], data[-FOOTER_BYTES:]
        found, expected = masked_crc(payload), int.from_bytes(footer, "little")
        if found != expected:
            raise wrong_payload(self.file.path, scene, record, found, expected)
        offsets, lengths = (row["offset"] - row["record"]).tolist(), row["length"].tolist()
        encoded = [data[offset : offset + length] for offset, length in zip(offsets, lengths)]
        return Scene(row["cameras"], encoded=encoded, size=(self.layout.height, self.layout.width))


def scenes_in_sequence(folder: Place, manifest: Manifest, split: Split, first: int, count: int) -> Iterator[Scene]:
    """Scenes of source files that have no index, one after another; every record is checked on the way.

    Args:
        folder: the raw folder.
        manifest: of its files, with their counts.
        split: which split.
        first: the number in the split of the first scene.
        count: number of scenes.

    Raises:
        CorruptRecord: a record cannot be trusted.
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
                reason = f"the file ends here; {shard.scenes} records were counted in it, so it has changed since"
                raise CorruptFraming(path, end - before - left, path.stat().st_size, reason, "run the command again")
        before += shard.scenes


def index_name(source_name: str) -> str:
    """The name of the index of a source file: `0001-of-2160.index.npy`."""
    return Path(source_name).with_suffix(".index.npy").as_posix()


def _open_shard(place: ShardPlace, row: ShardRow) -> OpenShard:
    if len(row.files) != 2:
        names = ", ".join(file.name for file in row.files)
        raise ManifestError(f"{place.folder}: a source file and its index were expected, found {names}; index it again")
    source_row, index_row = row.files
    if place.index_folder is None:
        index = place.open(index_row, kept_from=0)
    else:
        index = RangedFile(place.index_folder / index_row.name, index_row.bytes)
    rows = npy_rows(index, index_dtype(place.layout), (), row.scenes)
    return TFRecordShard(place.open(source_row), rows, place.layout)


def _write_shard(place: ShardPlace, scenes: Iterable[Scene]) -> ShardRow:  # noqa: ARG001
    raise OptionError(f"{place.folder}: datasets are not converted to TFRecords; choose zarr, numpy or webdataset")


def _stored_bytes(scenes: int, encoded: int, layout: SceneLayout, encoding: Encoding) -> int:  # noqa: ARG001
    return scenes * index_dtype(layout).itemsize


FORMAT = Format(
    name="tfrecord",
    encodings=("jpeg",),
    names=lambda _: (),
    write_shard=_write_shard,
    finish=no_metadata,
    open_shard=_open_shard,
    stored_bytes=_stored_bytes,
)
