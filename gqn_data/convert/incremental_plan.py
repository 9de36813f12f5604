"""A plan that grows: source files are counted one after another, and the shards that they fill become known.

In the end it is the plan that `make_plan` gives for all files. No file is fetched, rendered or dropped here. Imports
`converting`, `index`, `plan`, `source_files`.
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
    """A source file on its way.

    Attributes:
        split: of it.
        source: what it is called, and its size where that is known.
        counted: what was found in it; None before it was looked through.
        first: the number in its split of its first scene; None before all files before it were counted.
        is_here: whether it lies on the disk.
        beyond: whether the limit is reached before it.
    """

    split: Split
    source: SourceFile
    counted: IndexedFile | None = None
    first: int | None = None
    is_here: bool = False
    beyond: bool = False

    @property
    def scenes(self) -> int:
        """Good scenes in it, as far as they are counted."""
        return 0 if self.counted is None else self.counted.source.scenes

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.source.bytes if self.counted is None else self.counted.source.bytes


@dataclass(kw_only=True, eq=False)
class Target:
    """One container of the conversion.

    Attributes:
        kind: the container.
        folder: of the dataset to be.
        frames: how it keeps frames.
        work: its work folder.
        per_shard: scenes in a shard of each split, as soon as that is known.
        planned: shards of each split that are planned.
        rows: those that are whole.
        written: by this run.
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
    """The shards of all containers of a conversion, as far as the counts of source files tell them.

    Args:
        files: the source files, split by split, in source order.
        targets: the containers.
        manifest: of the source, without its splits.
        options: of the conversion.

    Attributes:
        ready: shards that are to be written and are not handed to anybody yet, in order.
    """

    def __init__(
        self, files: Sequence[IncomingFile], targets: Sequence[Target], manifest: Manifest, options: Options
    ) -> None:
        self.files = files
        self.targets = targets
        self.ready: deque[tuple[Target, ShardLocation]] = deque()
        self._manifest = manifest
        self._options = options
        self._frontier = 0  # files before it are counted, and their scenes numbered
        self._scenes: dict[Split, int] = {file.split: 0 for file in files}

    @property
    def is_whole(self) -> bool:
        """Whether all files are counted, so that no more shards will come."""
        return self._frontier == len(self.files)

    @property
    def numbered(self) -> Sequence[IncomingFile]:
        """The files whose scenes are numbered."""
        return self.files[: self._frontier]

    def advance(self) -> None:
        """Numbers the scenes of files whose predecessors are all counted, and plans the shards that they fill."""
        while self._frontier < len(self.files):
            file = self.files[self._frontier]
            if file.counted is None and not file.beyond:
                return
            if not file.beyond:
                file.first = self._scenes[file.split]
                self._scenes[file.split] += file.scenes
                limit = self._options.limit
                if limit is not None and self._scenes[file.split] >= limit:
                    for other in self.files[self._frontier + 1 :]:
                        other.beyond |= other.split == file.split
            self._frontier += 1
            rest = self.files[self._frontier :]
            self._plan(file, is_last=not any(other.split == file.split and not other.beyond for other in rest))

    def _plan(self, file: IncomingFile, *, is_last: bool) -> None:
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
                place = ShardLocation(
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
                whole = target.work.row_of(place)
                if whole is None:
                    self.ready.append((target, place))
                else:
                    target.rows[split, place.number] = whole

    def is_needed(self, file: IncomingFile) -> bool:
        """Whether shards are still to be written that hold scenes of a file whose scenes are numbered."""
        if file.beyond or not file.scenes or file.first is None:
            return False
        last = file.first + file.scenes - 1
        if self._options.limit is not None:
            last = min(last, self._options.limit - 1)
        for target in self.targets:
            per = target.per_shard[file.split]
            if any((file.split, number) not in target.rows for number in range(file.first // per, last // per + 1)):
                return True
        return False

    def holding(self, place: ShardLocation) -> list[IncomingFile]:
        """The files that hold scenes of a shard, in order."""
        end = place.first_scene + place.scenes
        return [
            file
            for file in self.files[: self._frontier]
            if file.split == place.split
            and file.first is not None
            and file.first < end
            and file.first + file.scenes > place.first_scene
        ]

    def source_of(self, place: ShardLocation, raw: RawFolder, index_folder: AnyPath | None = None) -> Source:
        """The files that hold the scenes of one shard, as a source by themselves."""
        files = self.holding(place)
        found = [file.counted for file in files if file.counted is not None]
        return Source(
            folder=raw.folder,
            manifest=manifest_of(raw, {place.split: found}, None),
            index_folder=index_folder,
            indexed=index_folder is not None,
            first_scene=files[0].first or 0,
        )

    def complete(self, raw: RawFolder, started: float) -> dict[str, Conversion]:
        """Writes the manifests, all shards being there.

        Args:
            raw: the raw folder of the files.
            started: by `time.monotonic`.

        Raises:
            DestinationError: the shards are not those of a plan for all files.
        """
        found: dict[Split, list[IndexedFile]] = {}
        for file in self.files:
            if file.counted is not None and not file.beyond:
                found.setdefault(file.split, []).append(file.counted)
        whole = manifest_of(raw, found, self._options.limit)
        source = Source(folder=raw.folder, manifest=limited(whole, self._options))
        done = {}
        for target in self.targets:
            plan = make_plan(source, target.kind.name, target.folder, self._options)
            if {(place.split, place.number) for place in plan.shards} != set(target.rows):
                raise DestinationError(f"{target.folder}: the source changed meanwhile; run the same command again")
            manifest = publish(plan, target.rows, target.work)
            done[target.kind.name] = Conversion(
                folder=target.folder,
                manifest=manifest,
                written=target.written,
                kept=len(target.rows) - target.written,
                seconds=time.monotonic() - started,
            )
        return done
