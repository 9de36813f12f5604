"""Advice from measured rates of the loader: how many workers a training step needs, and the bottleneck.

Pure functions from numbers to sentences; `measure` supplies the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Limit = Literal["decoding", "gathering", "rendering"]

STEPS_MS = (5.0, 10.0, 20.0, 50.0, 100.0)  # from a small network on a large GPU to a large one on a small GPU

_MARGIN = 1.1  # a loader exactly as fast as the steps delays them at every hiccup
_NEGLIGIBLE = 0.01  # share of a step's time
_ENOUGH = 0.95  # share of the highest rate beyond which more workers are not worth it
_BUSY = 0.5  # load before the measurement, in cores, from which the rates are too low
_BOUND, _UNBOUND = 0.75, 0.5  # shares of the limit above which it is the bottleneck, and below which it is not


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Rates of the loader with one number of workers.

    Attributes:
        workers: number of worker processes; 0 to load in the consumer's process.
        scenes_per_second: scenes delivered to a consumer that never waits.
        frames_per_second: used views of those scenes.
        limit_frames_per_second: rate of the bare work in as many processes, at least one.
        first_batch_seconds: from the construction of the loader to its first batch.
        worker_bytes: private memory of the largest worker; None if it is unknown.
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
        """Return the milliseconds per batch."""
        return 1000 * batch_size / self.scenes_per_second


def worker_counts(cores: int) -> list[int]:
    """Return the numbers of workers to measure: each up to 4, then in growing steps, up to the number of cores."""
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
    load: float = 0.0,
) -> list[str]:
    """Return advice, one sentence each, on every training step, on more workers, and on the bottleneck.

    Only measured numbers of workers are recommended.

    Args:
        measured: at least one measurement.
        batch_size: scenes per batch.
        cores: number of cores that this process may use.
        limit: the work that the limit measures.
        steps_ms: durations of a training step in milliseconds, without waiting for data.
        load: average number of running processes before the measurement.
    """
    ordered = sorted(measured, key=lambda one: one.workers)
    views = f"{ordered[-1].frames_per_second / ordered[-1].scenes_per_second:.1f}".removesuffix(".0")
    batch = f"(batch {batch_size}, {views} views)"
    advice = [_for_step(ordered, step, batch_size, f"a step of {step:g} ms {batch}") for step in steps_ms]
    # Without workers, no batch is made while a step runs, at any rate.
    rows = [one for one in ordered if one.workers] or ordered
    fastest = max(one.scenes_per_second for one in rows)
    enough = next(one for one in rows if one.scenes_per_second >= _ENOUGH * fastest)
    maximum = ordered[-1].workers
    if enough.workers < maximum:
        advice.append(f"more than {_count(enough.workers)} {_verb(enough.workers, 'bring')} no gain")
    elif maximum < cores:
        advice.append(f"more than {_count(maximum)} may bring a gain: {cores} cores are usable")
    if load >= _BUSY:
        busy = f"a load of {load:.1f} on {cores} cores before the measurement"
        return [*advice, f"{busy}: other programs take part of them, and rates are too low; measure on an idle machine"]
    return [*advice, _bottleneck(enough, limit)]


def _bottleneck(one: Measured, limit: Limit) -> str:
    """Return a sentence on the share of the limit that is reached, and on the bottleneck."""
    share = f"{one.of_limit:.0%} of bare {limit} in {_processes(one.workers)}"
    reached = f"{_count(one.workers)} {_verb(one.workers, 'reach')} {share}" if one.workers else f"no workers: {share}"
    if limit != "decoding":
        return reached
    if one.of_limit >= _BOUND:
        return f"{reached}: decoding is the bottleneck; the numpy container needs no decoding, at six times the bytes"
    if one.of_limit < _UNBOUND:
        return f"{reached}: reading is the bottleneck, from a slow disk or network, or from files not yet in memory"
    return reached


def _for_step(ordered: Sequence[Measured], step: float, batch_size: int, what: str) -> str:
    """Return a sentence on the workers that a step needs. Without workers, the step waits for each batch."""
    for one in ordered:
        takes = one.batch_ms(batch_size)
        if (takes * _MARGIN <= step) if one.workers else (takes <= _NEGLIGIBLE * step):
            return f"{_count(one.workers)} {_verb(one.workers, 'suffice')} for {what}"
    best = min([one for one in ordered if one.workers] or ordered, key=lambda one: one.batch_ms(batch_size))
    takes = best.batch_ms(batch_size)
    if not best.workers:
        return f"without workers, {what} waits {takes:.1f} ms more for each batch"
    share = max(0.0, 1 - step / takes)
    waits = f"training would wait {share:.0%} of the time" if share >= _NEGLIGIBLE else "without a margin"
    fastest = f"{_count(best.workers)}, the fastest measured, {_verb(best.workers, 'take')} {takes:.1f} ms per batch"
    return f"{fastest}: too few for {what}; {waits}"


def _count(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers or 'no'} workers"


def _processes(workers: int) -> str:
    return "1 process" if workers < 2 else f"{workers} processes"


def _verb(workers: int, word: str) -> str:
    return word if workers != 1 else f"{word}es" if word.endswith("h") else f"{word}s"
