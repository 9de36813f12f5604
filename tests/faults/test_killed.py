"""Killed at any moment (SIGKILL: nothing can be tidied up), the same command again ends with the same bytes.

Each try begins afresh, is killed once or more at random points, alone or with its workers, and is run to its end.
What is killed while it downloads, fills a cache or works on a cluster is in test_download.py, test_cache.py,
test_arriving.py and test_cluster.py of tests/data; training in tests/model.
"""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from jobs import JOBS, Bench, make_source
from processes import living, wait_until

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for workers in /proc")

QUICK = {"convert"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("killed"))


def killed_at_random(bench, root, chance, most, workers):
    """Starts the work, and kills it when some more files are there; whether it was killed before it ended."""
    process = bench.start(root, workers)
    enough = bench.count(root) + chance.randrange(most)
    wait_until(lambda: process.poll() is not None or bench.count(root) > enough)
    time.sleep(chance.random() * 0.03)
    if chance.random() < 0.5:
        process.send_signal(signal.SIGKILL)  # its workers end with it
    elif process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not living(process.pid))  # no worker outlives its parent
    return process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    "job", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name) for name in JOBS]
)
def test_what_was_killed_ends_with_the_same_bytes(job, source, tmp_path, s3, faults):
    bench = Bench(job, source, tmp_path, s3)
    whole = bench.new_root("whole")
    assert bench.finish(whole)[0] == 0
    expected = bench.files(whole)
    before = bench.count(bench.new_root("before"))
    tries = faults.tries(1)
    number, landed, wrong = 0, 0, []
    while landed < tries:  # a busy machine may let us look when all is done
        assert number < tries + 20, "the work was always done before it was killed"
        chance = random.Random(f"{job} {number}")
        workers = chance.randint(1, 2)
        root = bench.new_root(f"try{number}")
        most = max(1, len(expected) - before)
        kills = [killed_at_random(bench, root, chance, most, workers) for _ in range(chance.randint(1, 3))]
        landed += any(kills)
        status, said = bench.finish(root, workers)
        if status != 0 or bench.files(root) != expected:
            wrong.append(f"try {number}: exit {status}, {said}")
        number += 1
    assert not wrong, "\n".join(wrong)
    faults.record(
        f"killed: {job}",
        holds="a rerun ends with identical bytes and leaves no other files",
        tries=tries,
        survived=tries - len(wrong),
    )
