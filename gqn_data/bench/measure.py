"""The loader measured on one dataset and machine: its rate by workers, beside the limit, and what follows from it.

    for line in bench("data/zarr/rooms_ring_camera").lines():
        print(line)

Imports `advice`, `dataset`, `limits`, `loading`, and `loader`, which needs torch, when something is measured.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gqn_data.bench.advice import STEPS_MS, Limit, Measured, advise, worker_counts
from gqn_data.bench.ceiling import Bare, bare_work, kind_of, limit
from gqn_data.dataset import Dataset, open_dataset
from gqn_data.errors import OptionError
from gqn_data.executors.pool import usable_cores
from gqn_data.io import atomic
from gqn_data.io.paths import StorePath
from gqn_data.loader import shared_memory
from gqn_data.schema import jpeg
from gqn_data.schema.catalog import Split
from gqn_data.version import VERSION

if TYPE_CHECKING:
    from gqn_data.loader import Batch, SceneLoader

Context = tuple[int, int] | str | None

_MEMORY = f"memfd:{shared_memory.NAME}"  # the ring that workers share with the consumer: nobody's own


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What was measured.

    Attributes:
        folder: the dataset.
        scene_set: its set.
        split: which split.
        format: the container.
        encoding: how it keeps frames.
        scenes: in the split.
        batch_size: scenes in a batch.
        context: the smallest and the largest number of context views, or `all`.
        cores: usable by this process.
        limit: what the limit is of: `decoding`, or `gathering` pixels.
        measured: by number of workers, rising.
        advice: what follows, a sentence each.
        versions: of what takes part.
    """

    folder: str
    scene_set: str
    split: str
    format: str
    encoding: str
    scenes: int
    batch_size: int
    context: tuple[int, int] | str
    cores: int
    limit: Limit
    measured: tuple[Measured, ...]
    advice: tuple[str, ...]
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON knows it."""
        rows = [{**asdict(one), "of_limit": one.of_limit} for one in self.measured]
        return {**asdict(self), "measured": rows}

    def lines(self) -> list[str]:
        """All of it, as text: a table and the advice."""
        context = "all views"
        if not isinstance(self.context, str):
            context = "{} to {} context views and a query".format(*self.context)
        head = "workers", "scenes/s", "frames/s", f"bare {self.limit}", "share", "first batch", "own memory of a worker"
        rows = [
            (
                str(one.workers),
                f"{one.scenes_per_second:,.0f}",
                f"{one.frames_per_second:,.0f}",
                f"{one.limit_frames_per_second:,.0f}",
                f"{one.of_limit:.0%}",
                f"{one.first_batch_seconds:.2f} s",
                "-" if one.worker_bytes is None else atomic.human_bytes(one.worker_bytes),
            )
            for one in self.measured
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows)]
        return [
            f"{self.folder}: {self.scenes:,} scenes of {self.split}, {self.format}, {self.encoding}",
            f"batches of {self.batch_size}, {context}; {self.cores} usable cores",
            *("  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in (head, *rows)),
            *(f"- {line}" for line in self.advice),
        ]


def bench(
    path: str | os.PathLike[str] | StorePath,
    *,
    split: Split | None = None,
    batch_size: int = 36,
    context: Context = None,
    workers: Sequence[int] | None = None,
    seconds: float = 3.0,
    steps_ms: Sequence[float] = STEPS_MS,
    log: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Measures the loader with each number of workers, and the limit beside it.

    Every number of workers reads in an order of its own, so that none finds in memory what another has read; what was
    read before the command is found there by all. Nobody takes the pixels: a network does not slow this down.

    Args:
        path: a dataset, or an indexed raw folder; a path or a URL.
        split: None for `train` if it is there.
        batch_size: scenes in a batch.
        context: as the loader takes it.
        workers: the numbers of workers; None for several up to the usable cores.
        seconds: of each measurement.
        steps_ms: times of a training step to give advice for.
        log: takes a line on what is being done.

    Raises:
        OptionError: a value that cannot be measured, or that the dataset does not allow.
        GQNError: the dataset cannot be opened or read.
        ModuleNotFoundError: torch is not installed.
    """
    from gqn_data.loader import SceneLoader  # noqa: F401  where torch is not installed, it is said at once

    counts = sorted(set(worker_counts(usable_cores()) if workers is None else workers))
    if not counts or counts[0] < 0:
        raise OptionError(f"workers are {counts}, expected one number or more, from 0")
    if seconds <= 0 or any(step <= 0 for step in steps_ms):
        raise OptionError("seconds of a measurement and milliseconds of a step: expected more than 0")
    dataset = open_dataset(path, split)
    measured: list[Measured] = []
    bare: Bare | None = None
    for count in counts:
        log(f"measuring {count} of {', '.join(map(str, counts))} workers, and the limit: {seconds:g} s each")
        loader, opened = _loader(dataset, batch_size=batch_size, context=context, workers=count)
        scenes, frames, first, own = _loader_rates(loader, opened, seconds)
        if bare is None:
            bare = bare_work(dataset, max(1, round(frames / scenes)))
            chosen = context if isinstance(context, str) else loader.context
        at_most = limit(bare, max(1, count), seconds, loader.start)
        measured.append(
            Measured(
                workers=count,
                scenes_per_second=scenes,
                frames_per_second=frames,
                limit_frames_per_second=at_most,
                first_batch_seconds=first,
                worker_bytes=own,
            )
        )
    assert bare is not None  # noqa: S101  something was measured
    cores, of = usable_cores(), kind_of(bare)
    return Bench(
        folder=str(dataset.folder),
        scene_set=dataset.manifest.scene_set,
        split=dataset.split,
        format=dataset.manifest.format,
        encoding=dataset.manifest.frames.encoding,
        scenes=len(dataset),
        batch_size=batch_size,
        context=chosen,
        cores=cores,
        limit=of,
        measured=tuple(measured),
        advice=tuple(advise(measured, batch_size=batch_size, cores=cores, limit=of, steps_ms=steps_ms)),
        versions={
            "gqn-toolkit": VERSION,
            "python": platform.python_version(),
            "torch": metadata.version("torch"),
            "decoder": jpeg.DECODER,
        },
    )


