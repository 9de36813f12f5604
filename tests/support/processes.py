"""Child processes of tests, and their children."""

import contextlib
import gc
import multiprocessing
import time
from pathlib import Path

# Children alive at the start of a test: those of other tests in this process, and of fixtures.
_others = set()


@contextlib.contextmanager
def no_child_is_left():
    """Fail if a child process outlives the block."""
    gc.collect()  # garbage of earlier tests must not be collected during this one
    _others.clear()
    _others.update(multiprocessing.active_children())
    yield
    gc.collect()
    assert not own_children()


def own_children():
    """Return the running children that the block has started."""
    return set(multiprocessing.active_children()) - _others


def living(group):
    """Return the ids of the running processes of a process group, without zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of = path.read_text().rsplit(")", 1)[1].split()[:3]
        except OSError:
            continue
        if int(of) == group and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def workers_of(group):
    """Return the ids of the spawned worker processes of a process group, including ones that are still importing."""
    found = []
    for number in living(group):
        try:
            if b"spawn_main" in Path(f"/proc/{number}/cmdline").read_bytes():
                found.append(number)
        except OSError:
            continue
    return found


def named_memory(process):
    """Return the named shared memory that a process has mapped or open, and that could outlive it."""
    folder = Path(f"/proc/{process}")
    found = [line for line in (folder / "maps").read_text().splitlines() if "/dev/shm/" in line]
    for number in (folder / "fd").iterdir():
        try:
            found.append(str(number.readlink()))
        except OSError:
            continue
    return [line for line in found if "/dev/shm/" in line and not line.endswith("(deleted)")]


def wait_until(condition, seconds=120):
    """Wait for a condition. The timeout is long enough that only a hang exceeds it."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def stopped(process):
    """Return whether a process is stopped by a signal."""
    return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
