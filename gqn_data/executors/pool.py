"""Workers: processes of our own, or an executor that was given; in any number with the same result.

Processes of our own are started afresh and gone with their parent. A given executor (threads, processes, a cluster)
is used and left as it is; its workers may be anywhere, so every task tells them what they need. Imports `errors`,
`stores`, `version`.
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
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from gqn_data.errors import ClusterError, WorkerLost
from gqn_data.io.paths import AnyPath
from gqn_data.version import VERSION

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

_LOOK_EVERY = 2.0  # seconds between looks at a cluster while a result is waited for
_AT_ONCE = 32  # tasks that an executor runs at once, where it does not tell
_AT_LEAST = 16  # tasks handed to an executor: a cluster that grows with its work must see some


def usable_cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def pool(workers: int, given: Executor | None = None, shared: Sequence[AnyPath] = ()) -> Iterator[Executor | None]:
    """An executor of that many processes; None for fewer than two: the caller does the work itself.

    The processes are spawned, not forked: a forked child inherits locks in whatever state they are in.
    When the block ends early, what has not begun is dropped and what runs is waited for.

    Args:
        workers: processes; without meaning where an executor is given.
        given: used instead, and not shut down.
        shared: what workers of a given one must see: files that are there.
    """
    if given is not None:
        lent = BorrowedExecutor(given, shared)
        try:
            yield lent
        finally:
            lent.drop()
        return
    if workers < 2:
        yield None
        return
    executor = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=start_worker)
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def defer_interrupts() -> Iterator[None]:
    """Ctrl-C waits until the block ends; processes that are started in it never see one.

    They inherit the mask, so that none is interrupted while it still imports. The handler is for this process: the
    system may hand the signal to another of its threads, and half a process would be started. Both would print
    tracebacks.
    """
    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if before is None or not main or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    held: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
        if held:
            signal.raise_signal(signal.SIGINT)


def start_worker() -> None:
    """Begins a process of ours: Ctrl-C is the parent's, and the end of the parent is its end."""
    # Ctrl-C reaches the whole process group; the parent decides what to do about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    # A worker of a killed parent would wait for work for ever, and could write after a rerun has begun.
    connection.wait([sentinel])
    os._exit(1)


class Cluster(Executor):
    """An executor whose workers come and go."""

    @abstractmethod
    def slots(self) -> int:
        """How many tasks it runs at once, now."""

    @abstractmethod
    def check(self) -> None:
        """Returns where there is hope that tasks will be done.

        Raises:
            WorkerLost: there is none any more.
        """


@dataclass(frozen=True, kw_only=True)
class Call:
    """One task on its way to a worker that may be anywhere.

    Attributes:
        version: of this package where the task was made.
        shared: files that the worker must see.
        number: no two calls have the same: Dask takes equal calls for one, and would hand out an error of before.
        payload: the function and its arguments, pickled; read only by a worker of the same version.
    """

    version: str
    shared: tuple[Path, ...]
    number: str
    payload: bytes


def run_call(call: Call) -> Any:
    """The result of a call; runs in the worker.

    Raises:
        ClusterError: the worker is of another version, or does not see what it must.
    """
    if call.version != VERSION:
        raise ClusterError(
            f"a worker on {platform.node()} has gqn-toolkit {VERSION}, here is {call.version}; "
            "install the same version on all of them"
        )
    for path in call.shared:
        if not _is_seen(path):
            raise ClusterError(
                f"a worker on {platform.node()} does not see {path}; source and data root must lie where all workers "
                "see them under the same path, on a shared file system, or in an object store (s3://, gs://, az://)"
            )
    function, arguments, keywords = pickle.loads(call.payload)  # noqa: S301  of our own client, as executors send tasks
    return function(*arguments, **keywords)


def _is_seen(path: Path) -> bool:
    try:
        path.stat()
    except OSError:
        return False
    return True


