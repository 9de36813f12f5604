"""Hostile input: files made to exhaust memory or time, or to take control. Run by test_hostile_input.py.

A case makes its files in an empty folder and hands them to the project, which must raise a `GQNError`. As a program,
this module runs the cases named on stdin one after another, with limited memory and time, and prints a line of JSON
for each: a case that takes too much memory gets a MemoryError, one that takes too much time is killed.
"""

import gzip
import io
import json
import os
import pickle
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import crc32c
import numpy as np
from made_scenes import SET, SIZE, VIEWS, framed, made_scene, make_raw_folder

from gqn_data.convert import convert
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.plan import Options
from gqn_data.dataset import open_dataset
from gqn_data.errors import GQNError
from gqn_data.inspect.verify import verify
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.sources.raw_folder import open_raw_folder
from gqn_data.tfrecord.framing import count_records, masked_crc

MEMORY = 512 << 20  # on top of the memory in use after all imports
SECONDS = 120  # a case takes a hundredth of a second

CASES = {}


def case(group, name):
    """Register a case; its group is a row of the table."""

    def add(function):
        CASES[f"{group}: {name}"] = function
        return function

    return add


# Building blocks of the cases.


def dataset(folder, name="zarr", frames=None):
    """Copy a dataset of one split and one shard, which is made once."""
    made = folder.parent / f"good-{name}-{frames}"
    found = made / ("raw" if name == "tfrecord" else name) / SET
    if not made.exists():
        raw = make_raw_folder(made / "raw" / SET, train=(3,), test=())
        if name == "tfrecord":
            index_raw_folder(open_raw_folder(raw, SCENE_SETS[SET]))
        else:
            convert(raw, SCENE_SETS[SET], made, Options(formats=(name,), frames=frames, workers=1))
    return shutil.copytree(found, folder / found.relative_to(made))


def edited(folder, change):
    """Change the manifest of a dataset; return its folder."""
    path = folder / "manifest.json"
    value = json.loads(path.read_text())
    change(value, value["splits"]["train"])
    path.write_text(json.dumps(value))
    return folder


def name_of(folder, number):
    """Return the name of a file of the first shard."""
    value = json.loads((folder / "manifest.json").read_text())
    return value["splits"]["train"]["shards"][0]["files"][number]["name"]


def read_all(folder):
    """Read a whole dataset, and raise the first fault of `verify --deep`."""
    for scene in open_dataset(folder):
        _ = scene.frames
    decode_all(folder)
    deep_verify(folder)


def decode_all(folder):
    """Read frames like the loader does."""
    scenes = open_dataset(folder)
    out = np.zeros((VIEWS, SIZE, SIZE, 3), np.uint8)
    for scene in range(len(scenes)):
        scenes.decode_into(scene, range(VIEWS), out)
    _ = scenes.cameras


def deep_verify(folder):
    """Verify, and raise the first fault."""
    found = verify(folder, SCENE_SETS[SET], deep=True, workers=1).faults
    if found:
        raise GQNError(found[0])


def each_of(*reads):
    """Run several reads, each of which must fail; raise the last error."""
    fault = None
    for read in reads:
        try:
            read()
        except GQNError as error:
            fault = error
        else:
            return
    raise fault


def raw_of(folder, data):
    """Make a raw folder with one source file of the given bytes."""
    raw = make_raw_folder(folder / SET, train=(1,), test=())
    (raw / "train" / "001-of-900.tfrecord").write_bytes(data)
    return raw


def read_raw(raw, out):
    """Verify, index and convert a raw folder; each of these must refuse it."""
    options = Options(formats=("numpy",), workers=1)
    each_of(
        lambda: deep_verify(raw),
        lambda: index_raw_folder(open_raw_folder(raw, SCENE_SETS[SET])),
        lambda: convert(raw, SCENE_SETS[SET], out, options),
    )


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def delimited(number, data, length=None):
    return bytes([number << 3 | 2]) + varint(len(data) if length is None else length) + data


