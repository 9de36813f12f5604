"""Disks that fill up: a small one that is really mounted, or, where that is not allowed, files that count.

Both can be given more room. `SmallDisk.folder` is where they are written to.
"""

import contextlib
import errno
import io
import os
import subprocess

PAGE = 4096


class MountedDisk:
    """A file system in memory, of as many bytes as it is given."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder]
        made = subprocess.run(command, capture_output=True, check=False)
        if made.returncode:
            folder.rmdir()
            raise PermissionError(made.stderr.decode().strip())

    def resize(self, size):
        pages = -(-max(size, PAGE) // PAGE)
        subprocess.run(["mount", "-o", f"remount,size={pages * PAGE}", self.folder], check=True)

    def used(self):
        found = os.statvfs(self.folder)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def end(self):
        subprocess.run(["umount", "--lazy", self.folder], check=True)


class CountedDisk:
    """A folder whose files are opened by a function that counts what is written, and ends as a full disk does."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self._size = 64 << 20
        self._open = io.open
        io.open = self._counting

    def resize(self, size):
        self._size = size

    def used(self):
        return sum(
            os.stat(os.path.join(above, name)).st_size  # noqa: PTH116, PTH118  Path.open is what is replaced here
            for above, _, names in os.walk(self.folder)
            for name in names
        )

    def end(self):
        io.open = self._open

    def _counting(self, file, mode="r", buffering=-1, *rest, **options):
        mine = isinstance(file, str | os.PathLike) and os.fspath(file).startswith(str(self.folder))
        if not mine or "b" not in mode or not set(mode) & set("wa+"):
            return self._open(file, mode, buffering, *rest, **options)
        raw = _Counted(file, mode.replace("b", ""), self)
        return raw if buffering == 0 else io.BufferedWriter(raw, buffering if buffering > 1 else 8192)

    def need(self, count):
        if self.used() + count > self._size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class _Counted(io.FileIO):
    def __init__(self, file, mode, disk):
        super().__init__(file, mode)
        self._disk = disk

    def write(self, data):
        self._disk.need(memoryview(data).nbytes)
        return super().write(data)


@contextlib.contextmanager
def small_disk(folder):
    """A disk of the better kind that this machine allows."""
    try:
        disk = MountedDisk(folder)
    except (OSError, subprocess.SubprocessError):
        disk = CountedDisk(folder)
    try:
        yield disk
    finally:
        disk.end()
