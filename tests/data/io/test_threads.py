"""Threads that wait for servers: what they were given is done, or dropped, and nobody waits for one that hangs."""

import threading
import time

import pytest

from gqn_data.io import threads as module
from gqn_data.io.threads import DaemonThreadPool


@pytest.mark.parametrize("count", [1, 3])
def test_every_task_is_done_and_begun_in_order(count):
    begun = []

    def task(number):
        begun.append(number)
        return number * number

    with DaemonThreadPool(count) as threads:
        futures = [threads.submit(task, number) for number in range(20)]
    assert [future.result() for future in futures] == [number * number for number in range(20)]
    if count == 1:
        assert begun == list(range(20))


def test_what_goes_wrong_is_raised_where_the_result_is_asked_for():
    with DaemonThreadPool(1) as threads:
        bad, good = threads.submit(int, "x"), threads.submit(int, "7")
        with pytest.raises(ValueError, match="'x'"):
            bad.result()
        assert good.result() == 7


def interrupted(count, task, tasks, ready=lambda: None):
    """A block that hands tasks over and is interrupted; the threads, and what the tasks became."""
    futures = []
    try:
        with DaemonThreadPool(count) as threads:
            futures += [threads.submit(task, threads.stop) for _ in range(tasks)]
            ready()
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        return threads, futures


def test_a_block_that_fails_drops_what_has_not_begun_and_tells_what_has():
    started, seen = threading.Event(), []

    def task(stop):
        started.set()
        seen.append(stop.wait(100))

    _, (first, second) = interrupted(1, task, 2, started.wait)
    first.result(100)
    assert seen == [True]
    assert second.cancelled()


def test_nobody_waits_for_a_thread_that_hangs(monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    let_go, begun = threading.Event(), time.monotonic()
    threads, _ = interrupted(3, lambda _: let_go.wait(100), 3)
    assert time.monotonic() - begun < 50
    assert all(thread.daemon for thread in threads._threads)
    let_go.set()
