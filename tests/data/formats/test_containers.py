"""Every container: round trip, reading by third-party libraries, and conversion to any other container."""

import hashlib
import io
import subprocess
import tarfile
import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path

import crc32c
import numpy as np
import pytest
import simplejpeg
import webdataset
import zarr
from made_scenes import SET, SIZE, VIEWS, made_scene, make_raw_folder, tree
from zarr.abc.codec import Codec
from zarr.registry import get_codec_class, register_codec

from gqn_data.convert import convert
from gqn_data.convert.index import index_raw_folder
from gqn_data.convert.plan import Options
from gqn_data.dataset import open_dataset
from gqn_data.errors import CorruptRecord, GQNError, OptionError, ShardChecksumError
from gqn_data.formats import FORMATS, WRITABLE
from gqn_data.formats.zarr_jpeg_codec import JpegCodec
from gqn_data.schema.catalog import SCENE_SETS
from gqn_data.schema.manifest import read_manifest
from gqn_data.sources.raw_folder import open_raw_folder

CASES = [(name, encoding) for name in WRITABLE for encoding in FORMATS[name].encodings]
SPLITS = {"train": (0, 7), "test": (1000, 2)}  # first made scene, and number of scenes
SMALL = 6000  # bytes per shard: gives several shards in each container
CODEC = "imagecodecs_jpeg"


def converted(source, root, name, encoding, **options):
    options = Options(**{"formats": (name,), "frames": encoding, "workers": 1, **options})
    return convert(source, SCENE_SETS[SET], root, options)[0].folder


@pytest.fixture(scope="module")
def datasets(shared_raw, tmp_path_factory):
    """Return a function that converts the made scenes to a container, in several shards, and caches the result."""
    root = tmp_path_factory.mktemp("containers")

    @cache
    def get(name, encoding):
        if name == "indexed":
            folder = make_raw_folder(root / "indexed" / SET)
            index_raw_folder(open_raw_folder(folder, SCENE_SETS[SET]))
            return folder
        return converted(shared_raw, root / encoding, name, encoding, shard_bytes=SMALL)

    return get


@pytest.fixture(scope="module", autouse=True)
def codec_is_known():
    """Register the codec with zarr if the project is not installed, so that its entry point is missing."""
    try:
        get_codec_class(CODEC)
    except KeyError:
        register_codec(CODEC, JpegCodec)


def expected_frames(number):
    return np.stack([simplejpeg.decode_jpeg(frame) for frame in made_scene(number).frames])


every_container = pytest.mark.parametrize(("name", "encoding"), [*CASES, ("indexed", "jpeg")])


def test_every_format_is_writable_or_read_in_place():
    assert set(WRITABLE) == set(FORMATS)
    assert all(FORMATS[name].name == name for name in FORMATS)


@every_container
def test_scenes_are_read_back_as_written(name, encoding, datasets):
    folder = datasets(name, encoding)
    for split, (first, count) in SPLITS.items():
        scenes = open_dataset(folder, split)
        assert len(scenes) == count
        assert len(scenes.manifest.splits[split].shards) > 1 or split == "test" or name == "mirror"
        for number, scene in enumerate(scenes):
            made = made_scene(first + number)
            assert scene.cameras.tobytes() == made.cameras.tobytes()
            assert scene.cameras.shape == (VIEWS, 5)
            if encoding == "jpeg":
                assert [bytes(frame) for frame in scene.encoded] == list(made.frames)
            else:
                assert scene.encoded is None
            assert np.array_equal(scene.frames, expected_frames(first + number))


@every_container
def test_only_the_chosen_views_are_decoded_into_a_batch(name, encoding, datasets):
    scenes = open_dataset(datasets(name, encoding))
    for number in (0, 3, 6):
        for views in ([2, 0], [1], [], [2, 2, 1, 0]):
            out = np.full((len(views), SIZE, SIZE, 3), 7, np.uint8)
            cameras = scenes.decode_into(number, views, out)
            assert np.array_equal(out, expected_frames(number)[views])
            assert cameras.tobytes() == made_scene(number).cameras.tobytes()


