"""Measure the loader on one dataset and machine: its rate per number of workers, the upper bound, and advice.

    for line in bench("data/zarr/rooms_ring_camera").lines():
        print(line)

torch is imported only when something is measured.
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
from gqn_data.io.paths import RenderAddress, StorePath
from gqn_data.loader import shared_memory
from gqn_data.schema import jpeg
from gqn_data.schema.catalog import Split
from gqn_data.version import VERSION

if TYPE_CHECKING:
    from gqn_data.loader import Batch, SceneLoader

Context = tuple[int, int] | str | None

_MEMORY = f"memfd:{shared_memory.NAME}"  # shared by workers and consumer, so not private memory


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The result of a measurement.

    Attributes:
        folder: folder or URL of the dataset.
        scene_set: its scene set.
        split: the split measured.
        format: its container.
        encoding: encoding of its frames.
        scenes: number of scenes in the split; None if they are endless.
        batch_size: scenes per batch.
        context: smallest and largest number of context views, or `all`.
        cores: number of cores that this process may use.
        limit: the work that the limit measures: `decoding`, `gathering` pixels, or `rendering`.
        load: average number of running processes in the minute before; 0 if the system does not report it.
        measured: rates, by rising number of workers.
        advice: advice, one sentence each.
        versions: versions of the packages involved.
    """

    folder: str
    scene_set: str
    split: str
    format: str
    encoding: str
    scenes: int | None
    batch_size: int
    context: tuple[int, int] | str
    cores: int
    limit: Limit
    load: float
    measured: tuple[Measured, ...]
    advice: tuple[str, ...]
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain values for JSON."""
        rows = [{**asdict(one), "of_limit": one.of_limit} for one in self.measured]
        return {**asdict(self), "measured": rows}

    def lines(self) -> list[str]:
        """Return the result as lines of text: a table and the advice."""
        context = "all views"
        if not isinstance(self.context, str):
            context = "{} to {} context views and a query".format(*self.context)
        count = "scenes without end" if self.scenes is None else f"{self.scenes:,} scenes"
        head = "workers", "scenes/s", "frames/s", f"bare {self.limit}", "share", "first batch", "memory per worker"
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
            f"{self.folder}: {count} of {self.split}, {self.format}, {self.encoding}",
            f"batches of {self.batch_size}, {context}; usable cores: {self.cores}",
            *("  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in (head, *rows)),
            *(f"- {line}" for line in self.advice),
        ]


def bench(
    path: str | os.PathLike[str] | StorePath | RenderAddress,
    *,
    split: Split | None = None,
    batch_size: int = 36,
    context: Context = None,
    workers: Sequence[int] | None = None,
    seconds: float = 3.0,
    steps_ms: Sequence[float] = STEPS_MS,
    log: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Measure the loader with each number of workers, and the upper bound in as many processes.

    Each number of workers reads in a different order, so that it does not profit from files that another one has just
    brought into memory. Files in memory before the command speed up all of them. Batches are discarded, so a
    network does not slow the loader down.

    Args:
        path: folder or URL of a dataset, of an indexed raw folder, or a `render:` address.
        split: the split; None for `train` if it exists.
        batch_size: scenes per batch.
        context: context views, as for `SceneLoader`.
        workers: numbers of workers; None for several up to the number of usable cores.
        seconds: duration of each measurement.
        steps_ms: durations of a training step in milliseconds, for advice.
        log: called with a line on each measurement.

    Raises:
        OptionError: a value is out of range, or the dataset does not allow it.
        GQNError: the dataset cannot be opened or read.
        ModuleNotFoundError: torch is not installed.
    """
    from gqn_data.loader import SceneLoader  # noqa: F401  fail early without torch

    counts = sorted(set(worker_counts(usable_cores()) if workers is None else workers))
    if not counts or counts[0] < 0:
        raise OptionError(f"workers is {counts}, expected at least one number, each 0 or more")
    if seconds <= 0:
        raise OptionError(f"seconds is {seconds}, expected more than 0")
    if any(step <= 0 for step in steps_ms):
        raise OptionError(f"steps_ms is {[*steps_ms]}, expected numbers above 0")
    dataset = open_dataset(path, split)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # not on Windows
    measured: list[Measured] = []
    bare: Bare | None = None
    for count in counts:
        log(f"measuring workers {count} (of {', '.join(map(str, counts))}) and the limit, {seconds:g} s each")
        loader, opened = _loader(dataset, batch_size=batch_size, context=context, workers=count)
        scenes, frames, first, private = _loader_rates(loader, opened, seconds)
        if bare is None:
            bare = bare_work(dataset, max(1, round(frames / scenes)))
            chosen = context if isinstance(context, str) else loader.context
        ceiling = limit(bare, max(1, count), seconds, loader.start)
        measured.append(
            Measured(
                workers=count,
                scenes_per_second=scenes,
                frames_per_second=frames,
                limit_frames_per_second=ceiling,
                first_batch_seconds=first,
                worker_bytes=private,
            )
        )
    assert bare is not None  # noqa: S101  there is at least one count
    cores, of = usable_cores(), kind_of(bare)
    return Bench(
        folder=str(dataset.folder),
        scene_set=dataset.manifest.scene_set,
        split=dataset.split,
        format=dataset.manifest.format,
        encoding=dataset.manifest.frames.encoding,
        scenes=None if dataset.is_endless else len(dataset),
        batch_size=batch_size,
        context=chosen,
        cores=cores,
        limit=of,
        load=load,
        measured=tuple(measured),
        advice=tuple(advise(measured, batch_size=batch_size, cores=cores, limit=of, steps_ms=steps_ms, load=load)),
        versions={
            "gqn-toolkit": VERSION,
            "python": platform.python_version(),
            "torch": metadata.version("torch"),
            "decoder": jpeg.DECODER,
        },
    )


def _loader(dataset: Dataset, *, batch_size: int, context: Context, workers: int) -> tuple[SceneLoader, float]:
    """Return a loader, and the time at which its construction began."""
    from gqn_data.loader import SceneLoader

    began = time.perf_counter()
    # A different seed is a different order.
    loader = SceneLoader(
        dataset.folder, split=dataset.split, batch_size=batch_size, context=context, workers=workers, seed=workers
    )
    return loader, began


def _loader_rates(loader: SceneLoader, began: float, seconds: float) -> tuple[float, float, float, int | None]:
    """Return scenes and frames per second, seconds to the first batch, and private bytes of the largest worker."""
    others = {process.pid for process in multiprocessing.active_children()}
    with contextlib.closing(loader):
        batches: Iterator[Batch] = iter(loader)
        next(batches)
        first = time.perf_counter() - began
        for _ in range(2 * loader.workers + 1):  # made while other workers were starting
            next(batches)
        scenes = frames = 0
        begin = time.perf_counter()
        while (taken := time.perf_counter() - begin) < seconds or not scenes:
            views = next(batches).views
            scenes += len(views)
            frames += int((views >= 0).sum())
        pids = [process.pid for process in multiprocessing.active_children() if process.pid not in others]
        own = [_private_bytes(pid) for pid in pids if pid is not None]
    known = [size for size in own if size is not None]
    return scenes / taken, frames / taken, first, max(known, default=None)


def _private_bytes(pid: int) -> int | None:
    """Return the private memory of a process in bytes, without the ring; None if the system does not report it."""
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
