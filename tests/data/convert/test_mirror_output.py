"""Writing the layout of the numpy mirror: pieces of one array per split, whole only when all are there."""

from __future__ import annotations

import itertools
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from made_scenes import SET, SIZE, VIEWS, made_scene, make_raw_folder, tree, write_source_file

from gqn_data.convert import convert, engine
from gqn_data.convert.from_renderer import render_containers
from gqn_data.convert.plan import Options
from gqn_data.convert.run import convert_part
from gqn_data.convert.scene_writer import SceneWriter
from gqn_data.dataset import open_dataset
from gqn_data.errors import CorruptRecord, DestinationError, OptionError, ShardChecksumError
from gqn_data.executors.job_array import Part
from gqn_data.formats import mirror_arrays
from gqn_data.formats.contract import ShardLocation
from gqn_data.inspect.verify import verify
from gqn_data.io import atomic
from gqn_data.io.paths import parse_path
from gqn_data.render.request import Request
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.schema.layout import SceneLayout
from gqn_data.schema.manifest import FramesRow
from gqn_data.schema.scene import Scene
from gqn_data.sources.raw_folder import locate

ROW = SCENE_SETS[SET]
FILES = {f"{split}_{what}.npy" for split in ("train", "test") for what in ("images", "viewpoints")}
LARGE = SceneLayout(views=10**6, height=10**6, width=10**6, camera_fields=tuple("abcdefghi"), because="large")
PIECES = 5  # of two scenes: four of train, one of test


def _options(**more: Any) -> Options:
    return Options(**{"formats": ("mirror",), "workers": 1, "shard_bytes": 5000, **more})


def _convert(raw: Path, root: Path, **more: Any) -> Any:
    (result,) = convert(raw, ROW, root, _options(**more))
    return result


