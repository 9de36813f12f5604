"""The cache of remote files: right bytes or a clear error, shared by processes, bounded, intact after any kill."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fault_server import Fault, FaultServer
from made_paths import ChangingPlace, CutPlace, LongPlace, made_file
from processes import wait_until

from gqn_data.cache import directory
from gqn_data.cache.shard_cache import ShardCache, default_folder, open_cache
from gqn_data.errors import FetchStopped, NoSpace, OptionError, ShardChecksumError
from gqn_data.io import regular
from gqn_data.io.atomic import sha256_of
from gqn_data.io.paths import parse_path
from gqn_data.io.ranged import RangedFile
from gqn_data.schema.manifest import FileRow

SUPPORT = Path(__file__).resolve().parents[2] / "support"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), str(SUPPORT.parents[1])])}


@pytest.fixture
def cache(tmp_path):
    return ShardCache(tmp_path / "cache", 10_000)


@pytest.fixture
def remote(tmp_path):
    return tmp_path / "remote"


def addresses(cache):
    return {entry.path.name for entry in cache.directory.entries()}


def all_files(cache):
    return {path.name for path in (cache.folder / "files").iterdir()}


# One file.


def test_a_file_is_fetched_once_and_then_cached(cache, remote):
    source, row = made_file(remote, "a", 2500)
    path = cache.get(source, row)
    assert path.read_bytes() == source.path.read_bytes()
    assert cache.get(source, row) == path
    assert source.fetches == 1
    assert all_files(cache) == {row.sha256}


def test_equal_files_of_two_datasets_share_a_copy(cache, remote):
    first, row = made_file(remote / "one", "a", 2500)
    second, _ = made_file(remote / "two", "a", 2500)
    assert cache.get(first, row) == cache.get(second, row)
    assert (first.fetches, second.fetches) == (1, 0)


@pytest.mark.parametrize("kind", [None, CutPlace, LongPlace, ChangingPlace])
@pytest.mark.parametrize("wrong", [1, 2])
def test_wrong_bytes_are_fetched_again(cache, remote, kind, wrong):
    source, row = made_file(remote, "a", 2500, wrong=wrong, **({"kind": kind} if kind else {}))
    assert cache.get(source, row).read_bytes() == source.path.read_bytes()
    assert source.fetches == wrong + 1


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (None, "SHA-256"),
        (CutPlace, "2499 bytes"),
        (LongPlace, "2500"),
        (ChangingPlace, ""),
    ],
)
def test_bytes_that_stay_wrong_are_an_error_and_leave_no_file(cache, remote, kind, found):
    source, row = made_file(remote, "a", 2500, wrong=99, **({"kind": kind} if kind else {}))
    with pytest.raises(ShardChecksumError, match=rf"made://a: .*{found}.* 3 attempts"):
        cache.get(source, row)
    assert source.fetches == 3
    assert all_files(cache) == set()


def test_a_file_missing_from_the_store_is_an_error_with_its_name(cache, remote):
    source, row = made_file(remote, "a", 2500)
    source.path.unlink()
    with pytest.raises(ShardChecksumError, match=r"^made://a: "):
        cache.get(source, row)
    source, row = made_file(remote, "b", 2500, checksum=False)
    source.path.unlink()
    with pytest.raises(ShardChecksumError, match=r"^made://b: "):
        cache.get(source, row)


def test_a_file_without_a_checksum_is_named_by_its_version(cache, remote):
    source, row = made_file(remote, "a", 2500, checksum=False)
    old = cache.get(source, row)
    assert cache.get(source, row) == old
    assert source.fetches == 1
    os.utime(source.path, ns=(1, 1))  # another entity tag
    new = cache.get(source, row)
    assert new != old
    assert source.fetches == 2


def test_the_end_of_a_file_is_a_separate_copy(cache, remote):
    source, row = made_file(remote, "a", 2500)
    path = cache.get_tail(source, row, 2000)
    assert path.read_bytes() == source.path.read_bytes()[2000:]
    assert cache.get_tail(source, row, 2000) == path
    assert source.fetches == 1
    assert cache.get(source, row) != path


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("position", [0, 1234, 2499])
def test_a_damaged_copy_is_found_and_fetched_again(cache, remote, checksum, position):
    source, row = made_file(remote, "a", 2500, checksum=checksum)
    other, other_row = made_file(remote, "b", 2500, checksum=checksum)
    path, kept = cache.get(source, row), cache.get(other, other_row)
    assert cache.directory.verify() == []
    damaged = bytearray(path.read_bytes())
    damaged[position] ^= 16
    path.write_bytes(damaged)
    (fault,) = cache.directory.verify()
    assert str(path) in fault
    assert addresses(cache) == {kept.name}
    assert cache.get(source, row).read_bytes() == source.path.read_bytes()


def test_any_flipped_bit_in_any_copy_is_found(cache, remote, faults):
    tries, survived = faults.tries(20, 200), 0
    chance = random.Random(11)
    files = [made_file(remote, name, 1500, checksum=checksum) for name, checksum in (("a", True), ("b", False))]
    for _ in range(tries):
        source, row = chance.choice(files)
        path = cache.get(source, row)
        data = bytearray(path.read_bytes())
        data[chance.randrange(1500)] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        found = cache.directory.verify()
        survived += (
            len(found) == 1 and path.name in found[0] and sha256_of(cache.get(source, row)) == sha256_of(source.path)
        )
    faults.record(
        "flipped bits: copies in a cache", holds="`gqn-data cache --verify` finds it", tries=tries, survived=survived
    )


@pytest.mark.parametrize("size", [0, 2499, 2501])
def test_a_copy_of_another_size_is_not_used(cache, remote, size):
    source, row = made_file(remote, "a", 2500)
    path = cache.get(source, row)
    os.truncate(path, size)
    assert cache.get(source, row).read_bytes() == source.path.read_bytes()
    assert source.fetches == 2


def test_a_fetch_ends_on_a_stop_request(cache, remote):
    source, row = made_file(remote, "a", 9000, block=10, seconds=0.01)
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(FetchStopped):
        cache.fetch_ahead(source, row, stop)
    assert all_files(cache) == set()


def test_a_full_disk_is_an_error_and_leaves_no_file(cache, remote, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    source, row = made_file(remote, "a", 2500)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpace, match="--cache-gb"):
        cache.get(source, row)
    assert all_files(cache) == set()


def test_cut_and_flipped_bodies_over_http_end_with_the_right_bytes(cache, tmp_path):
    _, row = made_file(tmp_path / "served", "a", 9000)
    with FaultServer(tmp_path / "served") as server:
        remote_file = parse_path(f"{server.url}/a")
        server.next(Fault(flip=7), path="a")
        server.next(Fault(cut=100), path="a")
        path = cache.get(remote_file, row)
        assert sha256_of(path) == row.sha256
        server.always(Fault(flip=8999), path="a")
        cache.directory.clear()
        with pytest.raises(ShardChecksumError, match="/a: SHA-256"):
            cache.get(remote_file, row)
    assert all_files(cache) == set()


# Eviction.


def test_the_least_recently_used_copy_is_evicted_first(cache, remote):
    files = {name: made_file(remote, name, 3000) for name in "abcd"}
    for name in "abc":
        cache.get(*files[name])
        time.sleep(0.01)
    cache.get(*files["a"])  # used again
    cache.get(*files["d"])
    assert addresses(cache) == {files[name][1].sha256 for name in "acd"}


def test_a_file_larger_than_the_cache_is_refused(cache, remote):
    source, row = made_file(remote, "a", 10_001)
    with pytest.raises(OptionError, match=r"made://a: 10\.0 kB.*10\.0 kB.*--cache-gb"):
        cache.get(source, row)
    assert source.fetches == 0


def test_an_open_copy_stays_readable_after_its_eviction(cache, remote):
    source, row = made_file(remote, "a", 6000)
    file = RangedFile(cache.get(source, row), 6000)
    assert file.read(0, 10) == source.path.read_bytes()[:10]
    cache.get(*made_file(remote, "b", 6000))
    assert row.sha256 not in addresses(cache)
    assert file.read(5990, 10) == source.path.read_bytes()[-10:]


def test_pinned_copies_are_evicted_last(cache, remote):
    files = {name: made_file(remote, name, 3000) for name in "abcdef"}
    pins = cache.directory.pins()
    for name in "abc":
        cache.get(*files[name])
        time.sleep(0.01)
    pins.set([files["a"][1].sha256, files["b"][1].sha256])
    cache.get(*files["d"])
    assert addresses(cache) == {files[name][1].sha256 for name in "abd"}
    cache.get(*files["e"])
    assert addresses(cache) == {files[name][1].sha256 for name in "abe"}
    pins.close()
    cache.get(*files["f"])
    assert addresses(cache) == {files[name][1].sha256 for name in "bef"}


def test_only_an_urgent_fetch_evicts_pinned_copies(cache, remote):
    files = {name: made_file(remote, name, 3000) for name in "abcd"}
    for name in "abc":
        cache.get(*files[name])
        time.sleep(0.01)
    pins = cache.directory.pins()
    pins.set([files[name][1].sha256 for name in "abc"])
    assert not cache.fetch_ahead(*files["d"], threading.Event())
    assert addresses(cache) == {files[name][1].sha256 for name in "abc"}
    cache.get(*files["d"])
    assert addresses(cache) == {files[name][1].sha256 for name in "bcd"}
    pins.close()


def test_pins_of_a_killed_process_do_not_count(cache, remote):
    files = {name: made_file(remote, name, 3000) for name in "abcd"}
    for name in "abc":
        cache.get(*files[name])
    program = (
        "import sys, time; from pathlib import Path; from gqn_data.cache.shard_cache import ShardCache\n"
        "pins = ShardCache(Path(sys.argv[1]), 10_000).directory.pins()\n"
        "pins.set(sys.argv[2:]); print('set', flush=True); time.sleep(600)"
    )
    pinned = [files[name][1].sha256 for name in "abc"]
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(cache.folder), *pinned], env=ENVIRONMENT, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout.readline() == b"set\n"
        assert not cache.fetch_ahead(*files["d"], threading.Event())
        holder.kill()
    assert cache.fetch_ahead(*files["d"], threading.Event())
    assert list((cache.folder / "pins").iterdir()) == []


def test_clearing_removes_all_copies(cache, remote):
    cache.get(*made_file(remote, "a", 3000))
    cache.get(*made_file(remote, "b", 2000, checksum=False))
    assert cache.directory.clear() == (2, 5000)
    assert all_files(cache) == set()
    assert cache.directory.clear() == (0, 0)


# Several processes, and kills.


def write_rows(remote, count, size):
    rows = [made_file(remote, f"file-{number}", size + 7 * number)[1] for number in range(count)]
    (remote / "rows").write_text("".join(f"{row.name} {row.bytes} {row.sha256}\n" for row in rows))
    return rows


def start_filling(cache, remote, *, limit=None, seconds=0.0, seed=0):
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "cache_processes",
            cache.folder,
            remote,
            str(limit or cache.limit),
            str(seconds),
            str(seed),
        ],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
        cwd=SUPPORT,
    )


def fetches(remote):
    return sum(path.stat().st_size for path in remote.glob("*.fetched"))


def test_many_processes_fetch_each_file_once(tmp_path, remote):
    cache = ShardCache(tmp_path / "cache", 10**9)
    rows = write_rows(remote, 10, 5000)
    running = [start_filling(cache, remote, seconds=0.002, seed=seed) for seed in range(5)]
    assert [process.communicate()[0] for process in running] == ["10\n"] * 5
    assert fetches(remote) == len(rows)
    assert all_files(cache) == {row.sha256 for row in rows}


def test_many_processes_stay_within_the_limit_and_get_the_right_bytes(tmp_path, remote):
    cache = ShardCache(tmp_path / "cache", 16_000)
    write_rows(remote, 9, 5000)
    running = [start_filling(cache, remote, seconds=0.001, seed=seed) for seed in range(4)]
    peak, ended = 0, False
    while not ended:
        ended = all(process.poll() is not None for process in running)
        with cache.directory.lock():  # no copy is added or evicted while we count
            with_partials = 0
            for path in (cache.folder / "files").glob("*"):
                with contextlib.suppress(FileNotFoundError):  # a temporary file that was published since
                    with_partials += path.stat().st_size
        peak = max(peak, with_partials)
        time.sleep(0.001)
    assert [process.communicate()[0] for process in running] == ["9\n"] * 4
    assert 10_000 < peak <= 16_000


def test_a_fetch_after_a_kill_ends_with_the_right_bytes(tmp_path, remote, faults):
    tries, survived = faults.tries(4), 0
    rows = write_rows(remote, 6, 20_000)
    chance = random.Random(3)
    for number in range(tries):
        cache = ShardCache(tmp_path / f"cache-{number}", 10**9)
        killed = start_filling(cache, remote, seconds=0.003, seed=number)
        wait_until(lambda cache=cache: list((cache.folder / "files").glob("*.partial")))
        time.sleep(chance.random() * 0.5)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        whole = {entry.path.name: sha256_of(entry.path) for entry in cache.directory.entries()}
        good = all(name == found for name, found in whole.items())
        again = start_filling(cache, remote, seed=number)
        good &= again.communicate()[0] == "6\n"
        survived += good and all_files(cache) == {row.sha256 for row in rows}
    faults.record(
        "killed: filling the cache", holds="copies are whole or absent; a rerun ends", tries=tries, survived=survived
    )


def test_a_process_that_waits_for_a_killed_one_takes_over(tmp_path, remote):
    cache = ShardCache(tmp_path / "cache", 10**9)
    source, row = made_file(remote, "a", 5000)
    (remote / "rows").write_text(f"{row.name} {row.bytes} {row.sha256}\n")
    slow = start_filling(cache, remote, seconds=60)
    wait_until(lambda: source.fetches)
    waiting = start_filling(cache, remote)
    time.sleep(0.3)
    assert waiting.poll() is None
    slow.kill()
    slow.communicate()
    assert waiting.communicate()[0] == "1\n"
    assert source.fetches == 2


def test_files_of_killed_processes_are_removed(cache, remote):
    (cache.folder / "files").mkdir(parents=True)
    left = cache.folder / "files" / ("0" * 64 + ".partial")
    left.write_bytes(bytes(9000))
    cache.get(*made_file(remote, "a", 3000))
    assert not left.exists()


def test_a_copy_that_another_process_just_finished_is_used(cache, remote, monkeypatch):
    source, row = made_file(remote, "a", 3000)
    path = cache.get(source, row)
    touch, calls = directory.CacheDirectory.touch, []

    def late(self, path, size):
        calls.append(path)
        return len(calls) > 1 and touch(self, path, size)

    monkeypatch.setattr(directory.CacheDirectory, "touch", late)
    assert cache.get(source, row) == path
    assert source.fetches == 1
    assert all_files(cache) == {row.sha256}


def test_a_temporary_file_renamed_while_opened_is_not_claimed(cache, monkeypatch):
    path = cache.folder / "files" / ("0" * 64)
    open_file = regular.open_update

    def late(partial):
        file = open_file(partial)
        partial.replace(path)  # as the previous holder does when it publishes
        return file

    with cache.directory.claim(path) as partial:
        partial.write(b"whole")
        partial.flush()
        with cache.directory.claim(path) as second:
            assert second is None
        monkeypatch.setattr(regular, "open_update", late)
    with cache.directory.claim(path) as partial:
        assert partial is None


def test_a_copy_published_during_eviction_is_counted(cache, monkeypatch):
    first, second = (cache.folder / "files" / (digit * 64) for digit in "01")

    def publish_after(scan):
        def wrapped(*arguments):
            found = scan(*arguments)
            if not first.exists():
                cache.directory.publish(first, partial, "")  # by another process
            return found

        return wrapped

    with cache.directory.claim(first) as partial, cache.directory.claim(second) as other:
        assert cache.directory.reserve(first, partial, 6000, urgent=True)
        for name in ("entries", "_fetching"):
            monkeypatch.setattr(cache.directory, name, publish_after(getattr(cache.directory, name)))
        if cache.directory.reserve(second, other, 5000, urgent=True):
            assert sum(path.stat().st_size for path in first.parent.iterdir()) <= cache.limit
        assert not other.closed


def test_space_is_reserved_before_a_fetch_begins(cache, remote):
    path = cache.folder / "files" / ("0" * 64)
    with cache.directory.claim(path) as partial:
        assert cache.directory.reserve(path, partial, 6000, urgent=True)
        assert not cache.fetch_ahead(*made_file(remote, "a", 5000), threading.Event())
        assert cache.fetch_ahead(*made_file(remote, "b", 4000), threading.Event())


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_does_not_keep_the_locks_of_its_parent(cache, remote):
    source, row = made_file(remote, "a", 3000)
    reading, writing = os.pipe()
    with cache.directory.lock(), cache.directory.claim(cache.folder / "files" / row.sha256):
        child = os.fork()
        if not child:
            os.close(writing)
            os.read(reading, 1)  # until the parent closes the pipe
            os._exit(0)
    try:
        with regular.open_update(cache.folder / "lock") as file, directory._lock(file) as free:
            assert free
        assert cache.fetch_ahead(source, row, threading.Event())
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


# Folder and size.


def test_the_environment_selects_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GQN_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_folder() == tmp_path / "home" / ".cache" / "gqn-toolkit"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "xdg" / "gqn-toolkit"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # ignored, as the specification demands
    assert default_folder() == tmp_path / "home" / ".cache" / "gqn-toolkit"
    monkeypatch.setenv("GQN_CACHE", str(tmp_path / "own"))
    assert default_folder() == tmp_path / "own"


def test_the_default_size_is_bounded_by_the_disk(tmp_path, monkeypatch):
    assert open_cache(tmp_path / "a", 1.5).limit == 1_500_000_000
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 8_000_000}))
    assert open_cache(tmp_path / "a").limit == 4_000_000
    path = tmp_path / "a" / "files" / ("0" * 64)
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(2_000_000))  # space used by copies counts as available
    assert open_cache(tmp_path / "a").limit == 5_000_000
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10**13}))
    assert open_cache(tmp_path / "a").limit == 50_000_000_000


@pytest.mark.parametrize("gigabytes", [0.0, -1.0, float("nan")])
def test_a_size_that_is_not_positive_is_refused(tmp_path, gigabytes):
    with pytest.raises(OptionError, match=f"--cache-gb: {gigabytes}"):
        open_cache(tmp_path, gigabytes)


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OptionError, match=str(tmp_path / "file" / "cache")):
        open_cache(tmp_path / "file" / "cache", 1)


def test_empty_files_are_cached(cache, remote):
    source, row = made_file(remote, "a", 0)
    assert cache.get(source, row).read_bytes() == b""
    assert isinstance(row, FileRow)
