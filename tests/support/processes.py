"""Processes that tests start, and those that these start."""

import contextlib
import gc
import multiprocessing
import time
from pathlib import Path

# Children that run when a test begins: of other tests in this process, of fixtures.
_others = set()


@contextlib.contextmanager
def no_child_is_left():
    """Fails where a child of ours outlives the block."""
    gc.collect()  # what an earlier test has left in a cycle ends now, and not in the middle of this one
    _others.clear()
    _others.update(multiprocessing.active_children())
    yield
    gc.collect()
    assert not own_children()


def own_children():
    """The children that the block has started, and that still run."""
    return set(multiprocessing.active_children()) - _others


def living(group):
    """The numbers of the processes of a process group that run; zombies wait to be buried and do not."""
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
    """Those of them that are worker processes, started and perhaps still importing."""
    found = []
    for number in living(group):
        try:
            if b"spawn_main" in Path(f"/proc/{number}/cmdline").read_bytes():
                found.append(number)
        except OSError:
            continue
    return found


def named_memory(process):
    """What a process has mapped or open of shared memory that has a name, and so could outlive it."""
    folder = Path(f"/proc/{process}")
    found = [line for line in (folder / "maps").read_text().splitlines() if "/dev/shm/" in line]
    for number in (folder / "fd").iterdir():
        try:
            found.append(str(number.readlink()))
        except OSError:
            continue
    return [line for line in found if "/dev/shm/" in line and not line.endswith("(deleted)")]


def wait_until(condition, seconds=120):
    """Waits for something that must come; only a hang takes so long that this fails."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)
