"""Worker processes that are stopped, that may not be started, or that a script starts without a guard."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import worker_tasks
from fault_counts import FaultCounts
from loader_fixtures import SET, convert_to, index, write_raw
from processes import living, wait_until

from gqn_data.convert import convert
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.plan import Options
from gqn_data.errors import OptionError
from gqn_data.executors import processes
from gqn_data.executors.pool import map_in_order, open_pool
from gqn_data.inspect.verify import verify
from gqn_data.loader import SceneLoader
from gqn_data.loader.worker_pool import WorkerPool
from gqn_data.main_guard import GUARD_HINT
from gqn_data.render.write import render_scene_set
from gqn_data.schema.catalog import find_scene_set
from gqn_data.sources.raw_folder import open_raw_folder

SUPPORT = Path(__file__).resolve().parents[2] / "support"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), str(SUPPORT.parents[1])])}
LIMIT = 120  # seconds; only a hang takes so long
FACTS = find_scene_set(SET)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc"),
]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index(write_raw(tmp_path_factory.mktemp("scenes") / "raw" / SET).folder)


@pytest.fixture(scope="module")
def folder(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_to("zarr", raw, tmp_path_factory.mktemp("zarr"))


def _run(command: list[str], folder: Path) -> tuple[int, str, str]:
    """Run a program and wait for all its processes; return its status, output and errors."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as program:
        try:
            out, errors = program.communicate(timeout=LIMIT)
            wait_until(lambda: not living(program.pid), LIMIT)
            return program.returncode, out, errors
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)


# Stopped processes


@pytest.mark.parametrize(
    ("workers", "then", "status"),
    [
        pytest.param("loader-fork", "close", 0, marks=pytest.mark.slow),
        ("loader-fork", "error", 1),
        pytest.param("loader-fork", "exit", 3, marks=pytest.mark.slow),
        ("loader-fork", "interrupt", -signal.SIGINT),
        pytest.param("loader-fork", "leave", 0, marks=pytest.mark.slow),
        ("loader-spawn", "leave", 0),
        pytest.param("pool", "close", 0, marks=pytest.mark.slow),
        ("pool", "error", 1),
        pytest.param("pool", "exit", 3, marks=pytest.mark.slow),
        ("pool", "interrupt", -signal.SIGINT),
    ],
)
def test_a_program_with_a_stopped_worker_ends(
    folder: Path, tmp_path: Path, faults: FaultCounts, workers: str, then: str, status: int
) -> None:
    program = SUPPORT / "stopped_program.py"
    found, out, errors = _run([sys.executable, str(program), workers, then, str(folder)], tmp_path)
    assert out.startswith("stopped "), errors
    assert ("closed" in out) == (then in ("close", "leave"))
    faults.record(
        "found in use: a worker process stopped by SIGSTOP",
        holds="the program ends, with its own exit status, and leaves no process",
        tries=1,
        survived=int(found == status),
    )


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect warnings of stalls, and continue the stopped children at each."""
    messages: list[str] = []

    def warn(message: str, *_: object, **__: object) -> None:
        messages.append(message)
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGCONT)

    monkeypatch.setattr(processes, "warnings", SimpleNamespace(warn=warn))
    monkeypatch.setattr(processes, "_STALLED", 0.3)
    return messages


def _by_pool() -> list[int]:
    with open_pool(2) as executor:
        return list(map_in_order(executor, worker_tasks.stop_at_three, range(9), 4))


def _by_borrowed() -> list[int]:
    with (
        ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as given,
        open_pool(0, given) as executor,
    ):
        return list(map_in_order(executor, worker_tasks.stop_at_three, range(9), 4))


def _by_fork() -> list[int]:
    with WorkerPool(worker_tasks.stop_at_three, 2, start="fork") as workers:
        return list(workers.in_order(iter(range(9)), 2))


def _by_spawn() -> list[int]:
    with WorkerPool(worker_tasks.stop_at_three, 2) as workers:
        return list(workers.in_order(iter(range(9)), 2))


@pytest.mark.parametrize("by", [_by_pool, _by_borrowed, _by_fork, _by_spawn])
def test_a_wait_for_a_stopped_worker_is_announced_once(
    warned: list[str], faults: FaultCounts, by: Callable[[], list[int]]
) -> None:
    assert by() == [*range(9)]
    (message,) = warned
    survived = "(stopped)" in message and "kill -CONT" in message
    faults.record(
        "found in use: a wait for a worker that makes no progress",
        holds="a warning names the process and its state; results continue with it",
        tries=1,
        survived=int(survived),
    )


def test_a_process_that_works_is_not_a_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_STALLED", 0.0)
    watch = processes.StallWarning()
    watch.check([os.getpid()])
    sum(range(3_000_000))  # more than the tick of the clock of processes
    watch.check([os.getpid()])  # no warning, which would be an error here
    watch.check([2**30])
    with pytest.warns(RuntimeWarning, match=rf"worker process {2**30} \(state unknown\)"):
        watch.check([2**30])


# Daemonic processes


def _loaded(folder: Path, raw: Path, out: Path) -> None:
    list(SceneLoader(folder, batch_size=4, workers=2, epochs=1))


def _converted(folder: Path, raw: Path, out: Path) -> None:
    convert(raw, FACTS, out, Options(workers=2, shard_bytes=3000))


def _verified(folder: Path, raw: Path, out: Path) -> None:
    verify(folder, FACTS, workers=2)


def _indexed(folder: Path, raw: Path, out: Path) -> None:
    index_raw_folder(open_raw_folder(write_raw(out / SET).folder, FACTS), workers=2)


def _rendered(folder: Path, raw: Path, out: Path) -> None:
    render_scene_set(out, SET, scenes=60, frame_size=16, views=3, supersample=False, workers=2)


CALLS = {
    _loaded: "workers=0",
    _converted: "workers=1",
    _verified: "workers=1",
    _indexed: "workers=1",
    _rendered: "workers=1",
}


def _error_of(call: Callable[[Path, Path, Path], None], *paths: Path) -> str:
    try:
        call(*paths)
    except OptionError as error:
        return str(error)
    return "no error"


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("call", CALLS)
def test_a_daemonic_process_is_told_the_number_of_workers(
    folder: Path, raw: Path, tmp_path: Path, faults: FaultCounts, start: Any, call: Callable[[Path, Path, Path], None]
) -> None:
    if start == "spawn" and call is not _loaded:
        pytest.skip("as when it is forked; each takes a while")
    with multiprocessing.get_context(start).Pool(1) as pool:
        message = pool.apply(_error_of, (call, folder, raw, tmp_path / "out"))
    faults.record(
        "found in use: workers started by a worker of multiprocessing.Pool",
        holds="an error names the number of workers to pass",
        tries=1,
        survived=int("daemonic" in message and message.endswith(f"Pass {CALLS[call]}")),
    )


def _scenes_read(folder: Path) -> int:
    return len(list(SceneLoader(folder, batch_size=4, workers=0, epochs=1)))


def test_a_daemonic_process_loads_and_converts_without_workers(folder: Path, raw: Path, tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_scenes_read, (folder,)) == 5
        pool.apply(convert, (raw, FACTS, tmp_path / "out", Options(workers=1)))
    assert list((tmp_path / "out").rglob("manifest.json"))


# Scripts without a guard

BEGIN = """
import sys
from pathlib import Path
from gqn_data.convert import convert
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.plan import Options
from gqn_data.inspect.verify import verify
from gqn_data.loader import SceneLoader
from gqn_data.render.write import render_scene_set
from gqn_data.schema.catalog import find_scene_set
from gqn_data.sources.raw_folder import open_raw_folder

