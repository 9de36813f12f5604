"""Waiting for what a page of a browser does."""

import time


def wait_until(window, condition, seconds=30):
    """Wait until a condition holds and return it; the browser continues meanwhile."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "the condition does not hold"
        window.wait_for_timeout(50)
    return found
