"""A real Dask cluster on this machine: a scheduler and workers in separate processes, which tests may kill."""

import json
import os
import subprocess
import sys
from pathlib import Path

from processes import wait_until

ROOT = Path(__file__).resolve().parents[2]


def environment(**more):
    """Return the environment of the processes: import paths of project and tasks, and a short connection timeout."""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "support")))
    return {**os.environ, "PYTHONPATH": paths, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s", **more}


def command(*arguments):
    """Return the command line of a `gqn-data` command."""
    return [sys.executable, "-c", "from gqn_data.cli import main; main(prog_name='gqn-data')", *map(str, arguments)]


class DaskProcesses:
    """Scheduler and workers, killed when the block ends.

    Args:
        folder: folder for logs.
        workers: number of workers.
        threads: threads per worker.
        variables: additional environment variables of all processes.
    """

    def __init__(self, folder, workers=2, threads=1, **variables):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._environment = environment(**variables)
        self._threads = threads
        self._logs = []
        self.file = self.folder / "scheduler.json"
        # The idle timeout ends the processes if the tests are killed.
        self.scheduler = self._start("scheduler", "--port", "0", "--scheduler-file", self.file, "--idle-timeout", "600")
        wait_until(self._address)
        self.address = self._address()
        self.workers = []
        self.add(workers)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()
        for log in self._logs:
            log.close()

    def _address(self):
        try:
            return json.loads(self.file.read_text())["address"]
        except (FileNotFoundError, ValueError):
            return None

    def _start(self, kind, *arguments):
        log = (self.folder / f"{kind}-{len(self._logs)}.log").open("wb")
        self._logs.append(log)
        line = [sys.executable, "-m", "dask", kind, *map(str, arguments), "--host", "127.0.0.1", "--no-dashboard"]
        return subprocess.Popen(line, env=self._environment, stdout=log, stderr=log, cwd=self.folder)

    def add(self, count):
        """Start workers, without nannies that would restart them."""
        before = len(self._logs)
        for _ in range(count):
            options = ("--no-nanny", "--death-timeout", "60")
            self.workers.append(self._start("worker", self.address, "--nthreads", self._threads, *options))
        logs = [self.folder / f"worker-{number}.log" for number in range(before, before + count)]
        wait_until(lambda: all(b"Registered to:" in log.read_bytes() for log in logs))

    def kill(self, number):
        """Kill a worker with SIGKILL."""
        self.workers[number].kill()
        self.workers.pop(number).wait()
