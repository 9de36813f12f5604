"""What a test needs, read from its source when it is collected: torch, numba, other processes.

Tests are not marked by hand. `needed_packages` looks at what importing a test module imports. `starts_processes`
follows a test through its fixtures and helpers to a call that starts a process.
"""

from __future__ import annotations

import ast
import functools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = Path(__file__).parent
CORE_CASES = 3  # cases of a parametrised test in the core suite: the first, one in the middle, the last

# What `gqn_data.loader` imports lazily from its one module that needs torch.
LAZY_TORCH = {"SceneLoader", "Batch", "on_device"}
STARTERS = {
    "subprocess",
    "multiprocessing",
    "concurrent.futures.ProcessPoolExecutor",
    "os.fork",
    "distributed",
    "gqn_data.loader.worker_pool.WorkerPool",
}
# Commands that start a process per core unless `--workers` says otherwise.
PARALLEL_COMMANDS = {"convert", "index", "render", "verify"}


class Module(NamedTuple):
    """A parsed file of the tests.

    Attributes:
        definitions: its functions and classes by name, methods by their own names.
        imports: dotted names by the local name that stands for them.
    """

    path: Path
    definitions: dict[str, ast.AST]
    imports: dict[str, str]


@functools.cache
def parse(path: Path) -> ast.Module:
    """Parse a file once."""
    return ast.parse(path.read_text(encoding="utf-8"))


def _imported(nodes: Iterator[ast.AST] | list[ast.stmt]) -> Iterator[tuple[str, str]]:
    """Yield (local name, dotted name) of every import among `nodes`."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name.split(".")[0], alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _file_of(dotted: str) -> Path | None:
    """Return the file of a module of the tests' support or of gqn_model; `dotted` may end in a name of the module."""
    for name in (dotted, dotted.rpartition(".")[0]):
        if name.startswith("gqn_model."):
            path = ROOT.joinpath(*name.split("."))
            for candidate in (path.with_suffix(".py"), path / "__init__.py"):
                if candidate.is_file():
                    return candidate
        elif name and "." not in name and (SUPPORT / f"{name}.py").is_file():
            return SUPPORT / f"{name}.py"
    return None


@functools.cache
def needed_packages(path: Path) -> frozenset[str]:
    """Return which of torch and numba importing a file needs, itself or through the tests' support or gqn_model.

    Modules of gqn_data are not followed: only the loader may import torch and only the renderer numba, and a test of
    another module must fail if that imports them.
    """
    found: set[str] = set()
    for _, dotted in _imported(parse(path).body):
        module, _, name = dotted.rpartition(".")
        root = dotted.split(".")[0]
        if root in {"torch", "numba"}:
            found.add(root)
        if dotted.startswith("gqn_data.loader.loader") or (module == "gqn_data.loader" and name in LAZY_TORCH):
            found.add("torch")
        if module.startswith("gqn_data.render.") or module == "gqn_data.convert.from_renderer":
            found.add("numba")
        file = _file_of(dotted)
        if module == "gqn_model" and file is None:  # a name that the package imports lazily
            found.add("torch")
        if file is not None and file != path:
            found |= needed_packages(file)
    return frozenset(found)


@functools.cache
def _module(path: Path) -> Module:
    tree = parse(path)
    definitions = {
        node.name: node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    return Module(path, definitions, dict(_imported(ast.walk(tree))))


def _conftests(path: Path) -> list[Path]:
    return [
        folder / "conftest.py"
        for folder in path.parents
        if folder.is_relative_to(ROOT / "tests") and (folder / "conftest.py").is_file()
    ]


@functools.cache
def starts_processes(path: Path, name: str) -> bool:
    """Return whether a function of a test file starts processes, as far as its source shows it.

    It does if it, a fixture that it names or a helper that it calls (in the same file, in `tests/support`, in a
    conftest) uses one of `STARTERS` or asks for two or more workers.

    Args:
        path: the file.
        name: of the function, without parameters.
    """
    return _starts(path, name, set())


def _starts(path: Path, name: str, seen: set[tuple[Path, str]]) -> bool:
    if (path, name) in seen:
        return False
    seen.add((path, name))
    module = _module(path)
    node = module.definitions.get(name)
    if node is None:
        return False
    for part in ast.walk(node):
        if _asks_for_workers(part):
            return True
        for dotted in _dotted(part, module):
            if dotted in STARTERS or dotted.split(".")[0] in STARTERS:
                return True
            file = _file_of(dotted)
            if file is not None and file.parent == SUPPORT and _starts(file, dotted.rpartition(".")[2], seen):
                return True
        used = part.id if isinstance(part, ast.Name) else part.arg if isinstance(part, ast.arg) else ""
        if used in module.definitions and _starts(path, used, seen):
            return True
        if isinstance(part, ast.arg) and any(_starts(conftest, used, seen) for conftest in _conftests(path)):
            return True
    return False


def _dotted(node: ast.AST, module: Module) -> Iterator[str]:
    """Yield the dotted name of what a node names, if that was imported."""
    if isinstance(node, ast.Name) and node.id in module.imports:
        yield module.imports[node.id]
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in module.imports:
        yield f"{module.imports[node.value.id]}.{node.attr}"


def _asks_for_workers(node: ast.AST) -> bool:
    """Return whether a call asks for two or more workers, or for a number that its source does not show.

    It may do so by `workers=N` or `{"workers": N}`, by `open_pool(N)`, by `"--workers", N`, or by a parallel command
    without `--workers`.
    """
    values: list[ast.expr] = []
    if isinstance(node, ast.Dict):
        values += [value for key, value in zip(node.keys, node.values) if _is(key, "workers")]
    elif isinstance(node, ast.Call):
        values += [keyword.value for keyword in node.keywords if keyword.arg == "workers"]
        values += [value for flag, value in zip(node.args, node.args[1:]) if _is(flag, "--workers")]
        if isinstance(node.func, ast.Name):
            values += node.args[:1] if node.func.id == "open_pool" else []
            if (
                len(node.args) > 1
                and any(_is(node.args[0], name) for name in PARALLEL_COMMANDS)
                and not any(_is(argument, flag) for argument in node.args for flag in ("--workers", "--help"))
            ):
                return True
    return any(not isinstance(value, ast.Constant) or str(value.value) not in {"0", "1", "None"} for value in values)


def _is(node: ast.AST | None, value: str) -> bool:
    return isinstance(node, ast.Constant) and node.value == value


def core_of(items: Sequence[pytest.Item]) -> set[pytest.Item]:
    """Return the tests of the core suite: neither slow nor with processes, at most `CORE_CASES` cases of each."""
    cases: dict[tuple[Path, str], list[pytest.Item]] = defaultdict(list)
    for item in items:
        if not {"slow", "process"} & {mark.name for mark in item.iter_markers()}:
            cases[item.path, item.nodeid.split("[")[0]].append(item)
    kept: set[pytest.Item] = set()
    for same in cases.values():
        last = len(same) - 1
        kept |= {same[last * number // (CORE_CASES - 1)] for number in range(CORE_CASES)}
    return kept
