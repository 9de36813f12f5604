"""Leases: exclusive writers in object stores, which lack locks.

A lease is an object that its holder rewrites every 15 seconds. The lease of a killed run is taken over: immediately
if the run was on this machine, otherwise after 60 seconds without renewal. Clocks of machines are never compared.
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

RENEW_INTERVAL = 15.0  # seconds
EXPIRES_AFTER = 60.0  # seconds without renewal
_POLL_INTERVAL = 2.0  # seconds
_MAX_BYTES = 4096


@contextlib.contextmanager
def lease(lock: StorePath, what: str) -> Iterator[None]:
    """Hold a lease until the block ends, renewed by a thread.

    Args:
        lock: object that represents the lease.
        what: folder being written, for the message.

    Raises:
        DestinationError: another run holds the lease, or took it over before the block ended.
        StoreError: a request failed, or the store does not support conditional writes.
    """
    holder = {**_this_process(), "count": 0}
    held = lock.create(_as_bytes(holder)) or _take_over(lock, holder, what)
    finished = threading.Event()
    lost: list[str] = []

    def renew() -> None:
        nonlocal held
        while not finished.wait(RENEW_INTERVAL):
            holder["count"] += 1
            try:
                renewed = lock.replace(_as_bytes(holder), held)
            except StoreError:
                continue  # the lease outlasts several failed renewals
            if renewed is None:
                lost.append("another run took it over")
                return
            held = renewed

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
        if not lost:
            lock.unlink(missing_ok=True)
    if lost:
        raise DestinationError(f"{what}: {lost[0]}, because this run did not renew its lease. Run the command again")


def _take_over(lock: StorePath, holder: dict[str, Any], what: str) -> Stat:
    """Take over the lease of a killed run; wait until it expires if the run was on another machine.

    Raises:
        DestinationError: the run that holds it is alive.
    """
    end = time.monotonic() + EXPIRES_AFTER
    seen: Stat | None = None
    while True:
        try:
            stat = lock.stat()
            other = _parse(lock.read_range(0, min(stat.st_size, _MAX_BYTES)))
        except FileNotFoundError:  # released meanwhile
            taken = lock.create(_as_bytes(holder))
        else:
            renewed = seen is not None and stat != seen
            if renewed or (other["host"] == holder["host"] and _is_alive(other)):
                raise DestinationError(
                    f"{what}: another run is writing there (process {other['process']} on {other['host']}). "
                    "Wait for it, or write elsewhere with --out"
                )
            seen = stat
            expired = other["host"] == holder["host"] or time.monotonic() > end
            taken = lock.replace(_as_bytes(holder), stat) if expired else None
        if taken is not None:
            return taken
        time.sleep(_POLL_INTERVAL)


def _this_process() -> dict[str, Any]:
    return {"host": platform.node(), "process": os.getpid(), "started": _started(os.getpid())}


def _started(process: int) -> str | None:
    """Return the start time of a local process in clock ticks since boot; None if it does not exist."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except OSError:
        return None


def _is_alive(other: dict[str, Any]) -> bool:
    if not Path("/proc/self/stat").exists():
        return True  # cannot be checked without /proc: the lease has to expire
    started = _started(other["process"])
    return started is not None and started == other["started"]


def _parse(data: bytes) -> dict[str, Any]:
    """Return the holder of a lease; an unknown holder if the object is invalid."""
    unknown = {"host": "?", "process": 0, "started": None}
    try:
        value = json.loads(data)
    except ValueError:
        return unknown
    if not isinstance(value, dict) or not isinstance(value.get("process"), int):
        return unknown
    return {**unknown, **value}


def _as_bytes(holder: dict[str, Any]) -> bytes:
    return json.dumps(holder).encode()
