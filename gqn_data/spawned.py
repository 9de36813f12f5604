"""Processes that make something of each task, in the order of the tasks, fed through pipes.

Forked workers cannot use the client of an object store, whose threads stay behind in the parent. Spawned ones can,
but queues and events give them semaphores with names in `/dev/shm`, which stay there when all processes are killed at
once; pipes have no names. Imports `errors`, `workers`.
"""

from __future__ import annotations

import contextlib
import pickle
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Generic, Self, TypeVar

from gqn_data.errors import WorkerLost
from gqn_data.workers import interrupts_held_back, start_worker

Task = TypeVar("Task")
Made = TypeVar("Made")

_PATIENCE = 1.0  # seconds for a worker to end by itself


@dataclass(frozen=True)
class _Failed:
    """What a worker sends in place of a result."""

    error: Exception


class SpawnedWorkers(Generic[Task, Made]):
    """A number of worker processes; a context manager. They end with it, and with their parent.

    Args:
        make: what each task becomes; pickled.
        count: number of processes.
    """

    def __init__(self, make: Callable[[Task], Made], count: int) -> None:
        self._make = make
        self._count = count
        self._workers: list[tuple[SpawnProcess, Connection]] = []

    def __enter__(self) -> Self:
        context = get_context("spawn")
        try:
            for _ in range(self._count):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(self._make, theirs), daemon=True)
                with interrupts_held_back():
                    process.start()
                theirs.close()  # so that the end of the worker is the end of what comes from it
                self._workers.append((process, ours))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers, in the middle of a task if need be."""
        for _, pipe in self._workers:
            pipe.close()
        for process, _ in self._workers:
            process.join(_PATIENCE)
            if process.is_alive():
                process.terminate()
                process.join()
            process.close()
        self._workers = []

    def in_order(self, tasks: Iterator[Task], ahead: int) -> Generator[Made]:
        """What the tasks became, in their order; each worker has up to `ahead` of them at a time.

        Raises:
            WorkerLost: a worker ended by itself.
            Exception: what `make` raised.
        """
        under_way: deque[tuple[SpawnProcess, Connection]] = deque()
        given = 0
        while True:
            while len(under_way) < ahead * self._count:
                task = next(tasks, None)
                if task is None:
                    break
                worker = self._workers[given % self._count]
                with _lost_told(worker[0]):
                    worker[1].send(task)
                under_way.append(worker)
                given += 1
            if not under_way:
                return
            process, pipe = under_way.popleft()
            with _lost_told(process):
                made: Any = pipe.recv()
            if isinstance(made, _Failed):
                raise made.error
            yield made


@contextlib.contextmanager
def _lost_told(process: SpawnProcess) -> Iterator[None]:
    try:
        yield
    except (EOFError, BrokenPipeError, ConnectionResetError) as error:
        process.join(_PATIENCE)
        code = process.exitcode
        how = f"by signal {-code}" if code is not None and code < 0 else f"with status {code}"
        raise WorkerLost(
            f"worker process {process.pid} ended {how}, perhaps for want of memory; "
            "run again, with fewer workers or smaller batches"
        ) from error


def _serve(make: Callable[[Any], Any], pipe: Connection) -> None:
    """Runs in the worker, until the other end of the pipe is closed."""
    start_worker()
    with contextlib.suppress(EOFError, OSError):
        while True:
            task = pipe.recv()
            try:
                made = make(task)
            except Exception as error:  # noqa: BLE001  it is the parent's to raise
                made = _Failed(_portable(error))
            pipe.send(made)


def _portable(error: Exception) -> Exception:
    """The error, or one that tells it, such as can cross to the parent; with a note of where it was raised."""
    note = "in a worker process:\n" + "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    except Exception:  # noqa: BLE001  whatever its class does when it is pickled
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(note)
    return error
