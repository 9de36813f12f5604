"""Destination of a conversion: find datasets that exist already, and publish new ones."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gqn_data.convert.journal import Done, WorkFolder, is_present
from gqn_data.convert.plan import Options, Plan, Source, identity, limited, make_plan
from gqn_data.errors import DestinationError, ManifestError, SourceMissing
from gqn_data.executors.job_array import check_no_parts_running
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath, StorePath
from gqn_data.publish import descriptions
from gqn_data.schema.manifest import (
    CHECKSUM_FILE,
    DESCRIPTION_FILES,
    MANIFEST_FILE,
    FileRow,
    Manifest,
    ShardRow,
    SourceRow,
    read_manifest,
)
from gqn_data.sources.raw_folder import RawFolder

WORK_FOLDER = ".work"

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Result of a conversion to one container.

    Attributes:
        folder: folder of the dataset.
        manifest: manifest of the dataset.
        written: number of shards that this run wrote.
        kept: number of shards that existed before.
        seconds: duration of the writing.
    """

    folder: AnyPath
    manifest: Manifest
    written: int
    kept: int
    seconds: float


def stage(destination: AnyPath, options: Options) -> AnyPath:
    """Return the folder to write to: one beside the destination if that holds a dataset to be replaced.

    `put_in_place` moves a staged dataset to its destination when it is complete. A killed run leaves the old dataset
    whole, and a rerun resumes in the staging folder.
    """
    if options.overwrite and (destination / MANIFEST_FILE).exists():
        folder = destination.resolve()  # beside what a link points to, on the same file system
        return folder.parent / f".{folder.name}.new"
    return destination


def put_in_place(destination: AnyPath) -> None:
    """Replace a dataset by the complete one that is staged beside it, if there is one.

    On a disk this is two renames, and the old dataset is removed last. A store cannot rename: the old manifest is
    removed, objects are copied within the store, and the new manifest comes last. A killed run leaves a complete
    dataset in either place, and the next call finishes the replacement.
    """
    if isinstance(destination, StorePath):
        _copy_into_place(destination, destination.parent / f".{destination.name}.new")
        return
    target = destination.resolve()
    staged, old, waste = (target.with_name(f".{target.name}.{ending}") for ending in ("new", "old", "waste"))
    if (staged / MANIFEST_FILE).exists():
        if target.exists():
            target.rename(old)
        staged.rename(target)
        atomic.sync_folder(target.parent)
    elif old.exists() and not target.exists():  # killed between the renames, and the new dataset was removed by hand
        old.rename(target)
    if old.exists():
        _move_other_files(old, target)
        old.rename(waste)  # a folder that is half removed no longer shows which files are a user's
    atomic.remove_folder(waste)


def _move_other_files(old: Path, target: Path) -> None:
    """Move files that are not part of the old dataset, such as a user's notes, into the new one."""
    known = {MANIFEST_FILE, CHECKSUM_FILE, *DESCRIPTION_FILES}
    with contextlib.suppress(ManifestError):
        known |= {row.name for row in read_manifest(old).all_files()}
    for path in sorted(old.rglob("*")) if old.is_dir() else ():
        name = path.relative_to(old)
        if path.is_dir() or name.as_posix() in known or name.parts[0] == WORK_FOLDER or (target / name).exists():
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        path.rename(target / name)


def _copy_into_place(destination: StorePath, staged: StorePath) -> None:
    if not (staged / MANIFEST_FILE).exists():
        return
    with contextlib.suppress(ManifestError):
        names = {row.name for row in read_manifest(destination).all_files()}
        WorkFolder.withdraw(destination)
        for name in sorted(names):
            (destination / name).unlink(missing_ok=True)
    new = [name for name, _ in staged.files()]
    for name in sorted(new, key=lambda name: name == MANIFEST_FILE):
        (staged / name).copy_to(destination / name)
    for name in sorted(new, key=lambda name: name != MANIFEST_FILE):
        (staged / name).unlink(missing_ok=True)


@contextlib.contextmanager
def lock_work_folder(work: AnyPath) -> Iterator[None]:
    """Lock the work folder for this process.

    Raises:
        DestinationError: another run, or a part of a job array, works there.
    """
    with remove_if_empty(work), atomic.exclusive_writer(work):
        check_no_parts_running(work)
        yield


@contextlib.contextmanager
def remove_if_empty(work: AnyPath) -> Iterator[None]:
    """Remove the work folder when the block ends, if the folder is empty."""
    try:
        yield
    finally:
        if isinstance(work, Path):
            with contextlib.suppress(OSError):  # not empty: an unfinished conversion
                work.rmdir()
                work.parent.rmdir()


def scratch_folder(work: AnyPath) -> Path:
    """Return the local folder for temporary source files: the work folder, or a cache folder if that is in a store."""
    if isinstance(work, Path):
        return work
    from gqn_data.cache.shard_cache import default_folder

    return default_folder() / "arriving" / str(work).replace("/", "_").replace(":", "")


_REPLACE = "replace it with --overwrite, or write elsewhere with --out or --root"


