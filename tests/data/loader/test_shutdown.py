"""Loaders end by loops, errors, signals and lack of memory; nothing hangs and nothing is left."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loader_fixtures import SET, convert_to, index, write_raw
from loader_streams import snapshot, stream, taken
from processes import living, named_memory, no_child_is_left, own_children, wait_until

from gqn_data.dataset import Dataset
from gqn_data.errors import WorkerLost
from gqn_data.loader import SceneLoader, worker_pool
from gqn_data.loader.batch_maker import BatchWorker

SUPPORT = Path(__file__).resolve().parents[2] / "support"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), str(SUPPORT.parents[1])])}
LIMIT = 120  # seconds; only a hang takes so long

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    return convert_to("zarr", index(write_raw(root / "raw" / SET).folder), root)


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    with no_child_is_left():
        yield


@pytest.fixture
def terminated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the workers that had to be terminated because they did not exit in time."""
    numbers: list[int] = []
    terminate = BaseProcess.terminate

    def counted(process: BaseProcess) -> None:
        numbers.append(process.pid or 0)
        terminate(process)

    monkeypatch.setattr(BaseProcess, "terminate", counted)
    # Longer than a loaded machine delays a worker: a terminated one did not notice that it should exit.
    monkeypatch.setattr(worker_pool, "_PATIENCE", 20.0)
    return numbers


# Programs


@contextlib.contextmanager
def _program(folder: Path, start: str, then: str) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """Start a program in a separate process group; yield it and the process ids of its workers."""
    command = [
        sys.executable,
        str(SUPPORT / "loader_program.py"),
        str(folder),
        start,
        "1" if start == "spawn" else "2",
        then,
    ]
    with subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # else later output may be read with the first line, and `communicate` would miss it
        start_new_session=True,
    ) as program:
        try:
            assert program.stdout is not None
            words = program.stdout.readline().split()
            if not words:
                raise AssertionError(program.communicate()[1].decode())
            yield program, [int(number) for number in words[1:]]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)


def _ended(program: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    """Wait for a program and its children; return its exit status, output and errors."""
    # Workers share its standard error, so the pipe ends with the last of them.
    out, errors = program.communicate(timeout=LIMIT)
    wait_until(lambda: not living(program.pid), LIMIT)
    return program.returncode, out.decode(), errors.decode()


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("then", ["loop", "wait"])
def test_ctrl_c_ends_the_program_and_all_workers_with_one_traceback(folder: Path, start: str, then: str) -> None:
    with _program(folder, start, then) as (program, workers):
        assert len(workers) == (2 if start == "spawn" else 4)
        os.killpg(program.pid, signal.SIGINT)
        status, out, errors = _ended(program)
    assert status == -signal.SIGINT
    assert errors.count("Traceback") == 1
    assert errors.endswith("KeyboardInterrupt\n")
    assert out == ""


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_a_program_that_is_killed(folder: Path, start: str, number: int) -> None:
    with _program(folder, start, "loop" if number == signal.SIGTERM else "wait") as (program, workers):
        for process in living(program.pid):
            assert not named_memory(process)
        assert set(workers) <= set(living(program.pid))
        program.send_signal(number)
        status, _, errors = _ended(program)
    assert status == -number
    assert "Traceback" not in errors


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize(
    ("then", "status", "printed", "error"),
    [("exit", 3, "", ""), ("error", 1, "", "ZeroDivisionError\n"), ("break", 0, "left\n", "")],
)
def test_a_program_that_exits_leaves_nothing(
    folder: Path, start: str, then: str, status: int, printed: str, error: str
) -> None:
    if start == "spawn" and then != "exit":
        pytest.skip("as when it is forked; each takes a while")
    with _program(folder, start, then) as (program, _):
        found, out, errors = _ended(program)
    assert (found, out) == (status, printed)
    assert errors.endswith(error)
    assert errors.count("Traceback") == bool(error)


# Two loaders at once


@pytest.mark.parametrize("first_ends_first", [True, False])
def test_the_workers_of_one_loader_end_while_another_continues(
    folder: Path, terminated: list[int], first_ends_first: bool
) -> None:
    expected = stream(folder, 12)
    loaders = [SceneLoader(folder, batch_size=4, seed=7, context=(1, 3), workers=2) for _ in range(2)]
    # Workers of the second are forked while the pipes of the first are open.
    running = [iter(loader) for loader in loaders]
    given = [[snapshot(next(batches)) for _ in range(3)] for batches in running]
    workers = own_children()
    assert len(workers) == 4
    ending, other = (0, 1) if first_ends_first else (1, 0)
    loaders[ending].close()
    assert len(own_children()) == 2
    given[other] += [snapshot(next(running[other])) for _ in range(9)]
    assert given[other] == expected
    loaders[other].close()
    assert not own_children()
    assert terminated == []


def test_a_child_process_does_not_keep_workers_alive(folder: Path, terminated: list[int]) -> None:
    loader = SceneLoader(folder, batch_size=4, workers=2)
    batches = iter(loader)
    next(batches)
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    child.start()
    try:
        loader.close()
        assert terminated == []
        assert own_children() == {child}
    finally:
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_loaders_that_are_left_early_end_at_once(folder: Path, terminated: list[int], start: Any) -> None:
    def by_break(loader: SceneLoader) -> None:
        for _ in loader:
            break

    def by_error(loader: SceneLoader) -> None:
        with pytest.raises(ZeroDivisionError):
            _fail_in(loader)

    def by_close(loader: SceneLoader) -> None:
        batches = iter(loader)
        next(batches)
        loader.close()

    def at_once(loader: SceneLoader) -> None:
        batches = iter(loader)
        next(batches)
        del batches

    leaves: list[Callable[[SceneLoader], None]] = [by_break, by_error, by_close, at_once]
    for leave in leaves if start == "fork" else leaves[:1]:
        leave(SceneLoader(folder, batch_size=4, workers=2, start=start))
        assert not own_children()
    assert terminated == []


def _fail_in(loader: SceneLoader) -> None:
    for _ in loader:
        raise ZeroDivisionError


# Lost workers


def _at_scene(monkeypatch: pytest.MonkeyPatch, wanted: int, happen: Callable[[], object]) -> None:
    """Call `happen` in the worker that reads a scene; forked workers inherit the patch."""
    locate = Dataset.locate
    parent = os.getpid()

    def patched(self: Dataset, scene: int) -> tuple[int, int]:
        if scene == wanted and os.getpid() != parent:
            happen()
        return locate(self, scene)

    monkeypatch.setattr(Dataset, "locate", patched)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("happen", "how"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "by signal 9"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), "by signal 15"),
        (lambda: os._exit(7), "with status 7"),
    ],
)
def test_a_lost_worker_is_reported_with_its_scene(
    folder: Path, monkeypatch: pytest.MonkeyPatch, workers: int, happen: Callable[[], object], how: str
) -> None:
    # Without shuffling, the third batch has scene 9.
    _at_scene(monkeypatch, 9, happen)
    begin, numbers = BaseProcess.start, []

    def noted(process: BaseProcess) -> None:
        begin(process)
        numbers.append(process.pid)

    monkeypatch.setattr(BaseProcess, "start", noted)
    loader = SceneLoader(folder, batch_size=4, workers=workers, shuffle=False, seed=7, epochs=2)
    given = []
    with pytest.raises(WorkerLost) as caught:
        given.extend(batch.scenes.tolist() for batch in loader)
    message = str(caught.value)
    assert f"ended {how}, at scene 9 of train in {folder}; " in message
    assert "fewer workers or smaller batches" in message
    worker, process = message.removeprefix("worker ").split(" (process ")
    assert int(process.split(")")[0]) == numbers[int(worker)]
    assert len(numbers) == workers
    assert given == [[0, 1, 2, 3], [4, 5, 6, 7]][: len(given)]
    assert not own_children()
    # The loader keeps its position and continues.
    assert loader.state_dict()["batches"] == len(given)
    monkeypatch.undo()
    assert taken(loader, 2) == stream(folder, 5, context=(1, 4), shuffle=False)[len(given) : len(given) + 2]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_killed_worker_is_reported(folder: Path, start: Any) -> None:
    loader = SceneLoader(folder, batch_size=4, workers=2, start=start, epochs=20)
    batches = iter(loader)
    for _ in range(2):  # one of each worker
        next(batches)
    killed = max(own_children(), key=lambda process: process.pid or 0)
    os.kill(killed.pid or 0, signal.SIGKILL)
    number = killed.pid
    with pytest.raises(WorkerLost, match=rf"worker [01] \(process {number}\) ended by signal 9, at scene \d+ of train"):
        list(batches)
    assert not own_children()


