"""Daemon thread pool: a hung request never blocks the exit of the process.

`concurrent.futures` joins its threads at exit, so a stalled server would keep the process alive.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, Self, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_JOIN_TIMEOUT = 2.0  # seconds for running tasks to notice `stop` after a failure


class DaemonThreadPool:
    """Pool of daemon threads, used as a context manager.

    On success, leaving the block waits for all tasks. If the block fails, pending tasks are cancelled and running
    ones get 2 seconds to end.

    Args:
        count: number of threads.

    Attributes:
        stop: event that is set if the block fails; long tasks should poll it.
    """

    def __init__(self, count: int) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.stop.set()
        for _thread in self._threads:
            self._tasks.put(None)
        end = time.monotonic() + _JOIN_TIMEOUT
        for thread in self._threads:
            thread.join(None if kind is None else max(0.0, end - time.monotonic()))

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Schedule a call. Tasks start in the order of submission."""
        future: Future[R] = Future()

        def task() -> None:
            if self.stop.is_set() or not future.set_running_or_notify_cancel():
                future.cancel()
                return
            try:
                result = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001  `Future.result` raises it
                future.set_exception(error)
            else:
                future.set_result(result)

        self._tasks.put(task)
        return future

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
