"""Plans of conversions: which scenes make which shard, and the size of the shards. Nothing is written here.

A plan is a pure function of the counts of the source and the options, so that equal commands write equal shards.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

from gqn_data.counts import as_count
from gqn_data.errors import OptionError, UnknownName
from gqn_data.executors.pool import usable_cores
from gqn_data.formats import FORMATS, WRITABLE
from gqn_data.formats.contract import Format, ShardLocation
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath, StorePath
from gqn_data.schema import jpeg
from gqn_data.schema.catalog import SPLITS, Split
from gqn_data.schema.layout import SceneLayout
from gqn_data.schema.manifest import Encoding, FramesRow, Manifest, ShardRow, SplitRow
from gqn_data.version import TOOL

SHARD_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a conversion.

    Attributes:
        formats: containers to write, from `formats.WRITABLE`.
        frames: `jpeg` or `raw`; None for the default of each container and source.
        jpeg_quality: 1 to 100, to encode the frames of decoded sources; None keeps them decoded.
        splits: splits to convert; None for all in the source.
        limit: maximum number of scenes per split.
        on_corrupt: `fail`, or `skip` corrupt records and record them in the manifest.
        overwrite: replace an existing dataset.
        shard_bytes: approximate size of a shard.
        workers: number of processes; None for one per core.

    Raises:
        UnknownName: a format cannot be written.
        OptionError: a number is out of range.
    """

    formats: tuple[str, ...] = ("zarr",)
    frames: Encoding | None = None
    jpeg_quality: int | None = None
    splits: tuple[Split, ...] | None = None
    limit: int | None = None
    on_corrupt: Literal["fail", "skip"] = "fail"
    overwrite: bool = False
    shard_bytes: int = SHARD_BYTES
    workers: int | None = None

    def __post_init__(self) -> None:
        for name in self.formats:
            if name not in WRITABLE:
                raise UnknownName("format", name, WRITABLE)
        for name, most in (("jpeg_quality", 100), ("limit", None), ("shard_bytes", None), ("workers", None)):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, as_count(name, value, 1, most))

    @property
    def processes(self) -> int:
        """Number of worker processes."""
        return self.workers or usable_cores()


@dataclass(frozen=True, kw_only=True)
class Source:
    """Source of a conversion.

    Attributes:
        folder: dataset folder or raw folder.
        manifest: manifest of the source, limited to the splits and scenes to convert; lists complete source shards.
        index_folder: folder of the indexes; None if they are beside the source files.
        indexed: False for source files whose records were only counted; they are read in sequence.
        first_scene: index in its split of the manifest's first scene; not 0 only for some files of a split.
    """

    folder: AnyPath
    manifest: Manifest
    index_folder: AnyPath | None = None
    indexed: bool = True
    first_scene: int = 0

    @property
    def first_file(self) -> AnyPath:
        """First file of the source; a worker that can open it can read the source."""
        return self.folder / next(iter(self.manifest.splits.values())).shards[0].files[0].name

    @property
    def stored_bytes(self) -> int:
        """Approximate size of the selected scenes in the source."""
        total = 0
        for split in self.manifest.splits.values():
            listed = sum(shard.scenes for shard in split.shards)
            stored = sum(shard.files[0].bytes for shard in split.shards)
            total += stored * split.scenes // max(1, listed)
        return total


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Plan of one container.

    Attributes:
        folder: folder of the dataset.
        manifest: manifest without the rows of shards and files.
        shards: location of every shard, in order.
        stored_bytes: approximate size of all shards.
    """

    folder: AnyPath
    manifest: Manifest
    shards: tuple[ShardLocation, ...]
    stored_bytes: int

    @property
    def format(self) -> Format:
        """Container of the dataset."""
        return FORMATS[self.manifest.format]

    def shard_bytes(self, shard: ShardLocation) -> int:
        """Return the approximate size of a shard."""
        scenes = sum(split.scenes for split in self.manifest.splits.values())
        return self.stored_bytes * shard.scenes // max(1, scenes)

    def names(self) -> list[str]:
        """Return the files of all shards, relative to the dataset's folder."""
        return [*dict.fromkeys(name for shard in self.shards for name in self.format.names(shard))]


def limited(manifest: Manifest, options: Options) -> Manifest:
    """Return the manifest limited to the options' splits and number of scenes; its shards are unchanged.

    Raises:
        OptionError: the source lacks all of the splits.
    """
    wanted = options.splits or SPLITS
    splits: dict[Split, SplitRow] = {}
    for name, row in manifest.splits.items():
        if name in wanted:
            scenes = row.scenes if options.limit is None else min(row.scenes, options.limit)
            splits[name] = dataclasses.replace(row, scenes=scenes)
    if not splits:
        raise OptionError(f"splits: found {', '.join(manifest.splits)} in the source, expected {' or '.join(wanted)}")
    limit = manifest.limit if options.limit is None else options.limit
    return dataclasses.replace(manifest, splits=splits, limit=limit)


