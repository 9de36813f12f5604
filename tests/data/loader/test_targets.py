"""Several targets a scene: distinct, outside the context, beside the stream of one target."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loader_fixtures import SET, SIZE, Raw, convert_to, index, write_raw
from loader_streams import hold_against, joined, rows_of, snapshot, taken

from gqn_data.errors import OptionError
from gqn_data.loader import Batch, SceneLoader, on_device
from gqn_data.schema import jpeg

VIEWS = 8
TRAIN = 21

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Raw:
    made = write_raw(tmp_path_factory.mktemp("scenes") / SET, views=VIEWS)
    index(made.folder)
    return made


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Raw:
    """Make a dataset of 6 views."""
    made = write_raw(tmp_path_factory.mktemp("other") / SET, train=(9,), views=6, seed=1)
    index(made.folder)
    return made


@pytest.fixture(scope="module")
def zarr(raw: Raw, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_to("zarr", raw.folder, tmp_path_factory.mktemp("zarr"))


@pytest.mark.parametrize("targets", [2, 4])
@pytest.mark.parametrize("per", ["scene", "batch"])
@pytest.mark.parametrize("tail", ["drop", "pad"])
def test_targets_are_queries_beside_the_stream_of_one(raw: Raw, zarr: Path, targets: int, per: Any, tail: Any) -> None:
    options: dict[str, Any] = {"batch_size": 4, "context": (1, 4), "context_per": per, "tail": tail, "epochs": 2}
    loader = SceneLoader(zarr, targets=targets, workers=1, **options)
    assert loader.targets == targets
    padded = 0
    for batch, one in zip(loader, SceneLoader(zarr, **options), strict=True):
        assert isinstance(batch, Batch)
        hold_against(batch, [raw.train])
        assert batch.target.shape == (4, targets, SIZE, SIZE, 3)
        assert batch.query_pose.shape == (4, targets, 7)
        assert batch.queries.tolist() == batch.views[:, :targets].tolist()  # type: ignore[attr-defined]
        for name in ("context_frames", "context_poses", "context_mask", "scenes", "datasets", "valid"):
            assert torch.equal(getattr(batch, name), getattr(one, name))
        assert torch.equal(batch.target[:, 0], one.target)
        assert torch.equal(batch.query_pose[:, 0], one.query_pose)
        for _, scene, views in rows_of(batch):
            used = [view for view in views if view >= 0]
            assert len(set(used)) == len(used) >= (targets + 1 if scene >= 0 else 0)
            assert scene < 0 or min(views[:targets]) >= 0
        padded += int((~batch.valid).sum())
        assert not batch.target[~batch.valid].any()
    assert padded == (6 if tail == "pad" else 0)


def test_one_target_has_the_batches_and_the_state_of_none_given(zarr: Path) -> None:
    one: Any = np.int64(1)
    plain, one = SceneLoader(zarr, batch_size=4, epochs=1), SceneLoader(zarr, batch_size=4, epochs=1, targets=one)
    assert plain.state_dict() == one.state_dict()
    assert "targets" not in one.state_dict()
    batches = list(one)
    assert {(type(batch), len(batch)) for batch in batches} == {(Batch, 5)}
    assert [*map(snapshot, batches)] == taken(plain)


def _mixed(raw: Raw, other: Raw, **options: Any) -> SceneLoader:
    return SceneLoader({raw.folder: 2, other.folder: 1}, batch_size=6, epochs=2, epoch_scenes=27, **options)


@pytest.mark.parametrize("per", ["scene", "batch"])
def test_targets_of_a_mixture_are_equal_for_workers_ranks_and_resuming(raw: Raw, other: Raw, per: Any) -> None:
    options: dict[str, Any] = {"targets": 3, "context": (1, 3), "context_per": per, "tail": "pad", "seed": 3}
    whole = list(_mixed(raw, other, **options))
    assert sum(hold_against(batch, [raw.train, other.train]) for batch in whole) > 0
    assert {batch.target.shape[1] for batch in whole} == {3}
    alone = [*map(snapshot, whole)]
    assert taken(_mixed(raw, other, workers=2, **options)) == alone
    before = _mixed(raw, other, rank=1, ranks=2, **options)
    taken(before, 4)
    shares: list[Sequence[Batch]] = []
    for rank in range(3):
        resumed = _mixed(raw, other, rank=rank, ranks=3, workers=1, **options)
        resumed.load_state_dict(before.state_dict())
        shares.append(list(resumed))
    assert [snapshot(joined(parts)) for parts in zip(*shares, strict=True)] == alone[4:]


def test_targets_are_equal_in_windows_of_any_container(raw: Raw, zarr: Path) -> None:
    options: dict[str, Any] = {"batch_size": 4, "targets": 4, "context": (1, 4), "window": 1, "epochs": 1}
    assert taken(SceneLoader(zarr, **options)) != taken(SceneLoader(zarr, **{**options, "window": None}))
    windowed, again = (SceneLoader(raw.folder, workers=workers, **options) for workers in (0, 2))
    assert taken(windowed) == taken(again)


def test_samples_list_all_targets_of_a_row_before_its_context(raw: Raw, zarr: Path) -> None:
    samples = [[3, 0, 7, 1, 4], [20, 5, 2, 0, -1], [3, 6, 0, 7, 2]]
    (batch,) = SceneLoader(zarr, batch_size=3, targets=2, samples=samples, epochs=1)
    assert [[scene, *views] for _, scene, views in rows_of(batch)] == samples
    assert batch.target.shape[:2] == batch.context_frames.shape[:2] == (3, 2)
    assert hold_against(batch, [raw.train]) == 11
    assert batch.context_mask.tolist() == [[True, True], [True, False], [True, True]]


def test_only_the_targets_and_the_context_are_decoded(zarr: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []
    decode_all_into = jpeg.decode_all_into

    def counted(jpegs: Sequence[bytes], out: np.ndarray) -> None:
        decoded.extend(jpegs)
        decode_all_into(jpegs, out)

    monkeypatch.setattr(jpeg, "decode_all_into", counted)
    used = sum(
        int((batch.views >= 0).sum()) for batch in SceneLoader(zarr, batch_size=3, targets=3, context=(1, 2), epochs=1)
    )
    assert len(decoded) == used
    assert TRAIN * 4 < used < TRAIN * 5


def test_a_batch_keeps_its_targets_in_slices_copies_and_moves(zarr: Path) -> None:
    (batch,) = islice(SceneLoader(zarr, batch_size=4, targets=3, context=(2, 2)), 1)
    for other in (
        batch.to("cpu"),
        pickle.loads(pickle.dumps(batch)),
        copy.deepcopy(batch),
        batch._replace(scenes=batch.scenes),
        *on_device([batch], "cpu"),
    ):
        assert type(other) is type(batch)
        assert snapshot(other) == snapshot(batch)
        assert torch.equal(other.target, batch.target)
    half = type(batch)(*(part[:2] for part in batch))
    assert half.target.shape[:2] == (2, 3)
    assert half.context_poses.shape[:2] == (2, 2)
    assert batch.to("meta").query_pose.shape == (4, 3, 7)
    assert "queries" in repr(batch)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory needs a GPU")
def test_targets_in_pinned_memory_are_copied_to_the_gpu(zarr: Path) -> None:
    options: dict[str, Any] = {"batch_size": 4, "targets": 2, "epochs": 1}
    pinned = SceneLoader(zarr, pin_memory=True, **options)
    for batch, expected in zip(on_device(pinned, "cuda"), SceneLoader(zarr, **options), strict=True):
        assert snapshot(batch.to("cpu")) == snapshot(expected)


def test_the_default_context_leaves_views_for_the_targets(zarr: Path) -> None:
    assert SceneLoader(zarr, batch_size=4, targets=2).context == (1, 6)
    assert SceneLoader(zarr, batch_size=4, targets=6).context == (1, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"targets": 4, "context": (1, 5)},
            r"1 to 5 and 4 targets need 9 views; a scene has 8: .*4 context.*3 targets",
        ),
        ({"targets": 8}, r"context views 1 to 1 and 8 targets need 9 views; a scene has 8: ask for at most 7 targets"),
        ({"targets": 2, "context": "all"}, r"targets is 2, but context='all' asks no queries"),
        ({"targets": 0}, r"targets is 0, expected 1 or more"),
        ({"targets": 2.0}, r"targets is 2\.0, expected an integer"),
        ({"targets": 2, "samples": [[0, 1, 2]]}, r"\(N, 3 \+ K\): scene, 2 queries, context"),
        (
            {"targets": 2, "samples": [[0, 1, -1, 2]]},
            r"sample 0 is \[0, 1, -1, 2\].*2 queries and at least one context",
        ),
        (
            {"targets": 2, "samples": [[0, 1, 2, -1]]},
            r"sample 0 is \[0, 1, 2, -1\].*2 queries and at least one context",
        ),
        ({"targets": 2, "samples": [[0, 1, 1, 2]]}, r"sample 0 is \[0, 1, 1, 2\].*all different"),
    ],
)
def test_targets_that_the_scenes_do_not_allow_are_refused(zarr: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        SceneLoader(zarr, **{"batch_size": 1, **options})


def test_the_fewest_views_of_a_mixture_limit_the_targets(raw: Raw, other: Raw) -> None:
    with pytest.raises(OptionError, match=r"1 to 4 and 3 targets need 7 views; a scene has 6"):
        _mixed(raw, other, targets=3, context=(1, 4))
