"""Rendered scenes as TFRecords: DeepMind's schema, file names and scenes per file.

The same seed gives the same bytes for any number of workers, and a rerun does what is missing. Imports the rest of
the package, `origin`, `parts`, `tfrecords` and what lies below it.
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
    """What a run did.

    Attributes:
        folder: the raw folder of the set.
        files_written: source files written by this run.
        files_kept: source files that were there, whole, and left alone.
        scenes: scenes that this run rendered.
        frames: frames that this run rendered.
        seconds: what the run took, start of the workers included, compiling not.
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
    """Renders scenes of a set into `<root>/raw/<set>/<split>/` and tells what was done.

    Files that hold the scenes asked for already are kept; what is missing or shorter is written anew, whole.

    Args:
        root: the data root.
        name: of the set, or an alias.
        scenes: how many there are to be, in the split or in both together.
        split: all in that one; None shares them between train and test nine to one, as DeepMind's are.
        seed: not negative; the same seed gives the same bytes.
        frame_size: height and width in pixels; None for the set's own.
        views: in a scene; None for the set's own.
        quality: of the JPEG, 1 to 100.
        supersample: casts 2x2 rays for a pixel instead of one.
        workers: processes; None for the cores of this machine. Does not change the result.
        executor: renders instead of processes of this run's own; is not shut down. Files are written here.
        part: write every n-th file only; None for all. Parts may be at work at the same time.

    Raises:
        UnknownName: no such set, or no renderer for it.
        OptionError: a number that cannot be.
        OriginError: the folder holds scenes of another origin: DeepMind's, or other parameters.
        DestinationError: the folder holds more scenes than are asked for, or another run writes there.
        NoSpace: the disk is full; whole files only are left.
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
    """The same for a request that is made already; arguments and errors as those of `render_scene_set`."""
    parameters = request.parameters
    if workers is not None:
        at_least("number of workers", workers, 1)
    folder = root / "raw" / parameters.scene_set

    def begin() -> None:
        origin.claim(folder, parameters.origin)
        for split_name in request.wanted:
            _refuse_more(folder, split_name, request.of_split(split_name))

    with _writing_to(folder, part, begin):
        if part is None:
            for split_name in request.wanted:
                atomic.remove_temporaries(folder / split_name)
        here = request.files if part is None else part.of(request.files)
        missing = [file for file in here if _records_in(folder / file.name) != file.scenes]
        files = render_files(missing, folder, parameters, workers=workers, executor=executor)
        started = time.perf_counter()
        done = sum(file.scenes for file in files)
    return RenderReport(
        folder=folder,
        files_written=len(missing),
        files_kept=len(here) - len(missing),
        scenes=done,
        frames=done * parameters.views,
        seconds=time.perf_counter() - started,
    )


@contextlib.contextmanager
def _writing_to(folder: Path, part: Part | None, begin: Callable[[], None]) -> Iterator[None]:
    """Holds the raw folder, or a part of it; readies it first."""
    if part is not None:
        with atomic.own_temporaries(), hold_part(folder, part, begin):
            yield
        return
    with atomic.exclusive_writer(folder):
        check_no_parts_running(folder)
        begin()
        yield


def _refuse_more(folder: Path, split: Split, files: Sequence[PlannedFile]) -> None:
    """Returns where a split holds no more scenes than are asked for; taking scenes away is left to people."""
    planned = {file.name for file in files}
    there = [path.name for path in (folder / split).glob("*.tfrecord") if source_file_number(path.name) is not None]
    beyond = sorted(name for name in there if f"{split}/{name}" not in planned)
    last = files[-1]
    more = _records_in(folder / last.name) > last.scenes
    if beyond or more:
        raise DestinationError(
            f"{folder / split}: holds more scenes than the {last.last} asked for "
            f"(see {beyond[0] if beyond else Path(last.name).name}); ask for at least as many, or remove that folder"
        )


def _records_in(path: Path) -> int:
    """The records of a file; -1 where it is absent or cannot be trusted."""
    try:
        return count_records(path)
    except (FileNotFoundError, CorruptRecord):
        return -1
