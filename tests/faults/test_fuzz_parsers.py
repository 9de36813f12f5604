"""Parsers fed with anything: they take it for what it is, or refuse it in words; never anything else.

GQN_FUZZ_EXAMPLES says how many inputs each parser gets; `make faults` gives them many. An input that once showed a
fault stands in `FOUND`, and is tried first for ever after. What hypothesis finds it also keeps in .hypothesis/.
"""

import os

import fuzz_targets
import pytest
from fuzz_targets import TARGETS
from hypothesis import given, settings
from hypothesis import strategies as st

# Inputs that showed a fault, by target.
FOUND: dict[str, list[bytes]] = {
    # A frame segment said to be of no bytes: the header ended before the size, and would have stood for any size.
    "JPEG header": [bytes.fromhex("ffd8ffc00000170010001403")],
}

INTERESTING = st.sampled_from(
    [
        *(value.to_bytes(8, "little") for value in (0, 1, 0x7F, 0xFF, (1 << 31) - 1, 1 << 31, 1 << 32)),
        *(value.to_bytes(8, "little") for value in ((1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 16)),
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xdc\xff\xdc\x03",
        b"\xff\xc4",
        b"NaN",
        b'"\\ud800"',
        b"1" * 20,
        b"[[[[[[",
        b"../",
        b"\0",
    ]
)
# A change: where, as a share of the length; what becomes of the bytes there; how many; with what.
CHANGES = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["set", "insert", "remove", "repeat", "move", "cut"]),
        st.integers(1, 40),
        st.one_of(st.binary(min_size=1, max_size=8), INTERESTING),
    ),
    max_size=6,
)


def changed(good, changes):
    data = bytearray(good)
    for where, what, count, new in changes:
        at = int(where * (len(data) + 1))
        if what == "set":
            data[at : at + len(new)] = new
        elif what == "insert":
            data[at:at] = new
        elif what == "remove":
            del data[at : at + count]
        elif what == "repeat":
            data[at:at] = data[at : at + count] * 3
        elif what == "move":
            data += data[at : at + count]
            del data[at : at + count]
        else:
            del data[at:]
    return bytes(data)


def examples():
    return int(os.environ.get("GQN_FUZZ_EXAMPLES", "60"))


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_read_or_refused(name, faults):
    target, good = TARGETS[name]
    start = good()
    tried = 0
    for data in (start, b"", *FOUND.get(name, ())):
        target(data)
        tried += 1

    @given(st.one_of(CHANGES, CHANGES, CHANGES, st.binary(max_size=300)))
    @settings(max_examples=examples())
    def fuzz(drawn):
        nonlocal tried
        target(drawn if isinstance(drawn, bytes) else changed(start, drawn))
        tried += 1

    fuzz()
    faults.record(
        f"fuzz: {name}",
        holds="any bytes are read unchanged, or refused with a message",
        tries=tried,
        survived=tried,
    )


def test_the_fuzz_would_see_a_parser_that_fails(monkeypatch):
    # A parser that trusts a length: the fuzz must find it in as many tries as it has here.
    def trusting(data):
        length = data[0] | data[1] << 8
        assert len(data) >= length

    monkeypatch.setitem(TARGETS, "trusting", (trusting, lambda: bytes([20, 0]) + bytes(20)))
    with pytest.raises((AssertionError, IndexError)):
        test_any_bytes_are_read_or_refused("trusting", None)


def test_every_target_takes_what_is_good():
    for name, (target, good) in TARGETS.items():
        target(good())
        assert name
    assert fuzz_targets.by_protobuf(TARGETS["message"][1]()) is not None
