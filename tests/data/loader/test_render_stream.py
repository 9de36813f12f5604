"""Scenes rendered on demand: those of `gqn-data render`, in the same stream, without JPEG and without end."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loader_fixtures import convert_to
from loader_streams import joined, snapshot, stream, taken
from processes import living, no_child_is_left, own_children, wait_until

from gqn_data.convert.index import index_raw_folder
from gqn_data.dataset import open_dataset
from gqn_data.errors import EndlessError, ExtraMissing, GQNError, OptionError, UnknownName, UnknownSceneSet, WorkerLost
from gqn_data.io.paths import RenderAddress, parse_dataset_path, parse_path
from gqn_data.loader import SceneLoader
from gqn_data.render import RENDERERS, request
from gqn_data.render.streams import scene_stream
from gqn_data.render.write import render_scene_set
from gqn_data.schema import jpeg
from gqn_data.schema.geometry import facts_of
from gqn_data.sources.raw_folder import open_raw_folder

SET = "rooms_ring_camera"
SMALL = "frame_size=16,views=5,supersample=false"
ENDLESS = f"render:{SET},{SMALL}"
TWELVE = f"{ENDLESS},scenes=12,seed=3"
QUALITY = 95
SUPPORT = Path(__file__).resolve().parents[2] / "support"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), str(SUPPORT.parents[1])])}
LIMIT = 120  # seconds; only a hang takes so long

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture
def _no_process_is_left() -> Iterator[None]:
    with no_child_is_left():
        yield


# The same scenes as on a disk


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the scenes of TWELVE, rendered to TFRecords and converted."""
    root = tmp_path_factory.mktemp("rendered")
    small: dict[str, Any] = {"frame_size": 16, "views": 5, "supersample": False}
    report = render_scene_set(root, SET, scenes=12, split="train", seed=3, quality=QUALITY, **small)
    render_scene_set(root, SET, scenes=2, split="test", seed=3, quality=QUALITY, **small)
    raw = open_raw_folder(report.folder, request.SCENE_SETS[SET])
    index_raw_folder(raw, workers=1)
    return convert_to("zarr", report.folder, root, name=SET)


@pytest.mark.parametrize("split", ["train", "test"])
def test_scenes_equal_those_on_a_disk_up_to_the_jpeg(stored: Path, split: Any) -> None:
    disk, fresh = open_dataset(stored, split), open_dataset(TWELVE, split)
    for number, expected in enumerate(disk):
        scene = fresh[number]
        assert expected.encoded is not None
        assert [jpeg.encode(frame, QUALITY) for frame in scene.frames] == [bytes(each) for each in expected.encoded]
        assert (scene.cameras == expected.cameras).all()
        assert (fresh.cameras_of(number) == expected.cameras).all()
    assert fresh.manifest.geometry == disk.manifest.geometry == facts_of(SET, disk.manifest.origin).geometry  # type: ignore[union-attr]


def test_batches_equal_those_of_the_dataset_up_to_the_jpeg(stored: Path) -> None:
    options: dict[str, Any] = {"batch_size": 4, "seed": 7, "context": (1, 3), "epochs": 2}
    pairs = [*zip(SceneLoader(TWELVE, **options), SceneLoader(stored, **options), strict=True)]
    assert len(pairs) == 6
    for fresh, expected in pairs:
        for part in ("poses", "views", "scenes", "datasets"):
            assert (getattr(fresh, part) == getattr(expected, part)).all()
        again = np.zeros_like(fresh.frames.numpy())
        for slot, position in np.argwhere(fresh.views.numpy() >= 0).tolist():
            encoded = jpeg.encode(fresh.frames[slot, position].numpy(), QUALITY)
            again[slot, position] = jpeg.decode(encoded)
        assert (again == expected.frames.numpy()).all()


