"""Scanner for serialized `tf.train.Example` messages: locates the frames and the cameras of a scene.

A frame is an (offset, length) in its record. Its header, size and end marker are checked in place, without a copy.

Source: wire format, protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sized
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import CorruptFrame, CorruptRecord
from gqn_data.io.paths import AnyPath
from gqn_data.schema.cameras import check_finite
from gqn_data.schema.jpeg import FrameChecker
from gqn_data.schema.layout import SceneLayout
from gqn_data.tfrecord.framing import HEADER_BYTES, Record

_FLOAT = np.dtype("<f4")

# Bounds on what a hostile record can make us keep: each span takes about fifty bytes of memory.
_MAX_FEATURES = 1000
_MAX_VALUES = 1 << 20

# Between two frames: end marker of the first, then tag and first two length bytes of the second.
_BETWEEN = struct.Struct("<HBBB")
_END_OF_IMAGE = 0xD9FF  # FF D9 as a little-endian number

# What precedes each length on the path to the frames: map entry, feature, bytes list.
_FRAMES_PREFIXES = (b"\x0a", b"\x0a\x06frames\x12", b"\x0a")


class ScannedScene(NamedTuple):
    """Location of a scene's frames in its record, and its cameras.

    Attributes:
        offsets: start of each view's JPEG, in bytes from the start of the payload.
        lengths: length of each view's JPEG in bytes.
        cameras: float32 (views, camera numbers).
    """

    offsets: list[int]
    lengths: list[int]
    cameras: NDArray[np.float32]


class WireError(Exception):
    """Bytes that are not a protobuf message.

    Args:
        at: offset of the fault in the payload.
        reason: what was found.
    """

    def __init__(self, at: int, reason: str) -> None:
        self.at = at
        super().__init__(reason)


class SceneScanner:
    """Scanner that finds the frames and the cameras of a scene in a serialized `Example`.

    Accepts everything that protobuf allows: features and fields in any order, packed and unpacked floats, repeated
    and unknown fields, extra features. As in the protobuf specification, the last entry of a map wins and repeated
    messages merge.

    Args:
        layout: expected shape of a scene; records of another shape are rejected.
    """

    def __init__(self, layout: SceneLayout) -> None:
        self.layout = layout
        self._frames = FrameChecker(layout.height, layout.width)
        self._numbers = layout.views * len(layout.camera_fields)
        self._cameras_prefix = _cameras_prefix(self._numbers * _FLOAT.itemsize)

    def scan(self, record: Record, path: AnyPath) -> ScannedScene:
        """Return the location of a record's frames, and its cameras.

        Raises:
            CorruptRecord: the payload is not an `Example`, not a scene of the layout, or a camera is not finite.
        """
        scene = self._scan_fast(record.payload) or self._scan_general(record, path)
        try:
            check_finite(scene.cameras)
        except CorruptFrame as error:
            raise CorruptRecord(path, record.number, record.offset + HEADER_BYTES, str(error)) from error
        return scene

    def _scan_fast(self, data: bytes) -> ScannedScene | None:
        """Return what `_scan_general` finds, for records laid out as protobuf libraries write them; otherwise None.

        Such a record holds only the two features, in either order, with one list each and packed floats. Its
        structure is a few bytes at computable offsets, so checking them takes half the time of a general scan.
        This never rejects a record. Anything unexpected, such as a JPEG header not seen before, returns None.
        """
        size = len(data)
        cameras_prefix, good = self._cameras_prefix, self._frames.good
        camera_bytes = self._numbers * _FLOAT.itemsize
        starts_with, between = data.startswith, _BETWEEN.unpack_from
        offsets: list[int] = []
        lengths: list[int] = []
        try:
            length, at = _varint(data, 1)
            if data[0] != 0x0A or at + length != size:
                return None
            if starts_with(cameras_prefix, at):
                floats, end = at + len(cameras_prefix), size
                at = floats + camera_bytes
            else:
                floats, end = size - camera_bytes, size - camera_bytes - len(cameras_prefix)
                if end < at or not starts_with(cameras_prefix, end):
                    return None
            for tag in _FRAMES_PREFIXES:
                if not starts_with(tag, at):
                    return None
                length, at = _varint(data, at + len(tag))
                if at + length != end:
                    return None
            at -= 2  # the first frame follows two bytes of the prefix instead of an end marker
            for _ in range(self.layout.views):
                marker, tag_byte, low, high = between(data, at)
                if tag_byte != 0x0A or (marker != _END_OF_IMAGE and offsets):
                    return None
                if high < 0x80 <= low:
                    start, length = at + 5, low & 0x7F | high << 7
                else:
                    length, start = _varint(data, at + 3)
                at = start + length - 2
                if not starts_with(good, start, at):
                    return None
                offsets.append(start)
                lengths.append(length)
        except (IndexError, struct.error, WireError):
            return None
        # Frames are consecutive: if the last one ends where the list ends, none exceeds the list.
        if at + 2 != end or data[at:end] != b"\xff\xd9":
            return None
        # Slicing copies, so that the cameras do not keep the record alive.
        numbers = np.frombuffer(data[floats : floats + camera_bytes], _FLOAT)
        return ScannedScene(offsets, lengths, numbers.reshape(self.layout.views, -1))

    def _scan_general(self, record: Record, path: AnyPath) -> ScannedScene:
        """Return what `scan` returns, for every encoding that protobuf allows."""
        payload = record.payload
        start = record.offset + HEADER_BYTES
        try:
            features = _features(payload)
            offsets, lengths = _byte_values(payload, features, b"frames")
            numbers = _float_values(payload, features, b"cameras")
        except WireError as error:
            raise CorruptRecord(path, record.number, start + error.at, str(error)) from error
        except IndexError as error:
            reason = "not a whole Example message: it ends inside a field"
            raise CorruptRecord(path, record.number, start + len(payload), reason) from error
        layout = self.layout
        if len(offsets) != layout.views:
            reason = f"{len(offsets)} views, expected {layout.views} ({layout.because})"
            raise CorruptRecord(path, record.number, start, reason, "pass the right set with --set")
        if len(numbers) != self._numbers:
            reason = (
                f"{len(numbers)} camera numbers, expected {self._numbers}: "
                f"{layout.views} views of {', '.join(layout.camera_fields)}"
            )
            raise CorruptRecord(path, record.number, start, reason, "pass the right set with --set")
        check = self._frames.check
        view = 0
        try:
            for view, offset in enumerate(offsets):
                check(payload, offset, offset + lengths[view])
        except CorruptFrame as error:
            at = start + offsets[view]
            raise CorruptRecord(path, record.number, at, f"view {view}: {error}", layout.remedy) from error
        return ScannedScene(offsets, lengths, numbers.reshape(layout.views, -1))


def _cameras_prefix(size: int) -> bytes:
    """Return the bytes that protobuf writes before `size` bytes of camera floats in the feature map."""
    prefix = b""
    for tag in (b"\x0a", b"\x12", b"\x0a\x07cameras\x12", b"\x0a"):  # floats, list, feature with its name, entry
        prefix = tag + _encode_varint(size + len(prefix)) + prefix
    return prefix


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


# A span of the payload: (start, stop).
_Span = tuple[int, int]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the varint at `at`, and the offset after it."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift, begin = byte & 0x7F, 7, at
    while True:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at + 1
        shift += 7
        if shift > 63:
            raise WireError(begin, "not an Example message: a varint of more than ten bytes")


def _fields(data: bytes, span: _Span) -> Iterator[tuple[int, int, int, int]]:
    """Yield the fields of a message: (field number, wire type, start and stop of the value)."""
    at, end = span
    while at < end:
        begin = at
        tag = data[at]
        at += 1
        if tag >= 0x80:
            tag, at = _varint(data, begin)
        kind = tag & 7
        start = at
        if kind == 2:
            length = data[at]
            start = at + 1
            if length >= 0x80:
                length, start = _varint(data, at)
            at = start + length
        elif kind == 5:
            at += 4
        elif kind == 1:
            at += 8
        elif kind == 0:
            _, at = _varint(data, at)
        elif kind == 3:
            at = _end_of_group(data, at, end, tag >> 3)
        else:
            raise WireError(begin, f"not an Example message: wire type {kind} at the start of a field")
        if at > end:
            raise WireError(begin, f"a field of {at - start} bytes, {end - start} left in its message")
        if tag < 8:
            raise WireError(begin, "not an Example message: field number 0")
        yield tag >> 3, kind, start, at


def _end_of_group(data: bytes, at: int, end: int, number: int) -> int:
    """Return the offset after a group, a deprecated kind of field that is skipped like an unknown one."""
    open_groups = [number]
    while open_groups:
        if at >= end:
            raise WireError(at, "not an Example message: a group without an end")
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 3:
            open_groups.append(tag >> 3)
        elif kind == 4:
            if open_groups.pop() != tag >> 3:
                raise WireError(at, "not an Example message: a group ends under another number")
        elif kind == 2:
            length, at = _varint(data, at)
            at += length
        elif kind in (0, 1, 5):
            at = _varint(data, at)[1] if kind == 0 else at + (8 if kind == 1 else 4)
        else:
            raise WireError(at, f"not an Example message: wire type {kind} inside a group")
    return at


def _features(data: bytes) -> dict[bytes, list[_Span]]:
    """Return the spans of the `Feature` messages of an `Example`, by feature name; several spans merge."""
    found: dict[bytes, list[_Span]] = {}
    for number, kind, start, stop in _fields(data, (0, len(data))):
        if number != 1 or kind != 2:
            continue
        for entry, entry_kind, entry_start, entry_stop in _fields(data, (start, stop)):
            if entry != 1 or entry_kind != 2:
                continue
            name, values = b"", []
            for part, part_kind, begin, end in _fields(data, (entry_start, entry_stop)):
                if part == 1 and part_kind == 2:
                    name = data[begin:end]
                elif part == 2 and part_kind == 2:
                    values.append((begin, end))
                    _check_count(values, begin, name)
            found[name] = values
            if len(found) > _MAX_FEATURES:
                raise WireError(entry_start, f"more than {_MAX_FEATURES} features, expected frames and cameras")
    return found


def _lists(data: bytes, features: dict[bytes, list[_Span]], name: bytes, wanted: int) -> list[_Span]:
    """Return the spans of one feature's list messages, of kind `wanted` (1 bytes, 2 floats, 3 integers)."""
    if name not in features:
        names = ", ".join(sorted(map(_printable, features))[:8]) or "none"
        raise WireError(0, f"no feature {name.decode()!r} in the record; its features: {names}")
    kept: list[_Span] = []
    kept_kind = wanted
    for span in features[name]:
        for number, kind, start, stop in _fields(data, span):
            if number in (1, 2, 3) and kind == 2:
                if number != kept_kind:  # the lists are a oneof: another kind replaces the earlier ones
                    kept = []
                kept_kind = number
                kept.append((start, stop))
                _check_count(kept, start, name)
    if kept_kind != wanted:
        kinds = {1: "bytes", 2: "floats", 3: "integers"}
        reason = f"feature {name.decode()!r} holds {kinds[kept_kind]}, expected {kinds[wanted]}"
        raise WireError(features[name][0][0], reason)
    return kept


