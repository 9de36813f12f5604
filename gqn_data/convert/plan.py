"""Plans: which scenes make which shard of a conversion, and what they take. Nothing is written here.

A plan is a pure function of the source's counts and the options, so that every run of the same command makes
the same shards. Imports `formats`, `manifest`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

from gqn_data.errors import OptionError, UnknownName
from gqn_data.executors.pool import usable_cores
from gqn_data.formats import FORMATS, WRITABLE
from gqn_data.formats.contract import Format, ShardLocation
from gqn_data.io.paths import AnyPath
from gqn_data.schema import jpeg
from gqn_data.schema.catalog import SPLITS, Split
from gqn_data.schema.manifest import Encoding, FramesRow, Manifest, ShardRow, SplitRow
from gqn_data.version import TOOL

SHARD_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to convert.

    Attributes:
        formats: containers to write, of `formats.WRITABLE`.
        frames: `jpeg` or `raw`; None for the usual way of each container and source.
        jpeg_quality: 1 to 100, to make JPEGs of decoded sources; None leaves them decoded.
        splits: which splits; None for all that are there.
        limit: at most so many scenes of each split.
        on_corrupt: `fail`, or `skip` corrupt records, note them in the manifest, and go on.
        overwrite: replace a dataset that is there.
        shard_bytes: about so many bytes a shard.
        workers: processes; None for one a core.

    Raises:
        UnknownName: a format that is not written.
        OptionError: a number out of its range.
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
        if self.jpeg_quality is not None and not 1 <= self.jpeg_quality <= 100:
            raise OptionError(f"the JPEG quality is {self.jpeg_quality}, expected 1 to 100")
        for what, value in (("limit", self.limit), ("size of a shard", self.shard_bytes), ("workers", self.workers)):
            if value is not None and value < 1:
                raise OptionError(f"the {what} is {value}, expected 1 or more")

    @property
    def processes(self) -> int:
        """The number of worker processes."""
        return self.workers or usable_cores()


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is converted.

    Attributes:
        folder: of the dataset, or the raw folder.
        manifest: of its scenes, limited to those wanted; its shards are as they lie there.
        index_folder: where the indexes of a raw folder lie, if not beside its files.
        indexed: false for source files that were only counted: they are read in sequence.
        first_scene: the number in its split of the first scene that the manifest lists: 0, but for a part of a split.
    """

    folder: AnyPath
    manifest: Manifest
    index_folder: AnyPath | None = None
    indexed: bool = True
    first_scene: int = 0

    @property
    def first_file(self) -> AnyPath:
        """The first file that is read; who sees it sees the source."""
        return self.folder / next(iter(self.manifest.splits.values())).shards[0].files[0].name

    @property
    def stored_bytes(self) -> int:
        """About what the wanted scenes take in the source."""
        total = 0
        for split in self.manifest.splits.values():
            held = sum(shard.scenes for shard in split.shards)
            stored = sum(shard.files[0].bytes for shard in split.shards)
            total += stored * split.scenes // max(1, held)
        return total


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one container of a conversion will hold.

    Attributes:
        folder: of the dataset to be.
        manifest: all of it but the rows of shards and files.
        places: every shard, in order.
        stored_bytes: about what all shards take.
    """

    folder: AnyPath
    manifest: Manifest
    places: tuple[ShardLocation, ...]
    stored_bytes: int

    @property
    def format(self) -> Format:
        """The container."""
        return FORMATS[self.manifest.format]

    def shard_bytes(self, place: ShardLocation) -> int:
        """About what one shard takes."""
        scenes = sum(split.scenes for split in self.manifest.splits.values())
        return self.stored_bytes * place.scenes // max(1, scenes)

    def names(self) -> list[str]:
        """The files of all shards, from the dataset's folder."""
        return [name for place in self.places for name in self.format.names(place)]


def limited(manifest: Manifest, options: Options) -> Manifest:
    """The manifest of the splits and the number of scenes asked for; its shards stay as they are.

    Raises:
        OptionError: none of the splits asked for is there.
    """
    wanted = options.splits or SPLITS
    splits: dict[Split, SplitRow] = {}
    for name, row in manifest.splits.items():
        if name in wanted:
            scenes = row.scenes if options.limit is None else min(row.scenes, options.limit)
            splits[name] = dataclasses.replace(row, scenes=scenes)
    if not splits:
        raise OptionError(f"the source has no split {' or '.join(wanted)}, only {', '.join(manifest.splits)}")
    limit = manifest.limit if options.limit is None else options.limit
    return dataclasses.replace(manifest, splits=splits, limit=limit)


