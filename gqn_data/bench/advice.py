"""What follows from measured rates of the loader: how many workers a training step needs, and what bounds them.

Pure: figures in, sentences out. Measured by `bench`. Imports nothing of the project.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Limit = Literal["decoding", "gathering"]

STEPS_MS = (5.0, 10.0, 20.0, 50.0, 100.0)  # from a small network on a large GPU to a large one on a small GPU

_MARGIN = 1.1  # a loader exactly as fast as the steps makes them wait at every hiccup
_WAIT = 0.01  # a share of a step's time that nobody misses
_MORE = 0.95  # of the highest rate: who reaches it gains nothing from more workers
_BOUND, _FAR = 0.75, 0.5  # of the limit: it is what takes the time; it is not


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The loader with one number of workers.

    Attributes:
        workers: processes; 0 for none but the consumer's.
        scenes_per_second: handed out, as fast as they are taken.
        frames_per_second: the views in use of those scenes.
        limit_frames_per_second: of the bare work alone, in as many processes, one for no worker.
        first_batch_seconds: from the loader's making to its first batch.
        worker_bytes: memory of the largest worker that it shares with nobody; None where it cannot be told.
    """

    workers: int
    scenes_per_second: float
    frames_per_second: float
    limit_frames_per_second: float
    first_batch_seconds: float
    worker_bytes: int | None = None

    @property
    def of_limit(self) -> float:
        """Share of the limit that the loader reaches."""
        return self.frames_per_second / self.limit_frames_per_second

    def batch_ms(self, batch_size: int) -> float:
        """Milliseconds from batch to batch."""
        return 1000 * batch_size / self.scenes_per_second


def worker_counts(cores: int) -> list[int]:
    """The numbers of workers that are worth measuring: each up to four, then at growing steps, the cores at last."""
    counts, count = [], 0
    while count < cores:
        counts.append(count)
        count += max(1, 1 << (count.bit_length() - 2)) if count >= 4 else 1
    return [*counts, cores]


def advise(
    measured: Sequence[Measured],
    *,
    batch_size: int,
    cores: int,
    limit: Limit = "decoding",
    steps_ms: Sequence[float] = STEPS_MS,
) -> list[str]:
    """What to do, a sentence each: about the steps asked for, about more workers, about what takes the time.

    Nothing is said of numbers of workers that were not measured.

    Args:
        measured: at least one.
        batch_size: scenes in a batch.
        cores: that this process may use.
        limit: what the limit is of.
        steps_ms: times that a training step takes, without waiting.
    """
    ordered = sorted(measured, key=lambda one: one.workers)
    views = f"{ordered[-1].frames_per_second / ordered[-1].scenes_per_second:.1f}".removesuffix(".0")
    batch = f"(batch {batch_size}, {views} views)"
    told = [_for_step(ordered, step, batch_size, f"a step of {step:g} ms {batch}") for step in steps_ms]
    # Without workers nothing is made while a step runs, whatever the rate.
    rows = [one for one in ordered if one.workers] or ordered
    fastest = max(one.scenes_per_second for one in rows)
    enough = next(one for one in rows if one.scenes_per_second >= _MORE * fastest)
    most = ordered[-1].workers
    if enough.workers < most:
        told.append(f"more than {_count(enough.workers)} {_verb(enough.workers, 'bring')} nothing here")
    elif most < cores:
        told.append(f"more than {_count(most)} may bring more: {cores} cores are usable")
    return [*told, _bound(enough, limit)]


def _bound(one: Measured, limit: Limit) -> str:
    """What takes the time."""
    share = f"{one.of_limit:.0%} of bare {limit} in {_processes(one.workers)}"
    reached = f"{_count(one.workers)} {_verb(one.workers, 'reach')} {share}" if one.workers else f"no workers: {share}"
    if limit == "gathering":
        return reached
    if one.of_limit >= _BOUND:
        return f"{reached}: decoding takes the time; the numpy container needs none, at six times the bytes"
    if one.of_limit < _FAR:
        return f"{reached}: reading takes the time, from a disk or network that is slow or was not read before"
    return reached


def _for_step(ordered: Sequence[Measured], step: float, batch_size: int, what: str) -> str:
    """How many workers a step needs. Without any, each batch is made while the step waits."""
    for one in ordered:
        takes = one.batch_ms(batch_size)
        if (takes * _MARGIN <= step) if one.workers else (takes <= _WAIT * step):
            return f"{_count(one.workers)} {_verb(one.workers, 'suffice')} for {what}"
    best = min([one for one in ordered if one.workers] or ordered, key=lambda one: one.batch_ms(batch_size))
    takes = best.batch_ms(batch_size)
    if not best.workers:
        return f"without workers, {what} waits {takes:.1f} ms more for each batch"
    share = max(0.0, 1 - step / takes)
    waits = f"training would wait {share:.0%} of the time" if share >= _WAIT else "there is no margin"
    fastest = f"{_count(best.workers)}, the fastest measured, {_verb(best.workers, 'take')} {takes:.1f} ms a batch"
    return f"{fastest}: too few for {what}; {waits}"


def _count(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers or 'no'} workers"


def _processes(workers: int) -> str:
    return "1 process" if workers < 2 else f"{workers} processes"


def _verb(workers: int, word: str) -> str:
    return word if workers != 1 else f"{word}es" if word.endswith("h") else f"{word}s"
