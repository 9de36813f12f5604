"""Paths in stores: names like those of pathlib, complete objects, errors with the URL."""

import multiprocessing
import pickle
from pathlib import Path, PurePosixPath

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gqn_data.errors import SourceMissing, StoreChanged, StoreError
from gqn_data.io import atomic
from gqn_data.io.paths import BLOCK, StorePath, parse_path


@pytest.mark.parametrize("text", ["data", "/tmp/x", "./a b", "C:folder", "./~/x", "a:b/c", "file:///tmp/x"])
def test_text_without_a_known_url_form_is_a_local_path(text):
    assert parse_path(text) == Path(text.removeprefix("file://"))


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("S3://bucket//a//./b", "s3://bucket/a/b"),
        ("gs://bucket", "gs://bucket/"),
        ("https://host:8080/x y", "https://host:8080/x y"),
    ],
)
def test_a_url_is_a_path_in_a_store(text, url):
    found = parse_path(text)
    assert isinstance(found, StorePath)
    assert str(found) == url
    assert parse_path(found) is found
    assert parse_path(str(found)) == found == pickle.loads(pickle.dumps(found))


@pytest.mark.parametrize(
    "text",
    ["ftp://host/x", "s3://", "s3:///key", "s3://bucket/../other", "s3://bucket/a\nb", "s3://b\x7f/a", "gs://b/a/.."],
)
def test_invalid_urls_are_refused(text):
    with pytest.raises(SourceMissing, match="expected"):
        parse_path(text)


@given(st.lists(st.text("abc.-_ 0", min_size=1).filter(lambda part: part not in (".", "..")), min_size=1, max_size=5))
def test_name_and_parent_agree_with_pathlib(parts):
    path = PurePosixPath(*parts)
    found = StorePath("s3://bucket")
    for part in parts:
        found /= part
    assert str(found) == f"s3://bucket/{path}"
    assert found.name == path.name
    assert str(found.parent) == f"s3://bucket/{'' if len(parts) == 1 else path.parent}"


def test_an_object_is_written_and_read(s3):
    folder = parse_path(s3) / "some folder"
    with atomic.writing(folder / "a/b.bin") as file:
        file.write(b"0123456789")
    assert (folder / "a/b.bin").read_bytes() == b"0123456789"
    assert (folder / "a/b.bin").read_range(3, 4) == b"3456"
    assert (folder / "a/b.bin").read_ranges([(0, 2), (8, 2)]) == [b"01", b"89"]
    assert (folder / "a/b.bin").stat().st_size == 10
    assert (folder / "a/b.bin").is_file()
    assert folder.is_dir()
    assert not folder.is_file()
    assert list(folder.files()) == [("a/b.bin", 10)]


def test_boto3_reads_the_uploaded_bytes(s3, s3_address):
    data = bytes(range(256)) * 50_000  # more than one part of a multipart upload
    with atomic.writing(parse_path(s3) / "big") as file:
        file.write(data)
    client = boto3.client("s3", endpoint_url=s3_address, region_name="us-east-1")
    assert client.get_object(Bucket=s3.removeprefix("s3://"), Key="big")["Body"].read() == data


def test_nothing_appears_when_writing_fails(s3):
    class Failed(Exception):
        pass

    def write_half():
        with atomic.writing(parse_path(s3) / "x") as file:
            file.write(b"half")
            raise Failed

    with pytest.raises(Failed):
        write_half()
    assert list(parse_path(s3).files()) == []


def test_listing_excludes_folders_with_the_same_prefix(s3):
    for name in ("zarr/a", "zarr2/b", "z"):
        (parse_path(s3) / name).put(b"1")
    assert [name for name, _ in (parse_path(s3) / "zarr").files()] == ["a"]
    assert atomic.list_names(parse_path(s3)) == ["z"]


def test_a_missing_object_raises_file_not_found(s3):
    path = parse_path(s3) / "nothing"
    assert not path.exists()
    with pytest.raises(FileNotFoundError) as caught:
        path.read_bytes()
    assert caught.value.filename == f"{s3}/nothing"
    path.unlink(missing_ok=True)


def test_an_unreachable_store_is_reported_with_its_variables(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # a closed port
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setattr("gqn_data.io.paths._RETRY", {"max_retries": 0})
    with pytest.raises(StoreError, match=r"s3://absent/x: .*AWS_ACCESS_KEY_ID"):
        (parse_path("s3://absent") / "x").stat()


def test_a_large_object_is_read_in_blocks_from_any_offset(s3):
    data = bytes(range(251)) * (2 * BLOCK // 251 + 1000)
    path = parse_path(s3) / "large"
    path.put(data)
    assert b"".join(path.blocks()) == data
    assert b"".join(path.blocks(start=BLOCK + 5)) == data[BLOCK + 5 :]
    assert atomic.sha256_of(path) == __import__("hashlib").sha256(data).hexdigest()
    with path.open_reader() as file:
        assert file.read(10) == data[:10]
        file.seek(BLOCK + 3)
        assert file.read(7) == data[BLOCK + 3 : BLOCK + 10]


def test_two_versions_of_an_object_are_not_mixed(s3):
    path = parse_path(s3) / "x"
    path.put(b"a" * (6 * BLOCK))
    blocks = path.blocks()
    next(blocks)
    path.put(b"b" * (6 * BLOCK))
    with pytest.raises(StoreChanged, match=f"{path}: "):
        list(blocks)
    with pytest.raises(StoreChanged, match=f"{path}: "):
        list(path.blocks(e_tag='"another"'))


def test_an_object_is_created_once_and_replaced_by_version(s3):
    path = parse_path(s3) / "lock"
    first = path.create(b"1")
    assert first is not None
    assert path.create(b"2") is None
    second = path.replace(b"3", first)
    assert second is not None
    assert path.replace(b"4", first) is None
    assert path.read_bytes() == b"3"


def test_a_folder_is_removed_recursively(s3):
    for name in ("a/1", "a/b/2", "c"):
        (parse_path(s3) / name).put(b"1")
    atomic.remove_folder(parse_path(s3) / "a")
    assert [name for name, _ in parse_path(s3).files()] == ["c"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_gets_an_error_instead_of_hanging(s3):
    path = parse_path(s3) / "x"
    path.put(b"1")
    refused = pytest.raises(StoreError, match=r"forked.*spawn")
    with multiprocessing.get_context("fork").Pool(1) as forked, refused:
        forked.apply_async(path.read_bytes).get(60)