def giant(frame):
    """Return the frame with a header that claims 65500x65500 pixels."""
    frame = bytearray(frame)
    at = frame.index(b"\xff\xc0")
    frame[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    return bytes(frame)


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def check_bomb(folder):
    if (folder / "gone off").exists():
        raise AssertionError("a pickle was loaded")


# Manifests.

OUTSIDE = {
    "an absolute path": "/etc/passwd",
    "a path that climbs out": "../../../../etc/passwd",
    "a path that climbs out later": "train/../../x",
    "a path with backslashes": "..\\..\\x",
    "a name with a NUL": "train/x\0",
    "a name with an escape sequence": "train/\x1b[2J",
    "a name that is too long": "x" * 5000,
    "a path that is too long": "x/" * 3000 + "x",
}
for what, wrong in OUTSIDE.items():

    @case("manifest", f"{what}, as a shard")
    def _(folder, wrong=wrong):
        found = dataset(folder)
        edited(found, lambda _, train: train["shards"][0]["files"][0].update(name=wrong))
        each_of(lambda: open_dataset(found)[0], lambda: deep_verify(found))

    @case("manifest", f"{what}, as metadata")
    def _(folder, wrong=wrong):
        deep_verify(edited(dataset(folder), lambda _, train: train["files"][0].update(name=wrong)))

    @case("manifest", f"{what}, as a source file")
    def _(folder, wrong=wrong):
        found = dataset(folder)
        deep_verify(edited(found, lambda _, train: train["sources"][0].update(name=wrong)))

    @case("manifest", f"{what}, as an index")
    def _(folder, wrong=wrong):
        found = dataset(folder, "tfrecord")
        edited(found, lambda _, train: train["shards"][0]["files"][1].update(name=wrong))
        each_of(lambda: open_dataset(found)[0], lambda: deep_verify(found))


for container in ("zarr", "numpy", "webdataset", "tfrecord"):

    @case("manifest", f"2^62 scenes in {container}")
    def _(folder, container=container):
        def many(_, train):
            train["scenes"] = train["shards"][0]["scenes"] = 1 << 62
            train["scenes_per_shard"] = train["scenes_per_shard"] and 1 << 62

        found = edited(dataset(folder, container), many)
        each_of(lambda: read_all(found), lambda: deep_verify(found), lambda: open_dataset(found).cameras)

    @case("manifest", f"frames of 65536x65536 in {container}")
    def _(folder, container=container):
        found = edited(dataset(folder, container), lambda all_, _: all_["frames"].update(height=1 << 16, width=1 << 16))
        each_of(lambda: read_all(found), lambda: deep_verify(found))

    @case("manifest", f"65536 views in {container}")
    def _(folder, container=container):
        found = edited(dataset(folder, container), lambda all_, _: all_["frames"].update(views=1 << 16))
        each_of(lambda: read_all(found), lambda: deep_verify(found))

    @case("manifest", f"files of 2^62 bytes in {container}")
    def _(folder, container=container):
        found = dataset(folder, container)
        edited(found, lambda _, train: train["shards"][0]["files"][0].update(bytes=1 << 62))
        each_of(lambda: read_all(found), lambda: deep_verify(found))


TEXTS = {
    "nested 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "tables nested 100,000 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "NaN": b'{"schema": NaN}',
    "a number of 100,000 digits": b'{"schema": ' + b"9" * 100_000 + b"}",
    "not UTF-8": b'{"schema": "\xff\xfe"}',
    "UTF-16": '{"schema": 1}'.encode("utf-16"),
    "half a surrogate pair": b'{"schema": 1, "tool": "\\ud800"}',
    "one name 100,000 times": b"{" + b",".join([b'"schema": 1'] * 100_000) + b"}",
    "NUL bytes": bytes(10_000),
}
for what, text in TEXTS.items():

    @case("manifest", what)
    def _(folder, text=text):
        (folder / "manifest.json").write_bytes(text)
        each_of(lambda: open_dataset(folder), lambda: verify(folder, SCENE_SETS[SET]))

    @case("source.json", what)
    def _(folder, text=text):
        raw = make_raw_folder(folder / SET, train=(1,), test=())
        (raw / "source.json").write_bytes(text)
        read_raw(raw, folder / "out")


def twice(text, key):
    """Return the JSON text with a duplicate of one entry of its first table, with another value."""
    return text.replace("{", "{" + f'"{key}": "another",', 1)


@case("manifest", "an entry twice")
def _(folder):
    found = dataset(folder)
    path = found / "manifest.json"
    path.write_text(twice(path.read_text(), "scene_set"))
    open_dataset(found)


@case("manifest", "NaN in the origin's details")
def _(folder):
    found = dataset(folder)
    path = found / "manifest.json"
    path.write_text(path.read_text().replace('"seed": 5', '"seed": NaN', 1))
    open_dataset(found)


ENDLESS = {
    "a link to an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a pipe without a writer": os.mkfifo,
    "a terabyte of zeros": lambda path: path.touch() or os.truncate(path, 1 << 40),
}
for what, make in ENDLESS.items():

    @case("endless file", f"{what}, as manifest.json")
    def _(folder, make=make):
        make(folder / "manifest.json")
        each_of(lambda: open_dataset(folder), lambda: verify(folder, SCENE_SETS[SET]))

    @case("endless file", f"{what}, as source.json")
    def _(folder, make=make):
        raw = make_raw_folder(folder / SET, train=(1,), test=(), origin=False)
        make(raw / "source.json")
        read_raw(raw, folder / "out")

    @case("endless file", f"{what}, as SHA256SUMS")
    def _(folder, make=make):
        found = dataset(folder)
        (found / "SHA256SUMS").unlink()
        make(found / "SHA256SUMS")
        deep_verify(found)

    for number, said in ((0, None), (1, None), (0, 0), (1, 0)):

        @case("endless file", f"{what}, as file {number} of a tar shard" + ("" if said is None else " of no bytes"))
        def _(folder, make=make, number=number, said=said):
            found = dataset(folder, "webdataset")
            path = found / name_of(found, number)
            path.unlink()
            make(path)
            if said is not None:
                edited(found, lambda _, train: train["shards"][0]["files"][number].update(bytes=said))
            each_of(lambda: open_dataset(found)[0], lambda: deep_verify(found))

    @case("endless file", f"{what}, as an indexed source file")
    def _(folder, make=make):
        found = dataset(folder, "tfrecord")
        path = found / "train" / "001-of-900.tfrecord"
        path.unlink()
        make(path)
        each_of(lambda: open_dataset(found)[0], lambda: deep_verify(found))


# Records.


def header(length):
    data = struct.pack("<Q", length)
    return data + struct.pack("<I", masked_crc(data))


for power in (31, 32, 40, 62, 63):
    for less in (0, 1):

        @case("record", f"of 2^{power}{' - 1' if less else ''} bytes")
        def _(folder, length=(1 << power) - less):
            raw = raw_of(folder, header(length) + bytes(100))
            path = raw / "train" / "001-of-900.tfrecord"
            each_of(lambda: read_raw(raw, folder / "out"), lambda: count_records(path))


@case("record", "of 2^64 - 1 bytes, which would end where it begins")
def _(folder):
    raw = raw_of(folder, header((1 << 64) - 1) + bytes(100))
    read_raw(raw, folder / "out")


@case("record", "of 2^40 bytes in a file of 2^40 zeros")
def _(folder):
    raw = raw_of(folder, header(1 << 40))
    os.truncate(raw / "train" / "001-of-900.tfrecord", (1 << 40) + 16)
    read_raw(raw, folder / "out")


SCENE = made_scene(1)
FRAMES = delimited(2, delimited(1, b"".join(delimited(1, frame) for frame in SCENE.frames)))
CAMERAS = delimited(2, delimited(2, delimited(1, SCENE.cameras.tobytes())))


def example(frames=FRAMES, cameras=CAMERAS):
    entries = delimited(1, b"frames") + frames, delimited(1, b"cameras") + cameras
    return delimited(1, b"".join(delimited(1, entry) for entry in entries))


PAYLOADS = {
    "a varint of twenty bytes": b"\x0a" + b"\xff" * 19 + b"\x01",
    "a varint of ten bytes that overflows": b"\x0a" + b"\xff" * 9 + b"\x7f",
    "a message of 2^63 bytes": delimited(1, b"", 1 << 63),
    "a frame of 2^64 - 1 bytes": example(delimited(2, delimited(1, delimited(1, b"", (1 << 64) - 1)))),
    "a frame of 2^63 bytes": example(delimited(2, delimited(1, delimited(1, b"", 1 << 63)))),
    "cameras of 2^63 bytes": example(cameras=delimited(2, delimited(2, delimited(1, b"", 1 << 63)))),
    "a million groups, one in another": b"\x1b" * 1_000_000,
    "a million groups, begun and ended": b"\x1b" * 500_000 + b"\x1c" * 500_000,
    "two million frames of no bytes": example(delimited(2, delimited(1, b"\x0a\x00" * 2_000_000))),
    "two million cameras, one by one": example(cameras=delimited(2, delimited(2, b"\x0d\0\0\0\0" * 2_000_000))),
    "a million features": delimited(1, b"".join(delimited(1, delimited(1, b"%d" % i)) for i in range(1_000_000))),
    "a million features of one name": delimited(1, delimited(1, delimited(1, b"a")) * 1_000_000),
    "a million features, one in another": b"\x0a\x80\x80\x01" * 1_000_000,
    "a name of ten megabytes": delimited(1, delimited(1, delimited(1, b"x" * 10_000_000))),
    "a million unknown fields": b"\x78\x01" * 1_000_000,
    "a field of number 0": b"\x02\x00",
    "only 0xff": b"\xff" * 1_000_000,
    "a GIF among the frames": example(delimited(2, delimited(1, delimited(1, b"GIF89a" * 9) * VIEWS))),
}
for what, payload in PAYLOADS.items():

    @case("record", f"with {what}")
    def _(folder, payload=payload):
        read_raw(raw_of(folder, framed([payload])), folder / "out")


# Frames.

GIANTS = delimited(2, delimited(1, b"".join(delimited(1, giant(frame)) for frame in SCENE.frames)))


@case("JPEG of 65500x65500", "in a source file")
def _(folder):
    read_raw(raw_of(folder, framed([example(GIANTS)])), folder / "out")


def with_giants(folder, name):
    """Make a dataset whose frames in the first shard claim a giant size, with valid checksums."""
    found = dataset(folder, name)
    path = found / name_of(found, 0)
    data = path.read_bytes()
    small, large = (frame[: frame.index(b"\xff\xc0") + 9] for frame in (SCENE.frames[0], giant(SCENE.frames[0])))
    assert data.count(small) == 3 * VIEWS
    path.write_bytes(data.replace(small, large))
    digest = subprocess.run(["sha256sum", path], capture_output=True, check=True, text=True).stdout.split()[0]
    return edited(found, lambda _, train: train["shards"][0]["files"][0].update(sha256=digest))


for container in ("zarr", "webdataset", "tfrecord"):

    @case("JPEG of 65500x65500", f"in {container}")
    def _(folder, container=container):
        found = with_giants(folder, container)
        scenes = open_dataset(found)
        each_of(
            lambda: scenes[0].frame(0),
            lambda: scenes[0].frames,
            lambda: decode_all(found),
            lambda: deep_verify(found),
            lambda: convert(found, SCENE_SETS[SET], folder / "out", Options(formats=("numpy",), workers=1)),
        )


@case("JPEG of 65500x65500", "without a known size")
def _(folder):
    from gqn_data.schema import jpeg

    jpeg.decode(giant(SCENE.frames[0]))


# Indexes.


def zarr_index(folder, change):
    """Make a zarr dataset whose shard has another index, with valid checksums."""
    found = dataset(folder)
    path = found / "train/frames/c/0/0/0/0/0"
    data = path.read_bytes()
    size = 16 * VIEWS * 3
    index = np.frombuffer(data[-size - 4 : -4], "<u8").reshape(3, VIEWS, 2).copy()
    change(index, len(data))
    path.write_bytes(data[: -size - 4] + index.tobytes() + struct.pack("<I", crc32c.crc32c(index.tobytes())))
    digest = subprocess.run(["sha256sum", path], capture_output=True, check=True, text=True).stdout.split()[0]
    return edited(found, lambda _, train: train["shards"][0]["files"][0].update(sha256=digest))


EXTENTS = {
    "points after its file": lambda index, size: index.__setitem__((..., 0), size),
    "points far after its file": lambda index, _: index.__setitem__((..., 0), 1 << 62),
    "ends after its file": lambda index, size: index.__setitem__((..., 1), size),
    "says 2^64 - 1": lambda index, _: index.fill((1 << 64) - 1),
    "overflows": lambda index, _: index.__setitem__((..., 1), np.uint64(1 << 63) - index[..., 0] + np.uint64(1 << 63)),
    "says 2^63": lambda index, _: index.fill(1 << 63),
    "holds no frames": lambda index, _: index.fill(0),
    "overlaps frames": lambda index, _: index.__setitem__((..., 0), np.arange(3 * VIEWS).reshape(3, -1)),
    "gives every frame the whole file": lambda index, size: index.__setitem__((...,), (1, size - 1)),
}
for what, change in EXTENTS.items():

    @case("zarr index", what)
    def _(folder, change=change):
        found = zarr_index(folder, change)
        each_of(
            lambda: open_dataset(found)[0].frames,
            lambda: decode_all(found),
            lambda: deep_verify(found),
            lambda: convert(found, SCENE_SETS[SET], folder / "out", Options(formats=("numpy",), workers=1)),
        )


def zstd_chunk(folder, chunk):
    """Make a zarr dataset of pixels with another first chunk."""
    found = dataset(folder, frames="raw")
    path = found / "train/frames/c/0/0/0/0/0"
    data = bytearray(path.read_bytes())
    index = np.frombuffer(data[-4 - 48 : -4], "<u8").reshape(3, 2).copy()
    index[0] = 0, len(chunk)
    data = bytes(chunk) + bytes(data[len(chunk) : -4 - 48]) + index.tobytes() + bytes(4)
    path.write_bytes(data)
    return edited(found, lambda _, train: train["shards"][0]["files"][0].update(bytes=len(data), sha256=None))


def zstd(data):
    from numcodecs.zstd import Zstd

    return bytes(Zstd().encode(data))


CHUNKS = {
    "of 2^62 bytes": lambda: b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 62) + bytes(30),
    "of a gigabyte": lambda: b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 30) + bytes(30),
    "of too few bytes": lambda: zstd(bytes(100)),
    "of too many bytes": lambda: zstd(bytes(10_000)),
    "that does not say its size": lambda: b"\x28\xb5\x2f\xfd\x00" + zstd(bytes(VIEWS * SIZE * SIZE * 3))[7:],
    "twice": lambda: zstd(bytes(VIEWS * SIZE * SIZE * 3)) * 2,
    "that is empty": lambda: b"",
    "that is something else": lambda: b"GIF89a" * 10,
}
for what, chunk in CHUNKS.items():

    @case("zstd chunk", what)
    def _(folder, chunk=chunk):
        found = zstd_chunk(folder, chunk())
        each_of(lambda: open_dataset(found)[0].frames, lambda: deep_verify(found))


