"""Every option of the loader, compared with the scenes that were written and with plain formulas."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loader_fixtures import SET, SIZE, VIEWS, Raw, convert_to, index, write_raw
from loader_streams import hold_against, joined, rows_of, snapshot, stream, taken
from s3_server import environment, new_bucket
from torch.nn.functional import interpolate

from gqn_data.convert.scene_writer import SceneWriter
from gqn_data.errors import OptionError
from gqn_data.io.paths import parse_path
from gqn_data.loader import Batch, SceneLoader

FILES = (6, 4, 11, 5)  # scenes of each source file, and of each shard of the TFRecords
TRAIN = sum(FILES)

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Raw:
    made = write_raw(tmp_path_factory.mktemp("scenes") / SET, train=FILES, seed=1)
    index(made.folder)
    return made


@pytest.fixture(scope="module")
def zarr(raw: Raw, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_to("zarr", raw.folder, tmp_path_factory.mktemp("zarr"))


@pytest.fixture(scope="module")
def bucket(raw: Raw, s3_address: str) -> Iterator[str]:
    """Upload the same scenes to a store and yield the URL."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(s3_address).items():
            patch.setenv(name, value)
        url = new_bucket(s3_address)
        for path in raw.folder.rglob("*"):
            if path.is_file():
                (parse_path(url) / SET / path.relative_to(raw.folder).as_posix()).put(path.read_bytes())
        yield f"{url}/{SET}"


def _scenes(batches: list[Batch]) -> list[int]:
    return [scene for batch in batches for scene in batch.scenes.tolist()]


# Views


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffle", [True, False])
def test_all_views_come_in_their_order_with_their_frames_and_poses(
    raw: Raw, zarr: Path, workers: int, shuffle: bool
) -> None:
    loader = SceneLoader(
        zarr, batch_size=5, context="all", epochs=2, tail="exact", shuffle=shuffle, workers=workers, seed=3
    )
    batches = list(loader)
    for batch in batches:
        assert batch.frames.shape[1:] == (VIEWS, SIZE, SIZE, 3)
        assert (batch.views.numpy() == range(VIEWS)).all()
        assert batch.context_mask.all()
        assert hold_against(batch, [raw.train]) == len(batch.scenes) * VIEWS
    assert sorted(_scenes(batches)) == sorted([*range(TRAIN)] * 2)
    assert (_scenes(batches) == [*range(TRAIN)] * 2) == (not shuffle)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("tail", ["drop", "pad", "exact"])
def test_context_per_batch_leaves_no_slot_empty(raw: Raw, zarr: Path, workers: int, tail: Any) -> None:
    options: dict[str, Any] = {"batch_size": 4, "context": (1, 4), "seed": 3, "epochs": 6, "tail": tail}
    loader = SceneLoader(zarr, context_per="batch", workers=workers, **options)
    widths: Counter[int] = Counter()
    for batch in loader:
        seen = hold_against(batch, [raw.train])
        width = batch.views.shape[1]
        widths[width] += 1
        assert batch.frames.shape[:2] == batch.poses.shape[:2] == batch.views.shape
        assert batch.context_mask[batch.valid].all()
        assert seen == int(batch.valid.sum()) * width
        assert all(len(set(views)) == width for _, scene, views in rows_of(batch) if scene >= 0)
    assert set(widths) == {2, 3, 4, 5}
    # The widths are the same on every rank.
    shares = [list(SceneLoader(zarr, context_per="batch", rank=rank, ranks=2, **options)) for rank in (0, 1)]
    for batch, *parts in zip(SceneLoader(zarr, context_per="batch", **options), *shares, strict=True):
        assert snapshot(joined(parts)) == snapshot(batch)


SAMPLES = [[3, 0, 1, 4], [3, 4, 2, -1], [25, 1, 0, 2], [0, 2, 4, -1], [17, 3, 1, 0], [9, 0, 4, -1], [3, 0, 1, 4]]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 3])
def test_samples_come_in_their_order_in_every_epoch(raw: Raw, zarr: Path, workers: int, ranks: int) -> None:
    options: dict[str, Any] = {"batch_size": 3, "samples": SAMPLES, "epochs": 2, "tail": "exact"}
    shares = [list(SceneLoader(zarr, rank=rank, ranks=ranks, workers=workers, **options)) for rank in range(ranks)]
    batches = [joined(parts) for parts in zip(*shares)]
    assert [len(batch.scenes) for batch in batches] == [3, 3, 1] * 2
    given = [[scene, *views] for batch in batches for _, scene, views in rows_of(batch)]
    assert given == SAMPLES * 2
    assert sum(hold_against(batch, [raw.train]) for batch in batches) == 2 * (4 * 3 + 3 * 2)


