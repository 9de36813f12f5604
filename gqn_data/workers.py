"""Worker processes: started afresh, gone with their parent, in any number with the same result.

Imports `errors`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import TypeVar

from gqn_data.errors import WorkerLost

T = TypeVar("T")
R = TypeVar("R")


def usable_cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def pool(workers: int) -> Iterator[Executor | None]:
    """An executor of that many processes; None for fewer than two: the caller does the work itself.

    The processes are spawned, not forked: a forked child inherits locks in whatever state they are in.
    When the block ends early, what has not begun is dropped and what runs is waited for.
    """
    if workers < 2:
        yield None
        return
    executor = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
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


def _start_worker() -> None:
    # Ctrl-C reaches the whole process group; the parent decides what to do about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    # A worker of a killed parent would wait for work for ever, and could write after a rerun has begun.
    connection.wait([sentinel])
    os._exit(1)


def map_in_order(executor: Executor | None, function: Callable[[T], R], tasks: Iterable[T], ahead: int) -> Iterator[R]:
    """The result of `function` for each task, in the order of the tasks.

    At most `ahead` tasks are under way or waiting to be taken, so memory does not grow with their number.

    Raises:
        WorkerLost: a worker process ended without a word.
    """
    if executor is None:
        yield from map(function, tasks)
        return
    waiting: deque[Future[R]] = deque()
    for task in tasks:
        with _interrupts_held_back():
            waiting.append(executor.submit(function, task))
        if len(waiting) >= ahead:
            yield _result(waiting.popleft())
    while waiting:
        yield _result(waiting.popleft())


def _result(future: Future[R]) -> R:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise WorkerLost(
            "a worker process ended without a word: killed, or out of memory (fewer --workers need less of it); or "
            'a script that calls this lacks `if __name__ == "__main__":` around the call, which spawned workers need'
        ) from error