def make_plan(source: Source, format_name: str, folder: AnyPath, options: Options) -> Plan:
    """Return the plan of one container.

    Args:
        source: source of the conversion.
        format_name: name of the container.
        folder: folder of the dataset.
        options: options of the conversion.

    Raises:
        OptionError: the container cannot store frames of the requested encoding, or cannot be written to a store.
    """
    kind = FORMATS[format_name]
    check_destination(kind, folder)
    manifest = source.manifest
    frames = convert_frames_row(manifest.frames, kind, options)
    scenes = sum(split.scenes for split in manifest.splits.values())
    stored = _stored_bytes(kind, scenes, source.stored_bytes, manifest, frames)
    splits: dict[Split, SplitRow] = {}
    shards: list[ShardLocation] = []
    for name, row in manifest.splits.items():
        per_shard = min(scenes_per_shard(kind, row.shards[0], manifest, frames, options), row.scenes)
        listed = row.scenes if kind.pieces else per_shard
        splits[name] = dataclasses.replace(row, scenes_per_shard=listed, shards=(), files=())
        shards += locate_shards(folder, name, frames, manifest.layout, scenes=row.scenes, per_shard=per_shard)
    planned = dataclasses.replace(manifest, format=format_name, frames=frames, splits=splits, tool=TOOL)
    return Plan(folder=folder, manifest=planned, shards=tuple(shards), stored_bytes=stored)


def check_destination(kind: Format, folder: AnyPath) -> None:
    """Raise unless a container can be written to a folder: pieces are written in place, which needs a disk.

    Raises:
        OptionError: the folder is on a web server, or in a store and the container needs a disk.
    """
    if isinstance(folder, StorePath):
        folder.check_writable()
    if kind.pieces:
        atomic.on_disk(folder, f"{kind.name} is written in place")


def locate_shards(
    folder: AnyPath,
    split: Split,
    frames: FramesRow,
    layout: SceneLayout,
    *,
    scenes: int,
    per_shard: int,
    numbers: range | None = None,
) -> list[ShardLocation]:
    """Return the locations of the shards of a split.

    Args:
        folder: folder of the dataset.
        split: split of the shards.
        frames: frames row of the dataset.
        layout: layout of every scene.
        scenes: number of scenes in the split.
        per_shard: number of scenes per shard, but the last.
        numbers: numbers of the shards; None for all.
    """
    per_shard = min(per_shard, scenes)
    return [
        ShardLocation(
            folder=folder,
            split=split,
            number=number,
            first_scene=number * per_shard,
            scenes=min(per_shard, scenes - number * per_shard),
            scenes_per_shard=per_shard,
            frames=frames,
            layout=layout,
        )
        for number in (range(-(-scenes // per_shard)) if numbers is None else numbers)
    ]


def identity(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest as JSON without the rows of files; equal for two runs of the same conversion."""
    value: dict[str, Any] = json.loads(json.dumps(manifest.to_json()))  # the types that a JSON file gives back
    for split in value["splits"].values():
        del split["shards"], split["files"]
    return value


def scenes_per_shard(kind: Format, first: ShardRow, manifest: Manifest, frames: FramesRow, options: Options) -> int:
    """Return the number of scenes per shard of a split, estimated from the split's first source file.

    Only the first file counts, so that shards can be written before the other files arrive.

    Args:
        kind: container to write.
        first: first shard of the source that has scenes.
        manifest: manifest of the source.
        frames: frames of the container.
        options: options of the conversion, with the size of a shard.
    """
    stored = _stored_bytes(kind, first.scenes, first.files[0].bytes, manifest, frames)
    return _round_down(options.shard_bytes * first.scenes // max(1, stored))


def _stored_bytes(kind: Format, scenes: int, source_bytes: int, manifest: Manifest, frames: FramesRow) -> int:
    """Return the approximate size in a container of scenes that take `source_bytes` in the source."""
    if manifest.frames.encoding == "raw" and frames.encoding == "jpeg":
        # JPEGs of quality 95 take about a sixth of the pixels' size; a quarter is a safe bound.
        source_bytes = scenes * manifest.layout.views * manifest.layout.frame_bytes // 4
    return kind.stored_bytes(scenes, source_bytes, manifest.layout, frames.encoding)


def _round_down(scenes: int) -> int:
    """Round down to two significant digits: 11,873 scenes per shard become 11,000."""
    unit = int(10 ** max(0, len(str(scenes)) - 2))
    return max(1, scenes // unit * unit)


def convert_frames_row(source: FramesRow, kind: Format, options: Options) -> FramesRow:
    """Return the frames row of a container for the frames of the source.

    JPEG bytes are copied if the container stores JPEG. Pixels are encoded only if a quality is given.

    Raises:
        OptionError: the container cannot store the requested encoding, or a quality is missing.
    """
    if options.frames is not None:
        encoding: Encoding = options.frames
    elif kind.encodings == ("raw",):
        encoding = "raw"
    elif source.encoding == "raw" and options.jpeg_quality is None:
        encoding = kind.encodings[-1]
    else:
        encoding = "jpeg"
    if encoding not in kind.encodings:
        raise OptionError(f"frames: found {encoding}, expected {' or '.join(kind.encodings)} for {kind.name}")
    quality, decoder, reencoded = source.jpeg_quality, source.decoder, source.reencoded
    if encoding == "raw" and source.encoding == "jpeg":
        decoder = jpeg.DECODER
    if encoding == "jpeg" and source.encoding == "raw":
        if options.jpeg_quality is None:
            raise OptionError(
                f"jpeg_quality: found None, expected 1 to 100 to encode pixels as JPEG for {kind.name}; "
                "set it with --jpeg-quality, or choose another format"
            )
        quality = options.jpeg_quality
        reencoded = (*reencoded, quality)
    return dataclasses.replace(source, encoding=encoding, jpeg_quality=quality, decoder=decoder, reencoded=reencoded)
