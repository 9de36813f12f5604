"""Dask cluster as an executor: `--scheduler tcp://host:port`, or `DaskCluster(client)` in Python.

This is the only module that imports `distributed` (extra `cluster`).
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

from gqn_data.errors import ClusterError, OptionError, WorkerLost, install_hint
from gqn_data.executors.pool import Cluster
from gqn_data.io.paths import local_path
from gqn_data.version import VERSION

T = TypeVar("T")
P = ParamSpec("P")

WAIT_ENV = "GQN_WAIT_FOR_WORKERS"  # environment variable: seconds to wait for a worker
_WAIT = 300.0  # seconds
_POLL = 2.0  # seconds
_ADDRESS = re.compile(r"(tcp|tls|ucx|wss?)://[^/]+:\d+/?")


class DaskCluster(Cluster):
    """Executor that runs tasks on a Dask cluster. The caller owns the client.

    Args:
        client: a connected `distributed.Client`.
        patience: seconds to wait while the cluster has zero workers; None for `$GQN_WAIT_FOR_WORKERS`, default 300.
        log: called with one line when the cluster has to be waited for.

    Raises:
        ClusterError: a worker does not have this version of the package.
    """

    def __init__(
        self, client: Any, *, patience: float | None = None, log: Callable[[str], None] = lambda _: None
    ) -> None:
        self._client = client
        self._comm = client.scheduler_comm
        self._pending: dict[Future[Any], Any] = {}  # our future -> Dask's
        self._patience = _wait_seconds() if patience is None else patience
        self._log = log
        self._slots = 0
        self._polled_at = -_POLL
        self._idle_since: float | None = None
        # Workers that join later are checked with their first task, which they cannot unpickle without the package.
        for worker, found in client.run(_version, on_error="return").items():
            if found != VERSION:
                raise ClusterError(
                    f"worker {worker}: gqn-toolkit {found}, expected {VERSION} as on this machine; "
                    "install the same version on the scheduler and all workers"
                    if isinstance(found, str)
                    else f"worker {worker}: gqn-toolkit is not installed ({found}); install version {VERSION}"
                )

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit a task to the scheduler, which reruns it elsewhere if its worker is lost."""
        future: Future[T] = Future()
        # Impure, or Dask would identify equal tasks and return the error of a previous run. Dask's `get_executor` is
        # not used: if a worker is lost while its result is fetched, the recomputed result fails with "cannot unpack"
        # (distributed 2026.8, `_cascade_future`).
        remote = self._client.submit(partial(fn, *args, **kwargs), pure=False)
        self._pending[future] = remote
        future.add_done_callback(self._release)
        self._client.loop.add_callback(_copy_result, remote, future)
        return future

    def _release(self, future: Future[Any]) -> None:
        # Dask keeps a result, and recomputes it if its worker is lost, for as long as its own future lives.
        remote = self._pending.pop(future)
        if future.cancelled():
            with contextlib.suppress(Exception):  # a closed client
                remote.cancel()

    def slots(self) -> int:
        """Return the number of threads of all current workers, at most `_POLL` seconds old."""
        now = time.monotonic()
        if now - self._polled_at >= _POLL:
            # A lost scheduler shows in the results of its tasks, so an error here is ignored.
            with contextlib.suppress(OSError, AttributeError):
                if self._client.status == "running":
                    self._slots = sum(self._client.nthreads().values())
            self._polled_at = now
        return self._slots

    def check(self) -> None:
        """Raise if the scheduler is lost, or if the cluster had zero workers for too long.

        Raises:
            WorkerLost: the scheduler is lost, or workers were missing for more than `patience` seconds.
        """
        # Dask drops all tasks when the connection is lost, but does not notify every future.
        if self._client.status != "running" or self._client.scheduler_comm is not self._comm:
            raise WorkerLost(
                "the connection to the scheduler was lost; finished files were kept: "
                "start a scheduler and workers, then rerun to resume"
            )
        now = time.monotonic()
        if self.slots():
            self._idle_since = None
            return
        if self._idle_since is None:
            self._idle_since = now
            self._log(f"{self._client.scheduler.address}: no workers; waiting up to {self._patience:g} s for one")
        if now - self._idle_since > self._patience:
            raise WorkerLost(
                f"{self._client.scheduler.address}: no worker for {self._patience:g} s ({WAIT_ENV}); finished files "
                "were kept: check the workers' logs (one without gqn-toolkit ends at its first task), start workers, "
                "then rerun to resume"
            )


def _version() -> str:
    """Return this package's version; runs in the workers."""
    return VERSION


async def _copy_result(remote: Any, future: Future[Any]) -> None:
    """Wait for Dask's future and copy its result or error to ours; runs in the client's event loop."""
    try:
        result = await remote
    except Exception as error:  # noqa: BLE001  any error of a task, or of Dask
        if future.set_running_or_notify_cancel():
            future.set_exception(error)
    else:
        if future.set_running_or_notify_cancel():
            future.set_result(result)


def _wait_seconds() -> float:
    """Return the seconds that `$GQN_WAIT_FOR_WORKERS` sets, or the default."""
    text = os.environ.get(WAIT_ENV, "")
    try:
        return float(text) if text else _WAIT
    except ValueError as error:
        raise OptionError(f"{WAIT_ENV} is {text!r}, expected seconds") from error


@contextlib.contextmanager
def connect(scheduler: str, log: Callable[[str], None] = lambda _: None) -> Iterator[DaskCluster]:
    """Connect to a Dask scheduler; yield its cluster as an executor.

    Args:
        scheduler: value of `--scheduler`: `tcp://host:port`, or the path of a scheduler file written by Dask.
        log: called with one line when the cluster has to be waited for.

    Raises:
        OptionError: `scheduler` is neither an address nor a file.
        ClusterError: Dask is not installed, the scheduler cannot be reached, or workers have another version.
    """
    target: dict[str, Any] = {"address": scheduler}
    if scheduler.startswith("~"):
        scheduler = str(local_path(scheduler, "a scheduler file lies"))
    if Path(scheduler).is_file():
        target = {"scheduler_file": scheduler}
    elif not _ADDRESS.fullmatch(scheduler):
        raise OptionError(f"the scheduler is {scheduler!r}, expected tcp://host:port or the path of a scheduler file")
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise ClusterError(
            f"--scheduler needs Dask, which is not installed ({error.name}). Install it with: {install_hint('cluster')}"
        ) from error
    with _silence_dask():
        try:
            client: Any = Client(**target, set_as_default=False)  # type: ignore[no-untyped-call]
        except OSError as error:
            reason = str(error).split("\n", 1)[0]
            raise ClusterError(
                f"{scheduler}: no Dask scheduler responds ({reason}); start one with: dask scheduler"
            ) from error
        try:
            yield DaskCluster(client, log=log)
        finally:
            client.close()


@contextlib.contextmanager
def _silence_dask() -> Iterator[None]:
    """Suppress the Dask client's log of a lost connection, which our one-line error reports."""
    names = ("distributed", "distributed.client", "tornado.application")
    levels = {log: log.level for log in map(logging.getLogger, names)}
    try:
        for log in levels:
            log.setLevel(logging.CRITICAL)
        yield
    finally:
        for log, level in levels.items():
            log.setLevel(level)
