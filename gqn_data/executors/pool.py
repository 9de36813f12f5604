"""Worker pools: our own processes, or an executor of the caller's. The number of workers never changes results.

Our processes are spawned, and end with their parent. A borrowed executor (threads, processes, a cluster) is used and
never shut down; its workers may be on any machine, so each task carries what they need.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import platform
import signal
import threading
import uuid
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from gqn_data.errors import ClusterError, WorkerLost
from gqn_data.executors.processes import GLANCE, SPAWN, StallWarning, check_can_start, stopped_among
from gqn_data.io.paths import AnyPath
from gqn_data.main_guard import GUARD_HINT
from gqn_data.version import VERSION

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

_POLL = 2.0  # seconds between two checks of a cluster while waiting for a result
_DEFAULT_SLOTS = 32  # assumed for executors that do not report how many tasks they run in parallel
_MIN_PENDING = 16  # tasks: an adaptive cluster grows only if it sees work


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def open_pool(
    workers: int, executor: Executor | None = None, shared: Sequence[AnyPath] = ()
) -> Iterator[Executor | None]:
    """Open an executor for tasks; yield None for fewer than two workers, so that the caller runs tasks itself.

    Processes are spawned, not forked: a forked child inherits locks in an arbitrary state.
    On exit, tasks that have not started are cancelled and running ones are awaited.

    Args:
        workers: number of processes to spawn; ignored if `executor` is given.
        executor: executor to borrow; it is not shut down.
        shared: files that the workers of `executor` must see.
    """
    if executor is not None:
        borrowed = BorrowedExecutor(executor, shared)
        try:
            yield borrowed
        finally:
            borrowed.cancel_pending()
        return
    if workers < 2:
        yield None
        return
    check_can_start(workers, 1)
    processes = _Processes(workers)
    try:
        yield processes
    finally:
        processes.end()


class _Processes(ProcessPoolExecutor):
    """Spawned processes of this machine.

    Args:
        workers: number of processes.
    """

    def __init__(self, workers: int) -> None:
        self._ready, self._tell_ready = SPAWN.Pipe(duplex=False)
        super().__init__(workers, mp_context=SPAWN, initializer=_begin_worker, initargs=(self._tell_ready,))
        self._stall = StallWarning()

    def check(self) -> None:
        """Warn if no process makes progress; for use while a result is awaited."""
        self._stall.check(process.pid for process in _children(self))

    def any_was_ready(self) -> bool:
        """Return whether any process has come as far as to run tasks."""
        return self._ready.poll()

    def end(self) -> None:
        """Cancel tasks that have not started, wait for running ones, and end the processes, also stopped ones."""
        children, stopped = _children(self), set[BaseProcess]()
        ending = threading.Thread(target=self.shutdown, kwargs={"cancel_futures": True}, daemon=True)
        ending.start()
        ending.join(GLANCE)
        while ending.is_alive():
            before, stopped = stopped, stopped_among(children)
            if before & stopped:  # at two looks: after Ctrl-Z, `fg` continues one process after the other
                for process in children:  # all: a killed one may hold the lock of the queue that the others read
                    process.kill()
            self._stall.check(process.pid for process in children)
            ending.join(GLANCE)
        self._ready.close()
        self._tell_ready.close()


def _children(executor: Executor) -> list[BaseProcess]:
    """Return the processes of an executor of the standard library; none for other executors."""
    return list((getattr(executor, "_processes", None) or {}).values())


@contextlib.contextmanager
def defer_interrupts() -> Iterator[None]:
    """Defer Ctrl-C until the block ends; processes started in it never receive it.

    Children inherit the signal mask, so that none is interrupted while it imports. The handler protects this process,
    where another thread may receive the signal while a child is being started. Either would print tracebacks.
    """
    previous = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if previous is None or not main or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    deferred: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: deferred.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, previous)
        if deferred:
            signal.raise_signal(signal.SIGINT)


def _begin_worker(tell_ready: Connection) -> None:
    start_worker()
    tell_ready.send_bytes(b"1")


def start_worker() -> None:
    """Initialize a worker process: ignore Ctrl-C and a closed terminal, and exit when the parent exits."""
    # Both signals reach the whole process group; only the parent handles them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):  # not on Windows
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with_parent, args=(parent.sentinel,), daemon=True).start()


def _exit_with_parent(sentinel: int) -> None:
    # A worker whose parent was killed would wait for work forever, and could write after a rerun has started.
    connection.wait([sentinel])
    os._exit(1)


class Cluster(Executor):
    """Executor whose workers join and leave."""

    @abstractmethod
    def slots(self) -> int:
        """Return the number of tasks that currently run in parallel."""

    @abstractmethod
    def check(self) -> None:
        """Raise if pending tasks cannot be expected to finish.

        Raises:
            WorkerLost: the cluster had zero workers for too long, or is lost.
        """


@dataclass(frozen=True, kw_only=True)
class Call:
    """Task for a worker that may be on another machine.

    Attributes:
        version: version of this package on the client.
        shared: files that the worker must see.
        token: unique per call, because Dask identifies equal calls and would return the error of a previous one.
        payload: pickled function and arguments; unpickled only by a worker of the same version.
    """

    version: str
    shared: tuple[Path, ...]
    token: str
    payload: bytes


def run_call(call: Call) -> Any:
    """Run a call in the worker and return its result.

    Raises:
        ClusterError: the worker has another version, or cannot see a shared file.
    """
    if call.version != VERSION:
        raise ClusterError(
            f"worker on {platform.node()}: gqn-toolkit {VERSION}, expected {call.version} as on the client; "
            "install the same version on all machines"
        )
    for path in call.shared:
        if not _is_visible(path):
            raise ClusterError(
                f"worker on {platform.node()}: cannot see {path}; put the source and the data root on a file system "
                "that all workers mount under the same path, or in an object store (s3://, gs://, az://)"
            )
    function, arguments, keywords = pickle.loads(call.payload)  # noqa: S301  from our own client, as all executors do
    return function(*arguments, **keywords)


def _is_visible(path: Path) -> bool:
    try:
        path.stat()
    except OSError:
        return False
    return True


class BorrowedExecutor(Executor):
    """Executor of the caller's, which is used and never shut down.

    Args:
        executor: any executor.
        shared: files that its workers must see; objects in stores need no check.
    """

    def __init__(self, executor: Executor, shared: Sequence[AnyPath] = ()) -> None:
        self._executor = executor
        self._shared = tuple(path.absolute() for path in shared if isinstance(path, Path))
        self._futures: set[Future[Any]] = set()
        self._stall = StallWarning()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit a module-level function and its arguments to a worker."""
        payload = pickle.dumps((fn, args, kwargs))
        call = Call(version=VERSION, shared=self._shared, token=uuid.uuid4().hex, payload=payload)
        future: Future[T] = self._executor.submit(run_call, call)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return future

    @property
    def max_pending(self) -> int:
        """Number of tasks to submit before waiting for the first result."""
        if isinstance(self._executor, Cluster):
            slots = self._executor.slots()
        else:
            workers = getattr(self._executor, "_max_workers", None)  # both executors of the standard library have it
            slots = workers if isinstance(workers, int) else _DEFAULT_SLOTS
        return max(_MIN_PENDING, 2 * slots)

    def check(self) -> None:
        """Raise if the executor is a cluster whose tasks cannot be expected to finish; warn if none makes progress.

        Raises:
            WorkerLost: the cluster had zero workers for too long, or is lost.
        """
        if isinstance(self._executor, Cluster):
            self._executor.check()
        elif children := _children(self._executor):
            self._stall.check(process.pid for process in children)

    def result(self, future: Future[R]) -> R:
        """Wait for a task and return its result.

        Raises:
            ClusterError: the workers do not have this package.
            WorkerLost: a worker ended unexpectedly, or the executor was shut down.
        """
        while not future.done():  # `wait` without a timeout misses futures that a shutdown cancels
            wait((future,), _POLL)
            self.check()
        try:
            return future.result()
        except CancelledError as error:
            raise WorkerLost(
                f"a task was cancelled: the executor was shut down or cannot be reached; {_RESUME}"
            ) from error
        except BrokenExecutor as error:
            raise WorkerLost(
                f"a worker of the executor ended unexpectedly: killed, or out of memory; {_RESUME}"
            ) from error
        except Exception as error:
            if _is_package_missing(error):
                raise ClusterError(
                    f"the scheduler or a worker does not have this package; install gqn-toolkit {VERSION} there"
                ) from error
            if not type(error).__module__.startswith("distributed."):
                raise
            reason = str(error).split("\n", 1)[0]
            # A connection lost while a result is fetched fails the task before the client notices the loss.
            what = "the connection to the cluster was lost" if isinstance(error, OSError) else "a task was given up"
            raise WorkerLost(f"{what}: {reason}; {_RESUME}") from error

    def cancel_pending(self) -> None:
        """Cancel tasks that have not started, and wait for the running ones."""
        pending = list(self._futures)
        for future in pending:
            future.cancel()
        wait(future for future in pending if not future.cancelled())


