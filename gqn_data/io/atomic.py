"""Files: written whole or not at all, named without surprise, checksummed.

Everything that the project writes goes through here: to a temporary name, flushed to the disk, then renamed; or,
in an object store, as one object that appears when it is whole. Imports `errors`, `stores`.
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

from gqn_data.errors import DestinationError, NoSpace, OptionError, ShardChecksumError
from gqn_data.io.lease import lease
from gqn_data.io.paths import AnyPath, StorePath, parse_path

try:
    import fcntl
except ImportError:  # Windows has no fcntl; two runs at once are then not noticed
    fcntl = None  # type: ignore[assignment]

_TEMPORARY = ".partial"
_attempt: ContextVar[str] = ContextVar("attempt", default="")
_BLOCK = 1 << 20


def data_root(given: str | os.PathLike[str] | StorePath | None = None) -> AnyPath:
    """The data root: the one given, else `$GQN_DATA`, else `./data`; a path or a URL."""
    return parse_path(given or os.environ.get("GQN_DATA") or "data")


def on_disk(where: AnyPath, what: str) -> Path:
    """The place as a path on a disk.

    Raises:
        OptionError: it is a URL; `what` says what needs a disk.
    """
    if isinstance(where, StorePath):
        raise OptionError(f"{where}: {what} to a disk; give a path")
    return where


@contextlib.contextmanager
def writing(path: AnyPath) -> Iterator[IO[bytes]]:
    """A binary file that appears under its name when the block ends, whole and on the disk; else not at all.

    What goes to an object store is first written to the disk for temporary files (`$TMPDIR`).

    Raises:
        NoSpace: the disk is full.
        StoreError: the store does not take it.
    """
    if isinstance(path, StorePath):
        with (
            report_full_disk(path),
            tempfile.TemporaryFile(buffering=_BLOCK) as file,
        ):  # nameless: a kill leaves nothing
            yield file
            file.seek(0)
            path.put(file)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + _attempt.get() + _TEMPORARY)
    with report_full_disk(path):
        try:
            with temporary.open("wb", buffering=_BLOCK) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


@contextlib.contextmanager
def own_temporaries() -> Iterator[None]:
    """In the block, temporary names are of this attempt alone: another one may write the same file at the same time.

    A cluster runs a task again when it has lost sight of a worker, which may still be at it, on the same shared disk.
    Both attempts give the same bytes. What a killed one leaves is not overwritten by the next: `remove_temporaries`.
    """
    before = _attempt.set(f".{uuid.uuid4().hex[:16]}")
    try:
        yield
    finally:
        _attempt.reset(before)


@contextlib.contextmanager
def report_full_disk(path: AnyPath) -> Iterator[None]:
    """Raises NoSpace where the system says that the disk is full; `path` is what is written."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        disk = f"the disk of {tempfile.gettempdir()}" if isinstance(path, StorePath) else "the disk"
        raise NoSpace(
            f"{path}: {disk} is full; nothing under a final name is half-written. "
            "Make room and run the same command again"
        ) from error


def sync_folder(folder: Path) -> None:
    """Makes renames in `folder` last through a power cut, where the system allows it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: AnyPath, value: Any) -> None:
    """Writes `value` as JSON, atomically, in a form that two runs give alike."""
    with writing(path) as file:
        file.write(json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """`value` as JSON, in a form that two runs give alike."""
    return json.dumps(value, indent=2, sort_keys=False, ensure_ascii=False).encode() + b"\n"


def make_folder(folder: AnyPath) -> None:
    """Makes a folder and those above it, where they are absent; stores have no folders to make."""
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)


def remove_folder(folder: AnyPath) -> None:
    """Removes a folder and all below it; nothing where it is absent."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for name, _ in folder.files():
        (folder / name).unlink(missing_ok=True)


def list_names(folder: AnyPath) -> list[str]:
    """The names of the files in a folder, in order; none where it is absent."""
    if isinstance(folder, StorePath):
        return [name for name, _ in folder.files() if "/" not in name]
    return sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def remove_temporaries(folder: AnyPath) -> None:
    """Removes what a killed run left under temporary names below `folder`; a store shows nothing half-written."""
    if isinstance(folder, StorePath):
        return
    for path in folder.rglob("*" + _TEMPORARY):
        if path.is_file():
            path.unlink(missing_ok=True)


