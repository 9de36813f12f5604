"""Shell completion of both commands, as bash asks for it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def _complete(words: str, *, package: str) -> list[str]:
    """Return the lines that bash gets for a command line whose last word is incomplete."""
    variable = "_GQN_DATA_COMPLETE" if package == "gqn_data" else "_GQN_COMPLETE"
    asked = {variable: "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    code = f"from {package}.__main__ import main; main()"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("gqn-data conv", ["plain,convert"]),
        ("gqn-data convert jac", ["plain,jaco"]),
        ("gqn-data convert data/z", ["file,data/z"]),
        ("gqn-data convert jaco --root da", ["file,da"]),
        ("gqn train --preset sweep_t", ["plain,sweep_tiny"]),
        ("gqn train --shards da", ["file,da"]),
        ("gqn plot runs/a runs/b", ["file,runs/b"]),
        ("gqn plot runs/a -o c", ["file,c"]),
    ],
)
def test_names_and_paths_are_completed(words: str, expected: list[str]) -> None:
    package = "gqn_data" if words.startswith("gqn-data") else "gqn_model"
    assert _complete(words, package=package) == expected
