"""TFRecord framing: reader, checker and writer.

The reader checks both checksums of every record before it uses a length or a payload, holds at most one record in
memory, and returns bytes that the caller owns. `example.py` parses payloads. The writer serializes scenes with the
`Example` message of the `tfrecord` package.

The reasons of faults are recorded in manifests, and fingerprints cover them: their wording does not change.

Sources: framing, tensorflow/core/lib/io/record_writer.h; `Example` message, tensorflow/core/example/*.proto.
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
from gqn_data.io import regular
from gqn_data.io.paths import AnyPath

HEADER_BYTES = 12  # length as uint64, its masked checksum as uint32, both little-endian
FOOTER_BYTES = 4  # masked checksum of the payload
_BUFFER = 1 << 20
_CHECK_BLOCK = 1 << 18  # bytes per checksum call; larger blocks would fall out of the CPU cache
_MAX_RECORD_BYTES = 1 << 30  # protobuf reads messages of up to twice this

_HEADER = struct.Struct("<QI")
_UINT64 = struct.Struct("<Q")
_UINT32 = struct.Struct("<I")

# Common mistakes for a TFRecord, by the first bytes of the file.
_FOREIGN = (
    (b"\x1f\x8b", "compressed with gzip; unpack it first (DeepMind's files are not compressed)"),
    (b"\x78\x01", "compressed with zlib; unpack it first (DeepMind's files are not compressed)"),
    (b"\x78\x9c", "compressed with zlib; unpack it first (DeepMind's files are not compressed)"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first (DeepMind's files are not compressed)"),
    (b"PK\x03\x04", "a zip archive, not a TFRecord"),
    (b"<", "a web page or XML, not a TFRecord: perhaps the response of a failed download"),
    (b"version https://git-lfs", "a Git LFS pointer, not a TFRecord"),
)


class Record(NamedTuple):
    """One record of a file.

    Attributes:
        number: index in the file, from 0.
        offset: start of the header in the file, in bytes.
        payload: the serialized `Example`, with a verified checksum; owned by the caller.
    """

    number: int
    offset: int
    payload: bytes


def masked_crc(data: bytes | memoryview, previous: int = 0) -> int:
    """Compute the masked CRC of TFRecord: CRC-32C, rotated right by 15 bits, plus a constant (record_writer.h).

    Args:
        data: the bytes.
        previous: CRC-32C of the bytes that precede them.
    """
    crc: int = crc32c.crc32c(data, previous)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def read_records(
    path: AnyPath, on_corrupt: Callable[[CorruptRecord], None] | None = None, *, first: int = 0
) -> Iterator[Record]:
    """Yield the records of a file in order, after checking both checksums of each.

    Args:
        path: the file.
        on_corrupt: called with each fault instead of raising it. Reading continues with the next record, or stops
            if the framing itself is corrupt.
        first: number of the first record to yield; earlier ones are skipped by their framing.

    Raises:
        CorruptRecord: a payload does not match its checksum.
        CorruptFraming: the file is not a TFRecord, is compressed, or is truncated.
    """
    with _open(path) as (file, size):
        number, offset = _skip_records(file, path, size, first)
        read = file.read
        header = read(HEADER_BYTES)
        while header or not number:
            length = _payload_length(header)
            following = offset + HEADER_BYTES + length + FOOTER_BYTES
            if not 0 <= length <= _MAX_RECORD_BYTES or following > size:
                fault = _framing_fault(header, size - offset, first=offset == 0)
                report_fault(CorruptFraming(path, number, offset, fault), on_corrupt)
                return
            payload = read(length)
            between = read(FOOTER_BYTES + HEADER_BYTES)  # one read: this record's footer and the next header
            found, expected = masked_crc(payload), int.from_bytes(between[:FOOTER_BYTES], "little")
            if found == expected:
                yield Record(number, offset, payload)
            else:
                report_fault(payload_crc_error(path, number, offset, found, expected), on_corrupt)
            number += 1
            offset = following
            header = between[FOOTER_BYTES:]


def payload_crc_error(path: object, number: int, offset: int, found: int, expected: int) -> CorruptRecord:
    """Return the error for a payload that does not match the checksum in its footer."""
    reason = f"checksum of the payload is {found:08x}, the file says {expected:08x}"
    return CorruptRecord(path, number, offset, reason)


def report_fault(fault: CorruptRecord, on_corrupt: Callable[[CorruptRecord], None] | None) -> None:
    """Pass a fault to `on_corrupt` if given, otherwise raise it."""
    if on_corrupt is None:
        raise fault
    on_corrupt(fault)


def _payload_length(header: bytes) -> int:
    """Return the payload length in a record's header; -1 if the header is incomplete or fails its checksum."""
    if len(header) != HEADER_BYTES:
        return -1
    length: int
    length, expected = _HEADER.unpack(header)
    return length if masked_crc(header[:8]) == expected else -1


