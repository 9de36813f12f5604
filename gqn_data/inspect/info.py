"""Describe a dataset or a raw folder as text or as a manifest. Decodes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from gqn_data.convert.index import index_source_files
from gqn_data.convert.mirror import mirror_manifest, open_mirror
from gqn_data.dataset import open_dataset
from gqn_data.errors import SourceMissing
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath, DatasetPath, RenderAddress, StorePath
from gqn_data.sampling.permutation import ENDLESS
from gqn_data.schema.catalog import SceneSet
from gqn_data.schema.manifest import MANIFEST_FILE, Manifest, SplitRow, read_manifest
from gqn_data.sources.npy_mirror import is_mirror
from gqn_data.sources.raw_folder import open_raw_folder
from gqn_data.units import count_of


@dataclass(frozen=True, kw_only=True)
class Description:
    """The content of a folder.

    Attributes:
        folder: the folder.
        manifest: its manifest; for a raw folder without one, counted from the framing of its files.
        indexed: False for a raw folder without an index.
        bytes: total size of its files.
    """

    folder: DatasetPath
    manifest: Manifest
    indexed: bool
    bytes: int

    def lines(self) -> list[str]:
        """Return the description as lines of text."""
        from gqn_data.io.atomic import human_bytes

        manifest, frames = self.manifest, self.manifest.frames
        origin = manifest.origin
        # Lists, such as the places of imported photos, are for --json.
        short = {key: value for key, value in origin.details.items() if not isinstance(value, list | dict)}
        details = ", ".join(f"{key} {value}" for key, value in short.items())
        rendered = isinstance(self.folder, RenderAddress)
        kept = "rendered on demand" if rendered else {"jpeg": "JPEG", "raw": "decoded"}[frames.encoding]
        quality = f" at quality {frames.jpeg_quality}" if frames.jpeg_quality else ""
        decoder = f", by {frames.decoder}" if frames.decoder else ""
        lines = [
            f"{'scene set':<10} {manifest.scene_set}",
            f"{'format':<10} {manifest.format}{'' if self.indexed else ', not indexed'}",
            f"{'origin':<10} {origin.kind}{f' ({details})' if details else ''}",
            f"{'frames':<10} {frames.views} views of {frames.width}x{frames.height}, {kept}{quality}{decoder}",
            f"{'cameras':<10} {', '.join(manifest.cameras.fields)}; {_angles(manifest)}",
            f"{'geometry':<10} {_geometry(manifest)}",
            f"{'size':<10} {human_bytes(self.bytes)}",
        ]
        for name, split in manifest.splits.items():
            if rendered:
                count = "scenes without end" if split.scenes == ENDLESS else count_of(split.scenes, "scene")
                lines.append(f"{name:<10} {count}")
                continue
            skipped = sum(len(source.skipped) for source in split.sources)
            lines.append(
                f"{name:<10} {count_of(split.scenes, 'scene')} in {count_of(len(split.shards), 'shard')}"
                + _expected(split)
                + (f"; {count_of(skipped, 'corrupt record')} skipped" if skipped else "")
            )
        if manifest.limit is not None:
            lines.append(f"{'limit':<10} {count_of(manifest.limit, 'scene')} per split")
        return lines


def _angles(manifest: Manifest) -> str:
    angles = manifest.cameras.angles
    return "meaning undocumented" if angles == "undocumented" else f"angles in {angles}"


def _geometry(manifest: Manifest) -> str:
    geometry = manifest.geometry
    if geometry is None:
        return "unknown"
    turn = "counter-clockwise" if geometry.yaw_sign > 0 else "clockwise"
    near, far = geometry.depth_range
    return f"field of view {geometry.field_of_view:g} degrees, yaw {turn} from above, depth {near:g} to {far:g}"


def _expected(split: SplitRow) -> str:
    """Return the expected size of the whole split, if known."""
    text = f"; source files {len(split.sources):,} of {split.expected_files:,}" if split.expected_files else ""
    return text + (f", whole set {split.expected_scenes:,} scenes" if split.expected_scenes else "")


def describe_stream(address: RenderAddress) -> Description:
    """Describe scenes that are rendered on demand.

    Raises:
        GQNError: the address is invalid, or numba is missing.
    """
    return Description(folder=address, manifest=open_dataset(address).manifest, indexed=True, bytes=0)


def describe(folder: AnyPath, scene_set: SceneSet) -> Description:
    """Describe a folder.

    Args:
        folder: the folder of a dataset, or a raw folder.
        scene_set: the scene set in it.

    Raises:
        GQNError: the folder holds no scenes, or the manifest cannot be used.
    """
    if atomic.is_present(folder / MANIFEST_FILE):
        manifest, indexed = read_manifest(folder), True
    elif is_mirror(folder):
        manifest, indexed = mirror_manifest(open_mirror(folder, scene_set)), True
    elif isinstance(folder, StorePath):
        if folder.can_be_listed and any(name.endswith(".tfrecord") for name, _ in folder.files()):
            raise SourceMissing(
                f"{folder}: TFRecords without an index; counting their scenes would read every byte. "
                f"Index them with: gqn-data index {folder}"
            )
        manifest, indexed = read_manifest(folder), True  # raises that it is missing
    else:
        manifest, indexed = index_source_files(open_raw_folder(folder, scene_set), None), False
    return Description(
        folder=folder, manifest=manifest, indexed=indexed, bytes=sum(row.bytes for row in manifest.all_files())
    )
