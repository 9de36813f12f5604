"""The catalogue against the known facts of the sets, and names of source files."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_scenes import SET, make_raw_folder, tree

from gqn_data.errors import GQNError, OptionError, SourceMissing, UnknownSceneSet
from gqn_data.schema.catalog import SCENE_SETS, find_scene_set, is_in_catalogue, is_set_name, source_file_number
from gqn_data.sources.raw_folder import locate, open_raw_folder, resolve_scene_set

# name: files, frame, views, scenes (train, test), raw size in GiB; from the project's facts about the data
FACTS = {
    "jaco": ((3600, 400), 64, 11, (7_200_000, 800_000), 199),
    "mazes": ((1080, 120), 84, 300, (108_000, 12_000), 136),
    "rooms_free_camera_no_object_rotations": ((2160, 240), 64, 10, (10_800_000, 1_200_000), 256),
    "rooms_free_camera_with_object_rotations": ((2034, 226), 128, 10, (10_170_000, 1_130_000), 599),
    "rooms_ring_camera": ((2160, 240), 64, 10, (10_800_000, 1_200_000), 251),
    "shepard_metzler_5_parts": ((900, 100), 64, 15, (810_000, 200_000), 21),
    "shepard_metzler_7_parts": ((900, 100), 64, 15, (810_000, 200_000), 24),
}


# name: first and last train file, first and last test file, files in the names, camera numbers; from the public
# reader of E-GQN (josh-tobin/egqn-datasets, data_reader.py)
EGQN_FACTS = {
    "openai-block": ((1, 2000), (2001, 2500), 2500, 9),
    "disco-humanoid": ((1, 2000), (2001, 2500), 2500, 9),
    "rooms-random-objects": ((2, 1600), (1601, 1943), 1943, 5),
}


def test_the_catalogue_agrees_with_the_known_facts():
    assert list(SCENE_SETS) == [*FACTS, *EGQN_FACTS]  # DeepMind's sets come first
    for name, (files, frame, views, scenes, size) in FACTS.items():
        row = SCENE_SETS[name]
        assert row.name == name
        assert (row.train.files, row.test.files) == files
        assert (row.frame_size, row.views) == (frame, views)
        assert (row.train.scenes, row.test.scenes) == scenes
        assert row.raw_bytes == size << 30
        assert row.camera_fields == ("x", "y", "z", "yaw", "pitch")
        assert 1 <= row.context_views < row.views


@pytest.mark.parametrize("name", EGQN_FACTS)
def test_the_egqn_sets_agree_with_their_reader(name):
    row = SCENE_SETS[name]
    train, test, of, numbers = EGQN_FACTS[name]
    assert (row.frame_size, row.views, row.context_views, len(row.camera_fields)) == (128, 4, 3, numbers)
    for split, (first, last) in (("train", train), ("test", test)):
        facts = row.split(split)
        assert [facts.numbers[0], facts.numbers[-1]] == [first, last]
        assert facts.files == last - first + 1
        assert row.source_name(split, last) == f"{last:04}-of-{of}.tfrecord"  # all in one folder
        assert facts.scenes_in_file(first) == 0  # unknown
        for outside in (first - 1, last + 1):
            with pytest.raises(OptionError, match=f"files {first} to {last}"):
                facts.file_name(outside)
    assert not row.settled
    assert row.bucket_url == "https://storage.googleapis.com/egqn-datasets"
    assert row.angles == ("radians" if numbers == 5 else "undocumented")


def test_unsettled_facts_are_marked():
    assert {name for name, row in SCENE_SETS.items() if not row.settled} == set(EGQN_FACTS)
    unsettled = {
        (name, split) for name in FACTS for split in ("train", "test") if not SCENE_SETS[name].split(split).settled
    }
    assert unsettled == {("rooms_free_camera_with_object_rotations", "test"), ("shepard_metzler_7_parts", "train")}


@pytest.mark.parametrize("row", SCENE_SETS.values(), ids=SCENE_SETS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_scenes_of_all_files_sum_to_the_split(row, split):
    facts = row.split(split)
    assert sum(facts.scenes_in_file(number) for number in facts.numbers) == facts.scenes
    for outside in (facts.first - 1, -1, facts.first + facts.files):
        with pytest.raises(OptionError, match="out of range"):
            facts.file_name(outside)
    with pytest.raises(OptionError, match="out of range"):
        facts.scenes_in_file(facts.first + facts.files)


@pytest.mark.parametrize("name", ["shepard_metzler_5_parts", "shepard_metzler_7_parts"])
def test_the_first_500_shepard_metzler_training_files_are_small(name):
    train = SCENE_SETS[name].train
    assert [train.scenes_in_file(number) for number in (1, 500, 501, 900)] == [20, 20, 2000, 2000]
    assert SCENE_SETS[name].test.scenes_in_file(1) == 2000


@pytest.mark.parametrize(
    ("name", "split", "number", "expected"),
    [
        ("rooms_ring_camera", "train", 1, "0001-of-2160.tfrecord"),
        ("rooms_ring_camera", "train", 2160, "2160-of-2160.tfrecord"),
        ("rooms_ring_camera", "test", 1, "001-of-240.tfrecord"),
        ("mazes", "test", 7, "007-of-120.tfrecord"),
        ("shepard_metzler_5_parts", "train", 12, "012-of-900.tfrecord"),
        ("jaco", "train", 3600, "3600-of-3600.tfrecord"),
    ],
)
def test_source_files_have_deepminds_names(name, split, number, expected):
    assert SCENE_SETS[name].split(split).file_name(number) == expected
    assert source_file_number(expected) == number


def test_every_name_and_alias_finds_one_set():
    names = list(chain.from_iterable((row.name, *row.aliases) for row in SCENE_SETS.values()))
    assert len(names) == len(set(names))
    for row in SCENE_SETS.values():
        for name in (row.name, *row.aliases):
            for spelling in (name, name.upper(), name.replace("_", "-"), f" {name} "):
                assert find_scene_set(spelling) is row


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        ("room_ring_camera", "rooms_ring_camera"),
        ("shepard_metzler_6_parts", "shepard_metzler_"),
        ("maez", "maze"),
        ("JACOO", "jaco"),
    ],
)
def test_an_unknown_set_suggests_the_nearest_name(typed, nearest):
    with pytest.raises(UnknownSceneSet, match=f"did you mean '{nearest}"):
        find_scene_set(typed)


@pytest.mark.parametrize("name", [*SCENE_SETS, "mine", "my_scenes", "7-rooms", "a" * 64])
def test_plain_names_are_valid_set_names(name):
    assert is_set_name(name)
    assert is_in_catalogue(name) == (name in SCENE_SETS)


@pytest.mark.parametrize(
    "name", ["", "a" * 65, "Mine", "my scenes", "../mine", "a/b", "-mine", ".mine", "mine\n", "mïne"]
)
def test_other_names_are_invalid_set_names(name):
    assert not is_set_name(name)


@given(st.text())
def test_any_text_is_a_set_or_raises_unknown_scene_set(name):
    try:
        row = find_scene_set(name)
    except UnknownSceneSet as error:
        message = str(error)
    else:
        assert row in SCENE_SETS.values()
        return
    assert "\n" not in message


NO_SOURCE_FILES = [
    ".DS_Store",
    "._0001-of-2160.tfrecord",
    "0001-of-2160.tfrecord.gstmp",
    "0001-of-2160.tfrecord_.gstmp",
    "0001-of-2160.tfrecord.part",
    "0001-of-2160.tfrecord.partial",
    "0001-of-2160.tfrecord (1)",
    "0001-of-2160.tfrecord\n",
    "0001-of-2160.tfrecord.gz",
    "copy of 0001-of-2160.tfrecord",
    "0000-of-2160.tfrecord",
    "2161-of-2160.tfrecord",
    "1-of-2160.tfrecord",
    "00001-of-2160.tfrecord",
    "-001-of-2160.tfrecord",
    "0001-of-2160.index.npy",
    "0001-of-2160.TFRECORD",
    "0001_of_2160.tfrecord",
    "0001-of-2160-tfrecord",
]


@pytest.mark.parametrize("name", NO_SOURCE_FILES)
def test_files_of_other_names_are_not_source_files(name):
    assert source_file_number(name) is None


def test_foreign_files_in_a_raw_folder_are_ignored(raw, scene_set):
    names = [name.replace("2160", "900").replace("0001", "001") for name in NO_SOURCE_FILES]
    for name in names:
        (raw / "train" / name).write_bytes(b"foreign")
    (raw / "notes").mkdir()
    before = tree(raw)
    found = open_raw_folder(raw, scene_set)
    assert [file.name for file in found.files["train"]] == ["train/001-of-900.tfrecord", "train/002-of-900.tfrecord"]
    assert [file.name for file in found.files["test"]] == ["test/001-of-100.tfrecord"]
    assert tree(raw) == before


def test_source_files_are_ordered_and_may_have_gaps(tmp_path, scene_set):
    folder = make_raw_folder(tmp_path / SET, train=(1, 1, 1), numbers=(2, 10, 501))
    files = open_raw_folder(folder, scene_set).files["train"]
    assert [file.name[6:9] for file in files] == ["002", "010", "501"]
    assert [file.expected_scenes for file in files] == [20, 20, 2000]
    assert [file.bytes for file in files] == [file.path.stat().st_size for file in files]


def test_a_folder_without_source_files_is_refused(tmp_path, scene_set):
    with pytest.raises(SourceMissing, match="no such folder"):
        open_raw_folder(tmp_path / "nowhere", scene_set)
    with pytest.raises(SourceMissing, match=r"no source files; expected files named like train/001-of-900\.tfrecord"):
        open_raw_folder(tmp_path, scene_set)


def test_a_folder_of_another_set_is_refused(shared_raw):
    with pytest.raises(SourceMissing, match=r"mazes .*TFRecords \(3, first test/001-of-100.*--set"):
        open_raw_folder(shared_raw, SCENE_SETS["mazes"])


def test_a_split_folder_suggests_its_parent(shared_raw, scene_set):
    with pytest.raises(SourceMissing, match=f": {shared_raw}$"):
        open_raw_folder(shared_raw / "train", scene_set)


def test_the_set_comes_from_the_folder_name_or_the_option(tmp_path):
    (tmp_path / "sm5").mkdir()
    (tmp_path / "mine").mkdir()
    assert resolve_scene_set(tmp_path / "sm5", None) is SCENE_SETS["shepard_metzler_5_parts"]
    assert resolve_scene_set(tmp_path / "mine", "rrc") is SCENE_SETS["rooms_ring_camera"]
    with pytest.raises(GQNError, match=r"'mine'.*--set"):
        resolve_scene_set(tmp_path / "mine", None)


def test_a_set_name_stands_for_its_raw_folder(tmp_path):
    assert locate("sm5", tmp_path, None) == (tmp_path / "raw" / SET, SCENE_SETS[SET])
    with pytest.raises(UnknownSceneSet, match="did you mean 'sm5'"):
        locate("sm55", tmp_path, None)
    with pytest.raises(SourceMissing, match="no such file or folder"):
        locate(f"{tmp_path}/nowhere/mazes", tmp_path, None)
