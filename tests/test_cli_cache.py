"""The command `gqn-data cache`: report, verify and clear."""

import hashlib
import json

import pytest
from click.testing import CliRunner

from gqn_data.cli import main as gqn_data


@pytest.fixture
def copies(tmp_path, monkeypatch):
    monkeypatch.setenv("GQN_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "files"
    folder.mkdir(parents=True)
    for number in range(3):
        data = bytes([number]) * 1000
        (folder / hashlib.sha256(data).hexdigest()).write_bytes(data)
    return folder


def call(*arguments):
    return CliRunner().invoke(gqn_data, ["cache", *arguments])


def test_the_cache_is_reported_as_text_and_as_json(copies):
    done = call()
    assert done.exit_code == 0
    assert str(copies.parent) in done.stdout
    assert "3 files, 3.0 kB" in done.stdout
    assert json.loads(call("--json").stdout) == {"folder": str(copies.parent), "files": 3, "bytes": 3000, "faults": []}


def test_damaged_copies_are_reported_and_removed(copies):
    damaged = sorted(copies.iterdir())[1]
    damaged.write_bytes(bytes(1000)[:-1] + b"x")
    done = call("--verify")
    assert done.exit_code == 1
    assert damaged.name in done.stdout
    assert "2 files" in done.stdout
    assert call("--verify").exit_code == 0


def test_the_cache_is_cleared(copies):
    done = call("--clear")
    assert done.exit_code == 0
    assert "3 files, 3.0 kB" in done.stdout
    assert "0 files, 0 B" in done.stdout
    assert list(copies.iterdir()) == []


def test_a_missing_cache_is_empty_and_not_created(tmp_path):
    for arguments in ((), ("--verify",), ("--clear",)):
        done = call("--cache", str(tmp_path / "none"), *arguments)
        assert done.exit_code == 0
        assert "0 files, 0 B" in done.stdout
    assert not (tmp_path / "none").exists()
