"""Trying again: how often, after how long, and when to give up. Imports `errors` alone."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from gqn_data.errors import FetchError, FetchStopped, RemoteFault


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often something is tried again, and after how long.

    Attributes:
        tries: tries in a row that bring nothing new before it is given up.
        anew: times that a file is begun because it changed meanwhile or came with wrong bytes.
        first_wait: seconds after the first fault; each fault in a row doubles it.
        most_wait: seconds at the most, of our own choice.
        most_told: seconds at the most where the server asks for more.
        sleep: waits so many seconds; None to wait by the clock.
        chance: a number from 0 to 1; waits differ by up to half, so that many clients do not come back at once.
    """

    tries: int = 8
    anew: int = 4
    first_wait: float = 1.0
    most_wait: float = 60.0
    most_told: float = 300.0
    sleep: Callable[[float], object] | None = None
    chance: Callable[[], float] = random.random

    def wait(self, faults: int, told: float | None) -> float:
        """Seconds to wait after so many faults in a row, the server having asked for `told`."""
        own = min(self.most_wait, self.first_wait * 2.0 ** (min(faults, 30) - 1)) * (1 - self.chance() / 2)
        return max(own, min(told or 0.0, self.most_told))


class Retries:
    """Counts faults in a row, waits after each, and gives up in the end.

    Args:
        patience: how often, and for how long.
        stop: when set, waiting ends with `FetchStopped`.
        tell: told of each fault.
        remedy: what to do when it is given up.
    """

    def __init__(
        self, patience: RetryPolicy, stop: threading.Event | None, tell: Callable[[str], None] | None, remedy: str
    ) -> None:
        self._patience, self._stop, self._tell, self._remedy = patience, stop, tell, remedy
        self._faults = 0

    def check_stop(self) -> None:
        """Returns where nobody asked to stop.

        Raises:
            FetchStopped: somebody did.
        """
        if self._stop is not None and self._stop.is_set():
            raise FetchStopped("told to stop; what has come is kept")

    def after(self, fault: RemoteFault, *, progressed: bool) -> None:
        """Waits after a fault.

        Raises:
            FetchError: there were enough of them.
        """
        self._faults = 0 if progressed else self._faults + 1
        if self._faults >= self._patience.tries:
            raise FetchError(f"{fault}; {self._faults} tries brought nothing more; {self._remedy}") from fault
        self.pause(str(fault), max(1, self._faults), fault.after)

    def pause(self, reason: str, faults: int, told: float | None = None) -> None:
        """Says why, and waits.

        Raises:
            FetchStopped: somebody asked to.
        """
        seconds = self._patience.wait(faults, told)
        if self._tell is not None:
            self._tell(f"{reason}; trying again in {seconds:.0f} s")
        if self._patience.sleep is not None:
            self._patience.sleep(seconds)
        elif self._stop is not None:
            self._stop.wait(seconds)
        else:
            time.sleep(seconds)
        self.check_stop()
