"""Checkpoints: writing and reading, which are kept, the best one, and files of other versions."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_checkpoints import made, made_run, overwrite, prior, same, smallest
from synthetic import Source, small_inputs

from gqn_data.errors import CheckpointError
from gqn_model import load_model
from gqn_model.checkpoint.best import BEST_FILE, Score, read_best
from gqn_model.checkpoint.checkpoint import (
    checkpoint_path,
    checkpoint_steps,
    load_checkpoint,
    rewind,
    save_checkpoint,
    update_best,
    write_config,
)
from gqn_model.train import trainer
from gqn_model.train.run import resume_run, start_run
from gqn_model.train.trainer import train


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made_run(tmp_path / "run", steps=())


def _save(run: Path, scores: dict[int, float | None], keep: int = 2) -> None:
    for step, psnr in scores.items():
        save_checkpoint(run, made(step, score=None if psnr is None else prior(psnr)), keep)


def test_a_checkpoint_is_read_back_unchanged(run: Path) -> None:
    written = made(7, score=Score(prior_psnr=None, excess=3.5, sigma=0.7))
    save_checkpoint(run, written, 1)
    assert same(load_checkpoint(run), written)
    assert load_checkpoint(run).format == 2


def test_sha256sum_accepts_the_checksum_file(run: Path) -> None:
    save_checkpoint(run, made(4), 1)
    subprocess.run(["sha256sum", "-c", "00000004.pt.sha256"], cwd=run / "checkpoints", check=True)


def test_the_newest_checkpoints_and_the_best_are_kept(run: Path) -> None:
    _save(run, {0: None, 1: 15.0, 2: 18.0, 3: 16.0, 4: 17.9, 5: None, 6: 17.0})
    assert checkpoint_steps(run) == [2, 5, 6]
    assert load_checkpoint(run, "best").step == 2
    assert load_checkpoint(run).step == 6
    _save(run, {7: 18.5, 8: 18.1, 9: 18.2})
    assert checkpoint_steps(run) == [7, 8, 9]
    assert load_checkpoint(run, "best").step == 7
    assert len(list((run / "checkpoints").iterdir())) == 6


def test_a_run_without_scores_lacks_a_best_checkpoint(run: Path) -> None:
    _save(run, {1: None, 2: None, 3: None})
    assert checkpoint_steps(run) == [2, 3]
    assert not (run / BEST_FILE).exists()
    with pytest.raises(CheckpointError, match=r"best\.json.*--step.*2, 3"):
        load_checkpoint(run, "best")


def test_load_model_loads_the_best_checkpoint(run: Path) -> None:
    _save(run, {1: 18.0, 2: 17.0, 3: 16.0})
    best = load_model(run, "best").state_dict()
    assert all(torch.equal(value, best[name]) for name, value in made(1).model.items())
    assert not all(torch.equal(value, best[name]) for name, value in load_model(run).state_dict().items())


def test_the_prior_psnr_decides_before_the_excess() -> None:
    worse = Score(prior_psnr=15.0, excess=5.0, sigma=0.7)
    better = Score(prior_psnr=16.0, excess=9.0, sigma=0.7)
    unmeasured = Score(prior_psnr=None, excess=1.0, sigma=0.7)
    assert better.beats(worse)
    assert not worse.beats(better)
    assert worse.beats(unmeasured)
    assert not unmeasured.beats(worse)
    assert Score(prior_psnr=None, excess=0.5, sigma=0.7).beats(unmeasured)


def test_a_small_excess_at_a_large_sigma_does_not_win() -> None:
    # 20 nats at sigma 2 are the same squared error as 163 nats at sigma 0.7.
    early = Score(prior_psnr=None, excess=20.0, sigma=2.0)
    late = Score(prior_psnr=None, excess=60.0, sigma=0.7)
    assert late.beats(early)
    assert not early.beats(late)


psnrs = st.one_of(st.none(), st.sampled_from([14.0, 15.0, 16.0]))


@given(st.lists(st.builds(Score, prior_psnr=psnrs, excess=st.sampled_from([1.0, 2.0]), sigma=psnrs.map(
    lambda value: value or 1.0)), min_size=3, max_size=3))  # fmt: skip
def test_beats_is_asymmetric_and_transitive(scores: list[Score]) -> None:
    one, two, three = scores
    assert not (one.beats(two) and two.beats(one))
    if one.beats(two) and two.beats(three):
        assert one.beats(three)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_score_is_never_the_best(run: Path, bad: float) -> None:
    _save(run, {1: 15.0})
    save_checkpoint(run, made(2, score=Score(prior_psnr=bad, excess=1.0, sigma=0.7)), 2)
    assert load_checkpoint(run, "best").step == 1


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"step": 3}', b"\x00" * 50])
def test_a_damaged_best_json_is_rebuilt_from_the_checkpoints(run: Path, damage: bytes) -> None:
    _save(run, {1: 18.0, 2: 17.0, 3: 16.0})
    (run / BEST_FILE).write_bytes(damage)
    with pytest.raises(CheckpointError, match=r"best\.json: .*--step"):
        load_checkpoint(run, "best")
    _save(run, {4: 15.0})
    assert load_checkpoint(run, "best").step == 1
    assert checkpoint_steps(run) == [1, 3, 4]


def test_an_edited_best_json_is_refused(run: Path) -> None:
    _save(run, {1: 18.0, 2: 17.0})
    note = (run / BEST_FILE).read_text()
    (run / BEST_FILE).write_text(note.replace('"step": 1', '"step": 2'))
    with pytest.raises(CheckpointError, match=r"best\.json: .*--step"):
        load_checkpoint(run, "best")


def test_a_deleted_best_checkpoint_is_reported_and_replaced(run: Path) -> None:
    _save(run, {1: 18.0, 2: 17.0, 3: 16.0})
    checkpoint_path(run, 1).unlink()
    with pytest.raises(CheckpointError, match=r"step 1 .*2, 3"):
        load_checkpoint(run, "best")
    _save(run, {4: 15.0}, keep=3)
    assert load_checkpoint(run, "best").step == 2


def test_update_best_records_a_best_that_a_killed_run_left_out(run: Path) -> None:
    _save(run, {1: 15.0})
    note = (run / BEST_FILE).read_bytes()
    _save(run, {2: 18.0})
    (run / BEST_FILE).write_bytes(note)
    update_best(run, load_checkpoint(run))
    best = read_best(run)
    assert best is not None
    assert best.step == 2


def test_a_repeated_step_is_scored_again(run: Path) -> None:
    _save(run, {1: 13.0, 2: 18.0})
    _save(run, {2: 14.0})
    best = read_best(run)
    assert best is not None
    assert best.score == prior(14.0)


def test_rewind_removes_later_steps_and_finds_the_best_of_the_rest(run: Path) -> None:
    _save(run, {1: 15.0, 2: 17.0, 3: 16.0, 4: 18.0}, keep=4)
    rewind(run, 3)
    assert checkpoint_steps(run) == [1, 2, 3]
    assert load_checkpoint(run, "best").step == 2
    rewind(run, 3)
    assert checkpoint_steps(run) == [1, 2, 3]


def test_other_files_are_not_listed_as_checkpoints(run: Path) -> None:
    _save(run, {3: None})
    folder = run / "checkpoints"
    for name in ("5.pt", "٣.pt", "00000006.pt", "last.pt", "-0000007.pt"):
        (folder / name).write_bytes(b"")
        (folder / f"{name}.sha256").write_bytes(b"")
    (folder / "00000006.pt").unlink()
    (folder / "00000006.pt").mkdir()
    assert checkpoint_steps(run) == [3]


def test_temporary_files_of_a_killed_run_are_removed(run: Path) -> None:
    _save(run, {3: None})
    (run / "checkpoints" / "00000004.pt.partial").write_bytes(b"half")
    _save(run, {5: None})
    assert not list(run.rglob("*.partial"))


def _as_format_1(run: Path, step: int) -> None:
    """Rewrite a checkpoint as the previous version wrote it."""
    path = checkpoint_path(run, step)
    value = torch.load(path, weights_only=True)
    value = {name: part for name, part in value.items() if name != "score"}
    torch.save({**value, "format": 1, "random": {"cpu": torch.get_rng_state()}}, path)
    overwrite(run, step, path.read_bytes())


def test_a_checkpoint_of_format_1_is_read(run: Path) -> None:
    _save(run, {3: 15.0})
    _as_format_1(run, 3)
    found = load_checkpoint(run)
    assert found.format == 1
    assert same(found, made(3))


def test_a_checkpoint_of_a_later_format_is_refused(run: Path) -> None:
    _save(run, {3: None})
    path = checkpoint_path(run, 3)
    torch.save({**torch.load(path, weights_only=True), "format": 3}, path)
    overwrite(run, 3, path.read_bytes())
    with pytest.raises(CheckpointError, match=r"00000003\.pt: format 3, expected 2\b"):
        load_checkpoint(run)


def test_a_checkpoint_with_a_missing_field_is_refused(run: Path) -> None:
    _save(run, {3: None})
    path = checkpoint_path(run, 3)
    complete = torch.load(path, weights_only=True)
    for name in ("step", "optimizer", "loader", "model", "config", "fingerprint"):
        torch.save({key: value for key, value in complete.items() if key != name}, path)
        overwrite(run, 3, path.read_bytes())
        with pytest.raises(CheckpointError, match=rf"00000003\.pt: {name}\b.*NoneType"):
            load_checkpoint(run)


def test_a_checkpoint_named_after_another_step_is_refused(run: Path) -> None:
    _save(run, {3: None})
    raw = checkpoint_path(run, 3).read_bytes()
    overwrite(run, 5, raw)
    with pytest.raises(CheckpointError, match=r"00000005\.pt: .* step 3\b.* 5\b"):
        load_checkpoint(run)


def test_reading_a_checkpoint_draws_no_random_numbers(run: Path) -> None:
    _save(run, {3: None})
    before = torch.get_rng_state()
    load_checkpoint(run)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_records_the_checkpoint_with_the_best_prior_psnr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = iter([16.0, 18.0, 17.0, 15.0])
    monkeypatch.setattr(trainer, "measure_prior", lambda *_: trainer.PriorPSNR(10.0, next(measured)))
    config = smallest(steps=8, log_every=1, probe_every=2, picture_every=0, checkpoint_every=1, keep=2)
    run = made_run(tmp_path / "run", steps=(), config=config)
    train(run, config, Source(config), probe=small_inputs(config))
    best = read_best(run)
    assert best is not None
    assert best.step == 4
    assert best.score.prior_psnr == 18.0
    assert checkpoint_steps(run) == [4, 7, 8]
    assert load_checkpoint(run, 7).score is not None
    assert load_checkpoint(run, 7).score.prior_psnr is None  # type: ignore[union-attr]


def _weights(run: Path) -> list[torch.Tensor]:
    return list(load_checkpoint(run).model.values())


@pytest.fixture(scope="module")
def finished_run(bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of nine steps with a checkpoint every three."""
    out = tmp_path_factory.mktemp("finished") / "run"
    config = smallest(steps=9, checkpoint_every=3, keep=5, log_every=3, probe_every=3, picture_every=0)
    return start_run(str(bars), config, out=out)


