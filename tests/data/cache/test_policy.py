"""Training from a store: the same batches as from a disk, for any way of reading, cache and number of workers."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_counts import FaultCounts
from fault_server import Asked, Fault, FaultServer
from loader_fixtures import CONTAINERS, SET, make_all, write_raw
from processes import living, wait_until
from s3_server import environment, new_bucket

from gqn_data.cache.policy import choose_reading, default_window
from gqn_data.cache.prefetch import WindowFetcher
from gqn_data.cache.shard_cache import ShardCache
from gqn_data.errors import OptionError, ShardChecksumError, UnknownName
from gqn_data.io.atomic import sha256_of
from gqn_data.io.paths import parse_path
from gqn_data.loader import Batch, SceneLoader
from gqn_data.sampling.permutation import Windows
from gqn_data.schema.manifest import read_manifest

TRAIN = (6, 4, 11, 5, 7, 3)
SUPPORT = Path(__file__).resolve().parents[2] / "support"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), str(SUPPORT.parents[1])])}

pytestmark = [
    # torch warns if there are more workers than cores; these tests run more on purpose.
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

Snapshot = tuple[bytes, ...]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Make the same scenes in all containers, of several shards each, in one folder."""
    root = tmp_path_factory.mktemp("scenes")
    raw = write_raw(root / "tfrecord" / SET, train=TRAIN)
    return make_all(raw.folder, root, shard_bytes=12_000)


@pytest.fixture(scope="module")
def web(folders: dict[str, Path]) -> Iterator[FaultServer]:
    with FaultServer(folders["tfrecord"].parents[1]) as server:
        yield server


@pytest.fixture
def server(web: FaultServer) -> FaultServer:
    web.forget()
    return web


