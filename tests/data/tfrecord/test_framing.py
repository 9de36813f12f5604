"""TFRecord framing: the reader, errors for damaged and foreign files, and the writer."""

import gzip
import io
import pickle
import tracemalloc
import zipfile
import zlib
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_scenes import framed, make_raw_folder, scenes_from, write_source_file
from tfrecord import TFRecordWriter
from tfrecord.reader import tfrecord_iterator, tfrecord_loader

from gqn_data.convert.index import index_source_files
from gqn_data.errors import CorruptFraming, CorruptRecord, SourceMissing
from gqn_data.sources.raw_folder import open_raw_folder
from gqn_data.tfrecord import framing
from gqn_data.tfrecord.framing import RecordWriter, check_records, count_records, read_records, serialize_example

PAYLOADS = [b"first record", bytes(range(40)), b"", b"the last one"]
BYTES = framed(PAYLOADS)
STARTS = [0, *accumulate(len(payload) + 16 for payload in PAYLOADS)]


def file_of(folder, data):
    path = folder / "0001-of-0900.tfrecord"
    path.write_bytes(data)
    return path


def flipped(data, at, mask):
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


def test_records_are_read_in_order_with_their_offsets(tmp_path):
    records = list(read_records(file_of(tmp_path, BYTES)))
    assert [record.payload for record in records] == PAYLOADS
    assert [record.number for record in records] == [0, 1, 2, 3]
    assert [record.offset for record in records] == STARTS[:-1]
    assert count_records(tmp_path / "0001-of-0900.tfrecord") == 4


def test_every_flipped_bit_is_reported_with_file_record_and_offset(tmp_path):
    for at in range(len(BYTES)):
        record = max(number for number, start in enumerate(STARTS) if start <= at)
        in_header = at - STARTS[record] < 12
        for bit in range(8):
            path = file_of(tmp_path, flipped(BYTES, at, 1 << bit))
            with pytest.raises(CorruptRecord) as caught:
                list(read_records(path))
            fault = caught.value
            assert (fault.file, fault.record, fault.offset) == (str(path), record, STARTS[record])
            assert isinstance(fault, CorruptFraming) == in_header
            for part in (str(path), f"record {record} ", f"byte {STARTS[record]}:"):
                assert part in str(fault)


@given(at=st.integers(0, len(BYTES) - 1), mask=st.integers(1, 255))
@settings(max_examples=100)
def test_every_changed_byte_is_reported(at, mask, tmp_path):
    with pytest.raises(CorruptRecord):
        list(read_records(file_of(tmp_path, flipped(BYTES, at, mask))))


def test_a_file_cut_inside_a_record_is_reported(tmp_path):
    # A cut between two records leaves a valid, shorter file, which only its number of scenes reveals.
    for length in range(len(BYTES)):
        path = file_of(tmp_path, BYTES[:length])
        if length in STARTS and length:
            assert len(list(read_records(path))) == STARTS.index(length) == count_records(path)
            continue
        record = max(number for number, start in enumerate(STARTS) if start <= length)
        for read in (lambda: list(read_records(path)), lambda: count_records(path)):  # noqa: B023
            with pytest.raises(CorruptFraming) as caught:
                read()
            assert (caught.value.record, caught.value.offset) == (record, STARTS[record])


def test_counting_reports_damaged_lengths_without_reading_payloads(tmp_path):
    for number, start in enumerate(STARTS[:-1]):
        for at in range(start, start + 12):
            with pytest.raises(CorruptFraming) as caught:
                count_records(file_of(tmp_path, flipped(BYTES, at, 0x10)))
            assert caught.value.record == number


