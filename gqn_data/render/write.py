"""Rendered scenes as TFRecords: DeepMind's schema, file names and scenes per file.

Workers render, encode and serialize chunks of scenes; this process alone writes files, in order, each whole or not
at all. So the same seed gives the same bytes for any number of workers, and a rerun does what is missing.
Imports the rest of the package, `tfrecords` and what lies below it.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gqn_data import images, origin, progress, storage
from gqn_data.errors import CorruptRecord, DestinationError, OptionError
from gqn_data.parts import Part, need_no_part, taking_part
from gqn_data.render import RENDERER_VERSION, Renderer, find_renderer
from gqn_data.scene_sets import SCENE_SETS, SPLITS, SceneSet, Split, SplitFacts, source_file_number
from gqn_data.tfrecords import RecordWriter, count_records, serialize_example
from gqn_data.workers import map_in_order, pool, usable_cores

# Chosen by bytes a frame and by how frames of known quality look (docs/rendering.md).
DEFAULT_QUALITY = 95
FRAME_SIZES = (16, 512)
VIEWS = (1, 1000)
QUALITIES = (1, 100)

_CHUNK = 25  # scenes that a worker renders at a time; does not show in the result
# A worker takes some seconds to start; a core casts as many rays in about three.
_RAYS_WORTH_A_WORKER = 3 << 24
_AHEAD = 3  # chunks under way or waiting, for each worker


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


@dataclass(frozen=True, kw_only=True)
class _Parameters:
    """What every scene of a run is rendered with."""

    scene_set: str
    seed: int
    frame_size: int
    views: int
    quality: int
    supersample: bool

    @property
    def origin(self) -> origin.Origin:
        return origin.Origin(
            kind="rendered",
            details={
                "renderer": "gqn-toolkit",
                "version": RENDERER_VERSION,
                "seed": self.seed,
                "frame_size": self.frame_size,
                "views": self.views,
                "jpeg_quality": self.quality,
                "supersample": self.supersample,
            },
        )


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """Scenes [first, last) of a split, rendered by one worker in one go."""

    parameters: _Parameters
    split: Split
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class _File:
    """One source file: scenes [first, last) of its split."""

    path: Path
    split: Split
    first: int
    last: int

    def chunks(self, parameters: _Parameters) -> list[_Chunk]:
        return [
            _Chunk(parameters=parameters, split=self.split, first=at, last=min(at + _CHUNK, self.last))
            for at in range(self.first, self.last, _CHUNK)
        ]


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
    scene_set, render = find_renderer(name)
    row = SCENE_SETS[scene_set]
    parameters = _Parameters(
        scene_set=scene_set,
        seed=_at_least("seed", seed, 0),
        frame_size=_within("frame size", row.frame_size if frame_size is None else frame_size, FRAME_SIZES, " px"),
        views=_within("number of views", row.views if views is None else views, VIEWS),
        quality=_within("JPEG quality", quality, QUALITIES),
        supersample=supersample,
    )
    wanted = share(_at_least("number of scenes", scenes, 1), split)
    if workers is not None:
        _at_least("number of workers", workers, 1)
    folder = root / "raw" / scene_set
    files = [file for split_name, count in wanted.items() for file in _plan(folder, row, split_name, count)]

    def begin() -> None:
        origin.claim(folder, parameters.origin)
        for split_name in wanted:
            _refuse_more(folder / split_name, [file for file in files if file.split == split_name])

    with _writing_to(folder, part, begin):
        if part is None:
            for split_name in wanted:
                storage.remove_temporaries(folder / split_name)
        here = files if part is None else part.of(files)
        missing = [file for file in here if not _is_whole(file)]
        if missing:
            _warm_up(render)
        started = time.perf_counter()
        done = sum(file.last - file.first for file in missing)
        _write(missing, parameters, workers or _enough_workers(done, parameters), executor)
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
        with storage.own_temporaries(), taking_part(folder, part, begin):
            yield
        return
    with storage.sole_writer(folder):
        need_no_part(folder)
        begin()
        yield


def share(scenes: int, split: Split | None) -> dict[Split, int]:
    """How many scenes each split gets; None shares them nine to one, with a test scene as soon as there are two."""
    if split is not None:
        if split not in SPLITS:
            raise OptionError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
        return {split: scenes}
    test = max(1, round(scenes / 10)) if scenes >= 2 else 0
    return {"train": scenes - test, "test": test} if test else {"train": scenes}


def _enough_workers(scenes: int, parameters: _Parameters) -> int:
    """As many workers as there are cores, but none that would take longer to start than to do its part."""
    rays = scenes * parameters.views * parameters.frame_size**2 * (4 if parameters.supersample else 1)
    return max(1, min(usable_cores(), rays // _RAYS_WORTH_A_WORKER))


def _at_least(what: str, value: int, low: int) -> int:
    if value < low:
        raise OptionError(f"{what} is {value}, expected {low} or more")
    return value


def _within(what: str, value: int, allowed: tuple[int, int], unit: str = "") -> int:
    low, high = allowed
    if not low <= value <= high:
        raise OptionError(f"{what} is {value}{unit}, expected {low} to {high}{unit}")
    return value


def _plan(folder: Path, row: SceneSet, split: Split, scenes: int) -> Iterator[_File]:
    """The files that hold the first `scenes` scenes of a split, under DeepMind's names."""
    facts: SplitFacts = row.split(split)
    if scenes > facts.scenes:
        raise OptionError(
            f"{scenes} {split} scenes of {row.name}, expected 1 to {facts.scenes}, as DeepMind's files hold"
        )
    first, number = 0, 1
    while first < scenes:
        last = min(first + facts.scenes_in_file(number), scenes)
        yield _File(path=folder / split / facts.file_name(number), split=split, first=first, last=last)
        first, number = last, number + 1