folder, raw, facts = Path(sys.argv[1]), Path(sys.argv[2]), find_scene_set(sys.argv[3])
"""
SCRIPTS = {
    "load": "list(SceneLoader(folder, batch_size=4, workers=2, start='spawn', epochs=1))",
    "convert": "convert(raw, facts, Path('out'), Options(workers=2, shard_bytes=3000))",
    "verify": "verify(folder, facts, workers=2)",
    "index": "index_raw_folder(open_raw_folder(raw, facts), workers=2)",
    "render": "render_scene_set(Path('out'), facts.name, scenes=60, frame_size=16, views=3, workers=2)",
    "handlers": """
try:
    list(SceneLoader(folder, batch_size=4, workers=2, start='spawn', epochs=1))
except BaseException as error:
    print("caught", error)
    raise
finally:
    print("cleaned up")
""",
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in SCRIPTS])
def test_a_script_without_a_guard_is_told_so_once(folder: Path, tmp_path: Path, faults: FaultCounts, name: str) -> None:
    raw = write_raw(tmp_path / "raw" / SET).folder
    if name == "convert":
        index(raw)
    script = tmp_path / "script.py"
    script.write_text(BEGIN + SCRIPTS[name])
    status, out, errors = _run([sys.executable, str(script), str(folder), str(raw), SET], tmp_path)
    assert status == 1
    assert errors.count("Traceback") == 1
    assert out.count("cleaned up") == out.count("caught") == (name == "handlers")
    guarded = tmp_path / "guarded.py"
    guarded.write_text(
        BEGIN + "if __name__ == '__main__':\n" + "".join(f"    {x}\n" for x in SCRIPTS[name].splitlines())
    )
    works = _run([sys.executable, str(guarded), str(folder), str(raw), SET], tmp_path)[0] == 0
    faults.record(
        "found in use: a script that spawns workers without a main guard",
        holds="one error names the guard; with it the script works",
        tries=1,
        survived=int(GUARD_HINT in errors.splitlines()[-1] and works),
    )


def test_a_pool_of_the_callers_without_a_guard_names_it_too(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"{BEGIN}import multiprocessing\n"
        "child = multiprocessing.get_context('spawn').Process(target=print)\n"
        "if __name__ == '__main__':\n    child.start()\n    child.join()\n    sys.exit(child.exitcode)\n"
        + SCRIPTS["load"]
    )
    status, _, errors = _run([sys.executable, str(script), str(folder), "raw", SET], tmp_path)
    assert status == 1
    assert errors.splitlines()[-1].startswith("gqn_data.errors.OptionError: ")
    assert GUARD_HINT in errors


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    before = set(multiprocessing.active_children())
    yield
    assert set(multiprocessing.active_children()) <= before
