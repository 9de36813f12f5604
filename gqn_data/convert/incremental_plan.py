"""Plan of a conversion that grows while source files arrive.

The counts of source files number their scenes, and so give the shards that the files fill. Once all files are counted
it equals the plan of `make_plan`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from gqn_data.convert.index import IndexedFile
from gqn_data.convert.journal import RunToken, WorkFolder
from gqn_data.convert.plan import Options, locate_shards, scenes_per_shard
from gqn_data.formats.contract import Format, ShardLocation
from gqn_data.io.paths import AnyPath
from gqn_data.schema.catalog import Split
from gqn_data.schema.manifest import FileRow, FramesRow, Manifest, ShardRow
from gqn_data.sources.raw_folder import SourceFile


@dataclass(kw_only=True, eq=False)
class IncomingFile:
    """Source file that arrives during a conversion.

    Attributes:
        split: split of the file.
        source: name of the file, and its size if known.
        counted: result of counting its records; None before.
        first_scene: index of its first scene in the split; None until all files before it are counted.
        is_here: whether the file is on the disk.
        beyond_limit: whether the files before it reach the limit.
    """

    split: Split
    source: SourceFile
    counted: IndexedFile | None = None
    first_scene: int | None = None
    is_here: bool = False
    beyond_limit: bool = False

    @property
    def scenes(self) -> int:
        """Number of valid scenes; 0 before it is counted."""
        return 0 if self.counted is None else self.counted.source.scenes


@dataclass(kw_only=True, eq=False)
class Output:
    """One dataset that a conversion writes.

    Attributes:
        kind: container of the dataset.
        folder: folder of the dataset.
        frames: frames row of the dataset.
        work: work folder of the container.
        token: token of the run for workers that may outlive it; None if all workers end with it.
        per_shard: scenes per shard of each split, once known.
        planned: number of planned shards of each split.
        rows: rows of the finished shards.
        written: number of shards that this run wrote.
    """

    kind: Format
    folder: AnyPath
    frames: FramesRow
    work: WorkFolder
    token: RunToken | None = None
    per_shard: dict[Split, int] = field(default_factory=dict)
    planned: dict[Split, int] = field(default_factory=dict)
    rows: dict[tuple[Split, int], ShardRow] = field(default_factory=dict)
    written: int = 0


class IncrementalPlan:
    """Queue of the shards to write, which grows with the counts of source files.

    Args:
        outputs: datasets to write.
        options: options of the conversion.
        manifest: manifest of the source; its splits are not read.
        files: source files that arrive, split by split, in source order; empty if the caller adds all shards.

    Attributes:
        outputs: datasets to write.
        files: source files.
        queue: shards to write, in order.
    """

    def __init__(
        self,
        outputs: Sequence[Output],
        options: Options,
        manifest: Manifest,
        files: Sequence[IncomingFile] = (),
    ) -> None:
        self.outputs = outputs
        self.files = files
        self.queue: deque[tuple[Output, ShardLocation]] = deque()
        self._options = options
        self._manifest = manifest
        self._numbered: dict[Split, list[IncomingFile]] = {file.split: [] for file in files}  # files with scenes
        self._scenes: dict[Split, int] = dict.fromkeys(self._numbered, 0)
        self._position = 0  # of the first file whose scenes are not numbered

    @property
    def is_finished(self) -> bool:
        """Whether all files are counted and the queue is empty."""
        return self._position == len(self.files) and not self.queue

    def add(self, output: Output, shards: Iterable[ShardLocation]) -> None:
        """Queue the shards that an earlier run has not finished."""
        for shard in shards:
            row = output.work.row_of(shard, output.kind)
            if row is None:
                self.queue.append((output, shard))
            else:
                output.rows[shard.split, shard.number] = row

    def advance(self) -> None:
        """Assign scene indices to files, up to the first that is not counted, and queue the shards that they fill."""
        while self._position < len(self.files):
            file = self.files[self._position]
            if file.counted is None and not file.beyond_limit:
                return
            self._position += 1
            later = [other for other in self.files[self._position :] if other.split == file.split]
            if not file.beyond_limit:
                file.first_scene = self._scenes[file.split]
                self._scenes[file.split] += file.scenes
                if file.scenes:
                    self._numbered[file.split].append(file)
                limit = self._options.limit
                if limit is not None and self._scenes[file.split] >= limit:
                    for other in later:
                        other.beyond_limit = True
            self._plan(file, is_last=all(other.beyond_limit for other in later))

    def _plan(self, file: IncomingFile, *, is_last: bool) -> None:
        """Queue the shards of a split that its numbered files fill, and a last partial one if `is_last`."""
        split, scenes = file.split, self._scenes[file.split]
        if self._options.limit is not None:
            scenes = min(scenes, self._options.limit)
        if not scenes:
            return
        for output in self.outputs:
            per_shard = output.per_shard.get(split) or self._scenes_per_shard(output, split)
            first, end = output.planned.get(split, 0), -(-scenes // per_shard) if is_last else scenes // per_shard
            output.per_shard[split], output.planned[split] = per_shard, max(first, end)
            self.add(
                output,
                locate_shards(
                    output.folder,
                    split,
                    output.frames,
                    self._manifest.layout,
                    scenes=scenes,
                    per_shard=per_shard,
                    numbers=range(first, end),
                ),
            )

    def _scenes_per_shard(self, output: Output, split: Split) -> int:
        first = self._numbered[split][0].counted
        assert first is not None  # noqa: S101  numbered files are counted
        file = FileRow(name=first.source.name, bytes=first.source.bytes, sha256=None)
        row = ShardRow(scenes=first.source.scenes, files=(file,))
        return scenes_per_shard(output.kind, row, self._manifest, output.frames, self._options)

    def files_of(self, shard: ShardLocation) -> list[IncomingFile]:
        """Return the files that hold scenes of a shard, in order."""
        numbered = self._numbered.get(shard.split, [])
        found = []
        for file in numbered[max(0, bisect_right(numbered, shard.first_scene, key=_first_scene) - 1) :]:
            if _first_scene(file) >= shard.first_scene + shard.scenes:
                break
            found.append(file)
        return found

    def _is_ready(self, shard: ShardLocation) -> bool:
        return all(file.is_here for file in self.files_of(shard))

    def has_ready(self) -> bool:
        """Return whether all files of a queued shard are here."""
        return any(self._is_ready(shard) for _, shard in self.queue)

    def take_ready(self) -> tuple[Output, ShardLocation] | None:
        """Remove the first shard whose files are all here from the queue and return it; None without such a shard."""
        for index, (output, shard) in enumerate(self.queue):
            if self._is_ready(shard):
                del self.queue[index]
                return output, shard
        return None

    def is_needed(self, file: IncomingFile) -> bool:
        """Return whether unfinished shards hold scenes of a numbered file."""
        if file.beyond_limit or not file.scenes or file.first_scene is None:
            return False
        last = file.first_scene + file.scenes - 1
        if self._options.limit is not None:
            last = min(last, self._options.limit - 1)
        return any(
            (file.split, number) not in output.rows
            for output in self.outputs
            for number in range(
                file.first_scene // output.per_shard[file.split], last // output.per_shard[file.split] + 1
            )
        )

    def unneeded_files(self) -> Iterator[IncomingFile]:
        """Yield the numbered files that are here and whose shards are all finished."""
        for file in self.files[: self._position]:
            if file.is_here and not self.is_needed(file):
                yield file


def _first_scene(file: IncomingFile) -> int:
    assert file.first_scene is not None  # noqa: S101  asked of numbered files only
    return file.first_scene