def test_samples_keep_all_their_views_with_context_per_batch(zarr: Path) -> None:
    options: dict[str, Any] = {"samples": SAMPLES, "batch_size": 7, "epochs": 1, "context": (1, 1)}
    assert stream(zarr, context_per="batch", **options) == stream(zarr, **options)


@pytest.mark.parametrize("tail", ["drop", "pad", "exact"])
def test_a_list_of_samples_resumes_from_its_state(zarr: Path, tail: Any) -> None:
    options: dict[str, Any] = {"batch_size": 2, "samples": np.array(SAMPLES), "epochs": 2, "tail": tail}
    whole = stream(zarr, **options)
    assert len(whole) == (6 if tail == "drop" else 8)
    loader = SceneLoader(zarr, workers=1, **options)
    for given in range(len(whole)):
        resumed = SceneLoader(zarr, seed=0, **options)
        resumed.load_state_dict(loader.state_dict())
        assert taken(resumed) == whole[given:]
        assert taken(loader, 1) == [whole[given]]


def test_a_list_of_samples_ignores_seed_and_shuffle(zarr: Path) -> None:
    options: dict[str, Any] = {"samples": SAMPLES, "batch_size": 7, "epochs": 1}
    alone = stream(zarr, **options)
    assert stream(zarr, seed=99, **options) == alone
    assert stream(zarr, shuffle=False, context=(1, 1), **options) == alone


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": [[26, 0, 1]]}, r"sample 0 is \[26, 0, 1\].*below 26"),
        ({"samples": [[0, 0, 1], [0, 0, 5]]}, r"sample 1 is \[0, 0, 5\].*below 5"),
        ({"samples": [[0, 1, 1]]}, "all different"),
        ({"samples": [[0.0, 1, 2]]}, "expected whole numbers"),
        ({"samples": SAMPLES, "scenes": [1]}, "scenes is for one dataset without samples"),
        ({"samples": SAMPLES, "window": 2}, "window is for one dataset without samples"),
        ({"scenes": []}, r"shape \(0,\), expected a non-empty list of integers"),
        ({"scenes": [[1]]}, r"int64 of shape \(1, 1\), expected a non-empty list of integers"),
        ({"scenes": [0.5]}, r"scenes is an array of float64 of shape \(1,\)"),
        ({"scenes": [True] * TRAIN}, "scenes is an array of bool"),
        ({"scenes": [1, 2, 1]}, "scenes has 1 duplicate,"),
        ({"scenes": [1, 26]}, "scenes has 26, expected 0 to 25"),
        ({"scenes": [-1, 3]}, "scenes has -1, expected 0 to 25"),
        ({"scenes": [1, 2, 3]}, "3 train scenes are fewer than a batch of 4"),
        ({"context": "every"}, "context is 'every', expected .*'all'"),
        ({"context_per": "epoch"}, "context_per is 'epoch', expected scene or batch"),
        ({"tail": "keep"}, "tail is 'keep', expected one of drop, pad, exact"),
        ({"resize": "nearest"}, "resize is 'nearest', expected area or bilinear"),
        ({"poses": "quaternion"}, "poses is 'quaternion', expected sin_first, cos_first or raw"),
        ({"start": "forkserver"}, "start is 'forkserver', expected fork or spawn"),
    ],
)
def test_options_that_the_scenes_do_not_allow_are_refused(zarr: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        SceneLoader(zarr, **{"batch_size": 4, **options})


# Some of the scenes

CHOSEN = [20, 0, 7, 9, 10, 11, 25]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("window", [None, 1, 3])
def test_only_the_chosen_scenes_come_once_per_epoch(raw: Raw, zarr: Path, workers: int, window: int | None) -> None:
    loader = SceneLoader(
        zarr, batch_size=3, scenes=CHOSEN, window=window, epochs=3, tail="exact", workers=workers, seed=2
    )
    assert (loader.scenes, len(loader)) == (7, 3)
    batches = list(loader)
    for batch in batches:
        hold_against(batch, [raw.train])
    orders = [tuple(_scenes(batches[first : first + 3])) for first in (0, 3, 6)]
    assert {tuple(sorted(order)) for order in orders} == {tuple(sorted(CHOSEN))}
    assert len(set(orders)) == 3


def test_chosen_scenes_come_in_rising_order_if_not_shuffled(zarr: Path) -> None:
    loader = SceneLoader(zarr, batch_size=3, scenes=np.array(CHOSEN), shuffle=False, epochs=2, tail="exact")
    assert _scenes(list(loader)) == sorted(CHOSEN) * 2


def test_all_scenes_chosen_is_the_stream_of_all(zarr: Path) -> None:
    assert stream(zarr, scenes=np.arange(TRAIN), epochs=2) == stream(zarr, epochs=2)
    assert stream(zarr, scenes=np.arange(TRAIN)[::-1], epochs=2, window=2) == stream(zarr, epochs=2, window=2)


def test_scenes_of_a_window_come_together(raw: Raw) -> None:
    # The four source files are the shards; two of them make a window.
    ends = np.cumsum(FILES)
    loader = SceneLoader(raw.folder, batch_size=1, scenes=[0, 1, 6, 7, 10, 11, 21, 22], window=2, seed=5)
    for _ in range(4):
        epoch = _scenes([*itertools.islice(loader, 8)])
        files = np.searchsorted(ends, epoch, side="right")
        assert set(files[:4]).isdisjoint(files[4:])
        assert sorted(epoch) == [0, 1, 6, 7, 10, 11, 21, 22]


@pytest.mark.parametrize(
    ("remote", "workers", "window"),
    [("cache", 0, 1), ("cache", 0, 2), ("range", 0, 1), ("range", 0, 2), ("auto", 1, 2)],
)
def test_chosen_scenes_from_a_store_equal_those_from_the_disk(
    raw: Raw, bucket: str, tmp_path: Path, remote: Any, workers: int, window: int
) -> None:
    # None of the second source file.
    for options in ({},) if workers else ({}, {"shuffle": False}):
        chosen: dict[str, Any] = {"scenes": [20, 0, 10, 11, 25], "window": window, "tail": "pad", "epochs": 2}
        chosen |= options
        here = stream(raw.folder, **chosen)
        assert stream(bucket, remote=remote, cache=tmp_path, workers=workers, **chosen) == here
        assert len(here) == 4


def test_samples_from_a_store_equal_those_from_the_disk(raw: Raw, bucket: str, tmp_path: Path) -> None:
    here = stream(raw.folder, samples=SAMPLES, epochs=1, tail="exact")
    for remote in ("cache", "range"):
        assert stream(bucket, samples=SAMPLES, epochs=1, tail="exact", remote=remote, cache=tmp_path) == here


def test_forked_workers_for_a_store_are_refused(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="start is 'fork'"):
        SceneLoader(bucket, batch_size=4, start="fork", cache=tmp_path)


# The last batch


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_the_last_batch_is_dropped_padded_or_divided(raw: Raw, zarr: Path, workers: int, ranks: int) -> None:
    # 26 scenes in batches of 8: 8, 8, 8, 2. With eight ranks six of them get an empty last batch.
    of_each: dict[str, list[list[Batch]]] = {}
    for tail in ("drop", "pad", "exact"):
        shares = [
            list(
                SceneLoader(
                    zarr,
                    batch_size=8,
                    epochs=2,
                    seed=3,
                    tail=tail,
                    rank=rank,
                    ranks=ranks,
                    workers=workers * (rank < 2),
                )
            )
            for rank in range(ranks)
        ]
        of_each[tail] = [list(parts) for parts in zip(*shares, strict=True)]
    assert [len(of_each[tail]) for tail in ("drop", "pad", "exact")] == [6, 8, 8]
    for tail, batches in of_each.items():
        for number, parts in enumerate(batches):
            sizes = [len(part.scenes) for part in parts]
            assert tail == "exact" or set(sizes) == {8 // ranks}
            whole = joined(parts)
            last = tail != "drop" and number % 4 == 3
            assert int(whole.valid.sum()) == (2 if last else 8)
            assert sum(sizes) == (2 if last and tail == "exact" else 8)
            assert max(sizes) - min(sizes) <= 1
            for part in parts:
                hold_against(part, [raw.train])
                absent = ~part.valid
                assert not part.frames[absent].any()
                assert not part.poses[absent].any()
                assert (part.views[absent] == -1).all()
                assert (part.datasets[absent] == -1).all()
                assert (part.datasets[part.valid] == 0).all()
    for epoch in (0, 1):
        padded, exact = (
            [joined(each) for each in of_each[tail][epoch * 4 : epoch * 4 + 4]] for tail in ("pad", "exact")
        )
        assert sorted(_scenes(exact)) == [*range(TRAIN)]
        assert [scene for scene in _scenes(padded) if scene >= 0] == _scenes(exact)
        for whole, dropped in zip(exact, of_each["drop"][epoch * 3 : epoch * 3 + 3]):
            assert snapshot(joined(dropped)) == snapshot(whole)


# Frames


@pytest.mark.parametrize("size", [1, 5, 8, 15, 17, 24, 32])
@pytest.mark.parametrize("workers", [0, 1])
def test_frames_are_interpolated_to_any_size_as_torch_does(raw: Raw, zarr: Path, size: int, workers: int) -> None:
    loader = SceneLoader(
        zarr, batch_size=5, context=(1, 4), frame_size=size, resize="bilinear", epochs=1, workers=workers
    )
    assert loader.frame_size == size
    for batch in loader:
        assert batch.frames.shape == (5, 5, size, size, 3)
        for slot, (_, scene, views) in enumerate(rows_of(batch)):
            for here, view in enumerate(views):
                if view < 0:
                    assert not batch.frames[slot, here].any()
                    continue
                planes = torch.tensor(raw.train.frame(scene, view)).permute(2, 0, 1)[None].double()
                expected = interpolate(planes, size=size, mode="bilinear", align_corners=False, antialias=False)
                found = batch.frames[slot, here].permute(2, 0, 1)[None].double()
                assert (found - expected).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16])
