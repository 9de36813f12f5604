"""Peak memory of conversion and loader on a small and on a large set: it must not grow with the set.

Run with: python -m benchmarks.memory
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.scenes import SET, raw_rooms
from gqn_data.storage import on_disk

_TASKS = {
    "convert to zarr": "convert(raw, SET, out, Options(formats=('zarr',), workers=1))",
    "convert to webdataset": "convert(raw, SET, out, Options(formats=('webdataset',), workers=1))",
    "convert to numpy": "convert(raw, SET, out, Options(formats=('numpy',), workers=1))",
    "index": "index_source_files(open_raw_folder(raw, SET), out)",
    "300 batches from zarr": "batches(out / 'zarr' / SET.name)",
    "300 batches from numpy": "batches(out / 'numpy' / SET.name)",
}

_PROGRAM = """
import sys
from itertools import islice
from pathlib import Path
from gqn_data.convert import convert
from gqn_data.index import index_source_files
from gqn_data.plan import Options
from gqn_data.scene_sets import find_scene_set
from gqn_data.sources import open_raw_folder

SET = find_scene_set("{name}")
raw, out = Path(sys.argv[1]), Path(sys.argv[2])

def batches(path):
    from gqn_data.loader import SceneLoader
    for _ in islice(SceneLoader(path, batch_size=36, context=(5, 5)), 300):
        pass

{task}
# getrusage would count what the process was before it became this program
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak(raw: Path, out: Path, task: str) -> float:
    """MiB at the most, of a process that does one task."""
    program = _PROGRAM.format(name=SET.name, task=task)
    done = subprocess.run(
        [sys.executable, "-c", program, str(raw), str(out)], check=True, stdout=subprocess.PIPE, text=True
    )
    return int(done.stdout) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=20_000, help="scenes of the small set")
    parser.add_argument("--large", type=int, default=60_000, help="scenes of the large set")
    options = parser.parse_args()
    figures = []
    for scenes in (options.small, options.large):
        with raw_rooms(scenes) as raw, tempfile.TemporaryDirectory() as out:
            figures.append([peak(on_disk(raw.folder, "measured"), Path(out), task) for task in _TASKS.values()])
    print(f"{'peak memory in MiB':<24} {options.small:>8,} {options.large:>8,} scenes")
    for name, small, large in zip(_TASKS, *figures):
        print(f"{name:<24} {small:>8,.0f} {large:>8,.0f}")


if __name__ == "__main__":
    main()