@every_container
def test_cameras_of_all_scenes_equal_those_of_each_scene(name, encoding, datasets):
    scenes = open_dataset(datasets(name, encoding))
    expected = np.stack([made_scene(number).cameras for number in range(7)])
    assert scenes.cameras.tobytes() == expected.tobytes()
    assert scenes.cameras.shape == expected.shape
    assert all(np.array_equal(scenes.cameras_of(number), expected[number]) for number in range(7))


@every_container
def test_scenes_are_indexed_like_a_list(name, encoding, datasets):
    scenes = open_dataset(datasets(name, encoding))
    assert np.array_equal(scenes[-1].cameras, scenes[6].cameras)
    for outside in (7, -8, 10**9):
        with pytest.raises(IndexError, match="of 7"):
            scenes[outside]


@every_container
def test_the_fingerprint_depends_on_scenes_not_on_the_container(name, encoding, datasets, tmp_path):
    folder = datasets(name, encoding)
    prints = {open_dataset(folder, split).fingerprint for split in SPLITS}
    assert prints == {open_dataset(datasets("indexed", "jpeg"), split).fingerprint for split in SPLITS}
    fewer = converted(folder, tmp_path, "zarr", "raw", limit=6)
    assert open_dataset(fewer).fingerprint not in prints


@every_container
def test_sha256sum_accepts_the_checksums(name, encoding, datasets):
    folder = datasets(name, encoding)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    manifest = read_manifest(folder)
    listed = {line[66:] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert "manifest.json" in listed
    for row in manifest.all_files():
        data = (folder / row.name).read_bytes()
        assert len(data) == row.bytes
        assert row.sha256 is None or row.sha256 == hashlib.sha256(data).hexdigest()
        assert (row.sha256 is None) == (row.name not in listed)
    there = set(tree(folder)) - {"manifest.json", "SHA256SUMS", "README.md", "croissant.json"}
    if name != "indexed":
        assert there == {row.name for row in manifest.all_files()}


@pytest.mark.parametrize(("name", "encoding"), CASES)
@pytest.mark.parametrize(("to", "kept"), CASES)
def test_any_container_converts_to_any_other(name, encoding, to, kept, datasets, tmp_path):
    source = datasets(name, encoding)
    quality = {"jpeg_quality": 92} if (encoding, kept) == ("raw", "jpeg") else {}
    folder = converted(source, tmp_path, to, kept, **quality)
    for split, (first, count) in SPLITS.items():
        scenes = open_dataset(folder, split)
        assert len(scenes) == count
        for number, scene in enumerate(scenes):
            assert scene.cameras.tobytes() == made_scene(first + number).cameras.tobytes()
            expected = expected_frames(first + number)
            if quality:
                encoded = [simplejpeg.encode_jpeg(frame, 92, "RGB", "420") for frame in expected]
                assert [bytes(frame) for frame in scene.encoded] == encoded
            else:
                assert np.array_equal(scene.frames, expected)
            if kept == encoding == "jpeg":
                assert [bytes(frame) for frame in scene.encoded] == list(made_scene(first + number).frames)
    if kept == encoding:
        direct = converted(datasets("indexed", "jpeg"), tmp_path / "direct", to, kept)
        assert tree(folder) == tree(direct)


@pytest.mark.parametrize("to", ["zarr", "webdataset"])
def test_pixels_become_jpeg_only_when_a_quality_is_given(to, datasets, tmp_path):
    with pytest.raises(OptionError, match="--jpeg-quality"):
        converted(datasets("numpy", "raw"), tmp_path, to, "jpeg")
    assert not (tmp_path / to).exists()


def test_numpy_keeps_no_jpegs_and_webdataset_no_pixels(datasets, tmp_path):
    for name, encoding in (("numpy", "jpeg"), ("webdataset", "raw")):
        with pytest.raises(OptionError, match=f"found {encoding}, expected .* for {name}"):
            converted(datasets("zarr", "jpeg"), tmp_path, name, encoding)


# Stock readers.


def test_numpy_reads_and_maps_the_npy_files(datasets):
    folder = datasets("numpy", "raw")
    for split, (first, count) in SPLITS.items():
        names = sorted(path.name for path in (folder / split).glob("frames-*.npy"))
        frames = np.concatenate([np.load(folder / split / name, mmap_mode="r") for name in names])
        cameras = np.concatenate([np.load(folder / split / name.replace("frames", "cameras")) for name in names])
        assert (frames.dtype, cameras.dtype) == (np.uint8, np.float32)
        assert frames.shape == (count, VIEWS, SIZE, SIZE, 3)
        assert np.array_equal(frames, np.stack([expected_frames(first + number) for number in range(count)]))
        assert np.array_equal(cameras, np.stack([made_scene(first + number).cameras for number in range(count)]))


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
def test_stock_zarr_reads_the_groups(encoding, datasets):
    folder = datasets("zarr", encoding)
    for split, (first, count) in SPLITS.items():
        group = zarr.open_group(folder / split, mode="r")
        frames, cameras = group["frames"], group["cameras"]
        assert frames.shape == (count, VIEWS, SIZE, SIZE, 3)
        assert frames.metadata.dimension_names == ("scene", "view", "height", "width", "channel")
        assert cameras.metadata.dimension_names == ("scene", "view", "camera")
        assert np.array_equal(frames[:], np.stack([expected_frames(first + number) for number in range(count)]))
        assert np.array_equal(frames[count - 1, 1], expected_frames(first + count - 1)[1])
        assert np.array_equal(cameras[:], np.stack([made_scene(first + number).cameras for number in range(count)]))
        assert dict(group.attrs) == {"scene_set": SET, "split": split, "origin": "rendered"}
        assert cameras.attrs["camera_fields"] == ["x", "y", "z", "yaw", "pitch"]
        assert cameras.attrs["angles"] == "radians"


def test_the_index_of_a_zarr_shard_locates_each_jpeg_and_has_a_checksum(datasets):
    folder = datasets("zarr", "jpeg")
    row = read_manifest(folder).splits["train"]
    number = 0
    for shard in row.shards:
        data = (folder / shard.files[0].name).read_bytes()
        size = row.scenes_per_shard * VIEWS * 16
        index, checksum = data[-4 - size : -4], data[-4:]
        assert crc32c.crc32c(index) == int.from_bytes(checksum, "little")
        extents = np.frombuffer(index, "<u8").reshape(-1, VIEWS, 2)
        for within, scene in enumerate(extents):
            if within >= shard.scenes:  # the last shard has full size, with missing scenes marked
                assert (scene == 2**64 - 1).all()
                continue
            found = [data[offset : offset + length] for offset, length in scene.tolist()]
            assert found == list(made_scene(number).frames)
            number += 1
    assert number == 7


def test_stock_zarr_detects_a_damaged_index(datasets, tmp_path):
    folder = converted(datasets("indexed", "jpeg"), tmp_path, "zarr", "jpeg")
    path = folder / read_manifest(folder).splits["train"].shards[0].files[0].name
    data = bytearray(path.read_bytes())
    data[-30] ^= 1
    path.write_bytes(data)
    with pytest.raises(Exception, match=r"(?i)checksum"):
        zarr.open_group(folder / "train", mode="r")["frames"][:]


def test_stock_zarr_encodes_and_decodes_with_our_codec(tmp_path):
    pixels = np.stack([expected_frames(number) for number in range(2)])
    array = zarr.create_array(
        tmp_path / "own.zarr",
        shape=pixels.shape,
        chunks=(1, 1, SIZE, SIZE, 3),
        dtype="uint8",
        serializer=JpegCodec(),
        compressors=None,
        filters=None,
    )
    array[:] = pixels
    again = zarr.open_array(tmp_path / "own.zarr", mode="r")[:]
    assert abs(again.astype(int) - pixels).mean() < 8  # a lossy codec


def test_the_zarr_entry_point_names_a_codec():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    module, name = project["entry-points"]["zarr.codecs"][CODEC].split(":")
    codec = getattr(import_module(module), name)
    assert issubclass(codec, Codec)
    assert codec.from_dict({"name": CODEC}).to_dict()["name"] == CODEC


leaves_files_open = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@leaves_files_open  # by webdataset
def test_stock_webdataset_reads_the_tars(datasets):
    folder = datasets("webdataset", "jpeg")
    for split, (first, count) in SPLITS.items():
        urls = [str(path) for path in sorted(folder.glob(f"{split}-*.tar"))]
        samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
        assert [sample["__key__"] for sample in samples] == [f"{number:010d}" for number in range(count)]
        for number, sample in enumerate(samples):
            made = made_scene(first + number)
            assert [sample[f"{view:02d}.jpg"] for view in range(VIEWS)] == list(made.frames)
            assert np.array_equal(np.load(io.BytesIO(sample["cameras.npy"])), made.cameras)


@leaves_files_open
def test_webdatasets_own_decoders_give_pixels_and_cameras(datasets):
    urls = [str(path) for path in sorted(datasets("webdataset", "jpeg").glob("train-*.tar"))]
    decoded = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("rgb8")
    for number, sample in enumerate(decoded):
        frames = np.stack([sample[f"{view:02d}.jpg"] for view in range(VIEWS)])
        assert abs(frames.astype(int) - expected_frames(number)).max() <= 4  # decoded by Pillow there
        assert np.array_equal(sample["cameras.npy"], made_scene(number).cameras)


def test_tars_equal_those_of_tarfile_byte_for_byte(datasets):
    folder = datasets("webdataset", "jpeg")
    number = 0
    for shard in read_manifest(folder).splits["train"].shards:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for _ in range(shard.scenes):
                made = made_scene(number)
                cameras = io.BytesIO()
                np.save(cameras, made.cameras)
                members = [("cameras.npy", cameras.getvalue())]
                members += [(f"{view:02d}.jpg", frame) for view, frame in enumerate(made.frames)]
                for ending, data in members:
                    member = tarfile.TarInfo(f"{number:010d}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
                number += 1
        assert (folder / shard.files[0].name).read_bytes() == file.getvalue()


def test_more_than_a_hundred_views_keep_their_order_in_a_tar(tmp_path):
    raw = make_raw_folder(tmp_path / SET, train=(2,), test=(), views=101)
    folder = converted(raw, tmp_path / "root", "webdataset", "jpeg")
    with tarfile.open(folder / "train-000000.tar") as tar:
        names = tar.getnames()
    endings = ["cameras.npy", *(f"{view:03d}.jpg" for view in range(101))]
    assert names == [f"000000000{scene}.{ending}" for scene in (0, 1) for ending in endings]
    scene = open_dataset(folder)[1]
    assert [bytes(frame) for frame in scene.encoded] == list(made_scene(1, 101).frames)


# Files that changed since they were written.


@every_container
def test_truncated_and_missing_files_are_named_in_the_error(name, encoding, datasets, tmp_path):
    source = datasets(name, encoding)
    for damage in ("cut", "absent"):
        for row in read_manifest(source).splits["train"].shards[0].files:
            folder = tmp_path / damage / row.name.replace("/", "-")
            for file, data in tree(source).items():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_bytes(data)
            path = folder / row.name
            if damage == "cut":
                path.write_bytes(path.read_bytes()[:-1])
            else:
                path.unlink()
            scenes = open_dataset(folder)
            with pytest.raises(ShardChecksumError) as caught:
                _ = scenes[0].frames, scenes.cameras
            assert str(path) in str(caught.value)
            if name != "indexed" or damage == "cut":
                with pytest.raises(GQNError) as caught:
                    converted(folder, tmp_path / damage / "out", "zarr", None)
                assert str(path) in str(caught.value)


def test_a_record_changed_since_indexing_is_rejected(raw, scene_set):
    index_raw_folder(open_raw_folder(raw, scene_set))
    path = raw / "train" / "002-of-900.tfrecord"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptRecord, match="002-of-900"):
        list(open_dataset(raw))


def test_datasets_open_by_split_or_by_the_folder_of_a_split(datasets):
    folder = datasets("zarr", "jpeg")
    assert len(open_dataset(folder)) == len(open_dataset(str(folder), "train")) == len(open_dataset(folder / "train"))
    assert len(open_dataset(folder, "test")) == len(open_dataset(folder / "test")) == 2
    assert "7 scenes of 3 views, 16x16, zarr, rendered" in repr(open_dataset(folder))
    with pytest.raises(GQNError, match="did you mean 'train'"):
        open_dataset(folder, "trian")


def test_folders_without_a_dataset_are_rejected_with_a_remedy(tmp_path, shared_raw, datasets):
    for folder, said in (
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path, r"manifest\.json"),
        (shared_raw, f"gqn-data index {shared_raw}"),
        (datasets("zarr", "jpeg").parents[1], f"data root.*Did you mean {datasets('zarr', 'jpeg').parents[1]}"),
    ):
        with pytest.raises(GQNError, match=said):
            open_dataset(folder)
