"""Publishing: cards and Croissant descriptions that other tools read, with reproducible bytes and checksums."""

import dataclasses
import hashlib
import io
import json
import re
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import cache

import mlcroissant
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from made_scenes import SET, SIZE, VIEWS, made_scene, make_raw_folder, tree
from mlcroissant._src.operation_graph.operations import extract
from PIL import Image
from zarr.registry import get_codec_class, register_codec

from gqn_data.convert import convert
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.plan import Options
from gqn_data.dataset import open_dataset
from gqn_data.errors import GQNError, UnknownName
from gqn_data.formats import FORMATS, WRITABLE
from gqn_data.formats.zarr_jpeg_codec import JpegCodec
from gqn_data.inspect.verify import verify
from gqn_data.io import atomic
from gqn_data.publish import croissant, dataset_card, descriptions
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.schema.manifest import FramesRow, SkippedRecord, read_manifest
from gqn_data.schema.origin import Origin
from gqn_data.sources.raw_folder import open_raw_folder

CASES = [(name, encoding) for name in WRITABLE for encoding in FORMATS[name].encodings]
EVERY = [*CASES, ("indexed", "jpeg")]
every_container = pytest.mark.parametrize(("name", "encoding"), EVERY)
written_container = pytest.mark.parametrize(("name", "encoding"), CASES)

# Warnings about the code of mlcroissant and rdflib, not ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:rdflib.*"),
    pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning"),  # mlcroissant unpacks tars
]
leaves_files_open = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

