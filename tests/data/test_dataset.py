"""Datasets opened for reading: scenes by index and all cameras, for any container, without torch."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from loader_fixtures import CONTAINERS, SET, SIZE, VIEWS, Raw, convert_to, index, make_all, write_raw
from numpy.typing import NDArray

import gqn_data
from gqn_data.dataset import Dataset
from gqn_data.errors import ManifestError, OptionError, ShardChecksumError, SourceMissing, UnknownName

TRAIN = 21  # scenes of `write_raw`: three source files of 6, 4 and 11


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Raw, dict[str, Path]]:
    root = tmp_path_factory.mktemp("scenes")
    raw = write_raw(root / "raw" / SET)
    return raw, make_all(raw.folder, root)


@pytest.fixture(scope="module")
def raw(made: tuple[Raw, dict[str, Path]]) -> Raw:
    return made[0]


@pytest.fixture(params=CONTAINERS)
def folder(made: tuple[Raw, dict[str, Path]], request: pytest.FixtureRequest) -> Path:
    return made[1][request.param]


@pytest.fixture
def zarr(made: tuple[Raw, dict[str, Path]]) -> Path:
    return made[1]["zarr"]


def _first_frames(dataset: Dataset) -> list[NDArray[np.uint8]]:
    return [scene.frame(0) for scene in dataset]


def test_every_scene_can_be_read_by_index(raw: Raw, folder: Path) -> None:
    scenes = gqn_data.open(folder)
    assert len(scenes) == TRAIN
    for number in range(TRAIN):
        scene = scenes[number]
        assert len(scene) == VIEWS
        assert scene.frames.shape == (VIEWS, SIZE, SIZE, 3)
        assert scene.frames.dtype == np.uint8
        np.testing.assert_array_equal(scene.cameras, raw.train.cameras[number])
        for view in range(VIEWS):
            expected = raw.train.frame(number, view)
            np.testing.assert_array_equal(scene.frame(view), expected)
            np.testing.assert_array_equal(scene.frames[view], expected)


def test_a_path_may_be_a_string(folder: Path) -> None:
    assert len(gqn_data.open(str(folder))) == TRAIN


def test_cameras_of_all_shards_are_concatenated_in_order(raw: Raw, folder: Path) -> None:
    scenes = gqn_data.open(folder)
    assert len(scenes.manifest.splits["train"].shards) > 1
    assert scenes.cameras.shape == (TRAIN, VIEWS, 5)
    assert scenes.cameras.dtype == np.float32
    np.testing.assert_array_equal(scenes.cameras, np.stack(raw.train.cameras))
    for number in (0, 5, 6, 20, -1):
        np.testing.assert_array_equal(scenes.cameras_of(number), raw.train.cameras[number])


def test_cameras_of_one_shard_are_returned(raw: Raw, folder: Path) -> None:
    scenes = gqn_data.open(folder, "test")
    assert len(scenes.manifest.splits["test"].shards) == 1
    np.testing.assert_array_equal(scenes.cameras, np.stack(raw.test.cameras))


def test_negative_indices_count_from_the_end(raw: Raw, folder: Path) -> None:
    scenes = gqn_data.open(folder)
    for number in (-1, -TRAIN, -7):
        np.testing.assert_array_equal(scenes[number].frame(1), raw.train.frame(TRAIN + number, 1))


@pytest.mark.parametrize("number", [TRAIN, TRAIN + 100, -TRAIN - 1, 2**40])
def test_an_index_out_of_range_raises_index_error(zarr: Path, number: int) -> None:
    scenes = gqn_data.open(zarr)
    with pytest.raises(IndexError, match=f"{number} .* of {TRAIN} scenes"):
        scenes[number]
    with pytest.raises(IndexError):
        scenes.cameras_of(number)


def test_numpy_integers_are_valid_indices(raw: Raw, folder: Path) -> None:
    scenes = gqn_data.open(folder)
    for number in np.array([3, -2, 20]):
        np.testing.assert_array_equal(scenes[number].cameras, raw.train.cameras[number])


def test_iteration_yields_every_scene_once_in_order(raw: Raw, folder: Path) -> None:
    cameras = [scene.cameras for scene in gqn_data.open(folder)]
    np.testing.assert_array_equal(cameras, raw.train.cameras)
    backwards = [scene.cameras for scene in reversed(gqn_data.open(folder))]
    np.testing.assert_array_equal(backwards, raw.train.cameras[::-1])


def test_views_are_decoded_in_the_requested_order(raw: Raw, folder: Path) -> None:
    scenes = gqn_data.open(folder)
    for number, views in ((0, [4, 0, 2]), (9, [1]), (20, [3, 4, 0, 1, 2]), (-1, [])):
        out = np.full((len(views), SIZE, SIZE, 3), 7, np.uint8)
        cameras = scenes.decode_into(number, views, out)
        np.testing.assert_array_equal(cameras, raw.train.cameras[number])
        for frame, view in zip(out, views):
            np.testing.assert_array_equal(frame, raw.train.frame(number % TRAIN, view))


def test_jpeg_bytes_equal_the_source(raw: Raw, made: tuple[Raw, dict[str, Path]]) -> None:
    for container in ("tfrecord", "zarr", "webdataset"):
        for number, scene in enumerate(gqn_data.open(made[1][container])):
            assert scene.encoded is not None
            assert [bytes(frame) for frame in scene.encoded] == raw.train.jpegs[number]


def test_a_split_is_chosen_by_argument_or_path(raw: Raw, folder: Path) -> None:
    assert gqn_data.open(folder).split == "train"
    for opened in (
        gqn_data.open(folder, "test"),
        gqn_data.open(folder / "test"),
        gqn_data.open(folder / "test", "test"),
    ):
        assert opened.split == "test"
        assert len(opened) == 3
        np.testing.assert_array_equal(opened[2].frame(0), raw.test.frame(2, 0))
    assert len(gqn_data.open(folder / "train")) == TRAIN


@pytest.mark.parametrize(("named", "asked"), [("train", "test"), ("test", "train")])
def test_contradictory_splits_are_refused(zarr: Path, named: str, asked: str) -> None:
    with pytest.raises(OptionError, match=f"the split {named}, expected {asked}"):
        gqn_data.open(zarr / named, asked)  # type: ignore[arg-type]


def test_the_only_split_is_the_default(tmp_path: Path) -> None:
    made = write_raw(tmp_path / SET, train=(), test=(2,))
    opened = gqn_data.open(index(made.folder))
    assert opened.split == "test"
    assert len(opened) == 2
    with pytest.raises(ManifestError, match="'train' is missing, expected test"):
        gqn_data.open(made.folder, "train")


def test_an_unknown_split_suggests_the_nearest(zarr: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'train'"):
        gqn_data.open(zarr, "trian")  # type: ignore[arg-type]


def test_other_folders_are_refused_with_a_remedy(tmp_path: Path, made: tuple[Raw, dict[str, Path]]) -> None:
    with pytest.raises(SourceMissing, match="no such folder"):
        gqn_data.open(tmp_path / "nowhere")
    with pytest.raises(SourceMissing, match=r"no such folder.*gqn-data render mazes"):
        gqn_data.open(tmp_path / "raw" / "mazes")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceMissing, match=r"no such folder. Did you mean .*/empty\?"):
        gqn_data.open(tmp_path / "emptier")
    with pytest.raises(SourceMissing, match=r"empty: manifest\.json is missing"):
        gqn_data.open(tmp_path / "empty")
    unindexed = write_raw(tmp_path / "raw" / SET, train=(1,), test=(1,)).folder
    with pytest.raises(SourceMissing, match=f"without an index.*gqn-data index {unindexed}"):
        gqn_data.open(unindexed)
    dataset = made[1]["numpy"]
    with pytest.raises(SourceMissing, match=f"data root.*Did you mean {dataset}"):
        gqn_data.open(dataset.parent.parent)


def test_the_repr_describes_the_dataset(zarr: Path) -> None:
    assert repr(gqn_data.open(zarr)) == f"<{SET} train: 21 scenes of 5 views, 16x16, zarr, rendered>"


def test_a_dataset_with_open_files_can_be_pickled(raw: Raw, folder: Path) -> None:
    scenes = gqn_data.open(folder)
    _first_frames(scenes)
    copy = pickle.loads(pickle.dumps(scenes))
    assert repr(copy) == repr(scenes)
    assert copy.fingerprint == scenes.fingerprint
    np.testing.assert_array_equal(copy.cameras, scenes.cameras)
    for number, frame in enumerate(_first_frames(copy)):
        np.testing.assert_array_equal(frame, raw.train.frame(number, 0))


@pytest.mark.slow
def test_a_dataset_is_read_in_a_spawned_process(raw: Raw, folder: Path) -> None:
    scenes = gqn_data.open(folder)
    _first_frames(scenes)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        frames = executor.submit(_first_frames, scenes).result()
    np.testing.assert_array_equal(frames, [raw.train.frame(number, 0) for number in range(TRAIN)])


def test_reading_scenes_does_not_import_torch(folder: Path) -> None:
    script = (
        "import sys, gqn_data; scenes = gqn_data.open(sys.argv[1]); scenes[0].frames; scenes.cameras; "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True, cwd=Path(__file__).parents[2])


# Files


def test_datasets_with_more_shards_than_open_files_are_read(tmp_path: Path) -> None:
    made = write_raw(tmp_path / "raw" / SET, train=(150, 150), test=(), size=8, views=2)
    folder = convert_to("numpy", made.folder, tmp_path, shard_bytes=1)
    scenes = gqn_data.open(folder)
    assert len(scenes.manifest.splits["train"].shards) == 300
    expected = [made.train.frame(number, 0) for number in range(300)]
    for _ in range(2):
        np.testing.assert_array_equal(_first_frames(scenes), expected)
    np.testing.assert_array_equal(scenes.cameras, made.train.cameras)
    listing = Path("/proc/self/fd")
    if listing.is_dir():
        links = [str(path.readlink()) for path in listing.iterdir() if path.exists()]
        held = [link for link in links if link.startswith(str(folder))]
        assert 0 < len(held) <= 256  # of 600 files


def test_a_truncated_shard_is_reported_with_both_sizes(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / SET
    shutil.copytree(folder, copy)
    shards = gqn_data.open(copy).manifest.splits["train"].shards
    for file in shards[-1].files:
        whole = (copy / file.name).read_bytes()
        for size in (0, 1, len(whole) // 2, len(whole) - 1):
            (copy / file.name).write_bytes(whole[:size])
            scenes = gqn_data.open(copy)
            with pytest.raises(ShardChecksumError) as caught:
                scenes[-1].frames  # noqa: B018
            assert str(copy / file.name) in str(caught.value)
            assert f"{size} bytes, the manifest says {len(whole)}" in str(caught.value)
            assert scenes[0].frame(0).shape == (SIZE, SIZE, 3)  # the other shards are still readable
        (copy / file.name).write_bytes(whole)
    assert gqn_data.open(copy)[-1].frame(0).shape == (SIZE, SIZE, 3)


def test_truncating_an_open_shard_raises_instead_of_crashing(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / SET
    shutil.copytree(folder, copy)
    scenes = gqn_data.open(copy)
    known = scenes[-1].frames
    file = copy / scenes.manifest.splits["train"].shards[-1].files[0].name
    whole = file.read_bytes()
    os.truncate(file, 50)
    with pytest.raises(ShardChecksumError, match=file.name):
        scenes[-1].frames  # noqa: B018
    with pytest.raises(ShardChecksumError, match=file.name):
        scenes.decode_into(-1, [VIEWS - 1], np.empty((1, SIZE, SIZE, 3), np.uint8))
    file.write_bytes(whole)
    np.testing.assert_array_equal(scenes[-1].frames, known)


def test_a_missing_file_is_reported_with_its_name(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / SET
    shutil.copytree(folder, copy)
    for file in gqn_data.open(copy).manifest.splits["train"].shards[0].files:
        (copy / file.name).rename(tmp_path / "aside")
        with pytest.raises(ShardChecksumError, match=f"{file.name}: .* absent"):
            gqn_data.open(copy)[0].frames  # noqa: B018
        (tmp_path / "aside").rename(copy / file.name)


def test_an_index_of_other_scenes_is_refused_by_its_header(tmp_path: Path) -> None:
    folder = index(write_raw(tmp_path / SET, train=(2,), test=()).folder)
    path = next((folder / "train").glob("*.index.npy"))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"(2,)", b"(3,)"))
    assert path.stat().st_size == len(data)
    with pytest.raises(ShardChecksumError, match=r"index\.npy: unexpected header, expected .*\(2, "):
        gqn_data.open(folder)[0]


def test_a_source_file_changed_after_indexing_is_refused(tmp_path: Path) -> None:
    folder = index(write_raw(tmp_path / SET, train=(3,), test=()).folder)
    source = next((folder / "train").glob("*.tfrecord"))
    source.write_bytes(source.read_bytes() + b"more")
    with pytest.raises(ShardChecksumError, match=r"the manifest says \d+.*index"):
        gqn_data.open(folder)[0]


@pytest.mark.parametrize("container", CONTAINERS[1:])
def test_an_overwritten_dataset_shows_the_new_scenes_when_reopened(container: str, tmp_path: Path) -> None:
    first = write_raw(tmp_path / "first" / SET, train=(5,), test=(), seed=1)
    second = write_raw(tmp_path / "second" / SET, train=(5,), test=(), seed=2)
    folder = convert_to(container, first.folder, tmp_path)
    before = gqn_data.open(folder)
    np.testing.assert_array_equal(_first_frames(before), [first.train.frame(number, 0) for number in range(5)])
    assert convert_to(container, second.folder, tmp_path, overwrite=True) == folder
    after = gqn_data.open(folder)
    np.testing.assert_array_equal(_first_frames(after), [second.train.frame(number, 0) for number in range(5)])
    np.testing.assert_array_equal(after.cameras, second.train.cameras)
    assert after.fingerprint != before.fingerprint
