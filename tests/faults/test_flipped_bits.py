"""One flipped bit in a file of any kind: `verify --deep` reports the file's name, and the record's number.

Every try flips one bit, verifies, and restores it. `KINDS` lists the kinds of files; `make faults` makes more than a
thousand flips in total.
"""

import gzip
import hashlib
import io
import random
from typing import NamedTuple

import numpy as np
import pytest
from made_scenes import SET, make_raw_folder, tree

from gqn_data.cache.shard_cache import ShardCache
from gqn_data.convert import convert
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.plan import Options
from gqn_data.dataset import open_dataset
from gqn_data.errors import CorruptRecord, GQNError
from gqn_data.inspect.verify import verify
from gqn_data.io.paths import Stat
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.schema.manifest import FileRow
from gqn_data.schema.origin import Origin, claim
from gqn_data.sources.raw_folder import open_raw_folder

VIEWS, RECORD_HEADER = 3, 12


class Kind(NamedTuple):
    """A kind of file: its dataset, its names, and the range of bytes to flip (negative from the end)."""

    dataset: str
    pattern: str
    start: int | None = None
    stop: int | None = None


KINDS = {
    "source file": Kind("raw", "*/*.tfrecord"),
    "source.json of a raw folder": Kind("raw", "source.json"),
    "source file, indexed": Kind("tfrecord", "*/*.tfrecord"),
    "index of a source file": Kind("tfrecord", "*/*.index.npy"),
    "note of the indexer": Kind("tfrecord", "*/*.index.npy.json"),
    "source.json beside an index": Kind("tfrecord", "source.json"),
    "zarr shard, frames": Kind("zarr", "*/frames/c/*/0/0/0/0", 0, -(16 * VIEWS + 4)),
    "zarr shard, index": Kind("zarr", "*/frames/c/*/0/0/0/0", -(16 * VIEWS + 4)),
    "zarr shard, cameras": Kind("zarr", "*/cameras/c/*/0/0"),
    "zarr shard of pixels": Kind("zarr raw", "*/frames/c/*/0/0/0/0"),
    "zarr.json": Kind("zarr", "**/zarr.json"),
    "tar": Kind("webdataset", "*.tar"),
    "index of a tar": Kind("webdataset", "*.index.npy"),
    "npy shard, frames": Kind("numpy", "*/frames-*.npy"),
    "npy shard, cameras": Kind("numpy", "*/cameras-*.npy"),
    "converted source file": Kind("tfrecord written", "*/*.tfrecord"),
    "index of a converted source file": Kind("tfrecord written", "*/*.index.npy"),
    "manifest.json": Kind("zarr", "manifest.json"),
    "manifest.json beside an index": Kind("tfrecord", "manifest.json"),
    "SHA256SUMS": Kind("webdataset", "SHA256SUMS"),
    "README.md": Kind("numpy", "README.md"),
    "Croissant description": Kind("webdataset", "croissant.json"),
}


def made_raw(folder):
    """Make a raw folder like the renderer does, with its origin first."""
    details = {"renderer": "gqn-toolkit", "seed": 5, "frame_size": 16, "views": VIEWS, "supersample": True}
    folder.mkdir(parents=True)
    claim(folder, Origin(kind="rendered", details=details))
    return make_raw_folder(folder, origin=False)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    root = tmp_path_factory.mktemp("flips")
    raw = made_raw(root / "raw" / SET)
    indexed = made_raw(root / "indexed" / SET)
    index_raw_folder(open_raw_folder(indexed, SCENE_SETS[SET]))
    found = {"raw": raw, "tfrecord": indexed}
    for name, encoding in (("zarr", "jpeg"), ("zarr", "raw"), ("webdataset", None), ("numpy", None)):
        options = Options(formats=(name,), frames=encoding, shard_bytes=3000, workers=1)
        out = root / f"{name} {encoding}"
        found["zarr raw" if encoding == "raw" else name] = convert(raw, SCENE_SETS[SET], out, options)[0].folder
    options = Options(formats=("tfrecord",), shard_bytes=3000, workers=1)
    found["tfrecord written"] = convert(raw, SCENE_SETS[SET], root / "written", options)[0].folder
    return found


