"""Rendering straight into containers: source files exist only until the shards with their scenes are written.

Source files are rendered one after another into the work folder and counted (`incremental_run`). Shards and manifests
have the bytes of `render` followed by `convert`. The workers render; this process writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from gqn_data.convert.incremental_plan import IncomingFile
from gqn_data.convert.incremental_run import IncrementalRun
from gqn_data.convert.plan import Options, Source
from gqn_data.convert.run import convert
from gqn_data.errors import DestinationError, OptionError
from gqn_data.executors.job_array import Part
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath
from gqn_data.render.files import render_files
from gqn_data.render.request import Request
from gqn_data.render.write import RenderReport, write_source_files
from gqn_data.schema.catalog import Split
from gqn_data.schema.manifest import Manifest
from gqn_data.sources.raw_folder import RawFolder, SourceFile, converted_folder
from gqn_data.units import count_of

_SOURCE_FILES = "tfrecord"
_FOLDER = "rendered"  # in the work folder: source files while they are needed, and notes of their counts


def render_formats(
    request: Request,
    root: AnyPath,
    options: Options,
    log: Log = lambda _: None,
    *,
    part: Part | None = None,
    executor: Executor | None = None,
) -> tuple[RenderReport | None, list[Conversion]]:
    """Render scenes into TFRecords, datasets or both; return the report of the TFRecords and each dataset.

    Args:
        request: the scenes.
        root: the data root; a local path if TFRecords are wanted.
        options: as for `render_containers`; the format `tfrecord` means source files under DeepMind's names.
        log: called with a line about what is going to be done.
        part: part of the source files; None for all.
        executor: as for `render_containers`.

    Raises:
        OptionError: parts of a dataset, or source files to be replaced.
        GQNError: as `render_containers`, `render_scene_set` and `convert`.
    """
    containers = tuple(name for name in options.formats if name != _SOURCE_FILES)
    if part is not None and containers:
        raise OptionError(
            f"--shard renders parts of TFRecords only; for {' and '.join(containers)} omit --format, "
            f"then run: gqn-data convert {request.parameters.scene_set} --shard ..."
        )
    if options.overwrite and not containers:
        raise OptionError("--overwrite replaces datasets of --format only; remove existing TFRecords yourself")
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
    """Render scenes into containers below the data root: `<root>/<format>/<set>/`.

    Args:
        request: the scenes.
        root: the data root.
        options: options of the conversion; splits and limit are those of the request.
        log: called with a line about what is going to be done.
        executor: renders instead of new processes; it is not shut down. Files are written in this process.

    Raises:
        DestinationError: another dataset exists there, or another run is writing there.
        NoSpace: the disk is full; only complete files are left.
        GQNError: any other fault of the destination; finished files are kept.
    """
    row = request.parameters.row
    work = root / WORK_FOLDER / row.name
    destinations = {name: converted_folder(root, name, row) for name in options.formats}

    def source_from(recorded: Manifest) -> Source | None:
        return _recorded_source(request, recorded, options)

    with lock_work_folder(work):
        done = finished_conversions(destinations, source_from, work, options, log)
        remaining = {name: path for name, path in destinations.items() if name not in done}
        scratch = scratch_folder(work) / _FOLDER
        if remaining:
            rendering = _Rendering(request, remaining, work, scratch, options)
            log(rendering.announcement())
            done |= rendering.complete(executor)
        atomic.remove_folder(work / _FOLDER)
        atomic.remove_folder(scratch)
    return [done[name] for name in options.formats]


def _recorded_source(request: Request, recorded: Manifest, options: Options) -> Source | None:
    """Return the request's source files as a dataset's manifest records them; None if they differ."""
    rows = {source.name: source for split in recorded.splits.values() for source in split.sources}
    if {name: source.scenes for name, source in rows.items()} != {file.name: file.scenes for file in request.files}:
        return None
    raw = _raw_folder(request, Path(), {name: source.bytes for name, source in rows.items()})
    return recorded_raw_source(raw, recorded, options)


def _raw_folder(request: Request, folder: Path, sizes: dict[str, int]) -> RawFolder:
    """Return the raw folder of a request; the size of a file that is not rendered yet is 0."""
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


class _Rendering:
    """Renders, counts, writes and removes source files until all shards are written."""

    def __init__(
        self, request: Request, destinations: dict[str, AnyPath], work: AnyPath, scratch: Path, options: Options
    ) -> None:
        self._request, self._options = request, options
        self._folder = atomic.on_disk(scratch, "scenes are rendered")
        self._raw = _raw_folder(request, self._folder, {})
        self._planned = {file.name: file for file in request.files}
        atomic.remove_temporaries(scratch)
        self._run = IncrementalRun(
            self._raw,
            destinations,
            work=work,
            counts=work / _FOLDER,
            options=options,
            request={"rendered": request.wanted},
            version=self._version,
        )
        self._run.plan.advance()

    def announcement(self) -> str:
        """Describe the run for the user."""
        scenes = " + ".join(f"{count} {split}" for split, count in self._request.wanted.items())
        kept = sum(len(target.rows) for target in self._run.targets)
        exist = f", {count_of(kept, 'shard')} already written" if kept else ""
        folders = ", ".join(str(target.folder) for target in self._run.targets)
        return f"rendering {scenes} scenes of {self._raw.scene_set.name} into {folders}{exist}"

    def complete(self, executor: Executor | None) -> dict[str, Conversion]:
        """Render and write what is missing, the manifests last.

        Raises:
            DestinationError: source files were removed meanwhile.
        """
        by_name = {file.source.name: file for file in self._run.files}
        missing = [self._planned[file.source.name] for file in self._run.files if self._is_missing(file)]
        self._write()
        rendered = render_files(
            missing, self._folder, self._request.parameters, workers=self._options.workers, executor=executor
        )
        self._run.started = time.monotonic()  # after the renderer was compiled
        with contextlib.closing(rendered):
            for planned in rendered:
                file = by_name[planned.name]
                size = self._run.path(file).stat().st_size
                file.source = dataclasses.replace(file.source, bytes=size)
                file.counted = self._run.count(file)
                file.is_here = True
                self._run.plan.advance()
                self._write()
        if self._run.plan.ready or not self._run.plan.is_whole:
            raise DestinationError(f"{self._folder}: source files were removed meanwhile; rerun to resume")
        return self._run.complete()

    def _is_missing(self, file: IncomingFile) -> bool:
        if file.counted is None or file.first is None:
            return True
        return not file.is_here and self._run.plan.is_needed(file)

    def _write(self) -> None:
        self._run.write_ready()
        self._run.drop_written()

    def _version(self, source: SourceFile) -> dict[str, Any]:
        planned = self._planned[source.name]
        return {**self._raw.origin.to_json(), "first": planned.first, "last": planned.last}