def _framing_fault(header: bytes, left: int, *, first: bool) -> str:
    """Describe the fault of a corrupt header.

    Args:
        header: its bytes; fewer than `HEADER_BYTES` if the file ends inside it.
        left: bytes of the file from the start of the header to the end.
        first: whether it is the first header of the file.
    """
    if not header:
        return "the file is empty"
    if first:
        for magic, reason in _FOREIGN:
            if header.startswith(magic[:HEADER_BYTES]) and _payload_length(header) < 0:
                return reason
    if len(header) < HEADER_BYTES:
        return f"the file ends inside a record's header: {len(header)} bytes, expected {HEADER_BYTES}"
    if _payload_length(header) < 0:
        length, expected = _HEADER.unpack(header)
        found = masked_crc(header[:8])
        what = "not a TFRecord, or damaged" if first else "damaged"
        return f"{what}: checksum of the length {length} is {found:08x}, the file says {expected:08x}"
    needed = HEADER_BYTES + _payload_length(header) + FOOTER_BYTES
    if needed <= left:
        return f"a record of {_payload_length(header)} bytes, expected {_MAX_RECORD_BYTES} at most"
    return f"the file ends inside the record: {left} bytes left, expected {needed}"


def count_records(path: AnyPath) -> int:
    """Count the records of a file by their framing; payloads are not read.

    Raises:
        CorruptFraming: the file is not a TFRecord, is compressed, or is truncated.
    """
    with _open(path) as (file, size):
        return _skip_records(file, path, size, None)[0]


class RecordChecker:
    """Streaming check of both checksums of every record, fed in order with blocks of any size.

    Only the bytes between two payloads are buffered.

    Args:
        file: name of the file for messages.
        size: its size in bytes.
    """

    def __init__(self, file: object, size: int) -> None:
        self._file = file
        self._size = size
        self._number = 0
        self._offset = 0  # of the current record
        self._length = -1  # of its payload; -1 before the first header
        self._left = 0  # payload bytes not yet fed
        self._crc = 0  # of the payload bytes fed so far
        self._joint = bytearray()  # its footer and the next header, as far as fed
        self._joint_size = HEADER_BYTES

    def feed(self, block: bytes | memoryview) -> None:
        """Check the next bytes of the file; bytes past its end are ignored.

        Raises:
            CorruptRecord: a payload does not match its checksum.
            CorruptFraming: the file is not a TFRecord, is compressed, or is truncated.
        """
        view = memoryview(block)
        at, end = 0, len(view)
        while at < end and self._offset < self._size:
            if self._left:
                took = min(self._left, end - at)
                self._crc = crc32c.crc32c(view[at : at + took], self._crc)
                self._left -= took
            else:
                took = min(self._joint_size - len(self._joint), end - at)
                self._joint += view[at : at + took]
                if len(self._joint) == self._joint_size:
                    self._check_joint()
            at += took

    def finish(self) -> int:
        """Return the number of records, after all bytes were fed.

        Raises:
            CorruptRecord: a payload does not match its checksum.
            CorruptFraming: the bytes end inside a record.
        """
        if self._offset < self._size or not self._number:
            self._check_joint()
            raise CorruptFraming(self._file, self._number, self._offset, "the file ends inside the record")
        return self._number

    def _check_joint(self) -> None:
        """Check the footer and the header between two payloads; at the ends of the file there is just one of them."""
        header = bytes(self._joint)
        self._joint.clear()
        if self._length >= 0:
            footer, header = header[:FOOTER_BYTES], header[FOOTER_BYTES:]
            found, expected = masked_crc(b"", self._crc), int.from_bytes(footer, "little")
            if found != expected:
                raise payload_crc_error(self._file, self._number, self._offset, found, expected)
            self._offset += HEADER_BYTES + self._length + FOOTER_BYTES
            self._number += 1
            if self._offset == self._size:
                return
        length = _payload_length(header)
        following = self._offset + HEADER_BYTES + length + FOOTER_BYTES
        if length < 0 or following > self._size:
            fault = _framing_fault(header, self._size - self._offset, first=self._offset == 0)
            raise CorruptFraming(self._file, self._number, self._offset, fault)
        self._length = self._left = length
        self._crc = 0
        self._joint_size = FOOTER_BYTES + (HEADER_BYTES if following < self._size else 0)


