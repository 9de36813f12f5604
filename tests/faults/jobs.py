"""Jobs that the tests kill, run twice at once, or run on full disks; each is a separate program.

A job reads a source and writes below its root. Two runs of it give the same bytes.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from made_scenes import SET, make_raw_folder, tree

from gqn_data.io.paths import StorePath, parse_path

ROOT = Path(__file__).resolve().parents[2]

_PROGRAM = """
import sys
from pathlib import Path
from gqn_data.convert import convert
from gqn_data.errors import GQNError
from gqn_data.convert.index import index_raw_folder
from gqn_data.io.paths import parse_path
from gqn_data.convert.plan import Options
from gqn_data.render.request import Request
from gqn_data.render.write import render_scene_set
from gqn_data.convert.from_renderer import render_containers
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.convert.scene_writer import SceneWriter
from gqn_data.sources.raw_folder import open_raw_folder
from gqn_data.dataset import open_dataset
SOURCE, TARGET, WORKERS = parse_path(sys.argv[1]), parse_path(sys.argv[2]), int(sys.argv[3])
ROW = SCENE_SETS["%s"]
def options(*formats):
    return Options(formats=formats, shard_bytes=3000, workers=WORKERS)
def run():
    %s
if __name__ == "__main__":
    try:
        run()
    except GQNError as error:
        sys.exit(f"{type(error).__name__}: {error}")
"""


def _nothing(source, target):
    """Leave the root of a try empty."""


def _copy(source, target):
    shutil.copytree(source, target, dirs_exist_ok=True)  # with times, which the notes of the indexer contain


class Job(NamedTuple):
    """One kind of work.

    Attributes:
        code: statement that the program above runs.
        reads: where its source lies, a raw folder: `disk` or `store`.
        writes: where its root lies: `disk` or `store`.
        prepare: prepares a root on a disk from the source.
    """

    code: str
    reads: str = "disk"
    writes: str = "disk"
    prepare: Callable[[Path, Path], None] = _nothing


JOBS = {
    "convert": Job('convert(SOURCE, ROW, TARGET, options("zarr", "webdataset"))'),
    "convert to numpy": Job('convert(SOURCE, ROW, TARGET, options("numpy"))'),
    "convert to mirror": Job('convert(SOURCE, ROW, TARGET, options("mirror"))'),
    "convert to a store": Job('convert(SOURCE, ROW, TARGET, options("zarr"))', writes="store"),
    "convert from a store": Job('convert(SOURCE, ROW, TARGET, options("webdataset"))', reads="store"),
    "index": Job("index_raw_folder(open_raw_folder(TARGET, ROW), workers=WORKERS)", prepare=_copy),
    "render": Job(
        'render_scene_set(Path(TARGET), "sm5", scenes=90, seed=3, frame_size=16, views=2, supersample=False, '
        "workers=WORKERS)"
    ),
    "render straight into containers": Job(
        'render_containers(Request.of("sm5", scenes=90, seed=3, frame_size=16, views=2, supersample=False), TARGET, '
        'options("zarr", "numpy"))'
    ),
}


def make_source(folder):
    """Make a raw folder of 45 train scenes in six source files, and three test scenes."""
    return make_raw_folder(folder / SET, train=(10, 8, 8, 7, 6, 6), test=(2, 1))


class Bench:
    """Runs one kind of job.

    Args:
        job: name of the job.
        source: the raw folder on a disk.
        folder: folder for the roots of tries.
        bucket: URL of an empty bucket, on the server of the environment.
    """

    def __init__(self, job, source, folder, bucket):
        self.job, self.source, self.folder, self.bucket = JOBS[job], source, folder, parse_path(bucket)
        self.given = source
        if self.job.reads == "store":
            self.given = self.bucket / "source" / SET
            for name, data in tree(source).items():
                (self.given / name).put(data)

    def new_root(self, name):
        """Make a root, empty or prepared."""
        if self.job.writes == "store":
            return self.bucket / name
        root = self.folder / name
        root.mkdir(parents=True)
        self.job.prepare(self.source, root)
        return root

    def start(self, root, workers=1):
        """Start the job as the leader of a new process group."""
        command = [sys.executable, "-c", _PROGRAM % (SET, self.job.code), str(self.given), str(root), str(workers)]
        cache = self.folder / f"cache-{root.name}"  # each try starts with an empty cache
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "GQN_CACHE": str(cache)}
        return subprocess.Popen(
            command, start_new_session=True, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )

    def finish(self, root, workers=1):
        """Run the job to completion; return its exit status and stderr."""
        process = self.start(root, workers)
        _, said = process.communicate(timeout=300)
        return process.returncode, said.decode()

    def files(self, root):
        """Return every file below a root with its bytes."""
        if isinstance(root, StorePath):
            return {name: (root / name).read_bytes() for name, _ in root.files()}
        return tree(root)

    def count(self, root):
        """Count the finished files; the count grows with the progress of the job."""
        if isinstance(root, StorePath):
            return sum(1 for _ in root.files())
        return sum(1 for _, _, names in os.walk(root) for name in names if not name.endswith(".partial"))
