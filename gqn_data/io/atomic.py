"""Atomic writes, checksums, locks and disk space, for local files and object stores.

Everything that the project writes goes through this module. A local file is written under a temporary name, flushed
to disk, then renamed. An object appears in its store once it is complete.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any, Self

from gqn_data.errors import DestinationError, IrregularFile, NoSpace, OptionError, SourceMissing
from gqn_data.io import regular
from gqn_data.io.lease import lease
from gqn_data.io.paths import AnyPath, StorePath, parse_path
from gqn_data.main_guard import end_unguarded_worker

try:
    import fcntl
except ImportError:  # Windows lacks fcntl: two concurrent runs are not detected there
    fcntl = None  # type: ignore[assignment]

_TEMPORARY = ".partial"
_attempt: ContextVar[str] = ContextVar("attempt", default="")
_BLOCK = 1 << 20


def data_root(given: str | os.PathLike[str] | StorePath | None = None) -> AnyPath:
    """Return the data root, a path or a URL: `given`, else `$GQN_DATA`, else `./data`."""
    return parse_path(given or os.environ.get("GQN_DATA") or "data")


def on_disk(where: AnyPath, what: str) -> Path:
    """Return `where` if it is a local path.

    Args:
        where: path or URL.
        what: what needs a local disk, for the message, such as "source files are downloaded".

    Raises:
        OptionError: `where` is a URL.
    """
    if isinstance(where, StorePath):
        raise OptionError(f"{where}: found a URL, expected a local path: {what} on a local disk")
    return where


@contextlib.contextmanager
def writing(path: AnyPath) -> Iterator[IO[bytes]]:
    """Open a binary file that is published under its name when the block succeeds.

    If the block fails, the file is discarded and a previous file of that name is kept. A local file is on the disk
    when the block ends. The bytes of an object are buffered in a temporary file in `$TMPDIR`.

    A link of that name is replaced, and the file that it points to is kept.

    Raises:
        IrregularFile: the name belongs to a folder, a named pipe, a socket or a device.
        NoSpace: the disk is full.
        StoreError: the upload failed.
    """
    if isinstance(path, StorePath):
        with (
            report_full_disk(path),
            tempfile.TemporaryFile(buffering=_BLOCK) as file,
        ):  # unnamed, so a killed process leaves nothing behind
            yield file
            file.seek(0)
            path.put(file)
        return
    regular.check_replaceable(path)
    make_folder(path.parent)
    temporary = path.with_name(path.name + _attempt.get() + _TEMPORARY)
    with report_full_disk(path):
        opened = regular.open_new(temporary, _BLOCK)
        try:
            with opened as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


@contextlib.contextmanager
def writing_part(path: Path, start: int) -> Iterator[ChecksummedFile]:
    """Write a part of a file that several processes fill; the part is on the disk when the block ends.

    The caller renames the file when all parts are written.

    Args:
        path: unfinished name of the file; created if it does not exist.
        start: offset of the part in the file, in bytes.

    Raises:
        IrregularFile: the name belongs to a link, a folder, a named pipe, a socket or a device.
        NoSpace: the disk is full.
    """
    make_folder(path.parent)
    with report_full_disk(path), regular.open_update(path, buffering=_BLOCK) as file:
        file.seek(start)
        with ChecksummedFile(file) as out:
            yield out
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def own_temporaries() -> Iterator[None]:
    """Use temporary names unique to this attempt, so that concurrent attempts may write the same file.

    A cluster reruns a task after losing contact with a worker, which may still be writing to the same shared disk.
    Both attempts write the same bytes. A later attempt does not overwrite the temporary files of a killed one;
    `remove_temporaries` deletes them.
    """
    before = _attempt.set(f".{uuid.uuid4().hex[:16]}")
    try:
        yield
    finally:
        _attempt.reset(before)


@contextlib.contextmanager
def report_full_disk(path: AnyPath) -> Iterator[None]:
    """Raise `NoSpace` if an operation in the block fails because the disk is full.

    Args:
        path: file being written, for the message.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        disk = f"the disk of {tempfile.gettempdir()}" if isinstance(path, StorePath) else "the disk"
        raise NoSpace(
            f"{path}: {disk} is full. Finished files are complete; free some space and run the same command again"
        ) from error


