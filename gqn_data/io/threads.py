"""Threads that wait for servers, and that nobody waits for: a process ends though one of them hangs.

`concurrent.futures` joins its threads when the process ends, which takes as long as a stalled server likes.
Imports nothing of the project.
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

_PATIENCE = 2.0  # seconds that threads which were told to stop get to see it


class DaemonThreadPool:
    """So many threads; a context manager that waits for all tasks, or, where the block fails, drops those not begun.

    Args:
        count: of threads.

    Attributes:
        stop: set where the block fails; tasks that take long look at it.
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
        end = time.monotonic() + _PATIENCE
        for thread in self._threads:
            thread.join(None if kind is None else max(0.0, end - time.monotonic()))

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Hands a task over; tasks begin in the order in which they come."""
        future: Future[R] = Future()

        def task() -> None:
            if self.stop.is_set() or not future.set_running_or_notify_cancel():
                future.cancel()
                return
            try:
                result = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001  it is raised where the result is asked for
                future.set_exception(error)
            else:
                future.set_result(result)

        self._tasks.put(task)
        return future

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
