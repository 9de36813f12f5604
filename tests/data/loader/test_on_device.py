"""Batches on a device: their content, the memory that they hold, and the state of the loader."""

from __future__ import annotations

import multiprocessing
import weakref
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
from loader_fixtures import SET, convert_to, write_raw

from gqn_data.loader import Batch, SceneLoader, on_device

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="copies overlap only with the work of a GPU")


@pytest.fixture(scope="module")
def zarr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    return convert_to("zarr", write_raw(root / "raw" / SET).folder, root)


def _loader(path: Path, **options: object) -> SceneLoader:
    return SceneLoader(path, **{"batch_size": 4, "seed": 7, "context": (1, 3), **options})  # type: ignore[arg-type]


def _same(batch: Batch, other: Batch) -> bool:
    return all(torch.equal(part, another) for part, another in zip(batch, other, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_on_the_cpu_batches_are_passed_through_unchanged(zarr: Path, workers: int) -> None:
    batches = list(_loader(zarr, epochs=2, workers=workers))
    passed = list(on_device(batches, "cpu"))
    assert all(part is another for one, two in zip(batches, passed, strict=True) for part, another in zip(one, two))
    direct = list(on_device(_loader(zarr, epochs=2, workers=workers), "cpu"))
    assert all(map(_same, direct, batches))
    assert len(direct) == len(batches) == 10


def test_batches_on_a_device_are_not_read_in_advance(zarr: Path) -> None:
    loader = _loader(zarr)
    batches = on_device(loader, "cpu")
    for count in (1, 2, 3):
        next(batches)
        assert loader.state_dict()["batches"] == count


def test_no_batch_is_held_while_waiting_for_the_next(zarr: Path) -> None:
    left = []

    def counted() -> Iterator[Batch]:
        for batch in islice(_loader(zarr), 3):
            frames = weakref.ref(batch.frames)
            yield batch
            del batch
            left.append(frames() is not None)

    for batch in on_device(counted(), "cpu"):
        del batch
    assert left == [False, False, False]


def test_no_worker_outlives_a_loop_that_was_left(zarr: Path) -> None:
    for _ in on_device(_loader(zarr, workers=2), "cpu"):
        assert len(multiprocessing.active_children()) == 2
        break
    assert not multiprocessing.active_children()


def test_batches_on_another_device_are_batches(zarr: Path) -> None:
    batch = next(on_device(_loader(zarr), "meta"))
    assert isinstance(batch, Batch)
    assert {part.device.type for part in batch} == {"meta"}


@needs_gpu
@pytest.mark.parametrize("pinned", [False, True])
def test_batches_on_a_gpu_equal_those_of_the_loader(zarr: Path, pinned: bool) -> None:
    expected = list(_loader(zarr, epochs=6))
    given = []
    for batch in on_device(_loader(zarr, epochs=6, workers=2, pin_memory=pinned), "cuda"):
        assert {part.device.type for part in batch} == {"cuda"}
        torch.cuda._sleep(2_000_000)  # copies could overtake this work and overwrite its memory
        given.append(Batch(*(part.clone() for part in batch)))
    assert all(map(_same, (batch.to("cpu") for batch in given), expected))
    assert len(given) == len(expected)


@needs_gpu
def test_a_copy_does_not_wait_for_earlier_work(zarr: Path) -> None:
    batches = on_device(islice(_loader(zarr), 3), "cuda")
    next(batches)
    torch.cuda.synchronize()
    torch.cuda._sleep(4_000_000_000)  # seconds of work, queued and not waited for
    worked = torch.cuda.current_stream().record_event()
    next(batches)
    assert not worked.query()
    torch.cuda.synchronize()
