"""The public numpy mirror: plain or gzipped arrays per split, written here by numpy and gzip only."""

import gzip
import io
import json
import os
import pickle
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from made_scenes import SET, tree
from processes import living, wait_until

from gqn_data.cli import main as gqn_data
from gqn_data.convert import convert
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.mirror import open_mirror
from gqn_data.convert.plan import Options
from gqn_data.convert.resolve_source import locate_source
from gqn_data.convert.run import convert_part, plan_only
from gqn_data.dataset import open_dataset
from gqn_data.errors import ArrayFileError, OptionError, ShardChecksumError, SourceMissing
from gqn_data.executors.job_array import Part
from gqn_data.formats import WRITABLE
from gqn_data.inspect.verify import verify
from gqn_data.io.atomic import sha256_of
from gqn_data.io.paths import parse_path
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.sources import gzip_index
from gqn_data.sources.gzip_index import GzippedFile, check_gzip, write_seek_points
from gqn_data.sources.npy_mirror import read_header
from gqn_data.sources.raw_folder import locate, open_raw_folder

ROOT = Path(__file__).resolve().parents[3]
ROW = SCENE_SETS[SET]
VIEWS, SIZE = 15, 64  # the values of the catalogue, which apply without a source.json


def scenes(count, seed=0):
    """Return images and viewpoints of `count` scenes: coarse noise, which gzip can compress."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, VIEWS, SIZE // 8, SIZE // 8, 3), np.uint8).repeat(8, 2).repeat(8, 3)
    return images, rng.normal(size=(count, VIEWS, 5)).astype(np.float32)


def save(path, array):
    if path.suffix == ".gz":
        with gzip.open(path, "wb", compresslevel=1) as file:
            np.save(file, array)
    else:
        np.save(path, array)


def make_mirror(folder, *, ending=".npy", train=7, test=2):
    folder.mkdir(parents=True)
    for seed, (split, count) in enumerate((("train", train), ("test", test))):
        if count:
            images, viewpoints = scenes(count, seed)
            save(folder / f"{split}_images{ending}", images)
            save(folder / f"{split}_viewpoints{ending}", viewpoints)
    return folder


@pytest.fixture(scope="module", params=[".npy", ".npy.gz"])
def mirror(request, tmp_path_factory):
    """Return a read-only mirror of 7 train and 2 test scenes."""
    return make_mirror(tmp_path_factory.mktemp("mirror") / SET, ending=request.param)


def run(folder, root, **options):
    options = {"formats": ("numpy",), "workers": 1, "shard_bytes": 400_000, **options}
    return convert(folder, ROW, root, Options(**options))


def check_scenes(folder, *, exact=True):
    for seed, (split, count) in enumerate((("train", 7), ("test", 2))):
        images, viewpoints = scenes(count, seed)
        dataset = open_dataset(folder, split)
        assert dataset.cameras.tobytes() == viewpoints.tobytes()
        for scene, expected in zip(dataset, images, strict=True):
            if exact:
                assert np.array_equal(scene.frames, expected)
            else:
                assert np.abs(scene.frames.astype(int) - expected).mean() < 12


# Reading.


@pytest.mark.parametrize("name", WRITABLE)
def test_the_mirror_converts_to_every_container(name, mirror, tmp_path):
    quality = 95 if name in ("webdataset", "tfrecord") else None
    result = run(mirror, tmp_path, formats=(name,), jpeg_quality=quality, shard_bytes=100_000)[0]
    assert (len(result.manifest.splits["train"].shards) > 1) == (name != "mirror")
    check_scenes(result.folder, exact=quality is None)
    assert verify(*locate(str(result.folder), tmp_path, None), deep=True, workers=1).faults == ()
    assert result.manifest.origin.kind == "imported"
    assert not (tmp_path / ".work").exists()


def test_pixels_become_jpegs_only_at_an_explicit_quality(mirror, tmp_path):
    with pytest.raises(OptionError, match=r"pixels.*--jpeg-quality"):
        run(mirror, tmp_path, formats=("webdataset",))
    check_scenes(run(mirror, tmp_path, formats=("zarr",), jpeg_quality=95)[0].folder, exact=False)


def test_gzip_and_the_number_of_workers_do_not_change_the_shards(mirror, tmp_path):
    def shards(folder):
        return {name: data for name, data in tree(folder).items() if name.startswith(("train", "test"))}

    plain = make_mirror(tmp_path / "plain" / SET)
    expected = shards(run(plain, tmp_path / "a")[0].folder)
    assert len(expected) > 8
    for workers in (1, 3):
        assert shards(run(mirror, tmp_path / str(workers), workers=workers)[0].folder) == expected
    with ThreadPoolExecutor(3) as executor:  # several readers of one open file
        options = Options(formats=("numpy",), shard_bytes=400_000, workers=3)
        assert shards(convert(mirror, ROW, tmp_path / "t", options, executor=executor)[0].folder) == expected


def test_a_rerun_writes_nothing_and_refuses_other_arrays(mirror, tmp_path):
    run(mirror, tmp_path / "out")
    again = run(mirror, tmp_path / "out")[0]
    assert (again.written, again.kept) == (0, sum(len(row.shards) for row in again.manifest.splits.values()))
    more = make_mirror(tmp_path / SET, ending="".join(next(mirror.iterdir()).suffixes), train=8)
    with pytest.raises(Exception, match="--overwrite"):
        run(more, tmp_path / "out")


def test_splits_and_scenes_can_be_limited(mirror, tmp_path):
    result = run(mirror, tmp_path / "a", splits=("test",))[0]
    assert list(result.manifest.splits) == ["test"]
    assert len(open_dataset(run(mirror, tmp_path / "b", limit=3)[0].folder)) == 3
    train_only = make_mirror(tmp_path / "train" / SET, test=0)
    assert list(run(train_only, tmp_path / "c")[0].manifest.splits) == ["train"]
    with pytest.raises(SourceMissing, match="no arrays of the split test"):
        run(train_only, tmp_path / "d", splits=("test",))


def test_parts_of_a_job_array_convert_a_mirror_together(mirror, tmp_path):
    options = Options(formats=("numpy",), workers=1, shard_bytes=400_000)
    whole = tree(convert(mirror, ROW, tmp_path / "whole", options)[0].folder)
    for number in (0, 1):
        convert_part(mirror, ROW, tmp_path / "parts", options, Part(number, 2))
    result = convert(mirror, ROW, tmp_path / "parts", options)[0]
    assert result.written == 0
    assert tree(result.folder) == whole


def test_the_commands_accept_a_mirror(mirror, tmp_path):
    def call(*arguments):
        return CliRunner().invoke(gqn_data, [str(argument) for argument in arguments])

    text = call("info", mirror).stdout
    for part in ("mirror", "15 views of 64x64, decoded", "7 scenes", "810,000 scenes", "imported"):
        assert part in text
    assert call("verify", mirror, "--deep", "--workers", 1).exit_code == 0
    dry_run = call("convert", mirror, "--out", tmp_path, "--dry-run")
    assert dry_run.exit_code == 0, dry_run.output
    assert tree(tmp_path) == {}
    found = call("convert", mirror, "--out", tmp_path, "--format", "numpy", "--workers", 1)
    assert found.exit_code == 0, found.output
    check_scenes(tmp_path / "numpy" / SET)
    assert "numpy mirror" in call("index", mirror).stderr
    assert f"gqn-data convert {mirror}" in call("view", mirror, "-o", tmp_path / "x.png").stderr


def test_a_mirror_in_the_data_root_is_not_fetched(tmp_path):
    folder = make_mirror(tmp_path / "raw" / SET)
    assert locate_source("sm5", tmp_path, tmp_path, None).bucket is None
    assert locate_source(str(folder), tmp_path, tmp_path, None).bucket is None


def test_a_folder_of_another_name_needs_an_explicit_set(tmp_path):
    folder = make_mirror(tmp_path / "mirror")
    with pytest.raises(SourceMissing, match="--set"):
        locate(str(folder), tmp_path, None)
    assert locate(str(folder), tmp_path, "shepard_metzler_5") == (folder, ROW)
    with pytest.raises(ArrayFileError, match=r"scenes of \(15, 64, 64, 3\), expected \(11, 64, 64, 3\).*--set"):
        open_mirror(folder, SCENE_SETS["jaco"])


def test_a_plain_array_is_preferred_to_a_gzipped_one(tmp_path):
    folder = make_mirror(tmp_path / SET, ending=".npy.gz")
    save(folder / "train_images.npy", scenes(7)[0])
    found = open_mirror(folder, ROW)
    assert [array.path.name for array in found.gzipped] == [
        "train_viewpoints.npy.gz",
        "test_images.npy.gz",
        "test_viewpoints.npy.gz",
    ]
    check_scenes(run(folder, tmp_path / "out")[0].folder)


def test_only_plain_arrays_are_read_from_a_store(mirror, s3, tmp_path):
    stored = parse_path(s3) / SET
    for path in mirror.iterdir():
        (stored / path.name).put(path.read_bytes())
    if any(path.suffix == ".gz" for path in mirror.iterdir()):
        with pytest.raises(ArrayFileError, match="copy the folder to"):
            run(stored, tmp_path)
        return
    assert locate_source(str(stored), tmp_path, tmp_path, None).bucket is None
    assert tree(run(stored, tmp_path / "a")[0].folder) == tree(run(mirror, tmp_path / "b")[0].folder)
    assert verify(stored, ROW, deep=True, workers=1).faults == ()


def test_gzipped_arrays_are_not_converted_into_a_store(mirror, s3):
    if not open_mirror(mirror, ROW).gzipped:
        run(mirror, parse_path(s3))
        check_scenes(parse_path(s3) / "numpy" / SET)
        return
    with pytest.raises(OptionError, match=r"expected a local disk.*--out"):
        run(mirror, parse_path(s3))


# Errors.


def bad_array(folder, name, array, ending):
    save(folder / f"{name}{ending}", array)


@pytest.mark.parametrize("ending", [".npy", ".npy.gz"])
@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train_images", scenes(7)[0].astype(np.float32), r"found float32, expected uint8"),
        ("train_images", scenes(7)[0][:, :, :32], r"scenes of \(15, 32, 64, 3\), expected \(15, 64, 64, 3\)"),
        ("train_images", scenes(7)[0][..., 0], r"expected \(scenes, views, height, width, 3\)"),
        ("train_images", scenes(7)[0][:0], r"expected \(scenes, views"),
        ("train_images", np.uint8(3), r"expected \(scenes, views"),
        ("train_images", scenes(8)[0], r"8 scenes, expected 7 as in train_viewpoints.npy"),
        ("train_viewpoints", scenes(7)[1].astype(np.float64), r"found float64, expected float32"),
        ("train_viewpoints", scenes(7)[1].astype(">f4"), r"found >f4, expected float32"),
        ("train_viewpoints", scenes(7)[1][..., :4], r"scenes of \(15, 4\), expected \(15, 5\)"),
        ("train_images", np.asfortranarray(scenes(7)[0]), r"in Fortran order.*ascontiguousarray"),
        ("train_images", np.array([None] * 7), r"Python objects \(a pickle\)"),
    ],
)
def test_an_array_of_the_wrong_type_or_shape_is_refused(ending, name, array, message, tmp_path):
    folder = make_mirror(tmp_path / SET, ending=ending)
    if array.dtype == object:
        data = io.BytesIO()
        np.lib.format.write_array(data, array, allow_pickle=True)
        data = data.getvalue()
        (folder / f"{name}{ending}").write_bytes(gzip.compress(data) if ending.endswith("gz") else data)
    else:
        save(folder / f"{name}{ending}", array)
    for attempt in (
        lambda: open_mirror(folder, ROW),
        lambda: run(folder, tmp_path / "out"),
        lambda: plan_only(folder, ROW, tmp_path / "out", Options(formats=("numpy",), workers=1)),
    ):
        with pytest.raises(ArrayFileError, match=message):
            attempt()
    assert tree(tmp_path / "out") == {}


def test_images_without_viewpoints_are_refused(mirror, tmp_path):
    for name, missing in (("train_images", "train_viewpoints"), ("train_viewpoints", "train_images")):
        folder = tmp_path / name / SET
        folder.mkdir(parents=True)
        (path,) = mirror.glob(f"{name}.npy*")
        (folder / path.name).write_bytes(path.read_bytes())
        with pytest.raises(SourceMissing, match=rf"{name}.*expected {missing}\.npy\[\.gz\]"):
            open_mirror(folder, ROW)


HEADERS = [
    b"",
    b"\x93NUMPY",
    b"\x93NUMPX\x01\x00v\x00{}",
    b"\x93NUMPY\x01\x00\xff\xff" + b" " * 70_000,
    b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b"{" * 1000,
    b"\x93NUMPY\x03\x00\x10\x00\x00\x00" + b" " * 16,
    b"\x93NUMPY\x01\x00\x76\x00" + b"(" * 0x76,
    b"\x93NUMPY\x01\x00\x10\x00" + b"__import__('os')",
    b"\x93NUMPY\x01\x00\x48\x00"
    + b"{'descr': '|u1', 'fortran_order': False, 'shape': (-7, 15, 64, 64, 3), }".ljust(72),
    b"\x93NUMPY\x01\x00\x50\x00"
    + b"{'descr': '|u1', 'fortran_order': False, 'shape': (9999999999999, 15, 64, 64, 3), }"[:80],
    b"\x93NUMPY\x01\x00\x60\x00"
    + b"{'descr': '|u1', 'fortran_order': False, 'shape': (9"
    + b"9" * 18
    + b", 15, 64, 64, 3), }"
    + b" " * 50,
    pickle.dumps([1, 2, 3]),
    b"\x1f\x8b" + bytes(100),
]


@pytest.mark.parametrize("ending", [".npy", ".npy.gz"])
@pytest.mark.parametrize("number", range(len(HEADERS)))
def test_an_invalid_header_is_refused(ending, number, tmp_path):
    folder = make_mirror(tmp_path / SET, ending=ending)
    data = HEADERS[number]
    (folder / f"train_images{ending}").write_bytes(gzip.compress(data) if ending.endswith("gz") else data)
    with pytest.raises(ArrayFileError, match=r"train_images\.npy"):
        open_mirror(folder, ROW)


def test_headers_of_both_versions_are_read(tmp_path):
    for version in ((1, 0), (2, 0)):
        path = tmp_path / "train_images.npy"
        with path.open("wb") as file:
            np.lib.format.write_array(file, np.zeros((2, 3), np.uint8), version=version)
        assert read_header(path).shape == (2, 3)
        assert read_header(path).bytes == path.stat().st_size


@pytest.mark.parametrize("cut", [1, 8, 9, 400, 0.5])
def test_a_truncated_array_is_refused(cut, tmp_path):
    for ending in (".npy", ".npy.gz"):
        folder = make_mirror(tmp_path / ending / SET, ending=ending)
        for name in ("train_images", "test_viewpoints"):
            path = folder / f"{name}{ending}"
            whole = path.read_bytes()
            path.write_bytes(whole[: -cut if isinstance(cut, int) else int(cut * len(whole))])
            with pytest.raises(ArrayFileError, match=rf"{name}.*(cut short|damaged)"):
                run(folder, tmp_path / "out")
            assert not (tmp_path / "out" / "numpy" / SET / "manifest.json").exists()
            try:
                (fault,) = verify(folder, ROW, workers=1).faults
            except ArrayFileError as error:  # so short that its header cannot be right
                fault = str(error)
            assert name in fault
            path.write_bytes(whole)


def test_trailing_bytes_are_refused(tmp_path):
    folder = make_mirror(tmp_path / SET)
    with (folder / "train_images.npy").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ArrayFileError, match=r"\d+ bytes, expected \d+ for shape \(7, "):
        open_mirror(folder, ROW)
    folder = make_mirror(tmp_path / "gz" / SET, ending=".npy.gz")
    path = folder / "train_images.npy.gz"
    whole = path.read_bytes()
    path.write_bytes(gzip.compress(gzip.decompress(whole) + b"more"))
    with pytest.raises(ArrayFileError, match=r"more than \d+ bytes"):
        run(folder, tmp_path / "out")
    path.write_bytes(whole + b"garbage behind the end")
    with pytest.raises(ArrayFileError, match="damaged"):
        run(folder, tmp_path / "out")


def test_a_flipped_bit_in_a_gzipped_array_is_found(tmp_path):
    folder = make_mirror(tmp_path / SET, ending=".npy.gz", test=0)
    chance = random.Random(5)
    for name in ("train_images.npy.gz", "train_viewpoints.npy.gz"):
        path = folder / name
        whole = path.read_bytes()
        for _ in range(40):
            data = bytearray(whole)
            at = chance.randrange(10, len(data))  # no checksum covers the header and the name
            if 10 <= at < 10 + len("train_images.npy") + 1:
                continue
            data[at] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
            with pytest.raises(ArrayFileError):
                check_gzip(path, read_header(path).bytes)
        path.write_bytes(whole)
    assert verify(folder, ROW, workers=1).faults == ()


def test_decompression_stops_at_the_length_in_the_header(tmp_path):
    path = tmp_path / "train_images.npy.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        np.save(file, np.zeros((1, 4), np.uint8))
        for _ in range(200):
            file.write(bytes(1 << 20))
    counts = []
    with pytest.raises(ArrayFileError, match="more than 132 bytes"):
        check_gzip(path, read_header(path).bytes, counts.append)
    assert sum(counts) == 0
    with pytest.raises(ArrayFileError, match="132 bytes"):
        write_seek_points(path, 132, tmp_path / "points")


def test_a_camera_that_is_not_finite_is_found_by_a_deep_check(tmp_path):
    folder = make_mirror(tmp_path / SET)
    viewpoints = scenes(7)[1]
    viewpoints[5, 3, 1] = np.nan
    save(folder / "train_viewpoints.npy", viewpoints)
    assert verify(folder, ROW, workers=1).faults == ()
    (fault,) = verify(folder, ROW, deep=True, workers=1).faults
    assert "scene 5: the camera of view 3 is not finite" in fault


# Seek points.


def gz_file(tmp_path, data, name="data.gz"):
    path = tmp_path / name
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(data)
    points = tmp_path / (name + ".points")
    write_seek_points(path, len(data), points)
    return GzippedFile(path, path.stat().st_size, len(data), points, sha256_of(points))


@pytest.fixture
def close_points(monkeypatch):
    monkeypatch.setattr(gzip_index, "_SPACING", (1 << 16, 1 << 16))
    monkeypatch.setattr(gzip_index, "_STEP", 1 << 17)


def test_any_range_of_a_gzipped_file_can_be_read(close_points, tmp_path):
    data = np.random.default_rng(0).integers(0, 5, 3_000_000, np.uint8).tobytes()
    file = gz_file(tmp_path, data)
    assert (tmp_path / "data.gz.points").stat().st_size > 20 * 32768
    chance = random.Random(0)
    for _ in range(200):
        offset = chance.randrange(len(data))
        length = min(chance.choice([1, 100, 70_000, 10**6]), len(data) - offset)
        assert file.read(offset, length) == data[offset : offset + length]
        out = np.empty(length, np.uint8)
        file.read_into(offset, out)
        assert out.tobytes() == data[offset : offset + length]
    assert file.read_many([(5, 3), (2_000_000, 4)]) == [data[5:8], data[2_000_000:2_000_004]]
    assert pickle.loads(pickle.dumps(file)).read(100, 10) == data[100:110]
    with pytest.raises(ShardChecksumError, match="were asked for"):
        file.read(len(data) - 5, 6)


def test_threads_can_read_in_parallel(close_points, tmp_path):
    data = np.random.default_rng(0).integers(0, 5, 3_000_000, np.uint8).tobytes()
    file = gz_file(tmp_path, data)

    def read(number):
        offset = random.Random(number).randrange(len(data) - 300_000)
        return file.read(offset, 300_000) == data[offset : offset + 300_000]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(200)))


def test_a_file_of_several_gzip_members_can_be_read(close_points, tmp_path):
    data = np.random.default_rng(0).integers(0, 5, 500_000, np.uint8).tobytes()
    path = tmp_path / "many.gz"
    path.write_bytes(b"".join(gzip.compress(data[at : at + 10_000], 1) for at in range(0, len(data), 10_000)))
    check_gzip(path, len(data))
    write_seek_points(path, len(data), tmp_path / "points")
    file = GzippedFile(path, path.stat().st_size, len(data), tmp_path / "points", sha256_of(tmp_path / "points"))
    for offset in (0, 9_999, 10_000, 123_456, 499_999):
        assert file.read(offset, 1) == data[offset : offset + 1]
    assert file.read(0, len(data)) == data


def test_damaged_seek_points_are_refused(close_points, tmp_path):
    file = gz_file(tmp_path, bytes(300_000))
    points = tmp_path / "data.gz.points"
    data = bytearray(points.read_bytes())
    data[-100] ^= 1
    points.write_bytes(data)
    with pytest.raises(ShardChecksumError, match=r"points: SHA-256 is"):
        file.read(0, 10)


def test_a_gzipped_file_that_changed_is_refused(close_points, tmp_path):
    file = gz_file(tmp_path, bytes(300_000))
    with (tmp_path / "data.gz").open("ab") as changed:
        changed.write(b"x")
    with pytest.raises(ShardChecksumError, match=r"data\.gz: changed"):
        file.read(0, 10)


def test_the_size_of_the_seek_points_is_bounded():
    for size in (10**6, 10**9, 150 * 10**9):
        spacing = gzip_index._spacing(size)
        assert size / spacing * 32768 < 80 << 20
        assert 4 << 20 <= spacing <= 64 << 20


# Interruption.


def test_a_rerun_after_an_interruption_does_not_check_the_arrays_again(tmp_path, monkeypatch):
    from gqn_data.convert import engine
    from gqn_data.convert import mirror as mirror_module

    folder = make_mirror(tmp_path / SET, ending=".npy.gz")
    whole = tree(run(folder, tmp_path / "whole")[0].folder)
    remaining, write = [2], engine.write_shard

    def interrupt_after_two(task):
        if not remaining[0]:
            raise KeyboardInterrupt
        remaining[0] -= 1
        return write(task)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "write_shard", interrupt_after_two)
        with pytest.raises(KeyboardInterrupt):
            run(folder, tmp_path / "cut")
    assert not (tmp_path / "cut" / "numpy" / SET / "manifest.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(mirror_module, "_run_gzip_task", lambda _: pytest.fail("checked again"))
        result = run(folder, tmp_path / "cut")[0]
    assert result.kept == 2
    assert tree(result.folder) == whole
    assert not (tmp_path / "cut" / ".work").exists()


DRIVER = """
import sys
from pathlib import Path
from gqn_data.convert import convert
from gqn_data.convert.plan import Options
from gqn_data.schema.catalog import SCENE_SETS
options = Options(formats=("numpy",), shard_bytes=200_000, workers=2)
convert(Path(sys.argv[1]), SCENE_SETS[sys.argv[2]], Path(sys.argv[3]), options)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find the workers")
def test_a_killed_conversion_resumes_to_the_same_dataset(tmp_path):
    folder = make_mirror(tmp_path / SET, ending=".npy.gz", train=30)
    whole = tree(run(folder, tmp_path / "whole", shard_bytes=200_000)[0].folder)
    root = tmp_path / "killed"

    def start():
        command = [sys.executable, "-c", DRIVER, str(folder), SET, str(root)]
        return subprocess.Popen(command, start_new_session=True, env={**os.environ, "PYTHONPATH": str(ROOT)})

    for enough in (1, 5):
        process = start()
        wait_until(lambda: len(list(root.rglob("*.npy"))) >= enough or process.poll() is not None)  # noqa: B023
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until(lambda: not living(process.pid))  # noqa: B023
    assert start().wait(120) == 0
    assert tree(root / "numpy" / SET) == whole
    assert not (root / ".work").exists()