def finished_conversions(
    destinations: Mapping[str, AnyPath],
    recorded_source: Callable[[Manifest], Source | None],
    work: AnyPath,
    options: Options,
    log: Log,
) -> dict[str, Conversion]:
    """Return the conversions that are finished already, by format; none if datasets must be replaced.

    Args:
        destinations: folder of each dataset, by the name of its format.
        recorded_source: see `finished_conversion`.
        work: work folder of the set; leftovers of finished conversions are removed from it.
        options: options of the conversion.
        log: called with a line per finished conversion.

    Raises:
        DestinationError: a destination holds another dataset.
    """
    done: dict[str, Conversion] = {}
    for name, destination in destinations.items():
        finished = None if options.overwrite else finished_conversion(recorded_source, name, destination, options)
        if finished is not None:
            log(f"{name}: {destination} is already complete; nothing to do")
            WorkFolder(work / name).remove()
            done[name] = finished
    return done


def finished_conversion(
    recorded_source: Callable[[Manifest], Source | None], format_name: str, destination: AnyPath, options: Options
) -> Conversion | None:
    """Return the conversion if its dataset is complete; None if files are missing.

    Args:
        recorded_source: returns the source as the destination's manifest records it, or None if it has changed.
        format_name: name of the container.
        destination: folder of the dataset.
        options: options of the conversion.

    Raises:
        DestinationError: the destination holds another dataset.
    """
    if not (destination / MANIFEST_FILE).exists():
        return None
    try:
        manifest = read_manifest(destination)
        source = recorded_source(manifest)
    except SourceMissing:
        raise
    except Exception as error:
        raise DestinationError(f"{destination}: found an unusable dataset ({error}); {_REPLACE}") from error
    if source is None or identity(make_plan(source, format_name, destination, options).manifest) != identity(manifest):
        raise DestinationError(
            f"{destination}: found a dataset of other source files or options "
            f"({scenes_text(manifest)} by {manifest.tool}); {_REPLACE}"
        )
    described = all((destination / name).exists() for name in (*DESCRIPTION_FILES, CHECKSUM_FILE))
    if not described or not all(is_present(destination, row) for row in manifest.all_files()):
        return None  # missing files are written again
    shards = sum(len(split.shards) for split in manifest.splits.values())
    return Conversion(folder=destination.absolute(), manifest=manifest, written=0, kept=shards, seconds=0.0)


def recorded_raw_source(raw: RawFolder, options: Options, recorded: Manifest) -> Source | None:
    """Return the source files as a destination's manifest records them, without reading them.

    Returns:
        None if names or sizes of the files have changed, or if records were skipped that now must not be.
    """
    splits = {}
    for name, split in recorded.splits.items():
        found = [(file.name, file.bytes) for file in raw.files.get(name, ())]
        expected = [(row.name, row.bytes) for row in split.sources]
        if options.limit is not None:
            found = found[: len(expected)]
        skipped = any(row.skipped for row in split.sources)
        if found != expected or (skipped and options.on_corrupt == "fail"):
            return None
        shards = tuple(_as_shard(row) for row in split.sources if row.scenes)
        scenes = sum(shard.scenes for shard in shards)
        splits[name] = dataclasses.replace(split, scenes=scenes, shards=shards, files=())
    wanted = set(raw.files) if options.splits is None else set(raw.files) & set(options.splits)
    if set(splits) != wanted:
        return None
    frames = dataclasses.replace(recorded.frames, encoding="jpeg", decoder=None, jpeg_quality=None)
    manifest = dataclasses.replace(recorded, format="tfrecord", frames=frames, origin=raw.origin, splits=splits)
    return Source(folder=raw.folder, manifest=limited(dataclasses.replace(manifest, limit=None), options))


def _as_shard(row: SourceRow) -> ShardRow:
    return ShardRow(scenes=row.scenes, files=(FileRow(name=row.name, bytes=row.bytes, sha256=None),))


def scenes_text(manifest: Manifest) -> str:
    """Return the number of scenes per split, as text."""
    return " + ".join(f"{row.scenes} {name}" for name, row in manifest.splits.items()) + " scenes"


def publish(plan: Plan, done: Done, work: WorkFolder) -> Manifest:
    """Write the manifest, which makes the folder a dataset, and remove the work folder.

    Args:
        plan: plan of the dataset.
        done: rows of all shards.
        work: work folder of the container.
    """
    manifest = _finish(plan, done)
    manifest.write(plan.folder, descriptions(manifest))
    work.remove()
    return manifest


def _finish(plan: Plan, done: Done) -> Manifest:
    """Write the metadata of the container, and return the complete manifest."""
    splits = {}
    for name, split in plan.manifest.splits.items():
        rows = tuple(done[name, shard.number] for shard in plan.shards if shard.split == name)
        splits[name] = dataclasses.replace(split, shards=rows)
    manifest = dataclasses.replace(plan.manifest, splits=splits)
    if plan.format.pieces:
        for name, shard in plan.format.pieces.join(plan.folder, manifest).items():
            splits[name] = dataclasses.replace(splits[name], scenes_per_shard=shard.scenes, shards=(shard,))
        manifest = dataclasses.replace(manifest, splits=splits)
    files = plan.format.finish(plan.folder, manifest)
    for name, split in splits.items():
        splits[name] = dataclasses.replace(split, files=files.get(name, ()))
    return dataclasses.replace(manifest, splits=splits)
