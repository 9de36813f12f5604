"""Numbers given as options: those of Python, numpy and torch are equal, and anything else is an `OptionError`."""

from __future__ import annotations

import operator
import reprlib
from typing import TYPE_CHECKING, Any

from gqn_data.errors import OptionError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def as_count(name: str, value: object, least: int | None = None, most: int | None = None) -> int:
    """Return the value of an option as an int.

    Args:
        name: name of the option, for the message.
        value: an int, or an integer of numpy or torch.
        least: smallest allowed value; None for any.
        most: largest allowed value; None for any.

    Raises:
        OptionError: the value is not an integer (bools and floats are not), or out of range.
    """
    try:
        if _is_bool(value):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        allowed = ", ".join(filter(None, ("an integer", _range(least, most))))
        raise OptionError(f"{name} is {_text_of(value)}, expected {allowed}") from None
    if (least is not None and number < least) or (most is not None and number > most):
        raise OptionError(f"{name} is {number}, expected {_range(least, most)}")
    return number


def as_number(name: str, value: object) -> float:
    """Return the value of an option as a float.

    Raises:
        OptionError: the value is not a number (bools and strings are not).
    """
    try:
        if _is_bool(value) or isinstance(value, str | bytes | bytearray):
            raise TypeError
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise OptionError(f"{name} is {_text_of(value)}, expected a number") from None


def as_flag(name: str, value: object) -> bool:
    """Return the value of an option as a bool.

    Raises:
        OptionError: the value is not a bool, of Python, numpy or torch, nor 0 or 1.
    """
    try:
        if _is_bool(value) or operator.index(value) in (0, 1):  # type: ignore[arg-type]
            return bool(value)
    except (TypeError, ValueError):  # of None, of an array of several
        pass
    raise OptionError(f"{name} is {_text_of(value)}, expected True or False")


def as_array(name: str, value: ArrayLike) -> NDArray[Any]:
    """Return the value of an option as an array.

    Raises:
        OptionError: the value is not an array, such as a list of lists of different lengths.
    """
    import numpy as np  # the commands import this module for --help

    try:
        return np.asarray(value)
    except (TypeError, ValueError):
        raise OptionError(f"{name} is {_text_of(value)}, expected an array of integers") from None


def _is_bool(value: object) -> bool:
    return isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")


def _text_of(value: object) -> str:
    return " ".join(reprlib.repr(value).split())  # an array's takes several lines


def _range(least: int | None, most: int | None) -> str:
    if least is None:
        return "" if most is None else f"{most} or less"
    return f"{least} or more" if most is None else f"{least} to {most}"
