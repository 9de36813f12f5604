"""Measure the peak memory of conversion, download and loader, which must not grow with the dataset.

Run with: python -m benchmarks.memory

Prints the peak memory in MiB of each task on a small and on a large dataset.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.download import served
from benchmarks.scenes import SET, raw_rooms
from gqn_data.io.atomic import on_disk

_TASKS = {
    "convert to zarr": "convert(raw, SET, out, Options(formats=('zarr',), workers=1))",
    "convert to webdataset": "convert(raw, SET, out, Options(formats=('webdataset',), workers=1))",
    "convert to numpy": "convert(raw, SET, out, Options(formats=('numpy',), workers=1))",
    "index": "index_source_files(open_raw_folder(raw, SET), out)",
    "300 batches from zarr": "batches(out / 'zarr' / SET.name)",
    "300 batches from numpy": "batches(out / 'numpy' / SET.name)",
    "download, 4 at once": "download(SET, out / 'fetched', split='train', files=files, workers=4, base_url=url)",
    "convert from a server": "arrive(out / 'arrived')",
}

_PROGRAM = """
import sys
from itertools import islice
from pathlib import Path
from gqn_data.convert.from_bucket import convert_arriving
from gqn_data.download.bucket import Bucket
from gqn_data.convert import convert
from gqn_data.download import download
from gqn_data.convert.index import index_source_files
from gqn_data.convert.plan import Options
from gqn_data.schema.catalog import find_scene_set
from gqn_data.sources.raw_folder import open_raw_folder

SET = find_scene_set("{name}")
raw, out, url = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
files = tuple(range(1, 1 + len(list((raw / "train").iterdir()))))

def batches(path):
    from gqn_data.loader import SceneLoader
    for _ in islice(SceneLoader(path, batch_size=36, context=(5, 5)), 300):
        pass

def arrive(to):
    with Bucket(SET, url) as bucket:
        options = Options(formats=("zarr",), splits=("train",), workers=1)
        convert_arriving(bucket, to, options, files=files)

{task}
# getrusage would include the parent process before exec
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak(raw: Path, out: Path, url: str, task: str) -> float:
    """Return the peak memory in MiB of a process that runs one task."""
    program = _PROGRAM.format(name=SET.name, task=task)
    done = subprocess.run(
        [sys.executable, "-c", program, str(raw), str(out), url], check=True, stdout=subprocess.PIPE, text=True
    )
    return int(done.stdout) / 1024


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=20_000, help="scenes of the small dataset")
    parser.add_argument("--large", type=int, default=60_000, help="scenes of the large dataset")
    options = parser.parse_args()
    peaks = []
    for scenes in (options.small, options.large):
        with raw_rooms(scenes) as raw, tempfile.TemporaryDirectory() as out:
            folder = on_disk(raw.folder, "measured")
            with served(folder.parent) as url:
                peaks.append([peak(folder, Path(out), url, task) for task in _TASKS.values()])
    print(f"{'peak memory in MiB':<24} {options.small:>8,} {options.large:>8,} scenes")
    for name, small, large in zip(_TASKS, *peaks):
        print(f"{name:<24} {small:>8,.0f} {large:>8,.0f}")


if __name__ == "__main__":
    main()