def npy(version, text, length=None):
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", length or len(text)) + text


def pickled(folder):
    file = io.BytesIO()
    np.save(file, np.array([Bomb(folder / "gone off")], object), allow_pickle=True)
    return file.getvalue()


ARRAYS = {
    "that holds pickles": pickled,
    "that is a pickle": lambda folder: pickle.dumps(Bomb(folder / "gone off")),
    "whose header takes 65535 bytes": lambda _: npy(1, b"{" * 65535),
    "whose header says 65535 bytes": lambda _: npy(1, b"{'descr': '|u1'", 65535),
    "whose header says 2^32 - 1 bytes": lambda _: npy(2, b"{'descr': '|u1'", (1 << 32) - 1),
    "of 2^62 scenes": lambda _: npy(1, b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d,), }\n" % (1 << 62)),
    "whose header is code": lambda _: npy(1, b"__import__('os').mkdir('/tmp/never')\n"),
    "whose header is nested 10,000 deep": lambda _: npy(1, b"[" * 10_000 + b"\n"),
    "that is empty": lambda _: b"",
    "without a header": lambda _: b"\x93NUMPY",
}
PLACES = {
    "index of a source file": ("tfrecord", 1),
    "index of a tar": ("webdataset", 1),
    "frames": ("numpy", 0),
    "cameras": ("numpy", 1),
}
for where, (container, number) in PLACES.items():
    for what, make in ARRAYS.items():

        @case("npy file", f"{where} {what}")
        def _(folder, make=make, container=container, number=number):
            found = dataset(folder, container)
            data = make(folder)
            (found / name_of(found, number)).write_bytes(data)
            row = {"bytes": len(data), "sha256": None}
            edited(found, lambda _, train: train["shards"][0]["files"][number].update(row))
            try:
                each_of(
                    lambda: open_dataset(found)[0],
                    lambda: decode_all(found),
                    lambda: open_dataset(found).cameras,
                    lambda: deep_verify(found),
                    lambda: convert(found, SCENE_SETS[SET], folder / "out", Options(formats=("zarr",), workers=1)),
                )
            finally:
                check_bomb(folder)


