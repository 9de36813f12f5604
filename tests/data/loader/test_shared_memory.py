"""The ring of shared memory: blocks are reused, also if the consumer holds many, and leave nothing behind."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import memory_tasks
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loader_fixtures import SET, index, write_raw
from processes import named_memory

from gqn_data.loader import SceneLoader
from gqn_data.loader.shared_memory import Ring

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

SIZE = 5000


def _ring(under_way: int = 1, spare: int = 2) -> Ring:
    return Ring(under_way=under_way, spare=spare, size=SIZE)


def _handed_out(ring: Ring, value: int) -> np.ndarray:
    number = ring.take()
    ring.block(number)[:SIZE] = value
    return ring.hand_out(number)


def _lies_in(ring: Ring, array: np.ndarray) -> bool:
    return any(np.shares_memory(ring.block(number), array) for number in range(3))


def test_a_block_has_the_requested_size_and_begins_on_a_page() -> None:
    ring = _ring()
    addresses = [ring.block(number).__array_interface__["data"][0] for number in range(3)]
    assert all(address % 4096 == 0 for address in addresses)
    assert all(len(ring.block(number)) >= SIZE for number in range(3))
    assert len({address // 8192 for address in addresses}) == 3


def test_a_block_is_free_when_the_last_tensor_on_it_is_gone() -> None:
    ring = _ring()
    address = (array := _handed_out(ring, 1)).__array_interface__["data"][0]
    tensor = torch.from_numpy(array)
    part, again = tensor[10:20].view(2, 5)[1], tensor.numpy()[3:]
    others = [_handed_out(ring, 2), _handed_out(ring, 3)]
    del others
    # Any array that is left on the block keeps it from being taken.
    for left in ("array", "tensor", "part"):
        match left:
            case "array":
                del array
            case "tensor":
                del tensor
            case "part":
                del part
        for value in range(20):
            assert _handed_out(ring, 50 + value).__array_interface__["data"][0] != address
        assert (again == 1).sum() == SIZE - 3
    del again
    addresses = set()
    for value in range(6):
        addresses.add(_handed_out(ring, value).__array_interface__["data"][0])
    assert address in addresses


def test_no_python_code_runs_when_a_block_is_released() -> None:
    # A Ctrl-C that arrives in such code is printed and ignored: a loop over batches would continue.
    ring = _ring()
    array = _handed_out(ring, 1)
    tensor, called = torch.from_numpy(array), []
    del array

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called.append(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        del tensor
    finally:
        sys.setprofile(None)
    assert called == []


def test_a_consumer_that_holds_too_many_blocks_gets_copies() -> None:
    ring = _ring(under_way=1, spare=2)
    held = [_handed_out(ring, value) for value in range(10)]
    assert [_lies_in(ring, array) for array in held] == [True, True] + [False] * 8
    for value, array in enumerate(held):
        assert (array[:SIZE] == value).all()
    del held, array
    assert _lies_in(ring, _handed_out(ring, 1))


@given(
    under_way=st.integers(1, 4),
    spare=st.integers(0, 3),
    steps=st.lists(st.tuples(st.sampled_from(["take", "hand out", "let go"]), st.integers(0, 100)), max_size=60),
)
def test_no_two_users_ever_share_a_block(under_way: int, spare: int, steps: list[tuple[str, int]]) -> None:
    ring = Ring(under_way=under_way, spare=spare, size=64)
    taken: list[tuple[int, int]] = []
    held: list[tuple[np.ndarray, int]] = []
    for value, (what, which) in enumerate(steps):
        if what == "take" and len(taken) < under_way:
            # a block is always free, for any number held
            number = ring.take()
            assert number not in [other for other, _ in taken]
            ring.block(number)[:] = value
            taken.append((number, value))
        elif what == "hand out" and taken:
            number, written = taken.pop(0)
            held.append((ring.hand_out(number), written))
        elif what == "let go" and held:
            held.pop(which % len(held))
        for array, written in held:
            assert (array == written).all()
        for number, written in taken:
            assert (ring.block(number) == written).all()
        assert sum(np.shares_memory(ring._memory.array, array) for array, _ in held) <= spare


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_the_parent_reads_what_a_child_wrote(start: Any) -> None:
    ring = _ring(under_way=3)
    numbers = [ring.take() for _ in range(3)]
    children = [
        multiprocessing.get_context(start).Process(target=memory_tasks.fill, args=(ring, number, 100 + number, SIZE))
        for number in numbers
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    for number in numbers:
        assert (ring.hand_out(number)[:SIZE] == 100 + number).all()


def test_memory_outlives_its_ring_while_an_array_is_on_it() -> None:
    ring = _ring()
    array = _handed_out(ring, 9)
    del ring
    gc.collect()
    others = [_handed_out(_ring(), 3) for _ in range(5)]
    assert (array[:SIZE] == 9).all()
    assert len(others) == 5


def test_a_ring_has_no_name_and_is_closed_with_its_last_user() -> None:
    before = _descriptors()
    ring = _ring()
    opened = _descriptors() - before
    assert opened
    assert all(name.endswith("(deleted)") for name in opened)
    assert not named_memory(os.getpid())
    del ring
    assert _descriptors() == before


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index(write_raw(tmp_path_factory.mktemp("scenes") / SET, train=(12,)).folder)


@pytest.mark.parametrize("workers", [0, 1])
def test_many_loaders_leave_no_descriptor_and_no_mapping(folder: Path, workers: int) -> None:
    def once() -> None:
        loader = SceneLoader(folder, batch_size=4, workers=workers, epochs=1)
        assert len(list(loader)) == 3
        next(iter(loader))
        loader.close()

    once()
    gc.collect()
    descriptors, mappings = _descriptors(), _mappings()
    for _ in range(15):
        once()
    gc.collect()
    assert _descriptors() == descriptors
    assert _mappings() == mappings == 0


def test_the_files_of_a_released_dataset_are_closed(folder: Path) -> None:
    loader = SceneLoader(folder, batch_size=4, epochs=1)
    next(iter(loader))
    assert any(str(folder) in name for name in _descriptors())
    del loader
    assert not any(str(folder) in name for name in _descriptors())


@pytest.mark.parametrize("workers", [0, 2])
def test_held_batches_stay_right_and_released_ones_use_few_blocks(folder: Path, workers: int) -> None:
    loader = SceneLoader(folder, batch_size=4, seed=5, epochs=10, workers=workers)
    clones, held = [], []
    for batch in loader:
        clones.append(batch.frames.clone())
        held.append(batch.frames)
    assert len(held) == 30
    assert all(torch.equal(kept, clone) for kept, clone in zip(held, clones))
    del held, batch
    places = {batch.frames.data_ptr() for batch in loader}
    assert len(places) <= 3 + max(1, 2 * workers)


def _descriptors() -> Counter[str]:
    """Count the files that are open in this process."""
    gc.collect()
    names: Counter[str] = Counter()
    for number in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the descriptor of the listing
            names[os.readlink(number)] += 1  # noqa: PTH115  verbatim, with "(deleted)"
    return names


def _mappings() -> int:
    """Count the mappings of batch memory in this process."""
    return Path("/proc/self/maps").read_text().count("gqn-batches")
