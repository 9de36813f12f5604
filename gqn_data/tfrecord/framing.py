"""TFRecord files: their framing, the reader and the writer.

Reading is our own: both checksums of every record are checked, nothing a file says is believed before it is
checked, memory is bounded by one record, and the bytes that come back are owned. What a record holds is found in
`source_files.wire`. Writing goes through the `Example` message of the `tfrecord` package.

Sources: framing, tensorflow/core/lib/io/record_writer.h; `Example` message, tensorflow/core/example/*.proto.
Imports `errors`, `stores`.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import crc32c
import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import CorruptFraming, CorruptRecord
from gqn_data.io.paths import AnyPath

HEADER_BYTES = 12  # length as uint64, its masked checksum as uint32, both little-endian
FOOTER_BYTES = 4  # masked checksum of the payload
_BUFFER = 1 << 20
_CHECKED = 1 << 18  # bytes that are checked at once; more would leave the cache in between
_MOST_BYTES = 1 << 30  # of a record; protobuf itself reads no message of more than twice that

_HEADER = struct.Struct("<QI")
_UINT64 = struct.Struct("<Q")
_UINT32 = struct.Struct("<I")

# What users have in hand where a TFRecord should be, by the first bytes of the file.
_FOREIGN = (
    (b"\x1f\x8b", "compressed with gzip; unpack it first (DeepMind's files are not compressed)"),
    (b"\x78\x01", "compressed with zlib; unpack it first (DeepMind's files are not compressed)"),
    (b"\x78\x9c", "compressed with zlib; unpack it first (DeepMind's files are not compressed)"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first (DeepMind's files are not compressed)"),
    (b"PK\x03\x04", "a zip archive, not a TFRecord"),
    (b"<", "a web page or XML, not a TFRecord: the answer of a failed download, perhaps"),
    (b"version https://git-lfs", "a Git LFS pointer, not a TFRecord"),
)


class Record(NamedTuple):
    """One record of a file.

    Attributes:
        number: from 0, in the file.
        offset: where its header begins, in bytes.
        payload: the serialized `Example`, its checksum checked; owned by the caller.
    """

    number: int
    offset: int
    payload: bytes


def masked_crc(data: bytes | memoryview, before: int = 0) -> int:
    """The checksum of the framing: CRC-32C, rotated right by 15 bits, plus a constant (record_writer.h).

    Args:
        data: the bytes.
        before: CRC-32C of those that come before them.
    """
    crc: int = crc32c.crc32c(data, before)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def read_records(
    path: AnyPath, on_corrupt: Callable[[CorruptRecord], None] | None = None, *, first: int = 0
) -> Iterator[Record]:
    """The records of a file in order, both checksums checked.

    Args:
        path: the file.
        first: the number of the record to begin with; those before it are passed over by their framing.
        on_corrupt: called with what is wrong, instead of raising it; reading goes on with the next record,
            or ends where the framing itself cannot be trusted any more.

    Raises:
        CorruptRecord: a payload does not match its checksum.
        CorruptFraming: no TFRecord, compressed, or cut short.
    """
    with _opened(path) as (file, size):
        number, offset = _pass_over(file, path, size, first)
        read = file.read
        header = read(HEADER_BYTES)
        while header or not number:
            length = _length_in(header)
            following = offset + HEADER_BYTES + length + FOOTER_BYTES
            if not 0 <= length <= _MOST_BYTES or following > size:
                fault = _framing_fault(header, size - offset, first=offset == 0)
                report(CorruptFraming(path, number, offset, fault), on_corrupt)
                return
            payload = read(length)
            between = read(FOOTER_BYTES + HEADER_BYTES)  # in one go: this record's footer, the next one's header
            found, expected = masked_crc(payload), int.from_bytes(between[:FOOTER_BYTES], "little")
            if found == expected:
                yield Record(number, offset, payload)
            else:
                report(wrong_payload(path, number, offset, found, expected), on_corrupt)
            number += 1
            offset = following
            header = between[FOOTER_BYTES:]


def wrong_payload(path: object, number: int, offset: int, found: int, expected: int) -> CorruptRecord:
    """The fault of a record whose payload has another checksum than its footer says."""
    reason = f"checksum of the payload is {found:08x}, the file says {expected:08x}"
    return CorruptRecord(path, number, offset, reason)


def report(fault: CorruptRecord, on_corrupt: Callable[[CorruptRecord], None] | None) -> None:
    """Hands a fault to whoever wants to go on, else raises it."""
    if on_corrupt is None:
        raise fault
    on_corrupt(fault)


def _length_in(header: bytes) -> int:
    """The length that a record's header gives; -1 where the header is not whole or does not fit its checksum."""
    if len(header) != HEADER_BYTES:
        return -1
    length: int
    length, expected = _HEADER.unpack(header)
    return length if masked_crc(header[:8]) == expected else -1