def check_records(path: Path) -> int:
    """Check both checksums of every record of a file in constant memory; return the number of records.

    Raises:
        CorruptRecord: a payload does not match its checksum.
        CorruptFraming: the file is not a TFRecord, is compressed, or is truncated.
    """
    view = memoryview(bytearray(_CHECK_BLOCK))
    with regular.open_read(path) as file:
        checker = RecordChecker(path, os.fstat(file.fileno()).st_size)
        while count := file.readinto(view):
            checker.feed(view[:count])
    return checker.finish()


@contextlib.contextmanager
def _open(path: AnyPath) -> Iterator[tuple[IO[bytes], int]]:
    """Open a file for reading; yield it and its size in bytes."""
    if isinstance(path, Path):
        with regular.open_read(path, _BUFFER) as local:
            yield local, os.fstat(local.fileno()).st_size
        return
    size = path.stat().st_size
    with path.open_reader() as remote:
        yield remote, size


def _skip_records(file: IO[bytes], path: AnyPath, size: int, count: int | None) -> tuple[int, int]:
    """Skip `count` records, or all if None, by their framing; return number and offset of the next record."""
    number = offset = 0
    handle = file.fileno() if isinstance(path, Path) else None
    while number != count and (offset < size or number == 0):
        if handle is None:  # in a store: the skipped bytes are read as well
            file.seek(offset)
            header = file.read(HEADER_BYTES)
        else:
            header = os.pread(handle, HEADER_BYTES, offset)
        length = _payload_length(header)
        following = offset + HEADER_BYTES + length + FOOTER_BYTES
        if not 0 <= length <= _MAX_RECORD_BYTES or following > size:
            fault = _framing_fault(header, size - offset, first=offset == 0)
            raise CorruptFraming(path, number, offset, fault)
        offset = following
        number += 1
    file.seek(offset)
    return number, offset


def serialize_example(frames: Sequence[bytes | bytearray | memoryview], cameras: NDArray[np.float32]) -> bytes:
    """Serialize a scene to an `Example` in DeepMind's schema; equal scenes give equal bytes.

    Args:
        frames: JPEG bytes of each view.
        cameras: float32 (views, camera numbers).
    """
    example = _messages().Example()
    feature = example.features.feature
    feature["frames"].bytes_list.value.extend(bytes(frame) for frame in frames)
    feature["cameras"].float_list.value.extend(np.asarray(cameras, np.float32).ravel().tolist())
    return bytes(example.SerializeToString(deterministic=True))  # maps are unordered


@cache
def _messages() -> Any:
    """Import the message module of the `tfrecord` package without the package.

    The package imports torch if it is installed, which would cost every render worker seconds.
    """
    package = find_spec("tfrecord")
    folders = None if package is None else package.submodule_search_locations
    spec = None if folders is None else PathFinder.find_spec("example_pb2", list(folders))
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("the tfrecord package lacks its module example_pb2: reinstall it", name="tfrecord")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Sink(Protocol):
    """Destination of a stream of bytes."""

    def write(self, part: bytes, /) -> object:
        """Append bytes."""


class RecordWriter:
    """Writer of framed records into a binary file that the caller opened.

    Args:
        file: open for writing, at the offset of the next record.
    """

    def __init__(self, file: Sink) -> None:
        self._file = file

    def write(self, payload: bytes) -> None:
        """Append one record."""
        length = _UINT64.pack(len(payload))
        self._file.write(length + _UINT32.pack(masked_crc(length)))
        self._file.write(payload)
        self._file.write(_UINT32.pack(masked_crc(payload)))
