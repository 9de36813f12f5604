"""The datasets that a loader reads, one or several, and how the files of each are read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gqn_data.cache.policy import CachedFiles, Reading, Remote, choose_reading, default_window
from gqn_data.cache.prefetch import WindowFetcher
from gqn_data.cache.shard_cache import ShardCache, open_cache
from gqn_data.counts import as_array, as_number
from gqn_data.dataset import open_dataset
from gqn_data.errors import OptionError, UnknownName
from gqn_data.io.paths import RenderAddress, StorePath
from gqn_data.sampling.batch_sampler import Member
from gqn_data.sampling.permutation import ENDLESS, Windows
from gqn_data.schema.catalog import SPLITS, Split
from gqn_data.units import count_of

Path = str | os.PathLike[str] | StorePath | RenderAddress
Paths = Path | Sequence[Path] | Mapping[Path, float]


class DatasetMixture:
    """One split of one or several datasets.

    Args:
        paths: a dataset, a list of datasets, or a mapping of each dataset to its weight.
        split: `train` or `test`.
        scenes: numbers of the scenes to use, of one dataset; None for all.
        listed: True if a list of samples decides the order of scenes, so that windows do not apply.
        remote: how datasets in a store are read.
        cache: the folder of cached copies.
        cache_gb: maximum size of the cache in GB.

    Raises:
        OptionError: the datasets do not allow a value.
        GQNError: a dataset cannot be opened.
    """

    def __init__(
        self,
        paths: Paths,
        split: Split,
        *,
        scenes: ArrayLike | None = None,
        listed: bool = False,
        remote: Remote = "auto",
        cache: str | os.PathLike[str] | None = None,
        cache_gb: float | None = None,
    ) -> None:
        self.weights: list[float] | None = None
        if isinstance(paths, Mapping):
            self.weights = [as_number(f"weight of {path}", weight) for path, weight in paths.items()]
        elif isinstance(paths, str | os.PathLike | StorePath | RenderAddress):
            paths = [paths]
        if not isinstance(paths, Iterable) or isinstance(paths, bytes):
            raise OptionError(f"path is {paths!r}, expected a folder or URL, or a list or mapping of them")
        every = list(paths)
        if not every:
            raise OptionError("path is empty, expected at least one dataset")
        for given in every:
            if not isinstance(given, str | os.PathLike | StorePath | RenderAddress):
                raise OptionError(f"path has {given!r}, expected folders or URLs")
        if split not in SPLITS:
            raise UnknownName("split", split, SPLITS)
        if remote not in get_args(Remote):
            raise UnknownName("value of remote", remote, get_args(Remote))
        if cache_gb is not None:
            cache_gb = as_number("cache_gb", cache_gb)
        self.split: Split = split
        self.datasets = tuple(open_dataset(path, split) for path in every)
        if len(every) > 1 and listed:
            raise OptionError(f"samples is for one dataset, not for {len(every)}; leave it out")
        if scenes is not None and (len(every) > 1 or listed):
            raise OptionError("scenes is for one dataset without samples; leave it out")
        count = self.datasets[0].manifest.splits[split].scenes
        self._chosen = None if scenes is None else _checked(scenes, count)
        self._ordered = len(every) == 1 and not listed
        self._remote: Remote = remote
        self.any_remote = any(isinstance(dataset.folder, StorePath) for dataset in self.datasets)
        self._cache: ShardCache | None = open_cache(cache, cache_gb) if self.any_remote else None
        self._windows: Windows | None = None
        self._shuffle = False
        self.members: tuple[Member, ...] = ()
        self.reading: Reading | None = None

    @property
    def fingerprint(self) -> str:
        """Identifies the scenes; the same for all containers."""
        return " + ".join(dataset.fingerprint for dataset in self.datasets)

    def check_compatible(self, *, resized: bool) -> None:
        """Raise unless frames and cameras of all datasets fit into one batch.

        Args:
            resized: True if frames are resized to one size.

        Raises:
            OptionError: cameras differ, or frame sizes differ and frames are not resized.
        """
        first = self.datasets[0]
        for dataset in self.datasets:
            layout, expected = dataset.layout, first.layout
            if layout.camera_fields != expected.camera_fields:
                raise OptionError(
                    f"{dataset.folder}: cameras are {', '.join(layout.camera_fields)}, expected "
                    f"{', '.join(expected.camera_fields)} as in {first.folder}; they cannot be mixed"
                )
            if not resized and (layout.height, layout.width) != (expected.height, expected.width):
                raise OptionError(
                    f"{dataset.folder}: frames are {layout.width}x{layout.height}, expected "
                    f"{expected.width}x{expected.height} as in {first.folder}. Pass frame_size to resize them"
                )

    def set_order(self, window: int | None, *, seed: int, shuffle: bool, used_views: float) -> None:
        """Set the order of shards, and choose how their files are read in it.

        Args:
            window: shards per window; None for all shards on a disk, and for 8 GB of shards in a store.
            seed: seed of the order.
            shuffle: whether scenes are shuffled.
            used_views: mean number of views per scene that a batch needs.

        Raises:
            OptionError: windows do not apply to several datasets or to samples.
        """
        if window is not None and not self._ordered:
            raise OptionError("window is for one dataset without samples; leave it out")
        self._shuffle = shuffle
        members, readings = [], set()
        for dataset in self.datasets:
            remote = isinstance(dataset.folder, StorePath)
            sizes = [shard.scenes for shard in dataset.shards]
            if self._chosen is not None:
                ends = np.searchsorted(self._chosen, np.cumsum(sizes))
                sizes = np.diff(ends, prepend=0).tolist()
            per_window = window
            if per_window is None:
                per_window = default_window(dataset.shards) if remote and self._ordered else len(sizes)
            windows = Windows(sizes, window=per_window, seed=seed, shuffle=shuffle)
            if remote:
                assert self._cache is not None  # noqa: S101  opened if any dataset is remote
                reading = choose_reading(
                    self._remote,
                    shards=dataset.shards,
                    windows=windows,
                    used=used_views if dataset.is_by_view else dataset.layout.views,
                    views=dataset.layout.views,
                    cache=self._cache,
                )
                dataset.read_through(CachedFiles(cache=self._cache, reading=reading))
                readings.add(reading)
            # Endless scenes come in the order of their numbers.
            self._windows = windows if self._ordered and sum(sizes) != ENDLESS else None
            members.append(
                Member(scenes=sum(sizes), views=dataset.layout.views, chosen=self._chosen, windows=self._windows)
            )
        self.members = tuple(members)
        self.reading = "range" if "range" in readings else "cache" if readings else None

    @property
    def windows_identity(self) -> dict[str, int | str]:
        """Identifies the windows of a stream, beside the identity of the sampler."""
        return {} if self._windows is None else self._windows.identity

    def accepts_windows(self, count: int) -> bool:
        """Return whether a stream of `count` windows could continue here, if it differs from the current number."""
        windows = self._windows
        return windows is not None and self._shuffle and 1 <= count != windows.count

    def window_fetcher(self, epochs: int | None) -> WindowFetcher | None:
        """Return a fetcher of the next window's files, or None if files are not cached window by window."""
        (first, *_) = self.datasets
        if self._cache is None or self._windows is None or self.reading != "cache":
            return None
        assert isinstance(first.folder, StorePath)  # noqa: S101  it is read through the cache
        return WindowFetcher(self._cache, first.folder, first.shards, self._windows, epochs)


def _checked(scenes: ArrayLike, count: int) -> NDArray[np.int64]:
    """Return the numbers of scenes in rising order.

    Raises:
        OptionError: they are not distinct integers from 0 to `count` - 1.
    """
    numbers = as_array("scenes", scenes)
    if numbers.ndim != 1 or not len(numbers) or not np.issubdtype(numbers.dtype, np.integer):
        raise OptionError(
            f"scenes is an array of {numbers.dtype} of shape {numbers.shape}, expected a non-empty list of integers"
        )
    ordered = np.unique(numbers.astype(np.int64))
    if len(ordered) != len(numbers):
        raise OptionError(f"scenes has {count_of(len(numbers) - len(ordered), 'duplicate')}, expected each scene once")
    if ordered[0] < 0 or ordered[-1] >= count:
        wrong = int(ordered[0] if ordered[0] < 0 else ordered[-1])
        raise OptionError(f"scenes has {wrong}, expected 0 to {count - 1}")
    return ordered