@pytest.mark.parametrize("name", RENDERERS)
def test_chosen_views_equal_those_of_the_whole_scene(name: str) -> None:
    dataset = open_dataset(f"render:{name},frame_size=16,views=6,scenes=3,seed=1")
    whole = dataset[2]
    out = np.full((5, 16, 16, 3), 7, np.uint8)
    for chosen, into in (([4, 0, 3], out), ([5], out[:, ::-1]), ([], out)):
        into[:] = 7
        cameras = dataset.decode_into(2, chosen, into)
        assert (cameras == whole.cameras).all()
        assert (into[: len(chosen)] == whole.frames[chosen]).all()
        assert (into[len(chosen) :] == 7).all()


def test_frames_are_rendered_only_into_an_array_of_their_shape() -> None:
    parameters = request.Parameters.of(SET, frame_size=16, views=3)
    for wrong in (np.zeros((1, 16, 16, 3), np.uint8), np.zeros((2, 16, 16, 3), np.int16)):
        with pytest.raises(ValueError, match="expected contiguous uint8"):
            parameters.render("train", 0, chosen=[0, 1], out=wrong)


# Without end


def test_scenes_without_end_come_in_order_and_have_no_length() -> None:
    loader = SceneLoader(ENDLESS, batch_size=4)
    assert [batch.scenes.tolist() for batch in itertools.islice(loader, 5)] == [
        [*range(first, first + 4)] for first in range(0, 20, 4)
    ]
    assert loader.is_endless
    for endless in (loader, open_dataset(ENDLESS)):
        with pytest.raises(EndlessError) as caught:
            len(endless)
        assert isinstance(caught.value, TypeError | GQNError)
    with pytest.raises(OptionError, match="epochs is 2, expected None"):
        SceneLoader(ENDLESS, batch_size=4, epochs=2)
    assert len(SceneLoader(ENDLESS, batch_size=4, epoch_scenes=40)) == 10
    assert len(SceneLoader(TWELVE, batch_size=4)) == 3


def test_the_test_split_needs_a_number_of_scenes() -> None:
    with pytest.raises(OptionError, match="scenes=1000"):
        SceneLoader(ENDLESS, split="test", batch_size=2)
    assert SceneLoader(TWELVE, split="test", batch_size=2).scenes == 12


@pytest.mark.parametrize("seed", [0, 1, 1 << 32, (1 << 64) - 1])
def test_test_scenes_coincide_with_train_scenes_of_no_seed(seed: int) -> None:
    def draws(seed: int, split: Any, indices: range) -> set[tuple[int, ...]]:
        return {tuple(scene_stream(seed, SET, split, index).integers(1 << 62, size=2)) for index in indices}

    # Seeds, sets and numbers that could fill the words of another one's key.
    seeds = [*range(40), seed, seed + 1, 1 << 32, 1 << 33, (1 << 32) + 1, (1 << 64) - 1]
    train = set().union(*(draws(one, "train", range(20)) for one in set(seeds)))
    train |= draws(seed, "train", range(1 << 32, (1 << 32) + 40))
    assert len(train) == 20 * len(set(seeds)) + 40
    assert not train & draws(seed, "test", range(400))
    assert not train & draws(seed, "test", range(1 << 32, (1 << 32) + 40))


@pytest.mark.parametrize("path", [ENDLESS, TWELVE])
def test_the_stream_is_the_same_for_any_workers_and_ranks(path: str) -> None:
    expected = stream(path, 6)
    for options in ({"workers": 1}, {"workers": 3}, {"workers": 1, "start": "spawn"}):
        assert stream(path, 6, **options) == expected
    shares = [SceneLoader(path, batch_size=4, seed=7, context=(1, 3), rank=rank, ranks=2) for rank in range(2)]
    assert [snapshot(joined(parts)) for parts in itertools.islice(zip(*shares), 6)] == expected