@pytest.fixture(scope="module")
def buckets(folders: dict[str, Path], s3_address: str) -> Iterator[dict[str, str]]:
    """Upload the same datasets to the S3 server of the environment, and return their URLs."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(s3_address).items():
            patch.setenv(name, value)
        bucket = new_bucket(s3_address)
        for container, folder in folders.items():
            for path in folder.rglob("*"):
                if path.is_file():
                    (parse_path(bucket) / container / path.relative_to(folder).as_posix()).put(path.read_bytes())
        yield {container: f"{bucket}/{container}" for container in folders}


@pytest.fixture(autouse=True)
def _no_leftovers(tmp_path: Path) -> Iterator[None]:
    before = set(multiprocessing.active_children())
    yield
    gc.collect()
    assert set(multiprocessing.active_children()) <= before
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def _url(server: FaultServer, folder: Path) -> str:
    return f"{server.url}/{folder.relative_to(server.folder).as_posix()}"


def _snapshot(batch: Batch) -> Snapshot:
    return tuple(f"{part.dtype} {tuple(part.shape)} ".encode() + part.numpy().tobytes() for part in batch)


def _stream(path: Path | str, count: int | None = None, **options: Any) -> list[Snapshot]:
    loader = SceneLoader(path, **{"batch_size": 4, "seed": 7, "context": (1, 3), **options})
    try:
        return [_snapshot(batch) for batch in islice(loader, count)]
    finally:
        loader.close()


def _shard_bytes(folder: Path) -> list[int]:
    return [sum(row.bytes for row in shard.files) for shard in read_manifest(folder).splits["train"].shards]


def _frames_of(folder: Path) -> set[str]:
    """Return the names of the large files of the training split."""
    return {shard.files[0].name for shard in read_manifest(folder).splits["train"].shards}


def _range(asked: Asked) -> tuple[int, int]:
    """Return the first requested byte, and the one after the last."""
    (wanted,) = (value for name, value in asked.headers.items() if name.lower() == "range")
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    return int(first), int(last) + 1


_DESCRIBE = {"manifest.json", "SHA256SUMS"}  # read in full when a dataset is opened


def _fetched(server: FaultServer, folder: Path) -> dict[str, int]:
    """Count how often each file of a dataset was requested from its beginning."""
    prefix = folder.relative_to(server.folder).as_posix() + "/"
    found: dict[str, int] = {}
    for asked in server.gets():
        name = asked.path.removeprefix(prefix)
        if asked.path.startswith(prefix) and (name in _DESCRIBE or _range(asked)[0] == 0):
            found[name] = found.get(name, 0) + 1
    return found


def _bytes_sent(server: FaultServer, folder: Path, names: set[str]) -> int:
    """Sum the requested bytes of the named files."""
    prefix = folder.relative_to(server.folder).as_posix() + "/"
    total = 0
    for asked in server.gets():
        if asked.path.removeprefix(prefix) in names:
            first, stop = _range(asked)
            total += stop - first
    return total


# The same batches.


@pytest.mark.parametrize("remote", ["cache", "range"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_batches_from_s3_equal_those_from_the_disk(
    folders: dict[str, Path], buckets: dict[str, str], tmp_path: Path, container: str, remote: str
) -> None:
    here = _stream(folders[container], epochs=2, tail="exact")
    there = _stream(buckets[container], epochs=2, tail="exact", remote=remote, cache=tmp_path)
    assert len(here) == 18
    assert there == here


@pytest.mark.parametrize("remote", ["cache", "range"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_windows_from_a_store_equal_those_from_the_disk(
    folders: dict[str, Path], server: FaultServer, tmp_path: Path, container: str, remote: str
) -> None:
    here = _stream(folders[container], epochs=2, tail="exact", window=2)
    there = _stream(_url(server, folders[container]), epochs=2, tail="exact", window=2, remote=remote, cache=tmp_path)
    assert there == here
    assert here != _stream(folders[container], epochs=2, tail="exact")


@pytest.mark.parametrize("remote", ["cache", "range"])
def test_workers_can_read_the_store(
    folders: dict[str, Path], buckets: dict[str, str], tmp_path: Path, remote: str
) -> None:
    # The consumer uses the store before the workers start: a forked worker could not use that connection.
    here = _stream(folders["zarr"], epochs=1, window=2)
    assert _stream(buckets["zarr"], epochs=1, window=2, workers=2, remote=remote, cache=tmp_path) == here


def test_many_threads_resize_and_mask_frames_like_one(
    folders: dict[str, Path], server: FaultServer, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"batch_size": 17, "frame_size": 8, "context": (1, 4), "epochs": 2}
    here = _stream(folders["webdataset"], **options)
    assert _stream(_url(server, folders["webdataset"]), remote="range", cache=tmp_path, **options) == here


def test_ranks_partition_the_batches_of_windows(folders: dict[str, Path], server: FaultServer, tmp_path: Path) -> None:
    url = _url(server, folders["zarr"])
    options: dict[str, Any] = {"batch_size": 4, "seed": 7, "window": 2, "epochs": 1}
    whole = list(SceneLoader(folders["zarr"], **options))
    # In step: a rank that ends aborts its prefetching, and another rank has to fetch the file again.
    parts = [SceneLoader(url, cache=tmp_path, rank=rank, ranks=2, **options) for rank in range(2)]
    for batch, *slices in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([part.target for part in slices]), batch.target)
    assert set(_fetched(server, folders["zarr"])) >= _frames_of(folders["zarr"])
    assert max(_fetched(server, folders["zarr"])[name] for name in _frames_of(folders["zarr"])) == 1


def test_a_state_resumes_inside_a_window_from_disk_and_store(
    folders: dict[str, Path], server: FaultServer, tmp_path: Path
) -> None:
    whole = _stream(folders["zarr"], epochs=2, window=2)
    first = SceneLoader(
        _url(server, folders["zarr"]), batch_size=4, seed=7, context=(1, 3), epochs=2, window=2, cache=tmp_path
    )
    begun = [_snapshot(batch) for batch in islice(first, 5)]
    state = first.state_dict()
    first.close()
    for path in (folders["zarr"], _url(server, folders["zarr"])):
        # The windows come from the state.
        second = SceneLoader(path, batch_size=4, seed=7, context=(1, 3), epochs=2, cache=tmp_path)
        second.load_state_dict(state)
        assert begun + [_snapshot(batch) for batch in second] == whole
        assert second.state_dict()["windows"] == state["windows"]


def test_a_state_of_other_windows_or_shards_is_refused(folders: dict[str, Path]) -> None:
    def loader(container: str, **options: Any) -> SceneLoader:
        return SceneLoader(folders[container], batch_size=4, **options)

    state = loader("zarr", window=2).state_dict()
    loader("zarr", window=2).load_state_dict(state)
    with pytest.raises(OptionError, match="windows"):
        loader("zarr", window=1).load_state_dict(state)
    with pytest.raises(OptionError, match="shards"):
        loader("tfrecord").load_state_dict(state)
    with pytest.raises(OptionError, match="windows"):
        loader("zarr", window=2).load_state_dict(loader("zarr").state_dict())
    loader("tfrecord").load_state_dict(loader("zarr").state_dict())
    loader("zarr", shuffle=False).load_state_dict(loader("tfrecord", shuffle=False, window=2).state_dict())
    for nonsense in (0, -3, True, "2"):
        with pytest.raises(OptionError, match="windows"):
            loader("zarr").load_state_dict({**state, "windows": nonsense})


def test_a_batch_touches_only_the_shards_of_its_windows(folders: dict[str, Path]) -> None:
    loader = SceneLoader(folders["zarr"], batch_size=3, seed=7, epochs=2, window=2, tail="exact")
    dataset = loader.dataset
    windows = Windows([shard.scenes for shard in dataset.shards], window=2, seed=7)
    at = 0
    for batch in loader:
        epoch, position = divmod(at, len(dataset))
        touched = {dataset.locate(scene)[0] for scene in batch.scenes.tolist()}
        first = windows.window_at(position, epoch)
        last = windows.window_at(position + len(batch.scenes) - 1, epoch)
        allowed = {int(shard) for number in range(first, last + 1) for shard in windows.shards_of(number, epoch)}
        assert touched <= allowed
        assert len(allowed) <= 2 * (1 + last - first)
        at += len(batch.scenes)


# Fetched bytes.


def test_a_warm_cache_requests_no_shards(folders: dict[str, Path], server: FaultServer, tmp_path: Path) -> None:
    url = _url(server, folders["zarr"])
    cold = _stream(url, epochs=2, cache=tmp_path)
    once = _fetched(server, folders["zarr"])
    assert {name: once[name] for name in _frames_of(folders["zarr"])} == dict.fromkeys(_frames_of(folders["zarr"]), 1)
    server.forget()
    assert _stream(url, epochs=2, cache=tmp_path) == cold
    assert set(_fetched(server, folders["zarr"])) == _DESCRIBE


@pytest.mark.parametrize("container", ["zarr", "webdataset", "tfrecord", "numpy"])
def test_ranges_cover_only_the_views_that_a_batch_uses(
    folders: dict[str, Path], server: FaultServer, tmp_path: Path, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gqn_data.io.ranged._GAP", 0)
    folder = folders[container]
    loader = SceneLoader(
        _url(server, folder), batch_size=6, seed=7, context=(1, 1), epochs=1, remote="range", cache=tmp_path
    )
    scenes = loader.dataset
    used = 0
    for batch in loader:
        for scene, views in zip(batch.scenes.tolist(), batch.views.tolist()):
            if container == "numpy":
                used += 2 * 16 * 16 * 3
            else:
                encoded = scenes[scene].encoded
                assert encoded is not None
                used += sum(len(encoded[view]) for view in views)
    server.forget()
    list(loader)
    # Headers, as of .npy files, may be read with the frames; unused views may not.
    sent = _bytes_sent(server, folder, _frames_of(folder))
    assert used <= sent <= used + 400 * len(_frames_of(folder))
    assert sent < 0.5 * sum(_shard_bytes(folder))


def test_only_the_current_and_the_next_window_are_fetched(
    folders: dict[str, Path], server: FaultServer, tmp_path: Path
) -> None:
    folder = folders["zarr"]
    loader = SceneLoader(_url(server, folder), batch_size=2, seed=7, epochs=1, window=1, remote="cache", cache=tmp_path)
    order = Windows([shard.scenes for shard in loader.dataset.shards], window=1, seed=7)
    expected = [
        loader.dataset.shards[int(shard)].files[0].sha256 for window in range(2) for shard in order.shards_of(window, 0)
    ]
    batches = iter(loader)
    next(batches)
    frames = {shard.files[0].sha256 for shard in loader.dataset.shards}

    def copies() -> set[str]:
        return {path.name for path in (tmp_path / "files").iterdir()}

    wait_until(lambda: set(expected) <= copies())
    time.sleep(0.2)
    assert copies() & frames == set(expected)
    loader.close()


def test_a_cache_of_just_two_windows_gives_the_right_stream(
    folders: dict[str, Path], server: FaultServer, tmp_path: Path
) -> None:
    sizes = sorted(_shard_bytes(folders["zarr"]), reverse=True)
    assert len(sizes) >= 6
    limit = sum(sizes[:2]) + 10
    here = _stream(folders["zarr"], epochs=3, window=1)
    there = _stream(
        _url(server, folders["zarr"]), epochs=3, window=1, remote="cache", cache=tmp_path, cache_gb=limit / 1e9
    )
    assert there == here
    assert sum(path.stat().st_size for path in (tmp_path / "files").iterdir()) <= limit
    fetched = _fetched(server, folders["zarr"])
    # An epoch finds at most two shards in the cache, and two that the last batch had open; it fetches all others.
    assert sum(fetched[name] for name in _frames_of(folders["zarr"])) >= len(sizes) + 2 * (len(sizes) - 4)


def _removed_and_held(cache: Path) -> set[str]:
    """Return the names of evicted copies that this process still has open or mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    for number in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the descriptor of the listing itself
            lines.append(os.readlink(number))  # noqa: PTH115  keeps the suffix "(deleted)"
    inside = f"{cache / 'files'}/"
    return {
        line.rpartition(inside)[2].removesuffix(" (deleted)")
        for line in lines
        if inside in line and line.endswith(" (deleted)")
    }