def _is_package_missing(error: BaseException) -> bool:
    """Return whether an error, of a worker or of Dask's scheduler, says that this package is not installed."""
    missing = error if isinstance(error, ModuleNotFoundError) else error.__cause__
    return isinstance(missing, ModuleNotFoundError) and (missing.name or "").startswith("gqn_data")


_RESUME = "finished files were kept; rerun to resume"


def map_in_order(executor: Executor | None, function: Callable[[T], R], tasks: Iterable[T], limit: int) -> Iterator[R]:
    """Yield the result of `function` for each task, in the order of the tasks.

    At most `limit` tasks are pending, so memory does not grow with their number. For a borrowed executor, its
    `max_pending` replaces `limit`; it is read again for each task, because clusters grow.

    Raises:
        WorkerLost: a worker process ended unexpectedly.
        ClusterError: the workers of a borrowed executor cannot run the tasks.
    """
    if executor is None:
        yield from map(function, tasks)
        return
    pending: deque[Future[R]] = deque()
    for task in tasks:
        pending.append(submit_task(executor, function, task))
        while len(pending) >= max_pending(executor, limit):
            yield wait_for_result(executor, pending.popleft())
    while pending:
        yield wait_for_result(executor, pending.popleft())


def submit_task(executor: Executor, function: Callable[[T], R], task: T) -> Future[R]:
    """Submit a task to an executor of `open_pool`.

    Raises:
        WorkerLost: a worker process ended unexpectedly.
    """
    with defer_interrupts():
        try:
            return executor.submit(function, task)
        except BrokenExecutor:  # a worker ended before its result was requested
            raise _lost(executor) from None