@given(
    lengths=st.lists(st.integers(0, 400), max_size=12),
    change=st.none() | st.tuples(st.integers(0, 5000), st.integers(1, 255)),
    cut=st.none() | st.integers(0, 5000),
    buffer=st.integers(1, 200),
)
@settings(max_examples=300)
def test_check_records_and_read_records_find_the_same_faults(lengths, change, cut, buffer, tmp_path):
    data = framed([bytes(range(7, 7 + length % 200)) * (length // 200 + 1) for length in lengths])
    if change and data:
        data = flipped(data, change[0] % len(data), change[1])
    path = file_of(tmp_path, data if cut is None else data[:cut])
    try:
        expected = len(list(read_records(path)))
    except CorruptRecord as fault:
        expected = (type(fault), str(fault))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(framing, "_CHECK_BLOCK", buffer)
        try:
            found = check_records(path)
        except CorruptRecord as fault:
            found = (type(fault), str(fault))
    assert found == expected


def test_checking_uses_constant_memory(tmp_path):
    path = file_of(tmp_path, framed([bytes(40_000_000), b"end"]))
    tracemalloc.start()
    try:
        assert check_records(path) == 2
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


def test_a_length_beyond_the_file_is_rejected_before_allocation(tmp_path):
    length = (1 << 62).to_bytes(8, "little")
    path = file_of(tmp_path, length + TFRecordWriter.masked_crc(length) + b"short")
    with pytest.raises(CorruptFraming, match=r"ends inside the record: 17 bytes left, expected 4611686018427387920"):
        list(read_records(path))


def zipped(data):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("0001-of-0900.tfrecord", data)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (gzip.compress(BYTES), "compressed with gzip; unpack it first"),
        (zlib.compress(BYTES), "compressed with zlib; unpack it first"),
        (zlib.compress(BYTES, 1), "compressed with zlib; unpack it first"),
        (b"\x28\xb5\x2f\xfd" + BYTES, "compressed with zstd"),
        (zipped(BYTES), "a zip archive"),
        (b"<!DOCTYPE html><html>Sorry</html>", "a web page"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "a web page or XML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"", "the file is empty"),
        (b"abc", "the file ends inside a record's header: 3 bytes, expected 12"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "not a TFRecord, or damaged"),
        (bytes(100), "not a TFRecord, or damaged"),
    ],
    ids=["gzip", "zlib", "fast zlib", "zstd", "zip", "html", "xml", "lfs", "empty", "tiny", "jpeg", "zeros"],
)
def test_foreign_files_are_identified(data, said, tmp_path):
    path = file_of(tmp_path, data)
    for read in (lambda: list(read_records(path)), lambda: count_records(path)):
        with pytest.raises(CorruptFraming) as caught:
            read()
        assert said in str(caught.value)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_record_whose_length_begins_like_a_foreign_file_is_read(tmp_path):
    payloads = [bytes(0x9C78), bytes(ord("<"))]  # lengths that look like zlib and like a web page
    for payload in payloads:
        assert [record.payload for record in read_records(file_of(tmp_path, framed([payload])))] == [payload]


def test_skipping_continues_after_a_bad_payload_and_stops_at_bad_framing(tmp_path):
    data = flipped(BYTES, STARTS[1] + 20, 1)
    faults = []
    kept = [record.number for record in read_records(file_of(tmp_path, data), faults.append)]
    assert kept == [0, 2, 3]
    assert [(type(fault), fault.record) for fault in faults] == [(CorruptRecord, 1)]

    faults.clear()
    data = flipped(data, STARTS[2] + 3, 1)
    kept = [record.number for record in read_records(file_of(tmp_path, data), faults.append)]
    assert kept == [0]
    assert [(type(fault), fault.record) for fault in faults] == [(CorruptRecord, 1), (CorruptFraming, 2)]


def test_recorded_reasons_keep_their_wording(tmp_path):
    # Manifests list the reason of a skipped record, and fingerprints cover it: other words would be another dataset.
    damaged = flipped(PAYLOADS[1], 8, 1)
    found, stored = (int.from_bytes(TFRecordWriter.masked_crc(payload), "little") for payload in (damaged, PAYLOADS[1]))
    data = BYTES.replace(PAYLOADS[1], damaged)
    data = flipped(data, STARTS[2], 4)
    lengths = [(4).to_bytes(8, "little"), (0).to_bytes(8, "little")]
    length_found, length_stored = (int.from_bytes(TFRecordWriter.masked_crc(one), "little") for one in lengths)
    faults = []
    list(read_records(file_of(tmp_path, data), faults.append))
    assert [fault.reason for fault in faults] == [
        f"checksum of the payload is {found:08x}, the file says {stored:08x}",
        f"damaged: checksum of the length 4 is {length_found:08x}, the file says {length_stored:08x}",
    ]


def test_errors_can_be_pickled():
    for fault in (CorruptRecord("a", 1, 2, "why"), CorruptFraming("b", 3, 4, "why", "do that")):
        again = pickle.loads(pickle.dumps(fault))
        assert type(again) is type(fault)
        assert str(again) == str(fault)
        assert vars(again) == vars(fault)


def written(payloads):
    file = io.BytesIO()
    writer = RecordWriter(file)
    for payload in payloads:
        writer.write(payload)
    return file.getvalue()


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_our_framing_equals_the_tfrecord_packages_byte_for_byte(payloads):
    assert written(payloads) == framed(payloads)


@given(payloads=st.lists(st.binary(max_size=300), min_size=1, max_size=5))
@settings(max_examples=40)
def test_the_tfrecord_package_reads_our_files(payloads, tmp_path):
    path = file_of(tmp_path, written(payloads))
    assert [bytes(payload) for payload in tfrecord_iterator(str(path))] == payloads
    assert [record.payload for record in read_records(path)] == payloads


def test_the_tfrecord_packages_loader_reads_our_scenes(tmp_path):
    scenes = scenes_from(0, 3)
    path = file_of(tmp_path, written(serialize_example(scene.frames, scene.cameras) for scene in scenes))
    loaded = list(tfrecord_loader(str(path), None, {"frames": "byte", "cameras": "float"}))
    assert len(loaded) == 3
    for row, scene in zip(loaded, scenes):
        assert row["frames"].tolist() == list(scene.frames)
        assert row["cameras"].tobytes() == scene.cameras.tobytes()


def test_records_that_end_in_nul_bytes_keep_them(tmp_path):
    # The tfrecord package's loader strips them; ours must not.
    path = file_of(tmp_path, framed([b"frame\x00\x00\x00"]))
    assert next(read_records(path)).payload == b"frame\x00\x00\x00"


def test_payloads_do_not_change_when_the_next_is_read(tmp_path):
    records = list(read_records(write_source_file(tmp_path / "0001-of-0900.tfrecord", scenes_from(0, 4))))
    assert len({record.payload for record in records}) == 4


@pytest.mark.parametrize("on_corrupt", ["fail", "skip"])
def test_a_split_without_a_good_scene_is_rejected(on_corrupt, tmp_path, scene_set):
    folder = make_raw_folder(tmp_path / "raw", train=(1,), test=())
    path = folder / "train" / "001-of-900.tfrecord"
    path.write_bytes(flipped(path.read_bytes(), 100, 4))
    with pytest.raises(CorruptRecord if on_corrupt == "fail" else SourceMissing, match=r"train"):
        index_source_files(open_raw_folder(folder, scene_set), tmp_path / "index", on_corrupt=on_corrupt)


def test_the_oracles_cameras_are_float32():
    # Guards the oracle: DeepMind's floats are 32 bits wide, and the tfrecord package keeps them so.
    scene = scenes_from(1, 1)[0]
    assert scene.cameras.dtype == np.float32
