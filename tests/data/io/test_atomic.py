"""Atomic writes, locks, checksums, and ranged reads from files that may be truncated."""

import errno
import hashlib
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_scenes import tree

from gqn_data.errors import DestinationError, NoSpace, ShardChecksumError
from gqn_data.io import atomic, ranged
from gqn_data.io.ranged import RangedFile, Rows, npy_header, npy_rows


def test_a_file_is_published_when_the_block_ends(tmp_path):
    path = tmp_path / "deep" / "er" / "x.bin"
    with atomic.writing(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
        file.write(b" and half")
    assert tree(tmp_path) == {"deep/er/x.bin": b"half and half"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failed_block_keeps_the_previous_file(error, tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"before")

    def interrupted():
        with atomic.writing(path) as file:
            file.write(b"after")
            raise error

    with pytest.raises(error):
        interrupted()
    assert tree(tmp_path) == {"x.bin": b"before"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_raises_no_space(number, tmp_path):
    with pytest.raises(NoSpace, match=r"x\.bin"), atomic.writing(tmp_path / "x.bin"):
        raise OSError(number, "full")
    with pytest.raises(PermissionError), atomic.writing(tmp_path / "x.bin"):
        raise PermissionError(errno.EACCES, "no")
    assert tree(tmp_path) == {}


def test_only_temporary_files_are_removed(tmp_path):
    for name in ("a.partial", "b/c/d.npy.partial", "b/partial", "e.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.partial").mkdir()
    atomic.remove_temporaries(tmp_path)
    assert set(tree(tmp_path)) == {"b/partial", "e.bin"}
    assert (tmp_path / "folder.partial").is_dir()


@given(parts=st.lists(st.binary(max_size=60), max_size=30), block=st.integers(1, 100), flush=st.integers(1, 200))
@settings(max_examples=60)
def test_the_streamed_checksum_is_the_checksum_of_the_file(parts, block, flush, tmp_path):
    class Small(atomic.ChecksummedFile):
        _BLOCK = block
        _FLUSH_EVERY = flush

    path = tmp_path / "x.bin"
    starts = []
    with atomic.writing(path) as file, Small(file) as out:
        for number in range(0, len(parts), 2):
            starts.append(out.position)
            pair = parts[number : number + 2]
            if len(pair) == 2:
                out.write_all(pair, sum(map(len, pair)))
            else:
                out.write(*pair)
        digest = out.finish()
        assert out.position == sum(map(len, parts))
    assert path.read_bytes() == b"".join(parts)
    assert digest == hashlib.sha256(b"".join(parts)).hexdigest() == atomic.sha256_of(path)
    assert starts == [sum(map(len, parts[:number])) for number in range(0, len(parts), 2)]


def test_a_failed_write_in_a_thread_is_raised_by_finish():
    class Full:
        def write(self, _):
            raise OSError(errno.ENOSPC, "full")

    with atomic.ChecksummedFile(Full()) as out:
        out.write(b"some")
        with pytest.raises(OSError, match="full"):
            out.finish()


def test_free_space_is_checked_on_the_nearest_existing_folder(tmp_path, monkeypatch):
    asked = []

    def usage(path):
        asked.append(Path(path))
        return shutil._ntuple_diskusage(100, 0, 100)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    atomic.check_free_space(tmp_path / "not" / "yet", 100)
    assert asked == [tmp_path]
    with pytest.raises(NoSpace, match=r"101 B .* 100 B"):
        atomic.check_free_space(tmp_path / "not" / "yet", 101)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1.5e9, "1.5 GB"), (2e12, "2.0 TB"), (9e15, "9000.0 TB")],
)
def test_bytes_are_formatted_in_powers_of_1000(count, text):
    assert atomic.human_bytes(count) == text


def test_a_folder_has_one_writer_at_a_time(tmp_path):
    folder = tmp_path / "x"
    for _ in range(2):
        with atomic.exclusive_writer(folder):
            with pytest.raises(DestinationError, match=str(folder)), atomic.exclusive_writer(folder):
                pass
            assert (folder / ".lock").exists()
        assert tree(folder) == {}