def report(folder):
    """Return the faults that a deep verification finds, or the error if the folder cannot be opened."""
    try:
        return "\n".join(verify(folder, SCENE_SETS[SET], deep=True, workers=1).faults)
    except GQNError as error:
        return str(error)


def record_at(data, at):
    """Return number and offset of the record that contains the byte `at`, by the framing of the file."""
    number = begin = 0
    while True:
        end = begin + 16 + int.from_bytes(data[begin : begin + 8], "little")
        if at < end:
            return number, begin
        number, begin = number + 1, end


class Flip:
    """A context manager that flips one bit of a file."""

    def __init__(self, folder, kind, chance):
        self.path = chance.choice(sorted(path for path in folder.glob(kind.pattern) if path.is_file()))
        self.good = self.path.read_bytes()
        start, stop, _ = slice(kind.start, kind.stop).indices(len(self.good))
        self.at = chance.randrange(start, stop)
        self.bit = chance.randrange(8)

    def __enter__(self):
        bad = bytearray(self.good)
        bad[self.at] ^= 1 << self.bit
        self.path.write_bytes(bad)
        return self

    def __exit__(self, *_):
        self.path.write_bytes(self.good)

    def __str__(self):
        return f"bit {self.bit} of byte {self.at} of {self.path}"


@pytest.mark.parametrize("name", KINDS)
def test_deep_verification_reports_a_flipped_bit(name, datasets, faults):
    kind = KINDS[name]
    folder = datasets[kind.dataset]
    if not any(folder.glob(kind.pattern)):
        pytest.skip("this version does not write such files")
    tries = faults.tries(6, full=60)
    unnoticed = []
    for number in range(tries):
        with Flip(folder, kind, random.Random(f"{name} {number}")) as flip:
            said = report(folder)
        wanted = str(flip.path)
        if flip.path.suffix == ".tfrecord":
            record, begin = record_at(flip.good, flip.at)
            wanted = f"{flip.path}: record {record} at byte {begin}:"
        if wanted not in said:
            unnoticed.append(f"{flip}: {said or 'not reported'}")
    assert report(folder) == ""  # every bit was restored
    assert not unnoticed, "\n".join(unnoticed)
    faults.record(
        f"flipped bits: {name}",
        holds="`gqn-data verify --deep` names the file"
        + (", the record" if kind.pattern.endswith(".tfrecord") else ""),
        tries=tries,
        survived=tries - len(unnoticed),
    )


class Remote:
    """A file in a store, with the methods that the cache uses."""

    def __init__(self, data):
        self.data = data

    def __str__(self):
        return "made://file"

    def stat(self):
        return Stat(st_size=len(self.data), e_tag='"1"')

    def blocks(self, start=0, e_tag=None):
        yield self.data[start:]


@pytest.mark.parametrize("checksum", [True, False], ids=["shard", "source file"])
def test_a_damaged_copy_is_reported_and_fetched_again(checksum, tmp_path, faults):
    cache = ShardCache(tmp_path, 1 << 20)
    data = random.Random(1).randbytes(5000)
    row = FileRow(name="x", bytes=len(data), sha256=hashlib.sha256(data).hexdigest() if checksum else None)
    kind = Kind("cache", "files/*")
    name = "cached shard" if checksum else "cached source file, and the note of its checksum"
    tries = faults.tries(6, full=60)
    unnoticed = []
    for number in range(tries):
        path = cache.get(Remote(data), row)
        assert cache.directory.verify() == []
        flip = Flip(tmp_path, kind, random.Random(f"{name} {number}"))
        with flip:
            faults_found = cache.directory.verify()
            if str(path) not in "".join(faults_found) or path.exists():
                unnoticed.append(f"{flip}: {faults_found}")
        path.unlink(missing_ok=True)
        if cache.get(Remote(data), row).read_bytes() != data:
            unnoticed.append(f"{flip}: the copy fetched again has other bytes")
    assert not unnoticed, "\n".join(unnoticed)
    faults.record(
        f"flipped bits: {name}",
        holds="`gqn-data cache --verify` names the copy and removes it; the next reader fetches it again",
        tries=tries,
        survived=tries - len(unnoticed),
    )


