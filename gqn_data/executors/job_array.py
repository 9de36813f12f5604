"""Parts of a run, for job arrays: which there are, and how several work in one folder at the same time.

A run without a part holds its folder from beginning to end (`atomic.exclusive_writer`). A part holds it only while it
begins; for as long as it works it holds a lock of its own, `.part-3-of-10.lock`, by which others see that it does.
Imports `errors`, `storage`.
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

_WRITTEN = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII)
_LOCK = re.compile(r"\.part-(\d+)-of-(\d+)\.lock", re.ASCII)
_POLL = 0.5  # seconds


@dataclass(frozen=True)
class Part:
    """One part of a run.

    Args:
        number: which, from 0.
        count: how many there are.

    Raises:
        OptionError: there is no such part.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.number < self.count:
            expected = f"0/{self.count} to {self.count - 1}/{self.count}" if self.count > 0 else "at least one part"
            raise OptionError(f"there is no part {self}; parts are numbered from 0: {expected}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The part that is written as `3/10`.

        Raises:
            OptionError: it is written in another way, or there is no such part.
        """
        found = _WRITTEN.fullmatch(text)
        if found is None:
            raise OptionError(f"a part is {text!r}, expected like 0/10, 1/10 ... 9/10")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, items: Sequence[T]) -> list[T]:
        """The items of this part: every n-th, so that parts are even, whatever the order of the items is."""
        return list(items[self.number :: self.count])

    @property
    def lock_name(self) -> str:
        """The file that the part holds while it works."""
        return f".part-{self.number}-of-{self.count}.lock"


@contextlib.contextmanager
def hold_part(
    folder: AnyPath, part: Part, begin: Callable[[], T], log: Callable[[str], None] = lambda _: None
) -> Iterator[T]:
    """Holds a part of what is written to a folder, and gives what `begin` returned.

    Args:
        folder: held by no other run while `begin` is called.
        part: which.
        begin: readies the folder.
        log: called, in a line, if others are waited for.

    Raises:
        DestinationError: the same part is at work already.
    """
    with contextlib.ExitStack() as working:
        with contextlib.ExitStack() as beginning:
            _enter(beginning, folder, log)
            try:
                working.enter_context(atomic.exclusive_writer(folder, part.lock_name))
            except DestinationError as error:
                raise DestinationError(f"{folder}: part {part} is at work already; wait for it") from error
            begun = begin()
        yield begun


def _enter(held: contextlib.ExitStack, folder: AnyPath, log: Callable[[str], None]) -> None:
    """Holds a folder as soon as no other run does."""
    told = False
    while True:
        try:
            held.enter_context(atomic.exclusive_writer(folder))
        except FileNotFoundError:
            continue  # a run that ended removed the folder meanwhile
        except DestinationError:
            if not told:
                log(f"{folder}: another part begins, or another run writes there; waiting for it")
                told = True
            time.sleep(_POLL)
        else:
            return


def check_no_parts_running(folder: AnyPath) -> None:
    """Returns where no part of a run is at work in a folder that the caller holds; what killed ones left goes.

    Raises:
        DestinationError: one is.
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
                f"{folder}: part {found[1]}/{found[2]} is at work there; wait until all parts are done"
            ) from error
