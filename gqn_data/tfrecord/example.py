"""The wire scan of one record: where a serialized `Example` keeps the frames and the cameras of a scene.

A frame is an (offset, length) in its record and is never copied to look at; its header, size and end are checked
where it lies.

Source: wire format, protobuf.dev/programming-guides/encoding. Imports `errors`, `images`, `layout`, `tfrecords`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sized
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gqn_data.errors import CorruptFrame, CorruptRecord
from gqn_data.io.paths import AnyPath
from gqn_data.schema.jpeg import FrameChecker
from gqn_data.schema.layout import SceneLayout
from gqn_data.tfrecord.framing import HEADER_BYTES, Record

_FLOAT = np.dtype("<f4")

# A record may hold a thousand times more small parts than any scene has; they take some fifty bytes of memory each.
_MOST_FEATURES = 1000
_MOST_VALUES = 1 << 20

# Between two frames: the end marker of the one, the tag and the first two bytes of the length of the next.
_BETWEEN = struct.Struct("<HBBB")
_END_OF_IMAGE = 0xD9FF  # FF D9 as a little-endian number

# Before each length on the way to the frames: the map's entry, the feature in it, the list in that.
_FRAMES_BEGIN = (b"\x0a", b"\x0a\x06frames\x12", b"\x0a")


class ScannedScene(NamedTuple):
    """Where a record keeps its scene.

    Attributes:
        offsets: where each view's JPEG begins, in bytes from the start of the payload.
        lengths: its length in bytes.
        cameras: float32 (views, camera numbers).
    """

    offsets: list[int]
    lengths: list[int]
    cameras: NDArray[np.float32]


class WireError(Exception):
    """Bytes that are no protobuf message, with the byte at which that shows."""

    def __init__(self, at: int, reason: str) -> None:
        self.at = at
        super().__init__(reason)


class SceneScanner:
    """Finds the frames and the cameras of a scene in a serialized `Example`.

    Accepts all that protobuf allows: features and fields in any order, packed and unpacked floats, repeated and
    unknown fields, extra features. The last entry of a map wins, repeated messages merge, as the protobuf
    specification has it.

    Args:
        layout: what a scene of the set looks like; anything else is refused.
    """

    def __init__(self, layout: SceneLayout) -> None:
        self.layout = layout
        self._frames = FrameChecker(layout.height, layout.width)
        self._numbers = layout.views * len(layout.camera_fields)
        self._cameras_begin = _cameras_begin(self._numbers * _FLOAT.itemsize)

    def scan(self, record: Record, path: AnyPath) -> ScannedScene:
        """Where the frames of the record lie, and its cameras.

        Raises:
            CorruptRecord: it is no `Example`, or no scene of the layout.
        """
        return self._scan_usual(record.payload) or self._scan_any(record, path)

    def _scan_usual(self, data: bytes) -> ScannedScene | None:
        """What `_scan_any` finds in a good scene as protobuf libraries write them; None for all else.

        Such a record holds the two features and nothing more, each list in one piece and the floats packed; only
        which feature comes first is open. Its structure is then a few bytes at places that follow from one another,
        and checking those takes half the time. Nothing is refused here: whatever is not as expected, a header of a
        frame that was not met before included, is looked at in the general way.
        """
        size = len(data)
        cameras_begin, good = self._cameras_begin, self._frames.good
        camera_bytes = self._numbers * _FLOAT.itemsize
        starts_with, between = data.startswith, _BETWEEN.unpack_from
        offsets: list[int] = []
        lengths: list[int] = []
        try:
            length, at = _varint(data, 1)
            if data[0] != 0x0A or at + length != size:
                return None
            if starts_with(cameras_begin, at):
                floats, end = at + len(cameras_begin), size
                at = floats + camera_bytes
            else:
                floats, end = size - camera_bytes, size - camera_bytes - len(cameras_begin)
                if end < at or not starts_with(cameras_begin, end):
                    return None
            for tag in _FRAMES_BEGIN:
                if not starts_with(tag, at):
                    return None
                length, at = _varint(data, at + len(tag))
                if at + length != end:
                    return None
            at -= 2  # before the first frame there is no end marker, but there are two bytes
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
        # The frames follow one another, so where the last one ends with the list none reaches beyond it.
        if at + 2 != end or data[at:end] != b"\xff\xd9":
            return None
        numbers = np.frombuffer(data[floats : floats + camera_bytes], _FLOAT)  # a copy: views of it keep no record
        return ScannedScene(offsets, lengths, numbers.reshape(self.layout.views, -1))

    def _scan_any(self, record: Record, path: AnyPath) -> ScannedScene:
        """Where the frames of the record lie, and its cameras, in whatever way protobuf allows to write them."""
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
            raise CorruptRecord(path, record.number, start, reason, "name the right set with --set")
        if len(numbers) != self._numbers:
            reason = (
                f"{len(numbers)} camera numbers, expected {self._numbers}: "
                f"{layout.views} views of {', '.join(layout.camera_fields)}"
            )
            raise CorruptRecord(path, record.number, start, reason, "name the right set with --set")
        check = self._frames.check
        view = 0
        try:
            for view, offset in enumerate(offsets):
                check(payload, offset, offset + lengths[view])
        except CorruptFrame as error:
            at = start + offsets[view]
            raise CorruptRecord(path, record.number, at, f"view {view}: {error}", layout.remedy) from error
        return ScannedScene(offsets, lengths, numbers.reshape(layout.views, -1))


def _cameras_begin(size: int) -> bytes:
    """The map's entry of the cameras, up to the floats, as protobuf writes it: known, for their size is."""
    begin = b""
    for tag in (b"\x0a", b"\x12", b"\x0a\x07cameras\x12", b"\x0a"):  # floats, list, feature with its name, entry
        begin = tag + _as_varint(size + len(begin)) + begin
    return begin


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


