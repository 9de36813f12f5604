"""Scenes rendered straight into containers: no source file is left, and a few of them lie on the disk at a time.

Source files are rendered one after another into the work folder, counted, and dropped when all shards that hold
scenes of them are written. So shards and manifests have the bytes that `render` and then `convert` give, and a run
that was cut off goes on where it was. The workers render; this process writes.

Imports `convert`, `converting`, `growing_plan`, `index`, `render`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from gqn_data.convert.destination import (
    WORK_FOLDER,
    Conversion,
    Log,
    finished_conversions,
    lock_work_folder,
    recorded_raw_source,
    scratch_folder,
)
from gqn_data.convert.incremental_plan import IncomingFile, IncrementalPlan, Target
from gqn_data.convert.index import IndexedFile, IndexTask, index_file, manifest_of, recorded_pass
from gqn_data.convert.journal import WorkFolder
from gqn_data.convert.plan import Options, Source, convert_frames_row, identity
from gqn_data.convert.run import convert
from gqn_data.convert.shard_task import ShardTask, write_shard
from gqn_data.errors import DestinationError, OptionError
from gqn_data.executors.job_array import Part
from gqn_data.formats import FORMATS
from gqn_data.io import atomic, strict_json
from gqn_data.io.paths import AnyPath
from gqn_data.render.files import render_files
from gqn_data.render.request import PlannedFile, Request
from gqn_data.render.write import RenderReport, write_source_files
from gqn_data.schema.catalog import Split
from gqn_data.schema.manifest import Manifest
from gqn_data.sources.raw_folder import RawFolder, SourceFile, converted_folder
from gqn_data.version import TOOL

_SOURCE_FILES = "tfrecord"
_FOLDER = "rendered"  # in the work folder: source files for as long as they are needed, and what was counted in them


def render_formats(
    request: Request,
    root: AnyPath,
    options: Options,
    log: Log = lambda _: None,
    *,
    part: Part | None = None,
    executor: Executor | None = None,
) -> tuple[RenderReport | None, list[Conversion]]:
    """Renders scenes into TFRecords, datasets or both; what became of the TFRecords, and of each dataset.

    Args:
        request: which scenes.
        root: the data root; a disk, where TFRecords are asked for.
        options: as those of `render_containers`; the format `tfrecord` stands for source files under DeepMind's names.
        log: called what is about to be done, a line at a time.
        part: of the source files; None for all.
        executor: as for `render_containers`.

    Raises:
        OptionError: parts of a dataset, or source files to be replaced.
        GQNError: as `render_containers`, `render_scene_set` and `convert`.
    """
    containers = tuple(name for name in options.formats if name != _SOURCE_FILES)
    if part is not None and containers:
        raise OptionError(
            f"--shard renders parts of the TFRecords; for {' and '.join(containers)} leave out --format, "
            f"and then: gqn-data convert {request.parameters.scene_set} --shard ..."
        )
    if options.overwrite and not containers:
        raise OptionError("--overwrite replaces datasets (--format); TFRecords that are there are for people to remove")
    if _SOURCE_FILES not in options.formats:
        return None, render_containers(request, root, options, log, executor=executor)
    folder = atomic.on_disk(root, "TFRecords are rendered")
    report = write_source_files(request, folder, workers=options.workers, executor=executor, part=part)
    if not containers:
        return report, []
    splits = tuple(request.wanted)
    options = dataclasses.replace(options, formats=containers, splits=splits)
    return report, convert(report.folder, request.parameters.row, root, options, log, executor=executor)


def render_containers(
    request: Request,
    root: AnyPath,
    options: Options,
    log: Log = lambda _: None,
    *,
    executor: Executor | None = None,
) -> list[Conversion]:
    """Renders scenes into the containers asked for, below the data root: `<root>/<format>/<set>/`.

    Args:
        request: which scenes.
        root: the data root.
        options: which containers, and how they are written; its splits and limit are the request's.
        log: called what is about to be done, a line at a time.
        executor: renders instead of processes of this run's own; is not shut down. Files are written here.

    Raises:
        DestinationError: another dataset is there, or another run writes there.
        NoSpace: the disk is full; whole files only are left.
        GQNError: any other fault of the destination; nothing whole is lost by it.
    """
    row = request.parameters.row
    work = root / WORK_FOLDER / row.name
    destinations = {name: converted_folder(root, name, row) for name in options.formats}
    with lock_work_folder(work):
        done = finished_conversions(destinations, lambda noted: _as_noted(request, noted, options), work, options, log)
        left = {name: place for name, place in destinations.items() if name not in done}
        scratch = scratch_folder(work) / _FOLDER
        if left:
            run = _Run(request, left, work, scratch, options)
            log(run.announcement())
            done |= run.complete(executor)
        atomic.remove_folder(work / _FOLDER)
        atomic.remove_folder(scratch)
    return [done[name] for name in options.formats]


def _as_noted(request: Request, noted: Manifest, options: Options) -> Source | None:
    """The source files of a request as a dataset's manifest remembers them, if they are the same; none is there."""
    rows = {source.name: source for split in noted.splits.values() for source in split.sources}
    if {name: source.scenes for name, source in rows.items()} != {file.name: file.scenes for file in request.files}:
        return None
    raw = _raw_folder(request, Path(), {name: source.bytes for name, source in rows.items()})
    return recorded_raw_source(raw, noted, options)


