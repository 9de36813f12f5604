"""Paths and URLs of runs and their datasets: secrets, missing buckets, `~`, and another working directory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fault_counts import FaultCounts
from fault_server import FaultServer
from synthetic import small

from gqn_data.cli_options import log
from gqn_model import load_model, load_safetensors
from gqn_model.checkpoint.run_folder import read_facts
from gqn_model.cli import main as gqn
from gqn_model.evaluate.run_evaluation import evaluate
from gqn_model.train.run import resume_run, start_run

SECRETS = ("hunter2", "signed==")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(gqn, [str(argument) for argument in arguments])


def good(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output + result.stderr
    return result


def test_secrets_of_a_url_reach_no_file_of_a_run(
    bars: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, faults: FaultCounts
) -> None:
    monkeypatch.setenv("GQN_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "run"
    with FaultServer(bars) as server:
        shards = f"{server.url.replace('//', '//me:hunter2@')}/?sig=signed=="
        start_run(shards, small(steps=2, probe_every=1, log_every=1), out=folder)
        assert read_facts(folder).shards == f"{server.url}/"
        resume_run(folder, {"steps": 3}, shards)
        resume_run(folder, {"steps": 4})  # this server needs no login
        found = evaluate(folder, shards, context=[1], scenes=2, samples=1)
        log(found.table())
        for words in (["sample", folder, "-o", tmp_path / "x.png"], ["evaluate", folder, "--context", 1000]):
            log(run(*words, "--shards", shards).output)
        failed = run("train", "--shards", shards.replace("/?", "/nothing?"), "--out", tmp_path / "no")
        assert failed.exit_code == 1
        log(failed.output + failed.stderr)
        asked = [asked for asked in server.asked if asked.query]
    assert asked
    said = "".join(capfd.readouterr())
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {"run.json", "log.jsonl"} < {path.name for path in written}
    for secret in SECRETS:
        assert secret not in said
        assert not [path for path, data in written.items() if secret.encode() in data]
    faults.record(
        "found in use: a secret in the URL of a store",
        holds="it is sent to the store, and in no message and no file",
        tries=8,
        survived=8,
    )


def test_training_from_a_missing_bucket_is_one_line(s3: str, tmp_path: Path, faults: FaultCounts) -> None:
    result = run("train", "--shards", f"{s3}-gone/data", "--out", tmp_path / "run", "--preset", "tiny")
    assert result.exit_code == 1
    assert f"Error: {s3}-gone: no such bucket" in result.stderr
    assert not (tmp_path / "run").exists()
    faults.record(
        "found in use: a bucket that does not exist",
        holds="each command ends at once, with one line that names the bucket",
        tries=1,
        survived=1,
    )


def test_the_home_folder_is_expanded_in_each_path_of_a_run(
    bars: Path, bars_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: FaultCounts
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copytree(bars_run, home / "run")
    shutil.copytree(bars, home / bars.name)
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path / "here")
    shards = ["--shards", f"~/{bars.name}"]
    good("train", "--resume", "~/run", "--steps", 7, *shards)
    start_run(f"~/{bars.name}", small(steps=1, cache="~/cache"), out="~/other")
    good("evaluate", "~/run", *shards, "--scenes", 2, "--samples", 1, "--context", 1)
    index = next((home / "run/evaluation").glob("index-*.json"))
    index.rename(home / "index.json")
    good("evaluate", "~/run", *shards, "--index", "~/index.json", "--samples", 1, "--context", 1)
    good("sample", "~/run", *shards, "-o", "~/x.png")
    good("export", "~/run", "-o", "~/x.safetensors")
    good("plot", "~/run", "~/other", "-o", "~/curves.png")
    load_model("~/run")
    load_safetensors("~/x.safetensors")
    assert {"other", "x.png", "x.safetensors", "curves.png"} < {path.name for path in home.iterdir()}
    assert not any((tmp_path / "here").iterdir())
    faults.record(
        "found in use: ~ in a path", holds="it is the home folder, in each option and variable", tries=9, survived=9
    )


def test_a_run_outlives_a_change_of_the_working_directory(
    bars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: FaultCounts
) -> None:
    from gqn_model.train import run as of_run

    shutil.copytree(bars, tmp_path / "data")
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path)
    train = of_run.train

    def elsewhere(*arguments: object, **options: object) -> None:
        os.chdir(tmp_path / "else")
        train(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(of_run, "train", elsewhere)
    folder = start_run("data", small(steps=2, probe_every=1, log_every=1, cache="cache"), out="run")
    assert folder == tmp_path / "run"
    os.chdir(tmp_path)
    resume_run("run", {"steps": 3})
    evaluate(folder, context=[1], scenes=2, samples=1)
    assert not any((tmp_path / "else").iterdir())
    faults.record(
        "found in use: another working directory after opening",
        holds="what was opened by a relative path is read and written where it was",
        tries=3,
        survived=3,
    )