def sync_folder(folder: Path) -> None:
    """Flush renames in `folder` to disk, if the system supports it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: AnyPath, value: Any) -> None:
    """Write `value` as JSON, atomically. Equal values give identical bytes."""
    with writing(path) as file:
        file.write(json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return `value` as indented JSON in UTF-8. Equal values give identical bytes."""
    return json.dumps(value, indent=2, sort_keys=False, ensure_ascii=False).encode() + b"\n"


def make_folder(folder: AnyPath) -> None:
    """Create a folder and its missing parents. Does nothing in a store.

    Raises:
        DestinationError: a file or a dangling link has the name of the folder or of a parent.
    """
    if isinstance(folder, StorePath):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        found = next((each for each in (folder, *folder.parents) if os.path.lexists(each)), folder)
        raise DestinationError(f"{found}: found a file, expected a folder. Choose another path") from error


def remove_folder(folder: AnyPath) -> None:
    """Remove a folder and everything below it, if it exists."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for name, _ in folder.files():
        (folder / name).unlink(missing_ok=True)


def list_names(folder: AnyPath) -> list[str]:
    """Return the sorted names of the files in a folder; an empty list if it does not exist."""
    if isinstance(folder, StorePath):
        return [name for name, _ in folder.files() if "/" not in name]
    return sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def is_temporary(name: str) -> bool:
    """Return whether a file name marks a temporary file."""
    return name.endswith(_TEMPORARY)


def remove_temporaries(folder: AnyPath) -> None:
    """Remove the temporary files of killed runs below `folder`. Stores never contain any."""
    if isinstance(folder, StorePath):
        return
    for path in folder.rglob("*" + _TEMPORARY):
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)


def read_bounded(path: AnyPath, max_bytes: int) -> bytes:
    """Return the bytes of a file of at most `max_bytes`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is larger, or not a regular file: reading a device or a pipe might never end.
    """
    if isinstance(path, StorePath):
        size = path.stat().st_size
        _check_size(size, max_bytes)
        return path.read_range(0, size)  # bounded, even if the object grows meanwhile
    try:
        file = regular.open_read(path)
    except IrregularFile as error:
        raise ValueError(f"found {error.kind}, expected a regular file") from error
    with file:
        size = os.fstat(file.fileno()).st_size
        _check_size(size, max_bytes)
        return file.read(size)


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise ValueError(f"{size} bytes, expected {max_bytes} at most")


def is_present(path: AnyPath) -> bool:
    """Return whether a name exists. A link that leads nowhere is an error: it stood for something.

    Raises:
        SourceMissing: the name is a link to a file that is missing.
    """
    if path.exists() if isinstance(path, Path) else path.is_file():
        return True
    if isinstance(path, Path) and path.is_symlink():
        raise SourceMissing(
            f"{path}: a link to {path.readlink()}, which is missing. Restore that file, or remove the link"
        )
    return False


def sha256_of(path: AnyPath) -> str:
    """Return the SHA-256 of a file in hexadecimal, computed in bounded memory.

    Raises:
        IrregularFile: it is not a regular file: reading a device or a pipe might never end.
    """
    if isinstance(path, StorePath):
        digest = hashlib.sha256()
        for block in path.blocks():
            digest.update(block)
        return digest.hexdigest()
    with regular.open_read(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_free_space(folder: AnyPath, wanted: int) -> None:
    """Raise unless the disk of `folder` has `wanted` free bytes. A store always passes.

    Raises:
        NoSpace: it has less. The message gives both numbers.
    """
    if isinstance(folder, StorePath):
        return
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if wanted > free:
        raise NoSpace(
            f"{folder}: {human_bytes(wanted)} would be written and {human_bytes(free)} are free. "
            "Free some space, write elsewhere with --out or --root, or write fewer scenes with --limit"
        )


def human_bytes(count: float) -> str:
    """Format a number of bytes in powers of 1000, such as `1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


class ChecksummedFile:
    """Writer that computes the SHA-256 of a file, with separate threads for hashing, writing and flushing.

    All three release the GIL, so they overlap with producing the bytes.

    Args:
        file: file opened by `writing`.

    Attributes:
        position: number of bytes written so far.
    """

    _BLOCK = 1 << 20  # small enough to stay in the CPU cache while it is joined, hashed and written
    _PENDING = 8
    _FLUSH_EVERY = 32 << 20

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._parts: list[bytes | bytearray | memoryview] = []
        self._held = 0
        self._unflushed = 0
        self._hasher = ThreadPoolExecutor(1)
        self._writer = ThreadPoolExecutor(1)
        self._flusher = ThreadPoolExecutor(1)
        self._pending: deque[Future[Any]] = deque()
        self._flushing: Future[None] | None = None
        self.position = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for thread in (self._hasher, self._writer, self._flusher):
            thread.shutdown(wait=True, cancel_futures=True)

    def write(self, part: bytes | bytearray | memoryview) -> None:
        """Append bytes. The caller must not modify their memory afterwards."""
        self.write_all((part,), len(part))

    def write_all(self, parts: Sequence[bytes | bytearray | memoryview], length: int) -> None:
        """Append parts of `length` bytes in total. The caller must not modify their memory afterwards."""
        self._parts += parts
        self.position += length
        self._held += length
        if self._held >= self._BLOCK:
            self._hand_over()

    def _hand_over(self) -> None:
        block = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        self._held = 0
        while len(self._pending) >= self._PENDING:
            self._pending.popleft().result()
        self._pending.append(self._hasher.submit(self._digest.update, block))
        self._pending.append(self._writer.submit(self._put, block))

    def _put(self, block: bytes | bytearray | memoryview) -> None:
        self._file.write(block)
        self._unflushed += len(block)
        # Flushing regularly keeps the final flush short.
        if self._unflushed >= self._FLUSH_EVERY and (self._flushing is None or self._flushing.done()):
            self._file.flush()
            self._flushing = self._flusher.submit(_sync_data, self._file.fileno())
            self._unflushed = 0

    def finish(self) -> str:
        """Wait for all writes and return the SHA-256 in hexadecimal."""
        self._hand_over()
        while self._pending:
            self._pending.popleft().result()
        if self._flushing is not None:
            self._flushing.result()
        return self._digest.hexdigest()


def _sync_data(handle: int) -> None:
    getattr(os, "fdatasync", os.fsync)(handle)


def is_locked(folder: Path, lock_name: str = ".lock") -> bool:
    """Return whether another process writes into the folder, as `exclusive_writer` locks it. Windows: always False."""
    if fcntl is None or not (folder / lock_name).exists():
        return False
    with contextlib.suppress(FileNotFoundError), regular.open_read(folder / lock_name) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


@contextlib.contextmanager
def exclusive_writer(folder: AnyPath, lock_name: str = ".lock") -> Iterator[None]:
    """Hold an exclusive lock on `folder`, which the system releases even if this process is killed.

    In an object store a lease takes the place of the lock (`io/lease.py`). On Windows, and on file systems without
    locks, two concurrent runs are not detected.

    Args:
        folder: folder to lock; created if missing.
        lock_name: name of the lock file in it.

    Raises:
        DestinationError: another process holds the lock.
        IrregularFile: the lock's name belongs to a link, a named pipe, a socket, a device or a folder.
    """
    end_unguarded_worker()
    if isinstance(folder, StorePath):
        with lease(folder / lock_name, str(folder)):
            yield
        return
    make_folder(folder)
    lock = folder / lock_name
    while True:
        with regular.open_update(lock) as file:
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    if error.errno in (errno.EAGAIN, errno.EACCES):
                        raise DestinationError(
                            f"{folder}: another run is writing there. Wait for it, or write elsewhere (--out, --root)"
                        ) from error
            try:
                same = lock.lstat().st_ino == os.fstat(file.fileno()).st_ino
            except FileNotFoundError:
                same = False
            if not same:
                continue  # another run removed the file after we opened it and before we locked it
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return