def test_frames_are_averaged_as_torch_does_if_sizes_divide(raw: Raw, zarr: Path, size: int) -> None:
    for batch in SceneLoader(zarr, batch_size=26, context=(1, 4), frame_size=size, epochs=1):
        truth = np.stack([raw.train.frame(scene, views[0]) for _, scene, views in rows_of(batch)])
        planes = torch.tensor(truth).permute(0, 3, 1, 2).double()
        expected = interpolate(planes, size=size, mode="area").permute(0, 2, 3, 1)
        assert (batch.target.double() - expected).abs().max() <= 0.5


# Poses


@pytest.mark.parametrize("workers", [0, 1])
def test_poses_come_in_either_order_or_as_the_cameras(raw: Raw, zarr: Path, workers: int) -> None:
    def poses(how: Any) -> tuple[tuple[str, ...], np.ndarray]:
        loader = SceneLoader(zarr, batch_size=TRAIN, context="all", poses=how, shuffle=False, epochs=1, workers=workers)
        (batch,) = loader
        assert batch.query_pose.shape == (TRAIN, len(loader.pose_fields))
        return loader.pose_fields, batch.poses.numpy().copy()

    cameras = np.stack(raw.train.cameras)
    x, y, z, yaw, pitch = cameras.astype(np.float64).transpose(2, 0, 1)
    by_name = {"x": x, "y": y, "z": z, "yaw": yaw, "pitch": pitch}
    by_name |= {"sin yaw": np.sin(yaw), "cos yaw": np.cos(yaw), "sin pitch": np.sin(pitch), "cos pitch": np.cos(pitch)}
    orders = {
        "sin_first": ("x", "y", "z", "sin yaw", "cos yaw", "sin pitch", "cos pitch"),
        "cos_first": ("x", "y", "z", "cos yaw", "sin yaw", "cos pitch", "sin pitch"),
        "raw": ("x", "y", "z", "yaw", "pitch"),
    }
    for how, names in orders.items():
        fields, found = poses(how)
        assert fields == names
        np.testing.assert_allclose(found, np.stack([by_name[name] for name in names], -1), rtol=0, atol=2e-7)
        if how == "raw":
            np.testing.assert_array_equal(found, cameras)


