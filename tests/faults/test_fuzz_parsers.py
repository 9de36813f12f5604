"""Parsers fed with arbitrary bytes: they parse them correctly or refuse them with an error, nothing else.

GQN_FUZZ_EXAMPLES sets the number of inputs per parser; `make faults` raises it. Inputs that once showed a fault stand
in `FOUND` and are always tried first. Hypothesis keeps what it finds in .hypothesis/.
"""

import os

import fuzz_targets
import pytest
from fuzz_targets import TARGETS
from hypothesis import given, settings
from hypothesis import strategies as st

# Inputs that showed a fault, by target.
FOUND: dict[str, list[bytes]] = {
    # A frame segment of length 0: the header ended before the size, and would have matched any size.
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
# A change: position as a share of the length, operation, number of bytes, new bytes.
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
def test_any_bytes_are_parsed_or_refused(name, faults):
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


def test_fuzzing_finds_a_faulty_parser(monkeypatch):
    # A parser that trusts a length: the fuzzer must find it within the examples of a quick run.
    def trusting(data):
        length = data[0] | data[1] << 8
        assert len(data) >= length

    monkeypatch.setitem(TARGETS, "trusting", (trusting, lambda: bytes([20, 0]) + bytes(20)))
    with pytest.raises((AssertionError, IndexError)):
        test_any_bytes_are_parsed_or_refused("trusting", None)


def test_every_target_accepts_good_input():
    for name, (target, good) in TARGETS.items():
        target(good())
        assert name
    assert fuzz_targets.by_protobuf(TARGETS["message"][1]()) is not None