ORIGINS = {
    "deepmind": Origin(kind="deepmind", details={"bucket": "gs://gqn-dataset"}),
    "rendered": Origin(kind="rendered", details={"renderer": "gqn-toolkit", "version": 3, "seed": 11}),
    "imported": Origin(kind="imported"),
}
FOUR = ("README.md", "croissant.json", "SHA256SUMS", "manifest.json")  # in the order of writing
NO_DATE = 'Property "https://schema.org/datePublished" is recommended, but does not exist.'


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """Forbid network access, and have `mlcroissant` unpack into the folder of the test."""

    def refuse(*_):
        raise AssertionError("a test reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(extract, "EXTRACT_PATH", type(extract.EXTRACT_PATH)(tmp_path / "extracted"))


@pytest.fixture(scope="module", autouse=True)
def registered_codec():
    try:
        get_codec_class("imagecodecs_jpeg")
    except KeyError:
        register_codec("imagecodecs_jpeg", JpegCodec)


def converted(source, root, name, encoding, **options):
    options = Options(**{"formats": (name,), "frames": encoding, "workers": 1, "shard_bytes": 6000, **options})
    return convert(source, SCENE_SETS[SET], root, options)[0]


@pytest.fixture(scope="module")
def datasets(shared_raw, tmp_path_factory):
    """Return a function that makes a read-only dataset in any container, on first use."""
    root = tmp_path_factory.mktemp("publishing")

    @cache
    def get(name, encoding):
        if name == "indexed":
            folder = make_raw_folder(root / "indexed" / SET)
            index_raw_folder(open_raw_folder(folder, SCENE_SETS[SET]))
            return folder
        return converted(shared_raw, root / encoding, name, encoding).folder

    return get


@pytest.fixture
def own(datasets, tmp_path):
    """Return a function that copies a dataset, for tests that damage it."""
    return lambda name, encoding: shutil.copytree(datasets(name, encoding), tmp_path / "own" / SET)


def of_origin(folder, kind):
    return dataclasses.replace(read_manifest(folder), origin=ORIGINS[kind])


def loaded(described):
    """Load a description with `mlcroissant`; return the dataset and the warnings."""
    dataset = mlcroissant.Dataset(described)
    issues = dataset.metadata.ctx.issues
    assert issues.errors == set()
    return dataset, issues.warnings


def faults_of(folder):
    return verify(folder, SCENE_SETS[SET], workers=1).faults


# Croissant.


@every_container
@pytest.mark.parametrize("kind", ORIGINS)
def test_every_container_and_origin_gives_valid_croissant(name, encoding, kind, datasets):
    manifest = of_origin(datasets(name, encoding), kind)
    dataset, warnings = loaded(croissant(manifest))
    # The publication date of rendered or imported scenes is unknown.
    assert [warning.partition("] ")[2] for warning in warnings] == ([] if kind == "deepmind" else [NO_DATE])
    files = {file.id: (file.sha256, file.content_size) for file in dataset.metadata.file_objects}
    listed = {row.name: (row.sha256, f"{row.bytes} B") for row in manifest.all_files() if row.sha256}
    text = manifest.to_bytes()
    listed["manifest.json"] = (hashlib.sha256(text).hexdigest(), f"{len(text)} B")
    assert files == listed
    assert all(file.content_url == file.id for file in dataset.metadata.file_objects)


@written_container
def test_the_description_in_the_folder_is_valid(name, encoding, datasets):
    dataset, _ = loaded(datasets(name, encoding) / "croissant.json")
    assert dataset.metadata.cite_as.startswith("@article{eslami2018neural")
    assert "not DeepMind's" in dataset.metadata.description


@written_container
def test_shards_load_through_croissant_from_every_container(name, encoding, datasets):
    folder = datasets(name, encoding)
    dataset, _ = loaded(folder / "croissant.json")
    found = [[record[f"shards/{field}"] for field in ("split", "file", "scenes", "bytes", "sha256")]
             for record in dataset.records("shards")]  # fmt: skip
    assert found == [
        [split.encode(), row.name.encode(), shard.scenes, row.bytes, row.sha256.encode()]
        for split, split_row in read_manifest(folder).splits.items()
        for shard in split_row.shards
        for row in shard.files[:1]
    ]
    assert [(record["splits/name"], record["splits/scenes"]) for record in dataset.records("splits")] == [
        ("train", 7),
        ("test", 2),
    ]


@leaves_files_open  # by mlcroissant
def test_frames_and_cameras_load_through_croissant_from_tars(datasets):
    dataset, _ = loaded(datasets("webdataset", "jpeg") / "croissant.json")
    for split, first, count in (("train", 0, 7), ("test", 1000, 2)):
        frames, cameras = f"{split}-frames", f"{split}-cameras"
        found = {
            (record[f"{frames}/scene"], record[f"{frames}/view"]): np.asarray(record[f"{frames}/frame"])
            for record in dataset.records(frames)
        }
        assert set(found) == {(scene, view) for scene in range(count) for view in range(VIEWS)}
        for (scene, view), frame in found.items():
            expected = Image.open(io.BytesIO(made_scene(first + scene).frames[view]))
            assert np.array_equal(frame, np.asarray(expected))
        read = {
            record[f"{cameras}/scene"]: np.load(io.BytesIO(record[f"{cameras}/cameras"]))
            for record in dataset.records(cameras)
        }
        assert set(read) == set(range(count))
        assert all(np.array_equal(read[scene], made_scene(first + scene).cameras) for scene in read)


def test_the_reader_of_croissant_refuses_a_damaged_tar(own):
    folder = own("webdataset", "jpeg")
    path = folder / "train-000000.tar"
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    dataset, _ = loaded(folder / "croissant.json")
    with pytest.raises(Exception, match="sequential generation") as error:
        list(dataset.records("train-frames"))
    assert "is not identical" in str(error.value.__cause__)


@pytest.mark.parametrize(("name", "encoding"), [case for case in EVERY if case[0] != "webdataset"])
def test_arrays_are_described_by_shape_and_type(name, encoding, datasets):
    dataset, _ = loaded(croissant(of_origin(datasets(name, encoding), "rendered")))
    (records,) = (records for records in dataset.metadata.record_sets if records.id == "train")
    frames, cameras = records.fields
    assert (frames.data_type, frames.array_shape_tuple) == (np.uint8, (VIEWS, SIZE, SIZE, 3))
    assert (cameras.data_type, cameras.array_shape_tuple) == (np.float32, (VIEWS, 5))
    assert f"no reader for {name.replace('indexed', 'tfrecord')}" in records.description
    assert "x, y, z, yaw, pitch" in cameras.description
    folder = datasets(name, encoding)
    (files,) = (files for files in dataset.metadata.file_sets if files.id == "train-files")
    matched = {file for pattern in files.includes for file in tree(folder) if fnmatch(file, pattern)}
    first = 1 if name in ("tfrecord", "indexed") else 2  # files per shard with frames and cameras
    shards = read_manifest(folder).splits["train"].shards
    assert matched == {row.name for shard in shards for row in shard.files[:first]}


def test_thousands_of_shards_are_described_and_load(datasets):
    manifest = of_origin(datasets("webdataset", "jpeg"), "deepmind")
    train = manifest.splits["train"]
    files = [[dataclasses.replace(row, name=row.name.replace("000000", f"{number:06d}"))
              for row in train.shards[0].files] for number in range(1500)]  # fmt: skip
    shards = tuple(dataclasses.replace(train.shards[0], files=tuple(rows)) for rows in files)
    train = dataclasses.replace(train, shards=shards, scenes=sum(shard.scenes for shard in shards))
    manifest = dataclasses.replace(manifest, splits={"train": train})
    dataset, warnings = loaded(croissant(manifest))
    assert len(dataset.metadata.file_objects) == 3001
    assert warnings == set()
    assert len(dataset_card(manifest)) < 6000
    assert "train-{000000..001499}.tar" in dataset_card(manifest)


# The card.


def front_matter(card):
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


@every_container
@pytest.mark.parametrize("kind", ORIGINS)
def test_the_front_matter_has_the_fields_of_the_hub(name, encoding, kind, datasets):
    folder = datasets(name, encoding)
    front, body = front_matter(dataset_card(of_origin(folder, kind)))
    assert body.startswith(f"\n# {SET} (")
    assert front["size_categories"] == ["n<1K"]
    assert {"gqn", name.replace("indexed", "tfrecord")} <= set(front["tags"])
    assert SET in front["pretty_name"]
    assert front.get("license") == ("unknown" if kind == "deepmind" else None)
    if name == "webdataset":
        found = {
            entry["split"]: {path.name for path in folder.glob(entry["path"])}
            for entry in front["configs"][0]["data_files"]
        }
        shards = read_manifest(folder).splits
        assert found == {split: {shard.files[0].name for shard in row.shards} for split, row in shards.items()}
    else:
        assert front["viewer"] is False


@leaves_files_open  # by webdataset
@every_container
def test_the_python_of_the_card_reads_the_first_scene(name, encoding, datasets, monkeypatch):
    folder = datasets(name, encoding)
    card = dataset_card(read_manifest(folder))
    assert name == "indexed" or card == (folder / "README.md").read_text()
    monkeypatch.chdir(folder)
    stock, ours = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert "gqn" not in stock
    for lines in (stock, ours):
        names = {}
        exec(lines, names)
        frames, cameras = np.stack(names["frames"]), np.asarray(names["cameras"])
        assert (frames.dtype, cameras.dtype) == (np.uint8, np.float32)
        assert cameras.tobytes() == made_scene(0).cameras.tobytes()
        expected = [np.asarray(Image.open(io.BytesIO(frame))) for frame in made_scene(0).frames]
        assert abs(frames.astype(int) - np.stack(expected)).max() <= 4  # two JPEG decoders


def test_the_origin_is_stated_at_the_top_of_the_card(datasets):
    folder = datasets("zarr", "jpeg")
    heads = {kind: dataset_card(of_origin(folder, kind)).partition("\n> **")[2].split("**\n")[0] for kind in ORIGINS}
    assert heads["rendered"] == "Rendered by gqn-toolkit, version 3, seed 11. These are not DeepMind's scenes."
    assert heads["deepmind"].startswith("DeepMind's own scenes")
    assert heads["imported"].startswith("Imported: nothing here shows where these scenes come from")
    for kind, origin in ORIGINS.items():
        card = dataset_card(of_origin(folder, kind))
        assert json.dumps(origin.to_json(), indent=2) in card
        assert "\n## Licence of the data\n\n" in card


def test_the_card_shows_found_and_expected_counts(datasets):
    card = dataset_card(read_manifest(datasets("numpy", "raw")))
    (train,) = re.findall(r"^\| train \|.*$", card, re.MULTILINE)
    assert [cell.strip() for cell in train.split("|")[2:6]] == ["7", "810,000", "2", "900"]
    seven = dataclasses.replace(read_manifest(datasets("numpy", "raw")), scene_set="shepard_metzler_7_parts")
    assert "| about 810,000 |" in dataset_card(seven)  # the sources disagree about the number


def test_the_card_shows_the_limit_and_skipped_records(datasets):
    manifest = read_manifest(datasets("zarr", "raw"))
    train = manifest.splits["train"]
    skipped = tuple(SkippedRecord(record=n, offset=100 * n, reason="its checksum is | wrong") for n in range(30))
    sources = (dataclasses.replace(train.sources[0], skipped=skipped), *train.sources[1:])
    splits = {"train": dataclasses.replace(train, sources=sources)}
    card = dataset_card(dataclasses.replace(manifest, splits=splits, limit=7))
    assert "**Limited** to 7 scenes of each split" in card
    assert "30 corrupt records" in card
    assert "- train/001-of-900.tfrecord, record 3 at byte 300: its checksum is \\| wrong\n" in card
    assert "- and 10 more, in `manifest.json`\n" in card
    assert "Records left out" not in dataset_card(manifest)


def test_sets_outside_the_catalogue_are_described(datasets):
    manifest = of_origin(datasets("webdataset", "jpeg"), "imported")
    splits = {
        name: dataclasses.replace(row, expected_scenes=0, expected_files=0) for name, row in manifest.splits.items()
    }
    manifest = dataclasses.replace(manifest, scene_set="my_kitchen", splits=splits)
    assert "| train | 7 | not known | 2 | - |" in dataset_card(manifest)
    assert "\n> **Own scenes: neither DeepMind's nor rendered by this project.**\n" in dataset_card(manifest)
    dataset, _ = loaded(croissant(manifest))
    (licence,) = dataset.metadata.license
    assert licence.name == "not stated here"
    licensed = dataclasses.replace(manifest, origin=Origin(kind="imported", details={"licence": "CC0-1.0"}))
    assert "\n\nCC0-1.0, as stated by the authors of the dataset.\n" in dataset_card(licensed)
    (licence,) = loaded(croissant(licensed))[0].metadata.license
    assert licence.name == "CC0-1.0"


def test_sets_of_other_origins_are_not_attributed_to_deepmind(datasets):
    folder = datasets("zarr", "jpeg")
    for name in ("openai-block", "rooms-random-objects"):
        origin = Origin(kind="imported", details={"bucket": "gs://egqn-datasets"})
        manifest = dataclasses.replace(read_manifest(folder), scene_set=name, origin=origin)
        card = dataset_card(manifest)
        assert "\n> **The scenes of E-GQN (Tobin et al., 2019), from" in card
        assert "tobin2019geometry" in card
        assert "tobin2019geometry" in loaded(croissant(manifest))[0].metadata.cite_as
        elsewhere = dataclasses.replace(manifest, origin=Origin(kind="imported", details={"from": "https://host/x"}))
        head = "Imported from https://host/x: nothing here shows that they are DeepMind's."
        assert f"\n> **{head}**\n" in dataset_card(elsewhere)
    assert "tobin2019geometry" not in dataset_card(read_manifest(folder))


def test_each_description_is_an_independent_object(datasets):
    manifest = read_manifest(datasets("numpy", "raw"))
    before = json.dumps(croissant(manifest))
    given = croissant(manifest)
    mlcroissant.Dataset(given)
    given["@context"]["data"]["@type"] = "else"
    assert json.dumps(croissant(manifest)) == before


def test_an_unknown_container_is_refused(datasets):
    manifest = dataclasses.replace(read_manifest(datasets("zarr", "jpeg")), format="parquet")
    for describe in (dataset_card, croissant):
        with pytest.raises(UnknownName, match="parquet"):
            describe(manifest)


MARKUP = ("a\n# b", "a\n---\nb", "a\n```\nb", "```", "\n> a", "a | b", "<b>", "[a](b)", "**", "a\u2028# b", "a\r# b")


@given(
    text=st.text() | st.sampled_from(MARKUP),
    details=st.recursive(st.text() | st.integers(), lambda inner: st.dictionaries(st.text(), inner)),
)
@settings(max_examples=200)
def test_text_of_a_manifest_never_becomes_markup(text, details, datasets):
    manifest = read_manifest(datasets("numpy", "raw"))
    plain = dataset_card(manifest)
    frames = FramesRow(encoding="raw", views=VIEWS, height=SIZE, width=SIZE, decoder=text or None)
    train = manifest.splits["train"]
    row = SkippedRecord(record=1, offset=2, reason=text)
    sources = (dataclasses.replace(train.sources[0], skipped=(row,)),)
    splits = {**manifest.splits, "train": dataclasses.replace(train, sources=sources)}
    origin = Origin(kind="rendered", details={"renderer": text, "seed": text, "more": details})
    card = dataset_card(dataclasses.replace(manifest, frames=frames, splits=splits, origin=origin))

    def skeleton(card):
        """Return headings, fences, quotes and rules, which text from the manifest must not change."""
        lines = re.split(r"\r\n|\r|\n", card)  # line breaks of Markdown
        return [line for line in lines if re.match(r"#|```|---|>|\|", line) and line != "## Records left out"]

    assert front_matter(card)[0] == front_matter(plain)[0]
    found, expected = skeleton(card), skeleton(plain)
    assert [line for line in found if line[0] not in ">|"] == [line for line in expected if line[0] not in ">|"]
    assert len(found) == len(expected)
    assert not re.search(r"(?<!\\)(<b>|\[a\])", card.partition("## Origin")[0])


# The four files.


@written_container
def test_descriptions_depend_only_on_the_manifest(name, encoding, datasets, shared_raw, tmp_path):
    folder = datasets(name, encoding)
    again = converted(shared_raw, tmp_path, name, encoding, workers=2).folder
    files = descriptions(read_manifest(folder))
    assert list(files) == list(FOUR[:2])
    for file, data in files.items():
        assert data == (folder / file).read_bytes() == (again / file).read_bytes()
        for word in (str(folder), str(shared_raw), socket.gethostname()):
            assert word.encode() not in data


def test_indexed_source_files_are_not_described(datasets):
    folder = datasets("indexed", "jpeg")
    assert not (folder / "README.md").exists()
    assert not (folder / "croissant.json").exists()
    assert faults_of(folder) == ()


def test_the_manifest_is_written_last_and_the_checksums_before_it(shared_raw, tmp_path, monkeypatch):
    written, writing = [], atomic.writing

    def recording(path):
        written.append(path.name)
        return writing(path)

    monkeypatch.setattr(atomic, "writing", recording)
    converted(shared_raw, tmp_path, "numpy", "raw")
    assert tuple(written[-4:]) == FOUR


@pytest.mark.parametrize("last", FOUR)
def test_a_run_interrupted_at_any_of_the_four_can_be_rerun(last, datasets, shared_raw, tmp_path):
    writing = atomic.writing

    @contextmanager
    def interrupted(path):
        with writing(path) as file:
            if path.name == last:
                raise KeyboardInterrupt
            yield file

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic, "writing", interrupted)
        with pytest.raises(KeyboardInterrupt):
            converted(shared_raw, tmp_path, "zarr", "jpeg")
    folder = tmp_path / "zarr" / SET
    assert [(folder / name).exists() for name in FOUR] == [number < FOUR.index(last) for number in range(4)]
    result = converted(shared_raw, tmp_path, "zarr", "jpeg")
    assert result.written == 0
    assert tree(result.folder) == tree(datasets("zarr", "jpeg"))