def max_pending(executor: Executor | None, default: int) -> int:
    """Return the number of tasks to submit to an executor of `open_pool` before waiting for the first result."""
    return executor.max_pending if isinstance(executor, BorrowedExecutor) else default


def check_workers(executor: Executor | None) -> None:
    """Raise if the tasks of an executor cannot be expected to finish, and warn if none makes progress.

    For callers that do not `wait_for_result`.

    Raises:
        WorkerLost: the executor is a cluster that had zero workers for too long, or is lost.
    """
    if isinstance(executor, BorrowedExecutor | _Processes):
        executor.check()


def wait_for_result(executor: Executor, future: Future[R]) -> R:
    """Wait for a task submitted to an executor of `open_pool`, and return its result.

    Raises:
        WorkerLost: a worker process ended unexpectedly.
        ClusterError: the workers of a borrowed executor cannot run the task.
    """
    if isinstance(executor, BorrowedExecutor):
        return executor.result(future)
    while isinstance(executor, _Processes) and not future.done():
        wait((future,), GLANCE)
        executor.check()
    try:
        return future.result()
    except BrokenExecutor:
        raise _lost(executor) from None


def _lost(executor: Executor) -> WorkerLost:
    """Return the error of a process that ended unexpectedly."""
    if isinstance(executor, _Processes) and not executor.any_was_ready():
        return WorkerLost(
            f"a worker process ended before it was ready; {GUARD_HINT}. Otherwise the cause is printed above"
        )
    return WorkerLost("a worker process ended unexpectedly: killed, or out of memory (fewer --workers need less)")
