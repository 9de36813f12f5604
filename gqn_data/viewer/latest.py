"""One thread of work for all browsers, in which a newer request replaces an older one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)


class Latest(Generic[_Key]):
    """Run the newest piece of work of each key; keys take turns in the order in which they asked.

    Work that was not started when a newer piece of the same key arrived is dropped, so that nothing queues up however
    fast requests arrive.

    Args:
        failed: called in the thread with the key and an exception of its work.
    """

    def __init__(self, failed: Callable[[_Key, Exception], None]) -> None:
        self._failed = failed
        self._pending: dict[_Key, Callable[[], None]] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="viewer", daemon=True)
        self._thread.start()

    def post(self, key: _Key, work: Callable[[], None]) -> None:
        """Ask for work, in place of the pending work of the same key."""
        with self._changed:
            self._pending[key] = work  # a key that is pending keeps its turn
            self._changed.notify()

    def forget(self, keys: Callable[[_Key], bool]) -> None:
        """Drop the pending work of the keys for which `keys` is true."""
        with self._changed:
            for key in [key for key in self._pending if keys(key)]:
                del self._pending[key]

    def close(self) -> None:
        """Drop pending work, and wait a few seconds for the running one."""
        with self._changed:
            self._closed = True
            self._pending.clear()
            self._changed.notify()
        self._thread.join(5)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._pending and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                key = next(iter(self._pending))
                work = self._pending.pop(key)
            try:
                work()
            except Exception as error:  # noqa: BLE001  the thread serves every browser; `failed` shows the error
                self._failed(key, error)
