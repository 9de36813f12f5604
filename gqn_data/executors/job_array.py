"""Parts of a run for job arrays, and the locks that let several parts write to one folder.

A run without a part locks its folder from beginning to end (`atomic.exclusive_writer`). A part locks the folder only
while it starts; while it runs it holds its own lock, such as `.part-3-of-10.lock`, which other runs can see.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from gqn_data.errors import DestinationError, OptionError
from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath

T = TypeVar("T")

_PART = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII)
_LOCK = re.compile(r"\.part-(\d+)-of-(\d+)\.lock", re.ASCII)
_POLL = 0.5  # seconds


@dataclass(frozen=True)
class Part:
    """One part of a run.

    Args:
        number: index of the part, from 0.
        count: number of parts.

    Raises:
        OptionError: `number` is out of range.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.number < self.count:
            expected = f"0/{self.count} to {self.count - 1}/{self.count}" if self.count > 0 else "at least one part"
            raise OptionError(f"part {self} does not exist; parts are numbered from 0: {expected}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a part written as `3/10`.

        Raises:
            OptionError: `text` has another form, or the part is out of range.
        """
        found = _PART.fullmatch(text)
        if found is None:
            raise OptionError(f"part {text!r}, expected NUMBER/COUNT: 0/10, 1/10 ... 9/10")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, items: Sequence[T]) -> list[T]:
        """Return every n-th item, so that parts are even in any order of the items."""
        return list(items[self.number :: self.count])

    @property
    def lock_name(self) -> str:
        """Name of the lock file that the part holds while it runs."""
        return f".part-{self.number}-of-{self.count}.lock"


@contextlib.contextmanager
def hold_part(
    folder: AnyPath, part: Part, prepare: Callable[[], T], log: Callable[[str], None] = lambda _: None
) -> Iterator[T]:
    """Hold the lock of a part of a folder; yield the result of `prepare`.

    Args:
        folder: destination; locked against all other runs while `prepare` is called.
        part: the part.
        prepare: prepares the folder.
        log: called with one line if another run has to be waited for.

    Raises:
        DestinationError: the same part is running already.
    """
    with contextlib.ExitStack() as part_lock:
        with contextlib.ExitStack() as folder_lock:
            _lock_folder(folder_lock, folder, log)
            try:
                part_lock.enter_context(atomic.exclusive_writer(folder, part.lock_name))
            except DestinationError as error:
                raise DestinationError(f"{folder}: part {part} is already running; wait for it") from error
            prepared = prepare()
        yield prepared


def _lock_folder(stack: contextlib.ExitStack, folder: AnyPath, log: Callable[[str], None]) -> None:
    """Wait until the folder can be locked, and lock it."""
    logged = False
    while True:
        try:
            stack.enter_context(atomic.exclusive_writer(folder))
        except FileNotFoundError:
            continue  # a run that ended meanwhile removed the folder
        except DestinationError:
            if not logged:
                log(f"{folder}: waiting for another part to start, or for another run to end")
                logged = True
            time.sleep(_POLL)
        else:
            return


def check_no_parts_running(folder: AnyPath) -> None:
    """Raise if a job-array part is running in a folder that the caller holds; delete stale locks.

    Raises:
        DestinationError: a part is running.
    """
    for name in atomic.list_names(folder):
        found = _LOCK.fullmatch(name)
        if found is None:
            continue
        try:
            with atomic.exclusive_writer(folder, name):
                pass
        except DestinationError as error:
            raise DestinationError(
                f"{folder}: part {found[1]}/{found[2]} is running; wait until all parts are done"
            ) from error
