"""Leases: one writer per folder of a store, and takeover after a killed run."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest
from processes import wait_until

from gqn_data.errors import DestinationError
from gqn_data.io import atomic, lease
from gqn_data.io.paths import parse_path


def hold(lock, **holder):
    lock.put(json.dumps({"host": "elsewhere", "process": 1, "started": "1", "count": 0, **holder}).encode())


def test_a_lease_is_released_when_the_block_ends(s3):
    folder = parse_path(s3) / "work"
    with atomic.exclusive_writer(folder):
        assert (folder / ".lock").exists()
    assert not (folder / ".lock").exists()
    with pytest.raises(ZeroDivisionError), atomic.exclusive_writer(folder):
        raise ZeroDivisionError
    assert not (folder / ".lock").exists()


def test_a_second_writer_on_this_machine_is_refused_at_once(s3):
    folder = parse_path(s3) / "work"
    with (
        atomic.exclusive_writer(folder),
        pytest.raises(DestinationError, match=f"process {os.getpid()}"),
        atomic.exclusive_writer(folder),
    ):
        pass
    assert not (folder / ".lock").exists()


def test_the_lease_of_a_killed_run_is_taken_over(s3):
    folder = parse_path(s3) / "work"
    code = (
        "import sys, time; from gqn_data.io import atomic; from gqn_data.io.paths import parse_path\n"
        "with atomic.exclusive_writer(parse_path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        process.kill()
    assert (folder / ".lock").exists()
    with atomic.exclusive_writer(folder):
        pass
    assert not (folder / ".lock").exists()


def test_the_lease_of_another_machine_is_taken_over_when_it_expires(s3, monkeypatch):
    monkeypatch.setattr(lease, "EXPIRES_AFTER", 0.3)
    monkeypatch.setattr(lease, "_POLL_INTERVAL", 0.05)
    folder = parse_path(s3) / "work"
    hold(folder / ".lock")
    with atomic.exclusive_writer(folder):
        assert json.loads((folder / ".lock").read_bytes())["process"] == os.getpid()


def test_a_lease_that_another_machine_renews_is_respected(s3, monkeypatch):
    folder = parse_path(s3) / "work"
    hold(folder / ".lock")
    count = iter(range(1, 100))
    monkeypatch.setattr(lease.time, "sleep", lambda _: hold(folder / ".lock", count=next(count)))
    with pytest.raises(DestinationError, match="elsewhere"), atomic.exclusive_writer(folder):
        pass
    assert json.loads((folder / ".lock").read_bytes())["host"] == "elsewhere"


def test_a_lease_is_renewed_while_it_is_held(s3, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_INTERVAL", 0.02)
    folder = parse_path(s3) / "work"
    with atomic.exclusive_writer(folder):
        end = time.monotonic() + 60
        while json.loads((folder / ".lock").read_bytes())["count"] < 2:
            assert time.monotonic() < end, "never renewed"


def test_a_lost_lease_is_reported_and_left_to_the_other_run(s3, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_INTERVAL", 0.02)
    folder = parse_path(s3) / "work"

    def be_overtaken():
        others = set(threading.enumerate())
        with atomic.exclusive_writer(folder):
            hold(folder / ".lock")
            wait_until(lambda: set(threading.enumerate()) <= others)  # the renewing thread has noticed and ended

    with pytest.raises(DestinationError, match=str(folder)):
        be_overtaken()
    assert json.loads((folder / ".lock").read_bytes())["host"] == "elsewhere"


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"\xff", b'{"process": "1"}'])
def test_an_invalid_lease_expires(s3, monkeypatch, text):
    monkeypatch.setattr(lease, "EXPIRES_AFTER", 0.2)
    monkeypatch.setattr(lease, "_POLL_INTERVAL", 0.05)
    (parse_path(s3) / "work/.lock").put(text)
    with atomic.exclusive_writer(parse_path(s3) / "work"):
        pass