def test_a_worker_killed_before_its_first_scene_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(self: Any, worker: int) -> None:
        begin(self, worker)
        if worker == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    begin = BatchWorker.begin
    monkeypatch.setattr(BatchWorker, "begin", killed)
    loader = SceneLoader(folder, batch_size=4, workers=2, epochs=4)
    with pytest.raises(WorkerLost, match=r"worker 1 \(process \d+\) ended by signal 9, before it had read a scene"):
        list(loader)


def test_the_workers_of_another_loader_survive(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = stream(folder, 10)
    healthy = SceneLoader(folder, batch_size=4, seed=7, context=(1, 3), workers=1)
    batches = iter(healthy)
    given = [snapshot(next(batches))]
    _at_scene(monkeypatch, 9, lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(WorkerLost):
        list(SceneLoader(folder, batch_size=4, workers=1, epochs=1, tail="exact"))
    given += [snapshot(next(batches)) for _ in range(9)]
    assert given == expected
    healthy.close()


# Lack of memory


def _full_text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_memory_error_is_reported_with_its_scene_and_a_remedy(
    folder: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def fail(self: Dataset, scene: int) -> tuple[int, int]:
        if scene == 9:
            raise MemoryError
        return locate(self, scene)

    locate = Dataset.locate
    monkeypatch.setattr(Dataset, "locate", fail)
    loader = SceneLoader(folder, batch_size=4, workers=workers, shuffle=False, epochs=1)
    given = []
    with pytest.raises(MemoryError) as caught:
        given.extend(batch.scenes.tolist() for batch in loader)
    assert given == [[0, 1, 2, 3], [4, 5, 6, 7]]
    text = _full_text(caught.value)
    assert f"while reading scene 9 of train in {folder}" in text
    assert "fewer workers or smaller batches" in text
    assert ("in worker " in text) == (workers > 0)
    assert not own_children()


@pytest.mark.parametrize("room", [0, 64 << 20])
def test_a_worker_out_of_memory_is_reported_with_its_scene(
    folder: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    kept = []

    def use_up() -> None:
        has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (has + room, has + room))
        while True:
            kept.append(np.ones(1 << 24, np.uint8))

    _at_scene(monkeypatch, 9, use_up)
    loader = SceneLoader(folder, batch_size=4, workers=2, shuffle=False, epochs=2)
    with pytest.raises((MemoryError, WorkerLost)) as caught:
        list(loader)
    text = _full_text(caught.value)
    assert f"scene 9 of train in {folder}" in text
    assert "fewer workers or smaller batches" in text
    assert "worker " in text
    assert not own_children()
