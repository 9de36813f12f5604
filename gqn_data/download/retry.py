"""Retries with exponential backoff and jitter."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from gqn_data.errors import FetchError, FetchStopped, RemoteFault


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often to retry a transfer, and how long to wait in between.

    Attributes:
        attempts: consecutive attempts without progress before giving up.
        restarts: times to start a file over because it changed meanwhile or arrived with wrong bytes.
        backoff: seconds to wait after the first fault; each consecutive fault doubles it.
        max_backoff: upper bound of the backoff in seconds.
        max_retry_after: upper bound in seconds of a wait that the server asks for.
        sleep: called with the seconds to wait; None for the real clock.
        jitter: returns a number from 0 to 1. Waits shrink by up to half, so that clients do not return in step.
    """

    attempts: int = 8
    restarts: int = 4
    backoff: float = 1.0
    max_backoff: float = 60.0
    max_retry_after: float = 300.0
    sleep: Callable[[float], object] | None = None
    jitter: Callable[[], float] = random.random

    def delay(self, faults: int, retry_after: float | None) -> float:
        """Return the seconds to wait after consecutive faults, at least the `retry_after` of the server."""
        backoff = min(self.max_backoff, self.backoff * 2.0 ** (min(faults, 30) - 1)) * (1 - self.jitter() / 2)
        return max(backoff, min(retry_after or 0.0, self.max_retry_after))


class Retries:
    """Counts consecutive faults, waits after each, and gives up after too many.

    Args:
        policy: limits and waits.
        stop: when set, waits end with `FetchStopped`.
        log: called with a line for each fault.
        remedy: last sentence of the final error: what the user can do.
    """

    def __init__(
        self, policy: RetryPolicy, stop: threading.Event | None, log: Callable[[str], None] | None, remedy: str
    ) -> None:
        self._policy, self._stop, self._log, self._remedy = policy, stop, log, remedy
        self._faults = 0

    def check_stop(self) -> None:
        """Raise if a stop was requested.

        Raises:
            FetchStopped: the stop event is set.
        """
        if self._stop is not None and self._stop.is_set():
            raise FetchStopped("stopped on request; the received bytes are kept")

    def wait_after(self, fault: RemoteFault, *, progressed: bool) -> None:
        """Count a fault and wait.

        Raises:
            FetchError: too many consecutive faults.
            FetchStopped: a stop was requested.
        """
        self._faults = 0 if progressed else self._faults + 1
        if self._faults >= self._policy.attempts:
            attempts = "1 attempt" if self._faults == 1 else f"{self._faults} attempts"
            raise FetchError(f"{fault}; no progress in {attempts}. {self._remedy}") from fault
        self.pause(str(fault), max(1, self._faults), fault.after)

    def pause(self, reason: str, faults: int, retry_after: float | None = None) -> None:
        """Log the reason and wait.

        Raises:
            FetchStopped: a stop was requested.
        """
        seconds = self._policy.delay(faults, retry_after)
        if self._log is not None:
            self._log(f"{reason}; retrying in {seconds:.0f} s")
        if self._policy.sleep is not None:
            self._policy.sleep(seconds)
        elif self._stop is not None:
            self._stop.wait(seconds)
        else:
            time.sleep(seconds)
        self.check_stop()