def _loader(dataset: Dataset, *, batch_size: int, context: Context, workers: int) -> tuple[SceneLoader, float]:
    """The loader, and when its making began."""
    from gqn_data.loader import SceneLoader

    began = time.perf_counter()
    # A seed of its own, so an order of its own.
    loader = SceneLoader(
        dataset.folder, split=dataset.split, batch_size=batch_size, context=context, workers=workers, seed=workers
    )
    return loader, began


def _loader_rates(loader: SceneLoader, began: float, seconds: float) -> tuple[float, float, float, int | None]:
    """Scenes and frames a second, seconds to the first batch, and the own memory of the largest worker."""
    others = {process.pid for process in multiprocessing.active_children()}
    with contextlib.closing(loader):
        batches: Iterator[Batch] = iter(loader)
        next(batches)
        first = time.perf_counter() - began
        for _ in range(2 * loader.workers + 1):  # made while others were still beginning
            next(batches)
        scenes = frames = 0
        begin = time.perf_counter()
        while (taken := time.perf_counter() - begin) < seconds or not scenes:
            views = next(batches).views
            scenes += len(views)
            frames += int((views >= 0).sum())
        pids = [process.pid for process in multiprocessing.active_children() if process.pid not in others]
        own = [_own_bytes(pid) for pid in pids if pid is not None]
    known = [size for size in own if size is not None]
    return scenes / taken, frames / taken, first, max(known, default=None)


def _own_bytes(pid: int) -> int | None:
    """Memory of a process that it shares with nobody, the ring left out; None where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    total, counts = 0, True
    for line in lines:
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            counts = _MEMORY not in line
        elif counts and line.startswith("Private_"):
            total += int(line.split()[1]) << 10
    return total