def _check_count(values: Sized, at: int, name: bytes) -> None:
    if len(values) > _MAX_VALUES:
        raise WireError(at, f"more than {_MAX_VALUES} values in feature {_printable(name)!r}")


def _printable(name: bytes) -> str:
    """Return a feature's name, which may be any bytes, escaped and shortened for a one-line message."""
    return name[:40].decode("utf-8", "replace").encode("unicode_escape").decode()


def _byte_values(data: bytes, features: dict[bytes, list[_Span]], name: bytes) -> tuple[list[int], list[int]]:
    """Return the offsets and lengths of the values of a bytes feature."""
    offsets: list[int] = []
    lengths: list[int] = []
    for at, end in _lists(data, features, name, 1):
        here = at
        while here < end:
            # Nearly every field is a value with a length of one to three bytes; these are parsed without a call.
            if data[here] != 0x0A:
                for number, kind, start, stop in _fields(data, (here, end)):
                    if number == 1 and kind == 2:
                        offsets.append(start)
                        lengths.append(stop - start)
                        _check_count(offsets, start, name)
                break
            length = data[here + 1]
            if length < 0x80:
                start = here + 2
            elif data[here + 2] < 0x80:
                length = length & 0x7F | data[here + 2] << 7
                start = here + 3
            else:
                length, start = _varint(data, here + 1)
            here = start + length
            if here > end:
                raise WireError(start, f"a frame of {length} bytes, {end - start} left in its list")
            offsets.append(start)
            lengths.append(length)
            _check_count(offsets, start, name)
    return offsets, lengths


def _float_values(data: bytes, features: dict[bytes, list[_Span]], name: bytes) -> NDArray[np.float32]:
    """Return the values of a float feature, packed or unpacked."""
    parts: list[bytes] = []
    for span in _lists(data, features, name, 2):
        for number, kind, start, stop in _fields(data, span):
            if number == 1 and kind in (2, 5):
                if (stop - start) % 4:
                    raise WireError(start, f"packed floats in {stop - start} bytes, expected a multiple of 4")
                parts.append(data[start:stop])
                _check_count(parts, start, name)
    return np.frombuffer(b"".join(parts), _FLOAT)