class BorrowedExecutor(Executor):
    """An executor that belongs to somebody else: it is used, and never shut down.

    Args:
        executor: of any kind.
        shared: files that its workers must see; objects in stores are seen from everywhere.
    """

    def __init__(self, executor: Executor, shared: Sequence[AnyPath] = ()) -> None:
        self._executor = executor
        self._shared = tuple(place.absolute() for place in shared if isinstance(place, Path))
        self._futures: set[Future[Any]] = set()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Hands a function of a module and its arguments to a worker."""
        payload = pickle.dumps((fn, args, kwargs))
        call = Call(version=VERSION, shared=self._shared, number=uuid.uuid4().hex, payload=payload)
        future: Future[T] = self._executor.submit(run_call, call)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return future

    @property
    def ahead(self) -> int:
        """How many tasks to hand over before the first result is waited for."""
        if isinstance(self._executor, Cluster):
            slots = self._executor.slots()
        else:
            told = getattr(self._executor, "_max_workers", None)  # as both executors of the standard library name it
            slots = told if isinstance(told, int) else _AT_ONCE
        return max(_AT_LEAST, 2 * slots)

    def check(self) -> None:
        """Returns where there is hope that tasks will be done.

        Raises:
            WorkerLost: it is a cluster that had no worker for too long.
        """
        if isinstance(self._executor, Cluster):
            self._executor.check()

    def result(self, future: Future[R]) -> R:
        """The result of a task.

        Raises:
            ClusterError: the workers do not have this package.
            WorkerLost: a worker ended without a word, or the executor itself did.
        """
        while not future.done():  # `wait` itself does not see what an executor cancels when it is shut down
            wait((future,), _LOOK_EVERY)
            self.check()
        try:
            return future.result()
        except CancelledError as error:
            raise WorkerLost(
                f"the executor has dropped a task: it was shut down, or cannot be reached; {_AGAIN}"
            ) from error
        except BrokenExecutor as error:
            raise WorkerLost(
                f"a worker of the executor ended without a word: killed, or out of memory; {_AGAIN}"
            ) from error
        except Exception as error:
            if _is_without_us(error):
                raise ClusterError(
                    f"the scheduler or a worker does not have this package; install gqn-toolkit {VERSION}, as here"
                ) from error
            if not type(error).__module__.startswith("distributed."):
                raise
            said = str(error).split("\n", 1)[0]
            # What breaks while a result is fetched comes with the task, before the client notices that it is alone.
            what = "the connection to the cluster was lost" if isinstance(error, OSError) else "a task was given up"
            raise WorkerLost(f"{what}: {said}; {_AGAIN}") from error

    def drop(self) -> None:
        """Takes back what has not begun, and waits for what runs, as far as the executor tells."""
        left = list(self._futures)
        for future in left:
            future.cancel()
        wait(future for future in left if not future.cancelled())


def _is_without_us(error: BaseException) -> bool:
    """Whether an error says that this package is not there; Dask's scheduler says so of its own."""
    missing = error if isinstance(error, ModuleNotFoundError) else error.__cause__
    return isinstance(missing, ModuleNotFoundError) and (missing.name or "").startswith("gqn_data")


_AGAIN = "what is whole was kept; run the same command again to go on"


def map_in_order(executor: Executor | None, function: Callable[[T], R], tasks: Iterable[T], ahead: int) -> Iterator[R]:
    """The result of `function` for each task, in the order of the tasks.

    At most `ahead` tasks are under way or waiting to be taken, so memory does not grow with their number. An executor
    that was lent is asked itself, again and again: clusters grow.

    Raises:
        WorkerLost: a worker process ended without a word.
        ClusterError: the workers of a lent executor cannot do the work.
    """
    if executor is None:
        yield from map(function, tasks)
        return
    waiting: deque[Future[R]] = deque()
    for task in tasks:
        waiting.append(hand_over(executor, function, task))
        while len(waiting) >= max_pending(executor, ahead):
            yield result_of(executor, waiting.popleft())
    while waiting:
        yield result_of(executor, waiting.popleft())


_LOST = (
    "a worker process ended without a word: killed, or out of memory (fewer --workers need less of it); or "
    'a script that calls this lacks `if __name__ == "__main__":` around the call, which spawned workers need'
)


def hand_over(executor: Executor, function: Callable[[T], R], task: T) -> Future[R]:
    """Gives a task to an executor of `pool`.

    Raises:
        WorkerLost: a worker process has ended without a word before.
    """
    with defer_interrupts():
        try:
            return executor.submit(function, task)
        except BrokenExecutor as error:  # known to the executor before anybody asked for a result
            raise WorkerLost(_LOST) from error


def max_pending(executor: Executor | None, otherwise: int) -> int:
    """How many tasks to give to an executor of `pool` before the first result is waited for."""
    return executor.ahead if isinstance(executor, BorrowedExecutor) else otherwise


def check_workers(executor: Executor | None) -> None:
    """Returns where there is hope that an executor of `pool` does its tasks; asked by who waits without `result_of`.

    Raises:
        WorkerLost: it is a cluster that had no worker for too long.
    """
    if isinstance(executor, BorrowedExecutor):
        executor.check()


def result_of(executor: Executor, future: Future[R]) -> R:
    """The result of a task that was handed over to an executor of `pool`; waits for it.

    Raises:
        WorkerLost: a worker process ended without a word.
        ClusterError: the workers of a lent executor cannot do the work.
    """
    if isinstance(executor, BorrowedExecutor):
        return executor.result(future)
    try:
        return future.result()
    except BrokenExecutor as error:
        raise WorkerLost(_LOST) from error
