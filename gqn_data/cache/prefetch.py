"""Prefetching: threads that fetch the files of the current window, then those of the next, into the cache.

They run in the process that consumes the batches. Workers find the files in the cache, or fetch missing ones
themselves. Prefetching never changes the content of a batch.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

from gqn_data.cache.shard_cache import ShardCache
from gqn_data.errors import FetchStopped, GQNError
from gqn_data.io.paths import StorePath
from gqn_data.sampling.permutation import Windows
from gqn_data.schema.manifest import FileRow, ShardRow

_THREADS = 4
_POLL = 0.2  # seconds between two checks for a file that another process fetches
_RETRY = 5.0  # seconds until a failed fetch is retried
_JOIN_TIMEOUT = 5.0  # seconds to wait for the threads to end; one blocked by a stalled server ends later


class Position(NamedTuple):
    """A position in an epoch."""

    epoch: int
    position: int


class WindowFetcher:
    """Fetches files before they are needed; a context manager.

    Args:
        cache: the cache to fill.
        folder: folder of the dataset.
        shards: shards of the split.
        windows: order of the shards.
        epochs: number of epochs; None for an endless stream.
    """

    def __init__(
        self, cache: ShardCache, folder: StorePath, shards: Sequence[ShardRow], windows: Windows, epochs: int | None
    ) -> None:
        self._cache = cache
        self._folder = folder
        self._shards = shards
        self._windows = windows
        self._epochs = epochs
        self._span: tuple[tuple[int, int], tuple[int, int]] | None = None
        self._queue: deque[FileRow] = deque()
        self._wanted: dict[str, FileRow] = {}
        self._to_pin: list[FileRow] | None = None
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, name="prefetch", daemon=True) for _ in range(_THREADS)]

    def __enter__(self) -> Self:
        self._pins = self._cache.directory.pins()
        atexit.register(self.close)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads and their transfers."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        deadline = time.monotonic() + _JOIN_TIMEOUT
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._pins.close()
        atexit.unregister(self.close)

    def need(self, first: Position, last: Position) -> None:
        """Set the range of positions in use, and queue the files of their windows.

        The window after them is queued too if only one is in use, so that at most two are needed at a time.

        Args:
            first: position of the batch that the consumer takes next.
            last: position of the last batch that the workers have been asked for.
        """
        span = self._window(first), self._window(last)
        if span == self._span:
            return
        self._span = span
        windows = [span[0]]
        while windows[-1] != span[1]:
            windows.append(self._next_window(windows[-1]))
        if len(windows) == 1 and (self._epochs is None or self._next_window(windows[0])[0] < self._epochs):
            windows.append(self._next_window(windows[0]))
        wanted = {row.name: row for epoch, window in windows for row in self._files(epoch, window)}
        with self._changed:
            self._wanted = wanted
            self._queue = deque(wanted.values())
            self._to_pin = [*wanted.values()]
            self._changed.notify_all()

    def _window(self, at: Position) -> tuple[int, int]:
        return at.epoch, self._windows.window_at(at.position, at.epoch)

    def _next_window(self, window: tuple[int, int]) -> tuple[int, int]:
        epoch, number = window
        return (epoch, number + 1) if number + 1 < self._windows.count else (epoch + 1, 0)

    def _files(self, epoch: int, window: int) -> Iterator[FileRow]:
        for shard in self._windows.shards_of(window, epoch).tolist():
            yield from self._shards[shard].files

    def _work(self) -> None:
        while (row := self._next_file()) is not None:
            delay = _POLL
            try:
                if self._cache.fetch_ahead(self._folder / row.name, row, self._stop):
                    continue
            except FetchStopped:
                return
            except Exception:  # noqa: BLE001  the worker that needs the file meets the same fault, and reports it
                delay = _RETRY
            self._stop.wait(delay)
            with self._changed:
                if row.name in self._wanted:
                    self._queue.append(row)
                    self._changed.notify()

    def _next_file(self) -> FileRow | None:
        """Wait for the next file to fetch and return it; return None after `close`."""
        while not self._stop.is_set():
            with self._changed:
                if self._to_pin is None and not self._queue:
                    self._changed.wait()
                    continue
                to_pin, self._to_pin = self._to_pin, None
                if to_pin is None:
                    return self._queue.popleft()
            self._pin(to_pin)
        return None

    def _pin(self, rows: list[FileRow]) -> None:
        addresses = []
        for row in rows:
            with contextlib.suppress(GQNError):  # the store may not answer; pins only delay eviction
                addresses.append(self._cache.address(self._folder / row.name, row))
        with contextlib.suppress(OSError):
            self._pins.set(addresses)
