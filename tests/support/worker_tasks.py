"""Tasks for worker processes. Workers import this module, so it imports little."""

import os
import signal
import time

from gqn_data.errors import CorruptRecord


def slowly(number):
    time.sleep((number * 7 % 5) / 200)
    return number, os.getpid()


def fail_at_three(number):
    if number == 3:
        raise CorruptRecord("file", number, 7, "made for the test")
    return number


def ignores_interrupts(_):
    return signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def die_at_three(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def break_off():
    """Raise the error of a Dask result whose connection is lost while it is fetched."""
    from distributed.comm import CommClosedError

    raise CommClosedError("in <TCP (closed) ConnectionPool.gather>")


def stop_at_three(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGSTOP)
    return number
