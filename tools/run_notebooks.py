"""Execute the notebooks of docs/notebooks, each in a new empty folder, and fail if a cell raises.

Usage:
    python tools/run_notebooks.py            # the executed notebooks stay in build/notebooks
    python tools/run_notebooks.py --write    # and their outputs are stored in docs/notebooks
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "docs" / "notebooks"
_SECONDS = 300  # longest duration of a cell


def execute(path: Path, out: Path) -> nbformat.NotebookNode:
    """Return a notebook with the outputs of its cells.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        where = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=_SECONDS, resources=where).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day
    return notebook


def main() -> None:
    """Execute the notebooks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="store the outputs in docs/notebooks")
    write = parser.parse_args().write
    # The commands of the cells are those of this environment.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    out = ROOT / "build" / "notebooks"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        start = time.monotonic()
        notebook = execute(path, out)
        for target in [out / path.name, *([path] if write else [])]:
            nbformat.write(notebook, target)
        print(f"{path.relative_to(ROOT)}: {len(notebook.cells)} cells in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
