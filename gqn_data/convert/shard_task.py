"""Task that copies the scenes of one shard from the source to a container, and checks them; runs in any process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from gqn_data.cache.policy import CachedFiles
from gqn_data.cache.shard_cache import open_cache
from gqn_data.convert.journal import RunToken
from gqn_data.convert.plan import Source
from gqn_data.dataset import Dataset
from gqn_data.errors import CorruptFrame, ShardChecksumError
from gqn_data.formats import FORMATS
from gqn_data.formats.contract import ShardLocation
from gqn_data.formats.tfrecord_files import scenes_in_sequence
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath, StorePath
from gqn_data.schema.cameras import check_finite
from gqn_data.schema.manifest import FileRow, ShardRow, file_fault
from gqn_data.schema.scene import Scene


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard to write.

    Attributes:
        source: source of the scenes of the shard, and maybe of others.
        location: location of the shard.
        format_name: name of the container.
        token: token of the run; None if workers end with it.
    """

    source: Source
    location: ShardLocation
    format_name: str
    token: RunToken | None = None


def write_shard(task: ShardTask) -> ShardRow:
    """Write one shard atomically, and return its row of the manifest.

    Raises:
        GQNError: a record, a frame or a shard of the source is corrupt, or the shard cannot be written.
        DestinationError: the run of this shard is over.
    """
    location, source = task.location, task.source
    at = location.first_scene - source.first_scene

    def scenes() -> Iterator[Scene]:
        nonlocal at
        for scene in _read_scenes(source, location):
            check_finite(scene.cameras)
            yield scene
            at += 1
        if task.token is not None:
            task.token.check()  # as late as possible: only the flush and the rename follow

    try:
        with atomic.own_temporaries():
            return FORMATS[task.format_name].write_shard(location, scenes())
    except CorruptFrame as error:
        dataset = Dataset(source.folder, source.manifest, location.split)
        number, within = dataset.locate(at)
        name = source.manifest.splits[location.split].shards[number].files[0].name
        raise CorruptFrame(
            f"{source.folder / name}: scene {within} of the file: {error}; download or convert that file again"
        ) from error


def _read_scenes(source: Source, location: ShardLocation) -> Iterator[Scene]:
    """Yield the checked scenes of one shard from the source."""
    first, count = location.first_scene - source.first_scene, location.scenes
    if not source.indexed:
        yield from scenes_in_sequence(source.folder, source.manifest, location.split, first, count)
        return
    dataset = Dataset(source.folder, source.manifest, location.split, source.index_folder)
    if isinstance(source.folder, StorePath):
        # The cache downloads each file once for all shards that need it, and checks it then.
        dataset.read_through(CachedFiles(cache=open_cache(), reading="cache"))
    end = first + count
    while first < end:
        number, within = dataset.locate(first)
        count = min(end - first, source.manifest.splits[location.split].shards[number].scenes - within)
        _check_files(dataset, number, source.index_folder)
        shard = dataset.shard(number)
        yield from (shard.scene(scene) for scene in range(within, within + count))
        first += count


def _check_files(dataset: Dataset, number: int, index_folder: AnyPath | None) -> None:
    """Check a source shard against its checksums.

    Raises:
        ShardChecksumError: a file of the shard has changed.
    """
    if index_folder is not None or isinstance(dataset.folder, StorePath):
        return  # indexed by this run, and records carry their own checksums; or checked after the download
    for row in dataset.manifest.splits[dataset.split].shards[number].files:
        if row.sha256 is not None:
            _check_file(dataset.folder, row)


@lru_cache(maxsize=64)
def _check_file(folder: AnyPath, row: FileRow) -> None:
    fault = file_fault(folder, row)
    if fault is not None:
        raise ShardChecksumError(fault)
