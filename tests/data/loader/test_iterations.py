"""Every iteration of a loader is whole or says what ended it: at its end, nested, copied, in other processes."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import pickle
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_counts import FaultCounts
from loader_fixtures import CONTAINERS, SET, convert_to, index, make_all, write_raw
from loader_streams import snapshot, stream, taken
from processes import no_child_is_left, own_children

from gqn_data.errors import GQNError, IterationEnded, OptionError
from gqn_data.loader import Batch, SceneLoader

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

OPTIONS: dict[str, Any] = {"batch_size": 4, "seed": 7, "context": (1, 3)}
END = "at the end of"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("scenes")
    return make_all(write_raw(root / "raw" / SET).folder, root)


@pytest.fixture
def zarr(folders: dict[str, Path]) -> Path:
    return folders["zarr"]


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    with no_child_is_left():
        yield


def _position(loader: SceneLoader) -> tuple[Any, Any]:
    state = loader.state_dict()
    return state["epoch"], state["batches"]


# The end


def _by_length(loader: SceneLoader, count: int) -> list[Any]:
    """Read as Lightning does: `count` batches, without asking for one more."""
    batches = iter(loader)
    return [snapshot(next(batches)) for _ in range(count)]


def _by_loop(loader: SceneLoader, count: int) -> list[Any]:
    return [snapshot(batch) for batch in loader]


def _by_zip(loader: SceneLoader, count: int) -> list[Any]:
    return [snapshot(batch) for _, batch in zip(range(count), loader, strict=False)]


def _by_islice(loader: SceneLoader, count: int) -> list[Any]:
    return [snapshot(batch) for batch in islice(loader, count)]


def _by_break(loader: SceneLoader, count: int) -> list[Any]:
    read = []
    for number, batch in enumerate(loader, 1):
        read.append(snapshot(batch))
        if number == count:
            break
    return read


READS: list[Callable[[SceneLoader, int], list[Any]]] = [_by_length, _by_loop, _by_zip, _by_islice, _by_break]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("epochs", "tail"), [(1, "drop"), (2, "exact")])
@pytest.mark.parametrize("read", READS)
def test_every_iteration_of_some_epochs_is_whole_however_it_is_read(
    zarr: Path, faults: FaultCounts, workers: int, epochs: int, tail: Any, read: Callable[[SceneLoader, int], list[Any]]
) -> None:
    loader = SceneLoader(zarr, workers=workers, epochs=epochs, tail=tail, **OPTIONS)
    count = epochs * len(loader)
    whole = stream(zarr, count, tail=tail)
    reads = [read(loader, count) for _ in range(3)]
    faults.record(
        "found in use: a loader read up to its end and not beyond",
        holds="the next iteration starts with the first batch, however the one before was read",
        tries=3,
        survived=reads.count(whole),
    )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("asked_beyond", [False, True])
def test_a_state_at_the_end_gives_one_empty_iteration_and_warns(
    zarr: Path, faults: FaultCounts, workers: int, asked_beyond: bool
) -> None:
    loader = SceneLoader(zarr, epochs=1, workers=workers, **OPTIONS)
    batches = iter(loader)
    for _ in range(len(loader)):
        next(batches)
    assert not own_children()  # the workers end with the last batch
    if asked_beyond:
        assert list(batches) == []
    assert _position(loader) == (1, 0)
    resumed = SceneLoader(zarr, epochs=1, workers=workers, **OPTIONS)
    resumed.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    with pytest.warns(UserWarning, match=END) as caught:
        assert list(resumed) == []
    assert caught[0].filename == __file__
    assert _position(resumed) == (1, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = [snapshot(batch) for batch in resumed]
    faults.record(
        "found in use: a loader resumed at its end",
        holds="one empty iteration with a warning, then whole ones",
        tries=1,
        survived=int(again == stream(zarr, len(loader))),
    )


def test_a_state_beyond_the_end_gives_one_empty_iteration(zarr: Path) -> None:
    endless = SceneLoader(zarr, **OPTIONS)
    taken(endless, 17)
    loader = SceneLoader(zarr, epochs=2, **OPTIONS)
    loader.load_state_dict(endless.state_dict())
    with pytest.warns(UserWarning, match=END):
        assert list(loader) == []
    assert len(list(loader)) == 10


def test_a_state_at_the_end_continues_with_more_epochs(zarr: Path) -> None:
    loader = SceneLoader(zarr, epochs=1, **OPTIONS)
    taken(loader)
    longer = SceneLoader(zarr, epochs=2, **OPTIONS)
    longer.load_state_dict(loader.state_dict())
    assert taken(longer) == stream(zarr, 10)[5:]


def test_a_loaded_state_is_used_by_one_iteration(zarr: Path) -> None:
    loader = SceneLoader(zarr, epochs=1, **OPTIONS)
    taken(loader, 3)
    resumed = SceneLoader(zarr, epochs=1, **OPTIONS)
    resumed.load_state_dict(loader.state_dict())
    whole = stream(zarr, 5)
    assert [taken(resumed) for _ in range(3)] == [whole[3:], whole, whole]


def test_a_new_iteration_begins_at_the_start_before_its_first_batch(zarr: Path) -> None:
    loader = SceneLoader(zarr, epochs=1, **OPTIONS)
    taken(loader)
    batches = iter(loader)
    assert _position(loader) == (0, 0)
    assert len(list(batches)) == 5


# Two iterations of one loader


def _nested(loader: SceneLoader) -> None:
    for _ in loader:
        for _ in loader:
            pass


def _next_in_a_loop(loader: SceneLoader) -> None:
    for _ in loader:
        next(iter(loader))


def _zipped(loader: SceneLoader) -> None:
    list(zip(loader, loader, strict=False))


def _state_loaded_in_a_loop(loader: SceneLoader) -> None:
    for _ in loader:
        loader.load_state_dict(loader.state_dict())


def _iterated_in_a_loop(loader: SceneLoader) -> None:
    for _ in loader:
        iter(loader)


def _old_iterator_after_a_loop(loader: SceneLoader) -> None:
    old = iter(loader)
    next(old)
    assert len(list(loader)) == 4
    next(old)


TWICE = [_nested, _next_in_a_loop, _zipped, _state_loaded_in_a_loop, _iterated_in_a_loop, _old_iterator_after_a_loop]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("twice", TWICE)
def test_an_iteration_that_something_else_ended_raises(
    zarr: Path, faults: FaultCounts, workers: int, twice: Callable[[SceneLoader], None]
) -> None:
    loader = SceneLoader(zarr, epochs=1, workers=workers, **OPTIONS)
    with pytest.raises(IterationEnded, match=r"newer iteration|load_state_dict"):
        twice(loader)
    loader.close()
    faults.record(
        "found in use: two iterations of one loader",
        holds="the one that was ended raises an error that says by what",
        tries=1,
        survived=1,
    )


def test_an_iteration_after_its_last_batch_is_not_ended_by_another(zarr: Path) -> None:
    loader = SceneLoader(zarr, epochs=1, **OPTIONS)
    first = iter(loader)
    assert len([next(first) for _ in range(5)]) == 5
    assert len(list(loader)) == 5
    assert list(first) == []


def test_an_iteration_that_its_user_closed_stops(zarr: Path) -> None:
    loader = SceneLoader(zarr, **OPTIONS)
    batches = iter(loader)
    next(batches)
    loader.close()
    assert list(batches) == []


# Copies


COPIES: list[Callable[[SceneLoader], SceneLoader]] = [
    copy.copy,
    copy.deepcopy,
    lambda loader: pickle.loads(pickle.dumps(loader)),
]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("copied", COPIES, ids=["copy", "deepcopy", "pickle"])
def test_a_copy_shares_nothing_with_a_running_loader(
    folders: dict[str, Path], faults: FaultCounts, container: str, copied: Callable[[SceneLoader], SceneLoader]
) -> None:
    workers = 1 if container == "zarr" else 0
    loader = SceneLoader(folders[container], epochs=1, workers=workers, **OPTIONS)
    whole = stream(folders[container], 5)
    batches = iter(loader)
    read = [snapshot(next(batches)) for _ in range(2)]
    other = copied(loader)
    assert other.state_dict() == loader.state_dict()
    rest = [snapshot(batch) for batch in other]
    other.close()
    del other
    read += [snapshot(batch) for batch in batches]
    faults.record(
        "found in use: a loader copied or pickled while it is read",
        holds="copy and original both continue from there",
        tries=2,
        survived=(rest == whole[2:]) + (read == whole),
    )


def test_a_copy_changes_its_windows_alone(tmp_path: Path) -> None:
    folder = convert_to("zarr", index(write_raw(tmp_path / "raw" / SET).folder), tmp_path, shard_bytes=10_000)
    loader = SceneLoader(folder, **OPTIONS)
    expected = stream(folder, 5)
    windowed = SceneLoader(folder, window=1, **OPTIONS)
    assert windowed.state_dict() != loader.state_dict()
    copy.copy(loader).load_state_dict(windowed.state_dict())
    assert taken(loader, 5) == expected


# Other processes


class _Wrapped(torch.utils.data.IterableDataset[Batch]):
    def __init__(self, loader: SceneLoader, started: Iterator[Batch] | None = None) -> None:
        self._loader = loader
        self._started = started

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._loader) if self._started is None else self._started


def _given_as_a_dataset(loader: SceneLoader, workers: int) -> Any:
    return torch.utils.data.DataLoader(loader, num_workers=workers)  # type: ignore[arg-type]


def _given_without_batches(loader: SceneLoader, workers: int) -> Any:
    return torch.utils.data.DataLoader(loader, batch_size=None, num_workers=workers)  # type: ignore[arg-type]


def _given_in_random_order(loader: SceneLoader, workers: int) -> Any:
    return torch.utils.data.DataLoader(loader, shuffle=True, num_workers=workers)  # type: ignore[arg-type]


def _wrapped(loader: SceneLoader, workers: int) -> Any:
    return torch.utils.data.DataLoader(_Wrapped(loader), batch_size=None, num_workers=workers)


def _wrapped_and_started(loader: SceneLoader, workers: int) -> Any:
    return torch.utils.data.DataLoader(_Wrapped(loader, iter(loader)), batch_size=None, num_workers=workers)


@pytest.mark.parametrize(
    ("give", "torch_workers"),
    [
        (_given_as_a_dataset, 0),
        (_given_without_batches, 0),
        (_given_in_random_order, 0),
        (_given_as_a_dataset, 2),
        (_wrapped, 1),
        (_wrapped, 2),
        (_wrapped_and_started, 2),
    ],
)
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_loader_inside_torchs_loader_is_refused(
    zarr: Path, faults: FaultCounts, give: Callable[[SceneLoader, int], Any], torch_workers: int, workers: int
) -> None:
    loader = SceneLoader(zarr, epochs=1, workers=workers, **OPTIONS)
    with pytest.raises(OptionError, match=r"SceneLoader\(.*workers=N\)"):
        list(give(loader, torch_workers))
    faults.record(
        "found in use: a loader inside torch's DataLoader",
        holds="an error says what to do instead; no scene comes twice",
        tries=1,
        survived=1,
    )


def test_a_wrapped_loader_without_torchs_workers_yields_its_stream(zarr: Path) -> None:
    loader = SceneLoader(zarr, epochs=1, **OPTIONS)
    assert [snapshot(batch) for batch in _wrapped(loader, 0)] == stream(zarr, 5)


def _read_in_child(batches: Any, pipe: Any) -> None:
    try:
        pipe.send([snapshot(batch) for batch in batches])
    except GQNError as error:
        pipe.send(type(error))


def _in_fork(batches: Any) -> Any:
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_read_in_child, args=(batches, theirs))
    child.start()
    try:
        return ours.recv()
    finally:
        child.join()
        assert child.exitcode == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_a_forked_process_cannot_continue_an_iteration(zarr: Path, workers: int) -> None:
    loader = SceneLoader(zarr, workers=workers, epochs=1, **OPTIONS)
    batches = iter(loader)
    read = [snapshot(next(batches))]
    assert _in_fork(batches) is OptionError
    read += [snapshot(batch) for batch in batches]
    assert read == stream(zarr, 5)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_forked_process_reads_a_running_loader_without_ending_it(zarr: Path, workers: int) -> None:
    loader = SceneLoader(zarr, workers=workers, epochs=1, **OPTIONS)
    whole = stream(zarr, 5)
    batches = iter(loader)
    read = [snapshot(next(batches)) for _ in range(2)]
    assert _in_fork(loader) == whole[2:]
    read += [snapshot(batch) for batch in batches]
    assert read == whole


def test_a_forked_process_that_drops_an_iteration_leaves_it_running(
    zarr: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    loader = SceneLoader(zarr, workers=2, epochs=1, **OPTIONS)
    batches = iter(loader)
    read = [snapshot(next(batches))]
    child = os.fork()
    if not child:
        loader.close()
        del batches
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert capfd.readouterr().err == ""
    read += [snapshot(batch) for batch in batches]
    assert read == stream(zarr, 5)
