"""Work in which the newest request wins, without sleeping: the tests hold the thread at gates of their own."""

import threading

import pytest

from gqn_data.viewer.latest import Latest


class Gate:
    """Work that waits until it is opened, so that requests arrive meanwhile."""

    def __init__(self):
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self):
        self.entered.set()
        assert self.open.wait(10)


@pytest.fixture
def failures():
    return []


@pytest.fixture
def worker(failures):
    worker = Latest(lambda key, error: failures.append((key, error)))
    yield worker
    worker.close()


def held(worker, key="gate"):
    gate = Gate()
    worker.post(key, gate)
    assert gate.entered.wait(10)
    return gate


def finish(worker, gate):
    """Open the gate, and wait until all work that is pending now has run."""
    done = threading.Event()
    worker.post("last", done.set)
    gate.open.set()
    assert done.wait(10)


def test_only_the_newest_request_of_a_key_runs(worker):
    ran = []
    gate = held(worker)
    for number in range(100):
        worker.post("query", lambda number=number: ran.append(number))
    finish(worker, gate)
    assert ran == [99]


def test_keys_take_turns_and_a_busy_one_does_not_starve_others(worker):
    ran = []
    gate = held(worker)
    for number in range(5):
        worker.post("a", lambda number=number: ran.append(("a", number)))
        worker.post("b", lambda number=number: ran.append(("b", number)))
    worker.post("c", lambda: ran.append(("c", 0)))
    finish(worker, gate)
    assert ran == [("a", 4), ("b", 4), ("c", 0)]


def test_a_request_that_arrives_during_its_own_work_runs_afterwards(worker):
    ran = []
    gate = held(worker, "query")
    worker.post("query", lambda: ran.append("newer"))
    finish(worker, gate)
    assert ran == ["newer"]


def test_an_error_is_reported_and_the_thread_survives(worker, failures):
    gate = held(worker)
    error = ValueError("broken")

    def fail():
        raise error

    worker.post("query", fail)
    finish(worker, gate)
    assert failures == [("query", error)]


def test_forgotten_keys_do_not_run(worker):
    ran = []
    gate = held(worker)
    worker.post((1, "query"), lambda: ran.append(1))
    worker.post((2, "query"), lambda: ran.append(2))
    worker.forget(lambda key: key[0] == 1)
    finish(worker, gate)
    assert ran == [2]


def test_close_drops_pending_work_and_waits_for_the_running_one(worker):
    ran = []
    gate = held(worker)
    worker.post("query", lambda: ran.append(1))
    threading.Timer(0.05, gate.open.set).start()
    worker.close()
    assert gate.open.is_set()
    assert not ran
