"""A Dask cluster as an executor: `--scheduler tcp://host:port`, and `DaskCluster(client)` in Python.

The only module that knows `distributed`, the extra `cluster`. Imports `errors`, `version`, `workers`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from gqn_data.errors import ClusterError, OptionError, WorkerLost
from gqn_data.executors.pool import Cluster
from gqn_data.version import VERSION

T = TypeVar("T")
P = ParamSpec("P")

PATIENCE = "GQN_WAIT_FOR_WORKERS"  # the environment variable, in seconds
_PATIENCE = 300.0
_ASK_EVERY = 2.0  # seconds
_ADDRESS = re.compile(r"(tcp|tls|ucx|wss?)://[^/]+:\d+/?")


class DaskCluster(Cluster):
    """A Dask cluster that runs our tasks. The client stays the caller's.

    Args:
        client: a `distributed.Client`, connected to the scheduler.
        patience: seconds to wait for a worker where there is none; None for `$GQN_WAIT_FOR_WORKERS`, else 300.
        log: called, a line at a time, when the cluster is waited for.

    Raises:
        ClusterError: a worker does not have this package in this version.
    """

    def __init__(
        self, client: Any, *, patience: float | None = None, log: Callable[[str], None] = lambda _: None
    ) -> None:
        self._client = client
        self._comm = client.scheduler_comm
        self._under_way: dict[Future[Any], Any] = {}
        self._patience = _patience() if patience is None else patience
        self._log = log
        self._slots = 0
        self._asked = -_ASK_EVERY
        self._since: float | None = None
        # Those that come later are asked with their first task; one without the package could not even read it.
        for worker, found in client.run(_version, on_error="return").items():
            if found != VERSION:
                raise ClusterError(
                    f"the worker {worker} has gqn-toolkit {found}, here is {VERSION}; "
                    "install the same version on scheduler, workers and here"
                    if isinstance(found, str)
                    else f"the worker {worker} does not have gqn-toolkit ({found}); install {VERSION}, as here"
                )

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Hands a task to the scheduler, which runs it again elsewhere when its worker is lost."""
        here: Future[T] = Future()
        # Impure: equal tasks are not the same task, or a run would be handed the error of the one before. Dask's own
        # executor (`get_executor`) is not used: a result that is lost with its worker while it is fetched, and made
        # again, comes out of it as "cannot unpack" (distributed 2026.8, `_cascade_future`).
        there = self._client.submit(partial(fn, *args, **kwargs), pure=False)
        self._under_way[here] = there
        here.add_done_callback(self._let_go)
        self._client.loop.add_callback(_hand_on, there, here)
        return here

    def _let_go(self, here: Future[Any]) -> None:
        # Dask keeps a result, and makes it again when its worker is lost, for as long as its own future lives.
        there = self._under_way.pop(here)
        if here.cancelled():
            with contextlib.suppress(Exception):  # of a client that is closed
                there.cancel()

    def slots(self) -> int:
        """The threads of all workers that are there now."""
        now = time.monotonic()
        if now - self._asked >= _ASK_EVERY:
            # A scheduler that is gone has dropped all tasks, whose results say so; the client is left without one.
            with contextlib.suppress(OSError, AttributeError):
                if self._client.status == "running":
                    self._slots = sum(self._client.nthreads().values())
            self._asked = now
        return self._slots

    def check(self) -> None:
        """Returns where there is a worker, or hope for one.

        Raises:
            WorkerLost: there was none for longer than the patience, or the scheduler is gone.
        """
        # Dask drops all tasks when the connection is lost, but not every future hears of it.
        if self._client.status != "running" or self._client.scheduler_comm is not self._comm:
            raise WorkerLost(
                "the connection to the scheduler was lost; what is whole was kept: "
                "start a scheduler and workers, and run the same command again"
            )
        now = time.monotonic()
        if self.slots():
            self._since = None
            return
        if self._since is None:
            self._since = now
            self._log(
                f"{self._client.scheduler.address}: no workers; waiting for one, {self._patience:g} s at the most"
            )
        if now - self._since > self._patience:
            raise WorkerLost(
                f"{self._client.scheduler.address}: no worker for {self._patience:g} s ({PATIENCE}); look at their "
                "logs (one without gqn-toolkit ends at its first task), start others, and run the same command again: "
                "what is whole was kept"
            )


def _version() -> str:
    """This package's version; runs in the workers."""
    return VERSION


async def _hand_on(there: Any, here: Future[Any]) -> None:
    """Waits for Dask's future, and gives what became of it to another; runs in the client's event loop."""
    try:
        result = await there
    except Exception as error:  # noqa: BLE001  whatever a task raises, and Dask's own
        if here.set_running_or_notify_cancel():
            here.set_exception(error)
    else:
        if here.set_running_or_notify_cancel():
            here.set_result(result)


def _patience() -> float:
    text = os.environ.get(PATIENCE, "")
    try:
        return float(text) if text else _PATIENCE
    except ValueError as error:
        raise OptionError(f"{PATIENCE} is {text!r}, expected seconds") from error


@contextlib.contextmanager
def connect(scheduler: str, log: Callable[[str], None] = lambda _: None) -> Iterator[DaskCluster]:
    """The cluster of a scheduler, as the commands name it.

    Args:
        scheduler: `tcp://host:port`, or the path of a scheduler file, as Dask's own commands write it.
        log: called, a line at a time, when the cluster is waited for.

    Raises:
        OptionError: neither an address nor a file.
        ClusterError: Dask is absent, the scheduler cannot be reached, or workers are of another version.
    """
    where: dict[str, Any] = {"address": scheduler}
    if Path(scheduler).is_file():
        where = {"scheduler_file": scheduler}
    elif not _ADDRESS.fullmatch(scheduler):
        raise OptionError(f"the scheduler is {scheduler!r}, expected tcp://host:port, or the path of a scheduler file")
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise ClusterError(
            f"--scheduler needs Dask, which is not installed ({error.name}): pip install 'gqn-toolkit[cluster]'"
        ) from error
    with _quiet():
        try:
            client: Any = Client(**where, set_as_default=False)  # type: ignore[no-untyped-call]
        except OSError as error:
            said = str(error).split("\n", 1)[0]
            raise ClusterError(
                f"{scheduler}: no Dask scheduler answers there ({said}); start one with: dask scheduler"
            ) from error
        try:
            yield DaskCluster(client, log=log)
        finally:
            client.close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Dask's client from printing what it sees of a lost connection: our error says so in a line."""
    names = ("distributed", "distributed.client", "tornado.application")
    levels = {log: log.level for log in map(logging.getLogger, names)}
    try:
        for log in levels:
            log.setLevel(logging.CRITICAL)
        yield
    finally:
        for log, level in levels.items():
            log.setLevel(level)
