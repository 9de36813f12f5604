"""Build hook: make the relative links of README.md absolute in the metadata of wheel and sdist.

`home` in [tool.gqn-toolkit] of pyproject.toml is the URL below which the project's files can be read. While it is
empty, the links stay relative. Everything else about the build is declared in pyproject.toml.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent

# The target of an inline link or picture, unless it is a URL, an anchor or an absolute path.
_TARGET = re.compile(r"(?<=\]\()(?![a-zA-Z][a-zA-Z0-9+.-]*:|[#/])[^()\s]+")
_FENCED = re.compile(r"^(```|~~~).*?^\1", re.M | re.S)


def absolute_links(markdown: str, home: str) -> str:
    """Return Markdown whose relative links start at `home`.

    Args:
        markdown: the text; links in fenced code are not touched.
        home: URL of the folder that the links are relative to; empty leaves the text unchanged.
    """
    if not home:
        return markdown
    base = home.rstrip("/") + "/"
    parts, end = [], 0
    for code in _FENCED.finditer(markdown):
        parts += [_TARGET.sub(lambda link: base + link.group(), markdown[end : code.start()]), code.group()]
        end = code.end()
    return "".join([*parts, _TARGET.sub(lambda link: base + link.group(), markdown[end:])])


if __name__ == "__main__":
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["gqn-toolkit"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    setup(
        long_description=absolute_links(readme, settings["home"]),
        long_description_content_type="text/markdown",
    )