def make_plan(source: Source, format_name: str, folder: AnyPath, options: Options) -> Plan:
    """The shards of one container.

    Raises:
        OptionError: the container cannot keep the frames in the way asked for.
    """
    kind = FORMATS[format_name]
    wanted = source.manifest
    frames = target_frames(wanted.frames, kind, options)
    layout = wanted.layout
    scenes = sum(split.scenes for split in wanted.splits.values())
    stored = _stored_bytes(kind, scenes, source.stored_bytes, wanted, frames)
    splits: dict[Split, SplitRow] = {}
    places: list[ShardLocation] = []
    for name, row in wanted.splits.items():
        here = min(scenes_per_shard(kind, row.shards[0], wanted, frames, options), row.scenes)
        splits[name] = dataclasses.replace(row, scenes_per_shard=here, shards=(), files=())
        places += [
            ShardLocation(
                folder=folder,
                split=name,
                number=number,
                first_scene=first,
                scenes=min(here, row.scenes - first),
                scenes_per_shard=here,
                frames=frames,
                layout=layout,
            )
            for number, first in enumerate(range(0, row.scenes, here))
        ]
    manifest = dataclasses.replace(wanted, format=format_name, frames=frames, splits=splits, tool=TOOL)
    return Plan(folder=folder, manifest=manifest, places=tuple(places), stored_bytes=stored)


def identity(manifest: Manifest) -> dict[str, Any]:
    """What makes two conversions the same: everything that the manifest says but the rows of files."""
    value: dict[str, Any] = json.loads(json.dumps(manifest.to_json()))  # as it comes back from a file
    for split in value["splits"].values():
        del split["shards"], split["files"]
    return value


def scenes_per_shard(kind: Format, first: ShardRow, wanted: Manifest, frames: FramesRow, options: Options) -> int:
    """How many scenes make a shard of a split: about as many as fill one, to judge by the split's first source file.

    By the first one alone, so that shards can be written while the other files are still on their way.

    Args:
        kind: the container.
        first: the first shard of the source with scenes in it.
        wanted: the source's manifest.
        frames: how frames will be kept.
        options: tell the size of a shard.
    """
    stored = _stored_bytes(kind, first.scenes, first.files[0].bytes, wanted, frames)
    return _round_down(options.shard_bytes * first.scenes // max(1, stored))


def _stored_bytes(kind: Format, scenes: int, source_bytes: int, wanted: Manifest, frames: FramesRow) -> int:
    """About what scenes that take so many bytes in the source take in a container."""
    if wanted.frames.encoding == "raw" and frames.encoding == "jpeg":
        # JPEGs at quality 95 take about a sixth of the pixels; this much there is room for
        source_bytes = scenes * wanted.layout.views * wanted.layout.frame_bytes // 4
    return kind.stored_bytes(scenes, source_bytes, wanted.layout, frames.encoding)


def _round_down(scenes: int) -> int:
    """The number with two leading digits kept: 11,873 scenes a shard become 11,000."""
    unit = int(10 ** max(0, len(str(scenes)) - 2))
    return max(1, scenes // unit * unit)


def target_frames(have: FramesRow, kind: Format, options: Options) -> FramesRow:
    """How a container will keep frames that a source has.

    JPEG bytes stay JPEG bytes where the container keeps such; pixels become JPEG only when a quality is given.
    """
    if options.frames is not None:
        encoding: Encoding = options.frames
    elif kind.encodings == ("raw",):
        encoding = "raw"
    elif have.encoding == "raw" and options.jpeg_quality is None:
        encoding = kind.encodings[-1]
    else:
        encoding = "jpeg"
    if encoding not in kind.encodings:
        raise OptionError(f"{kind.name} keeps frames as {' or '.join(kind.encodings)}, not as {encoding}")
    quality, decoder = have.jpeg_quality, have.decoder
    if encoding == "raw" and have.encoding == "jpeg":
        decoder = jpeg.DECODER
    if encoding == "jpeg" and have.encoding == "raw":
        if options.jpeg_quality is None:
            raise OptionError(
                f"the source holds pixels and {kind.name} would keep them as JPEG: "
                "say at what quality with --jpeg-quality, or choose another format"
            )
        quality = options.jpeg_quality
    return dataclasses.replace(have, encoding=encoding, jpeg_quality=quality, decoder=decoder)
