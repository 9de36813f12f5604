"""The same command twice in one folder: the second run is refused with an error, the first ends unaffected.

The first run is stopped (SIGSTOP) after its first bytes, so that the second surely meets it.
"""

import fcntl
import os
import signal

import pytest
from jobs import JOBS, Bench, make_source
from processes import wait_until

from gqn_data.io.paths import StorePath

QUICK = {"convert"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("twice"))


def is_held(root, files):
    """Return whether any process holds a lock below a root."""
    locks = [name for name in files if name.endswith(".lock")]
    if isinstance(root, StorePath):
        return bool(locks)  # a lease is held as soon as it exists
    for name in locks:
        with (root / name).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
    return False


@pytest.mark.parametrize(
    "job", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name) for name in JOBS]
)
def test_the_second_of_two_at_once_is_refused(job, source, tmp_path, s3, faults):
    bench = Bench(job, source, tmp_path, s3)
    whole = bench.new_root("whole")
    assert bench.finish(whole)[0] == 0
    expected = bench.files(whole)
    tries = faults.tries(1, full=5)
    wrong, met, begun = [], 0, 0
    while met < tries:
        begun += 1
        assert begun < tries + 20, "the first run always ended before the second began"
        root = bench.new_root(f"try{begun}")
        before = bench.count(root)
        with bench.start(root) as first:
            wait_until(lambda: bench.count(root) > before or first.poll() is not None)  # noqa: B023
            if first.poll() is not None:
                continue
            first.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)  # until it stops or ends
            before_second = bench.files(root)
            if not is_held(root, before_second):  # the lock is not held yet, or not any more
                first.send_signal(signal.SIGCONT)
                continue
            status, said = bench.finish(root)
            left = bench.files(root)
            first.send_signal(signal.SIGCONT)
            _, last_words = first.communicate(timeout=300)
        met += 1
        is_refused = said.startswith("DestinationError: ") and "\n" not in said.strip()
        if status != 1 or not is_refused or left != before_second:
            wrong.append(f"try {begun}: the second ended with {status}: {said}")
        if first.returncode != 0 or bench.files(root) != expected:
            wrong.append(f"try {begun}: the first ended with {first.returncode}: {last_words.decode()}")
    assert not wrong, "\n".join(wrong)
    faults.record(
        f"two at once: {job}",
        holds="the second is refused with a message and changes nothing; the first ends as usual",
        tries=tries,
        survived=tries - len(wrong),
    )
