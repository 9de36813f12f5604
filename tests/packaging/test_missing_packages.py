"""What works, and what is said, without the packages of an extra."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import gqn_data

ROOT = Path(__file__).resolve().parents[2]
NEED_TORCH = {"gqn_data.loader.loader"}
# The rest of gqn_data.render casts rays; these plan and write files.
RENDER_WITHOUT_NUMBA = {"gqn_data.render.request", "gqn_data.render.files", "gqn_data.render.write"}


def run_without(packages, code, *arguments):
    blocked = f"import sys\nfor name in {packages!r}: sys.modules[name] = None\nsys.path.insert(0, {str(ROOT)!r})\n"
    return subprocess.run(
        [sys.executable, "-c", blocked + code, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_all_but_the_loader_and_the_renderer_import_without_torch_and_numba():
    names = [module.name for module in pkgutil.walk_packages(gqn_data.__path__, "gqn_data.")]
    assert set(names) >= NEED_TORCH | RENDER_WITHOUT_NUMBA
    casts_rays = {name for name in names if name.startswith("gqn_data.render.")} - RENDER_WITHOUT_NUMBA
    imports = "".join(
        f"import {name}\n" for name in names if name not in {"gqn_data.__main__"} | NEED_TORCH | casts_rays
    )
    done = run_without(("torch", "numba"), imports)
    assert done.returncode == 0, done.stderr


def test_without_numba_rendering_names_the_package_to_install(tmp_path):
    code = "from gqn_data.cli import main\nmain()"
    done = run_without(("numba",), code, "render", "mazes", "--scenes", 2, "--root", tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "pip install numba" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["list", "--names", "--rendered"], ["render", "--help"]])
def test_without_numba_the_rest_of_the_command_works(arguments):
    assert run_without(("numba",), "from gqn_data.cli import main\nmain()", *arguments).returncode == 0
