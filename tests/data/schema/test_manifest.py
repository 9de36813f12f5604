"""Manifests: every value is validated, and an invalid one raises only `ManifestError`."""

import copy
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_scenes import SET, make_raw_folder, tree

from gqn_data.convert import convert
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.plan import Options
from gqn_data.dataset import open_dataset
from gqn_data.errors import GQNError, ManifestError
from gqn_data.formats import WRITABLE
from gqn_data.publish import descriptions
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.schema.geometry import geometry_of
from gqn_data.schema.manifest import read_manifest
from gqn_data.schema.origin import Origin
from gqn_data.sources.raw_folder import open_raw_folder


@pytest.fixture(scope="module")
def folders(shared_raw, tmp_path_factory):
    root = tmp_path_factory.mktemp("manifests")
    options = Options(formats=WRITABLE, shard_bytes=9000, workers=1)
    return {result.manifest.format: result.folder for result in convert(shared_raw, SCENE_SETS[SET], root, options)}


@pytest.fixture(scope="module")
def zarr(folders):
    return folders["zarr"]


@pytest.fixture
def good(zarr):
    return json.loads((zarr / "manifest.json").read_text())


def paths(value, path=()):
    """Yield the path of every value in a JSON document."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from paths(inner, (*path, number))


def at(document, path):
    for step in path:
        document = document[step]
    return document


def changed(document, path, value):
    document = copy.deepcopy(document)
    if not path:
        return value
    at(document, path[:-1])[path[-1]] = value
    return document


def without(document, path):
    document = copy.deepcopy(document)
    del at(document, path[:-1])[path[-1]]
    return document


def read(folder, document):
    (folder / "manifest.json").write_text(json.dumps(document))
    return read_manifest(folder)


def test_a_manifest_survives_a_round_trip(zarr, good, tmp_path):
    manifest = read_manifest(zarr)
    assert json.loads(json.dumps(manifest.to_json())) == good
    manifest.write(tmp_path, descriptions(manifest))
    names = ("README.md", "SHA256SUMS", "croissant.json", "manifest.json")
    assert tree(tmp_path) == {name: (zarr / name).read_bytes() for name in names}
    assert next(iter(good)) == "schema"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(
    [
        "/etc/passwd",
        "../../x",
        "train/../../x",
        "a\\..\\b",
        "",
        ".",
        "..",
        "x\0y",
        "a\nb",
        "./a",
        "a//b",
        "a/",
        "\ud800",
    ]
)
COUNTS = st.sampled_from([-1, 0, 1, 2, 3, 7, 10**18, 10**30, 1.0, True, "3", None])


@given(data=st.data())
@settings(max_examples=400)
def test_any_change_is_refused_or_harmless(data, good, zarr, tmp_path):
    path = data.draw(st.sampled_from(sorted(paths(good), key=repr)))
    document = changed(good, path, data.draw(st.one_of(JSON, NAMES, COUNTS)))
    try:
        manifest = read(tmp_path, document)
    except ManifestError as error:
        said = str(error)
    else:
        assert json.loads(json.dumps(manifest.to_json())).keys() == good.keys()
        for split in manifest.splits:
            manifest.fingerprint(split)
        for row in manifest.all_files():
            assert (tmp_path / row.name).resolve().is_relative_to(tmp_path.resolve())
        return
    assert str(tmp_path) in said
    assert "manifest.json" in said


@given(data=st.data())
@settings(max_examples=60)
def test_a_missing_key_is_refused(data, good, tmp_path):
    optional = {"decoder", "jpeg_quality", "reencoded"}  # have defaults; any detail of the origin may be missing
    keys = [path for path in paths(good) if path and isinstance(path[-1], str) and path[-1] not in optional]
    keys = [path for path in keys if path[0] != "origin" and path not in (("splits", "train"), ("splits", "test"))]
    path = data.draw(st.sampled_from(sorted(keys, key=repr)))
    with pytest.raises(ManifestError):
        read(tmp_path, without(good, path))


FILE = ("splits", "train", "shards", 0, "files", 0)
WRONG = {
    ("schema",): [3, 0, None, "1", True, 1.5, [1]],
    ("scene_set",): ["Rooms", "", None, 3, ["mazes"], {"a": 1}, "my rooms", "../rooms", "a/b", "-", "r" * 65],
    ("format",): [None, 3, []],
    ("tool",): [None, 3],
    ("limit",): [-1, 1.5, "2", True],
    ("frames",): [None, [], {}, {"encoding": "jpeg"}],
    ("frames", "encoding"): ["png", None, ["jpeg"]],
    ("frames", "views"): [0, -3, 70000, "3", 3.0, True, None],
    ("frames", "height"): [0, -16, 70000, "16"],
    ("frames", "jpeg_quality"): [0, 101, "90"],
    ("frames", "reencoded"): [[0], [101], ["90"], 3, None, [[1]], [50] * 101],
    ("cameras", "fields"): [[], ["\ud800"], [1, 2], None, 5, [["x"]]],
    ("cameras", "dtype"): ["float64", None],
    ("cameras", "angles"): ["degrees", None],
    ("origin", "details"): [3, None, {"\ud800": 1}, {"seed": "\ud800"}],
    ("origin",): [None, {}, {"kind": "stolen"}, {"kind": "rendered", "details": 3}],
    ("geometry",): [3, [], {}, {"field_of_view": 50}],
    ("geometry", "field_of_view"): [0, 180, "50", None, True],
    ("geometry", "yaw_sign"): [0, 2, "1", None],
    ("geometry", "depth_range"): [[1], [2, 1], [0, 1], None, ["1", "2"], [1, 2, 3]],
    ("splits",): [{}, None, [], {"validation": {}}],
    ("splits", "train", "scenes"): [8, 0, -7, "7", None],
    ("splits", "train", "scenes_per_shard"): [1, -1, "2", None],
    ("splits", "train", "expected_scenes"): [-1, "many"],
    ("splits", "train", "shards"): [[], None, [{}]],
    ("splits", "train", "shards", 0, "scenes"): [0, -1, 3000, "2", None],
    ("splits", "train", "shards", 0, "files"): [[], None, [None]],
    (*FILE, "name"): ["/etc/passwd", "../x", "train/../../x", "a\\b", "", ".", "..", "a\0b", "a\nb", 3, None, ["x"]],
    (*FILE, "bytes"): [-1, "9", 1.5, None, True, 1 << 70],
    (*FILE, "sha256"): ["", "0" * 63, "G" * 64, "A" * 64, 0, ["0"]],
    ("splits", "train", "files", 0, "name"): ["/zarr.json", "../zarr.json"],
    ("splits", "train", "sources", 0, "name"): ["/etc/passwd", "../x", 5],
    ("splits", "train", "sources", 0, "scenes"): [-1, "4", None],
    ("splits", "train", "sources", 0, "skipped"): [None, [{}], [{"record": -1, "offset": 0, "reason": "x"}]],
}


@pytest.mark.parametrize(
    ("path", "value"), [(path, value) for path, values in WRONG.items() for value in values], ids=repr
)
def test_invalid_values_are_refused(path, value, good, tmp_path):
    with pytest.raises(ManifestError, match=re.escape(str(tmp_path))) as caught:
        read(tmp_path, changed(good, path, value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "3", '"manifest"', "\xff", "[" * 100_000, "{}", "1" * 5000])
def test_other_files_are_refused(text, tmp_path):
    (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(ManifestError, match=r"manifest\.json"):
        read_manifest(tmp_path)


def test_another_schema_version_is_reported(good, tmp_path):
    with pytest.raises(ManifestError, match=r"schema 7, expected 2.*gqn-toolkit"):
        read(tmp_path, changed(good, ("schema",), 7))


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(ManifestError, match=f"{tmp_path}: manifest.json"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("name", WRITABLE)
@given(data=st.data())
@settings(max_examples=60)
def test_a_wrong_manifest_raises_and_reads_only_the_dataset(name, data, folders, tmp_path_factory):
    # A valid manifest may still not match the files. Files outside the dataset must never be read.
    good = json.loads((folders[name] / "manifest.json").read_text())
    path = data.draw(st.sampled_from(sorted((path for path in paths(good) if path), key=repr)))
    document = changed(good, path, data.draw(st.one_of(COUNTS, NAMES, st.integers(0, 20), JSON)))
    folder = tmp_path_factory.mktemp("wrong")
    for entry in folders[name].iterdir():
        (folder / entry.name).symlink_to(entry)
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_text(json.dumps(document))
    try:
        scenes = open_dataset(folder)
        for scene in scenes:
            _ = scene.frames
        _ = scenes.cameras
    except GQNError as error:
        said = str(error)
    else:
        return
    assert said


@pytest.mark.parametrize("change", ["one too few", "one too many", "swapped", "another shard's"])
@pytest.mark.parametrize("name", [*WRITABLE, "indexed"])
def test_shards_with_unexpected_files_are_refused(name, change, folders, raw):
    if name == "indexed":
        index_raw_folder(open_raw_folder(raw, SCENE_SETS[SET]))
    folder = raw if name == "indexed" else folders[name]
    text = (folder / "manifest.json").read_text()
    document = json.loads(text)
    shards = document["splits"]["train"]["shards"]
    files = shards[0]["files"]
    shards[0]["files"] = {
        "one too few": files[:1],
        "one too many": [*files, files[0]],
        "swapped": files[::-1],
        "another shard's": [*shards, *document["splits"]["test"]["shards"]][1]["files"][:1] + files[1:],
    }[change]
    (folder / "manifest.json").write_text(json.dumps(document))
    try:
        scenes = open_dataset(folder)
        with pytest.raises(GQNError):
            _ = scenes[0].frames
    finally:
        (folder / "manifest.json").write_text(text)


def test_the_fingerprint_differs_between_sets_of_scenes(tmp_path):
    prints = set()
    for number, (train, origin) in enumerate([((4, 3), True), ((7,), True), ((4, 2), True), ((4, 3), False)]):
        size = {"views": 15, "size": 64} if not origin else {}
        raw = make_raw_folder(tmp_path / str(number) / SET, train=train, origin=origin, **size)
        folder = convert(raw, SCENE_SETS[SET], tmp_path / f"out{number}", Options(workers=1))[0].folder
        prints |= {open_dataset(folder, "train").fingerprint, open_dataset(folder, "test").fingerprint}
    # The first three share one test split.
    assert len(prints) == 4 + 2


def test_a_manifest_of_schema_1_has_the_geometry_of_set_and_origin(good, tmp_path):
    old = without(changed(good, ("schema",), 1), ("geometry",))
    assert read(tmp_path, old).geometry == geometry_of(good["scene_set"], Origin(kind="deepmind"))
    rendered = {"kind": "rendered", "details": {"version": 2}}
    old["scene_set"], old["origin"] = "shepard_metzler_5_parts", rendered
    assert read(tmp_path, old).geometry.yaw_sign == 1
    old["origin"]["details"]["version"] = 3
    assert read(tmp_path, old).geometry.yaw_sign == -1


def test_the_geometry_is_not_part_of_the_fingerprint(good, tmp_path):
    with_geometry, without_geometry = read(tmp_path, good), read(tmp_path, changed(good, ("geometry",), None))
    assert without_geometry.geometry is None
    assert with_geometry.fingerprint("train") == without_geometry.fingerprint("train")