@pytest.mark.parametrize("file", FOUR)
def test_a_flipped_bit_in_any_of_the_four_is_reported(file, own):
    folder = own("webdataset", "jpeg")
    path = folder / file
    good = path.read_bytes()
    for at in [*range(0, len(good), max(1, len(good) // 60)), len(good) - 1]:
        bad = bytearray(good)
        bad[at] ^= 1 << at % 8
        path.write_bytes(bad)
        try:
            said = "\n".join(faults_of(folder))
        except GQNError as error:
            assert file == "manifest.json"
            said = str(error)
        assert str(path) in said
    path.write_bytes(good)
    assert faults_of(folder) == ()


@pytest.mark.parametrize("file", FOUR[:2])
@pytest.mark.parametrize("change", ["remove", "cut", "replace"])
def test_a_changed_description_is_reported_once(file, change, own):
    folder = own("zarr", "raw")
    path = folder / file
    if change == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] if change == "cut" else b"<html>")
    (fault,) = faults_of(folder)
    assert fault.startswith(f"{path}: ")
    assert "SHA256SUMS" in fault


def test_a_changed_card_is_valid_with_its_new_checksum(own):
    folder = own("numpy", "raw")
    card = folder / "README.md"
    card.write_text(card.read_text().replace("---\npretty", "---\nlicense: cc0-1.0\npretty", 1))
    assert len(faults_of(folder)) == 1
    sums = folder / "SHA256SUMS"
    line = f"{hashlib.sha256(card.read_bytes()).hexdigest()}  README.md"
    sums.write_text(re.sub(r"^\w{64}  README\.md$", line, sums.read_text(), flags=re.MULTILINE))
    assert faults_of(folder) == ()
    assert open_dataset(folder)[6].cameras.tobytes() == made_scene(6).cameras.tobytes()


def test_a_removed_description_is_restored_without_new_shards(datasets, shared_raw, tmp_path):
    folder = converted(shared_raw, tmp_path, "zarr", "jpeg").folder
    (folder / "croissant.json").unlink()
    result = converted(shared_raw, tmp_path, "zarr", "jpeg")
    assert result.written == 0
    assert tree(result.folder) == tree(datasets("zarr", "jpeg"))


def test_datasets_of_the_previous_version_get_a_card(datasets, shared_raw, tmp_path):
    folder = converted(shared_raw, tmp_path, "webdataset", "jpeg").folder
    for name in FOUR[:2]:
        (folder / name).unlink()
    read_manifest(folder).write(folder)  # as the previous version wrote it: only checksums and manifest
    assert faults_of(folder) == ()
    assert len(open_dataset(folder)) == 7
    result = converted(shared_raw, tmp_path, "webdataset", "jpeg")
    assert (result.written, faults_of(folder)) == (0, ())
    assert tree(folder) == tree(datasets("webdataset", "jpeg"))


def test_a_readme_without_a_checksum_is_ignored(datasets, tmp_path):
    folder = shutil.copytree(datasets("indexed", "jpeg"), tmp_path / SET)
    (folder / "README.md").write_text("my notes\n")
    assert faults_of(folder) == ()


def test_converting_does_not_import_the_test_dependencies():
    lines = "import sys, gqn_data.convert.run; print({'mlcroissant', 'pandas', 'yaml'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", lines], check=True, capture_output=True, text=True).stdout == "set()\n"