def _refuse_more(folder: Path, files: Sequence[_File]) -> None:
    """Returns where a split holds no more scenes than are asked for; taking scenes away is left to people."""
    planned = {file.path.name for file in files}
    there = [path.name for path in folder.glob("*.tfrecord") if source_file_number(path.name) is not None]
    beyond = sorted(set(there) - planned)
    last = files[-1]
    more = _records_in(last.path) > last.last - last.first
    if beyond or more:
        raise DestinationError(
            f"{folder}: holds more scenes than the {last.last} asked for "
            f"(see {beyond[0] if beyond else last.path.name}); ask for at least as many, or remove that folder"
        )


def _records_in(path: Path) -> int:
    """The records of a file; -1 where it is absent or cannot be trusted."""
    try:
        return count_records(path)
    except (FileNotFoundError, CorruptRecord):
        return -1


def _is_whole(file: _File) -> bool:
    return _records_in(file.path) == file.last - file.first


def _warm_up(render: Renderer) -> None:
    """Compiles the ray caster where that is still to be done; the workers then find the machine code on the disk."""
    from gqn_data.render.compiled import is_cached, note_cached
    from gqn_data.render.raycast import cast_views

    if not is_cached(cast_views):
        print("compiling the ray caster with numba, once: a few seconds", file=sys.stderr, flush=True)  # noqa: T201
    render(0, seed=0, split="train", frame_size=FRAME_SIZES[0], views=1, supersample=False)
    note_cached(cast_views)


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
        frames = [images.encode(frame, parameters.quality) for frame in scene.frames]
        records.append(serialize_example(frames, scene.cameras))
    return records


def _write(files: Sequence[_File], parameters: _Parameters, processes: int, given: Executor | None) -> None:
    plan = [file.chunks(parameters) for file in files]
    chunks = [chunk for row in plan for chunk in row]
    scenes = sum(chunk.last - chunk.first for chunk in chunks)
    processes = min(processes, len(chunks))
    label = f"render {parameters.scene_set}"
    with (
        pool(processes, given) as executor,
        progress.bar(scenes * parameters.views, "frame", label, unit_scale=True) as bar,
    ):
        results = map_in_order(executor, _render_records, chunks, _AHEAD * processes)
        for file, row in zip(files, plan):
            with storage.writing(file.path) as out:
                writer = RecordWriter(out)
                for _ in row:
                    records = next(results)
                    for record in records:
                        writer.write(record)
                    bar.update(len(records) * parameters.views)
