"""Names that the documentation imports: they import twice in a fresh process and are callable."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").glob("*.py"))]
IMPORT = re.compile(r"^\s*from (gqn_(?:data|model)[\w.]*) import ([\w, ]+)$", re.MULTILINE)
NAMES = sorted(
    {
        (module, name.strip())
        for page in PAGES
        for module, names in IMPORT.findall(page.read_text())
        for name in names.split(",")
    }
    | {("gqn_data", name) for name in ("open", "SceneWriter", "Dataset", "Scene", "SCENE_SETS", "find_scene_set")}
)
# The modules of gqn_data that need torch.
WITH_TORCH = {"gqn_data.loader.loader"}


def _run(code: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_documented_names_are_found() -> None:
    assert {("gqn_data.convert", "convert"), ("gqn_data.download", "download"), ("gqn_model", "load_model")} <= {*NAMES}


@pytest.mark.parametrize("module", sorted({module for module, _ in NAMES}))
def test_documented_names_import_twice_and_are_not_modules(module: str) -> None:
    # Importing a submodule sets an attribute of its package, which would replace a function of the same name.
    names = [name for of, name in NAMES if of == module]
    _run(
        "import pkgutil, importlib, types\n"
        f"package = importlib.import_module({module!r})\n"
        f"first = [getattr(package, name) for name in {names}]\n"
        "for found in pkgutil.iter_modules(getattr(package, '__path__', [])):\n"
        "    if found.name != '__main__':\n"
        f"        importlib.import_module({module!r} + '.' + found.name)\n"
        f"second = [getattr(package, name) for name in {names}]\n"
        f"for name, one, two in zip({names}, first, second):\n"
        "    assert one is two and not isinstance(one, types.ModuleType), (name, one, two)\n"
        "    assert callable(one) or isinstance(one, dict), name"
    )


def test_every_module_of_gqn_data_but_the_loader_imports_without_torch() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "gqn_data").rglob("*.py"))
        if path.name != "__main__.py"
    ]
    others = [name for name in modules if name not in WITH_TORCH]
    assert len(others) == len(modules) - len(WITH_TORCH)
    _run(
        "import sys, importlib\n"
        "sys.modules['torch'] = None\n"
        f"for name in {others!r}:\n"
        "    importlib.import_module(name)\n"
        "try:\n"
        "    from gqn_data.loader import SceneLoader\n"
        "except ModuleNotFoundError as error:\n"
        "    assert error.name == 'torch'\n"
        "else:\n"
        "    raise AssertionError"
    )


@pytest.mark.parametrize("module", ["gqn_data.cli", "gqn_model.cli"])
def test_a_command_starts_beside_a_file_named_cli(module: str, tmp_path: Path) -> None:
    # A module `cli` in site-packages once collided with the user's own.
    (tmp_path / "cli.py").write_text("raise SystemExit('the wrong cli')\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-c", f"from {module} import main; main(['--version'])"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "version" in done.stdout


def test_gqn_data_does_not_import_gqn_model() -> None:
    _run("import sys, gqn_data.cli\nassert not [name for name in sys.modules if name.startswith('gqn_model')]")