def test_memory_does_not_grow_with_the_array(tmp_path):
    """Convert half a gigabyte of gzipped zeros with at most 250 MiB more memory."""
    pytest.importorskip("resource")
    folder = tmp_path / SET
    folder.mkdir()
    count = 2700
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, VIEWS, SIZE, SIZE, 3)}
    with gzip.open(folder / "train_images.npy.gz", "wb", compresslevel=1) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(count):
            file.write(bytes(VIEWS * SIZE * SIZE * 3))
    save(folder / "train_viewpoints.npy", np.zeros((count, VIEWS, 5), np.float32))
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from gqn_data.convert.run import convert\n"
        "from gqn_data.convert.plan import Options\n"
        "from gqn_data.schema.catalog import SCENE_SETS\n"
        "options = Options(formats=('zarr',), workers=1, shard_bytes=32 << 20)\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10\n"
        "before = peak()\n"
        "convert(Path(sys.argv[1]), SCENE_SETS[sys.argv[2]], Path(sys.argv[3]), options)\n"
        "assert peak() - before < 250 << 20, (before, peak())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, folder, SET, tmp_path / "out"], check=True, env=environment)
    manifest = json.loads((tmp_path / "out" / "zarr" / SET / "manifest.json").read_bytes())
    assert manifest["splits"]["train"]["scenes"] == count


def test_arrays_are_not_indexed_as_source_files(mirror):
    with pytest.raises(SourceMissing, match="arrays of the numpy mirror"):
        index_raw_folder(open_raw_folder(mirror, ROW))
