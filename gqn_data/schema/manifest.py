"""The manifest: what makes shards a dataset. Written last; nothing is a dataset without one.

Paths in it are relative and stay inside the dataset; nothing in it depends on time, host or number of workers.
What a file says is checked before it is believed. Imports `errors`, `json_files`, `layout`, `origin`, `scene_sets`,
`storage`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from gqn_data.errors import ManifestError, OptionError, OriginError
from gqn_data.io import atomic, strict_json
from gqn_data.io.paths import AnyPath, StorePath
from gqn_data.schema.cameras import POSE_FIELDS, pose_fields
from gqn_data.schema.catalog import SPLITS, Angles, Split, is_set_name
from gqn_data.schema.layout import SceneLayout, layout_fault
from gqn_data.schema.origin import Origin

SCHEMA = 1
MANIFEST_FILE = "manifest.json"
CHECKSUM_FILE = "SHA256SUMS"
CARD_FILE = "README.md"
CROISSANT_FILE = "croissant.json"

# What describes a converted dataset; source files that are only indexed have none.
DESCRIPTION_FILES = (CARD_FILE, CROISSANT_FILE)

_MOST_SAID = 300  # of what a file says, in a message

# How frames lie in a container: the JPEG bytes of the source, or pixels.
Encoding = Literal["jpeg", "raw"]


@dataclass(frozen=True, kw_only=True)
class FileRow:
    """One file of a dataset.

    Attributes:
        name: its path from the dataset's folder, with forward slashes.
        bytes: its size.
        sha256: in hexadecimal; None for source files, whose records carry checksums of their own.
    """

    name: str
    bytes: int
    sha256: str | None


@dataclass(frozen=True, kw_only=True)
class ShardRow:
    """One shard: its scenes, and the files that hold them, in the order that its format fixes."""

    scenes: int
    files: tuple[FileRow, ...]


@dataclass(frozen=True, kw_only=True)
class SkippedRecord:
    """A record that was left out, and why."""

    record: int
    offset: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class SourceRow:
    """One source file: scenes found in it beside the scenes expected."""

    name: str
    bytes: int
    scenes: int
    expected_scenes: int
    skipped: tuple[SkippedRecord, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SplitRow:
    """One split of a dataset.

    Attributes:
        scenes: scenes in all shards.
        scenes_per_shard: of every shard but the last; 0 where shards differ (source files in place).
        expected_scenes: what the catalogue announces for the whole set; 0 where nobody says.
        expected_files: source files of the whole set; 0 where there are none.
        shards: in order; scene s of the split is the s-th scene of all shards.
        sources: the source files in order.
        files: other files of the split, such as a container's metadata.
    """

    scenes: int
    scenes_per_shard: int
    expected_scenes: int
    expected_files: int
    shards: tuple[ShardRow, ...]
    sources: tuple[SourceRow, ...]
    files: tuple[FileRow, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FramesRow:
    """How frames are kept."""

    encoding: Encoding
    views: int
    height: int
    width: int
    decoder: str | None = None
    jpeg_quality: int | None = None


@dataclass(frozen=True, kw_only=True)
class CamerasRow:
    """How cameras are kept: float32, the raw numbers; positions in units of the set."""

    fields: tuple[str, ...]
    dtype: str = "float32"
    angles: Angles = "radians"
    pose: tuple[str, ...] = POSE_FIELDS

    @staticmethod
    def of(fields: tuple[str, ...], angles: Angles) -> CamerasRow:
        """The row of cameras of those numbers."""
        return CamerasRow(fields=fields, angles=angles, pose=pose_fields(fields))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that is said of a dataset."""

    scene_set: str
    format: str
    frames: FramesRow
    cameras: CamerasRow
    origin: Origin
    splits: dict[Split, SplitRow]
    limit: int | None = None
    tool: str = ""
    schema: int = field(default=SCHEMA)

    @property
    def in_place(self) -> bool:
        """Whether the shards are source files, read where somebody else wrote them."""
        return self.format == "tfrecord" and not any(split.scenes_per_shard for split in self.splits.values())

    @property
    def layout(self) -> SceneLayout:
        """What every scene looks like."""
        frames = self.frames
        return SceneLayout(
            views=frames.views,
            height=frames.height,
            width=frames.width,
            camera_fields=self.cameras.fields,
            because="the manifest says so",
        )

    def fingerprint(self, split: Split) -> str:
        """Tells scenes apart, not containers: equal for all containers of the same scenes in the same order."""
        row = self.splits[split]
        identity = {
            "scene_set": self.scene_set,
            "origin": self.origin.to_json(),
            "split": split,
            "scenes": row.scenes,
            "layout": [self.frames.views, self.frames.height, self.frames.width, *self.cameras.fields],
            "sources": [dataclasses.asdict(source) for source in row.sources],
        }
        text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def all_files(self) -> list[FileRow]:
        """Every file of the dataset but the manifest and the checksums, in order."""
        return [
            row
            for split in self.splits.values()
            for row in (*(file for shard in split.shards for file in shard.files), *split.files)
        ]

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON; `schema` first."""
        value = dataclasses.asdict(self)
        value["origin"] = self.origin.to_json()
        return {"schema": value.pop("schema"), "tool": value.pop("tool"), **value}

    def encoded(self) -> bytes:
        """The bytes of `manifest.json`."""
        return atomic.json_bytes(self.to_json())

    def checksums(self, beside: Mapping[str, str]) -> str:
        """The text of `SHA256SUMS`: a line for each file, as `sha256sum -c` reads it.

        Args:
            beside: the checksums, by name, of the files that no manifest can list, itself last.
        """
        rows = [(row.sha256, row.name) for row in self.all_files() if row.sha256 is not None]
        rows += [(checksum, name) for name, checksum in beside.items()]
        return "".join(f"{checksum}  {name}\n" for checksum, name in rows)

    def write(self, folder: AnyPath, descriptions: Mapping[str, bytes] | None = None) -> None:
        """Writes the descriptions, `SHA256SUMS`, then `manifest.json`: from here on the folder is a dataset.

        Args:
            folder: of the dataset.
            descriptions: the files that describe it, by name (`publishing.descriptions`); none for source files
                that are only indexed.

        Raises:
            OptionError: there are so many shards that nobody would read the manifest again.
        """
        text = self.encoded()
        if len(text) > strict_json.MOST_BYTES:
            raise OptionError(
                f"{folder}: its manifest would have {len(text)} bytes, expected {strict_json.MOST_BYTES} at most; "
                "write larger shards with --shard-mb"
            )
        written = dict(descriptions or {})
        for name, data in written.items():
            with atomic.writing(folder / name) as file:
                file.write(data)
        written[MANIFEST_FILE] = text
        checksums = {name: hashlib.sha256(data).hexdigest() for name, data in written.items()}
        with atomic.writing(folder / CHECKSUM_FILE) as file:
            file.write(self.checksums(checksums).encode())
        with atomic.writing(folder / MANIFEST_FILE) as file:
            file.write(text)


def read_manifest(folder: AnyPath) -> Manifest:
    """The manifest of a dataset's folder, checked.

    Raises:
        ManifestError: absent, not JSON, of another schema, or saying what cannot be.
    """
    path = folder / MANIFEST_FILE
    try:
        data = atomic.read_bounded(path, strict_json.MOST_BYTES)
        value = strict_json.parse_json(data)
    except FileNotFoundError as error:
        raise ManifestError(
            f"{folder}: no {MANIFEST_FILE}, so no dataset: a conversion that did not end, perhaps; run it again"
        ) from error
    except ValueError as error:
        raise ManifestError(f"{path}: not JSON ({error}); copy or convert the dataset again") from error
    if isinstance(folder, StorePath):
        _check_arrival(folder, data)
    if not isinstance(value, dict):
        raise ManifestError(f"{path}: expected a table, found {type(value).__name__}")
    schema = value.get("schema")
    if not _count(schema) or schema != SCHEMA:
        tool = str(value.get("tool", "?"))[:_MOST_SAID]
        raise ManifestError(
            f"{path}: schema {str(schema)[:_MOST_SAID]}, expected {SCHEMA}: written by another version ({tool}); "
            "install that version, or convert again"
        )
    try:
        manifest = _parse(value, path)
    except OriginError as error:
        raise ManifestError(f"{error}; copy or convert the dataset again") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ManifestError(
            f"{path}: not a manifest ({type(error).__name__}: {error}); copy or convert the dataset again"
        ) from error
    _check(manifest, path)
    return manifest


def _check_arrival(folder: StorePath, data: bytes) -> None:
    """Raises where a manifest that came over a network is not the one that `SHA256SUMS` beside it lists."""
    try:
        sums = atomic.read_bounded(folder / CHECKSUM_FILE, strict_json.MOST_BYTES)
    except FileNotFoundError:
        return  # not copied along
    except ValueError as error:
        raise ManifestError(f"{folder / CHECKSUM_FILE}: {error}; copy or convert the dataset again") from error
    found = hashlib.sha256(data).hexdigest()
    if not sums.endswith(f"{found}  {MANIFEST_FILE}\n".encode()):
        raise ManifestError(
            f"{folder / MANIFEST_FILE}: SHA-256 is {found}, {CHECKSUM_FILE} beside it says otherwise: it came damaged, "
            "or is being replaced; run the same command again, or gqn-data verify on a copy"
        )


def file_fault(folder: AnyPath, row: FileRow) -> str | None:
    """What is wrong with a file of a dataset: absent, of another size or checksum; None where it is as written."""
    path = folder / row.name
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return f"{path}: listed in the manifest and absent; convert or copy it again"
    if size != row.bytes:
        return f"{path}: {size} bytes, the manifest says {row.bytes}; convert or copy it again"
    if row.sha256 is not None and (found := atomic.sha256_of(path)) != row.sha256:
        return f"{path}: SHA-256 is {found}, the manifest says {row.sha256}; convert or copy it again"
    return None


def _parse(value: dict[str, Any], path: AnyPath) -> Manifest:
    return Manifest(
        scene_set=value["scene_set"],
        format=value["format"],
        frames=FramesRow(**value["frames"]),
        cameras=CamerasRow(
            fields=tuple(value["cameras"]["fields"]),
            dtype=value["cameras"]["dtype"],
            angles=value["cameras"]["angles"],
            pose=tuple(value["cameras"]["pose"]),
        ),
        origin=Origin.from_json(value["origin"], path),
        splits={name: _parse_split(row) for name, row in value["splits"].items()},
        limit=value["limit"],
        tool=value["tool"],
    )


def parse_shard(value: dict[str, Any]) -> ShardRow:
    """The shard row that `dataclasses.asdict` gave.

    Raises:
        KeyError, TypeError: it is none.
    """
    return ShardRow(scenes=value["scenes"], files=tuple(FileRow(**row) for row in value["files"]))


def parse_source(value: dict[str, Any]) -> SourceRow:
    """The source row that `dataclasses.asdict` gave.

    Raises:
        KeyError, TypeError: it is none.
    """
    skipped = tuple(SkippedRecord(**row) for row in value["skipped"])
    return SourceRow(**{**value, "skipped": skipped})


def _parse_split(value: dict[str, Any]) -> SplitRow:
    return SplitRow(
        scenes=value["scenes"],
        scenes_per_shard=value["scenes_per_shard"],
        expected_scenes=value["expected_scenes"],
        expected_files=value["expected_files"],
        shards=tuple(parse_shard(row) for row in value["shards"]),
        sources=tuple(parse_source(row) for row in value["sources"]),
        files=tuple(FileRow(**row) for row in value["files"]),
    )


def _check(manifest: Manifest, path: AnyPath) -> None:
    """Raises where the manifest says what cannot be: no count, name or path of a file is taken on trust."""

    def need(good: bool, found: str) -> None:
        if not good:
            raise ManifestError(f"{path}: {found[:_MOST_SAID]}; copy or convert the dataset again")

    frames, cameras = manifest.frames, manifest.cameras
    named = _text(manifest.scene_set) and is_set_name(manifest.scene_set)
    need(named, f"scene set {manifest.scene_set!r} is no name (a to z, digits, _ and -, 64 at most)")
    need(_text(manifest.format) and _text(manifest.tool), f"format {manifest.format!r} of tool {manifest.tool!r}")
    need(manifest.limit is None or _count(manifest.limit), f"the limit is {manifest.limit!r}")
    need(frames.encoding in get_args(Encoding), f"frames are {frames.encoding!r}, expected jpeg or raw")
    fault = layout_fault(frames.views, frames.height, frames.width)
    need(fault is None, str(fault))
    need(frames.decoder is None or _text(frames.decoder), f"the decoder is {frames.decoder!r}")
    quality = frames.jpeg_quality
    need(quality is None or (_count(quality) and 1 <= quality <= 100), f"the JPEG quality is {quality!r}")
    need(0 < len(cameras.fields) <= 64 and all(map(_text, cameras.fields)), f"camera fields are {cameras.fields!r}")
    need(cameras.dtype == "float32", f"cameras are {cameras.dtype!r}, expected float32")
    need(cameras.angles in get_args(Angles), f"angles are in {cameras.angles!r}, expected radians")
    need(all(map(_text, cameras.pose)), f"the pose is {cameras.pose!r}")
    need(bool(manifest.splits), "no splits")
    for name, split in manifest.splits.items():
        need(name in SPLITS, f"split {name!r} is neither train nor test")
        need(_count(split.scenes) and _count(split.scenes_per_shard), f"scenes of {name} are {split.scenes!r}")
        expected = split.expected_scenes, split.expected_files
        need(all(map(_count, expected)), f"expected scenes and files of {name} are {expected!r}")
        need(bool(split.shards), f"{name} has no shards")
        for shard in split.shards:
            need(_count(shard.scenes) and shard.scenes > 0, f"a shard of {shard.scenes!r} scenes")
            need(bool(shard.files), "a shard without files")
        total = sum(shard.scenes for shard in split.shards)
        need(total == split.scenes, f"{name} has {split.scenes} scenes, its shards {total}")
        if split.scenes_per_shard:
            sizes = {shard.scenes for shard in split.shards[:-1]}
            need(sizes <= {split.scenes_per_shard}, f"shards of {name} hold {sizes} scenes")
            need(split.shards[-1].scenes <= split.scenes_per_shard, f"the last shard of {name} is too large")
        for source in split.sources:
            need(_inside(source.name), f"source file {source.name!r} lies outside its folder")
            counts = (source.bytes, source.scenes, source.expected_scenes)
            need(all(map(_count, counts)), f"source file {source.name!r} has bytes, scenes, expected {counts!r}")
            for skipped in source.skipped:
                known = _count(skipped.record) and _count(skipped.offset) and _text(skipped.reason)
                need(known, f"source file {source.name!r} has {skipped!r}")
    for row in manifest.all_files():
        need(_inside(row.name), f"file {row.name!r} lies outside the dataset")
        need(_count(row.bytes), f"file {row.name!r} of {row.bytes!r} bytes")
        need(row.sha256 is None or _is_sha256(row.sha256), f"file {row.name!r} has checksum {row.sha256!r}")


def _inside(name: object) -> bool:
    """Whether a name is a plain path below the dataset's folder."""
    if not (isinstance(name, str) and name.isprintable() and "\\" not in name):
        return False
    # No disk takes longer ones, and some stores none of more than 1,024 bytes in all.
    if len(name.encode()) > 1000 or any(len(part.encode()) > 255 for part in name.split("/")):
        return False
    pure = PurePosixPath(name)
    return not pure.is_absolute() and ".." not in pure.parts and name == str(pure) and name != "."


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _text(value: object) -> bool:
    return isinstance(value, str)


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
