"""Fuzz targets: one per parser, compared with an independent parser if there is one.

A target returns if the parser read the bytes correctly or refused them with an error of ours, and raises otherwise.
test_fuzz_parsers.py feeds the targets with mutated good files, fuzz_atheris.py with inputs that reach new code.
"""

import contextlib
import io
import json
import tarfile
import tempfile
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import simplejpeg
from google.protobuf.message import DecodeError
from made_scenes import SET, SIZE, VIEWS, example_bytes, framed, made_scene, make_raw_folder, parse
from tfrecord import TFRecordWriter

from gqn_data.convert import convert
from gqn_data.convert.index import note_fault
from gqn_data.convert.plan import Options
from gqn_data.dataset import Dataset
from gqn_data.errors import CorruptFrame, CorruptRecord, GQNError, OriginError, ShardChecksumError
from gqn_data.formats import FORMATS
from gqn_data.formats.contract import ShardLocation
from gqn_data.io.ranged import RangedFile, npy_rows
from gqn_data.schema import jpeg
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.schema.layout import SceneLayout
from gqn_data.schema.manifest import FramesRow, read_manifest
from gqn_data.schema.origin import read_origin
from gqn_data.schema.scene import Scene
from gqn_data.tfrecord.example import SceneScanner
from gqn_data.tfrecord.framing import Record, count_records, read_records

LAYOUT = SceneLayout(views=VIEWS, height=SIZE, width=SIZE, because="the fuzz says so")
SCENE = made_scene(3)


@cache
def folder():
    """Make a folder for the fuzzed files, in memory if possible."""
    memory = Path("/dev/shm")
    held = tempfile.TemporaryDirectory(prefix="gqn-fuzz-", dir=memory if memory.is_dir() else None)
    folder.held = held  # removed when the process ends
    return Path(held.name)


def file_of(data, name="x"):
    path = folder() / name
    path.write_bytes(data)
    return path


# Records.


def records_of(data):
    """Return (offset, payload, is_valid) of the complete leading records, and whether they fill the file."""
    found, at = [], 0
    while at < len(data):
        head, length = data[at : at + 8], int.from_bytes(data[at : at + 8], "little")
        end = at + 12 + length
        if len(data) < end + 4 or TFRecordWriter.masked_crc(head) != data[at + 8 : at + 12]:
            break
        payload = data[at + 12 : end]
        found.append((at, payload, TFRecordWriter.masked_crc(payload) == data[end : end + 4]))
        at = end + 4
    return found, bool(data) and at == len(data)


def records(data):
    """Fuzz the framing of TFRecords."""
    path = file_of(data, "x.tfrecord")
    expected, whole = records_of(data)
    faults = []
    read = [(record.offset, record.payload) for record in read_records(path, faults.append)]
    assert read == [(offset, payload) for offset, payload, good in expected if good]
    assert len(faults) == sum(not good for *_, good in expected) + (not whole)
    try:
        count = count_records(path)
        assert whole
    except CorruptRecord as fault:
        assert not whole
        count, end = fault.record, fault.offset
        assert end == sum(len(payload) + 16 for _, payload, _ in expected)
    assert count == len(expected)


# Messages.


def by_protobuf(data):
    """Return (frames, cameras) as protobuf reads them; None if they are not a scene of the layout."""
    try:
        feature = parse(data).features.feature
    except DecodeError:
        return None
    if not {"frames", "cameras"} <= set(feature):
        return None
    frames = [*feature["frames"].bytes_list.value]
    cameras = np.array(feature["cameras"].float_list.value, np.float32)
    if len(frames) != VIEWS or len(cameras) != VIEWS * 5:
        return None
    try:
        if any(jpeg.header_of(frame)[:2] != (SIZE, SIZE) or frame[-2:] != b"\xff\xd9" for frame in frames):
            return None
    except CorruptFrame:
        return None
    return frames, cameras.tobytes()


SCANNER = SceneScanner(LAYOUT)


def by_scan(data):
    scene = SCANNER.scan(Record(0, 0, data), Path("x.tfrecord"))
    assert all(0 <= offset <= offset + length <= len(data) for offset, length in zip(scene.offsets, scene.lengths))
    return [data[at : at + length] for at, length in zip(scene.offsets, scene.lengths)], scene.cameras.tobytes()


