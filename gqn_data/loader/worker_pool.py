"""Processes that make something of each task, in the order of the tasks, fed through pipes.

Why not a pool: forked workers cannot use the client of an object store, whose threads stay behind in the parent, so
both ways of starting are offered; and queues and events give names in `/dev/shm`, which stay there when all processes
are killed at once. Pipes have no names. Imports `errors`, `workers`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import traceback
import weakref
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Literal, Self, TypeVar

from gqn_data.errors import WorkerLost
from gqn_data.executors.pool import defer_interrupts, start_worker

Task = TypeVar("Task")
Made = TypeVar("Made")
Start = Literal["fork", "spawn"]

_PATIENCE = 1.0  # seconds for a worker to end by itself

# This process's ends of all pipes. A forked child inherits them, and while it holds one, the worker at its other end
# would not hear that we are gone.
_our_ends: weakref.WeakSet[Connection] = weakref.WeakSet()


def _close_our_ends() -> None:
    for end in list(_our_ends):
        end.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_our_ends)


@dataclass(frozen=True)
class _Failed:
    """What a worker sends in place of a result."""

    error: Exception


@dataclass
class _Worker:
    """A worker as its parent sees it."""

    process: BaseProcess
    pipe: Connection
    number: int
    load: int = 0  # tasks that it was given and has not answered


class WorkerPool(Generic[Task, Made]):
    """A number of worker processes; a context manager. They end with it, and with their parent.

    Args:
        make: what each task becomes; pickled where workers are spawned.
        count: number of processes.
        start: `spawn`, afresh; or `fork`, as copies of this process, in a tenth of the time.
        begin: called in each worker first, with its number from 0; as `make` otherwise.
        doing: told the number of a worker that was lost; what it was at, for the message.
    """

    def __init__(
        self,
        make: Callable[[Task], Made],
        count: int,
        *,
        start: Start = "spawn",
        begin: Callable[[int], None] | None = None,
        doing: Callable[[int], str] | None = None,
    ) -> None:
        self._make = make
        self._count = count
        self._start = start
        self._begin = begin
        self._doing = doing
        self._workers: list[_Worker] = []
        # Made once: `connection.wait` makes one for each wait, which for small batches is a tenth of all work here.
        self._ready = select.poll()

    def __enter__(self) -> Self:
        context: Any = get_context(self._start)
        try:
            for number in range(self._count):
                ours, theirs = context.Pipe()
                _our_ends.add(ours)
                process = context.Process(target=_serve, args=(self._make, self._begin, number, theirs), daemon=True)
                with defer_interrupts():
                    process.start()
                theirs.close()  # so that the end of the worker is the end of what comes from it
                self._workers.append(_Worker(process, ours, number))
                self._ready.register(ours, select.POLLIN)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers, in the middle of a task if need be."""
        for worker in self._workers:
            self._ready.unregister(worker.pipe)
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join(_PATIENCE)
            if worker.process.is_alive():
                worker.process.terminate()
                worker.process.join()
            worker.process.close()
        self._workers = []

    def in_order(self, tasks: Iterator[Task], ahead: int) -> Generator[Made]:
        """What the tasks became, in their order.

        Each task goes to the worker that has fewest to do.

        Args:
            tasks: asked for the next when it can be given to a worker.
            ahead: the most tasks of a worker, in the mean, that are under way or wait here for their turn.

        Raises:
            WorkerLost: a worker ended by itself.
            Exception: what `make` raised.
        """
        waiting: dict[int, Made | _Failed] = {}
        given = taken = 0
        more = True
        while True:
            while more and given - taken < ahead * self._count:
                # Not next(tasks, None): whatever a task is, it is one.
                try:
                    task = next(tasks)
                except StopIteration:
                    more = False
                    break
                worker = min(self._workers, key=lambda worker: worker.load)
                with self._lost_told(worker):
                    worker.pipe.send((given, task))
                worker.load += 1
                given += 1
            if given == taken:
                return
            while taken not in waiting:
                self._receive(waiting)
            made = waiting.pop(taken)
            taken += 1
            if isinstance(made, _Failed):
                raise made.error
            yield made

    def _receive(self, waiting: dict[int, Any]) -> None:
        """Takes what workers have ready; waits until one has."""
        ready = {number for number, _ in self._ready.poll()}
        for worker in self._workers:
            if worker.pipe.fileno() in ready:
                with self._lost_told(worker):
                    number, made = worker.pipe.recv()
                worker.load -= 1
                waiting[number] = made

    @contextlib.contextmanager
    def _lost_told(self, worker: _Worker) -> Iterator[None]:
        try:
            yield
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            process = worker.process
            process.join(_PATIENCE)
            code = process.exitcode
            how = f"by signal {-code}" if code is not None and code < 0 else f"with status {code}"
            at = f", {self._doing(worker.number)}" if self._doing is not None else ""
            raise WorkerLost(
                f"worker {worker.number} (process {process.pid}) ended {how}{at}; perhaps for want of memory: "
                "run again, with fewer workers or smaller batches"
            ) from error


def _serve(make: Callable[[Any], Any], begin: Callable[[int], None] | None, worker: int, pipe: Connection) -> None:
    """Runs in the worker, until the other end of the pipe is closed."""
    start_worker()
    if begin is not None:
        begin(worker)
    with contextlib.suppress(EOFError, OSError):
        while True:
            number, task = pipe.recv()
            try:
                made = make(task)
            except Exception as error:  # noqa: BLE001  it is the parent's to raise
                made = _Failed(_portable(error, worker))
            pipe.send((number, made))


def _portable(error: Exception, worker: int) -> Exception:
    """The error, or one that tells it, such as can cross to the parent; with a note of where it was raised."""
    note = f"in worker {worker}:\n" + "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    except Exception:  # noqa: BLE001  whatever its class does when it is pickled
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(note)
    return error
