"""JSON files that programs read: with suspicion, in bounded memory; and notes that carry their own checksum.

A note is a small table that no manifest lists: where a raw folder's scenes come from, what an indexer saw, which
shards of a conversion are whole. Imports `storage` and `stores`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath

# Room for the manifest of half a million shards; a parsed one takes some ten times its bytes of memory.
MOST_BYTES = 256 << 20
_MOST_IN_A_NOTE = 16 << 20
_CHECKSUM = "sha256"


def read_json(place: AnyPath, most: int = MOST_BYTES) -> Any:
    """The value in a JSON file, by the letter of RFC 8259: no NaN, no name twice in a table, UTF-8.

    Args:
        place: the file.
        most: bytes that it may have at most.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON, or more of it than anybody wrote; the text says what.
    """
    return parse_json(atomic.read_bounded(place, most))


def write_note(place: AnyPath, value: dict[str, Any]) -> None:
    """Writes a table with the checksum of it as its last entry; two runs give the same bytes."""
    atomic.write_json(place, {**value, _CHECKSUM: _checksum_of(value)})


def read_note(place: AnyPath, *, needs_checksum: bool = True) -> dict[str, Any]:
    """The table that `write_note` wrote.

    Args:
        place: the file.
        needs_checksum: false where people, or older versions, may have written it: one that is there is checked.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no table, or not the one that was written; the text says what.
    """
    data = atomic.read_bounded(place, _MOST_IN_A_NOTE)
    value = parse_json(data)
    if not isinstance(value, dict):
        raise ValueError(f"expected a table, found {type(value).__name__}")
    expected = value.pop(_CHECKSUM, None)
    if expected is None and not needs_checksum:
        return value
    found = _checksum_of(value)
    # The bytes as well: a flipped bit may leave the meaning as it was, 1e-05 as 1E-05.
    if expected != found or data != atomic.json_bytes({**value, _CHECKSUM: found}):
        raise ValueError(f"its checksum is {found}, it says {expected!r} itself")
    return value


def _checksum_of(value: dict[str, Any]) -> str:
    return hashlib.sha256(atomic.json_bytes(value)).hexdigest()


def parse_json(data: bytes) -> Any:
    """The value of JSON text, as `read_json`.

    Raises:
        ValueError: it is no JSON; the text says what.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_table, parse_constant=_no_number)
        if b"\\u" in data:
            atomic.json_bytes(value)  # half a surrogate pair is read, and cannot be written or named to the system
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError(f"one name twice in a table of {len(pairs)} entries")
    return table


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")
