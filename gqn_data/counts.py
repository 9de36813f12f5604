"""Whole numbers given as options: Python's, numpy's and torch's are equal."""

from __future__ import annotations

import operator
import reprlib

from gqn_data.errors import OptionError


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
        if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        found = " ".join(reprlib.repr(value).split())  # an array's takes several lines
        raise OptionError(f"{name} is {found}, expected {_allowed(least, most)}") from None
    if (least is not None and number < least) or (most is not None and number > most):
        raise OptionError(f"{name} is {number}, expected {_allowed(least, most)}")
    return number


def _allowed(least: int | None, most: int | None) -> str:
    if least is None:
        return "an integer" if most is None else f"an integer, {most} or less"
    return f"an integer, {least} or more" if most is None else f"an integer from {least} to {most}"
