"""Small disks that fill up: a mounted tmpfs, or a simulation if mounting is not permitted.

Both can be resized. Tests write to their `folder`.
"""

import contextlib
import errno
import io
import os
import subprocess

PAGE = 4096


class MountedDisk:
    """Mounted tmpfs of a given size."""

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
    """Folder whose binary files raise ENOSPC once the folder exceeds a size, by replacing `io.open`."""

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
            os.stat(os.path.join(above, name)).st_size  # noqa: PTH116, PTH118  `Path.open` is replaced here
            for above, _, names in os.walk(self.folder)
            for name in names
        )

    def end(self):
        io.open = self._open

    def _counting(self, file, mode="r", buffering=-1, *rest, **options):
        path = os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else os.fspath(file)  # noqa: PTH115  as above
        mine = str(path).startswith(str(self.folder))
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
    """Create a small disk, mounted if this machine permits it."""
    try:
        disk = MountedDisk(folder)
    except (OSError, subprocess.SubprocessError):
        disk = CountedDisk(folder)
    try:
        yield disk
    finally:
        disk.end()
