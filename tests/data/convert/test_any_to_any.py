"""Any container converts to any other: scenes do not change, and only documented cases are refused."""

import shutil
from functools import cache

import numpy as np
import pytest
from made_scenes import SET, SIZE, VIEWS, made_scene, make_raw_folder, parse, pattern, rendered, tree
from tfrecord.reader import tfrecord_iterator, tfrecord_loader

from gqn_data.convert import convert
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.plan import Options
from gqn_data.convert.scene_writer import SceneWriter
from gqn_data.dataset import open_dataset
from gqn_data.errors import OptionError, SourceMissing
from gqn_data.formats import FORMATS, WRITABLE
from gqn_data.inspect.verify import verify
from gqn_data.schema.catalog import SCENE_SETS, source_file_number
from gqn_data.schema.manifest import read_manifest
from gqn_data.sources.raw_folder import locate, open_raw_folder

ROW = SCENE_SETS[SET]
SPLITS = {"train": (0, 7), "test": (1000, 2)}  # number of the first scene, count
PIXELS = ("zarr raw", "numpy", "mirror", "mirror, gzipped", "writer, arrays")
SOURCES = ("source files", "source files, indexed", "zarr", "webdataset", "tfrecord", "writer", *PIXELS)
TARGETS = [(name, encoding) for name in WRITABLE for encoding in FORMATS[name].encodings]


