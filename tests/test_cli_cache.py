"""The command `gqn-data cache`: what it tells, checks and removes."""

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


def test_the_cache_is_told_in_text_and_as_json(copies):
    done = call()
    assert done.exit_code == 0
    assert done.stdout == f"{copies.parent}: 3 files, 3.0 kB\n"
    assert json.loads(call("--json").stdout) == {"folder": str(copies.parent), "files": 3, "bytes": 3000, "faults": []}


def test_damaged_copies_are_told_and_removed(copies):
    damaged = sorted(copies.iterdir())[1]
    damaged.write_bytes(bytes(1000)[:-1] + b"x")
    done = call("--verify")
    assert done.exit_code == 1
    assert damaged.name in done.stdout
    assert "2 files" in done.stdout
    assert call("--verify").exit_code == 0


def test_the_cache_is_emptied(copies):
    done = call("--clear")
    assert done.exit_code == 0
    assert "removed 3 files, 3.0 kB" in done.stdout
    assert list(copies.iterdir()) == []


def test_a_cache_that_is_not_there_is_empty_and_not_made(tmp_path):
    for arguments in ((), ("--verify",), ("--clear",)):
        done = call("--cache", str(tmp_path / "none"), *arguments)
        assert done.exit_code == 0
        assert "0 files, 0 B" in done.stdout
    assert not (tmp_path / "none").exists()
