"""Remote files for tests of the cache, kept in a folder. Any process may fetch them, and fetches are counted."""

import hashlib
import time
from pathlib import Path

from gqn_data.errors import StoreChanged
from gqn_data.io.paths import Stat
from gqn_data.schema.manifest import FileRow


class MadePlace:
    """Fake of `StorePath` with the methods that the cache uses.

    Args:
        path: file that contains the bytes.
        wrong: number of first fetches that return wrong bytes.
        seconds: delay per block.
        block: size of a block in bytes.
    """

    def __init__(self, path, *, wrong=0, seconds=0.0, block=1000):
        self.path, self.wrong, self.seconds, self.block = Path(path), wrong, seconds, block

    def __str__(self):
        return f"made://{self.path.name}"

    def stat(self):
        stat = self._stat()
        return Stat(st_size=stat.st_size, e_tag=f'"{stat.st_mtime_ns}"')

    def blocks(self, start=0, e_tag=None):
        self._stat()
        with self._log.open("ab") as log:
            log.write(b".")
        data = self.path.read_bytes()[start:]
        if self.fetches <= self.wrong:
            data = self.spoil(data)
        for first in range(0, len(data), self.block):
            time.sleep(self.seconds)
            yield data[first : first + self.block]

    def spoil(self, data):
        return bytes([data[0] ^ 1]) + data[1:]

    @property
    def fetches(self):
        try:
            return self._log.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def _log(self):
        return self.path.with_name(self.path.name + ".fetched")

    def _stat(self):
        try:
            return self.path.stat()
        except FileNotFoundError as error:
            raise FileNotFoundError(2, "no such object", str(self)) from error


class CutPlace(MadePlace):
    def spoil(self, data):
        return data[:-1]


class LongPlace(MadePlace):
    def spoil(self, data):
        return data + b"!"


class ChangingPlace(MadePlace):
    def blocks(self, start=0, e_tag=None):
        blocks = super().blocks(start, e_tag)
        yield next(blocks)
        if self.fetches <= self.wrong:
            raise StoreChanged(f"{self}: was replaced meanwhile")
        yield from blocks


def made_file(folder, name, size, *, kind=MadePlace, checksum=True, **options):
    """Create a remote file of `size` bytes, and return it with its manifest row."""
    data = (hashlib.sha256(name.encode()).digest() * (size // 32 + 1))[:size]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    row = FileRow(name=name, bytes=size, sha256=hashlib.sha256(data).hexdigest() if checksum else None)
    return kind(folder / name, **options), row