@pytest.mark.parametrize("path", [ENDLESS, TWELVE, {ENDLESS: 1, TWELVE: 2}])
def test_a_stream_resumes_exactly(path: Any) -> None:
    more: dict[str, Any] = {"epoch_scenes": 12} if isinstance(path, dict) else {}
    expected = stream(path, 7, **more)
    loader = SceneLoader(path, batch_size=4, seed=7, context=(1, 3), workers=2, **more)
    assert taken(loader, 3) == expected[:3]
    other = SceneLoader(path, batch_size=4, seed=7, context=(1, 3), **more)
    other.load_state_dict(loader.state_dict())
    assert taken(other, 4) == expected[3:]
    with pytest.raises(OptionError, match="another stream: dataset"):
        SceneLoader(f"{ENDLESS},seed=1", batch_size=4, seed=7, context=(1, 3)).load_state_dict(loader.state_dict())


def test_a_far_position_is_reached_at_once() -> None:
    loader = SceneLoader(ENDLESS, batch_size=4)
    loader.load_state_dict({**loader.state_dict(), "batches": 1 << 40})
    assert next(iter(loader)).scenes.tolist() == [*range(1 << 42, (1 << 42) + 4)]


def test_fresh_scenes_mix_with_a_dataset(stored: Path) -> None:
    loader = SceneLoader({stored: 1, ENDLESS: 3}, batch_size=4, epoch_scenes=16, context=(1, 3))
    fresh: list[int] = []
    for batch in itertools.islice(loader, 12):  # three epochs
        members = batch.datasets.tolist()
        fresh += [scene for scene, member in zip(batch.scenes.tolist(), members) if member == 1]
    assert sorted(fresh) == [*range(36)]
    for incomplete in ({"path": [stored, ENDLESS]}, {"path": {stored: 1, ENDLESS: 3}}):
        with pytest.raises(OptionError, match="dataset 1 of the mixture is endless"):
            SceneLoader(batch_size=4, **incomplete)  # type: ignore[arg-type]


def test_samples_and_chosen_scenes_bound_a_stream() -> None:
    chosen = SceneLoader(ENDLESS, batch_size=2, scenes=[5, 900_000, 1 << 45], shuffle=False, tail="exact", epochs=1)
    assert [batch.scenes.tolist() for batch in chosen] == [[5, 900_000], [1 << 45]]
    listed = SceneLoader(ENDLESS, batch_size=1, samples=[[70, 1, 2], [3, 4, 0]], epochs=1)
    assert [batch.scenes.tolist() for batch in listed] == [[70], [3]]


# Identity


def test_the_fingerprint_covers_parameters_and_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    base = "render:mazes"
    changes = ("seed=1", "frame_size=32", "views=7", "supersample=true", "status_line=false", "scenes=5", "scenes=6")
    found = [open_dataset(",".join([base, change])).fingerprint for change in changes]
    found += [open_dataset(base).fingerprint, open_dataset("render:mazes,scenes=5", "test").fingerprint]
    assert open_dataset("render:mazes,views=300,seed=0").fingerprint == open_dataset(base).fingerprint
    monkeypatch.setattr(request, "RENDERER_VERSION", 99)
    found.append(open_dataset(base).fingerprint)
    assert len(set(found)) == len(changes) + 3


def test_an_address_is_its_text() -> None:
    address = parse_dataset_path(TWELVE)
    assert isinstance(address, RenderAddress)
    assert str(address) == TWELVE
    assert address.absolute() == address.bounded(5) == address
    assert str(RenderAddress("jaco").bounded(5)) == "render:jaco,scenes=5"
    assert parse_dataset_path("./render:jaco") == Path("render:jaco")
    with pytest.raises(OptionError, match="gqn-data render jaco --scenes N"):
        parse_path("render:jaco,scenes=3")


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("render:", OptionError, "expected render:SET"),
        ("render:jaco,", OptionError, "expected render:SET"),
        ("render:jaco,seed=1,seed=2", OptionError, "each option once"),
        ("render:joco", UnknownSceneSet, "did you mean 'jaco'"),
        ("render:jaco,sed=1", UnknownName, "did you mean 'seed'"),
        ("render:jaco,seed=-1", OptionError, "seed is '-1', expected"),
        ("render:jaco,seed=18446744073709551616", OptionError, "seed is 18446744073709551616, expected 0 to"),
        ("render:jaco,scenes=0", OptionError, "scenes is 0, expected"),
        ("render:jaco,scenes=1000000000", OptionError, "scenes is 1000000000, expected 1 to"),
        ("render:jaco,scenes=1e3", OptionError, "scenes is '1e3', expected"),
        ("render:jaco,scenes=" + "9" * 5000, OptionError, "scenes is"),
        ("render:jaco,scenes=\u0663", OptionError, "scenes is"),
        ("render:jaco,views=0", OptionError, "views is 0, expected"),
        ("render:jaco,frame_size=9999", OptionError, "frame_size is 9999, expected"),
        ("render:jaco,supersample=1", OptionError, "expected true or false"),
        ("render:jaco,status_line=false", OptionError, "status line"),
    ],
)
def test_an_invalid_address_is_refused(address: str, error: type[GQNError], message: str) -> None:
    with pytest.raises(error, match=message):
        open_dataset(address)


