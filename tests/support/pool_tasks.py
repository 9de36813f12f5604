"""Tasks of worker processes in tests of the pool. Spawned workers import them by name."""

import os
import signal
import threading
import time


def square(number):
    time.sleep(0.02 if number % 3 == 0 else 0)
    return number * number


def fail_at_three(number):
    if number == 3:
        raise KeyError("three")
    return number


class UnpicklableError(Exception):
    def __init__(self):
        super().__init__("made for the test")
        self.lock = threading.Lock()


class TwoPartsError(Exception):
    def __init__(self, one, other):
        super().__init__(f"{one} {other}")


def fail_without_pickle(number):
    raise UnpicklableError


def fail_without_unpickle(number):
    raise TwoPartsError("made for", "the test")


def kill_at_two(number):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def process_and(number):
    return number, os.getpid()


def sleep_long(number):
    time.sleep(600)
