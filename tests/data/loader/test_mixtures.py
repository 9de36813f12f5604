"""Several datasets in one stream: in any containers, weighted or not, if they are compatible."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from fault_server import FaultServer
from loader_fixtures import SET, Truth, convert_to, index, write_raw
from loader_streams import hold_against, joined, rows_of, snapshot, stream, taken
from made_scenes import MadeScene, jpeg, pattern, write_source_file
from torch.nn.functional import interpolate

from gqn_data.convert.index import index_raw_folder
from gqn_data.errors import OptionError, ShardChecksumError
from gqn_data.loader import SceneLoader
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.sources.raw_folder import open_raw_folder

SCENES = (21, 13, 8)  # of the three datasets
NINE = "openai-block"  # E-GQN's set with cameras of nine numbers


class Made(NamedTuple):
    """A dataset and what is in it."""

    folder: Path
    truth: Truth


def _made(root: Path, container: str, **options: Any) -> Made:
    raw = write_raw(root / "raw" / SET, test=(2,), **options)
    index(raw.folder)
    folder = raw.folder if container == "tfrecord" else convert_to(container, raw.folder, root)
    return Made(folder, raw.train)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Made]:
    """Make three datasets in three containers, of 5, 7 and 4 views."""
    root = tmp_path_factory.mktemp("mixtures")
    return [
        _made(root / "a", "zarr", train=(6, 4, 11), seed=1, views=5),
        _made(root / "b", "tfrecord", train=(9, 4), seed=2, views=7),
        _made(root / "c", "numpy", train=(8,), seed=3, views=4),
    ]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Make a dataset with frames of 8 pixels."""
    return _made(tmp_path_factory.mktemp("small"), "zarr", train=(5,), seed=4, size=8)


