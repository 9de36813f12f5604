"""How to read a dataset in an object store: through local copies, or by range.

`choose_reading` picks one of the two; `CachedFiles` opens the files of a `Dataset` accordingly.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from gqn_data.cache.shard_cache import ShardCache
from gqn_data.errors import OptionError, UnknownName
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath, StorePath
from gqn_data.io.ranged import OpenFile, RangedFile, open_file
from gqn_data.sampling.permutation import Windows
from gqn_data.schema.manifest import FileRow, ShardRow

# How remote files are read: copied in full before they are used, or by range, only the views that a batch needs.
Reading = Literal["cache", "range"]
Remote = Literal["auto", "cache", "range"]

# Default bytes of a window. It depends on the dataset only: if it depended on the disk, ranks on different machines
# would visit the scenes in different orders.
WINDOW_BYTES = 8_000_000_000

# Bytes of whole shards that arrive in the time of one additional request. docs/streaming.md describes the measurement,
# and the stores for which the value differs.
REQUEST_BYTES = 200_000


_replacing = threading.Lock()


class CachedFile(RangedFile):
    """A remote file, read from a local copy that is fetched on first use.

    Args:
        path: the remote file.
        row: its size and checksum.
        cache: the cache of copies.
        start: first byte to copy; offsets of reads count from there.
    """

    def __init__(self, path: StorePath, row: FileRow, cache: ShardCache, start: int = 0) -> None:
        super().__init__(path, row.bytes - start)
        self._remote_path = path
        self._row = row
        self._cache = cache
        self._start = start
        self._was_replaced = False

    def __reduce__(self) -> tuple[type[CachedFile], tuple[StorePath, FileRow, ShardCache, int]]:
        return type(self), (self._remote_path, self._row, self._cache, self._start)

    @property
    def is_remote(self) -> bool:
        """False: reads go to the local copy."""
        return False

    def reopened(self) -> bool:
        """Check the local copy, replace it if it is damaged, and return whether it was ever replaced."""
        with _replacing:
            if self._cache.directory.remove_if_damaged(self._copy()) is not None:
                self._close()
                self._was_replaced = True
            # Stays True: a thread that read the damaged copy may ask after another thread had it replaced.
            return self._was_replaced

    def _copy(self) -> Path:
        if self._start:
            return self._cache.get_tail(self._remote_path, self._row, self._start)
        return self._cache.get(self._remote_path, self._row)

    def _opened(self) -> OpenFile:
        while True:
            copy = self._copy()
            try:
                return open_file(copy)
            except FileNotFoundError:
                continue  # evicted by another process in the meantime


class _TailCachedFile(RangedFile):
    """A remote file read by range, except for its end, which is read from a local copy.

    Args:
        path: the remote file.
        row: its size and checksum.
        cache: the cache of copies.
        start: first byte of the copied end.
    """

    def __init__(self, path: StorePath, row: FileRow, cache: ShardCache, start: int) -> None:
        super().__init__(path, row.bytes)
        self._start = start
        self._tail = CachedFile(path, row, cache, start)

    def __reduce__(self) -> tuple[type[_TailCachedFile], tuple[StorePath, FileRow, ShardCache, int]]:
        _, arguments = self._tail.__reduce__()
        return type(self), arguments

    def reopened(self) -> bool:
        """Check the copy of the end, replace it if it is damaged, and return whether it was ever replaced."""
        return self._tail.reopened()

    def read(self, offset: int, length: int) -> bytes:
        """Read bytes of the file. See `RangedFile.read`."""
        if offset >= self._start:
            return self._tail.read(offset - self._start, length)
        return super().read(offset, length)


@dataclass(frozen=True, kw_only=True)
class CachedFiles:
    """Opens the files of a dataset in a store; local files are opened directly.

    Attributes:
        cache: the cache of copies.
        reading: how the large files are read. Indexes and cameras are always copied: they are small, and read scene by
            scene.
    """

    cache: ShardCache
    reading: Reading

    def __call__(self, path: AnyPath, row: FileRow, kept_from: int | None) -> RangedFile:
        """Open a file.

        Args:
            path: the file.
            row: its size and checksum.
            kept_from: first byte of the part to copy, which is read repeatedly; None to copy nothing.
        """
        if isinstance(path, Path):
            return RangedFile(path, row.bytes)
        if self.reading == "cache" or kept_from == 0:
            return CachedFile(path, row, self.cache)
        if kept_from is None:
            return RangedFile(path, row.bytes)
        return _TailCachedFile(path, row, self.cache, kept_from)


def default_window(shards: Sequence[ShardRow]) -> int:
    """Return the default number of shards in a window of a dataset in a store."""
    return max(1, WINDOW_BYTES * len(shards) // max(1, sum(map(_bytes_of, shards))))


def choose_reading(
    wanted: Remote, *, shards: Sequence[ShardRow], windows: Windows, used: float, views: int, cache: ShardCache
) -> Reading:
    """Choose how to read a split in a store.

    `auto` picks copies if all of them fit into the cache: each byte is then fetched once, for any number of epochs.
    Otherwise every epoch fetches again, and it picks ranges if batches leave much of each scene unused, or if the
    cache cannot hold two windows.

    Args:
        wanted: `auto`, `cache` or `range`.
        shards: shards of the split.
        windows: order of the shards.
        used: mean number of views per scene that a batch uses; all views if the container cannot read single ones.
        views: views per scene.
        cache: the cache of copies.

    Raises:
        UnknownName: `wanted` is not one of the three.
        OptionError: `wanted` is `cache`, and the cache cannot hold two windows.
    """
    if wanted not in get_args(Remote):
        raise UnknownName("value of --remote", wanted, get_args(Remote))
    sizes = sorted(map(_bytes_of, shards), reverse=True)
    # Upper bound of the current window and the next; all shards if there is only one window.
    needed = sum(sizes[: 2 * windows.largest])
    if wanted == "range":
        return "range"
    if wanted == "auto":
        unused = (1 - used / views) * sum(sizes) / sum(shard.scenes for shard in shards)
        wasteful = unused > used * REQUEST_BYTES and sum(sizes) > cache.limit
        return "range" if wasteful or needed > cache.limit else "cache"
    if needed > cache.limit:
        possible = cache.limit // (2 * sizes[0])
        smaller = f"Pass --window {possible}, raise" if possible and windows.largest > possible else "Raise"
        what = f"two windows of {_count(windows.largest)}"
        if windows.count == 1:
            what = f"one window of all {_count(len(sizes))}"
        raise OptionError(
            f"{cache.folder}: the cache is limited to {atomic.human_bytes(cache.limit)}, expected at least "
            f"{atomic.human_bytes(needed)} for {what}. {smaller} --cache-gb, or read by range with --remote range"
        )
    return "cache"


def _count(shards: int) -> str:
    return "1 shard" if shards == 1 else f"{shards} shards"


def _bytes_of(shard: ShardRow) -> int:
    return sum(row.bytes for row in shard.files)
