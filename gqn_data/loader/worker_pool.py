"""Ordered multiprocessing map over pipes.

It replaces a pool of the standard library for two reasons. Workers can be forked or spawned: a forked worker cannot use
the client of an object store, whose threads stay in the parent. Pipes are anonymous, whereas queues and events leave
files in `/dev/shm` if all processes are killed at once.
"""

from __future__ import annotations

import atexit
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
from gqn_data.executors.processes import GLANCE, SPAWN, StallWarning, check_can_start, end_processes
from gqn_data.main_guard import GUARD_HINT

Task = TypeVar("Task")
Result = TypeVar("Result")
Start = Literal["fork", "spawn"]

_PATIENCE = 1.0  # seconds until a worker that does not exit is terminated, and then killed

# This process's ends of all pipes. A forked child inherits and closes them: a worker sees the end of its parent only
# after the last copy is closed.
_our_ends: weakref.WeakSet[Connection] = weakref.WeakSet()


def _close_our_ends() -> None:
    for end in list(_our_ends):
        end.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_our_ends)


# Before multiprocessing's own handler, which would wait for a stopped worker forever.
_open_pools: weakref.WeakSet[WorkerPool[Any, Any]] = weakref.WeakSet()


@atexit.register
def _close_open_pools() -> None:
    for pool in list(_open_pools):
        pool.close()


@dataclass(frozen=True)
class _Failed:
    """An error that a worker sends instead of a result."""

    error: Exception


@dataclass
class _Worker:
    """The parent's view of a worker."""

    process: BaseProcess
    pipe: Connection
    number: int
    load: int = 0  # tasks sent and not yet answered
    is_ready: bool = False  # it has imported what it needs, and serves tasks


class WorkerPool(Generic[Task, Result]):
    """Worker processes, as a context manager. They end with it and with their parent.

    Args:
        function: maps a task to its result; pickled if workers are spawned.
        count: number of processes.
        start: `spawn`, or `fork` in a tenth of the time.
        begin: called first in each worker with the worker's number from 0; pickled as `function` is.
        describe: returns, for the number of a lost worker, what it was doing, for the message.
    """

    def __init__(
        self,
        function: Callable[[Task], Result],
        count: int,
        *,
        start: Start = "spawn",
        begin: Callable[[int], None] | None = None,
        describe: Callable[[int], str] | None = None,
    ) -> None:
        self._function = function
        self._count = count
        self._start = start
        self._begin = begin
        self._describe = describe
        self._workers: list[_Worker] = []
        self._process = os.getpid()
        self._stall = StallWarning()
        # Kept: `connection.wait` creates one per wait, which takes a tenth of the time for small batches.
        self._ready = select.poll()

    def __enter__(self) -> Self:
        check_can_start(self._count, 0)
        context: Any = SPAWN if self._start == "spawn" else get_context(self._start)
        _open_pools.add(self)
        try:
            for number in range(self._count):
                ours, theirs = context.Pipe()
                _our_ends.add(ours)
                process = context.Process(
                    target=_serve, args=(self._function, self._begin, number, theirs), daemon=True
                )
                with defer_interrupts():
                    process.start()
                theirs.close()  # the pipe then ends with the worker
                self._workers.append(_Worker(process, ours, number))
                self._ready.register(ours, select.POLLIN)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, also in the middle of a task."""
        if os.getpid() != self._process:  # a forked process has a copy of the pool, but not its workers
            return
        for worker in self._workers:
            self._ready.unregister(worker.pipe)
            worker.pipe.close()
        end_processes([worker.process for worker in self._workers], _PATIENCE)
        self._workers = []

    def in_order(self, tasks: Iterator[Task], ahead: int) -> Generator[Result]:
        """Yield the results in the order of the tasks. Each task goes to the worker with the fewest pending tasks.

        Args:
            tasks: advanced when a worker can take the next task.
            ahead: maximum number of tasks per worker, on average, that run or whose results wait for their turn.

        Raises:
            WorkerLost: a worker ended unexpectedly.
            Exception: any error of `function`.
        """
        waiting: dict[int, Result | _Failed] = {}
        sent = taken = 0
        more = True
        while True:
            while more and sent - taken < ahead * self._count:
                try:  # not next(tasks, None): None may be a task
                    task = next(tasks)
                except StopIteration:
                    more = False
                    break
                worker = min(self._workers, key=lambda worker: worker.load)
                with self._report_lost(worker):
                    worker.pipe.send((sent, task))
                worker.load += 1
                sent += 1
            if sent == taken:
                return
            while taken not in waiting:
                self._receive(waiting)
            result = waiting.pop(taken)
            taken += 1
            if isinstance(result, _Failed):
                raise result.error
            yield result

    def _receive(self, waiting: dict[int, Any]) -> None:
        """Receive the results that are ready; wait until there is one."""
        while not (events := self._ready.poll(GLANCE * 1000)):
            self._stall.check(worker.process.pid for worker in self._workers if worker.load)
        ready = {number for number, _ in events}
        for worker in self._workers:
            if worker.pipe.fileno() in ready:
                with self._report_lost(worker):
                    received = worker.pipe.recv()
                if received is None:
                    worker.is_ready = True
                    continue
                number, result = received
                worker.load -= 1
                waiting[number] = result

    @contextlib.contextmanager
    def _report_lost(self, worker: _Worker) -> Iterator[None]:
        """Raise `WorkerLost`, with the exit status and the task, if the pipe breaks."""
        try:
            yield
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            process = worker.process
            process.join(_PATIENCE)
            code = process.exitcode
            with contextlib.suppress(EOFError, OSError):  # lost before its first message was received
                worker.is_ready = worker.is_ready or (worker.pipe.poll() and worker.pipe.recv() is None)
            if self._start == "spawn" and code and code > 0 and not worker.is_ready:
                raise WorkerLost(
                    f"worker {worker.number} (process {process.pid}) ended with status {code} before it was ready; "
                    f"{GUARD_HINT}. Otherwise the cause is printed above"
                ) from None
            how = f"by signal {-code}" if code is not None and code < 0 else f"with status {code}"
            doing = f", {self._describe(worker.number)}" if self._describe is not None else ""
            raise WorkerLost(
                f"worker {worker.number} (process {process.pid}) ended {how}{doing}; it may have run out of memory. "
                "Retry with fewer workers or smaller batches (workers=, batch_size=)"
            ) from error


def _serve(function: Callable[[Any], Any], begin: Callable[[int], None] | None, worker: int, pipe: Connection) -> None:
    """Serve tasks in the worker until the parent closes the pipe."""
    start_worker()
    pipe.send(None)  # ready
    if begin is not None:
        begin(worker)
    with contextlib.suppress(EOFError, OSError):
        while True:
            number, task = pipe.recv()
            try:
                result = function(task)
            except Exception as error:  # noqa: BLE001  the parent raises it
                result = _Failed(_portable(error, worker))
            pipe.send((number, result))


def _portable(error: Exception, worker: int) -> Exception:
    """Return the error, or a `RuntimeError` if it cannot be pickled, with the worker's traceback as a note."""
    note = f"in worker {worker}:\n" + "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    except Exception:  # noqa: BLE001  its class may raise anything
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(note)
    return error