def _framing_fault(header: bytes, left: int, *, first: bool) -> str:
    """What is wrong with a record's bad header, given the bytes left in the file from its start on."""
    if not header:
        return "the file is empty"
    if first:
        for magic, reason in _FOREIGN:
            if header.startswith(magic[:HEADER_BYTES]) and _length_in(header) < 0:
                return reason
    if len(header) < HEADER_BYTES:
        return f"the file ends inside a record's header: {len(header)} bytes, expected {HEADER_BYTES}"
    if _length_in(header) < 0:
        length, expected = _HEADER.unpack(header)
        found = masked_crc(header[:8])
        what = "not a TFRecord, or damaged" if first else "damaged"
        return f"{what}: checksum of the length {length} is {found:08x}, the file says {expected:08x}"
    needed = HEADER_BYTES + _length_in(header) + FOOTER_BYTES
    if needed <= left:
        return f"a record of {_length_in(header)} bytes, expected {_MOST_BYTES} at most"
    return f"the file ends inside the record: {left} bytes left, expected {needed}"


def count_records(path: AnyPath) -> int:
    """The number of records in a file, by its framing alone; payloads are not read.

    Raises:
        CorruptFraming: no TFRecord, compressed, or cut short.
    """
    with _opened(path) as (file, size):
        return _pass_over(file, path, size, None)[0]


class RecordChecker:
    """Tests both checksums of every record of a file whose bytes come past in order, in blocks of any size.

    Nothing of the file is held but what lies between two payloads.

    Args:
        file: which, for messages.
        size: its bytes.
    """

    def __init__(self, file: object, size: int) -> None:
        self._file = file
        self._size = size
        self._number = 0
        self._offset = 0  # of the record that is under way
        self._length = -1  # of its payload; -1 before the first header
        self._left = 0  # bytes of its payload that are to come
        self._crc = 0  # of those that came
        self._joint = bytearray()  # what came of its footer and the next header
        self._wanted = HEADER_BYTES  # bytes of both

    def feed(self, block: bytes | memoryview) -> None:
        """Takes the next bytes; those behind the end of the file are passed over.

        Raises:
            CorruptRecord: a payload does not match its checksum.
            CorruptFraming: no TFRecord, compressed, or cut short.
        """
        view = memoryview(block)
        at, end = 0, len(view)
        while at < end and self._offset < self._size:
            if self._left:
                took = min(self._left, end - at)
                self._crc = crc32c.crc32c(view[at : at + took], self._crc)
                self._left -= took
            else:
                took = min(self._wanted - len(self._joint), end - at)
                self._joint += view[at : at + took]
                if len(self._joint) == self._wanted:
                    self._pass_joint()
            at += took

    def finish(self) -> int:
        """The number of records, when all bytes have come.

        Raises:
            CorruptRecord, CorruptFraming: as `feed`; what came ends inside a record.
        """
        if self._offset < self._size or not self._number:
            self._pass_joint()
            raise CorruptFraming(self._file, self._number, self._offset, "the file ends inside the record")
        return self._number

    def _pass_joint(self) -> None:
        """Looks at what lies between two payloads: before the first and behind the last it is half as much."""
        header = bytes(self._joint)
        self._joint.clear()
        if self._length >= 0:
            footer, header = header[:FOOTER_BYTES], header[FOOTER_BYTES:]
            found, expected = masked_crc(b"", self._crc), int.from_bytes(footer, "little")
            if found != expected:
                raise wrong_payload(self._file, self._number, self._offset, found, expected)
            self._offset += HEADER_BYTES + self._length + FOOTER_BYTES
            self._number += 1
            if self._offset == self._size:
                return
        length = _length_in(header)
        following = self._offset + HEADER_BYTES + length + FOOTER_BYTES
        if length < 0 or following > self._size:
            fault = _framing_fault(header, self._size - self._offset, first=self._offset == 0)
            raise CorruptFraming(self._file, self._number, self._offset, fault)
        self._length = self._left = length
        self._crc = 0
        self._wanted = FOOTER_BYTES + (HEADER_BYTES if following < self._size else 0)


