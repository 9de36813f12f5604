"""The record scanner, compared with protobuf's parser through the `Example` class of `tfrecord`."""

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from made_scenes import SIZE, VIEWS, example_bytes, framed, made_scene, parse
from tfrecord import TFRecordWriter

from gqn_data.errors import CorruptRecord
from gqn_data.schema.jpeg import header_of
from gqn_data.schema.layout import SceneLayout
from gqn_data.tfrecord.example import SceneScanner, WireError, _byte_values, _features, _float_values
from gqn_data.tfrecord.framing import Record, read_records, serialize_example

LAYOUT = SceneLayout(views=VIEWS, height=SIZE, width=SIZE, because="the test says so")
SCENE = made_scene(3)
PAYLOAD = example_bytes(SCENE.frames, SCENE.cameras)


def varint(value, extra=0):
    """Encode a varint, `extra` bytes longer than necessary, which protobuf allows."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    for _ in range(extra):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


def tag(number, kind, extra=0):
    return varint(number << 3 | kind, extra)


def delimited(number, value, extra=0):
    return tag(number, 2, extra) + varint(len(value), extra) + value


extras = st.sampled_from([0, 0, 0, 1, 2])
unknown_numbers = st.integers(20, 1 << 15)  # a tag has at most five bytes, also in longer encodings


@st.composite
def groups(draw, depth=2):
    number = draw(unknown_numbers)
    inside = b"".join(draw(st.lists(unknown_fields(depth - 1), max_size=2)))
    return tag(number, 3) + inside + tag(number, 4)


def unknown_fields(depth=2):
    """Generate an unknown field of any wire type."""
    kinds = [
        st.builds(lambda n, v: tag(n, 0) + varint(v), unknown_numbers, st.integers(0, (1 << 64) - 1)),
        st.builds(lambda n, v: tag(n, 1) + v, unknown_numbers, st.binary(min_size=8, max_size=8)),
        st.builds(delimited, unknown_numbers, st.binary(max_size=8), extras),
        st.builds(lambda n, v: tag(n, 5) + v, unknown_numbers, st.binary(min_size=4, max_size=4)),
    ]
    return st.one_of(*kinds, groups(depth)) if depth else st.one_of(*kinds)


def mixed(fields, max_size=4):
    """Generate a message of some of the fields, with unknown ones between them."""
    return st.lists(st.one_of(fields, fields, fields, unknown_fields()), max_size=max_size).map(b"".join)


float_bytes = st.floats(width=32, allow_nan=False).map(lambda value: struct.pack("<f", value))
bytes_lists = mixed(st.builds(delimited, st.just(1), st.binary(max_size=200), extras))
float_lists = mixed(
    st.one_of(
        float_bytes.map(lambda value: tag(1, 5) + value),
        st.builds(delimited, st.just(1), st.lists(float_bytes, max_size=5).map(b"".join), extras),
    )
)
integer_lists = mixed(st.builds(lambda value: tag(1, 0) + varint(value), st.integers(0, 1 << 40)))
# The three lists are a oneof: a later one of another kind replaces, one of the same kind merges.
feature_messages = mixed(
    st.one_of(
        st.builds(delimited, st.just(1), bytes_lists, extras),
        st.builds(delimited, st.just(2), float_lists, extras),
        st.builds(delimited, st.just(3), integer_lists, extras),
    ),
    max_size=3,
)
names = st.sampled_from([b"frames", b"frames", b"cameras", b"cameras", b"other", b""])
# A map entry is a message too: its key and value may come in any order and more than once. No unknown fields in
# it here: protobuf's parsers differ over those (upb sets the whole entry aside).
map_entries = st.lists(
    st.one_of(
        st.builds(delimited, st.just(1), names, extras), st.builds(delimited, st.just(2), feature_messages, extras)
    ),
    max_size=4,
).map(b"".join)
simple_entries = st.builds(lambda name, value: delimited(1, name) + delimited(2, value), names, feature_messages)
features_messages = mixed(st.builds(delimited, st.just(1), st.one_of(simple_entries, map_entries), extras), max_size=5)
examples = mixed(st.builds(delimited, st.just(1), features_messages, extras), max_size=3)


def by_protobuf(payload):
    """Return (frames, cameras) as read by protobuf; None for a feature that is missing or of another kind."""
    feature = parse(payload).features.feature
    frames = cameras = None
    if "frames" in feature and feature["frames"].WhichOneof("kind") in ("bytes_list", None):
        frames = list(feature["frames"].bytes_list.value)
    if "cameras" in feature and feature["cameras"].WhichOneof("kind") in ("float_list", None):
        cameras = np.array(feature["cameras"].float_list.value, np.float32)
    return frames, cameras


def by_scan(payload):
    features = _features(payload)
    frames = cameras = None
    with contextlib.suppress(WireError):
        offsets, lengths = _byte_values(payload, features, b"frames")
        frames = [payload[offset : offset + length] for offset, length in zip(offsets, lengths)]
    with contextlib.suppress(WireError):
        cameras = _float_values(payload, features, b"cameras")
    return frames, cameras


def assert_equal(found, expected):
    assert found[0] == expected[0]
    assert (found[1] is None) == (expected[1] is None)
    if expected[1] is not None:
        assert found[1].tobytes() == expected[1].tobytes()


@given(examples)
@settings(max_examples=250)
def test_the_scan_agrees_with_protobuf_on_any_message(payload):
    assert_equal(by_scan(payload), by_protobuf(payload))


@given(
    st.lists(st.binary(max_size=300), max_size=4),
    st.lists(st.floats(width=32), max_size=20),
    st.dictionaries(st.sampled_from(["frame", "camera", "x", "captions"]), st.integers(-5, 5)),
)
def test_extra_features_are_ignored(frames, cameras, others):
    example = parse(example_bytes(frames, cameras))
    for name, value in others.items():
        example.features.feature[name].int64_list.value.append(value)
    payload = example.SerializeToString()
    found = by_scan(payload)
    assert found[0] == frames
    assert found[1].tobytes() == np.array(cameras, np.float32).tobytes()


def with_feature(name, *values):
    return b"".join(delimited(1, delimited(1, name) + delimited(2, value)) for value in values)


FLOATS = struct.pack("<3f", 1.5, -2.0, 3.25)
PACKED = delimited(2, delimited(1, FLOATS))
UNPACKED = delimited(2, b"".join(tag(1, 5) + FLOATS[at : at + 4] for at in (0, 4, 8)))


@pytest.mark.parametrize(
    ("message", "frames", "cameras"),
    [
        (with_feature(b"cameras", PACKED), None, [1.5, -2.0, 3.25]),
        (with_feature(b"cameras", UNPACKED), None, [1.5, -2.0, 3.25]),
        (with_feature(b"cameras", PACKED + UNPACKED), None, [1.5, -2.0, 3.25] * 2),
        (with_feature(b"frames", delimited(1, delimited(1, b"a")), delimited(1, delimited(1, b"b"))), [b"b"], None),
        (with_feature(b"frames", delimited(1, delimited(1, b"a")) * 2), [b"a", b"a"], None),
        (with_feature(b"frames", PACKED + delimited(1, delimited(1, b"a"))), [b"a"], None),
        (with_feature(b"frames", delimited(1, delimited(1, b"a")) + PACKED), None, None),
        (with_feature(b"frames", delimited(1, delimited(1, b"a")) + PACKED + delimited(1, b"")), [], None),
        (with_feature(b"frames", b""), [], None),
        (with_feature(b"cameras", delimited(2, b"")), None, []),
    ],
    ids=[
        "packed",
        "unpacked",
        "both ways in one list",
        "the last entry of a map wins",
        "lists of one kind merge",
        "another kind replaces",
        "replaced by another kind",
        "replaced and begun again",
        "a feature without a list",
        "an empty list",
    ],
)
def test_alternative_encodings_are_read_as_by_protobuf(message, frames, cameras):
    payload = delimited(1, message)
    expected = frames, None if cameras is None else np.array(cameras, np.float32)
    assert_equal(by_protobuf(payload), expected)  # the oracle itself
    assert_equal(by_scan(payload), expected)


@given(unknown_fields())
@settings(max_examples=50)
def test_unknown_fields_in_a_map_entry_are_skipped(unknown):
    entry = unknown + delimited(1, b"cameras") + unknown + delimited(2, PACKED) + unknown
    assert by_scan(delimited(1, delimited(1, entry)))[1].tolist() == [1.5, -2.0, 3.25]


def test_features_spread_over_two_messages_are_merged():
    halves = [with_feature(b"cameras", PACKED), with_feature(b"frames", delimited(1, delimited(1, b"a")))]
    payload = b"".join(delimited(1, half) for half in halves)
    assert by_scan(payload)[0] == [b"a"] == by_protobuf(payload)[0]
    assert by_scan(payload)[1].tolist() == [1.5, -2.0, 3.25] == by_protobuf(payload)[1].tolist()


def scan(payload):
    return SceneScanner(LAYOUT).scan(Record(0, 0, payload), Path("made.tfrecord"))


def test_offsets_and_lengths_locate_the_frames():
    scene = scan(PAYLOAD)
    found = [PAYLOAD[offset : offset + length] for offset, length in zip(scene.offsets, scene.lengths)]
    assert found == list(SCENE.frames)
    assert scene.cameras.tobytes() == SCENE.cameras.tobytes()
    assert scene.cameras.shape == (VIEWS, 5)


@given(st.binary(max_size=400))
@settings(max_examples=250)
def test_arbitrary_bytes_raise_only_corrupt_record(payload):
    with pytest.raises(CorruptRecord):
        scan(payload)


mutations = st.lists(
    st.one_of(
        st.tuples(st.integers(0, len(PAYLOAD) - 1), st.just(1), st.binary(min_size=1, max_size=1)),
        st.tuples(st.integers(0, 80), st.just(1), st.binary(min_size=1, max_size=1)),  # the message structure
        st.tuples(st.integers(0, len(PAYLOAD) - 1), st.integers(0, 9), st.binary(max_size=9)),
    ),
    min_size=1,
    max_size=3,
)


def mutated(data, changes):
    for at, removed, inserted in changes:
        data = data[:at] + inserted + data[at + removed :]
    return data


@given(mutations)
@settings(max_examples=300)
def test_a_changed_message_is_rejected_or_read_as_by_protobuf(changes):
    payload = mutated(PAYLOAD, changes)
    try:
        found = scan(payload)
    except CorruptRecord:
        return
    try:
        expected = by_protobuf(payload)
    except DecodeError:
        assume(False)  # protobuf validates more, such as the encoding of unknown names
    frames = [payload[offset : offset + length] for offset, length in zip(found.offsets, found.lengths)]
    assert frames == expected[0]
    assert found.cameras.tobytes() == expected[1].tobytes()


HEADER = SCENE.frames[0][: header_of(SCENE.frames[0])[2]]
CAMERAS = delimited(1, delimited(1, b"cameras") + delimited(2, delimited(2, delimited(1, SCENE.cameras.tobytes()))))


def as_protobuf_writes(frames, cameras_first=False):
    """Encode an `Example` as protobuf libraries do, with the features in the chosen order."""
    values = b"".join(delimited(1, frame) for frame in frames)
    entries = [CAMERAS, delimited(1, delimited(1, b"frames") + delimited(2, delimited(1, values)))]
    return delimited(1, b"".join(entries if cameras_first else reversed(entries)))


def scanner_with_known_header():
    scanner = SceneScanner(LAYOUT)
    scanner.scan(Record(0, 0, PAYLOAD), Path("made.tfrecord"))
    return scanner


def is_scanned_fast(payload):
    """Return whether the fast scan accepts a record, after asserting that it equals the general scan."""
    scanner = scanner_with_known_header()
    fast = scanner._scan_fast(payload)
    if fast is None:
        return False
    general = scanner._scan_general(Record(0, 0, payload), Path("made.tfrecord"))
    assert (fast.offsets, fast.lengths) == (general.offsets, general.lengths)
    assert fast.cameras.tobytes() == general.cameras.tobytes()
    assert (fast.cameras.shape, fast.cameras.dtype) == (general.cameras.shape, general.cameras.dtype)
    return True


@given(st.lists(st.one_of(st.binary(max_size=300), st.integers(15_000, 17_000).map(bytes)), min_size=3, max_size=3))
def test_scenes_written_by_protobuf_are_scanned_fast_in_either_order(scans):
    frames = [HEADER + data + b"\xff\xd9" for data in scans]
    assert PAYLOAD in (as_protobuf_writes(SCENE.frames), as_protobuf_writes(SCENE.frames, cameras_first=True))
    for cameras_first in (False, True):
        assert is_scanned_fast(as_protobuf_writes(frames, cameras_first))


@given(mutations, st.booleans())
@settings(max_examples=300)
def test_fast_and_general_scan_agree_on_changed_messages(changes, cameras_first):
    is_scanned_fast(mutated(as_protobuf_writes(SCENE.frames, cameras_first), changes))


good_frames = st.sampled_from([*SCENE.frames, SCENE.frames[0][:-1], SCENE.frames[0] + b"\x00\xff\xd9", HEADER, b""])
any_features = st.lists(
    st.one_of(
        st.just(CAMERAS),
        st.lists(st.one_of(good_frames.map(lambda frame: delimited(1, frame)), unknown_fields()), max_size=4).map(
            lambda values: delimited(1, delimited(1, b"frames") + delimited(2, delimited(1, b"".join(values))))
        ),
        unknown_fields(),
    ),
    max_size=4,
).map(b"".join)


@given(st.lists(any_features, min_size=1, max_size=2), extras)
@settings(max_examples=300)
def test_fast_and_general_scan_agree_on_any_message(messages, extra):
    is_scanned_fast(b"".join(delimited(1, message, extra) for message in messages))


def frames_entry(values, name=b"frames", cut=(0, 0, 0), behind=(b"", b"", b"")):
    """Encode the frames' map entry; `cut` shortens the lengths of list, feature and entry, `behind` is appended."""
    out = b"".join(values)
    for number, before, less, after in zip((1, 2, 1), (b"", delimited(1, name), b""), cut, behind):
        out += after
        out = before + tag(number, 2) + varint(len(out) - less) + out
    return out