def test_without_numba_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "numba" else find_spec(name))
    with pytest.raises(ExtraMissing, match="pip install numba") as caught:
        SceneLoader(ENDLESS, batch_size=2)
    assert "\n" not in str(caught.value)


# Processes


@linux
@pytest.mark.usefixtures("_no_process_is_left")
def test_ctrl_c_ends_workers_that_render() -> None:
    command = [sys.executable, str(SUPPORT / "loader_program.py"), ENDLESS, "fork", "2", "loop"]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, start_new_session=True
    ) as program:
        try:
            assert program.stdout is not None
            assert len(program.stdout.readline().split()) == 5
            os.killpg(program.pid, signal.SIGINT)
            out, errors = program.communicate(timeout=LIMIT)
            wait_until(lambda: not living(program.pid), LIMIT)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
    assert program.returncode == -signal.SIGINT
    assert errors.decode().count("Traceback") == 1
    assert errors.decode().endswith("KeyboardInterrupt\n")
    assert out == b""


@linux
@pytest.mark.usefixtures("_no_process_is_left")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_killed_worker_is_reported_with_its_scene(start: Any) -> None:
    loader = SceneLoader(ENDLESS, batch_size=4, workers=2, start=start)
    batches = iter(loader)
    for _ in range(4):
        next(batches)
    killed = max(own_children(), key=lambda process: process.pid or 0)
    os.kill(killed.pid or 0, signal.SIGKILL)
    with pytest.raises(WorkerLost, match=rf"ended by signal 9, at scene \d+ of train in {ENDLESS}"):
        list(itertools.islice(batches, 100))
    assert not own_children()
    assert taken(loader, 1)  # it continues


@linux
@pytest.mark.parametrize("name", ["rooms_ring_camera", "mazes", "jaco"])
def test_memory_does_not_grow_with_the_scenes_rendered(name: str) -> None:
    # Textures of all walls and floors are kept, so that the first scenes do not count.
    loader = iter(SceneLoader(f"render:{name},frame_size=16,views=5,supersample=false", batch_size=16))

    def resident(batches: int) -> int:
        for _ in itertools.islice(loader, batches):
            pass
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1])

    before = resident(20)
    assert resident(60) - before < 8 << 10  # KiB; the frames alone would be 4 of them a batch of these 60


def test_a_dataset_of_fresh_scenes_is_a_frozen_value() -> None:
    one, same = open_dataset(TWELVE), open_dataset(TWELVE)
    assert one.manifest == same.manifest
    assert dataclasses.replace(one.manifest, geometry=None).fingerprint("train") == one.fingerprint
    assert repr(one).startswith("<rooms_ring_camera train: 12 scenes of 5 views, 16x16")
    assert "endless" in repr(open_dataset(ENDLESS))
    assert one.cameras.shape == (12, 5, 5)
    assert (one.cameras[-1] == one[-1].cameras).all()
    with pytest.raises(EndlessError):
        open_dataset(ENDLESS).cameras  # noqa: B018  the property raises