# Arrays of the numpy mirror.


def mirror(folder, images, viewpoints=None):
    """Make a folder of the mirror's two arrays of one split; the name ends in .gz if the bytes are gzip."""
    found = folder / SET
    found.mkdir()
    good = io.BytesIO()
    np.save(good, np.zeros((2, 15, 5), "<f4"))
    for name, data in (("images", images), ("viewpoints", good.getvalue() if viewpoints is None else viewpoints)):
        (found / f"train_{name}.npy{'.gz' if data.startswith(GZIP) else ''}").write_bytes(data)
    return found


GZIP = b"\x1f\x8b"
PIXELS = b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d, 15, 64, 64, 3), }"


def packed(data, count=1):
    """Gzip the bytes, repeated `count` times."""
    file = io.BytesIO()
    with gzip.open(file, "wb", 9) as out:
        for _ in range(count):
            out.write(data)
    return file.getvalue()


MIRRORS = {
    **ARRAYS,
    "whose shape is to be computed": lambda _: npy(1, b"{'descr': '|u1', 'fortran_order': False, 'shape': (1,) * 9}\n"),
    "of records with 3000 fields": lambda _: npy(1, b"{'descr': [" + b"('a', '<f4'), " * 3000 + b"]}\n"),
    "gzipped, of 2^62 scenes": lambda _: packed(npy(1, PIXELS % (1 << 62))),
    "gzipped, of two scenes and a gigabyte": lambda _: packed(npy(1, PIXELS % 2)) + packed(bytes(16 << 20), 64),
    "gzipped, that holds pickles": lambda folder: packed(pickled(folder)),
    "gzipped and cut short": lambda _: packed(npy(1, PIXELS % 2) + bytes(2 * 15 * 64 * 64 * 3))[:-20],
    "gzipped a hundred times": lambda _: packed(b"GIF89a" * 10)[:30],
}
for what, make in MIRRORS.items():

    @case("array of the numpy mirror", what)
    def _(folder, make=make):
        found = mirror(folder, make(folder))
        try:
            each_of(
                lambda: deep_verify(found),
                lambda: convert(found, SCENE_SETS[SET], folder / "out", Options(formats=("zarr",), workers=1)),
            )
        finally:
            check_bomb(folder)


