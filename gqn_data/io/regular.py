"""Opening of regular files, for every local file that is read or written.

Opening never waits for the other end of a named pipe, and never creates or changes a file through a link. So a folder
from a stranger cannot hang a program with a pipe or a device, nor make it write outside of that folder.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from gqn_data.errors import IrregularFile

# O_BINARY prevents newline translation on Windows, O_CLOEXEC inheritance by child processes, O_NONBLOCK waiting for
# the other end of a pipe.
_ALWAYS = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# What opening such a file may fail with: a folder, a link that must not be followed, a socket.
_IRREGULAR = (errno.EISDIR, errno.ELOOP, errno.ENXIO)


def open_read(path: Path, buffer_size: int = io.DEFAULT_BUFFER_SIZE) -> io.BufferedReader:
    """Open a file for reading.

    Args:
        path: the file, or a link to it.
        buffer_size: bytes read ahead.

    Raises:
        FileNotFoundError: the file does not exist.
        IrregularFile: it is a named pipe, a socket, a device or a folder.
    """
    return io.BufferedReader(io.FileIO(descriptor(path)), buffer_size)


def open_update(path: Path, *, create: bool = True, buffering: int = -1) -> IO[bytes]:
    """Open a file for reading and writing, at its start, without truncating it.

    Args:
        path: the file; not a link.
        create: create the file if it does not exist.
        buffering: as in `open`.

    Raises:
        FileNotFoundError: the file does not exist.
        IrregularFile: it is a link, a named pipe, a socket, a device or a folder.
    """
    flags = os.O_RDWR | _NO_LINK | (os.O_CREAT if create else 0)
    return os.fdopen(descriptor(path, flags), "r+b", buffering)


def open_append(path: Path) -> IO[bytes]:
    """Open a file for appending; create it if it does not exist.

    Raises:
        IrregularFile: it is a link, a named pipe, a socket, a device or a folder.
    """
    return os.fdopen(descriptor(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _NO_LINK), "ab")


def open_new(path: Path, buffering: int = -1) -> IO[bytes]:
    """Create an empty file for writing in place of an existing file or link, which is removed, never written to.

    Raises:
        IrregularFile: a folder has this name.
    """
    with _reporting(path):
        path.unlink(missing_ok=True)
    return os.fdopen(descriptor(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINK), "wb", buffering)


def descriptor(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a file like `os.open` and return its descriptor.

    Raises:
        IrregularFile: it is not a regular file, or `flags` forbid its link.
    """
    with _reporting(path):
        number = os.open(path, flags | _ALWAYS, 0o666)
    found = os.fstat(number)
    if not stat.S_ISREG(found.st_mode):
        os.close(number)
        raise _irregular(path, found.st_mode)
    return number


def check_regular(path: Path) -> None:
    """Raise unless a file that a library opens by its name is regular, or a link to a regular file.

    Raises:
        FileNotFoundError: the file does not exist.
        IrregularFile: it is a named pipe, a socket, a device or a folder.
    """
    with _reporting(path):
        mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise _irregular(path, mode)


def check_replaceable(path: Path) -> None:
    """Raise unless a new file may take this name: it is free, or names a regular file or a link.

    Raises:
        IrregularFile: it names a named pipe, a socket, a device or a folder.
    """
    with contextlib.suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            raise _irregular(path, mode)


@contextlib.contextmanager
def _reporting(path: Path) -> Iterator[None]:
    """Raise `IrregularFile` for errors that only irregular files cause."""
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):
            mode = (path.lstat() if error.errno == errno.ELOOP else path.stat()).st_mode
            if error.errno in _IRREGULAR or stat.S_ISDIR(mode):
                raise _irregular(path, mode) from error
        raise


def _irregular(path: Path, mode: int) -> IrregularFile:
    return IrregularFile(path, _KINDS.get(stat.S_IFMT(mode), "a special file"))