def test_a_flipped_bit_in_a_gzipped_array_is_reported(tmp_path, faults):
    folder = tmp_path / SET
    folder.mkdir()
    dice = np.random.default_rng(1)
    arrays = {"images": dice.integers(0, 256, (2, 15, 64, 64, 3), np.uint8), "viewpoints": np.zeros((2, 15, 5), "<f4")}
    for name, array in arrays.items():
        file = io.BytesIO()
        np.save(file, array)
        (folder / f"train_{name}.npy.gz").write_bytes(gzip.compress(file.getvalue(), 1))
    assert report(folder) == ""
    tries = faults.tries(6, full=60)
    unnoticed = []
    for number in range(tries):
        with Flip(folder, Kind("mirror", "*.gz", 10), random.Random(f"mirror {number}")) as flip:  # after the header
            said = report(folder)
            same = said == "" and gzip.decompress(flip.path.read_bytes()) == gzip.decompress(flip.good)
        if str(flip.path) not in said and not same:  # some bits of a gzip stream are unused
            unnoticed.append(f"{flip}: {said or 'not reported'}")
    assert not unnoticed, "\n".join(unnoticed)
    faults.record(
        "flipped bits: gzipped array of the numpy mirror",
        holds="`gqn-data verify --deep` names the file (or it unpacks to identical bytes)",
        tries=tries,
        survived=tries - len(unnoticed),
    )


def test_every_kind_of_file_is_covered(datasets):
    for dataset, folder in datasets.items():
        covered = {path for kind in KINDS.values() if kind.dataset == dataset for path in folder.glob(kind.pattern)}
        # Files that are alike in all datasets are tried in one or two of them.
        everywhere = {"manifest.json", "SHA256SUMS", "README.md", "croissant.json", "zarr.json"}
        everywhere |= {"source.json"} if dataset == "tfrecord written" else set()
        left = {file for file in tree(folder) if folder / file not in covered}
        if dataset == "zarr raw":
            left = {file for file in left if not file.split("/", 1)[-1].startswith("cameras/")}
        assert {file for file in left if file.rsplit("/", 1)[-1] not in everywhere} == set()


def test_reading_a_scene_reports_a_flipped_bit_in_its_record(datasets, faults):
    # Records contain checksums, which reading a whole scene (`convert`, `dataset[7]`) verifies.
    folder = datasets["tfrecord"]
    whole = [scene.cameras.tobytes() + b"".join(map(bytes, scene.encoded)) for scene in open_dataset(folder, "train")]
    tries = faults.tries(10, full=100)
    unnoticed = []
    for number in range(tries):
        with Flip(folder, Kind("tfrecord", "train/*.tfrecord"), random.Random(f"read {number}")) as flip:
            record, begin = record_at(flip.good, flip.at)
            scene = record + (4 if flip.path.name.startswith("002") else 0)  # the first file holds four scenes
            try:
                found = open_dataset(folder, "train")[scene]
                said = "nothing"
            except CorruptRecord as fault:
                said = f"{fault.file} {fault.record} {fault.offset}"
            else:
                # The index gives the record's length, so its header is not read; the payload is intact.
                if flip.at - begin < RECORD_HEADER:
                    same = found.cameras.tobytes() + b"".join(map(bytes, found.encoded)) == whole[scene]
                    said = "the same scene" if same else "another scene"
        if said not in (f"{flip.path} {record} {begin}", "the same scene"):
            unnoticed.append(f"{flip}: reported {said}")
    assert not unnoticed, "\n".join(unnoticed)
    faults.record(
        "flipped bits: record of a source file, read as a scene",
        holds="reading the scene names file and record (or returns its bytes: the flip was in the record's length)",
        tries=tries,
        survived=tries - len(unnoticed),
    )