# Notes of interrupted runs, and the files that they would remove.


@case("note of a conversion", "that names files outside the folder")
def _(folder):
    from gqn_data.io import strict_json

    raw = make_raw_folder(folder / "raw" / SET, train=(3,), test=())
    (folder / "precious").write_bytes(b"x")
    names = ["../../precious", str(folder / "precious"), "x/../../../precious"]
    note = folder / ".work" / SET / "zarr" / "plan.json"
    note.parent.mkdir(parents=True)
    strict_json.write_note(note, {"identity": None, "files": names})
    convert(raw, SCENE_SETS[SET], folder, Options(workers=1))
    assert (folder / "precious").read_bytes() == b"x"
    raise GQNError("the files outside are unchanged")


@case("note of a conversion", "that is nested deeply")
def _(folder):
    raw = make_raw_folder(folder / "raw" / SET, train=(3,), test=())
    note = folder / ".work" / SET / "zarr" / "plan.json"
    note.parent.mkdir(parents=True)
    note.write_bytes(b"[" * 100_000)
    convert(raw, SCENE_SETS[SET], folder, Options(workers=1))
    raise GQNError("the note was ignored")


# Tars: members are found by the index, and never unpacked.


@case("tar", "members with names outside")
def _(folder):
    found = dataset(folder, "webdataset")
    path = found / name_of(found, 0)
    out = io.BytesIO()
    with tarfile.open(path) as good, tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as bad:
        for number, member in enumerate(good.getmembers()):
            data = good.extractfile(member).read()
            member.name = ("../../outside", "/tmp/outside-of-gqn", "a/../../outside")[number % 3]
            bad.addfile(member, io.BytesIO(data))
    assert len(out.getvalue()) == path.stat().st_size
    path.write_bytes(out.getvalue())
    decode_all(found)
    outside = [folder / "outside", folder.parent / "outside", Path("/tmp/outside-of-gqn")]
    assert not any(place.exists() for place in outside)
    deep_verify(found)  # the checksum differs