def _arrays(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(folder).items() if name.endswith(".npy")}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make 7 train scenes and 2 test scenes of small frames."""
    folder: Path = make_raw_folder(tmp_path_factory.mktemp("raw") / SET)
    return folder


@pytest.fixture(scope="module")
def whole(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    files: dict[str, bytes] = tree(_convert(raw, tmp_path_factory.mktemp("whole")).folder)
    return files


def _interrupt(patch: pytest.MonkeyPatch, after: int) -> None:
    """Interrupt a conversion, as Ctrl-C does, after some pieces."""
    calls = itertools.count()
    write = engine.write_shard

    def until(task: Any) -> Any:
        if next(calls) == after:
            raise KeyboardInterrupt
        return write(task)

    patch.setattr(engine, "write_shard", until)


def _cut_off(raw: Path, root: Path, after: int) -> Path:
    """Run a conversion that is interrupted after some pieces, and return its folder."""
    with pytest.MonkeyPatch.context() as patch:
        _interrupt(patch, after)
        with pytest.raises(KeyboardInterrupt):
            _convert(raw, root)
    folder = root / "mirror" / SET
    assert not _arrays(folder)  # nothing under a final name
    return folder


def test_numpy_maps_the_arrays_and_finds_every_frame_and_camera(raw: Path, tmp_path: Path) -> None:
    folder = _convert(raw, tmp_path).folder
    assert set(_arrays(folder)) == FILES
    for split, (first, count) in {"train": (0, 7), "test": (1000, 2)}.items():
        images = np.load(folder / f"{split}_images.npy", mmap_mode="r")
        viewpoints = np.load(folder / f"{split}_viewpoints.npy", mmap_mode="r")
        assert (images.dtype, images.shape) == (np.uint8, (count, VIEWS, SIZE, SIZE, 3))
        assert (viewpoints.dtype, viewpoints.shape) == (np.float32, (count, VIEWS, 5))
        for row in range(count):
            made = made_scene(first + row)
            expected = np.stack([simplejpeg.decode_jpeg(frame) for frame in made.frames])
            np.testing.assert_array_equal(images[row], expected)
            assert viewpoints[row].tobytes() == made.cameras.tobytes()
    assert verify(*locate(str(folder), tmp_path, None), deep=True, workers=1).faults == ()


def test_the_arrays_alone_are_read_as_the_public_mirror(raw: Path, tmp_path: Path) -> None:
    folder = _convert(raw, tmp_path / "a").folder
    for path in folder.iterdir():
        if path.name not in FILES:
            path.unlink()
    (folder / "source.json").write_bytes((raw / "source.json").read_bytes())  # declares the small frames
    (again,) = convert(folder, ROW, tmp_path / "b", _options(formats=("numpy",)))
    for split in ("train", "test"):
        found, expected = open_dataset(again.folder, split), open_dataset(_convert(raw, tmp_path / "c").folder, split)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one.frames, other.frames)


@pytest.mark.parametrize("after", range(PIECES))
def test_an_interrupted_run_writes_only_the_missing_pieces(
    raw: Path, whole: dict[str, bytes], tmp_path: Path, after: int
) -> None:
    folder = _cut_off(raw, tmp_path, after)
    result = _convert(raw, tmp_path)
    assert (result.written, result.kept) == (PIECES - after, after)
    assert tree(folder) == whole
    assert not (tmp_path / ".work").exists()
    assert _convert(raw, tmp_path).written == 0


def test_pieces_of_another_size_are_not_mistaken_for_those_of_this_run(
    raw: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    for after, shard_bytes in itertools.product((1, 4), (2500, 7500, 10**6)):
        root = tmp_path / f"{after} {shard_bytes}"
        folder = _cut_off(raw, root, after)
        _convert(raw, root, shard_bytes=shard_bytes)
        assert tree(folder) == whole


def test_an_interruption_between_the_last_renames_and_the_manifest_resumes(
    raw: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace
    for renames in range(5):
        root, calls = tmp_path / str(renames), itertools.count()

        def until(path: Path, target: Path, *, calls: Any = calls, renames: int = renames) -> Any:
            if target.name in FILES and next(calls) == renames:
                raise KeyboardInterrupt
            if renames == 4 and target.name == "manifest.json":
                raise KeyboardInterrupt
            return replace(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", until)
            with pytest.raises(KeyboardInterrupt):
                _convert(raw, root)
        folder = root / "mirror" / SET
        assert _arrays(folder).items() <= whole.items()
        result = _convert(raw, root)
        assert result.written == 0
        assert tree(folder) == whole


def test_changed_bytes_of_an_unfinished_array_are_found_and_written_again(
    raw: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    for name, at in (("train_images.npy", 5000), ("train_viewpoints.npy", 130)):
        folder = _cut_off(raw, tmp_path / name, 4)
        path = folder / f"{name}.unfinished"
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)
        with pytest.raises(ShardChecksumError, match=rf"{path}: scenes \d+ to \d+ differ .* Rerun"):
            _convert(raw, tmp_path / name)
        assert not (folder / "manifest.json").exists()
        _convert(raw, tmp_path / name)
        assert tree(folder) == whole


@pytest.mark.parametrize("how", ["gone", "cut", "longer"])
def test_an_unfinished_array_that_was_removed_or_cut_is_completed(
    raw: Path, whole: dict[str, bytes], tmp_path: Path, how: str
) -> None:
    folder = _cut_off(raw, tmp_path, 4)
    path = folder / "train_images.npy.unfinished"
    data = path.read_bytes()
    path.unlink()
    if how != "gone":
        path.write_bytes(data[:-1] if how == "cut" else data + b"x")
    if how == "longer":
        with pytest.raises(ShardChecksumError, match="found bytes after 7 scenes"):
            _convert(raw, tmp_path)
    _convert(raw, tmp_path)
    assert tree(folder) == whole


def test_a_dataset_without_one_of_its_arrays_is_written_again(
    raw: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    folder = _convert(raw, tmp_path).folder
    (folder / "test_images.npy").unlink()
    assert _convert(raw, tmp_path).written == PIECES
    assert tree(folder) == whole


def test_arrays_of_others_in_the_destination_are_kept(raw: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mirror" / SET
    folder.mkdir(parents=True)
    np.save(folder / "train_images.npy", np.zeros(3))
    before = _arrays(folder)
    for _ in range(2):
        with pytest.raises(DestinationError, match=r"train_images.npy: found a file.*move the file away"):
            _convert(raw, tmp_path)
        assert _arrays(folder) == before
    with pytest.raises(DestinationError, match=r"found an array.*move it away"):
        _convert(raw, tmp_path, limit=3, overwrite=True)
    assert _arrays(folder) == before


def test_a_store_is_refused_before_anything_is_written(raw: Path, s3: str) -> None:
    root = parse_path(s3)
    with pytest.raises(OptionError, match="mirror is written in place on a local disk"):
        convert(raw, ROW, root, _options())
    request = Request.of("sm5", scenes=4, seed=3, frame_size=16, views=3, supersample=False)
    with pytest.raises(OptionError, match="mirror is written in place on a local disk"):
        render_containers(request, root, _options())
    assert not list(root.files())


def test_parts_of_a_job_array_and_other_executors_write_the_same_arrays(
    raw: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    for number in (1, 0, 2):
        convert_part(raw, ROW, tmp_path / "parts", _options(), Part(number, 3))
    assert _convert(raw, tmp_path / "parts").written == 0
    assert tree(tmp_path / "parts" / "mirror" / SET) == whole
    with ThreadPoolExecutor(3) as executor:
        convert(raw, ROW, tmp_path / "threads", _options(workers=3), executor=executor)
    assert tree(tmp_path / "threads" / "mirror" / SET) == whole


def test_rendered_scenes_are_written_as_when_converted_from_source_files(tmp_path: Path) -> None:
    request = Request.of("sm5", scenes=9, seed=3, frame_size=16, views=3, supersample=False)
    options = _options(formats=("tfrecord", "mirror"), shard_bytes=6000)
    render_containers(request, tmp_path / "direct", options)
    folder = tmp_path / "direct" / "mirror" / "shepard_metzler_5_parts"
    source = tmp_path / "direct" / "tfrecord" / "shepard_metzler_5_parts"
    row = SCENE_SETS["shepard_metzler_5_parts"]
    (again,) = convert(source, row, tmp_path / "again", _options())
    assert _arrays(folder)
    assert _arrays(again.folder) == _arrays(folder)


def test_a_failed_writer_leaves_no_unfinished_arrays(tmp_path: Path) -> None:
    folder = tmp_path / "mine"

    def write() -> None:
        with SceneWriter(folder, format="mirror", scenes_per_shard=2) as writer:
            for number in range(5):
                writer.add(list(made_scene(number).frames), made_scene(number).cameras)
            assert list(folder.rglob("*.npy.unfinished"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert not list(folder.rglob("*.npy*"))


def test_a_link_in_place_of_an_unfinished_array_is_not_followed(raw: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    folder = tmp_path / "mirror" / SET
    folder.mkdir(parents=True)
    (folder / "train_images.npy.unfinished").symlink_to(outside)
    with pytest.raises(Exception, match="a link"):
        _convert(raw, tmp_path, overwrite=True)
    assert outside.read_bytes() == b"mine"


def test_headers_of_all_shapes_leave_the_scenes_at_one_offset() -> None:
    for scenes in (1, 10**6, 2**62):
        for split in ("train", "test"):
            for array in mirror_arrays._arrays(split, LARGE):  # type: ignore[arg-type]
                assert len(array.header(scenes)) == 128


def test_a_part_of_a_file_is_written_where_it_belongs(tmp_path: Path) -> None:
    for start, data in ((4, b"later"), (0, b"head")):
        with atomic.writing_part(tmp_path / "file", start) as out:
            out.write(data)
            out.finish()
    assert (tmp_path / "file").read_bytes() == b"headlater"


def test_scenes_are_streamed_in_blocks(tmp_path: Path) -> None:
    pixels = np.zeros((15, 64, 64, 3), np.uint8)
    scene = Scene(cameras=np.zeros((15, 5), np.float32), pixels=pixels, size=(64, 64))
    layout = SceneLayout(views=15, height=64, width=64, camera_fields=tuple("abcde"), because="large")
    location = ShardLocation(
        folder=tmp_path,
        split="train",
        number=0,
        first_scene=0,
        scenes=150,
        scenes_per_shard=150,
        frames=FramesRow(encoding="raw", views=15, height=64, width=64),
        layout=layout,
    )
    tracemalloc.start()
    try:
        mirror_arrays.FORMAT.write_shard(location, itertools.repeat(scene, 150))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "train_images.npy.unfinished").stat().st_size == 128 + 150 * pixels.size
    assert peak < 16 << 20 < 150 * pixels.size


@pytest.mark.parametrize("other", [{"views": VIEWS + 1}, {"size": SIZE + 8}])
def test_scenes_of_different_views_or_sizes_are_refused(tmp_path: Path, other: dict[str, int]) -> None:
    raw = make_raw_folder(tmp_path / "raw" / SET, train=(1,), test=())
    write_source_file(raw / "train" / "002-of-900.tfrecord", [made_scene(1), made_scene(2, **other)])
    with pytest.raises(CorruptRecord, match="expected"):
        _convert(raw, tmp_path)
    assert not _arrays(tmp_path / "mirror" / SET)
    skipped = _convert(raw, tmp_path, on_corrupt="skip").manifest
    assert skipped.splits["train"].scenes == 2
