"""The datasets that a loader reads, one or several, and the way in which each is read.

Imports `caching`, `dataset`, `order`, `sampling`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gqn_data.cache.policy import CachedFiles, Reading, Remote, choose_reading, default_window
from gqn_data.cache.prefetch import WindowFetcher
from gqn_data.cache.shard_cache import ShardCache, open_cache
from gqn_data.dataset import open_dataset
from gqn_data.errors import OptionError
from gqn_data.io.paths import StorePath
from gqn_data.sampling.batch_sampler import Member
from gqn_data.sampling.permutation import Windows
from gqn_data.schema.catalog import Split

Path = str | os.PathLike[str] | StorePath
Paths = Path | Sequence[Path] | Mapping[Path, float]


class DatasetMixture:
    """One split of one dataset or several.

    Args:
        paths: a dataset; or several, in a list, or with the weight of each.
        split: `train` or `test`.
        chosen: numbers of the scenes to use, of one dataset; None for all.
        one_window: whether scenes come in no order that windows could follow.
        remote: how datasets in a store are read.
        cache: the folder of copies.
        cache_gb: the most that copies may take, in GB.

    Raises:
        OptionError: a value that the datasets do not allow.
        GQNError: one cannot be opened.
    """

    def __init__(
        self,
        paths: Paths,
        split: Split,
        *,
        chosen: ArrayLike | None = None,
        one_window: bool = False,
        remote: Remote = "auto",
        cache: str | os.PathLike[str] | None = None,
        cache_gb: float | None = None,
    ) -> None:
        self.weights: list[float] | None = None
        if isinstance(paths, Mapping):
            self.weights = [float(weight) for weight in paths.values()]
        elif isinstance(paths, str | os.PathLike | StorePath):
            paths = [paths]
        listed = list(paths)
        if not listed:
            raise OptionError("no dataset is given, expected one or more")
        self.split: Split = split
        self.datasets = tuple(open_dataset(path, split) for path in listed)
        if len(listed) > 1 and one_window:
            raise OptionError("samples name scenes of one dataset; here are several")
        if chosen is not None and (len(listed) > 1 or one_window):
            raise OptionError("scenes are chosen of one dataset, and not beside samples")
        self._chosen = None if chosen is None else _checked(chosen, len(self.datasets[0]))
        self._ordered = len(listed) == 1 and not one_window
        self._remote: Remote = remote
        self.any_far = any(isinstance(dataset.folder, StorePath) for dataset in self.datasets)
        self._cache: ShardCache | None = open_cache(cache, cache_gb) if self.any_far else None
        self._windows: Windows | None = None
        self._shuffle = False
        self.sampled: tuple[Member, ...] = ()
        self.reading: Reading | None = None

    @property
    def fingerprint(self) -> str:
        """Tells scenes apart, not containers."""
        return " + ".join(dataset.fingerprint for dataset in self.datasets)

    def check_alike(self, frame_size: int | None) -> None:
        """Returns where frames and cameras of all datasets go into one batch.

        Args:
            frame_size: what all frames must have, where they are not resized.

        Raises:
            OptionError: they do not.
        """
        first = self.datasets[0]
        for dataset in self.datasets:
            layout = dataset.layout
            if layout.camera_fields != first.layout.camera_fields:
                raise OptionError(
                    f"{dataset.folder}: cameras of {', '.join(layout.camera_fields)}, those of {first.folder} "
                    f"are {', '.join(first.layout.camera_fields)}; they cannot be mixed"
                )
            if frame_size is not None and (layout.height, layout.width) != (frame_size, frame_size):
                raise OptionError(
                    f"{dataset.folder}: frames of {layout.width}x{layout.height}, those of {first.folder} are "
                    f"{frame_size}x{frame_size}; say frame_size"
                )

    def read_in(self, window: int | None, *, seed: int, shuffle: bool, used: float) -> None:
        """Settles the order of shards, and how their files are read in it.

        Args:
            window: shards in a window; None for all shards on a disk, and for 8 GB of them in a store.
            seed: of the order.
            shuffle: whether scenes are shuffled.
            used: views of a scene that a batch needs, in the mean.

        Raises:
            OptionError: a window, where scenes come in no order that it could follow.
        """
        if window is not None and not self._ordered:
            raise OptionError("window is for one dataset and no samples: leave it out")
        self._shuffle = shuffle
        sampled, readings = [], set()
        for dataset in self.datasets:
            far = isinstance(dataset.folder, StorePath)
            sizes = [shard.scenes for shard in dataset.shards]
            if self._chosen is not None:
                ends = np.searchsorted(self._chosen, np.cumsum(sizes))
                sizes = np.diff(ends, prepend=0).tolist()
            most = window
            if most is None:
                most = default_window(dataset.shards) if far and self._ordered else len(sizes)
            windows = Windows(sizes, window=most, seed=seed, shuffle=shuffle)
            if far:
                assert self._cache is not None  # noqa: S101  it is opened where one is far
                reading = choose_reading(
                    self._remote,
                    shards=dataset.shards,
                    windows=windows,
                    used=used if dataset.is_by_view else dataset.layout.views,
                    views=dataset.layout.views,
                    cache=self._cache,
                )
                dataset.read_through(CachedFiles(cache=self._cache, reading=reading))
                readings.add(reading)
            self._windows = windows if self._ordered else None
            sampled.append(
                Member(scenes=sum(sizes), views=dataset.layout.views, chosen=self._chosen, windows=self._windows)
            )
        self.sampled = tuple(sampled)
        self.reading = "range" if "range" in readings else "cache" if readings else None

    @property
    def windows_identity(self) -> dict[str, int | str]:
        """Tells orders apart that the sampling does not."""
        return {} if self._windows is None else self._windows.identity

    def may_have(self, windows: int) -> bool:
        """Whether a stream with so many windows could go on here, where another number is settled now."""
        found = self._windows
        return found is not None and self._shuffle and 1 <= windows != found.count

    def fetching_ahead(self, epochs: int | None) -> WindowFetcher | None:
        """What fetches windows before they are needed; None where there is nothing to fetch ahead."""
        (first, *_) = self.datasets
        if self._cache is None or self._windows is None or self.reading != "cache":
            return None
        assert isinstance(first.folder, StorePath)  # noqa: S101  it is read through the cache
        return WindowFetcher(self._cache, first.folder, first.shards, self._windows, epochs)


def _checked(chosen: ArrayLike, scenes: int) -> NDArray[np.int64]:
    """Numbers of scenes, rising."""
    numbers = np.asarray(chosen)
    if numbers.ndim != 1 or not len(numbers) or not np.issubdtype(numbers.dtype, np.integer):
        raise OptionError(
            f"scenes are {numbers.dtype} of shape {numbers.shape}, expected a list of whole numbers, not empty"
        )
    ordered = np.unique(numbers.astype(np.int64))
    if len(ordered) != len(numbers):
        raise OptionError(f"scenes name {len(numbers) - len(ordered)} scenes more than once; expected each once")
    if ordered[0] < 0 or ordered[-1] >= scenes:
        wrong = int(ordered[0] if ordered[0] < 0 else ordered[-1])
        raise OptionError(f"scenes name {wrong}, expected numbers from 0 to {scenes - 1}")
    return ordered
