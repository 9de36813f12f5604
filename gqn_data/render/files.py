"""Source files, rendered: workers make chunks of scenes, this process alone writes, in order, each file whole or not.

So the same request gives the same bytes for any number of workers. Imports the rest of the package, `tfrecords` and
what lies below it.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from gqn_data import progress
from gqn_data.executors.pool import map_in_order, pool
from gqn_data.io import atomic
from gqn_data.render import Renderer, find_renderer
from gqn_data.render.request import FRAME_SIZES, Parameters, PlannedFile
from gqn_data.schema import jpeg
from gqn_data.schema.catalog import Split
from gqn_data.tfrecord.framing import RecordWriter, serialize_example

# What a worker renders at a time; does not show in the result. Some tenths of a second of work, so that bars move and
# what waits to be written stays small: scenes of 300 views of 84 pixels come one by one.
_MOST_SCENES = 25
_RAYS_IN_A_CHUNK = 1 << 22
_COMPILING = "compiling the ray caster with numba, once: a few seconds"
_AHEAD = 3  # chunks under way or waiting, for each worker


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """Scenes [first, last) of a split, rendered by one worker in one go."""

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
    """Renders source files below a folder, one after another; gives each as soon as it is whole.

    The ray caster is compiled before this returns; all else happens while the files are asked for. Workers are ahead
    of the file that is given, so that those who use it do not hold them up.

    Args:
        files: which; none of those given before is written again.
        folder: the raw folder.
        parameters: of every scene.
        workers: processes; None for as many as are worth their start.
        executor: renders instead of processes of this run's own; is not shut down.

    Raises:
        NoSpace: the disk is full; whole files only are left.
    """
    if files:
        _warm_up(find_renderer(parameters.scene_set)[1])
    return _rendered(files, folder, parameters, workers, executor)


def _rendered(
    files: Sequence[PlannedFile], folder: Path, parameters: Parameters, workers: int | None, executor: Executor | None
) -> Generator[PlannedFile, None, None]:
    if not files:
        return
    plan = [_chunks(file, parameters) for file in files]
    chunks = [chunk for row in plan for chunk in row]
    scenes = sum(file.scenes for file in files)
    processes = min(workers or parameters.enough_workers(scenes), len(chunks))
    label = f"render {parameters.scene_set}"
    with (
        pool(processes, executor) as running,
        progress.bar(scenes * parameters.views, "frame", label, unit_scale=True) as bar,
    ):
        results = map_in_order(running, _render_records, chunks, _AHEAD * processes)
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
    step = max(1, min(_MOST_SCENES, _RAYS_IN_A_CHUNK // parameters.rays))
    return [
        _Chunk(parameters=parameters, split=file.split, first=at, last=min(at + step, file.last))
        for at in range(file.first, file.last, step)
    ]


def _warm_up(render: Renderer) -> None:
    """Compiles the ray caster where that is still to be done; the workers then find the machine code on the disk."""
    from gqn_data.render.compiled import telling

    with telling(lambda: print(_COMPILING, file=sys.stderr, flush=True)):  # noqa: T201
        render(0, seed=0, split="train", frame_size=FRAME_SIZES[0], views=1, supersample=False)


def _render_records(chunk: _Chunk) -> list[bytes]:
    """The serialized records of a chunk; runs in a worker."""
    parameters = chunk.parameters
    _, render = find_renderer(parameters.scene_set)
    records = []
    for index in range(chunk.first, chunk.last):
        scene = render(
            index,
            seed=parameters.seed,
            split=chunk.split,
            frame_size=parameters.frame_size,
            views=parameters.views,
            supersample=parameters.supersample,
        )
        frames = [jpeg.encode(frame, parameters.quality) for frame in scene.frames]
        records.append(serialize_example(frames, scene.cameras))
    return records
