"""Any executor, and a real Dask cluster of processes: equal bytes on any worker, also if workers are killed."""

import multiprocessing
import pickle
import random
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner
from dask_cluster import DaskProcesses, command, environment
from made_scenes import SET, make_raw_folder, tree
from processes import wait_until
from s3_server import environment as keys
from worker_tasks import break_off, fail_at_three, slowly

from gqn_data import errors
from gqn_data.cli import main as gqn_data
from gqn_data.convert import convert, shard_task
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.plan import Options
from gqn_data.convert.shard_task import write_shard
from gqn_data.errors import ClusterError, CorruptRecord, DestinationError, GQNError, OptionError, WorkerLost
from gqn_data.executors import dask, pool
from gqn_data.executors.pool import BorrowedExecutor, Call, Cluster, map_in_order, open_pool, run_call
from gqn_data.formats import WRITABLE
from gqn_data.inspect.verify import verify
from gqn_data.io import atomic
from gqn_data.io.paths import parse_path
from gqn_data.render.write import render_scene_set
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.schema.manifest import read_manifest
from gqn_data.sources.raw_folder import open_raw_folder

ROW = SCENE_SETS[SET]
SMALL = 3000  # bytes a shard: one scene or two

# Convert to more and smaller shards than the command can write.
DRIVER = """
import sys
from pathlib import Path
from gqn_data.executors.dask import connect
from gqn_data.convert import convert
from gqn_data.errors import GQNError
from gqn_data.convert.plan import Options
from gqn_data.schema.catalog import SCENE_SETS
options = Options(formats=("zarr", "webdataset"), shard_bytes=3000)
try:
    with connect(sys.argv[4]) as executor:
        convert(Path(sys.argv[1]), SCENE_SETS[sys.argv[2]], Path(sys.argv[3]), options, executor=executor)
except GQNError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def made_by_processes(raw, root, **options):
    """Convert on this machine without a cluster; return the written files."""
    convert(
        raw, ROW, root, Options(**{"formats": ("zarr", "webdataset"), "shard_bytes": SMALL, "workers": 1, **options})
    )
    return tree(root)


def without_memos(folder):
    """Return a raw folder's files without the notes of when a source file was last changed."""
    return {name: data for name, data in tree(folder).items() if not name.endswith(".npy.json")}


def list_names(folder):
    return sorted(path.name for path in folder.iterdir())


def said_by(*arguments, status=0, **options):
    """Run a command in a subprocess; return its stdout, or its stderr if it fails."""
    options = {"env": environment(), **options}
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=200, check=False, **options)
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with DaskProcesses(tmp_path_factory.mktemp("cluster")) as processes:
        yield processes


@pytest.fixture(scope="module")
def larger_raw(tmp_path_factory):
    """Make a raw folder that fills several shards of 1 MiB, the smallest that the command writes."""
    return make_raw_folder(tmp_path_factory.mktemp("larger") / SET, train=(90, 60), test=(20,), size=64)


@pytest.fixture(scope="module")
def many_raw(tmp_path_factory):
    """Make a raw folder that fills more than fifty small shards."""
    return make_raw_folder(tmp_path_factory.mktemp("many") / SET, train=(30, 15), test=(3,))


@pytest.fixture(scope="module")
def many_whole(many_raw, tmp_path_factory):
    return made_by_processes(many_raw, tmp_path_factory.mktemp("whole"))


# The commands on a cluster.


def test_a_cluster_converts_to_the_bytes_of_local_processes(cluster, larger_raw, tmp_path):
    made = ("--set", SET, "--format", "numpy", "--format", "zarr", "--shard-mb", "1")
    here = made_by_processes(larger_raw, tmp_path / "here", formats=("numpy", "zarr"), shard_bytes=1 << 20, workers=2)
    # Relative paths are relative to the client, not to the workers.
    (tmp_path / "raw").symlink_to(larger_raw)
    said = said_by("convert", "raw", "--out", "there", "--scheduler", cluster.address, *made, cwd=tmp_path)
    assert "170 scenes" in said
    assert tree(tmp_path / "there") == here
    assert len(read_manifest(tmp_path / "there" / "numpy" / SET).splits["train"].shards) > 3