def check_records(path: Path) -> int:
    """The number of records in a file, both checksums of each tested; the same memory whatever their lengths.

    Raises:
        CorruptRecord: a payload does not match its checksum.
        CorruptFraming: no TFRecord, compressed, or cut short.
    """
    view = memoryview(bytearray(_CHECKED))
    with path.open("rb", buffering=0) as file:
        checker = RecordChecker(path, os.fstat(file.fileno()).st_size)
        while count := file.readinto(view):
            checker.feed(view[:count])
    return checker.finish()


@contextlib.contextmanager
def _opened(path: AnyPath) -> Iterator[tuple[IO[bytes], int]]:
    """A file open for reading, and its size."""
    if isinstance(path, Path):
        if path.exists() and not path.is_file():
            raise CorruptFraming(path, 0, 0, "no regular file")
        with path.open("rb", buffering=_BUFFER) as local:
            yield local, os.fstat(local.fileno()).st_size
        return
    size = path.stat().st_size
    with path.open_reader() as remote:
        yield remote, size


def _pass_over(file: IO[bytes], path: AnyPath, size: int, count: int | None) -> tuple[int, int]:
    """Passes over `count` records, or all, by their framing; the number and the offset of the next record."""
    number = offset = 0
    handle = file.fileno() if isinstance(path, Path) else None
    while number != count and (offset < size or number == 0):
        if handle is None:  # all of the file comes past
            file.seek(offset)
            header = file.read(HEADER_BYTES)
        else:
            header = os.pread(handle, HEADER_BYTES, offset)
        length = _length_in(header)
        following = offset + HEADER_BYTES + length + FOOTER_BYTES
        if not 0 <= length <= _MOST_BYTES or following > size:
            fault = _framing_fault(header, size - offset, first=offset == 0)
            raise CorruptFraming(path, number, offset, fault)
        offset = following
        number += 1
    file.seek(offset)
    return number, offset


def serialize_example(frames: Sequence[bytes | bytearray | memoryview], cameras: NDArray[np.float32]) -> bytes:
    """A scene as a serialized `Example` in DeepMind's schema; the same scene gives the same bytes.

    Args:
        frames: JPEG bytes of each view.
        cameras: float32 (views, camera numbers).
    """
    example = _messages().Example()
    feature = example.features.feature
    feature["frames"].bytes_list.value.extend(bytes(frame) for frame in frames)
    feature["cameras"].float_list.value.extend(np.asarray(cameras, np.float32).ravel().tolist())
    return bytes(example.SerializeToString(deterministic=True))  # a map has no order of its own


@cache
def _messages() -> Any:
    """The module of the `tfrecord` package that holds the messages, and that alone.

    The package itself imports torch where that is installed: seconds in every worker that renders.
    """
    package = find_spec("tfrecord")
    folders = None if package is None else package.submodule_search_locations
    spec = None if folders is None else PathFinder.find_spec("example_pb2", list(folders))
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("the package tfrecord is not installed as it should be", name="tfrecord")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Sink(Protocol):
    """What takes bytes, one after the other."""

    def write(self, part: bytes, /) -> object:
        """Appends bytes."""


class RecordWriter:
    """Frames payloads into a binary file that the caller opened.

    Args:
        file: open for writing, at the place where the next record is to begin.
    """

    def __init__(self, file: Sink) -> None:
        self._file = file

    def write(self, payload: bytes) -> None:
        """Appends one record."""
        length = _UINT64.pack(len(payload))
        self._file.write(length + _UINT32.pack(masked_crc(length)))
        self._file.write(payload)
        self._file.write(_UINT32.pack(masked_crc(payload)))
