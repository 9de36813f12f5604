"""One shard of a conversion: its scenes from the source, checked on the way, into a container. Runs in any process.

Imports `caching`, `dataset`, `formats`, `manifest`, `plan`, `work`.
"""

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
from gqn_data.schema.manifest import FileRow, ShardRow, file_fault
from gqn_data.schema.scene import Scene


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """A shard to write.

    Attributes:
        source: where its scenes are; at least those.
        place: which shard of which dataset.
        format_name: of the container.
        ticket: of the run; None where no worker can outlive it.
    """

    source: Source
    place: ShardLocation
    format_name: str
    ticket: RunToken | None = None


def write_shard(task: ShardTask) -> ShardRow:
    """Writes one shard, whole or not at all; returns its row of the manifest.

    Raises:
        GQNError: a record, a frame or a shard of the source cannot be trusted, or the shard cannot be written.
        DestinationError: the run that this shard was for is over.
    """
    place, source = task.place, task.source
    at = place.first_scene - source.first_scene

    def scenes() -> Iterator[Scene]:
        nonlocal at
        for scene in _scenes_of(source, place):
            yield scene
            at += 1
        if task.ticket is not None:
            task.ticket.check()  # now, for what follows is the flush and the rename

    try:
        with atomic.own_temporaries():
            return FORMATS[task.format_name].write_shard(place, scenes())
    except CorruptFrame as error:
        dataset = Dataset(source.folder, source.manifest, place.split)
        number, within = dataset.locate(at)
        name = source.manifest.splits[place.split].shards[number].files[0].name
        raise CorruptFrame(
            f"{source.folder / name}: scene {within} of the file: {error}; fetch or convert that file again"
        ) from error


def _scenes_of(source: Source, place: ShardLocation) -> Iterator[Scene]:
    """The scenes of one shard to be, from the source, checked on the way."""
    first, count = place.first_scene - source.first_scene, place.scenes
    if not source.indexed:
        yield from scenes_in_sequence(source.folder, source.manifest, place.split, first, count)
        return
    dataset = Dataset(source.folder, source.manifest, place.split, source.index_folder)
    if isinstance(source.folder, StorePath):
        # Files come here whole, once for all shards that hold scenes of them, and are checked when they come.
        dataset.read_through(CachedFiles(cache=open_cache(), reading="cache"))
    end = first + count
    while first < end:
        number, within = dataset.locate(first)
        here = min(end - first, source.manifest.splits[place.split].shards[number].scenes - within)
        _check_files(dataset, number, source.index_folder)
        shard = dataset.shard(number)
        yield from (shard.scene(scene) for scene in range(within, within + here))
        first += here


def _check_files(dataset: Dataset, number: int, index_folder: AnyPath | None) -> None:
    """Checks a source shard against its checksums before it is copied from.

    Raises:
        ShardChecksumError: it is not what was written.
    """
    if index_folder is not None or isinstance(dataset.folder, StorePath):
        return  # made by this very run, the records carrying their own checksums; or checked on arrival
    for row in dataset.manifest.splits[dataset.split].shards[number].files:
        if row.sha256 is not None:
            _check_file(dataset.folder, row)


@lru_cache(maxsize=64)
def _check_file(folder: AnyPath, row: FileRow) -> None:
    fault = file_fault(folder, row)
    if fault is not None:
        raise ShardChecksumError(fault)