def _raw_folder(request: Request, folder: Path, sizes: dict[str, int]) -> RawFolder:
    """The raw folder of a request; of files that are not rendered yet the size is 0."""
    files: dict[Split, tuple[SourceFile, ...]] = {
        split: tuple(
            SourceFile(
                path=folder / file.name, name=file.name, bytes=sizes.get(file.name, 0), expected_scenes=file.full
            )
            for file in request.of_split(split)
        )
        for split in request.wanted
    }
    return RawFolder(folder=folder, scene_set=request.parameters.row, origin=request.parameters.origin, files=files)


class _Run:
    """Renders, counts, writes shards and drops, file by file, until all is written."""

    def __init__(
        self, request: Request, destinations: dict[str, AnyPath], work: AnyPath, scratch: Path, options: Options
    ) -> None:
        self._request = request
        self._options = options
        self._notes = work / _FOLDER
        self._raw = _raw_folder(request, scratch, {})
        manifest = manifest_of(self._raw, {}, None)  # the splits are not known yet
        self._targets = [
            Target(
                kind=FORMATS[name],
                folder=folder,
                frames=convert_frames_row(manifest.frames, FORMATS[name], options),
                work=WorkFolder(work / name),
            )
            for name, folder in destinations.items()
        ]
        self._files = [
            IncomingFile(split=split, source=source) for split, sources in self._raw.files.items() for source in sources
        ]
        self._planned = {file.name: file for file in request.files}
        self._plan = IncrementalPlan(self._files, self._targets, manifest, options)
        for target in self._targets:
            named = dataclasses.replace(manifest, format=target.kind.name, frames=target.frames, tool=TOOL)
            this = {**identity(named), "rendered": request.wanted, "shard_bytes": options.shard_bytes}
            target.work.begin_unplanned(target.folder, json.loads(json.dumps(this)))
        atomic.remove_temporaries(scratch)
        for file in self._files:
            file.counted = self._remembered(self._planned[file.source.name])
            if file.counted is not None:
                # Where it is not there any more, that is because its shards were written, or it is rendered again.
                with contextlib.suppress(FileNotFoundError):
                    file.is_here = (scratch / file.source.name).stat().st_size == file.bytes
        self._plan.advance()

    def announcement(self) -> str:
        """What is about to be done."""
        scenes = " + ".join(f"{count} {split}" for split, count in self._request.wanted.items())
        kept = sum(len(target.rows) for target in self._targets)
        there = f", {kept} shards there already" if kept else ""
        folders = ", ".join(str(target.folder) for target in self._targets)
        return f"rendering {scenes} scenes of {self._raw.scene_set.name} into {folders}{there}"

    def complete(self, executor: Executor | None) -> dict[str, Conversion]:
        """Renders and writes what is missing, the manifests last."""
        by_name = {file.source.name: file for file in self._files}
        missing = [self._planned[file.source.name] for file in self._files if self._is_missing(file)]
        self._write_shards()
        rendered = render_files(
            missing, self._raw_path, self._request.parameters, workers=self._options.workers, executor=executor
        )
        self._started = time.monotonic()  # compiled now
        with contextlib.closing(rendered):
            for planned in rendered:
                self._count(by_name[planned.name], planned)
                self._plan.advance()
                self._write_shards()
        if self._plan.ready or not self._plan.is_whole:
            raise DestinationError(f"{self._raw.folder}: source files went away meanwhile; run the same command again")
        return self._plan.complete(self._raw, self._started)

    @property
    def _raw_path(self) -> Path:
        return atomic.on_disk(self._raw.folder, "scenes are rendered")

    def _is_missing(self, file: IncomingFile) -> bool:
        if file.counted is None or file.first is None:
            return True
        return not file.is_here and self._plan.is_needed(file)

    def _write_shards(self) -> None:
        """Writes the shards whose files are all there, and drops the files that no shard waits for any more."""
        for target, place in list(self._plan.ready):
            if all(file.is_here for file in self._plan.holding(place)):
                self._plan.ready.remove((target, place))
                target.work.begin_shard(place, target.kind.names(place))
                source = self._plan.source_of(place, self._raw)
                row = write_shard(ShardTask(source=source, location=place, format_name=target.kind.name))
                target.work.mark(place, row)
                target.rows[place.split, place.number] = row
                target.written += 1
        for file in self._plan.numbered:
            if file.is_here and not self._plan.is_needed(file):
                file.is_here = False
                (self._raw_path / file.source.name).unlink(missing_ok=True)

    # --- what was counted ---

    def _count(self, file: IncomingFile, planned: PlannedFile) -> None:
        """Counts a file that was rendered, and notes what was found."""
        path = self._raw_path / file.source.name
        file.source = dataclasses.replace(file.source, bytes=path.stat().st_size)
        task = IndexTask(file=file.source, layout=self._raw.layout, index_folder=None, on_corrupt="fail")
        file.counted = index_file(task)
        file.is_here = True
        strict_json.write_note(
            self._note_of(planned), {**dataclasses.asdict(file.counted), "of": self._version(planned)}
        )

    def _remembered(self, planned: PlannedFile) -> IndexedFile | None:
        """What an earlier run found in a file; None where it did not get to it, or rendered something else."""
        return recorded_pass(self._note_of(planned), {"of": self._version(planned)})

    def _note_of(self, planned: PlannedFile) -> AnyPath:
        return self._notes / f"{planned.name}.json"

    def _version(self, planned: PlannedFile) -> dict[str, Any]:
        """What makes two renderings of a file the same."""
        return {**self._raw.origin.to_json(), "first": planned.first, "last": planned.last}