VALUES = [delimited(1, frame) for frame in SCENE.frames]
FRAMES = frames_entry(VALUES)
UNENDED = delimited(1, SCENE.frames[1][:-1] + b"\x00")
UNKNOWN = delimited(30, b"x")
UNUSUAL = {
    "two frames": (frames_entry(VALUES[:2]), CAMERAS),
    "four frames": (frames_entry([*VALUES, VALUES[0]]), CAMERAS),
    "a frame in the middle without an end": (frames_entry([VALUES[0], UNENDED, VALUES[2]]), CAMERAS),
    "a last frame without an end": (frames_entry([*VALUES[:2], UNENDED]), CAMERAS),
    "a field of another number": (frames_entry([VALUES[0], b"\x12" + VALUES[1][1:], VALUES[2]]), CAMERAS),
    "no JPEG": (frames_entry([VALUES[0], delimited(1, b"x" + SCENE.frames[1]), VALUES[2]]), CAMERAS),
    "no frames": (frames_entry(VALUES, name=b"framed"), CAMERAS),
    "a short list": (frames_entry(VALUES, cut=(1, 0, 0)), CAMERAS),
    "a short feature": (frames_entry(VALUES, cut=(0, 1, 0)), CAMERAS),
    "a short entry": (frames_entry(VALUES, cut=(0, 0, 1)), CAMERAS),
    "more in the list": (frames_entry(VALUES, behind=(UNKNOWN, b"", b"")), CAMERAS),
    "more in the feature": (frames_entry(VALUES, behind=(b"", UNKNOWN, b"")), CAMERAS),
    "more in the entry": (frames_entry(VALUES, behind=(b"", b"", UNKNOWN)), CAMERAS),
    "no cameras": (FRAMES, CAMERAS.replace(b"cameras", b"camerae")),
    "cameras cut": (FRAMES, CAMERAS[:-1]),
    "something after the cameras": (FRAMES, CAMERAS + UNKNOWN),
    "cameras twice": (FRAMES, CAMERAS + CAMERAS),
    "something after the frames": (FRAMES + UNKNOWN, CAMERAS),
    "frames twice": (FRAMES + frames_entry(VALUES[:2]), CAMERAS),
    "frames outside an entry": (b"\x12" + FRAMES[1:], CAMERAS),
    "cameras outside an entry": (FRAMES, b"\x12" + CAMERAS[1:]),
}


