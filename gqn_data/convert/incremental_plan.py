"""Plan that grows: as source files are counted one after another, the shards that they fill become known.

In the end it equals the plan that `make_plan` returns for all files. Nothing is downloaded, rendered or removed here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from gqn_data.convert.destination import Conversion, publish
from gqn_data.convert.index import IndexedFile, manifest_of
from gqn_data.convert.journal import WorkFolder
from gqn_data.convert.plan import Options, Source, limited, make_plan, scenes_per_shard
from gqn_data.errors import DestinationError
from gqn_data.formats.contract import Format, ShardLocation
from gqn_data.io.paths import AnyPath
from gqn_data.schema.catalog import Split
from gqn_data.schema.manifest import FileRow, FramesRow, Manifest, ShardRow
from gqn_data.sources.raw_folder import RawFolder, SourceFile


@dataclass(kw_only=True, eq=False)
class IncomingFile:
    """A source file that arrives during the conversion.

    Attributes:
        split: its split.
        source: its path and name, and its size if known.
        counted: result of counting it; None before that.
        first: index in its split of its first scene; None until all files before it are counted.
        is_here: whether it is on disk.
        beyond_limit: whether the scene limit is reached before it.
    """

    split: Split
    source: SourceFile
    counted: IndexedFile | None = None
    first: int | None = None
    is_here: bool = False
    beyond_limit: bool = False

    @property
    def scenes(self) -> int:
        """Number of valid scenes in it; 0 before it is counted."""
        return 0 if self.counted is None else self.counted.source.scenes

    @property
    def bytes(self) -> int:
        """Its size in bytes."""
        return self.source.bytes if self.counted is None else self.counted.source.bytes


@dataclass(kw_only=True, eq=False)
class Target:
    """One container of the conversion.

    Attributes:
        kind: the container.
        folder: folder of the dataset.
        frames: frames row of the dataset.
        work: its work folder.
        per_shard: scenes per shard of each split, once known.
        planned: number of planned shards of each split.
        rows: manifest rows of the finished shards.
        written: number of shards that this run wrote.
    """

    kind: Format
    folder: AnyPath
    frames: FramesRow
    work: WorkFolder
    per_shard: dict[Split, int] = field(default_factory=dict)
    planned: dict[Split, int] = field(default_factory=dict)
    rows: dict[tuple[Split, int], ShardRow] = field(default_factory=dict)
    written: int = 0


class IncrementalPlan:
    """The shards of all containers of a conversion, as far as the counted source files determine them.

    Args:
        files: the source files, split by split, in source order.
        targets: the containers.
        manifest: manifest of the source, without splits.
        options: options of the conversion.

    Attributes:
        ready: shards to write that were not submitted yet, in order.
    """

    def __init__(
        self, files: Sequence[IncomingFile], targets: Sequence[Target], manifest: Manifest, options: Options
    ) -> None:
        self.files = files
        self.targets = targets
        self.ready: deque[tuple[Target, ShardLocation]] = deque()
        self._manifest = manifest
        self._options = options
        self._frontier = 0  # number of leading files that are counted, with their scenes numbered
        self._scenes: dict[Split, int] = {file.split: 0 for file in files}

    @property
    def is_whole(self) -> bool:
        """Whether all files are counted, so that all shards are known."""
        return self._frontier == len(self.files)

    @property
    def numbered(self) -> Sequence[IncomingFile]:
        """Files whose scenes are numbered."""
        return self.files[: self._frontier]

    def advance(self) -> None:
        """Assign indices to the scenes of files whose predecessors are counted, and plan the shards that they fill."""
        while self._frontier < len(self.files):
            file = self.files[self._frontier]
            if file.counted is None and not file.beyond_limit:
                return
            if not file.beyond_limit:
                file.first = self._scenes[file.split]
                self._scenes[file.split] += file.scenes
                limit = self._options.limit
                if limit is not None and self._scenes[file.split] >= limit:
                    for other in self.files[self._frontier + 1 :]:
                        other.beyond_limit |= other.split == file.split
            self._frontier += 1
            rest = self.files[self._frontier :]
            self._plan(file, is_last=not any(other.split == file.split and not other.beyond_limit for other in rest))

    def _plan(self, file: IncomingFile, *, is_last: bool) -> None:
        """Plan the shards that the split's scenes up to `file` fill, and the remainder after its last file."""
        split, scenes = file.split, self._scenes[file.split]
        if self._options.limit is not None:
            scenes = min(scenes, self._options.limit)
        for target in self.targets:
            if split not in target.per_shard:
                if not file.scenes:
                    continue
                first = ShardRow(
                    scenes=file.scenes, files=(FileRow(name=file.source.name, bytes=file.bytes, sha256=None),)
                )
                per = scenes_per_shard(target.kind, first, self._manifest, target.frames, self._options)
                target.per_shard[split], target.planned[split] = per, 0
            per = target.per_shard[split]
            while (begin := target.planned[split] * per) < scenes and (is_last or begin + per <= scenes):
                shard = ShardLocation(
                    folder=target.folder,
                    split=split,
                    number=target.planned[split],
                    first_scene=begin,
                    scenes=min(per, scenes - begin),
                    scenes_per_shard=min(per, scenes),
                    frames=target.frames,
                    layout=self._manifest.layout,
                )
                target.planned[split] += 1
                row = target.work.row_of(shard)
                if row is None:
                    self.ready.append((target, shard))
                else:
                    target.rows[split, shard.number] = row

    def is_needed(self, file: IncomingFile) -> bool:
        """Return whether a shard with scenes of a numbered file is not written yet."""
        if file.beyond_limit or not file.scenes or file.first is None:
            return False
        last = file.first + file.scenes - 1
        if self._options.limit is not None:
            last = min(last, self._options.limit - 1)
        for target in self.targets:
            per = target.per_shard[file.split]
            if any((file.split, number) not in target.rows for number in range(file.first // per, last // per + 1)):
                return True
        return False

    def holding(self, shard: ShardLocation) -> list[IncomingFile]:
        """Return the files that hold scenes of a shard, in order."""
        end = shard.first_scene + shard.scenes
        return [
            file
            for file in self.files[: self._frontier]
            if file.split == shard.split
            and file.first is not None
            and file.first < end
            and file.first + file.scenes > shard.first_scene
        ]

    def source_of(self, shard: ShardLocation, raw: RawFolder, index_folder: AnyPath | None = None) -> Source:
        """Return the files that hold the scenes of one shard as a source."""
        files = self.holding(shard)
        found = [file.counted for file in files if file.counted is not None]
        return Source(
            folder=raw.folder,
            manifest=manifest_of(raw, {shard.split: found}, None),
            index_folder=index_folder,
            indexed=index_folder is not None,
            first_scene=files[0].first or 0,
        )

    def complete(self, raw: RawFolder, started: float) -> dict[str, Conversion]:
        """Write the manifests once all shards are written.

        Args:
            raw: raw folder of the files.
            started: `time.monotonic` at the start.

        Raises:
            DestinationError: the shards are not those of a plan for all files.
        """
        found: dict[Split, list[IndexedFile]] = {}
        for file in self.files:
            if file.counted is not None and not file.beyond_limit:
                found.setdefault(file.split, []).append(file.counted)
        whole = manifest_of(raw, found, self._options.limit)
        source = Source(folder=raw.folder, manifest=limited(whole, self._options))
        done = {}
        for target in self.targets:
            plan = make_plan(source, target.kind.name, target.folder, self._options)
            if {(shard.split, shard.number) for shard in plan.shards} != set(target.rows):
                raise DestinationError(f"{target.folder}: the source changed meanwhile; rerun the command")
            manifest = publish(plan, target.rows, target.work)
            done[target.kind.name] = Conversion(
                folder=target.folder,
                manifest=manifest,
                written=target.written,
                kept=len(target.rows) - target.written,
                seconds=time.monotonic() - started,
            )
        return done
