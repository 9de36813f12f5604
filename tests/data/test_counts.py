"""Integers of Python, numpy and torch are the same option; anything else is an `OptionError`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gqn_data.counts import as_count
from gqn_data.errors import OptionError

INTEGERS: list[Any] = [3, np.int64(3), np.uint8(3), np.array(3), np.array([5, 3])[1]]
OTHERS: list[Any] = [None, 3.0, np.float32(3), "3", b"3", True, np.True_, np.array(True), [3], (3,), np.zeros((90, 90))]


@pytest.mark.parametrize("value", INTEGERS, ids=repr)
def test_every_integer_becomes_an_int(value: Any) -> None:
    assert type(as_count("seed", value)) is int
    assert as_count("seed", value, 3, 3) == 3


def test_an_integer_of_torch_becomes_an_int() -> None:
    torch = pytest.importorskip("torch")
    assert type(as_count("seed", torch.tensor(3))) is int
    for value in (torch.tensor(3.0), torch.tensor(True)):
        with pytest.raises(OptionError):
            as_count("seed", value)


@pytest.mark.parametrize("value", OTHERS, ids=repr)
def test_what_is_no_integer_is_an_option_error(value: Any) -> None:
    with pytest.raises(OptionError, match=r"^batch_size is .*, expected an integer, 1 or more$"):
        as_count("batch_size", value, 1)


@pytest.mark.parametrize(
    ("value", "least", "most", "expected"),
    [(0, 1, None, "1 or more"), (4, None, 3, "3 or less"), (4, 1, 3, "1 to 3")],
)
def test_an_integer_out_of_range_is_an_option_error(value: Any, least: Any, most: Any, expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        as_count("rank", value, least, most)