def message(data):
    """Fuzz the wire scanner of `Example` messages."""
    expected = by_protobuf(data)
    try:
        found = by_scan(data)
    except CorruptRecord:
        pass
    else:
        try:
            parse(data)
        except DecodeError:
            return  # protobuf also checks parts that we skip, such as whether names are UTF-8
        assert found == expected
    if expected is not None:  # what protobuf writes must be readable
        assert by_scan(parse(data).SerializeToString(deterministic=True)) == expected


# Frames.


def jpeg_bytes(data):
    """Fuzz the JPEG header parser, and decoding into a frame of known size."""
    checked = True
    try:
        jpeg.FrameChecker(SIZE, SIZE).check(data, 0, len(data))
    except CorruptFrame:
        checked = False
    height = width = None
    with contextlib.suppress(CorruptFrame):
        height, width, length = jpeg.header_of(data)
        assert 21 <= length <= len(data)  # at least the image marker and the frame segment
    assert not checked or (height, width) == (SIZE, SIZE)
    out = np.full((SIZE + 2, SIZE, 3), 99, np.uint8)
    try:
        jpeg.decode_into(data, out[1:-1])
    except CorruptFrame:
        decoded = False
    else:
        decoded = True
    assert (out[[0, -1]] == 99).all()  # bytes around the frame are untouched
    with contextlib.suppress(CorruptFrame):
        jpeg.decode(data)
    if decoded and height is not None:
        # Another parser of the same library: headers that both can read must agree.
        assert simplejpeg.decode_jpeg_header(data)[:2] == (height, width) == (SIZE, SIZE)


# Arrays.

NPY_TYPE, NPY_SHAPE, NPY_COUNT = np.dtype("<f4"), (5,), 4


def npy(data):
    """Fuzz reading a `.npy` file of known type and shape."""
    path = file_of(data, "x.npy")
    try:
        found = npy_rows(RangedFile(path), NPY_TYPE, NPY_SHAPE, NPY_COUNT).all()
    except ShardChecksumError:
        return
    expected = np.load(path, allow_pickle=False)
    assert expected.dtype == found.dtype
    assert expected.tobytes() == found.tobytes()
    assert expected.shape == found.shape


# JSON.


@cache
def manifest_folder(name):
    """Make a dataset of one container, whose manifest is fuzzed."""
    raw = make_raw_folder(folder() / "raw" / SET, train=(3,), test=(1,))
    options = Options(formats=(name,), shard_bytes=9000, workers=1)
    return convert(raw, SCENE_SETS[SET], folder() / "sets", options)[0].folder


def good_manifest():
    return (manifest_folder("zarr") / "manifest.json").read_bytes()


def manifest(data):
    """Fuzz a manifest, and reading a dataset by it."""
    dataset = manifest_folder("zarr")
    good_manifest()
    path = dataset / "manifest.json"
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        value = read_manifest(dataset)
        json.dumps(value.to_json(), allow_nan=False)
        for row in value.all_files():
            assert (dataset / row.name).resolve().is_relative_to(dataset.resolve())
        for split in value.splits:
            value.fingerprint(split)
            scenes = Dataset(dataset, value, split)
            for scene in range(min(len(scenes), 10)):
                _ = scenes[scene].frames
    except GQNError as error:
        said = str(error)
        assert "\n" not in said
        assert len(said) < 5000
    finally:
        path.write_bytes(before)


def origin(data):
    """Fuzz `source.json` of a raw folder, and the note of an indexer, which has the same form."""
    path = folder() / "origin" / "source.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    with contextlib.suppress(OriginError):
        json.dumps(read_origin(path.parent).to_json(), allow_nan=False)
    note_fault(path)


# Shards.


def location_of(name, encoding="jpeg", scenes=2):
    frames = FramesRow(encoding=encoding, views=VIEWS, height=SIZE, width=SIZE)
    return ShardLocation(
        folder=folder() / f"{name}-{encoding}",
        split="train",
        number=0,
        first_scene=0,
        scenes=scenes,
        scenes_per_shard=scenes,
        frames=frames,
        layout=LAYOUT,
    )


@cache
def good_shard(name, encoding):
    """Write a shard of two scenes; return it with the bytes of each of its files."""
    location = location_of(name, encoding)
    row = FORMATS[name].write_shard(
        location, (Scene(m.cameras, encoded=m.frames) for m in (made_scene(1), made_scene(2)))
    )
    return location, row, [(location.folder / file.name).read_bytes() for file in row.files]