def test_a_cluster_indexes_and_verifies_like_local_processes(cluster, tmp_path):
    here, there = (make_raw_folder(tmp_path / name / SET, train=(4, 3, 2), test=(2,)) for name in ("here", "there"))
    index_raw_folder(open_raw_folder(here, ROW))
    said_by("index", there, "--scheduler", cluster.file)  # a scheduler file, as written by Dask
    assert without_memos(there) == without_memos(here)
    for folder in (here, there):
        path = folder / "train" / "002-of-900.tfrecord"
        data = bytearray(path.read_bytes())
        data[100] ^= 8
        path.write_bytes(data)
    faults = verify(here, ROW, deep=True, workers=1).faults
    assert len(faults) == 1
    line = command("verify", there, "--deep", "--scheduler", cluster.address)
    again = subprocess.run(line, env=environment(), capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert again.stdout.splitlines()[0] == faults[0].replace(str(here), str(there))


@pytest.mark.slow
def test_a_cluster_renders_the_scenes_of_local_processes(cluster, tmp_path):
    wanted = ("render", "sm5", "--scenes", "30", "--views", "2", "--size", "16", "--no-supersample")
    render_scene_set(tmp_path / "here", SET, scenes=30, views=2, frame_size=16, supersample=False, workers=1)
    said_by(*wanted, "--root", "there", "--scheduler", cluster.address, cwd=tmp_path)
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


@pytest.mark.slow
def test_a_cluster_writes_to_an_object_store(s3, s3_address, shared_raw, tmp_path):
    with DaskProcesses(tmp_path / "cluster", **keys(s3_address)) as processes:
        said_by("convert", shared_raw, "--set", SET, "--out", f"{s3}/out", "--scheduler", processes.address)
        found = said_by("verify", f"{s3}/out/zarr/{SET}", "--deep", "--scheduler", processes.address)
    assert "27 frames decoded: all good" in found
    here = made_by_processes(shared_raw, tmp_path / "here", formats=("zarr",), shard_bytes=256 << 20)
    out = parse_path(f"{s3}/out")
    assert {name: (out / name).read_bytes() for name, _ in out.files()} == here


def test_a_worker_error_is_printed_as_one_line(cluster, tmp_path):
    raw = make_raw_folder(tmp_path / SET)
    path = raw / "train" / "001-of-900.tfrecord"
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    said = said_by("convert", raw, "--out", tmp_path / "out", "--scheduler", cluster.address, status=1)
    line = said.splitlines()[-1]
    assert line.startswith(f"Error: {path}: record 0 at byte 0: ")
    assert "Traceback" not in said
    assert not list((tmp_path / "out").rglob("manifest.json"))
    assert not list((tmp_path / "out").rglob("*.partial"))


# Faulty clusters.


def test_an_unreachable_scheduler_is_a_one_line_error(raw, tmp_path):
    hasty = environment(DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="500ms")
    said = said_by("verify", raw, "--scheduler", "tcp://127.0.0.1:9", status=1, env=hasty)
    assert said.startswith("Error: tcp://127.0.0.1:9: no Dask scheduler")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:8786", "tcp://127.0.0.1", "tcp://:x"])
def test_a_malformed_address_is_a_usage_error(address, raw):
    said = CliRunner().invoke(gqn_data, ["verify", str(raw), "--scheduler", address])
    assert said.exit_code == 2
    assert said.stderr.startswith(f"Error: the scheduler is {address!r}, expected tcp://host:port")


def test_workers_and_scheduler_together_are_a_usage_error(raw):
    said = CliRunner().invoke(gqn_data, ["verify", str(raw), "--scheduler", "tcp://127.0.0.1:9", "--workers", "2"])
    assert said.exit_code == 2
    assert "--workers" in said.stderr
    assert "--scheduler" in said.stderr


def test_without_dask_the_error_says_what_to_install(raw):
    program = "import sys; sys.modules['distributed'] = None; from gqn_data.cli import main; main(prog_name='gqn-data')"
    line = [sys.executable, "-c", program, "verify", str(raw), "--scheduler", "tcp://127.0.0.1:9"]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: --scheduler needs Dask, which is not installed (distributed)")
    assert "pip install '.[cluster]'" in line


def test_workers_of_another_version_are_rejected_on_connection(cluster, monkeypatch):
    monkeypatch.setattr(dask, "VERSION", "9.9")
    with pytest.raises(ClusterError, match=r"worker tcp://.*: gqn-toolkit 0\.2\.0, expected 9\.9"):  # noqa: SIM117
        with dask.connect(cluster.address):
            pass


def test_a_late_worker_of_another_version_is_rejected_by_its_first_task():
    call = Call(version="9.9", shared=(), token="1", payload=b"not even read")
    with pytest.raises(ClusterError, match=r"gqn-toolkit 0\.2\.0, expected 9\.9"):
        run_call(call)


def test_a_worker_that_cannot_see_the_data_is_an_error(raw, tmp_path, monkeypatch):
    visible = pool._is_visible
    monkeypatch.setattr(pool, "_is_visible", lambda path: "plan.json" not in path.name and visible(path))
    with (
        ThreadPoolExecutor(1) as executor,
        pytest.raises(ClusterError, match=r"cannot see .*plan\.json"),
    ):
        convert(raw, ROW, tmp_path / "out", Options(), executor=executor)
    assert not list(tmp_path.rglob("manifest.json"))


def test_workers_without_the_package_are_a_readable_error():
    class Bare(Executor):
        def submit(self, *_):
            future = Future()
            future.set_exception(ModuleNotFoundError("No module named 'gqn_data'", name="gqn_data"))
            return future

    with (
        open_pool(1, Bare()) as executor,
        pytest.raises(ClusterError, match="install gqn-toolkit"),
    ):
        list(map_in_order(executor, slowly, range(3), 2))


def test_a_cluster_without_workers_times_out(raw, tmp_path):
    with DaskProcesses(tmp_path / "cluster", workers=0) as processes:
        impatient = environment(GQN_WAIT_FOR_WORKERS="1")
        said = said_by("verify", raw, "--scheduler", processes.address, status=1, env=impatient).splitlines()
    assert said[0] == f"{processes.address}: no workers; waiting up to 1 s for one"
    assert said[-1].startswith(f"Error: {processes.address}: no worker for 1 s (GQN_WAIT_FOR_WORKERS)")


@pytest.mark.slow
def test_a_cluster_waits_for_its_first_worker(raw, tmp_path):
    with DaskProcesses(tmp_path / "cluster", workers=0) as processes:
        child = subprocess.Popen(
            command("verify", raw, "--scheduler", processes.address),
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        assert "waiting up to" in child.stderr.readline()
        processes.add(1)
        assert child.wait(60) == 0
        child.stderr.close()


def test_a_wait_that_is_not_a_number_is_an_option_error(monkeypatch):
    monkeypatch.setenv(dask.WAIT_ENV, "long")
    with pytest.raises(OptionError, match="GQN_WAIT_FOR_WORKERS is 'long', expected seconds"):
        dask._wait_seconds()


# Killed processes.


def start(raw, root, address, **variables):
    line = [sys.executable, "-c", DRIVER, str(raw), SET, str(root), address]
    return subprocess.Popen(line, env=environment(**variables), stderr=subprocess.PIPE, text=True)


def ended(child):
    said = child.communicate(timeout=120)[1]
    return child.returncode, said


def wait_for_files(root, count, child):
    """Wait until a run has written more than `count` files, or has ended."""
    wait_until(lambda: child.poll() is not None or sum(1 for _ in Path(root).rglob("*")) > count)


@pytest.fixture(scope="module")
def mortal(tmp_path_factory):
    """Start a cluster of two workers; tests that kill workers add as many."""
    with DaskProcesses(tmp_path_factory.mktemp("mortal")) as processes:
        yield processes


def test_killing_a_worker_gives_the_same_bytes(mortal, many_raw, many_whole, tmp_path, faults):
    tries, survived = faults.tries(1), 0
    chance = random.Random(1)
    for number in range(tries):
        root = tmp_path / f"out{number}"
        child = start(many_raw, root, mortal.address)
        wait_for_files(root, chance.randrange(20, 120), child)
        running = child.poll() is None
        mortal.kill(0)
        code, said = ended(child)
        assert code == 0, said
        assert running
        survived += tree(root) == many_whole
        mortal.add(1)
    faults.record(
        "killed: a worker of a Dask cluster", holds="the run ends with the same bytes", tries=tries, survived=survived
    )


def test_killing_all_workers_is_an_error_and_a_rerun_resumes(mortal, many_raw, many_whole, tmp_path):
    root = tmp_path / "out"
    child = start(many_raw, root, mortal.address, GQN_WAIT_FOR_WORKERS="1")
    wait_for_files(root, 60, child)
    mortal.kill(0)
    mortal.kill(0)
    code, said = ended(child)
    assert code == 1
    assert said.startswith("WorkerLost: ")
    assert "no worker for 1 s" in said
    assert not (root / "webdataset" / SET / "manifest.json").exists()
    mortal.add(2)
    assert ended(start(many_raw, root, mortal.address)) == (0, "")
    assert tree(root) == many_whole


def test_killing_the_client_and_rerunning_gives_the_same_bytes(mortal, many_raw, many_whole, tmp_path, faults):
    tries, survived = faults.tries(1), 0
    chance = random.Random(2)
    for number in range(tries):
        root = tmp_path / f"out{number}"
        child = start(many_raw, root, mortal.address)
        wait_for_files(root, chance.randrange(20, 120), child)
        child.kill()
        code, _ = ended(child)
        assert code == -signal.SIGKILL
        code, said = ended(start(many_raw, root, mortal.address))
        assert code == 0, said
        survived += tree(root) == many_whole
    faults.record(
        "killed: convert, on a Dask cluster",
        holds="the same command ends with the same bytes",
        tries=tries,
        survived=survived,
    )


def test_killing_the_scheduler_is_a_readable_error(many_raw, many_whole, tmp_path):
    root = tmp_path / "out"
    with DaskProcesses(tmp_path / "cluster") as processes:
        child = start(many_raw, root, processes.address)
        wait_for_files(root, 60, child)
        processes.scheduler.kill()
        code, said = ended(child)
    assert code == 1
    reason = "a task was cancelled|the connection to the (scheduler|cluster) was lost"
    assert re.fullmatch(rf"WorkerLost: ({reason}).*rerun to resume\n", said)
    made_by_processes(many_raw, root)
    assert tree(root) == many_whole


def test_ctrl_c_cancels_pending_tasks(many_raw, many_whole, tmp_path, cluster):
    root = tmp_path / "out"
    line = [sys.executable, "-c", DRIVER, str(many_raw), SET, str(root), cluster.address]
    child = subprocess.Popen(line, env=environment(), stderr=subprocess.DEVNULL)
    wait_for_files(root, 60, child)
    child.send_signal(signal.SIGINT)
    assert child.wait(60) != 0
    assert not (root / "webdataset" / SET / "manifest.json").exists()
    with dask.connect(cluster.address) as executor:
        wait_until(lambda: not any(executor._client.processing().values()))
    assert ended(start(many_raw, root, cluster.address)) == (0, "")
    assert tree(root) == many_whole


# Any executor.


@pytest.fixture(params=["threads", "processes"])
def given(request):
    if request.param == "threads":
        executor = ThreadPoolExecutor(4)
    else:
        executor = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
    with executor:
        yield executor
        assert executor.submit(len, "it is still there").result() == 17


def test_any_executor_gives_the_same_bytes(given, tmp_path, shared_raw):
    whole = made_by_processes(shared_raw, tmp_path / "whole", formats=WRITABLE)
    convert(shared_raw, ROW, tmp_path / "out", Options(formats=WRITABLE, shard_bytes=SMALL), executor=given)
    assert tree(tmp_path / "out") == whole
    folder = tmp_path / "out" / "zarr" / SET
    assert verify(folder, ROW, deep=True, executor=given) == verify(folder, ROW, deep=True, workers=1)


def test_any_executor_indexes_and_skips_corrupt_records(given, tmp_path):
    folders = [make_raw_folder(tmp_path / name / SET) for name in ("one", "other")]
    for raw in folders:
        path = raw / "train" / "001-of-900.tfrecord"
        data = bytearray(path.read_bytes())
        data[40] ^= 1
        path.write_bytes(data)
    options = Options(on_corrupt="skip", shard_bytes=SMALL, workers=1)
    convert(folders[0], ROW, tmp_path / "here", options)
    convert(folders[1], ROW, tmp_path / "there", options, executor=given)
    assert tree(tmp_path / "there") == tree(tmp_path / "here")
    index_raw_folder(open_raw_folder(folders[0], ROW), on_corrupt="skip", executor=given)
    index_raw_folder(open_raw_folder(folders[1], ROW), on_corrupt="skip")
    assert without_memos(folders[0]) == without_memos(folders[1])


def test_threads_render_the_same_bytes(tmp_path):
    wanted = {"scenes": 60, "views": 2, "frame_size": 16, "supersample": False}
    render_scene_set(tmp_path / "here", SET, workers=1, **wanted)
    with ThreadPoolExecutor(4) as given:
        render_scene_set(tmp_path / "there", SET, executor=given, **wanted)
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def test_dasks_own_executor_gives_the_same_bytes(cluster, shared_raw, tmp_path):
    from distributed import Client

    whole = made_by_processes(shared_raw, tmp_path / "whole")
    options = Options(formats=("zarr", "webdataset"), shard_bytes=SMALL)
    with Client(cluster.address, set_as_default=False) as client:
        convert(shared_raw, ROW, tmp_path / "out", options, executor=client.get_executor())
    assert tree(tmp_path / "out") == whole


def test_errors_of_tasks_arrive_unchanged(given):
    with open_pool(1, given) as executor:
        with pytest.raises(CorruptRecord, match="file: record 3 at byte 7: made for the test") as caught:
            list(map_in_order(executor, fail_at_three, range(6), 4))
        assert (caught.value.record, caught.value.offset) == (3, 7)


def test_all_our_errors_can_be_pickled():
    def leaves(kind):
        return [kind, *(leaf for below in kind.__subclasses__() for leaf in leaves(below))]

    made = {
        errors.UnknownName: ("kind", "name", ["names"]),
        errors.UnknownSceneSet: ("kind", "name", ["names"]),
        errors.CorruptRecord: ("file", 1, 2, "reason"),
        errors.CorruptFraming: ("file", 1, 2, "reason"),
        errors.IrregularFile: ("file", "a named pipe"),
    }
    for kind in leaves(GQNError):
        if kind.__module__ == "gqn_data.errors":
            error = kind(*made.get(kind, ("what, where, what to do",)))
            copy = pickle.loads(pickle.dumps(error))
            assert (type(copy), str(copy)) == (kind, str(error))


def test_a_connection_lost_while_fetching_a_result_is_reported():
    with ThreadPoolExecutor(1) as given, open_pool(1, given) as executor, pytest.raises(WorkerLost) as caught:
        executor.result(executor.submit(break_off))
    assert re.fullmatch(r"the connection to the cluster was lost: in <TCP .*rerun to resume", str(caught.value))


def test_an_error_cancels_pending_tasks_and_awaits_running_ones():
    begun, done, submitted = [], [], []

    class Recorded(ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            submitted.append(super().submit(self._noted, fn, *args, **kwargs))
            return submitted[-1]

        @staticmethod
        def _noted(fn, *args, **kwargs):
            begun.append(args)
            try:
                return fn(*args, **kwargs)
            finally:
                if len(begun) == 5:  # runs while the task before it fails, until all later ones are cancelled
                    wait_until(lambda: submitted[5:] and all(future.cancelled() for future in submitted[5:]), 60)
                done.append(args)

    with Recorded(1) as given:
        with pytest.raises(CorruptRecord), open_pool(1, given) as executor:
            list(map_in_order(executor, fail_at_three, range(50), 40))
        assert len(begun) == len(done) <= 5
        assert not executor._futures


def test_an_executor_that_was_shut_down_is_a_readable_error():
    with ThreadPoolExecutor(1) as given, open_pool(1, given) as executor:
        held = threading.Event()
        given.submit(held.wait)
        results = map_in_order(executor, slowly, range(40), 1)
        threading.Timer(0.1, lambda: (given.shutdown(wait=False, cancel_futures=True), held.set())).start()
        with pytest.raises((WorkerLost, RuntimeError), match=r"a task was cancelled|after shutdown"):
            list(results)


def test_a_growing_cluster_is_given_more_tasks():
    class Growing(Cluster):
        size, handed = 4, 0

        def slots(self):
            return self.size

        def check(self):
            pass

        def submit(self, fn, /, *args, **kwargs):
            self.handed += 1
            future = Future()
            future.set_result(fn(*args, **kwargs))
            return future

    executor = Growing()
    with open_pool(1, executor) as borrowed:
        results = map_in_order(borrowed, abs, range(1000), 2)
        assert next(results) == 0
        assert executor.handed == 16  # the minimum, so that an adaptive cluster sees work
        executor.size = 100
        assert [next(results) for _ in range(3)] == [1, 2, 3]
        assert executor.handed == 203
        executor.size = 10
        assert list(results) == list(range(4, 1000))


@pytest.mark.parametrize(("executor", "tasks"), [(ThreadPoolExecutor(40), 80), (Executor(), 64)])
def test_executors_get_twice_as_many_tasks_as_they_run(executor, tasks):
    assert BorrowedExecutor(executor).max_pending == tasks


# Two attempts at one shard.


def test_two_attempts_at_one_file_do_not_collide(tmp_path):
    path = tmp_path / "shard"
    meet = threading.Barrier(2)

    def attempt():
        with atomic.own_temporaries(), atomic.writing(path) as file:
            for part in range(3):
                meet.wait()  # both attempts are writing
                file.write(bytes([part]) * 1000)
                file.flush()
        return path.read_bytes()

    with ThreadPoolExecutor(2) as threads:
        found = [future.result() for future in [threads.submit(attempt), threads.submit(attempt)]]
    assert found == [b"".join(bytes([part]) * 1000 for part in range(3))] * 2
    assert list_names(tmp_path) == ["shard"]


def test_temporaries_of_a_killed_attempt_are_removed(tmp_path):
    with atomic.own_temporaries():
        held = atomic.writing(tmp_path / "shard")
        held.__enter__().write(b"half")
        assert len(list_names(tmp_path)) == 1
        atomic.remove_temporaries(tmp_path)
        assert list_names(tmp_path) == []
        with pytest.raises(FileNotFoundError):  # its file was removed
            held.__exit__(None, None, None)
    assert list_names(tmp_path) == []


class Stopped(Executor):
    """Executor that runs the first tasks and keeps the next: a cluster whose client is killed."""

    def __init__(self, first):
        self.first = first
        self.kept = []

    def submit(self, fn, /, *args, **kwargs):
        if self.first == 0:
            self.kept.append((fn, args, kwargs))
            raise KeyboardInterrupt
        self.first -= 1
        future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def task_left_behind(raw, root):
    """Return a task of a run that ended before a worker ran the task."""
    stopped = Stopped(6)
    with pytest.raises(KeyboardInterrupt):
        convert(raw, ROW, root, Options(shard_bytes=SMALL), executor=stopped)
    _, (call,), _ = stopped.kept[0]
    function, arguments, _ = pickle.loads(call.payload)
    assert function is write_shard
    return arguments[0]


def test_a_worker_that_outlives_its_run_cannot_write_into_the_next(shared_raw, tmp_path, monkeypatch):
    task = task_left_behind(shared_raw, tmp_path / "out")
    read = shard_task.scenes_in_sequence
    whole = {}

    def scenes(*arguments):
        yield from read(*arguments)
        if not whole:  # a run with other options starts and ends between reading and writing
            whole["is"] = None
            convert(shared_raw, ROW, tmp_path / "out", Options(shard_bytes=9000, workers=1))
            whole["is"] = tree(tmp_path)

    monkeypatch.setattr(shard_task, "scenes_in_sequence", scenes)
    with pytest.raises(DestinationError, match="run of this shard is over; the shard is not written"):
        write_shard(task)
    assert tree(tmp_path) == whole["is"]
    assert verify(tmp_path / "out" / "zarr" / SET, ROW, workers=1).faults == ()


def test_a_worker_that_outlives_its_run_cannot_write_to_another_plan(shared_raw, tmp_path):
    task = task_left_behind(shared_raw, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        convert(shared_raw, ROW, tmp_path / "out", Options(shard_bytes=9000), executor=Stopped(5))
    before = tree(tmp_path)
    with pytest.raises(DestinationError, match="run of this shard is over"):
        write_shard(task)
    assert tree(tmp_path) == before


def test_a_worker_that_outlives_its_client_may_write_the_reruns_shard(shared_raw, tmp_path):
    task = task_left_behind(shared_raw, tmp_path / "out")
    write_shard(task)
    convert(shared_raw, ROW, tmp_path / "out", Options(shard_bytes=SMALL, workers=1))
    assert tree(tmp_path / "out") == made_by_processes(shared_raw, tmp_path / "whole", formats=("zarr",))
