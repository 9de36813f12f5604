"""Print a constraints file that pins the base install, and the extras of the tests, to their lowest declared versions.

    python tools/lowest_versions.py > build/lowest.txt
    pip install -c build/lowest.txt '.[test]'

The test tools keep the versions of constraints.txt. Other packages are left to pip.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Requirement(NamedTuple):
    """A requirement of the form `name[extra]>=version`; `floor` is empty if it names no version."""

    name: str
    floor: str


def parse(requirement: str) -> Requirement:
    """Parse one line of `dependencies`.

    Raises:
        ValueError: the line is not of the form `name>=version`.
    """
    match = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[a-z0-9,_-]+\])?(?:>=([0-9][0-9a-z.]*))?", requirement)
    if match is None:
        raise ValueError(f"pyproject.toml: {requirement!r}, expected name>=version")
    return Requirement(re.sub(r"[-_.]+", "-", match[1]).lower(), match[2] or "")


def lowest(pyproject: str, constraints: str) -> list[str]:
    """Return the lines of the constraints file.

    Args:
        pyproject: text of pyproject.toml.
        constraints: text of constraints.txt.
    """
    project = tomllib.loads(pyproject)["project"]
    extras = project["optional-dependencies"]
    required, tools = list(project["dependencies"]), []
    for line in extras["test"]:
        if own := re.fullmatch(rf"{project['name']}\[(.+)\]", line):
            required += extras[own[1]]
        else:
            tools.append(parse(line).name)
    floors = [parse(line) for line in required]
    wanted = set(tools) - {each.name for each in floors}
    pinned = [line for line in constraints.splitlines() if "==" in line and parse(line.split("==")[0]).name in wanted]
    return [f"{each.name}=={each.floor}" for each in floors if each.floor] + pinned


if __name__ == "__main__":
    print(*lowest((ROOT / "pyproject.toml").read_text(), (ROOT / "constraints.txt").read_text()), sep="\n")