def shard(name, encoding, number, data):
    """Fuzz one file of a shard: scenes are read or refused, and no memory outside the frames changes."""
    location, row, files = good_shard(name, encoding)
    path = location.folder / row.files[number].name
    path.write_bytes(data)
    try:
        rows = list(row.files)
        rows[number] = replace(rows[number], bytes=len(data))
        opened = FORMATS[name].open_shard(location, replace(row, files=tuple(rows)))
        assert opened.all_cameras().shape == (2, VIEWS, 5)
        for scene in range(row.scenes):
            out = np.full((VIEWS + 2, SIZE, SIZE, 3), 99, np.uint8)
            with contextlib.suppress(GQNError):
                opened.decode_into(scene, range(VIEWS), out[1:-1])
            assert (out[[0, -1]] == 99).all()
            with contextlib.suppress(GQNError):
                assert opened.scene(scene).frames.shape == (VIEWS, SIZE, SIZE, 3)
    except GQNError:
        pass
    finally:
        path.write_bytes(files[number])


def zarr(data):
    """Fuzz a zarr shard of JPEG frames, with its index."""
    shard("zarr", "jpeg", 0, data)


def zarr_pixels(data):
    """Fuzz a zarr shard of pixels compressed by zstd."""
    shard("zarr", "raw", 0, data)


def tar(data):
    """Fuzz a tar, read by its index."""
    shard("webdataset", "jpeg", 0, data)


def tar_index(data):
    """Fuzz the index of a tar."""
    shard("webdataset", "jpeg", 1, data)


def tar_written(data):
    """Write arbitrary frames into a tar: Python's `tarfile` must read the same."""
    location = location_of("written", scenes=2)
    cut = sorted({min(byte * 7, len(data)) for byte in data[: 2 * VIEWS - 1]} | {0, len(data)})
    parts = [data[start:stop] for start, stop in pairwise(cut)]
    parts += [b""] * (2 * VIEWS - len(parts))
    scenes = [Scene(made_scene(at).cameras, encoded=parts[at * VIEWS : (at + 1) * VIEWS]) for at in range(2)]
    row = FORMATS["webdataset"].write_shard(location, iter(scenes))
    with tarfile.open(location.folder / row.files[0].name) as opened:
        members = opened.getmembers()
        assert all(member.isreg() and member.name == Path(member.name).name for member in members)
        found = [opened.extractfile(member).read() for member in members]
    arrays = [np.load(io.BytesIO(found[at])) for at in (0, VIEWS + 1)]
    assert [array.tobytes() for array in arrays] == [scene.cameras.tobytes() for scene in scenes]
    assert found[1 : VIEWS + 1] + found[VIEWS + 2 :] == parts
    again = FORMATS["webdataset"].open_shard(location, row)
    assert [bytes(frame) for scene in range(2) for frame in again.scene(scene).encoded] == parts


def good_origin():
    return json.dumps({"kind": "rendered", "details": {"seed": 5, "frame_size": 16, "views": 3}}, indent=2).encode()


def good_npy():
    file = io.BytesIO()
    np.save(file, np.arange(NPY_COUNT * 5, dtype=NPY_TYPE).reshape(NPY_COUNT, 5))
    return file.getvalue()


# Each target with a good input to mutate.
TARGETS = {
    "records": (records, lambda: framed([b"one", bytes(40), b"", b"the last"])),
    "message": (message, lambda: example_bytes(SCENE.frames, SCENE.cameras)),
    "JPEG header": (jpeg_bytes, lambda: SCENE.frames[0]),
    "npy file": (npy, good_npy),
    "manifest": (manifest, good_manifest),
    "source.json": (origin, good_origin),
    "zarr shard": (zarr, lambda: good_shard("zarr", "jpeg")[2][0]),
    "zarr shard of pixels": (zarr_pixels, lambda: good_shard("zarr", "raw")[2][0]),
    "tar": (tar, lambda: good_shard("webdataset", "jpeg")[2][0]),
    "index of a tar": (tar_index, lambda: good_shard("webdataset", "jpeg")[2][1]),
    "tar as written": (tar_written, lambda: bytes(range(256))),
}
