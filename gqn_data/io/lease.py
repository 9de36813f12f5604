"""Leases: the sole writer of a folder in an object store, where there are no locks that the system lets go of.

A lease is an object that its holder writes anew every few seconds. One that is not renewed belongs to a run that was
killed, and is taken over: at once where the run was on this machine, else after a minute of watching. No clocks are
compared. Imports `errors`, `places`.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gqn_data.errors import DestinationError, StoreError
from gqn_data.io.paths import Stat, StorePath

RENEWED_EVERY = 15.0  # seconds
EXPIRES_AFTER = 60.0  # seconds without renewal
_POLL = 2.0


@contextlib.contextmanager
def lease(lock: StorePath, what: str) -> Iterator[None]:
    """Holds an object for this process until the block ends.

    Args:
        lock: the object.
        what: is being written; for the message.

    Raises:
        DestinationError: another run holds it; or, at the end, it was lost to another one.
        StoreError: the store cannot be asked, or cannot write on a condition.
    """
    holder = {**_this_process(), "count": 0}
    held = lock.create(_as_bytes(holder)) or _take_over(lock, holder, what)
    ended = threading.Event()
    lost: list[str] = []

    def renew() -> None:
        nonlocal held
        while not ended.wait(RENEWED_EVERY):
            holder["count"] += 1
            try:
                renewed = lock.replace(_as_bytes(holder), held)
            except StoreError:
                continue  # the next one may get through, and the lease lasts for several
            if renewed is None:
                lost.append("another run took it over")
                return
            held = renewed

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if not lost:
            lock.unlink(missing_ok=True)
    if lost:
        raise DestinationError(f"{what}: {lost[0]} while this one did not answer; run the command again")


def _take_over(lock: StorePath, holder: dict[str, Any], what: str) -> Stat:
    """The lease of a run that is no more.

    Raises:
        DestinationError: the run that holds it lives.
    """
    end = time.monotonic() + EXPIRES_AFTER
    seen: Stat | None = None
    while True:
        try:
            stat, other = lock.stat(), _parse(lock)
        except FileNotFoundError:  # let go of meanwhile
            taken = lock.create(_as_bytes(holder))
        else:
            renewed = seen is not None and stat != seen
            if renewed or (other["host"] == holder["host"] and _lives(other)):
                raise DestinationError(
                    f"{what}: another run is writing there (process {other['process']} on {other['host']}); "
                    "wait for it, or write elsewhere with --out"
                )
            seen = stat
            gone = other["host"] == holder["host"] or time.monotonic() > end
            taken = lock.replace(_as_bytes(holder), stat) if gone else None
        if taken is not None:
            return taken
        time.sleep(_POLL)


def _this_process() -> dict[str, Any]:
    return {"host": platform.node(), "process": os.getpid(), "started": _started(os.getpid())}


def _started(process: int) -> str | None:
    """When a process of this machine was started, in the system's own counting; None where there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except OSError:
        return None


def _lives(other: dict[str, Any]) -> bool:
    if not Path("/proc/self/stat").exists():
        return True  # no way to tell: watched until it expires
    started = _started(other["process"])
    return started is not None and started == other["started"]


def _parse(lock: StorePath) -> dict[str, Any]:
    """Who holds a lease; nobody we know where it does not say so."""
    unknown = {"host": "?", "process": 0, "started": None}
    try:
        value = json.loads(lock.read_bytes())
    except ValueError:
        return unknown
    if not isinstance(value, dict) or not isinstance(value.get("process"), int):
        return unknown
    return {**unknown, **value}


def _as_bytes(holder: dict[str, Any]) -> bytes:
    return json.dumps(holder).encode()
