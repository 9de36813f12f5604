"""Rendering straight into containers: source files exist only until the shards with their scenes are written.

Source files are rendered one after another into the work folder. Shards and manifests have the bytes of `render`
followed by `convert`. The workers render; this process writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Generator, Mapping
from concurrent.futures import Executor
from pathlib import Path

from gqn_data.convert.destination import (
    WORK_FOLDER,
    Conversion,
    Log,
    finished_conversions,
    lock_work_folder,
    put_in_place,
    recorded_raw_source,
    scratch_folder,
    stage,
)
from gqn_data.convert.engine import RawSupplier, expected_raw_folder, write_shards
from gqn_data.convert.incremental_plan import IncomingFile
from gqn_data.convert.plan import Options, Source
from gqn_data.convert.run import convert
from gqn_data.errors import DestinationError, OptionError
from gqn_data.executors.job_array import Part
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath
from gqn_data.render.files import render_files
from gqn_data.render.request import Request
from gqn_data.render.write import RenderReport, write_source_files
from gqn_data.schema.manifest import Manifest
from gqn_data.sources.raw_folder import RawFolder, converted_folder
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
    source_from = functools.partial(_recorded_source, request, options)
    with lock_work_folder(work):
        for destination in destinations.values():
            put_in_place(destination)
        done = finished_conversions(destinations, source_from, work, options, log)
        remaining = {name: stage(path, options) for name, path in destinations.items() if name not in done}
        scratch = scratch_folder(work) / _FOLDER
        if remaining:
            atomic.remove_temporaries(scratch)
            with contextlib.closing(_Rendering(request, remaining, work, scratch, options, executor)) as rendering:
                log(rendering.announcement())
                for _ in write_shards(rendering, None, 1):
                    pass
            for name, found in rendering.publish().items():
                put_in_place(destinations[name])
                done[name] = dataclasses.replace(found, folder=destinations[name].absolute())
        atomic.remove_folder(work / _FOLDER)
        atomic.remove_folder(scratch)
    return [done[name] for name in options.formats]


def _recorded_source(request: Request, options: Options, recorded: Manifest) -> Source | None:
    """Return the request's source files as a dataset's manifest records them; None if they differ."""
    rows = {source.name: source for split in recorded.splits.values() for source in split.sources}
    if {name: source.scenes for name, source in rows.items()} != {file.name: file.scenes for file in request.files}:
        return None
    raw = _raw_folder(request, Path(), {name: source.bytes for name, source in rows.items()})
    return recorded_raw_source(raw, options, recorded)


def _raw_folder(request: Request, folder: Path, sizes: dict[str, int]) -> RawFolder:
    """Return the raw folder of a request; the size of a file that is not rendered yet is 0."""
    files = [(file.split, file.name, sizes.get(file.name, 0), file.full) for file in request.files]
    return expected_raw_folder(folder, request.parameters.row, request.parameters.origin, files)


class _Rendering(RawSupplier):
    """Renders source files whenever no shard can be written; see `RawSupplier` for the arguments."""

    def __init__(
        self,
        request: Request,
        destinations: Mapping[str, AnyPath],
        work: AnyPath,
        scratch: Path,
        options: Options,
        executor: Executor | None,
    ) -> None:
        origin = request.parameters.origin.to_json()
        super().__init__(
            _raw_folder(request, atomic.on_disk(scratch, "scenes are rendered"), {}),
            destinations,
            work,
            work / _FOLDER,
            options,
            versions={file.name: {**origin, "first": file.first, "last": file.last} for file in request.files},
            this={"rendered": request.wanted},
        )
        self._request = request
        self._executor = executor
        self._workers = options.workers
        self._rendered = self._render()

    def announcement(self) -> str:
        """Describe the run for the user."""
        scenes = " + ".join(f"{count} {split}" for split, count in self._request.wanted.items())
        kept = sum(len(output.rows) for output in self.plan.outputs)
        exist = f", {count_of(kept, 'shard')} already written" if kept else ""
        folders = ", ".join(str(output.folder) for output in self.plan.outputs)
        return f"rendering {scenes} scenes of {self.raw.scene_set.name} into {folders}{exist}"

    def bring(self, *, busy: bool) -> None:
        """Render the next file, unless shards can be written; workers render further ones meanwhile.

        Raises:
            DestinationError: all files were rendered, but some were removed since.
        """
        if busy:
            return
        file = next(self._rendered, None)
        if file is None:
            raise DestinationError(f"{self.raw.folder}: source files were removed meanwhile; rerun to resume")
        file.counted, file.is_here = self.count(file), True

    def _render(self) -> Generator[IncomingFile, None, None]:
        """Render the files that are not counted, or that unfinished shards need."""
        planned = {file.name: file for file in self._request.files}
        missing = {
            file.source.name: file
            for file in self.files
            if file.counted is None or file.first_scene is None or (not file.is_here and self.plan.is_needed(file))
        }
        parameters, folder = self._request.parameters, atomic.on_disk(self.raw.folder, "scenes are rendered")
        rendered = render_files(
            [planned[name] for name in missing], folder, parameters, workers=self._workers, executor=self._executor
        )
        self.started = time.monotonic()  # the renderer is compiled now
        with contextlib.closing(rendered):
            for file in rendered:
                yield missing[file.name]

    def close(self) -> None:
        """Stop the rendering."""
        self._rendered.close()
