"""Strict JSON parsing in bounded memory, and notes: small JSON files that include their own checksum.

A note stores what no manifest lists: the origin of a raw folder, the state of an index, the finished shards of a
conversion.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from gqn_data.io import atomic
from gqn_data.io.paths import AnyPath

# Enough for the manifest of half a million shards. Parsing takes about ten times the bytes in memory.
MAX_BYTES = 256 << 20
_MAX_NOTE_BYTES = 16 << 20
_CHECKSUM = "sha256"


def read_json(path: AnyPath, max_bytes: int = MAX_BYTES) -> Any:
    """Read a JSON file in UTF-8, without NaN, Infinity and repeated keys.

    Args:
        path: file to read.
        max_bytes: largest accepted size.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not valid JSON, or too large. The message says which.
    """
    return parse_json(atomic.read_bounded(path, max_bytes))


def write_note(path: AnyPath, value: dict[str, Any]) -> None:
    """Write an object with its checksum as the last entry. Equal values give identical bytes."""
    atomic.write_json(path, {**value, _CHECKSUM: _checksum_of(value)})


def read_note(path: AnyPath, *, needs_checksum: bool = True) -> dict[str, Any]:
    """Read an object that `write_note` wrote, and verify its checksum.

    Args:
        path: file to read.
        needs_checksum: False to accept files without a checksum, written by hand or by older versions.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not an object, or was changed. The message says which.
    """
    data = atomic.read_bounded(path, _MAX_NOTE_BYTES)
    value = parse_json(data)
    if not isinstance(value, dict):
        raise ValueError(f"found {type(value).__name__}, expected a JSON object")
    expected = value.pop(_CHECKSUM, None)
    if expected is None and not needs_checksum:
        return value
    found = _checksum_of(value)
    # The bytes are compared too: a flipped bit may keep the value, as in 1e-05 and 1E-05.
    if expected != found or data != atomic.json_bytes({**value, _CHECKSUM: found}):
        raise ValueError(f"checksum is {found}, expected {expected!r}")
    return value


def _checksum_of(value: dict[str, Any]) -> str:
    return hashlib.sha256(atomic.json_bytes(value)).hexdigest()


def parse_json(data: bytes) -> Any:
    """Parse JSON with the rules of `read_json`.

    Raises:
        ValueError: it is not valid JSON.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_table, parse_constant=_refuse_constant)
        if b"\\u" in data:
            atomic.json_bytes(value)  # raises on a lone surrogate, which can be parsed but not encoded
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError(f"repeated key in an object of {len(pairs)} entries")
    return table


def _refuse_constant(text: str) -> None:
    raise ValueError(f"found {text}, expected a finite number")
