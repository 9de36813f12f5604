"""Daemon thread pool: tasks are completed or cancelled, and a hung one never blocks."""

import threading
import time

import pytest

from gqn_data.io import threads as module
from gqn_data.io.threads import DaemonThreadPool


@pytest.mark.parametrize("count", [1, 3])
def test_all_tasks_run_and_start_in_order(count):
    begun = []

    def task(number):
        begun.append(number)
        return number * number

    with DaemonThreadPool(count) as threads:
        futures = [threads.submit(task, number) for number in range(20)]
    assert [future.result() for future in futures] == [number * number for number in range(20)]
    if count == 1:
        assert begun == list(range(20))


def test_an_error_is_raised_by_the_result_of_its_task():
    with DaemonThreadPool(1) as threads:
        bad, good = threads.submit(int, "x"), threads.submit(int, "7")
        with pytest.raises(ValueError, match="'x'"):
            bad.result()
        assert good.result() == 7


def interrupted(count, task, tasks, ready=lambda: None):
    """Submit tasks in a block, interrupt it, and return the pool and the futures."""
    futures = []
    try:
        with DaemonThreadPool(count) as threads:
            futures += [threads.submit(task, threads.stop) for _ in range(tasks)]
            ready()
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        return threads, futures


def test_a_failed_block_cancels_pending_tasks_and_stops_running_ones():
    started, seen = threading.Event(), []

    def task(stop):
        started.set()
        seen.append(stop.wait(100))

    _, (first, second) = interrupted(1, task, 2, started.wait)
    first.result(100)
    assert seen == [True]
    assert second.cancelled()


def test_a_hung_thread_does_not_block_the_exit(monkeypatch):
    monkeypatch.setattr(module, "_JOIN_TIMEOUT", 0.05)
    release, start = threading.Event(), time.monotonic()
    threads, _ = interrupted(3, lambda _: release.wait(100), 3)
    assert time.monotonic() - start < 50
    assert all(thread.daemon for thread in threads._threads)
    release.set()