def _folders(made: list[Made]) -> list[Path]:
    return [each.folder for each in made]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_every_scene_of_every_dataset_comes_once_per_epoch(three: list[Made], count: int, workers: int) -> None:
    parts = three[:count]
    loader = SceneLoader(_folders(parts), batch_size=5, seed=3, epochs=3, tail="exact", workers=workers)
    assert loader.scenes == sum(SCENES[:count])
    assert loader.context == (1, min(each.truth.cameras[0].shape[0] for each in parts) - 1)
    every = Counter((number, scene) for number in range(count) for scene in range(SCENES[number]))
    epochs: list[list[tuple[int, int, tuple[int, ...]]]] = [[], [], []]
    for number, batch in enumerate(loader):
        hold_against(batch, [each.truth for each in parts])
        epochs[number // len(loader)] += rows_of(batch)
    for rows in epochs:
        assert Counter((dataset, scene) for dataset, scene, _ in rows) == every
    assert epochs[0] != epochs[1]
    # Views that the first dataset does not have are used, too.
    assert {view for dataset, _, views in epochs[0] for view in views if dataset == 1} == {-1, *range(7)}


def test_weights_set_the_share_of_each_dataset_in_an_epoch(three: list[Made]) -> None:
    a, b, _ = three
    loader = SceneLoader({a.folder: 1, b.folder: 3}, batch_size=4, seed=3, epochs=4, tail="exact", epoch_scenes=40)
    assert (loader.scenes, len(loader)) == (40, 10)
    batches = list(loader)
    own: list[list[int]] = [[], []]
    for epoch in range(4):
        rows = [row for batch in batches[epoch * 10 : epoch * 10 + 10] for row in rows_of(batch)]
        assert Counter(dataset for dataset, *_ in rows) == {0: 10, 1: 30}
        for dataset, scene, _ in rows:
            own[dataset].append(scene)
    assert sum(hold_against(batch, [a.truth, b.truth]) for batch in batches) > 0
    # 40 of 21 scenes: all of them once, and 19 a second time; of 120 of 13 scenes, each nine or ten times.
    assert sorted(Counter(own[0]).values()) == [1] * 2 + [2] * 19
    assert set(Counter(own[1]).values()) == {9, 10}
    assert len(Counter(own[1])) == 13


def test_the_default_epoch_of_a_mixture_has_as_many_scenes_as_all(three: list[Made]) -> None:
    a, b, c = three
    loader = SceneLoader({a.folder: 2, b.folder: 1, c.folder: 4}, batch_size=42, epochs=1)
    (batch,) = loader
    assert Counter(batch.datasets.tolist()) == {0: 12, 1: 6, 2: 24}


def test_weights_equal_to_the_numbers_of_scenes_change_nothing(three: list[Made]) -> None:
    a, b, _ = three
    weighted = SceneLoader({a.folder: 21, b.folder: 13}, batch_size=4, seed=7, context=(1, 3), epochs=1)
    weighted.load_state_dict(SceneLoader([a.folder, b.folder], batch_size=4, seed=7, context=(1, 3)).state_dict())
    assert taken(weighted) == stream([a.folder, b.folder], epochs=1)


@pytest.mark.parametrize("tail", ["drop", "pad", "exact"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_mixture_is_the_same_for_any_workers_and_ranks(three: list[Made], tail: Any, weighted: bool) -> None:
    folders = _folders(three)
    mixed: Any = dict(zip(folders, (1, 2, 3))) if weighted else folders
    options: dict[str, Any] = {"batch_size": 12, "seed": 3, "epochs": 2, "tail": tail}
    whole = list(SceneLoader(mixed, **options))
    assert [snapshot(batch) for batch in SceneLoader(mixed, workers=2, **options)] == [*map(snapshot, whole)]
    for ranks in (2, 4):
        shares = [list(SceneLoader(mixed, rank=rank, ranks=ranks, **options)) for rank in range(ranks)]
        for batch, *parts in zip(whole, *shares, strict=True):
            assert snapshot(joined(parts)) == snapshot(batch)


def test_a_mixture_resumes_from_its_state(three: list[Made]) -> None:
    folders = _folders(three)
    options: dict[str, Any] = {"epochs": 2, "tail": "pad", "epoch_scenes": 30}
    whole = stream(folders, **options)
    for given in (1, 7, 8, 15):
        loader = SceneLoader(folders, batch_size=4, seed=7, context=(1, 3), workers=1, **options)
        assert taken(loader, given) == whole[:given]
        resumed = SceneLoader(folders, batch_size=4, seed=7, context=(1, 3), **options)
        resumed.load_state_dict(loader.state_dict())
        assert taken(resumed) == whole[given:]


def test_a_dataset_mixed_with_itself_yields_its_scenes_with_other_views(three: list[Made]) -> None:
    a, *_ = three
    loader = SceneLoader([a.folder, a.folder], batch_size=6, epochs=1, context=(2, 4))
    views: dict[int, list[tuple[int, ...]]] = {}
    for batch in loader:
        hold_against(batch, [a.truth, a.truth])
        for _, scene, chosen in rows_of(batch):
            views.setdefault(scene, []).append(chosen)
    assert [len(views[scene]) for scene in range(21)] == [2] * 21
    assert sum(first != second for first, second in views.values()) > 15


def test_a_list_or_a_mapping_of_one_is_the_dataset_itself(three: list[Made]) -> None:
    folder = three[0].folder
    alone = stream(folder, epochs=1)
    assert stream([folder], epochs=1) == alone
    assert stream({folder: 0.25}, epochs=1) == alone
    assert stream([str(folder)], epochs=1) == alone


def test_all_views_are_mixed_only_of_datasets_with_as_many_views(three: list[Made], tmp_path: Path) -> None:
    a, b, _ = three
    other = _made(tmp_path, "webdataset", train=(4,), seed=5, views=5)
    for batch in SceneLoader([a.folder, other.folder], batch_size=5, context="all", epochs=1):
        assert (batch.views.numpy() == range(5)).all()
        assert hold_against(batch, [a.truth, other.truth]) == 25
    with pytest.raises(OptionError, match=r"scenes of \[5, 7\] views cannot be put into one batch with all their"):
        SceneLoader([a.folder, b.folder], batch_size=5, context="all")


# Datasets that are not compatible


def test_frames_of_several_sizes_need_a_frame_size(three: list[Made], small: Made) -> None:
    a = three[0]
    with pytest.raises(
        OptionError, match=rf"{small.folder}: frames are 8x8, expected 16x16 as in {a.folder}\. Pass frame_size"
    ):
        SceneLoader([a.folder, small.folder], batch_size=4)
    loader = SceneLoader([a.folder, small.folder], batch_size=4, frame_size=8, epochs=1, tail="exact")
    seen = set()
    for batch in loader:
        for slot, (dataset, scene, views) in enumerate(rows_of(batch)):
            seen.add(dataset)
            true = (a, small)[dataset].truth.frame(scene, views[0])
            expected = true if dataset else true.reshape(8, 2, 8, 2, 3).mean((1, 3))
            assert abs(batch.target[slot].numpy() - expected).max() <= 0.5
    assert seen == {0, 1}


@pytest.mark.parametrize("turned", [False, True])
def test_area_resizing_never_enlarges_frames_of_any_dataset(three: list[Made], small: Made, turned: bool) -> None:
    folders = [three[0].folder, small.folder][:: -1 if turned else 1]
    with pytest.raises(OptionError, match=r"frame_size is 12, expected 8 or less for frames of 8x8"):
        SceneLoader(folders, batch_size=4, frame_size=12)
    loader = SceneLoader(folders, batch_size=4, frame_size=12, resize="bilinear", epochs=1)
    truths = [three[0].truth, small.truth][:: -1 if turned else 1]
    for batch in loader:
        for slot, (dataset, scene, views) in enumerate(rows_of(batch)):
            true = truths[dataset].frame(scene, views[0])
            planes = batch.target.new_tensor(true).permute(2, 0, 1)[None].double()
            expected = interpolate(planes, size=12, mode="bilinear", align_corners=False, antialias=False)
            assert (batch.target[slot].double() - expected[0].permute(1, 2, 0)).abs().max() <= 0.5 + 1e-3


def test_cameras_of_several_kinds_are_not_mixed(three: list[Made], tmp_path: Path) -> None:
    raw = tmp_path / NINE
    scenes = [
        MadeScene(tuple(jpeg(pattern(scene, view, 128), quality=60) for view in range(4)), cameras)
        for scene, cameras in enumerate(_cameras(3))
    ]
    for file in (1, 2001):
        write_source_file(raw / f"{file:04}-of-2500.tfrecord", scenes)
    index_raw_folder(open_raw_folder(raw, SCENE_SETS[NINE]))
    fields = ", ".join(SceneLoader(raw, batch_size=3).pose_fields)
    assert fields.count(",") == 8
    for first, second, message in (
        (three[0].folder, raw, f"{raw}: cameras are {fields}, expected x, y, z, yaw, pitch as in {three[0].folder}"),
        (raw, three[0].folder, f"{three[0].folder}: cameras are x, y, z, yaw, pitch, expected {fields} as in {raw}"),
    ):
        for options in ({}, {"frame_size": 8}, {"frame_size": 8, "poses": "raw"}):
            with pytest.raises(OptionError) as caught:
                SceneLoader([first, second], batch_size=4, **options)  # type: ignore[arg-type]
            assert message in str(caught.value)


def _cameras(scenes: int) -> Any:
    return np.random.default_rng(0).normal(size=(scenes, 4, 9)).astype(np.float32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenes": [0, 1]}, "scenes is for one dataset"),
        ({"samples": [[0, 0, 1]]}, "samples is for one dataset, not for 3"),
        ({"window": 1}, "window is for one dataset"),
        ({"context": (1, 4)}, "a query need 5 views; a scene has 4"),
        ({"epoch_scenes": 0}, "epoch_scenes is 0"),
        ({"epoch_scenes": 2}, "dataset 2 of the mixture has a weight of 8 in 42: none of an epoch's 2 scenes"),
        ({"batch_size": 43}, "42 train scenes are fewer than a batch of 43"),
    ],
)
def test_options_that_a_mixture_does_not_allow_are_refused(
    three: list[Made], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        SceneLoader(_folders(three), **{"batch_size": 4, **options})


@pytest.mark.parametrize("weight", [0, -1, float("inf"), float("nan")])
def test_weights_that_are_not_positive_are_refused(three: list[Made], weight: float) -> None:
    with pytest.raises(OptionError, match="expected 2 numbers above 0"):
        SceneLoader({three[0].folder: 1, three[1].folder: weight}, batch_size=4)


def test_an_empty_list_of_datasets_is_refused() -> None:
    for nothing in ([], {}):
        with pytest.raises(OptionError, match="path is empty"):
            SceneLoader(nothing, batch_size=4)  # type: ignore[arg-type]


# States


def test_a_state_of_another_mixture_is_refused_with_the_difference(three: list[Made]) -> None:
    a, b, c = _folders(three)
    options: dict[str, Any] = {"batch_size": 4, "context": (1, 3)}
    base: Any = [a, b]
    others: list[tuple[Any, dict[str, Any], str]] = [
        ([b, a], {}, "dataset '"),
        ([a, c], {}, "dataset '"),
        (a, {}, "dataset '"),
        ({a: 1, b: 1}, {}, "mixture '21, 13', here '17, 17'"),
        ([a, b], {"epoch_scenes": 30}, "mixture '21, 13', here '19, 11'"),
    ]
    state = SceneLoader(base, **options).state_dict()
    for paths, more, message in others:
        other = SceneLoader(paths, **options, **more)
        with pytest.raises(OptionError, match=message):
            other.load_state_dict(state)
        with pytest.raises(OptionError, match="of another stream"):
            SceneLoader(base, **options).load_state_dict(other.state_dict())


# A remote dataset


@pytest.fixture
def server(three: list[Made]) -> Iterator[FaultServer]:
    with FaultServer(three[0].folder.parent) as server:
        yield server


@pytest.mark.parametrize(("remote", "workers"), [("cache", 0), ("range", 0), ("auto", 2)])
def test_a_mixture_with_a_remote_dataset_equals_the_local_one(
    three: list[Made], server: FaultServer, tmp_path: Path, remote: Any, workers: int
) -> None:
    a, b, _ = three
    url = f"{server.url}/{a.folder.name}"
    here = stream({a.folder: 1, b.folder: 2}, epochs=2, tail="pad")
    there = stream({url: 1, b.folder: 2}, epochs=2, tail="pad", remote=remote, cache=tmp_path, workers=workers)
    assert there == here
    # A remote stream resumes from the disk.
    loader = SceneLoader([b.folder, url], batch_size=4, seed=7, context=(1, 3), remote=remote, cache=tmp_path)
    given = [snapshot(batch) for batch in islice(loader, 3)]
    loader.close()
    on_disk = SceneLoader([b.folder, a.folder], batch_size=4, seed=7, context=(1, 3), epochs=1)
    on_disk.load_state_dict(loader.state_dict())
    assert given + taken(on_disk) == stream([b.folder, a.folder], epochs=1)


def test_a_missing_file_of_one_dataset_is_reported(three: list[Made], tmp_path: Path) -> None:
    a, b, _ = three
    shutil.copytree(b.folder, tmp_path / SET)
    gone = next((tmp_path / SET / "train").glob("*.tfrecord"))
    gone.unlink()
    with pytest.raises(ShardChecksumError, match=rf"{gone.name}.*absent"):
        list(SceneLoader([a.folder, tmp_path / SET], batch_size=4, epochs=1))