@case("tar", "members that are links and devices")
def _(folder):
    found = dataset(folder, "webdataset")
    path = found / name_of(found, 0)
    data = bytearray(path.read_bytes())
    for at in range(0, len(data) - 512, 512):
        if data[at + 257 : at + 262] == b"ustar":
            data[at + 156 : at + 157] = b"2"
            data[at + 157 : at + 168] = b"/etc/passwd"
    path.write_bytes(data)
    decode_all(found)
    deep_verify(found)


# Origins.

DETAILS = {
    "2^62 views": {"views": 1 << 62, "frame_size": 16},
    "a billion views": {"views": 10**9, "frame_size": 16},
    "frames of 2^62 pixels a side": {"views": 3, "frame_size": 1 << 62},
    "true views": {"views": True, "frame_size": 16},
    "half a view": {"views": 0.5, "frame_size": 16},
}
for what, details in DETAILS.items():

    @case("source.json", what)
    def _(folder, details=details):
        raw = make_raw_folder(folder / SET, train=(1,), test=())
        (raw / "source.json").write_text(json.dumps({"kind": "rendered", "details": details}))
        read_raw(raw, folder / "out")


# Runs and checkpoints.


def run_with(folder, data):
    """Make a run with one checkpoint of the given bytes, and its checksum."""
    import hashlib

    from gqn_model.checkpoint.checkpoint import write_config
    from gqn_model.config import Config

    write_config(folder, Config().replaced({"frame_size": 64}))
    path = folder / "checkpoints" / "00000001.pt"
    path.parent.mkdir()
    path.write_bytes(data)
    path.with_name(path.name + ".sha256").write_text(f"{hashlib.sha256(data).hexdigest()}  {path.name}\n")
    return folder