# A span of the payload: (start, stop).
_Span = tuple[int, int]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The varint at `at` and the byte after it."""
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
    """The fields of a message: (field number, wire type, start, stop of the value)."""
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
    """The byte after a group (a deprecated kind of field, skipped like any unknown one)."""
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
    """The features of an `Example` by name: the spans of their `Feature` messages (more than one merge)."""
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
                    _bounded(values, begin, name)
            found[name] = values
            if len(found) > _MOST_FEATURES:
                raise WireError(entry_start, f"more than {_MOST_FEATURES} features, expected frames and cameras")
    return found


def _lists(data: bytes, features: dict[bytes, list[_Span]], name: bytes, wanted: int) -> list[_Span]:
    """The spans of the list messages of one feature, of kind `wanted` (1 bytes, 2 floats, 3 integers)."""
    if name not in features:
        names = ", ".join(sorted(map(_printable, features))[:8]) or "none"
        raise WireError(0, f"no feature {name.decode()!r} in the record; its features: {names}")
    kept: list[_Span] = []
    kept_kind = wanted
    for span in features[name]:
        for number, kind, start, stop in _fields(data, span):
            if number in (1, 2, 3) and kind == 2:
                if number != kept_kind:  # the lists are a oneof: another kind replaces what came before
                    kept = []
                kept_kind = number
                kept.append((start, stop))
                _bounded(kept, start, name)
    if kept_kind != wanted:
        kinds = {1: "bytes", 2: "floats", 3: "integers"}
        reason = f"feature {name.decode()!r} holds {kinds[kept_kind]}, expected {kinds[wanted]}"
        raise WireError(features[name][0][0], reason)
    return kept


def _bounded(values: Sized, at: int, name: bytes) -> None:
    if len(values) > _MOST_VALUES:
        raise WireError(at, f"more than {_MOST_VALUES} values in feature {_printable(name)!r}")


def _printable(name: bytes) -> str:
    """A feature's name for a message of one line: a record that is no scene may hold anything."""
    return name[:40].decode("utf-8", "replace").encode("unicode_escape").decode()


def _byte_values(data: bytes, features: dict[bytes, list[_Span]], name: bytes) -> tuple[list[int], list[int]]:
    """The offsets and lengths of the values of a bytes feature."""
    offsets: list[int] = []
    lengths: list[int] = []
    for at, end in _lists(data, features, name, 1):
        here = at
        while here < end:
            # Nearly every field is a value whose length takes one to three bytes: no call for those.
            if data[here] != 0x0A:
                for number, kind, start, stop in _fields(data, (here, end)):
                    if number == 1 and kind == 2:
                        offsets.append(start)
                        lengths.append(stop - start)
                        _bounded(offsets, start, name)
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
            _bounded(offsets, start, name)
    return offsets, lengths


def _float_values(data: bytes, features: dict[bytes, list[_Span]], name: bytes) -> NDArray[np.float32]:
    """The values of a float feature, packed or not."""
    parts: list[bytes] = []
    for span in _lists(data, features, name, 2):
        for number, kind, start, stop in _fields(data, span):
            if number == 1 and kind in (2, 5):
                if (stop - start) % 4:
                    raise WireError(start, f"packed floats in {stop - start} bytes, expected a multiple of 4")
                parts.append(data[start:stop])
                _bounded(parts, start, name)
    return np.frombuffer(b"".join(parts), _FLOAT)
