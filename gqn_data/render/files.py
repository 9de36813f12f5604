"""Render source files: workers render chunks of scenes, the calling process writes them in order.

Files are written atomically. The same request gives the same bytes for any number of workers.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from gqn_data import progress
from gqn_data.executors.pool import map_in_order, open_pool
from gqn_data.io import atomic
from gqn_data.render import find_renderer
from gqn_data.render.request import Parameters, PlannedFile
from gqn_data.render.stream import warm_up
from gqn_data.schema import jpeg
from gqn_data.schema.catalog import Split
from gqn_data.tfrecord.framing import RecordWriter, serialize_example

# A chunk is a few tenths of a second of work, so that progress bars move and few records wait in memory. Scenes of 300
# views of 84 pixels make a chunk each. The chunk size does not affect the result.
_MAX_SCENES_PER_CHUNK = 25
_MAX_RAYS_PER_CHUNK = 1 << 22
_CHUNKS_AHEAD = 3  # per worker, running or waiting


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """Scenes [first, last) of a split, rendered by one worker as one task."""

    parameters: Parameters
    split: Split
    first: int
    last: int


def render_files(
    files: Sequence[PlannedFile],
    folder: Path,
    parameters: Parameters,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
) -> Generator[PlannedFile, None, None]:
    """Render source files below a folder, and yield each one when it is complete.

    The ray caster is compiled before this returns; everything else happens during iteration. Workers run ahead of the
    yielded file, so that a slow consumer does not hold them up.

    Args:
        files: files to write, in this order.
        folder: raw folder of the scene set.
        parameters: parameters of every scene.
        workers: number of processes; None for as many as save time.
        executor: executor to use instead of new processes; it is not shut down.

    Yields:
        PlannedFile: the file that was completed.

    Raises:
        NoSpace: the disk is full; only complete files remain.
    """
    if files:
        warm_up(find_renderer(parameters.scene_set)[1])
    return _render_in_order(files, folder, parameters, workers, executor)


def _render_in_order(
    files: Sequence[PlannedFile], folder: Path, parameters: Parameters, workers: int | None, executor: Executor | None
) -> Generator[PlannedFile, None, None]:
    if not files:
        return
    plan = [_chunks(file, parameters) for file in files]
    chunks = [chunk for row in plan for chunk in row]
    scenes = sum(file.scenes for file in files)
    processes = min(workers or parameters.useful_workers(scenes), len(chunks))
    label = f"render {parameters.scene_set}"
    with (
        open_pool(processes, executor) as running,
        progress.bar(scenes * parameters.views, "frame", label, unit_scale=True) as bar,
    ):
        results = map_in_order(running, _render_records, chunks, _CHUNKS_AHEAD * processes)
        for file, row in zip(files, plan):
            with atomic.writing(folder / file.name) as out:
                writer = RecordWriter(out)
                for _ in row:
                    records = next(results)
                    for record in records:
                        writer.write(record)
                    bar.update(len(records) * parameters.views)
            yield file


def _chunks(file: PlannedFile, parameters: Parameters) -> list[_Chunk]:
    step = max(1, min(_MAX_SCENES_PER_CHUNK, _MAX_RAYS_PER_CHUNK // parameters.rays))
    return [
        _Chunk(parameters=parameters, split=file.split, first=at, last=min(at + step, file.last))
        for at in range(file.first, file.last, step)
    ]


def _render_records(chunk: _Chunk) -> list[bytes]:
    """Return the serialized records of a chunk; runs in a worker."""
    parameters = chunk.parameters
    records = []
    for index in range(chunk.first, chunk.last):
        scene = parameters.render(chunk.split, index)
        frames = [jpeg.encode(frame, parameters.quality) for frame in scene.frames]
        records.append(serialize_example(frames, scene.cameras))
    return records
