"""Hook of mkdocs: pages of the site that are made from the code and from the files at the project's root.

README.md is the front page. The reference has a section for each public name: the names in `__all__` of every package.
`make site` fails if one of them is missing in the built site.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from mkdocstrings import Inventory

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[1]
COPIED = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
PAGES = ("gqn_data", "gqn_model")
COMMANDS = {"gqn-data": "gqn_data.cli", "gqn": "gqn_model.cli"}
_LINK = re.compile(r"(?<=\]\()([^()\s#]+)(#[^()\s]*)?(?=\))")


def public_names(page: str) -> dict[str, list[str]]:
    """Return the names that the reference describes, by package: those in `__all__` of a package and its packages."""
    root = importlib.import_module(page)
    below = [module.name for module in pkgutil.walk_packages(root.__path__, f"{page}.") if module.ispkg]
    found = {package: getattr(importlib.import_module(package), "__all__", []) for package in [page, *below]}
    return {package: [name for name in names if name[0] != "_"] for package, names in found.items() if names}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not lie in the docs folder."""
    for source, page in COPIED.items():
        text = _LINK.sub(_link_from_root, (ROOT / source).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=text))
    for page in PAGES:
        parts = []
        for package, names in public_names(page).items():
            parts += [f"# {package}\n", *(f"::: {package}.{name}\n" for name in names)]
        files.append(File.generated(config, f"api/{page}.md", content="\n".join(parts)))
    commands = ["# Commands\n"]
    for name, module in COMMANDS.items():
        options = {"module": module, "command": "main", "prog_name": name, "depth": "1", "style": "table"}
        commands += ["::: mkdocs-click", *(f"    :{key}: {value}" for key, value in options.items()), ""]
    files.append(File.generated(config, "api/commands.md", content="\n".join(commands)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Send links from the docs folder to files at the root to the pages made of them."""
    return _LINK.sub(_link_from_docs, markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Raise if a public name is not in the site.

    Raises:
        PluginError: names are missing.
    """
    with (Path(config.site_dir) / "objects.inv").open("rb") as file:
        found = Inventory.parse_sphinx(file)
    names = [f"{package}.{name}" for page in PAGES for package, names in public_names(page).items() for name in names]
    missing = [name for name in names if name not in found]
    if missing:
        raise PluginError(f"the reference lacks {', '.join(missing)}. Add docstrings, or remove them from __all__")


def _link_from_root(link: re.Match[str]) -> str:
    target, anchor = link[1], link[2] or ""
    return COPIED.get(target, target.removeprefix("docs/")) + anchor


def _link_from_docs(link: re.Match[str]) -> str:
    target, anchor = link[1], link[2] or ""
    return COPIED.get(target.removeprefix("../"), target) + anchor if target.startswith("../") else link[0]
