"""How a dataset that lies in a store is read: as whole local copies, or by range; and which of the two is better.

`CachedFiles` is what a `Dataset` opens its files through; `choose_reading` decides. Imports `cache`, `copies`,
`order`, `stores`.
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

# How remote files are read: copied here whole before they are used, or by range, only the views that a batch needs.
Reading = Literal["cache", "range"]
Remote = Literal["auto", "cache", "range"]

# Bytes of a window where nobody says otherwise. A fact of the dataset alone: did it depend on the disk, ranks on
# different machines would go through the scenes in different orders.
WINDOW_BYTES = 8_000_000_000

# Bytes that come along with whole shards in the time that one request more takes. docs/streaming.md says how that was
# found, and for what stores it is another figure.
REQUEST_BYTES = 200_000


_renewing = threading.Lock()


class CachedFile(RangedFile):
    """A remote file, read from a copy that is fetched when it is first asked for.

    Args:
        path: of the file.
        row: its size and checksum.
        cache: where copies lie.
        start: of what is copied, the first byte; reads count from there.
    """

    def __init__(self, path: StorePath, row: FileRow, cache: ShardCache, start: int = 0) -> None:
        super().__init__(path, row.bytes - start)
        self._far = path
        self._row = row
        self._cache = cache
        self._start = start
        self._renewed = False

    def __reduce__(self) -> tuple[type[CachedFile], tuple[StorePath, FileRow, ShardCache, int]]:  # type: ignore[override]
        return type(self), (self._far, self._row, self._cache, self._start)

    @property
    def is_remote(self) -> bool:
        """No: what is read lies here."""
        return False

    def reopened(self) -> bool:
        """Whether the copy had been damaged on this disk; it is another one now."""
        with _renewing:
            if self._cache.copies.removed_if_damaged(self._copy()) is not None:
                self._close()
                self._renewed = True
            # Also to a thread that read the damaged copy, and asks after another one had it fetched again.
            return self._renewed

    def _copy(self) -> Path:
        if self._start:
            return self._cache.get_tail(self._far, self._row, self._start)
        return self._cache.get(self._far, self._row)

    def _opened(self) -> OpenFile:
        while True:
            copy = self._copy()
            try:
                return open_file(copy)
            except FileNotFoundError:
                continue  # removed by another process since it was found


class _TailedFile(RangedFile):
    """A remote file read by range, its end from a local copy.

    Args:
        path: of the file.
        row: its size and checksum.
        cache: where copies lie.
        start: of the end that is copied.
    """

    def __init__(self, path: StorePath, row: FileRow, cache: ShardCache, start: int) -> None:
        super().__init__(path, row.bytes)
        self._start = start
        self._tail = CachedFile(path, row, cache, start)

    def __reduce__(self) -> tuple[type[_TailedFile], tuple[StorePath, FileRow, ShardCache, int]]:  # type: ignore[override]
        _, arguments = self._tail.__reduce__()
        return type(self), arguments

    def reopened(self) -> bool:
        """Whether the copy of the end had been damaged; it is another one now."""
        return self._tail.reopened()

    def read(self, offset: int, length: int) -> bytes:
        """As of any file."""
        if offset >= self._start:
            return self._tail.read(offset - self._start, length)
        return super().read(offset, length)


@dataclass(frozen=True, kw_only=True)
class CachedFiles:
    """Opens the files of a dataset in a store; those on a disk as they are.

    Attributes:
        cache: where copies lie.
        reading: how the large files are read. Indexes and cameras are always copied: they are small, and asked for
            scene by scene.
    """

    cache: ShardCache
    reading: Reading

    def __call__(self, path: AnyPath, row: FileRow, kept_from: int | None) -> RangedFile:
        """The file at a place, of which the bytes from `kept_from` on are asked for again and again."""
        if isinstance(path, Path):
            return RangedFile(path, row.bytes)
        if self.reading == "cache" or kept_from == 0:
            return CachedFile(path, row, self.cache)
        if kept_from is None:
            return RangedFile(path, row.bytes)
        return _TailedFile(path, row, self.cache, kept_from)


def default_window(shards: Sequence[ShardRow]) -> int:
    """Shards in a window of a dataset in a store, where nobody says otherwise."""
    return max(1, WINDOW_BYTES * len(shards) // max(1, sum(map(_bytes_of, shards))))


def choose_reading(
    wanted: Remote, *, shards: Sequence[ShardRow], windows: Windows, used: float, views: int, cache: ShardCache
) -> Reading:
    """How to read a split that lies in a store.

    Whole copies, where all of them fit the cache: each byte is then fetched once, however many epochs follow. Else
    every epoch fetches anew, and ranges are better where a batch leaves much of each scene unused, or where the cache
    cannot hold a window and the next.

    Args:
        wanted: `auto`, or one of the ways.
        shards: of the split.
        windows: the way through them.
        used: views of a scene that a batch uses, in the mean; all of them where they cannot be read apart.
        views: of a scene.
        cache: where copies lie.

    Raises:
        UnknownName: `wanted` is no way.
        OptionError: copies are wanted, and the cache cannot hold those needed at once.
    """
    if wanted not in get_args(Remote):
        raise UnknownName("way to read a store", wanted, get_args(Remote))
    sizes = sorted(map(_bytes_of, shards), reverse=True)
    # A window and the next, whichever shards they happen to be; all shards where there is one window alone.
    at_once = sum(sizes[: 2 * windows.largest])
    if wanted == "range":
        return "range"
    if wanted == "auto":
        in_vain = (1 - used / views) * sum(sizes) / sum(shard.scenes for shard in shards)
        wasteful = in_vain > used * REQUEST_BYTES and sum(sizes) > cache.limit
        return "range" if wasteful or at_once > cache.limit else "cache"
    if at_once > cache.limit:
        possible = cache.limit // (2 * sizes[0])
        smaller = f"a smaller window (--window {possible}), " if possible and windows.largest > possible else ""
        what = f"a window of {windows.largest} shards and the next take up to"
        if windows.count == 1:
            what = f"the {len(sizes)} shards, all of one window, take"
        raise OptionError(
            f"{cache.folder}: the cache may hold {atomic.human_bytes(cache.limit)}; {what} "
            f"{atomic.human_bytes(at_once)}: allow {smaller}a larger cache (--cache-gb), or read by range "
            "(--remote range)"
        )
    return "cache"


def _bytes_of(shard: ShardRow) -> int:
    return sum(row.bytes for row in shard.files)