@pytest.mark.parametrize("cameras_first", [False, True])
@pytest.mark.parametrize(("frames", "cameras"), UNUSUAL.values(), ids=UNUSUAL)
def test_the_fast_scan_declines_unusual_records(frames, cameras, cameras_first):
    assert is_scanned_fast(delimited(1, FRAMES + CAMERAS))  # all cases differ from it in one thing
    assert not is_scanned_fast(delimited(1, cameras + frames if cameras_first else frames + cameras))


@pytest.mark.parametrize("change", [lambda whole: b"\x12" + whole[1:], lambda whole: whole[:-1], lambda w: w + UNKNOWN])
@pytest.mark.parametrize("cameras_first", [False, True])
def test_the_fast_scan_declines_more_than_one_features_message(change, cameras_first):
    whole = as_protobuf_writes(SCENE.frames, cameras_first)
    assert is_scanned_fast(whole)
    assert not is_scanned_fast(change(whole))


@given(st.binary(max_size=100))
def test_the_fast_scan_declines_arbitrary_bytes(payload):
    assert not is_scanned_fast(payload)


@given(changes=mutations)
@settings(max_examples=150)
def test_a_changed_record_is_reported_or_gives_the_same_scene(changes, tmp_path):
    path = tmp_path / "made.tfrecord"
    path.write_bytes(mutated(framed([PAYLOAD]), changes))
    scanner = SceneScanner(LAYOUT)
    try:
        scenes = [(record, scanner.scan(record, path)) for record in read_records(path)]
    except CorruptRecord:
        return
    assert len(scenes) == 1
    record, scene = scenes[0]
    frames = [record.payload[offset : offset + length] for offset, length in zip(scene.offsets, scene.lengths)]
    assert frames == list(SCENE.frames)
    assert scene.cameras.tobytes() == SCENE.cameras.tobytes()