def pixels_of(number):
    return np.stack([pattern(number, view) for view in range(VIEWS)])


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Return a function that creates the scenes in a form that can be converted, once per form."""
    root = tmp_path_factory.mktemp("sources")

    @cache
    def get(name):
        kind, _, more = name.partition(", ")
        if kind == "source files":
            folder = make_raw_folder(root / name / SET)
            if more:
                index_raw_folder(open_raw_folder(folder, ROW))
            return folder
        if kind == "writer":
            folder = root / name / "mine"
            with SceneWriter(folder, scenes_per_shard=3) as writer:
                for split, (first, count) in SPLITS.items():
                    for number in range(first, first + count):
                        frames = pixels_of(number) if more else made_scene(number).frames
                        writer.add(frames, made_scene(number).cameras, split)
            return folder
        if kind == "mirror":
            return make_mirror(root / name / SET, gzipped=bool(more))
        options = {"formats": (kind.split()[0],), "frames": "raw" if kind.endswith("raw") else None}
        options = Options(**options, workers=1, shard_bytes=6000)
        return convert(get("source files"), ROW, root / name, options)[0].folder

    return get


def make_mirror(folder, *, gzipped):
    import gzip
    import json

    folder.mkdir(parents=True)
    (folder / "source.json").write_text(json.dumps(rendered()))  # declares the small frames
    for split, (first, count) in SPLITS.items():
        numbers = range(first, first + count)
        arrays = {
            "images": np.stack([pixels_of(number) for number in numbers]),
            "viewpoints": np.stack([made_scene(number).cameras for number in numbers]),
        }
        for what, array in arrays.items():
            path = folder / f"{split}_{what}.npy"
            np.save(path, array)
            if gzipped:
                path.with_suffix(".npy.gz").write_bytes(gzip.compress(path.read_bytes()))
                path.unlink()
    return folder


def frames_of(source, number):
    """Return the frames of a source, decoded by independent code."""
    import simplejpeg

    if source in ("zarr raw", "numpy") or source not in PIXELS:
        return np.stack([simplejpeg.decode_jpeg(frame) for frame in made_scene(number).frames])
    return pixels_of(number)


def converted(source, sources, root, name, encoding, **options):
    folder, row = locate(str(sources(source)), root, None if source.startswith("writer") else SET)
    options = Options(formats=(name,), frames=encoding, workers=1, **{"shard_bytes": 6000, **options})
    return convert(folder, row, root, options)[0].folder


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("name", "encoding"), TARGETS)
def test_any_container_converts_to_any_other(source, name, encoding, sources, tmp_path):
    encodes = encoding == "jpeg" and source in PIXELS  # the source has pixels, the target stores JPEGs
    if encodes:
        with pytest.raises(OptionError, match=r"pixels.*--jpeg-quality"):
            converted(source, sources, tmp_path, name, encoding)
        assert not (tmp_path / name).exists()
    how = {"jpeg_quality": 95 if encodes else None, "shard_bytes": 2500 if encodes else 6000}
    folder = converted(source, sources, tmp_path, name, encoding, **how)
    manifest = read_manifest(folder)
    assert (manifest.format, manifest.frames.encoding) == (name, encoding)
    assert manifest.frames.jpeg_quality == (95 if encodes else None)
    assert (len(manifest.splits["train"].shards) > 1) == (FORMATS[name].pieces is None)
    for split, (first, count) in SPLITS.items():
        scenes = open_dataset(folder, split)
        assert len(scenes) == count
        for number, scene in enumerate(scenes, first):
            assert scene.cameras.tobytes() == made_scene(number).cameras.tobytes()
            expected = frames_of(source, number)
            if encodes:
                assert np.abs(scene.frames.astype(int) - expected).mean() < 12
            else:
                assert np.array_equal(scene.frames, expected)
            if encoding == "jpeg" and not encodes:
                assert [bytes(frame) for frame in scene.encoded] == list(made_scene(number).frames)
    assert verify(*locate(str(folder), tmp_path, None), deep=True, workers=1).faults == ()
    again = Options(formats=(name,), frames=encoding, workers=1, **how)
    here, row = locate(str(sources(source)), tmp_path, None if source.startswith("writer") else SET)
    assert convert(here, row, tmp_path, again)[0].written == 0


@pytest.mark.parametrize("source", SOURCES)
def test_a_chain_of_conversions_returns_the_same_shards(source, sources, tmp_path):
    folder, row = locate(str(sources(source)), tmp_path, None if source.startswith("writer") else SET)
    encoded = source not in PIXELS
    chain = ("tfrecord", "webdataset", "zarr", "tfrecord") if encoded else ("numpy", "zarr", "numpy")
    results = []
    for step, name in enumerate(chain):
        folder = convert(folder, row, tmp_path / str(step), Options(formats=(name,), workers=1))[0].folder
        results.append(folder)
    described = {"manifest.json", "SHA256SUMS", "README.md", "croissant.json"}

    def shards(where):
        return {file: data for file, data in tree(where).items() if file not in described}

    assert shards(results[0]) == shards(results[-1])
    assert len({open_dataset(folder).fingerprint for folder in results}) == 1


def test_an_encoding_that_a_container_does_not_support_is_refused(sources, tmp_path):
    for name, encoding in (("numpy", "jpeg"), ("webdataset", "raw"), ("tfrecord", "raw")):
        with pytest.raises(OptionError, match=f"expected .* for {name}"):
            converted("zarr", sources, tmp_path, name, encoding)


# TFRecords as a target.


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # tfrecord does not close its files
def test_the_tfrecord_package_reads_the_shards(sources, tmp_path):
    folder = converted("zarr", sources, tmp_path, "tfrecord", "jpeg")
    for split, (first, count) in SPLITS.items():
        paths = sorted((folder / split).glob("*.tfrecord"))
        assert [path.name for path in paths] == [f"scenes-{number:05}.tfrecord" for number in range(len(paths))]
        records = [bytes(record) for path in paths for record in tfrecord_iterator(str(path))]
        assert len(records) == count
        for number, record in enumerate(records, first):
            feature = parse(record).features.feature
            assert list(feature["frames"].bytes_list.value) == list(made_scene(number).frames)
            numbers = np.array(feature["cameras"].float_list.value, np.float32)
            assert numbers.tobytes() == made_scene(number).cameras.tobytes()
    found = next(tfrecord_loader(str(paths[0]), None, {"cameras": "float"}))
    assert found["cameras"].tolist() == made_scene(1000).cameras.ravel().tolist()


def test_tfrecord_shards_are_not_mistaken_for_source_files(sources, tmp_path):
    folder = converted("zarr", sources, tmp_path, "tfrecord", "jpeg")
    assert not any(source_file_number(path.name) for path in folder.rglob("*.tfrecord"))
    with pytest.raises(SourceMissing, match="already a converted dataset"):
        open_raw_folder(folder, ROW)


def test_converted_tfrecords_are_verified_and_not_indexed_again(sources, tmp_path):
    folder = converted("source files, indexed", sources, tmp_path, "tfrecord", "jpeg")
    assert not read_manifest(folder).in_place
    assert read_manifest(sources("source files, indexed")).in_place
    before = tree(folder)
    path = next(folder.glob("train/*.tfrecord"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    faults = verify(folder, ROW, workers=1).faults
    assert any("SHA-256" in fault for fault in faults)
    assert all(path.name in fault for fault in faults)
    with pytest.raises(Exception, match="SHA-256"):
        convert(folder, ROW, tmp_path / "on", Options(workers=1))
    shutil.rmtree(folder)
    assert tree(converted("source files, indexed", sources, tmp_path, "tfrecord", "jpeg")) == before


def test_a_shard_can_hold_all_scenes_or_only_one(sources, tmp_path):
    for number, size in enumerate((10**9, 1)):
        folder = converted("webdataset", sources, tmp_path / str(number), "tfrecord", "jpeg", shard_bytes=size)
        assert len(read_manifest(folder).splits["train"].shards) == (7 if number else 1)
        assert open_dataset(folder).cameras.shape == (7, VIEWS, 5)
        out = np.empty((2, SIZE, SIZE, 3), np.uint8)
        open_dataset(folder).decode_into(6, [2, 0], out)
        assert np.array_equal(out, frames_of("zarr", 6)[[2, 0]])


# Fingerprints of version 0.2.0, which loader states and runs hold.
FINGERPRINTS = {
    "source files, indexed": "3b7f855bdd8ba848",
    "zarr": "3b7f855bdd8ba848",
    "zarr raw": "3b7f855bdd8ba848",
    "webdataset": "3b7f855bdd8ba848",
    "tfrecord": "3b7f855bdd8ba848",
    "numpy": "3b7f855bdd8ba848",
    "mirror": "b0db3f795d8300f1",
    "writer": "6198f858d1b2229b",
    "writer, arrays": "550b4dbd49e288e2",
}


@pytest.mark.parametrize("source", FINGERPRINTS)
def test_fingerprints_of_older_versions_stay(source, sources):
    if source == "mirror":
        folder = convert(sources(source), ROW, sources("zarr").parent / "mirrored", Options(formats=("zarr",)))[
            0
        ].folder
    else:
        folder = sources(source)
    assert open_dataset(folder).fingerprint == FINGERPRINTS[source]


def test_lossy_encodings_change_the_fingerprint(sources, tmp_path, faults):
    """Encode pixels with two qualities, decode and encode again; copy each to other containers."""
    found, copies, kept = {}, 0, 0
    for source in PIXELS:
        folder = sources(source)
        steps = {"pixels": ("zarr", "raw", None)}
        steps |= {"quality 3": ("zarr", "jpeg", 3), "quality 95": ("zarr", "jpeg", 95)}
        for step, (name, encoding, quality) in steps.items():
            options = Options(formats=(name,), frames=encoding, jpeg_quality=quality, workers=1)
            place, row = locate(str(folder), tmp_path, None)
            made = convert(place, row, tmp_path / source / step, options)[0].folder
            found[source, step] = open_dataset(made).fingerprint
            for container in ("numpy",) if encoding == "raw" else ("numpy", "webdataset"):
                options = Options(formats=(container,), workers=1)
                again = convert(made, row, tmp_path / source / step / "again", options)[0].folder
                copies += 1
                kept += open_dataset(again).fingerprint == found[source, step]
        again = convert(
            tmp_path / source / "quality 3" / "again" / "numpy" / row.name,
            row,
            tmp_path / source / "third",
            Options(formats=("zarr",), frames="jpeg", jpeg_quality=95, workers=1),
        )[0].folder
        found[source, "quality 3, then 95"] = open_dataset(again).fingerprint
        assert len({value for (name, _), value in found.items() if name == source}) == 4
        if "writer" not in source and "mirror" not in source:
            assert found[source, "pixels"] == FINGERPRINTS["zarr"]
    faults.record(
        "found in use: lossy encodings with the fingerprint of the original",
        holds="a lossy encoding changes the fingerprint, and a copy of it keeps it",
        tries=copies,
        survived=kept,
    )
