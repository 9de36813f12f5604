"""Opening of regular files only: pipes, devices, sockets, folders and links are refused without waiting."""

import os
import pickle
import socket
from pathlib import Path

import pytest
from made_scenes import tree

from gqn_data.errors import IrregularFile
from gqn_data.io import atomic, regular


def names_in(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def make_socket(path):
    here = Path.cwd()
    os.chdir(path.parent)  # the address of a socket has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def make_link(path):
    path.with_name("victim").write_bytes(b"precious")
    path.symlink_to("victim")


# Each kind of irregular file, how to make one, and its name in messages.
KINDS = {
    "pipe": (os.mkfifo, "a named pipe"),
    "socket": (make_socket, "a socket"),
    "folder": (Path.mkdir, "a folder"),
    "link to a device": (lambda path: path.symlink_to("/dev/zero"), "a device"),
    "link to a pipe": (lambda path: os.mkfifo(path.with_name("p")) or path.symlink_to("p"), "a named pipe"),
    "link": (make_link, "a link"),
    "dangling link": (lambda path: path.symlink_to("nothing"), "a link"),
    "link to itself": (lambda path: path.symlink_to(path.name), "a link"),
}
READ = {"pipe", "socket", "folder", "link to a device", "link to a pipe", "link to itself"}


def lock(path):
    with atomic.exclusive_writer(path.parent, path.name):
        pass


READERS = {
    "read": regular.open_read,
    "descriptor": regular.descriptor,
    "check": regular.check_regular,
    "checksum": atomic.sha256_of,
}
WRITERS = {
    "update": regular.open_update,
    "update of an existing file": lambda path: regular.open_update(path, create=False),
    "append": regular.open_append,
    "lock": lock,
}


@pytest.mark.parametrize("kind", sorted(READ))
@pytest.mark.parametrize("reader", READERS)
def test_readers_refuse_irregular_files_without_waiting(reader, kind, tmp_path):
    make, name = KINDS[kind]
    make(tmp_path / "x")
    with pytest.raises(IrregularFile) as caught:
        READERS[reader](tmp_path / "x")
    assert (caught.value.path, caught.value.kind) == (str(tmp_path / "x"), name)


@pytest.mark.parametrize("kind", sorted(READ))
def test_bounded_reading_refuses_irregular_files(kind, tmp_path):
    KINDS[kind][0](tmp_path / "x")
    with pytest.raises(ValueError, match=r"found a .*, expected a regular file"):
        atomic.read_bounded(tmp_path / "x", 10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("writer", WRITERS)
def test_writers_refuse_irregular_files_and_change_nothing(writer, kind, tmp_path):
    make, name = KINDS[kind]
    make(tmp_path / "x")
    names = names_in(tmp_path)
    with pytest.raises(IrregularFile) as caught:
        WRITERS[writer](tmp_path / "x")
    assert caught.value.kind == ("a link" if (tmp_path / "x").is_symlink() else name)
    assert names_in(tmp_path) == names
    assert not (tmp_path / "victim").exists() or (tmp_path / "victim").read_bytes() == b"precious"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "folder"])
def test_a_planted_temporary_name_is_replaced_and_not_followed(kind, tmp_path, faults):
    KINDS[kind][0](tmp_path / "x.bin.partial")
    before = tree(tmp_path) if kind == "link" else None
    with atomic.writing(tmp_path / "x.bin") as file:
        file.write(b"new")
    assert (tmp_path / "x.bin").read_bytes() == b"new"
    assert not os.path.lexists(tmp_path / "x.bin.partial")
    assert not (tmp_path / "nothing").exists()
    assert before is None or (tmp_path / "victim").read_bytes() == b"precious"
    faults.record(
        "found in use: irregular file at a temporary name",
        holds="it is replaced; nothing outside of the folder is created or changed, and nothing waits",
        tries=1,
        survived=1,
    )


def test_a_folder_at_a_temporary_name_is_refused(tmp_path):
    (tmp_path / "x.bin.partial").mkdir()
    with pytest.raises(IrregularFile, match="a folder"), atomic.writing(tmp_path / "x.bin"):
        pass
    assert names_in(tmp_path) == ["x.bin.partial"]


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder"])
def test_a_final_name_that_no_file_can_take_is_refused_first(kind, tmp_path):
    KINDS[kind][0](tmp_path / "x.bin")
    with pytest.raises(IrregularFile), atomic.writing(tmp_path / "x.bin"):
        pytest.fail("the block began")
    assert names_in(tmp_path) == ["x.bin"]


def test_a_link_at_the_final_name_is_replaced(tmp_path):
    make_link(tmp_path / "x.bin")
    with atomic.writing(tmp_path / "x.bin") as file:
        file.write(b"new")
    assert tree(tmp_path) == {"x.bin": b"new", "victim": b"precious"}
    assert not (tmp_path / "x.bin").is_symlink()


def test_stale_temporary_files_of_any_kind_are_removed(tmp_path):
    for number, (kind, (make, _)) in enumerate(KINDS.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        make(folder / "x.partial")
        atomic.remove_temporaries(folder)
        assert os.path.lexists(folder / "x.partial") == (kind == "folder"), kind
    assert (tmp_path / "5" / "victim").read_bytes() == b"precious"


def test_new_files_have_the_mode_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        for name, make in {"new": regular.open_new, "update": regular.open_update, "add": regular.open_append}.items():
            make(tmp_path / name).close()
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o640, name
    finally:
        os.umask(before)


def test_files_are_read_changed_and_appended(tmp_path):
    path = tmp_path / "x"
    with regular.open_append(path) as file:
        file.write(b"ab")
    with regular.open_append(path) as file:
        file.write(b"cd")
    with regular.open_update(path) as file:
        assert file.read(1) == b"a"
        file.seek(1)
        file.write(b"X")
    with regular.open_read(path) as file:
        assert file.read() == b"aXcd"
    with pytest.raises(FileNotFoundError):
        regular.open_update(tmp_path / "y", create=False)
    (tmp_path / "z").symlink_to("x")
    with regular.open_read(tmp_path / "z") as file:  # links are followed for reading
        assert file.read() == b"aXcd"
    with regular.open_new(tmp_path / "z") as file:
        file.write(b"new")
    assert path.read_bytes() == b"aXcd"


def test_refused_files_leave_no_descriptor_open(tmp_path):
    os.mkfifo(tmp_path / "x")
    before = names_in("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(IrregularFile):
            regular.open_read(tmp_path / "x")
    assert len(names_in("/proc/self/fd")) == len(before)


def test_the_error_can_be_pickled(tmp_path):
    error = pickle.loads(pickle.dumps(IrregularFile(tmp_path, "a folder")))
    assert (error.path, error.kind) == (str(tmp_path), "a folder")
