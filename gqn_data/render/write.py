"""Write rendered scenes as TFRecords with DeepMind's schema, file names and scenes per file.

The same seed gives the same bytes for any number of workers. A rerun writes only missing files.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import NamedTuple

from gqn_data.errors import CorruptRecord, DestinationError
from gqn_data.executors.job_array import Part, check_no_parts_running, hold_part
from gqn_data.io import atomic
from gqn_data.render.files import render_files
from gqn_data.render.request import DEFAULT_QUALITY, PlannedFile, Request, at_least
from gqn_data.schema import origin
from gqn_data.schema.catalog import Split, source_file_number
from gqn_data.tfrecord.framing import count_records


class RenderReport(NamedTuple):
    """Result of a rendering run.

    Attributes:
        folder: raw folder of the set.
        files_written: source files that this run wrote.
        files_kept: complete source files that this run kept.
        scenes: scenes that this run rendered.
        frames: frames that this run rendered.
        seconds: duration of the run, with the start of the workers, without compilation.
    """

    folder: Path
    files_written: int
    files_kept: int
    scenes: int
    frames: int
    seconds: float


def render_scene_set(
    root: Path,
    name: str,
    *,
    scenes: int,
    split: Split | None = None,
    seed: int = 0,
    frame_size: int | None = None,
    views: int | None = None,
    quality: int = DEFAULT_QUALITY,
    supersample: bool = True,
    workers: int | None = None,
    executor: Executor | None = None,
    part: Part | None = None,
) -> RenderReport:
    """Render scenes of a set into `<root>/raw/<set>/<split>/`.

    Complete files are kept. Missing files, and files with too few scenes, are written from the start.

    Args:
        root: data root.
        name: name of the scene set, or an alias.
        scenes: total number of scenes, of `split` or of both splits together.
        split: split of all scenes; None for nine in ten in train and the rest in test, like DeepMind's.
        seed: seed, not negative. The same seed gives the same bytes.
        frame_size: height and width in pixels; None for the set's default.
        views: views per scene; None for the set's default.
        quality: JPEG quality, 1 to 100.
        supersample: cast 2x2 rays per pixel instead of one.
        workers: number of processes; None for the cores of this machine. The result does not depend on it.
        executor: executor that renders instead of new processes; it is not shut down. Files are written here.
        part: job-array part, which writes every n-th file; None for all files. Parts may run at the same time.

    Returns:
        RenderReport: what was written and kept.

    Raises:
        UnknownName: the set is unknown or cannot be rendered.
        OptionError: a number is out of range.
        OriginError: the folder holds scenes of another origin: DeepMind's, or rendered with other parameters.
        DestinationError: the folder holds more scenes than requested, or another run writes there.
        NoSpace: the disk is full; only complete files remain.
    """
    request = Request.of(
        name,
        scenes=scenes,
        split=split,
        seed=seed,
        frame_size=frame_size,
        views=views,
        quality=quality,
        supersample=supersample,
    )
    return write_source_files(request, root, workers=workers, executor=executor, part=part)


def write_source_files(
    request: Request,
    root: Path,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    part: Part | None = None,
) -> RenderReport:
    """Render a request; see `render_scene_set` for the other arguments and the errors."""
    parameters = request.parameters
    if workers is not None:
        at_least("number of workers", workers, 1)
    folder = root / "raw" / parameters.scene_set

    def begin() -> None:
        origin.claim(folder, parameters.origin)
        for split_name in request.wanted:
            _check_not_larger(folder, split_name, request.of_split(split_name))

    with _lock_folder(folder, part, begin):
        if part is None:
            for split_name in request.wanted:
                atomic.remove_temporaries(folder / split_name)
        own_files = request.files if part is None else part.of(request.files)
        missing = [file for file in own_files if _count_records(folder / file.name) != file.scenes]
        files = render_files(missing, folder, parameters, workers=workers, executor=executor)
        started = time.perf_counter()
        rendered = sum(file.scenes for file in files)
    return RenderReport(
        folder=folder.absolute(),
        files_written=len(missing),
        files_kept=len(own_files) - len(missing),
        scenes=rendered,
        frames=rendered * parameters.views,
        seconds=time.perf_counter() - started,
    )


@contextlib.contextmanager
def _lock_folder(folder: Path, part: Part | None, begin: Callable[[], None]) -> Iterator[None]:
    """Lock the raw folder, or one part of it, and call `begin` once it is locked."""
    if part is not None:
        with atomic.own_temporaries(), hold_part(folder, part, begin):
            yield
        return
    with atomic.exclusive_writer(folder):
        check_no_parts_running(folder)
        begin()
        yield


def _check_not_larger(folder: Path, split: Split, files: Sequence[PlannedFile]) -> None:
    """Raise DestinationError if a split holds more scenes than requested; existing scenes are never deleted."""
    planned = {file.name for file in files}
    present = [path.name for path in (folder / split).glob("*.tfrecord") if source_file_number(path.name) is not None]
    unplanned = sorted(name for name in present if f"{split}/{name}" not in planned)
    last = files[-1]
    if unplanned or _count_records(folder / last.name) > last.scenes:
        raise DestinationError(
            f"{folder / split}: holds more scenes (see {unplanned[0] if unplanned else Path(last.name).name}), "
            f"expected at most the {last.last} requested. Raise --scenes, or remove the folder"
        )


def _count_records(path: Path) -> int:
    """Return the number of records in a file; -1 if it is missing or corrupt."""
    try:
        return count_records(path)
    except (FileNotFoundError, CorruptRecord):
        return -1