@pytest.mark.parametrize("container", ["zarr", "zarr-raw", "numpy", "webdataset"])
def test_evicted_copies_are_closed_when_their_window_ends(
    folders: dict[str, Path], server: FaultServer, tmp_path: Path, container: str
) -> None:
    limit = sum(sorted(_shard_bytes(folders[container]), reverse=True)[:2]) + 10
    loader = SceneLoader(
        _url(server, folders[container]),
        batch_size=4,
        epochs=2,
        window=1,
        remote="cache",
        cache=tmp_path,
        cache_gb=limit / 1e9,
    )
    dataset = loader.dataset
    for batch in loader:
        touched = {dataset.locate(scene)[0] for scene in batch.scenes.tolist()}
        in_use = {row.sha256 for shard in touched for row in dataset.shards[shard].files}
        # Prefetching may hold a copy open for another moment.
        wait_until(lambda in_use=in_use: _removed_and_held(tmp_path) <= in_use, 20)


def test_a_cache_below_two_windows_is_refused_or_read_by_range(
    folders: dict[str, Path], server: FaultServer, tmp_path: Path
) -> None:
    url = _url(server, folders["zarr"])
    sizes = sorted(_shard_bytes(folders["zarr"]), reverse=True)
    limit = (2 * sizes[0] + 100) / 1e9
    options: dict[str, Any] = {"batch_size": 4, "window": 2, "cache": tmp_path, "cache_gb": limit}
    with pytest.raises(OptionError, match=r"2 shards.*--window 1.*--remote range"):
        SceneLoader(url, remote="cache", **options)
    with pytest.raises(OptionError, match=rf"{len(sizes)} shards.*--window 1"):
        SceneLoader(url, remote="cache", **{**options, "window": None})
    assert SceneLoader(url, **options).reading == "range"
    assert SceneLoader(url, **{**options, "window": 1}).reading == "cache"
    with pytest.raises(UnknownName, match="cache"):
        SceneLoader(url, remote="cach", **options)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"window.*0"):
        SceneLoader(url, **{**options, "window": 0})


