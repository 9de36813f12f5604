"""The window ahead: threads that fetch the files of the window in use, then those of the next, into the cache.

They run in the process that takes the batches; the workers find the files, or fetch what they miss themselves. Nothing
here decides what a batch holds. Imports `cache`, `errors`, `manifest`, `order`.
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
_BUSY = 0.2  # seconds until a file that another process fetches is looked for again
_FAULT = 5.0  # seconds until a file that could not be fetched is tried again
_PATIENCE = 5.0  # seconds to wait for threads to end; one that a stalled server holds ends by itself later


class Position(NamedTuple):
    """A position in an epoch."""

    epoch: int
    position: int


class WindowFetcher:
    """Fetches files before they are needed; a context manager.

    Args:
        cache: where copies go.
        folder: of the dataset.
        shards: of the split.
        windows: the way through them.
        epochs: how many there are; None for ever.
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
        self._pins = self._cache.copies.pins()
        atexit.register(self.close)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the threads, and what they are fetching."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        end = time.monotonic() + _PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self._pins.close()
        atexit.unregister(self.close)

    def need(self, first: Position, last: Position) -> None:
        """Says what is in use: all from the batch that is taken next to the one that is made last.

        The next window is fetched when one window alone is in use, so that no more than two are needed at once.
        """
        span = self._window(first), self._window(last)
        if span == self._span:
            return
        self._span = span
        windows = [span[0]]
        while windows[-1] != span[1]:
            windows.append(self._after(windows[-1]))
        if len(windows) == 1 and (self._epochs is None or self._after(windows[0])[0] < self._epochs):
            windows.append(self._after(windows[0]))
        wanted = {row.name: row for epoch, window in windows for row in self._files(epoch, window)}
        with self._changed:
            self._wanted = wanted
            self._queue = deque(wanted.values())
            self._to_pin = [*wanted.values()]
            self._changed.notify_all()

    def _window(self, at: Position) -> tuple[int, int]:
        return at.epoch, self._windows.window_at(at.position, at.epoch)

    def _after(self, window: tuple[int, int]) -> tuple[int, int]:
        epoch, number = window
        return (epoch, number + 1) if number + 1 < self._windows.count else (epoch + 1, 0)

    def _files(self, epoch: int, window: int) -> Iterator[FileRow]:
        for shard in self._windows.shards_of(window, epoch).tolist():
            yield from self._shards[shard].files

    def _work(self) -> None:
        while (row := self._next()) is not None:
            again = _BUSY
            try:
                if self._cache.fetch_ahead(self._folder / row.name, row, self._stop):
                    continue
            except FetchStopped:
                return
            except Exception:  # noqa: BLE001  whoever needs the file meets the same fault, and tells it
                again = _FAULT
            self._stop.wait(again)
            with self._changed:
                if row.name in self._wanted:
                    self._queue.append(row)
                    self._changed.notify()

    def _next(self) -> FileRow | None:
        """The next file to fetch, waited for; None when there is no more to do."""
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
            with contextlib.suppress(GQNError):  # the store may have to be asked; what is not pinned may go, no more
                addresses.append(self._cache.address(self._folder / row.name, row))
        with contextlib.suppress(OSError):
            self._pins.set(addresses)
