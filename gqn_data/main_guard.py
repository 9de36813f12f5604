"""The guard `if __name__ == "__main__":`, which a script needs around a call that spawns worker processes.

A spawned process imports the script first. Without the guard it runs the script again, up to the same call.
"""

from __future__ import annotations

import multiprocessing
import os

from gqn_data.errors import OptionError

WORKER_NAME = "gqn-worker"  # of our processes; known before they import the script
GUARD_HINT = (
    'put the calls of the script below `if __name__ == "__main__":`, since each worker process imports it first'
)


def end_unguarded_worker() -> None:
    """End this process if it is a worker of ours that runs the script again; its parent says why."""
    if _imports_script() and multiprocessing.current_process().name == WORKER_NAME:
        os._exit(1)  # not an exception: the script's handlers and clean-up must not run twice


def check_main_guard() -> None:
    """Raise if this is a spawned process that imports the script; end it if it is ours.

    Raises:
        OptionError: another process pool runs the script again.
    """
    end_unguarded_worker()
    if _imports_script():
        raise OptionError(f"found a call that starts processes while a new process imports the script; {GUARD_HINT}")


def _imports_script() -> bool:
    # multiprocessing itself refuses to start processes by this attribute.
    return bool(getattr(multiprocessing.current_process(), "_inheriting", False))