def read_bounded(path: AnyPath, most: int) -> bytes:
    """The bytes of a file that should have no more than so many.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has more, or is a device, which has no end, or a pipe, which has nobody at its other one.
    """
    found = path.stat()
    if isinstance(path, Path) and not path.is_file():
        raise ValueError("no regular file")
    if found.st_size > most:
        raise ValueError(f"{found.st_size} bytes, expected {most} at most")
    if isinstance(path, StorePath):
        return path.read_range(0, found.st_size)  # no more than it said, whatever it would send
    return path.read_bytes()


def sha256_of(path: AnyPath) -> str:
    """The SHA-256 of a file, in hexadecimal; bounded memory.

    Raises:
        ShardChecksumError: a device or a pipe, which may have no end.
    """
    if isinstance(path, StorePath):
        digest = hashlib.sha256()
        for block in path.blocks():
            digest.update(block)
        return digest.hexdigest()
    if path.exists() and not path.is_file():
        raise ShardChecksumError(f"{path}: no regular file; convert or copy it again")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_free_space(folder: AnyPath, wanted: int) -> None:
    """Returns where the disk of `folder` has room for `wanted` bytes; a store has.

    Raises:
        NoSpace: it has less; the message tells both figures.
    """
    if isinstance(folder, StorePath):
        return
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if wanted > free:
        raise NoSpace(
            f"{folder}: {human_bytes(wanted)} would be written and {human_bytes(free)} are free; "
            "make room, write elsewhere with --out or --root, or fewer scenes with --limit"
        )


def human_bytes(count: float) -> str:
    """A number of bytes as people read it: `1.5 GB` (powers of 1000, as disks are sold)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


class ChecksummedFile:
    """Writes to a file that `writing` opened, and computes its SHA-256 on the way, each in a thread of its own.

    Hashing, writing and flushing let go of the interpreter, so they run beside whatever makes the bytes.

    Args:
        file: open for writing.
    """

    _BLOCK = 1 << 20  # while it is joined, hashed and written it lies in the cache
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
        """Appends bytes; the caller does not touch their memory again."""
        self.write_all((part,), len(part))

    def write_all(self, parts: Sequence[bytes | bytearray | memoryview], length: int) -> None:
        """Appends parts whose lengths add up to `length`; the caller does not touch their memory again."""
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
        # Sent to the disk bit by bit, the last flush finds little to wait for.
        if self._unflushed >= self._FLUSH_EVERY and (self._flushing is None or self._flushing.done()):
            self._file.flush()
            self._flushing = self._flusher.submit(_sync_data, self._file.fileno())
            self._unflushed = 0

    def finish(self) -> str:
        """Waits for all that was written; the SHA-256 of it in hexadecimal."""
        self._hand_over()
        while self._pending:
            self._pending.popleft().result()
        if self._flushing is not None:
            self._flushing.result()
        return self._digest.hexdigest()


def _sync_data(handle: int) -> None:
    getattr(os, "fdatasync", os.fsync)(handle)


@contextlib.contextmanager
def exclusive_writer(folder: AnyPath, lock_name: str = ".lock") -> Iterator[None]:
    """Holds `folder` for this process; the system lets go of it even when the process is killed.

    In an object store a lease is held instead (`stores/leases.py`). A file system that has no locks is like one that
    lets go of them at once: two runs are then not noticed.

    Args:
        folder: made where it is absent.
        lock_name: of the file in it that is held.

    Raises:
        DestinationError: another process is writing there.
    """
    if isinstance(folder, StorePath):
        with lease(folder / lock_name, str(folder)):
            yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / lock_name
    while True:
        with lock.open("ab") as file:
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    if error.errno in (errno.EAGAIN, errno.EACCES):
                        raise DestinationError(
                            f"{folder}: another run is writing there; wait for it, or write elsewhere (--out, --root)"
                        ) from error
            try:
                same = lock.stat().st_ino == os.fstat(file.fileno()).st_ino
            except FileNotFoundError:
                same = False
            if not same:
                continue  # the run before removed its lock between our opening and our locking it
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return