def test_a_run_resumed_from_an_earlier_step_ends_with_the_same_weights(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    checkpoint_path(run, 9).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"00000006\.pt .*--step 6"):
        resume_run(run, {})
    resume_run(run, {"steps": 7}, step=6)
    assert checkpoint_steps(run) == [0, 3, 6, 7]
    resume_run(run, {"steps": 9})
    assert all(torch.equal(a, b) for a, b in zip(_weights(run), _weights(finished_run), strict=True))
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()][:2] == [3, 6]
    assert "step 6 of 7" in capsys.readouterr().err


def test_a_run_of_format_1_resumes_with_a_warning(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    rewind(run, 3)
    _as_format_1(run, 3)
    resume_run(run, {"steps": 4})
    assert f"warning: {run}" in capsys.readouterr().err
    assert load_checkpoint(run).format == 2


def test_resuming_from_a_missing_step_lists_the_existing_ones(finished_run: Path) -> None:
    with pytest.raises(CheckpointError, match=r" step 5\b.*\b0, 3, 6, 9\b"):
        resume_run(finished_run, {}, step=5)


def test_training_settings_of_config_json_may_differ_from_a_checkpoint(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    write_config(run, dataclasses.replace(smallest(), training=smallest(steps=99).training))
    assert load_checkpoint(run).config.training.steps != 99
