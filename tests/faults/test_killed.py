"""Jobs killed at any moment (SIGKILL: no cleanup) end with the same bytes when they are run again.

Each try starts from an empty root, is killed once or more at random points, with or without its workers, and is then
run to completion. Kills of downloads, cache, Dask clusters and job arrays are tested in tests/data/download, cache,
convert and executors; kills of trainings in tests/model.
"""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from jobs import JOBS, Bench, make_source
from processes import living, wait_until

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds workers by /proc")

QUICK = {"convert"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("killed"))


def kill_at_random(bench, root, chance, max_files, workers):
    """Start the job and kill it after some more files; return whether it was killed before it ended."""
    process = bench.start(root, workers)
    enough = bench.count(root) + chance.randrange(max_files)
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
def test_a_killed_job_ends_with_the_same_bytes(job, source, tmp_path, s3, faults):
    bench = Bench(job, source, tmp_path, s3)
    whole = bench.new_root("whole")
    assert bench.finish(whole)[0] == 0
    expected = bench.files(whole)
    before = bench.count(bench.new_root("before"))
    tries = faults.tries(1)
    number, landed, wrong = 0, 0, []
    while landed < tries:  # on a busy machine the job may end before the kill
        assert number < tries + 20, "the job always ended before it was killed"
        chance = random.Random(f"{job} {number}")
        workers = chance.randint(1, 2)
        root = bench.new_root(f"try{number}")
        max_files = max(1, len(expected) - before)
        kills = [kill_at_random(bench, root, chance, max_files, workers) for _ in range(chance.randint(1, 3))]
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