@pytest.mark.parametrize("how", ["sin_first", "cos_first", "raw"])
def test_slots_without_a_view_have_poses_of_zeros(zarr: Path, how: Any) -> None:
    # The cosine of nothing is one: zeros have to be written.
    loader = SceneLoader(zarr, batch_size=4, context=(1, 4), tail="pad", poses=how, epochs=1)
    absent = 0
    for batch in loader:
        absent += int((batch.views < 0).sum())
        assert not batch.poses[batch.views < 0].any()
        assert batch.poses[batch.views >= 0].any(-1).all()
    assert absent > 20


# Workers


@pytest.mark.parametrize(
    "options",
    [{"context": "all", "tail": "pad"}, {"context_per": "batch", "frame_size": 5, "poses": "cos_first"}],
)
def test_forked_and_spawned_workers_give_the_same_stream(zarr: Path, options: dict[str, Any]) -> None:
    alone = stream(zarr, epochs=2, **options)
    assert stream(zarr, epochs=2, workers=2, start="fork", **options) == alone
    assert stream(zarr, epochs=2, workers=1, start="spawn", **options) == alone


# Frames that are not square


@pytest.fixture(scope="module", params=[(12, 20), (20, 12)])
def oblong(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """Write own scenes of frames that are not square, in two containers; yield one folder and the frames."""
    height, width = request.param
    folder = tmp_path_factory.mktemp("oblong") / "zarr" / "mine"
    frames = np.random.default_rng(0).integers(0, 255, (4, 3, height, width, 3)).astype(np.uint8)
    with SceneWriter(folder) as writer:
        for scene in frames:
            writer.add(scene, np.zeros((3, 5)))
    return folder, frames


@pytest.mark.parametrize("frame_size", [None, 12, 6])
def test_frames_that_are_not_square_are_refused(oblong: tuple[Path, np.ndarray], frame_size: Any, faults: Any) -> None:
    with pytest.raises(OptionError, match=r"not square.*crop.*pad"):
        SceneLoader(oblong[0], batch_size=1, frame_size=frame_size)
    faults.record(
        "found in use: frames that are not square are squashed",
        holds="refused, cropped or padded, by choice",
        tries=1,
        survived=1,
    )


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_frames_that_are_not_square_are_cropped_or_padded(
    oblong: tuple[Path, np.ndarray], fit: Any, workers: int
) -> None:
    folder, frames = oblong
    loader = SceneLoader(folder, batch_size=1, fit=fit, workers=workers, shuffle=False, epochs=1, context="all")
    batches = list(loader)
    assert loader.frame_size == (12 if fit == "crop" else 20)
    for scene, batch in enumerate(batches):
        for view, number in enumerate(batch.views[0].tolist()):
            found, frame = batch.frames[0, view].numpy(), frames[scene, number]
            if fit == "crop":
                rows, columns = ((4, 16) if size == 20 else (0, 12) for size in frame.shape[:2])
                assert (found == frame[slice(*rows), slice(*columns)]).all()
            else:
                rows, columns = ((4, 16) if size == 12 else (0, 20) for size in frame.shape[:2])
                assert (found[slice(*rows), slice(*columns)] == frame).all()
                assert found.sum() == frame.sum()


@pytest.mark.parametrize(("fit", "size"), [("crop", 13), ("pad", 21)])
def test_cropped_and_padded_frames_are_not_enlarged(oblong: tuple[Path, np.ndarray], fit: Any, size: int) -> None:
    with pytest.raises(OptionError, match="bilinear"):
        SceneLoader(oblong[0], batch_size=1, fit=fit, frame_size=size)
    assert next(iter(SceneLoader(oblong[0], batch_size=1, fit=fit, frame_size=size - 3))).frames.shape[2] == size - 3


def test_an_unknown_fit_is_refused(oblong: tuple[Path, np.ndarray]) -> None:
    with pytest.raises(OptionError, match="fit is 'squash'"):
        SceneLoader(oblong[0], batch_size=1, fit="squash")  # type: ignore[arg-type]
