"""All measurements, one after another: python -m benchmarks."""

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
    "streaming",
    "training",
)


def main() -> None:
    for name in _MODULES:
        print(f"\n== {name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)


if __name__ == "__main__":
    main()
