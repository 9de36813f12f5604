"""The loader yields one stream of batches for all containers, workers, ranks and interruptions."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loader_fixtures import CONTAINERS, SET, SIZE, VIEWS, Raw, convert_to, index, make_all, write_raw
from processes import no_child_is_left, own_children

import gqn_data
from gqn_data.errors import GQNError, OptionError, ShardChecksumError, SourceMissing
from gqn_data.loader import Batch, SceneLoader
from gqn_data.schema import jpeg
from gqn_data.schema.cameras import poses_of

TRAIN = 21  # scenes that `write_raw` makes: three source files of 6, 4 and 11
MAZES = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "mazes"

pytestmark = [
    # torch warns of more workers than cores, which is tested here.
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    # Python 3.12 and later warn of a fork in a process with threads.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

Snapshot = tuple[bytes, ...]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Raw, dict[str, Path]]:
    root = tmp_path_factory.mktemp("scenes")
    raw = write_raw(root / "raw" / SET)
    return raw, make_all(raw.folder, root)


@pytest.fixture(scope="module")
def raw(made: tuple[Raw, dict[str, Path]]) -> Raw:
    return made[0]


@pytest.fixture(scope="module")
def folders(made: tuple[Raw, dict[str, Path]]) -> dict[str, Path]:
    return made[1]


@pytest.fixture
def zarr(folders: dict[str, Path]) -> Path:
    return folders["zarr"]


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    with no_child_is_left():
        yield


def _snapshot(batch: Batch) -> Snapshot:
    """Return a batch as bytes, compared bit by bit without holding its memory."""
    return tuple(f"{part.dtype} {tuple(part.shape)} ".encode() + part.numpy().tobytes() for part in batch)


def _stream(path: Path, count: int | None = None, **options: Any) -> list[Snapshot]:
    """Return the first `count` batches, or all of `epochs`."""
    loader = SceneLoader(path, **{"batch_size": 4, "seed": 7, "context": (1, 3), **options})
    try:
        return [_snapshot(batch) for batch in islice(loader, count)]
    finally:
        loader.close()


def _copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


# What a batch holds


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_holds_the_frames_and_poses_of_the_views_that_it_names(raw: Raw, zarr: Path, workers: int) -> None:
    loader = SceneLoader(zarr, batch_size=4, context=(1, 3), workers=workers, epochs=2)
    for batch in loader:
        assert batch.context_frames.shape == (4, 3, SIZE, SIZE, 3)
        assert batch.context_poses.shape == (4, 3, 7)
        assert batch.target.shape == (4, SIZE, SIZE, 3)
        assert batch.query_pose.shape == (4, 7)
        assert (batch.context_frames.dtype, batch.target.dtype) == (torch.uint8, torch.uint8)
        assert (batch.context_poses.dtype, batch.query_pose.dtype) == (torch.float32, torch.float32)
        assert (batch.context_mask.dtype, batch.scenes.dtype, batch.views.dtype) == (
            torch.bool,
            torch.int64,
            torch.int64,
        )
        for slot, (scene, views) in enumerate(zip(batch.scenes.tolist(), batch.views.tolist())):
            poses = poses_of(raw.train.cameras[scene])
            np.testing.assert_array_equal(batch.target[slot].numpy(), raw.train.frame(scene, views[0]))
            np.testing.assert_array_equal(batch.query_pose[slot].numpy(), poses[views[0]])
            for place, view in enumerate(views[1:]):
                assert bool(batch.context_mask[slot, place]) == (view >= 0)
                if view >= 0:
                    expected = raw.train.frame(scene, view)
                    np.testing.assert_array_equal(batch.context_frames[slot, place].numpy(), expected)
                    np.testing.assert_array_equal(batch.context_poses[slot, place].numpy(), poses[view])


@pytest.mark.parametrize("container", CONTAINERS)
def test_frames_equal_those_of_the_dataset(folders: dict[str, Path], container: str) -> None:
    scenes = gqn_data.open(folders[container])
    for batch in SceneLoader(folders[container], batch_size=5, epochs=1, context=(4, 4)):
        for slot, scene in enumerate(batch.scenes.tolist()):
            shown = torch.cat([batch.target[slot, None], batch.context_frames[slot]])
            for frame, view in zip(shown.numpy(), batch.views[slot].tolist()):
                np.testing.assert_array_equal(frame, scenes[scene].frame(view))


def test_frames_equal_those_that_numpy_loads(folders: dict[str, Path]) -> None:
    shards = sorted((folders["numpy"] / "train").glob("frames-*.npy"))
    assert len(shards) > 1
    frames = np.concatenate([np.load(path) for path in shards])
    cameras = np.concatenate([np.load(path) for path in sorted((folders["numpy"] / "train").glob("cameras-*.npy"))])
    for batch in SceneLoader(folders["numpy"], batch_size=4, epochs=1):
        query = batch.views[:, 0]
        np.testing.assert_array_equal(batch.target.numpy(), frames[batch.scenes, query])
        np.testing.assert_array_equal(batch.query_pose.numpy(), poses_of(cameras[batch.scenes, query]))


def test_frames_equal_those_that_tarfile_finds(folders: dict[str, Path]) -> None:
    files = {}
    for path in sorted(folders["webdataset"].glob("train-*.tar")):
        with tarfile.open(path) as tar:
            files.update({member.name: tar.extractfile(member).read() for member in tar})  # type: ignore[union-attr]
    for batch in SceneLoader(folders["webdataset"], batch_size=4, epochs=1):
        for scene, view, target, pose in zip(batch.scenes, batch.views[:, 0], batch.target, batch.query_pose):
            np.testing.assert_array_equal(target.numpy(), jpeg.decode(files[f"{scene:010d}.{view:02d}.jpg"]))
            cameras = np.load(io.BytesIO(files[f"{scene:010d}.cameras.npy"]))
            np.testing.assert_array_equal(pose.numpy(), poses_of(cameras)[view])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("container", CONTAINERS)
def test_masked_slots_are_zeros(folders: dict[str, Path], container: str, workers: int) -> None:
    masked = 0
    for batch in SceneLoader(folders[container], batch_size=7, context=(1, 4), epochs=2, workers=workers):
        empty = ~batch.context_mask
        masked += int(empty.sum())
        assert not batch.context_frames[empty].any()
        assert not batch.context_poses[empty].any()
        assert (batch.views[:, 1:][empty] == -1).all()
        assert batch.context_frames[~empty].flatten(1).any(1).all()
    assert masked > 20


def test_frames_are_resized_by_area(raw: Raw, zarr: Path) -> None:
    for batch in SceneLoader(zarr, batch_size=4, epochs=1, frame_size=8, context=(1, 4)):
        assert batch.target.shape == (4, 8, 8, 3)
        assert batch.context_frames.shape == (4, 4, 8, 8, 3)
        for slot, (scene, views) in enumerate(zip(batch.scenes.tolist(), batch.views.tolist())):
            shown = torch.cat([batch.target[slot, None], batch.context_frames[slot]]).numpy()
            for frame, view in zip(shown, views):
                if view < 0:
                    assert not frame.any()
                    continue
                mean = raw.train.frame(scene, view).reshape(8, 2, 8, 2, 3).mean((1, 3))
                assert np.abs(frame - mean).max() <= 0.5


def test_frames_are_resized_to_any_smaller_size(raw: Raw, zarr: Path) -> None:
    batch = next(iter(SceneLoader(zarr, batch_size=4, frame_size=5)))
    for slot, (scene, view) in enumerate(zip(batch.scenes.tolist(), batch.views[:, 0].tolist())):
        # Every old pixel is cut into 5 x 5, every new one covers 16 x 16 of these.
        fine = raw.train.frame(scene, view).repeat(5, 0).repeat(5, 1)
        mean = fine.reshape(5, 16, 5, 16, 3).mean((1, 3))
        assert np.abs(batch.target[slot].numpy() - mean).max() <= 0.5 + 1e-3


def test_frame_size_equal_to_the_size_of_frames_changes_nothing(zarr: Path) -> None:
    assert _stream(zarr, epochs=1, frame_size=SIZE) == _stream(zarr, epochs=1)


@pytest.mark.parametrize("container", ["tfrecord", "zarr", "webdataset"])
@pytest.mark.parametrize("frame_size", [None, 8])
def test_only_the_views_of_a_batch_are_decoded(
    folders: dict[str, Path], container: str, frame_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    decode_all_into = jpeg.decode_all_into

    def counted(jpegs: Sequence[bytes], out: np.ndarray) -> None:
        decoded.extend(jpegs)
        decode_all_into(jpegs, out)

    monkeypatch.setattr(jpeg, "decode_all_into", counted)
    used = 0
    for batch in SceneLoader(folders[container], batch_size=4, epochs=2, context=(1, 3), frame_size=frame_size):
        used += int((batch.views >= 0).sum())
    assert len(decoded) == used
    assert used < 2 * 20 * 4  # fewer than four views a scene in the mean


def test_a_batch_on_another_device_is_a_batch(zarr: Path) -> None:
    batch = next(iter(SceneLoader(zarr, batch_size=4)))
    assert _snapshot(batch.to("cpu")) == _snapshot(batch)
    moved = batch.to("meta")
    assert isinstance(moved, Batch)
    assert {part.device.type for part in moved} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory needs a GPU")
@pytest.mark.parametrize("workers", [0, 2])
def test_pinned_batches_are_the_same_batches(zarr: Path, workers: int) -> None:
    loader = SceneLoader(zarr, batch_size=4, epochs=1, seed=7, context=(1, 3), pin_memory=True, workers=workers)
    pinned = []
    for batch in loader:
        assert batch.context_frames.is_pinned()
        assert batch.target.is_pinned()
        pinned.append(_snapshot(batch))
    assert pinned == _stream(zarr, epochs=1)


@pytest.mark.parametrize("workers", [0, 2])
def test_earlier_batches_do_not_change(zarr: Path, workers: int) -> None:
    # many more than the loader has blocks of memory
    batches = list(SceneLoader(zarr, batch_size=4, seed=7, context=(1, 3), epochs=6, workers=workers))
    assert [_snapshot(batch) for batch in batches] == _stream(zarr, epochs=6)


@pytest.mark.parametrize("workers", [0, 2])
def test_one_tensor_keeps_the_memory_of_its_batch(zarr: Path, workers: int) -> None:
    targets = [batch.target for batch in SceneLoader(zarr, batch_size=4, seed=7, epochs=6, workers=workers)]
    again = [batch.target.clone() for batch in SceneLoader(zarr, batch_size=4, seed=7, epochs=6)]
    assert all(torch.equal(target, expected) for target, expected in zip(targets, again, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_memory_of_released_batches_is_reused(zarr: Path, workers: int) -> None:
    loader = SceneLoader(zarr, batch_size=4, seed=7, epochs=8, workers=workers)
    places = {batch.scenes.data_ptr() for batch in loader}
    assert len(places) < len(loader) * 8 / 2


# One stream


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("tail", ["drop", "exact"])
def test_the_stream_is_the_same_for_any_number_of_workers(zarr: Path, workers: int, tail: Any) -> None:
    alone = _stream(zarr, epochs=3, tail=tail)
    assert len(alone) == 3 * (5 if tail == "drop" else 6)
    assert len(set(alone)) == len(alone)
    assert _stream(zarr, epochs=3, tail=tail, workers=workers) == alone


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("container", CONTAINERS[1:])
def test_the_stream_is_the_same_from_every_container(folders: dict[str, Path], container: str, workers: int) -> None:
    in_place = _stream(folders["tfrecord"], epochs=2, tail="exact")
    assert _stream(folders[container], epochs=2, tail="exact", workers=workers) == in_place


def test_containers_of_the_same_scenes_share_a_fingerprint(folders: dict[str, Path], tmp_path: Path) -> None:
    fingerprints = {SceneLoader(folder, batch_size=4).fingerprint for folder in folders.values()}
    assert len(fingerprints) == 1
    other = index(write_raw(tmp_path / SET, seed=1).folder)
    assert SceneLoader(other, batch_size=4).fingerprint not in fingerprints


@pytest.mark.parametrize("workers", [0, 2])
def test_every_epoch_of_an_endless_stream_has_every_scene_once(zarr: Path, workers: int) -> None:
    loader = SceneLoader(zarr, batch_size=7, workers=workers)
    assert len(loader) == 3
    orders = []
    batches = iter(loader)
    for _ in range(5):
        order = [scene for batch in islice(batches, 3) for scene in batch.scenes.tolist()]
        assert sorted(order) == list(range(TRAIN))
        orders.append(tuple(order))
    loader.close()
    assert len(set(orders)) == 5


def test_a_scene_has_other_views_in_every_epoch(zarr: Path) -> None:
    seen: dict[int, set[tuple[int, ...]]] = {}
    for batch in SceneLoader(zarr, batch_size=7, epochs=12, context=(1, 4)):
        for scene, views in zip(batch.scenes.tolist(), batch.views.tolist()):
            seen.setdefault(scene, set()).add(tuple(views))
    assert all(len(choices) > 6 for choices in seen.values())


def test_an_incomplete_last_batch_is_dropped_or_short(zarr: Path) -> None:
    full = list(SceneLoader(zarr, batch_size=8, epochs=2))
    assert [len(batch.scenes) for batch in full] == [8, 8, 8, 8]
    for workers in (0, 2):
        loader = SceneLoader(zarr, batch_size=8, epochs=2, tail="exact", workers=workers)
        assert len(loader) == 3
        batches = list(loader)
        assert [len(batch.scenes) for batch in batches] == [8, 8, 5, 8, 8, 5]
        for epoch in (batches[:3], batches[3:]):
            assert sorted(torch.cat([batch.scenes for batch in epoch]).tolist()) == list(range(TRAIN))
        for place in (0, 1):
            assert _snapshot(batches[place]) == _snapshot(full[place])


def test_scenes_come_in_source_order_if_not_shuffled(zarr: Path) -> None:
    loader = SceneLoader(zarr, batch_size=4, shuffle=False, tail="exact", epochs=2)
    order = [scene for batch in loader for scene in batch.scenes.tolist()]
    assert order == 2 * list(range(TRAIN))
    shuffled = [scene for batch in SceneLoader(zarr, batch_size=4, epochs=1) for scene in batch.scenes.tolist()]
    assert shuffled != sorted(shuffled)


def test_the_choice_of_views_does_not_depend_on_batches_or_shuffling(zarr: Path) -> None:
    def chosen(**options: Any) -> dict[int, list[int]]:
        loader = SceneLoader(zarr, seed=3, context=(1, 4), epochs=1, tail="exact", **options)
        return {scene: views for batch in loader for scene, views in zip(batch.scenes.tolist(), batch.views.tolist())}

    expected = chosen(batch_size=4)
    assert len(expected) == TRAIN
    assert chosen(batch_size=9) == expected
    assert chosen(batch_size=4, shuffle=False) == expected


def test_another_seed_is_another_stream(zarr: Path) -> None:
    assert set(_stream(zarr, epochs=1)).isdisjoint(_stream(zarr, epochs=1, seed=8))


@pytest.mark.parametrize("ranks", [1, 2, 3, 6])
@pytest.mark.parametrize("tail", ["drop", "exact"])
@pytest.mark.parametrize("workers", [0, 1])
def test_the_slices_of_all_ranks_make_the_batch_of_one(zarr: Path, ranks: int, tail: Any, workers: int) -> None:
    options: dict[str, Any] = {"batch_size": 6, "seed": 7, "epochs": 2, "tail": tail}
    whole = list(SceneLoader(zarr, **options))
    slices = [list(SceneLoader(zarr, rank=rank, ranks=ranks, workers=workers, **options)) for rank in range(ranks)]
    assert len(whole) == (6 if tail == "drop" else 8)
    assert {len(stream) for stream in slices} == {len(whole)}
    for number, batch in enumerate(whole):
        joined = Batch(*(torch.cat(parts) for parts in zip(*(stream[number] for stream in slices))))
        assert _snapshot(joined) == _snapshot(batch)
        if tail == "drop":
            assert {len(stream[number].scenes) for stream in slices} == {6 // ranks}


def test_the_test_split_is_loaded_on_request(raw: Raw, zarr: Path) -> None:
    (batch,) = SceneLoader(zarr, batch_size=3, split="test", epochs=1)
    for slot, scene in enumerate(batch.scenes.tolist()):
        expected = raw.test.frame(scene, int(batch.views[slot, 0]))
        np.testing.assert_array_equal(batch.target[slot].numpy(), expected)


def test_a_path_that_names_one_split_is_not_read_as_the_other(zarr: Path) -> None:
    assert SceneLoader(zarr / "train", batch_size=2).scenes == TRAIN
    assert SceneLoader(zarr / "test", batch_size=2, split="test").scenes == 3
    with pytest.raises(OptionError, match=r"the split test, expected train"):
        SceneLoader(zarr / "test", batch_size=2)


def test_the_default_context_is_that_of_the_paper(zarr: Path) -> None:
    # Eslami et al. 2018 give up to 20 context views of a Shepard-Metzler object; these scenes have five views.
    assert SceneLoader(zarr, batch_size=2).context == (1, VIEWS - 1)


def test_torch_global_random_state_is_not_touched(zarr: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for workers in (0, 2):
        for _ in SceneLoader(zarr, batch_size=4, epochs=1, workers=workers):
            pass
        assert torch.equal(torch.get_rng_state(), before)


def test_the_stream_does_not_depend_on_the_global_random_state(zarr: Path) -> None:
    streams = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002  it is the global state that is meant
        streams.append(_stream(zarr, epochs=1, workers=seed))
    assert streams[0] == streams[1]


# Interruptions


@pytest.mark.parametrize(("first", "then"), [(0, 0), (2, 0), (0, 1), (1, 2)])
def test_a_stream_resumes_at_any_batch_as_if_uninterrupted(zarr: Path, first: int, then: int) -> None:
    options: dict[str, Any] = {"batch_size": 4, "seed": 7, "context": (1, 3), "epochs": 2, "tail": "exact"}
    whole = _stream(zarr, **options)
    states = [json.dumps(SceneLoader(zarr, workers=first, **options).state_dict())]
    loader = SceneLoader(zarr, workers=first, **options)
    states += [json.dumps(loader.state_dict()) for _ in loader]
    assert len(states) == len(whole) + 1
    for given, state in enumerate(states):
        resumed = SceneLoader(zarr, workers=then, **options)
        resumed.load_state_dict(json.loads(state))
        assert json.dumps(resumed.state_dict()) == state
        at_the_end = given == len(whole)
        with pytest.warns(UserWarning, match="at the end of 2 epochs") if at_the_end else contextlib.nullcontext():
            assert [_snapshot(batch) for batch in resumed] == whole[given:]


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_stream_resumes_from_another_container(folders: dict[str, Path], container: str) -> None:
    loader = SceneLoader(folders["zarr"], batch_size=4, seed=7, context=(1, 3))
    for _ in islice(loader, 7):
        pass
    resumed = SceneLoader(folders[container], batch_size=4, seed=7, context=(1, 3))
    resumed.load_state_dict(loader.state_dict())
    assert [_snapshot(batch) for batch in islice(resumed, 4)] == _stream(folders["zarr"], 11)[7:]


def test_a_stream_resumes_with_another_number_of_ranks(zarr: Path) -> None:
    options: dict[str, Any] = {"batch_size": 6, "seed": 7}
    loader = SceneLoader(zarr, rank=1, ranks=3, **options)
    for _ in islice(loader, 4):
        pass
    parts = []
    for rank in range(2):
        resumed = SceneLoader(zarr, rank=rank, ranks=2, **options)
        resumed.load_state_dict(loader.state_dict())
        parts.append(next(iter(resumed)))
    whole = _stream(zarr, 5, context=(1, 4), **options)[4]
    assert _snapshot(Batch(*(torch.cat(pair) for pair in zip(*parts)))) == whole


def test_a_position_far_ahead_is_reached_at_once(zarr: Path) -> None:
    loader = SceneLoader(zarr, batch_size=4)
    loader.load_state_dict({**loader.state_dict(), "epoch": 10**9, "batches": 4})
    batches = iter(loader)
    next(batches)
    assert loader.state_dict()["epoch"] == 10**9 + 1
    assert loader.state_dict()["batches"] == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"seed": 8}, "seed 7, here 8"),
        ({"batch_size": 5}, "batch_size 4, here 5"),
        ({"context": (1, 2)}, "context '1-3', here '1-2'"),
        ({"shuffle": False}, "shuffle 1, here 0"),
        ({"tail": "exact"}, "tail 'drop', here 'exact'"),
        ({"split": "test", "batch_size": 2}, "split 'train', here 'test'"),
    ],
)
def test_a_state_of_another_stream_is_refused_with_the_difference(
    zarr: Path, options: dict[str, Any], named: str
) -> None:
    base: dict[str, Any] = {"batch_size": 4, "seed": 7, "context": (1, 3)}
    state = SceneLoader(zarr, **base).state_dict()
    other = SceneLoader(zarr, **{**base, **options})
    with pytest.raises(OptionError, match=named):
        other.load_state_dict(state)


def test_a_state_of_another_dataset_is_refused(zarr: Path, tmp_path: Path) -> None:
    other = index(write_raw(tmp_path / SET, seed=1).folder)
    state = SceneLoader(other, batch_size=4).state_dict()
    loader = SceneLoader(zarr, batch_size=4)
    with pytest.raises(OptionError, match=f"dataset '{state['dataset']}', here '{loader.fingerprint}'"):
        loader.load_state_dict(state)


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": -1},
        {"epoch": "1"},
        {"epoch": 1.5},
        {"epoch": None},
        {"epoch": True},
        {"batches": -1},
        {"batches": 5},
        {"batches": "0"},
        {"batches": None},
        {"batches": 0.0},
        {"batches": False},
        {"seed": None},
        {"dataset": ""},
    ],
)
def test_a_malformed_state_is_refused_and_changes_nothing(zarr: Path, change: dict[str, Any]) -> None:
    loader = SceneLoader(zarr, batch_size=4, seed=7, context=(1, 3))
    next(iter(loader))
    before = loader.state_dict()
    with pytest.raises(OptionError, match="state"):
        loader.load_state_dict({**before, **change})
    assert loader.state_dict() == before
    assert _snapshot(next(iter(loader))) == _stream(zarr, 2)[1]


@pytest.mark.parametrize("missing", ["dataset", "seed", "epoch", "batches"])
def test_an_incomplete_state_is_refused(zarr: Path, missing: str) -> None:
    loader = SceneLoader(zarr, batch_size=4)
    state = loader.state_dict()
    del state[missing]
    with pytest.raises(OptionError, match=missing):
        loader.load_state_dict(state)


def test_one_loader_resumes_streams_of_several_numbers_of_windows(zarr: Path) -> None:
    loader = SceneLoader(zarr, batch_size=4)
    shards = len(loader.dataset.shards)
    assert shards > 2
    for window in (1, 2, shards, 1):
        of_windows = SceneLoader(zarr, batch_size=4, window=window)
        loader.load_state_dict(of_windows.state_dict())
        assert _snapshot(next(iter(loader))) == _snapshot(next(iter(of_windows)))


@pytest.mark.parametrize("state", [None, [], "epoch", {}])
def test_a_value_that_is_not_a_state_is_refused(zarr: Path, state: Any) -> None:
    with pytest.raises(OptionError, match="state"):
        SceneLoader(zarr, batch_size=4).load_state_dict(state)


def test_the_state_counts_a_batch_as_soon_as_it_is_yielded(zarr: Path) -> None:
    loader = SceneLoader(zarr, batch_size=4, workers=2, epochs=2)
    assert (loader.state_dict()["epoch"], loader.state_dict()["batches"]) == (0, 0)
    places = []
    for _ in loader:
        state = loader.state_dict()
        places.append((state["epoch"], state["batches"]))
    assert places == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (1, 1), (1, 2), (1, 3), (1, 4), (2, 0)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loop_that_was_left_early_resumes_from_there(zarr: Path, workers: int) -> None:
    whole = _stream(zarr, 9)
    loader = SceneLoader(zarr, batch_size=4, seed=7, context=(1, 3), workers=workers)
    given = []
    for count in (1, 3, 2):
        for number, batch in enumerate(loader, 1):
            given.append(_snapshot(batch))
            if number == count:
                break
    loader.close()
    assert not own_children()
    given += [_snapshot(batch) for batch in islice(loader, 3)]
    loader.close()
    assert given == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_at_its_end_can_be_iterated_again(zarr: Path, workers: int) -> None:
    loader = SceneLoader(zarr, batch_size=4, seed=7, context=(1, 3), workers=workers, epochs=1)
    first = [_snapshot(batch) for batch in loader]
    assert len(first) == 5
    assert [_snapshot(batch) for batch in loader] == first == _stream(zarr, 5)


# Processes


def _leave_by_break(loader: SceneLoader) -> None:
    for _ in loader:
        break


def _leave_by_close(loader: SceneLoader) -> None:
    batches = iter(loader)
    next(batches)
    assert len(own_children()) == 2
    loader.close()
    assert list(batches) == []


def _leave_by_error(loader: SceneLoader) -> None:
    def fail() -> None:
        for _ in loader:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    loader.close()


def _leave_before_the_first_batch(loader: SceneLoader) -> None:
    iter(loader)
    loader.close()
    loader.close()


def _leave_by_a_new_state(loader: SceneLoader) -> None:
    next(iter(loader))
    loader.load_state_dict(loader.state_dict())


def _leave_at_the_end(loader: SceneLoader) -> None:
    loader.epochs = 1
    for _ in loader:
        pass


@pytest.mark.parametrize(
    "leave",
    [
        _leave_by_break,
        _leave_by_close,
        _leave_by_error,
        _leave_before_the_first_batch,
        _leave_by_a_new_state,
        _leave_at_the_end,
    ],
)
def test_no_worker_outlives_its_loop(zarr: Path, leave: Callable[[SceneLoader], None]) -> None:
    loader = SceneLoader(zarr, batch_size=4, workers=2)
    leave(loader)
    assert not own_children()


def test_no_worker_outlives_its_released_iterator(zarr: Path) -> None:
    batches = iter(SceneLoader(zarr, batch_size=4, workers=2))
    next(batches)
    assert len(own_children()) == 2
    gc.disable()  # a reference cycle would keep the workers until a collection
    try:
        del batches
        assert not own_children()
    finally:
        gc.enable()


@pytest.mark.parametrize("container", CONTAINERS)
def test_files_opened_before_a_fork_are_read_concurrently(folders: dict[str, Path], container: str) -> None:
    expected = _stream(folders[container], epochs=6)
    loader = SceneLoader(folders[container], batch_size=4, seed=7, context=(1, 3), epochs=6, workers=3)
    # The parent has every file open and reads, too: a shared file position would be moved.
    known = [scene.frames for scene in loader.dataset]
    given = []
    for number, batch in enumerate(loader):
        given.append(_snapshot(batch))
        np.testing.assert_array_equal(loader.dataset[number % TRAIN].frames, known[number % TRAIN])
    assert given == expected


@pytest.mark.parametrize("container", CONTAINERS)
def test_threads_read_one_dataset_concurrently(raw: Raw, folders: dict[str, Path], container: str) -> None:
    dataset = gqn_data.open(folders[container])

    def frames(scene: int) -> np.ndarray:
        out = np.empty((VIEWS, SIZE, SIZE, 3), np.uint8)
        cameras = dataset.decode_into(scene, range(VIEWS), out)
        np.testing.assert_array_equal(cameras, raw.train.cameras[scene])
        return out

    with ThreadPoolExecutor(4) as executor:
        for scene, out in zip(list(range(TRAIN)) * 5, executor.map(frames, list(range(TRAIN)) * 5)):
            np.testing.assert_array_equal(out, [raw.train.frame(scene, view) for view in range(VIEWS)])


# Faults


def _damage(folder: Path, container: str, raw: Raw, scene: int, view: int) -> Path:
    """Overwrite the first bytes of one frame and return its file."""
    encoded = raw.train.jpegs[scene][view]
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            at = data.find(encoded)
            if at >= 0:
                path.write_bytes(data[:at] + b"\0\0\0\0" + data[at + 4 :])
                return path
    raise LookupError(f"{container} does not hold the frame")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("container", ["tfrecord", "zarr", "webdataset"])
def test_a_corrupt_frame_is_reported_with_its_file_at_its_batch(
    raw: Raw, folders: dict[str, Path], container: str, workers: int, tmp_path: Path
) -> None:
    folder = _copy(folders[container], tmp_path / SET)
    damaged = _damage(folder, container, raw, scene=9, view=2)
    options: dict[str, Any] = {"batch_size": 4, "seed": 7, "context": (4, 4), "epochs": 1, "tail": "exact"}
    expected = list(SceneLoader(folders[container], **options))
    turn = next(number for number, batch in enumerate(expected) if 9 in batch.scenes.tolist())
    assert turn > 0
    loader = SceneLoader(folder, workers=workers, **options)
    given = []
    with pytest.raises(ShardChecksumError) as caught:
        given.extend(_snapshot(batch) for batch in loader)
    message = str(caught.value)
    assert str(damaged) in message
    assert "view 2" in message
    assert "cannot be decoded" in message
    assert "\n" not in message
    # `extend` keeps the batches before the error; the position is the failed batch.
    assert given == [_snapshot(batch) for batch in expected[:turn]]
    assert loader.state_dict()["batches"] == turn
    assert not own_children()
    with pytest.raises(ShardChecksumError):
        next(iter(loader))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_file_cut_short_is_reported_with_its_name(
    folders: dict[str, Path], container: str, workers: int, tmp_path: Path
) -> None:
    folder = _copy(folders[container], tmp_path / SET)
    cut = folder / gqn_data.open(folder).manifest.splits["train"].shards[-1].files[0].name
    with cut.open("r+b") as file:
        file.truncate(cut.stat().st_size - 100)
    loader = SceneLoader(folder, batch_size=4, epochs=1, workers=workers, tail="exact")
    with pytest.raises(ShardChecksumError, match=f"{cut.name}.*bytes"):
        list(loader)
    assert not own_children()


def test_an_error_from_a_worker_is_the_error_itself(zarr: Path, tmp_path: Path) -> None:
    folder = _copy(zarr, tmp_path / SET)
    shutil.rmtree(folder / "train" / "frames" / "c")
    messages = []
    for workers in (0, 1):
        with pytest.raises(ShardChecksumError, match="listed in the manifest and absent") as caught:
            next(iter(SceneLoader(folder, batch_size=4, workers=workers)))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 22}, r"21 train scenes are fewer than a batch of 22.*tail='pad'"),
        ({"batch_size": 4, "split": "test"}, r"3 test scenes are fewer than a batch of 4"),
        ({"batch_size": 0}, r"batch_size is 0, expected 1 or more"),
        ({"batch_size": -4}, r"batch_size is -4, expected 1 or more"),
        ({"workers": -1}, r"workers is -1, expected 0 or more"),
        ({"ranks": 0}, r"ranks is 0, expected 1 or more"),
        ({"ranks": 3}, r"batch_size is 4, expected a multiple of ranks, 3"),
        ({"ranks": 2, "rank": 2}, r"rank is 2, expected 0 to 1"),
        ({"ranks": 2, "rank": -1}, r"rank is -1, expected 0 to 1"),
        ({"epochs": 0}, r"epochs is 0, expected 1 or more"),
        ({"context": (1, 5)}, r"need 6 views; a scene has 5: ask for at most 4"),
        ({"context": (0, 2)}, r"context views 0 to 2: expected 1 <= smallest <= largest"),
        ({"context": (3, 2)}, r"context views 3 to 2: expected 1 <= smallest <= largest"),
        ({"frame_size": 17}, r"frame_size is 17, expected 16 or less"),
        ({"frame_size": 0}, r"frame_size is 0, expected 1 or more"),
    ],
)
def test_options_that_the_dataset_does_not_allow_are_refused(zarr: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        SceneLoader(zarr, **{"batch_size": 4, **options})


def test_fewer_scenes_than_a_batch_are_one_short_batch(zarr: Path) -> None:
    loader = SceneLoader(zarr, batch_size=100, tail="exact", epochs=2)
    assert len(loader) == 1
    assert [sorted(batch.scenes.tolist()) for batch in loader] == 2 * [list(range(TRAIN))]


def test_scenes_of_one_view_have_no_context_and_are_refused(tmp_path: Path) -> None:
    folder = index(write_raw(tmp_path / SET, train=(4,), test=(1,), views=1).folder)
    for options in ({}, {"context": (1, 1)}):
        with pytest.raises(OptionError, match="a scene has 1 view, expected at least 2"):
            SceneLoader(folder, batch_size=2, **options)  # type: ignore[arg-type]


def test_a_path_without_a_dataset_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="no such folder"):
        SceneLoader(tmp_path / "nowhere", batch_size=2)
    folder = write_raw(tmp_path / SET, train=(2,), test=(1,)).folder
    with pytest.raises(GQNError, match="gqn-data index"):
        SceneLoader(folder, batch_size=2)


# DeepMind's own scenes


@pytest.mark.skipif(not MAZES.is_dir(), reason="DeepMind's mazes are not beside the project (shared/data/mazes)")
def test_deepmind_mazes_give_identical_batches_from_all_containers(tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "mazes"
    for path in MAZES.rglob("*.tfrecord"):
        to = raw / path.relative_to(MAZES)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
    index(raw, "mazes")
    folders = [raw]
    for container in ("zarr", "numpy", "webdataset"):
        folders.append(convert_to(container, raw, tmp_path, name="mazes", shard_bytes=4 << 20))
    for split, scenes in (("train", 8), ("test", 4)):
        options: dict[str, Any] = {"split": split, "batch_size": 4, "epochs": 2, "context": (1, 20)}
        streams = [_stream(folder, **options) for folder in folders]
        assert len(streams[0]) == 2 * scenes // 4
        assert streams[1] == streams[0]
        assert streams[2] == streams[0]
        assert streams[3] == streams[0]
        assert _stream(folders[1], workers=2, **options) == streams[0]
    loader = SceneLoader(raw, batch_size=8)
    assert loader.context == (1, 20)  # as in the paper
    batch = next(iter(loader))
    assert batch.target.shape == (8, 84, 84, 3)
    assert int(batch.views.max()) > 40  # not only the first of the 300 views of a walk


def test_waited_counts_only_until_a_batch_is_ready(zarr: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class Clock:
        @staticmethod
        def perf_counter() -> float:
            return now

    loader = SceneLoader(zarr, batch_size=4, epochs=1)
    making = loader._maker.make

    def slow(*arguments: Any, **options: Any) -> Any:
        nonlocal now
        now += 3.0
        return making(*arguments, **options)

    monkeypatch.setattr("gqn_data.loader.loader.time", Clock)
    monkeypatch.setattr(loader._maker, "make", slow)
    for number, _ in enumerate(loader, start=1):
        assert loader.waited == 3.0 * number
        now += 100.0  # the consumer's own work