@pytest.mark.parametrize(
    ("frames", "cameras", "said"),
    [
        (SCENE.frames[:2], SCENE.cameras, r"2 views, expected 3"),
        (SCENE.frames * 2, SCENE.cameras, r"6 views, expected 3"),
        (SCENE.frames, SCENE.cameras[:2], r"10 camera numbers, expected 15"),
        (SCENE.frames, SCENE.cameras.ravel()[:14], r"14 camera numbers, expected 15"),
        ((*SCENE.frames[:2], made_scene(0, 1, 32).frames[0]), SCENE.cameras, r"view 2.*32x32 pixels, expected 16x16"),
        ((SCENE.frames[0], b"GIF89a" * 9, SCENE.frames[2]), SCENE.cameras, r"view 1.*not a JPEG"),
        ((SCENE.frames[0][:-9], *SCENE.frames[1:]), SCENE.cameras, r"view 0.*cut short"),
        ((SCENE.frames[0], b"", SCENE.frames[2]), SCENE.cameras, r"view 1.*not a JPEG"),
    ],
)
def test_scenes_of_another_shape_name_found_and_expected_values(frames, cameras, said):
    with pytest.raises(CorruptRecord, match=said):
        scan(example_bytes(frames, cameras))


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ({"cameras": ([1.0], "float")}, r"no feature 'frames'.*its features: cameras"),
        ({"frames": (list(SCENE.frames), "byte")}, r"no feature 'cameras'.*its features: frames"),
        ({"frames": ([1.0], "float"), "cameras": ([1.0], "float")}, r"'frames' holds floats, expected bytes"),
        (
            {"frames": (list(SCENE.frames), "byte"), "cameras": ([1], "int")},
            r"'cameras' holds integers, expected floats",
        ),
    ],
)
def test_records_without_the_two_features_name_theirs(features, said):
    with pytest.raises(CorruptRecord, match=said):
        scan(TFRecordWriter.serialize_tf_example(features))


@given(st.dictionaries(st.text(max_size=60), st.just(([1], "int")), max_size=20))
@settings(max_examples=50)
def test_any_feature_names_fit_into_a_one_line_error(features):
    with pytest.raises(CorruptRecord) as caught:
        scan(TFRecordWriter.serialize_tf_example(features))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 5000


@given(st.integers(1, 6), st.integers(0, 1000))
@settings(max_examples=25)
def test_protobuf_parses_what_we_serialize(views, number):
    scene = made_scene(number % 7, views)
    payload = serialize_example(scene.frames, scene.cameras)
    frames, cameras = by_protobuf(payload)
    assert frames == list(scene.frames)
    assert cameras.tobytes() == scene.cameras.tobytes()
    assert payload == serialize_example(list(scene.frames), scene.cameras.copy())
