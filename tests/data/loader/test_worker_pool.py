"""Spawned workers return results in order and errors unchanged, and leave nothing behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pool_tasks
import pytest
from processes import living, wait_until

from gqn_data.errors import WorkerLost
from gqn_data.loader.worker_pool import WorkerPool

SUPPORT = Path(__file__).resolve().parents[2] / "support"


@pytest.fixture(autouse=True)
def _no_process_is_left():
    before = set(multiprocessing.active_children())
    yield
    assert set(multiprocessing.active_children()) <= before


def test_results_come_in_the_order_of_the_tasks_from_all_workers():
    with WorkerPool(pool_tasks.square, 2) as workers:
        assert list(workers.in_order(iter(range(20)), 2)) == [number**2 for number in range(20)]
        assert list(workers.in_order(iter(()), 2)) == []
    with WorkerPool(pool_tasks.process_and, 2) as workers:
        assert len({process for _, process in workers.in_order(iter(range(6)), 2)} - {os.getpid()}) == 2


def test_tasks_are_taken_at_most_ahead_per_worker():
    taken = []
    tasks = (taken.append(number) or number for number in range(1000))
    with WorkerPool(pool_tasks.square, 2) as workers:
        results = workers.in_order(tasks, 3)
        for number in range(4):
            assert next(results) == number**2
            assert len(taken) <= number + 6
        results.close()


def test_an_error_of_a_task_is_raised_in_its_turn():
    with WorkerPool(pool_tasks.fail_at_three, 2) as workers:
        results = workers.in_order(iter(range(9)), 2)
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(KeyError, match="three") as caught:
            next(results)
    assert "in fail_at_three" in caught.value.__notes__[0]


def test_an_error_that_cannot_be_pickled_is_still_reported():
    for make in (pool_tasks.fail_without_pickle, pool_tasks.fail_without_unpickle):
        with WorkerPool(make, 1) as workers, pytest.raises(RuntimeError, match="made for the test"):
            next(workers.in_order(iter(range(9)), 2))


def test_a_killed_worker_is_reported():
    with WorkerPool(pool_tasks.kill_at_two, 1) as workers:
        results = workers.in_order(iter(range(9)), 1)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(WorkerLost, match=r"ended by signal 9.*fewer workers"):
            next(results)


def test_workers_are_ended_in_the_middle_of_a_task():
    with WorkerPool(pool_tasks.sleep_long, 2) as workers:
        results = workers.in_order(iter(range(9)), 1)
        workers_of_it = [worker.process for worker in workers._workers]
        del results
        assert all(process.is_alive() for process in workers_of_it)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("whole_group", [False, True])
def test_workers_end_with_a_killed_parent_and_leave_no_name(whole_group):
    program = (
        "import pool_tasks; from gqn_data.loader.worker_pool import WorkerPool\n"
        "if __name__ == '__main__':\n"
        "    with WorkerPool(pool_tasks.sleep_long, 2) as workers:\n"
        "        print('begun', flush=True); next(workers.in_order(iter(range(9)), 2))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), str(SUPPORT.parents[1])])}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, start_new_session=True
    ) as parent:
        assert parent.stdout.readline() == b"begun\n"
        time.sleep(0.5)
        for number in living(parent.pid):
            maps = Path(f"/proc/{number}/maps").read_text().splitlines()
            assert not [line for line in maps if "/dev/shm/" in line and not line.endswith("(deleted)")]
        if whole_group:
            os.killpg(parent.pid, signal.SIGKILL)
        else:
            parent.kill()
        parent.wait()
        wait_until(lambda: not living(parent.pid), 60)