def test_auto_decides_by_cache_size_and_used_views(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = read_manifest(folders["zarr"]).splits["train"].shards
    total = sum(_shard_bytes(folders["zarr"]))
    windows = Windows([shard.scenes for shard in shards], window=1, seed=0)
    scene = total / sum(TRAIN)
    # Two of ten views leave 0.8 of a scene unused, for two requests: as much as two requests cost.
    monkeypatch.setattr("gqn_data.cache.policy.REQUEST_BYTES", 0.4 * scene)

    def chosen(used: float, limit: int) -> str:
        cache = ShardCache(tmp_path, limit)
        return choose_reading("auto", shards=shards, windows=windows, used=used, views=10, cache=cache)

    assert chosen(1, total) == "cache"
    assert chosen(1, total - 1) == "range"
    assert chosen(1.9, total - 1) == "range"
    assert chosen(2.1, total - 1) == "cache"
    assert chosen(10, total - 1) == "cache"
    assert chosen(10, max(_shard_bytes(folders["zarr"]))) == "range"
    assert chosen(1, 100) == "range"


def test_a_small_set_in_a_store_is_one_window(folders: dict[str, Path]) -> None:
    shards = read_manifest(folders["zarr"]).splits["train"].shards
    assert default_window(shards) >= len(shards)


# Faults.


def test_wrong_bytes_in_the_store_are_an_error_with_the_file(
    folders: dict[str, Path], server: FaultServer, tmp_path: Path
) -> None:
    url = _url(server, folders["zarr"])
    name = min(_frames_of(folders["zarr"]))
    path = f"{folders['zarr'].relative_to(server.folder).as_posix()}/{name}"
    server.always(Fault(flip=100), path=path)
    for workers in (0, 1):
        with pytest.raises(ShardChecksumError, match=rf"{path}: SHA-256 is .* 3 attempts"):
            _stream(url, epochs=1, workers=workers, cache=tmp_path)
    server.forget()
    assert _stream(url, epochs=1, cache=tmp_path) == _stream(folders["zarr"], epochs=1)


def test_transient_faults_do_not_change_the_stream(
    folders: dict[str, Path], server: FaultServer, tmp_path: Path
) -> None:
    for name in sorted(_frames_of(folders["webdataset"])):
        path = f"{folders['webdataset'].relative_to(server.folder).as_posix()}/{name}"
        server.next(Fault(status=503), Fault(cut=500), Fault(flip=3), path=path)
    there = _stream(_url(server, folders["webdataset"]), epochs=1, cache=tmp_path)
    assert there == _stream(folders["webdataset"], epochs=1)


@pytest.mark.parametrize("remote", ["cache", "range"])
@pytest.mark.parametrize(
    ("container", "damaged"),
    [
        ("zarr", b"\xff\xd8\xff"),
        ("webdataset", b"\xff\xd8\xff"),
        ("tfrecord", b"\xff\xd8\xff"),
        ("zarr-raw", b"\x28\xb5\x2f\xfd"),  # magic number of zstd
        ("webdataset", b"NUMPY"),
        ("tfrecord", b"NUMPY"),
    ],
)
def test_copies_that_no_longer_decode_are_fetched_again(
    folders: dict[str, Path], server: FaultServer, tmp_path: Path, container: str, damaged: bytes, remote: str
) -> None:
    url = _url(server, folders[container])
    here = _stream(folders[container], epochs=1)
    assert _stream(url, epochs=1, cache=tmp_path, remote=remote) == here
    for path in (tmp_path / "files").iterdir():
        data = path.read_bytes()
        if damaged == b"NUMPY" and data.startswith(b"\x93NUMPY"):  # an index: zero everything after its header
            header = 10 + int.from_bytes(data[8:10], "little")
            path.write_bytes(data[:header] + bytes(len(data) - header))
        else:
            path.write_bytes(data.replace(damaged, bytes(len(damaged))))
    assert _stream(url, epochs=1, cache=tmp_path, remote=remote) == here
    assert ShardCache(tmp_path, 10**9).directory.verify() == []


def test_an_unreachable_store_is_an_error_and_not_a_hang(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    monkeypatch.setattr("gqn_data.io.paths._RETRY", {"max_retries": 1, "retry_timeout": timedelta(seconds=1)})
    with FaultServer(folders["zarr"].parents[1]) as server:
        loader = SceneLoader(
            _url(server, folders["zarr"]), batch_size=4, epochs=1, window=1, remote="range", cache=tmp_path
        )
        batches = iter(loader)
        next(batches)
        server.always(Fault(status=404))
        with pytest.raises(ShardChecksumError, match=server.url):
            list(batches)


@pytest.mark.parametrize("how", ["break", "close", "exception", "garbage"])
def test_prefetch_threads_end_with_the_iteration(
    folders: dict[str, Path], server: FaultServer, tmp_path: Path, how: str
) -> None:
    loader = SceneLoader(_url(server, folders["zarr"]), batch_size=2, window=1, remote="cache", cache=tmp_path)
    if how == "break":
        for _ in loader:
            break
    elif how == "exception":

        def fail() -> None:
            for _ in loader:
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            fail()
    else:
        batches = iter(loader)
        next(batches)
        assert [thread for thread in threading.enumerate() if thread.name == "prefetch"]
        if how == "close":
            loader.close()
        else:
            del batches
    gc.collect()
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]
    assert not list((tmp_path / "pins").iterdir())


_READER = """
import sys
from gqn_data.loader import SceneLoader

if __name__ == "__main__":
    url, cache, rank, ranks, workers = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    loader = SceneLoader(url, batch_size=4, seed=7, epochs=1, window=2, remote="cache", cache=cache,
                         rank=rank, ranks=ranks, workers=workers)
    print("begin", flush=True)
    batches = iter(loader)
    print(*(scene for _ in range(len(loader)) for scene in next(batches).scenes.tolist()), flush=True)
    sys.stdin.read()  # keeps prefetching until stdin is closed
"""


def _shared_names(group: int) -> set[str]:
    """Return the names in /dev/shm that would be left behind if all processes of a group were killed now."""
    names = set()
    for number in living(group):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{number}/maps").read_text().splitlines():
                if "/dev/shm/" in line and not line.endswith("(deleted)"):
                    names.add(line[line.index("/dev/shm/") :])
    return names


def _reader(tmp_path: Path, url: str, cache: Path, rank: int = 0, ranks: int = 1, workers: int = 0) -> Any:
    program = tmp_path / "reader.py"
    if not program.exists():
        program.write_text(_READER)
    return subprocess.Popen(
        [sys.executable, program, url, cache, str(rank), str(ranks), str(workers)],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_ranks_that_share_a_cache_fetch_each_file_once(
    folders: dict[str, Path], server: FaultServer, tmp_path: Path
) -> None:
    url = _url(server, folders["webdataset"])
    readers = [_reader(tmp_path, url, tmp_path / "cache", rank, 4) for rank in range(4)]
    seen: list[int] = []
    for reader in readers:
        assert reader.stdout.readline() == "begin\n"
        seen += map(int, reader.stdout.readline().split())
    # A rank that ends aborts its prefetching, and another has to fetch that file again: so none ends early.
    for reader in readers:
        _, errors = reader.communicate(timeout=120)
        assert reader.returncode == 0, errors
    assert len(seen) == len(set(seen)) == sum(TRAIN) // 4 * 4
    fetched = _fetched(server, folders["webdataset"])
    assert {fetched[name] for name in _frames_of(folders["webdataset"])} == {1}


def test_a_training_killed_while_prefetching_can_be_rerun(
    folders: dict[str, Path], tmp_path: Path, faults: FaultCounts
) -> None:
    tries, survived = faults.tries(2), 0
    chance = random.Random(5)
    here = _stream(folders["zarr"], epochs=1, window=2, context=None)
    with FaultServer(folders["zarr"].parents[1], pace=(2000, 0.01)) as server:
        url = _url(server, folders["zarr"])
        for number in range(tries):
            cache = tmp_path / f"cache-{number}"
            reader = _reader(tmp_path, url, cache, workers=1)
            assert reader.stdout.readline() == "begin\n"
            time.sleep(chance.random() * (0.5 if number % 2 else 4))
            holds = {"no name in /dev/shm": not _shared_names(reader.pid)}
            if number % 2:
                os.killpg(reader.pid, signal.SIGKILL)
            else:
                reader.send_signal(signal.SIGKILL)
            reader.communicate()
            wait_until(lambda reader=reader: not living(reader.pid), 60)  # the workers notice, and end
            left = [path for path in (cache / "files").glob("*") if not path.suffix]
            holds["copies are whole"] = all(path.name == sha256_of(path) for path in left)
            server.pace = None
            again = _stream(url, epochs=1, window=2, context=None, remote="cache", cache=cache)
            holds["the same batches"] = again == here
            holds["nothing is left over"] = not {*(cache / "files").glob("*.partial"), *(cache / "pins").iterdir()}
            server.pace = (2000, 0.01)
            survived += all(holds.values())
            print(f"try {number}: {holds}")  # shown if the test fails
    faults.record(
        "killed: training from a store", holds="a rerun gives the same batches", tries=tries, survived=survived
    )


def test_an_interpreter_that_ends_while_prefetching_exits_cleanly(folders: dict[str, Path], tmp_path: Path) -> None:
    program = (
        "import sys; from gqn_data.loader.loader import SceneLoader\n"
        "loader = SceneLoader(sys.argv[1], batch_size=2, window=1, remote='cache', cache=sys.argv[2])\n"
        "batches = iter(loader); next(batches); print('one')"
    )
    with FaultServer(folders["zarr"].parents[1], pace=(500, 0.01)) as server:
        done = subprocess.run(
            [sys.executable, "-c", program, _url(server, folders["zarr"]), str(tmp_path)],
            check=False,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "one\n", "")


def test_prefetching_continues_after_a_fault(folders: dict[str, Path], server: FaultServer, tmp_path: Path) -> None:
    folder = folders["webdataset"]
    manifest = read_manifest(folder)
    shards = manifest.splits["train"].shards
    windows = Windows([shard.scenes for shard in shards], window=len(shards), seed=0)
    name = shards[0].files[0].name
    server.next(*[Fault(flip=3)] * 3, path=f"{folder.relative_to(server.folder).as_posix()}/{name}")
    cache = ShardCache(tmp_path, 10**9)
    from gqn_data.cache import prefetch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefetch, "_RETRY", 0.05)
        with WindowFetcher(cache, parse_path(_url(server, folder)), shards, windows, 1) as fetcher:  # type: ignore[arg-type]
            fetcher.need(prefetch.Position(0, 0), prefetch.Position(0, 3))
            wanted = {row.sha256 for shard in shards for row in shard.files}
            wait_until(lambda: {entry.path.name for entry in cache.directory.entries()} == wanted)


def test_a_copy_evicted_before_it_is_opened_is_fetched_again(
    folders: dict[str, Path], server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get, removed = ShardCache.get, []

    def late(self: ShardCache, *arguments: Any) -> Path:
        path = get(self, *arguments)
        if path.name not in removed:
            removed.append(path.name)
            path.unlink()
        return path

    monkeypatch.setattr(ShardCache, "get", late)
    there = _stream(_url(server, folders["zarr"]), epochs=1, remote="range", cache=tmp_path)
    assert there == _stream(folders["zarr"], epochs=1)
    assert len(removed) > 3
