"""Program one of whose worker processes is stopped (SIGSTOP), for tests that it still ends.

Arguments: which workers, `loader-fork`, `loader-spawn` or `pool`; and how the program ends, `close` (leaves the block),
`error` (raises in it), `exit` (calls sys.exit), `interrupt` (Ctrl-C during the wait for a result), `leave` (exits
during an iteration); then the dataset.
Prints "stopped" and the process id, and "closed" after the block.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading

import worker_tasks
from processes import stopped, wait_until

from gqn_data.executors.pool import map_in_order, open_pool
from gqn_data.loader import SceneLoader

left = []


@contextlib.contextmanager
def results_of(workers, path):
    """Yield endless results of two worker processes, after the first ones."""
    if workers == "pool":
        with open_pool(2) as executor:
            results = map_in_order(executor, worker_tasks.slowly, iter(int, 1), 4)
            next(results)
            yield results
            results.close()
    else:
        loader = SceneLoader(path, batch_size=2, workers=2, start=workers.removeprefix("loader-"))
        with contextlib.closing(loader):
            results = iter(loader)
            next(results)
            yield results


def main(workers, then, path):
    block = results_of(workers, path)
    with contextlib.ExitStack() as stack:
        results = stack.enter_context(block)
        if then == "leave":
            left.append((stack.pop_all(), results))  # as variables of a script are at its end
        child = min(multiprocessing.active_children(), key=lambda child: child.pid)
        os.kill(child.pid, signal.SIGSTOP)
        wait_until(lambda: stopped(child.pid))
        print("stopped", child.pid, flush=True)
        if then == "error":
            raise ZeroDivisionError
        if then == "exit":
            sys.exit(3)
        if then == "interrupt":
            threading.Timer(5, os.kill, (os.getpid(), signal.SIGINT)).start()
            for _ in results:
                pass
    print("closed", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
