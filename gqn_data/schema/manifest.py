"""Manifest of a dataset. It is written last, and a folder without one is not a dataset.

Paths in a manifest are relative and stay inside the dataset. Nothing in it depends on time, host or number of workers.
All values are validated when a manifest is read.
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
from gqn_data.schema.geometry import Geometry, geometry_of
from gqn_data.schema.layout import SceneLayout, layout_fault
from gqn_data.schema.origin import Origin

SCHEMA = 2  # since 0.3 with the geometry; schema 1 is read, and gets its geometry from set and origin
_READABLE = (1, SCHEMA)
MANIFEST_FILE = "manifest.json"
CHECKSUM_FILE = "SHA256SUMS"
CARD_FILE = "README.md"
CROISSANT_FILE = "croissant.json"

# Descriptions of a converted dataset. Indexed source files do not have any.
DESCRIPTION_FILES = (CARD_FILE, CROISSANT_FILE)

_MAX_ENCODINGS = 100  # in a row, of one dataset
_MAX_QUOTED = 300  # characters of a value in a message

# Encoding of frames in a container: the JPEG bytes of the source, or pixels.
Encoding = Literal["jpeg", "raw"]


@dataclass(frozen=True, kw_only=True)
class FileRow:
    """One file of a dataset.

    Attributes:
        name: path relative to the folder of the dataset, with forward slashes.
        bytes: size in bytes.
        sha256: SHA-256 in hexadecimal; None for source files, whose records have their own checksums.
        tail: last four bytes of an indexed source file in hexadecimal, the checksum of its last record. It
            distinguishes files of equal size. None for other files, and not written then.
    """

    name: str
    bytes: int
    sha256: str | None
    tail: str | None = None


@dataclass(frozen=True, kw_only=True)
class ShardRow:
    """One shard.

    Attributes:
        scenes: number of scenes.
        files: files of the shard, in the order that the format defines.
    """

    scenes: int
    files: tuple[FileRow, ...]


@dataclass(frozen=True, kw_only=True)
class SkippedRecord:
    """A corrupt record that was skipped.

    Attributes:
        record: index of the record in its file, from 0.
        offset: byte offset of the fault in the file.
        reason: what was found and what was expected.
    """

    record: int
    offset: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class SourceRow:
    """One source file.

    Attributes:
        name: path relative to the raw folder.
        bytes: size in bytes.
        scenes: number of scenes found.
        expected_scenes: number of scenes in the catalogue; 0 if unknown.
        skipped: corrupt records that were skipped.
    """

    name: str
    bytes: int
    scenes: int
    expected_scenes: int
    skipped: tuple[SkippedRecord, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SplitRow:
    """One split of a dataset.

    Attributes:
        scenes: number of scenes in all shards.
        scenes_per_shard: scenes of every shard except the last; 0 if shards differ (source files in place).
        expected_scenes: number of scenes of the full split in the catalogue; 0 if unknown.
        expected_files: number of source files of the full split; 0 if unknown.
        shards: shards in order. Scene s of the split is the s-th scene of all shards.
        sources: source files in order.
        files: other files of the split, such as the metadata of a container.
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
    """Storage of the frames.

    Attributes:
        encoding: `jpeg` or `raw`.
        views: views per scene.
        height: height of a frame in pixels.
        width: width of a frame in pixels.
        decoder: decoder and its version, if the pixels were decoded.
        jpeg_quality: quality, if the frames were encoded by this project.
        reencoded: qualities of all lossy encodings of pixels by this project, the first one first. They are part of the
            fingerprint. Manifests of schema 1 do not have them.
    """

    encoding: Encoding
    views: int
    height: int
    width: int
    decoder: str | None = None
    jpeg_quality: int | None = None
    reencoded: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CamerasRow:
    """Storage of the cameras: the raw numbers, with positions in units of the scene set.

    Attributes:
        fields: names of the numbers of a camera.
        dtype: `float32`.
        angles: unit of the angles.
        pose: names of the numbers of a pose.
    """

    fields: tuple[str, ...]
    dtype: str = "float32"
    angles: Angles = "radians"
    pose: tuple[str, ...] = POSE_FIELDS

    @staticmethod
    def of(fields: tuple[str, ...], angles: Angles) -> CamerasRow:
        """Create the row for cameras of these fields."""
        return CamerasRow(fields=fields, angles=angles, pose=pose_fields(fields))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Description of a dataset, stored as `manifest.json`.

    Attributes:
        scene_set: name of the scene set.
        format: name of the container.
        frames: storage of the frames.
        cameras: storage of the cameras.
        origin: origin of the scenes.
        splits: splits by name.
        limit: `--limit` of the conversion; None for all scenes.
        tool: name and version of the tool that wrote the dataset.
        geometry: how the cameras see the scenes; None if that is unknown. It is not part of the fingerprint.
        schema: version of the manifest schema.
    """

    scene_set: str
    format: str
    frames: FramesRow
    cameras: CamerasRow
    origin: Origin
    splits: dict[Split, SplitRow]
    limit: int | None = None
    tool: str = ""
    geometry: Geometry | None = None
    schema: int = field(default=SCHEMA)

    @property
    def in_place(self) -> bool:
        """Whether the shards are source files, read in place."""
        return self.format == "tfrecord" and not any(split.scenes_per_shard for split in self.splits.values())

    @property
    def layout(self) -> SceneLayout:
        """Layout of every scene."""
        frames = self.frames
        return SceneLayout(
            views=frames.views,
            height=frames.height,
            width=frames.width,
            camera_fields=self.cameras.fields,
            because="the manifest says so",
        )

    def fingerprint(self, split: Split) -> str:
        """Return a hash of the scenes and their order.

        Containers of the same pixels have the same fingerprint, also decoded ones. A lossy encoding changes it.
        """
        row = self.splits[split]
        identity = {
            "scene_set": self.scene_set,
            "origin": self.origin.to_json(),
            "split": split,
            "scenes": row.scenes,
            "layout": [self.frames.views, self.frames.height, self.frames.width, *self.cameras.fields],
            "sources": [dataclasses.asdict(source) for source in row.sources],
        }
        if self.frames.reencoded:  # absent otherwise, so that fingerprints of older datasets stay
            identity["reencoded"] = list(self.frames.reencoded)
        text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def all_files(self) -> list[FileRow]:
        """Return the files of all shards and splits, in order, without descriptions, checksums and manifest."""
        return [
            row
            for split in self.splits.values()
            for row in (*(file for shard in split.shards for file in shard.files), *split.files)
        ]

    def to_json(self) -> dict[str, Any]:
        """Convert the manifest to JSON values, `schema` first."""
        value = dataclasses.asdict(self)
        for split in value["splits"].values():
            for row in (*(file for shard in split["shards"] for file in shard["files"]), *split["files"]):
                if row["tail"] is None:
                    del row["tail"]
        value["origin"] = self.origin.to_json()
        value["geometry"] = None if self.geometry is None else self.geometry.to_json()
        return {"schema": value.pop("schema"), "tool": value.pop("tool"), **value}

    def to_bytes(self) -> bytes:
        """Return the bytes of `manifest.json`."""
        return atomic.json_bytes(self.to_json())

    def checksums(self, extra: Mapping[str, str]) -> str:
        """Return the text of `SHA256SUMS`, one line per file in the format of `sha256sum -c`.

        Args:
            extra: checksums by name of the files that the manifest does not list, with the manifest last.
        """
        rows = [(row.sha256, row.name) for row in self.all_files() if row.sha256 is not None]
        rows += [(checksum, name) for name, checksum in extra.items()]
        return "".join(f"{checksum}  {name}\n" for checksum, name in rows)

    def write(self, folder: AnyPath, descriptions: Mapping[str, bytes] | None = None) -> None:
        """Write the descriptions, `SHA256SUMS`, then `manifest.json`, which makes the folder a dataset.

        Args:
            folder: folder of the dataset.
            descriptions: bytes of the files that describe the dataset, by name (`publish.descriptions`); None for
                indexed source files.

        Raises:
            OptionError: the manifest would exceed the size that `read_manifest` accepts.
        """
        text = self.to_bytes()
        if len(text) > strict_json.MAX_BYTES:
            raise OptionError(
                f"{folder}: a manifest of {len(text)} bytes, expected {strict_json.MAX_BYTES} at most. "
                "Write larger shards with --shard-mb"
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
    """Read and validate the manifest of a dataset.

    Raises:
        ManifestError: the manifest is missing, invalid, or of another schema version.
    """
    path = folder / MANIFEST_FILE
    try:
        data = atomic.read_bounded(path, strict_json.MAX_BYTES)
        value = strict_json.parse_json(data)
    except FileNotFoundError as error:
        raise ManifestError(
            f"{folder}: {MANIFEST_FILE} is missing. If a conversion was interrupted, rerun it"
        ) from error
    except ValueError as error:
        raise ManifestError(f"{path}: not JSON ({error}). Copy or convert the dataset again") from error
    if isinstance(folder, StorePath):
        _check_transfer(folder, data)
    if not isinstance(value, dict):
        raise ManifestError(
            f"{path}: found {type(value).__name__}, expected a JSON object. Copy or convert the dataset again"
        )
    schema = value.get("schema")
    if not _is_count(schema) or schema not in _READABLE:
        tool = str(value.get("tool", "?"))[:_MAX_QUOTED]
        raise ManifestError(
            f"{path}: schema {str(schema)[:_MAX_QUOTED]}, expected {SCHEMA} or older. "
            f"Install {tool}, which wrote it, or convert the dataset again"
        )
    try:
        manifest = _parse(value, path)
    except OriginError as error:
        raise ManifestError(f"{error}. Copy or convert the dataset again") from error
    except OptionError as error:
        raise ManifestError(f"{path}: geometry: {error}. Copy or convert the dataset again") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ManifestError(
            f"{path}: not a manifest ({type(error).__name__}: {error}). Copy or convert the dataset again"
        ) from error
    _check(manifest, path)
    return manifest


def _check_transfer(folder: StorePath, data: bytes) -> None:
    """Raise unless the checksum of a manifest from a store is the one in `SHA256SUMS`, if that file exists."""
    try:
        sums = atomic.read_bounded(folder / CHECKSUM_FILE, strict_json.MAX_BYTES)
    except FileNotFoundError:
        return  # it was not copied with the dataset
    except ValueError as error:
        raise ManifestError(f"{folder / CHECKSUM_FILE}: {error}. Copy or convert the dataset again") from error
    found = hashlib.sha256(data).hexdigest()
    if not sums.endswith(f"{found}  {MANIFEST_FILE}\n".encode()):
        raise ManifestError(
            f"{folder / MANIFEST_FILE}: SHA-256 is {found}, {CHECKSUM_FILE} lists another: it is damaged, or being "
            "replaced. Run the same command again, or gqn-data verify on a copy"
        )


def file_fault(folder: AnyPath, row: FileRow) -> str | None:
    """Return what is wrong with a file of a dataset: missing, another size, another checksum. None if it is intact."""
    path = folder / row.name
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return f"{path}: listed in the manifest and absent. Convert or copy it again"
    if size != row.bytes:
        return f"{path}: {size} bytes, the manifest says {row.bytes}. Convert or copy it again"
    if row.sha256 is not None and (found := atomic.sha256_of(path)) != row.sha256:
        return f"{path}: SHA-256 is {found}, the manifest says {row.sha256}. Convert or copy it again"
    return None


def _parse(value: dict[str, Any], path: AnyPath) -> Manifest:
    origin = Origin.from_json(value["origin"], path)
    if value["schema"] == 1:
        geometry = geometry_of(value["scene_set"], origin)
    else:
        geometry = None if value["geometry"] is None else Geometry.from_json(value["geometry"])
    return Manifest(
        scene_set=value["scene_set"],
        format=value["format"],
        frames=FramesRow(**{**value["frames"], "reencoded": tuple(value["frames"].get("reencoded", ()))}),
        cameras=CamerasRow(
            fields=tuple(value["cameras"]["fields"]),
            dtype=value["cameras"]["dtype"],
            angles=value["cameras"]["angles"],
            pose=tuple(value["cameras"]["pose"]),
        ),
        origin=origin,
        splits={name: _parse_split(row) for name, row in value["splits"].items()},
        limit=value["limit"],
        tool=value["tool"],
        geometry=geometry,
    )


def parse_shard(value: dict[str, Any]) -> ShardRow:
    """Parse a shard row from the result of `dataclasses.asdict`.

    Raises:
        KeyError: a key is missing.
        TypeError: a value is of the wrong type, or a key is unknown.
    """
    return ShardRow(scenes=value["scenes"], files=tuple(FileRow(**row) for row in value["files"]))


def parse_source(value: dict[str, Any]) -> SourceRow:
    """Parse a source row from the result of `dataclasses.asdict`.

    Raises:
        KeyError: a key is missing.
        TypeError: a value is of the wrong type, or a key is unknown.
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
    """Raise if a count, name, path or other value in the manifest is invalid."""

    def require(valid: bool, found: str) -> None:
        if not valid:
            raise ManifestError(f"{path}: {found[:_MAX_QUOTED]}. Copy or convert the dataset again")

    frames, cameras = manifest.frames, manifest.cameras
    named = _is_text(manifest.scene_set) and is_set_name(manifest.scene_set)
    require(named, f"scene set is {manifest.scene_set!r}, expected at most 64 of a to z, digits, _ and -")
    text = _is_text(manifest.format) and _is_text(manifest.tool)
    require(text, f"format is {manifest.format!r} and tool {manifest.tool!r}, expected text")
    require(
        manifest.limit is None or _is_count(manifest.limit), f"limit is {manifest.limit!r}, expected a count or null"
    )
    require(frames.encoding in get_args(Encoding), f"encoding of frames is {frames.encoding!r}, expected jpeg or raw")
    fault = layout_fault(frames.views, frames.height, frames.width)
    require(fault is None, str(fault))
    require(frames.decoder is None or _is_text(frames.decoder), f"decoder is {frames.decoder!r}, expected text or null")
    quality = frames.jpeg_quality
    require(
        quality is None or (_is_count(quality) and 1 <= quality <= 100),
        f"JPEG quality is {quality!r}, expected 1 to 100",
    )
    lossy = frames.reencoded
    require(
        len(lossy) <= _MAX_ENCODINGS and all(_is_count(each) and 1 <= each <= 100 for each in lossy),
        f"qualities of re-encoded frames are {lossy!r}, expected at most {_MAX_ENCODINGS} from 1 to 100",
    )
    fields = 0 < len(cameras.fields) <= 64 and all(map(_is_text, cameras.fields))
    require(fields, f"camera fields are {cameras.fields!r}, expected 1 to 64 names")
    require(cameras.dtype == "float32", f"dtype of cameras is {cameras.dtype!r}, expected float32")
    angles = get_args(Angles)
    require(cameras.angles in angles, f"angles are in {cameras.angles!r}, expected {' or '.join(angles)}")
    require(all(map(_is_text, cameras.pose)), f"pose fields are {cameras.pose!r}, expected names")
    require(bool(manifest.splits), "found no splits, expected train or test")
    for name, split in manifest.splits.items():
        require(name in SPLITS, f"split is {name!r}, expected {' or '.join(SPLITS)}")
        scenes = split.scenes, split.scenes_per_shard
        require(all(map(_is_count, scenes)), f"scenes and scenes per shard of {name} are {scenes!r}, expected counts")
        expected = split.expected_scenes, split.expected_files
        require(all(map(_is_count, expected)), f"expected scenes and files of {name} are {expected!r}, expected counts")
        require(bool(split.shards), f"{name} has 0 shards, expected 1 or more")
        for shard in split.shards:
            require(
                _is_count(shard.scenes) and shard.scenes > 0, f"a shard of {shard.scenes!r} scenes, expected 1 or more"
            )
            require(bool(shard.files), "a shard of 0 files, expected 1 or more")
        total = sum(shard.scenes for shard in split.shards)
        require(total == split.scenes, f"shards of {name} have {total} scenes, expected {split.scenes}")
        if split.scenes_per_shard:
            sizes = {shard.scenes for shard in split.shards[:-1]}
            per_shard = split.scenes_per_shard
            require(sizes <= {per_shard}, f"shards of {name} have {sizes} scenes, expected {per_shard}")
            last = split.shards[-1].scenes
            require(last <= per_shard, f"the last shard of {name} has {last} scenes, expected {per_shard} at most")
        for source in split.sources:
            require(_is_inside(source.name), f"source file is {source.name!r}, expected a path inside its folder")
            counts = (source.bytes, source.scenes, source.expected_scenes)
            require(
                all(map(_is_count, counts)),
                f"bytes, scenes and expected scenes of source file {source.name!r} are {counts!r}, expected counts",
            )
            for skipped in source.skipped:
                valid = _is_count(skipped.record) and _is_count(skipped.offset) and _is_text(skipped.reason)
                require(valid, f"source file {source.name!r} has {skipped!r}, expected two counts and a reason")
    for row in manifest.all_files():
        require(_is_inside(row.name), f"file is {row.name!r}, expected a path inside the dataset")
        require(_is_count(row.bytes), f"file {row.name!r} of {row.bytes!r} bytes, expected a count")
        tail = row.tail is None or (_is_text(row.tail) and len(row.tail) == 8 and set(row.tail) <= _HEX)
        require(tail, f"tail of file {row.name!r} is {row.tail!r}, expected 8 hexadecimal digits or null")
        sha256 = row.sha256 is None or _is_sha256(row.sha256)
        require(sha256, f"checksum of file {row.name!r} is {row.sha256!r}, expected a SHA-256 or null")


def _is_inside(name: object) -> bool:
    """Return whether a name is a normalised path below the folder of the dataset."""
    if not (isinstance(name, str) and name.isprintable() and "\\" not in name):
        return False
    # File systems limit a part to 255 bytes, and stores a key to 1,024 bytes.
    if len(name.encode()) > 1000 or any(len(part.encode()) > 255 for part in name.split("/")):
        return False
    pure = PurePosixPath(name)
    return not pure.is_absolute() and ".." not in pure.parts and name == str(pure) and name != "."


_HEX = frozenset("0123456789abcdef")


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= _HEX


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
