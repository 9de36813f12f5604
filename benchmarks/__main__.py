"""Run all benchmarks one after another, each in a new process.

Run with: python -m benchmarks

Prints the name of each benchmark and its tables.
"""

from __future__ import annotations

import subprocess
import sys

_MODULES = (
    "cluster",
    "convert",
    "download",
    "gpu",
    "loader",
    "loader_scale",
    "memory",
    "peers",
    "ranks",
    "render",
    "render_stream",
    "streaming",
    "sweep_step",
    "training",
)


def main() -> None:
    """Run all benchmarks; stop at the first one that fails."""
    for name in _MODULES:
        print(f"\n== {name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)


if __name__ == "__main__":
    main()
