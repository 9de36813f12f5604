"""Numbers as text for users."""

from __future__ import annotations


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is 1: `1 shard`, `2,000 scenes`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