def saved(value):
    import torch

    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def inflated():
    """Return a checkpoint of a gigabyte, packed into a megabyte."""
    packed, file = zipfile.ZipFile(io.BytesIO(saved({"format": 1, "model": {}}))), io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
        for entry in packed.infolist():
            if entry.filename.endswith("data.pkl"):
                with out.open(entry.filename, "w") as member:
                    for _ in range(64):
                        member.write(bytes(16 << 20))
            else:
                out.writestr(entry.filename, packed.read(entry))
    return file.getvalue()


CHECKPOINTS = {
    "that is a pickle": lambda folder: pickle.dumps(Bomb(folder / "gone off")),
    "that holds a pickle": lambda folder: saved({"format": 1, "model": Bomb(folder / "gone off")}),
    "that packs a gigabyte into a megabyte": lambda _: inflated(),
    "that is not a checkpoint": lambda _: b"GIF89a" * 100,
    "that is empty": lambda _: b"",
    "of another format": lambda _: saved({"format": 99}),
    "of only a format": lambda _: saved({"format": 1}),
    "of a list": lambda _: saved([1, 2, 3]),
}
for what, make in CHECKPOINTS.items():

    @case("checkpoint", what)
    def _(folder, make=make):
        from gqn_model.checkpoint.checkpoint import load_checkpoint

        try:
            load_checkpoint(run_with(folder, make(folder)))
        finally:
            check_bomb(folder)


for what, text in TEXTS.items():

    @case("checkpoint", f"config.json of {what}")
    def _(folder, text=text):
        from gqn_model.checkpoint.checkpoint import read_config

        (folder / "config.json").write_bytes(text)
        read_config(folder)

    @case("checkpoint", f"run.json of {what}")
    def _(folder, text=text):
        from gqn_model.checkpoint.run_folder import read_facts

        (folder / "run.json").write_bytes(text)
        read_facts(folder)


def run_cases(names, folder):
    """Run cases and print the outcome of each."""
    import gqn_model.train.run  # noqa: F401  before memory is limited: torch reserves gigabytes of addresses

    saved({})
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    for number, name in enumerate(names):
        place = folder / str(number)
        place.mkdir()
        sys.stdout.write(json.dumps({"begins": name}) + "\n")
        sys.stdout.flush()
        signal.alarm(SECONDS)
        try:
            CASES[name](place)
            kind, refused, said = "nothing", False, ""
        except BaseException as error:  # noqa: BLE001  any outcome is reported
            kind, refused, said = type(error).__name__, isinstance(error, GQNError), str(error)[:300]
        signal.alarm(0)
        sys.stdout.write(json.dumps({"case": name, "kind": kind, "refused": refused, "said": said}) + "\n")
        sys.stdout.flush()
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    run_cases(json.load(sys.stdin), Path(sys.argv[1]))