def test_the_lock_of_a_killed_process_is_released(tmp_path):
    code = (
        "import sys, os, pathlib\nfrom gqn_data.io import atomic\n"
        "with atomic.exclusive_writer(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(DestinationError), atomic.exclusive_writer(tmp_path):
            pass
        child.kill()
        child.wait()
        assert (tmp_path / ".lock").exists()
        with atomic.exclusive_writer(tmp_path):
            pass
    assert tree(tmp_path) == {}


@pytest.fixture
def thousand(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(bytes(range(250)) * 4)
    return path


@given(offset=st.integers(0, 1200), length=st.integers(0, 1200))
@settings(max_examples=100)
def test_ranges_are_read_completely_or_refused(offset, length, thousand):
    file = RangedFile(thousand)
    data = thousand.read_bytes()
    out = np.zeros(length, np.uint8)
    if offset + length <= 1000:
        file.read_into(offset, out)
        assert file.read(offset, length) == data[offset : offset + length] == out.tobytes()
        return
    for read in (lambda: file.read(offset, length), lambda: file.read_into(offset, out)):
        with pytest.raises(ShardChecksumError, match=f"{length} bytes at {offset} .* 1000"):
            read()


def test_a_missing_file_or_one_of_another_size_is_refused(thousand, tmp_path):
    with pytest.raises(ShardChecksumError, match=r"1000 bytes.* 999"):
        RangedFile(thousand, 999).read(0, 1)
    with pytest.raises(ShardChecksumError, match=r"nowhere: .*absent"):
        RangedFile(tmp_path / "nowhere").read(0, 1)


def test_truncating_an_open_file_raises_instead_of_crashing(thousand):
    file = RangedFile(thousand, 1000)
    assert file.read(990, 10)
    os.truncate(thousand, 500)
    out = np.zeros(600, np.uint8)
    with pytest.raises(ShardChecksumError, match=r"600 bytes at 0 .* 500"):
        file.read(0, 600)
    with pytest.raises(ShardChecksumError, match=r"100 bytes at 500 .* 500"):
        file.read_into(0, out)


def test_a_ranged_file_can_be_pickled(thousand):
    file = RangedFile(thousand, 1000)
    file.read(0, 1)
    assert pickle.loads(pickle.dumps(file)).read(3, 2) == b"\x03\x04"


def test_the_number_of_open_files_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(ranged, "_MAX_OPEN_FILES", 4)
    files = []
    for number in range(20):
        (tmp_path / str(number)).write_bytes(bytes([number]))
        files.append(RangedFile(tmp_path / str(number)))
    for _ in range(2):
        assert [file.read(0, 1)[0] for file in files] == list(range(20))
        assert len(ranged._open_files) <= 4


@given(
    count=st.integers(0, 5),
    shape=st.lists(st.integers(1, 4), max_size=3).map(tuple),
    dtype=st.sampled_from(["<f4", "u1", "<u8"]),
)
@settings(max_examples=40)
def test_rows_of_npy_files_equal_the_saved_array(count, shape, dtype, tmp_path):
    array = np.arange(count * int(np.prod(shape)), dtype=dtype).reshape(count, *shape)
    np.save(tmp_path / "x.npy", array)
    assert (tmp_path / "x.npy").read_bytes().startswith(npy_header(array.dtype, array.shape))
    rows = npy_rows(RangedFile(tmp_path / "x.npy"), array.dtype, shape, count)
    assert np.array_equal(rows.all(), array)
    for number in range(count):
        assert np.array_equal(rows[number], array[number])
        assert np.array_equal(rows.slice(number, count - number), array[number:])


@pytest.mark.parametrize(
    ("dtype", "shape", "count"), [("<f8", (3,), 2), ("<f4", (2,), 3), ("<f4", (3,), 3), (">f4", (3,), 2)]
)
def test_npy_files_of_another_shape_or_type_are_refused(dtype, shape, count, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 3), "<f4"))
    wanted = re.escape(f"{np.dtype(dtype)} ({count}, {shape[0]})")
    with pytest.raises(ShardChecksumError, match=rf"x\.npy: .*{wanted}"):
        npy_rows(RangedFile(tmp_path / "x.npy"), np.dtype(dtype), shape, count)


def test_npy_files_that_are_too_long_or_empty_are_refused(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((2, 3), "<f4"))
    path.write_bytes(path.read_bytes() + b"x")
    for _ in range(2):
        with pytest.raises(ShardChecksumError, match=r"x\.npy"):
            npy_rows(RangedFile(path), np.dtype("<f4"), (3,), 2)
        path.write_bytes(b"")


def test_rows_are_contiguous(thousand):
    rows = Rows(RangedFile(thousand), 10, np.dtype("u1"), (5, 2), 3)
    assert rows[2].tolist() == np.arange(30, 40).reshape(5, 2).tolist()
