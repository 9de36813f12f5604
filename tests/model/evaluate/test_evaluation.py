"""Runs on a dataset: from shards to metrics and pictures, through the commands."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from synthetic import batch_of, scenes_of, small

from gqn_data.errors import DestinationError, OptionError
from gqn_model.checkpoint.checkpoint import checkpoint_steps, load_checkpoint, read_config
from gqn_model.checkpoint.run_folder import read_facts
from gqn_model.cli import main as gqn
from gqn_model.config import MODEL_NAMES, declarations, resolve
from gqn_model.data import training_batches
from gqn_model.evaluate.baselines import mean_image, nearest_view
from gqn_model.model.inputs import Context
from gqn_model.train.run import resume_run, start_run
from gqn_model.visualize.prediction_grid import Row, grid


def _gqn(*arguments: object) -> Result:
    return CliRunner().invoke(gqn, [str(argument) for argument in arguments])


def test_the_dataset_fills_in_open_settings(bars: Path) -> None:
    loader, config = training_batches(str(bars), resolve("paper", (), {"batch_size": 4, "workers": 0}))
    loader.close()
    assert config.model.frame_size == 64
    assert (config.training.context_min, config.training.context_max) == (1, 5)


def test_context_min_alone_keeps_the_context_max_of_the_set(bars: Path) -> None:
    changes = {"batch_size": 4, "workers": 0, "context_min": 2}
    loader, config = training_batches(str(bars), resolve("paper", (), changes))
    loader.close()
    assert (config.training.context_min, config.training.context_max) == (2, 5)


def test_the_query_is_never_in_the_context_and_choices_differ(bars: Path) -> None:
    # The most frequent bug of other projects.
    loader, _ = training_batches(str(bars), small(batch_size=12))
    batch = next(iter(loader))
    loader.close()
    assert not bool((batch.views[:, 1:] == batch.views[:, :1]).any())
    assert len(set(batch.context_mask.sum(1).tolist())) > 1
    assert len({tuple(row) for row in batch.views.tolist()}) > 1


def test_a_run_writes_its_facts_config_log_and_pictures(bars_run: Path, bars: Path) -> None:
    facts = read_facts(bars_run)
    assert facts.shards == str(bars)
    assert facts.scene_set == "rooms_ring_camera"
    assert facts.versions["torch"] == torch.__version__
    assert read_config(bars_run).model.frame_size == 16
    assert len((bars_run / "log.jsonl").read_text().splitlines()) == 2
    assert (bars_run / "pictures" / "00000006.png").exists()


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_a_resumed_run_equals_an_uninterrupted_one(
    bars: Path, bars_run: Path, sweep_run: Path, tmp_path: Path, model: str
) -> None:
    config = small(model=model, steps=3, probe_every=3, picture_every=6, log_every=3)
    run = start_run(str(bars), config, out=tmp_path / "run")
    resume_run(run, {"steps": 6})
    whole = {"gqn": bars_run, "plane_sweep": sweep_run}[model]
    one, other = load_checkpoint(run).model, load_checkpoint(whole).model
    assert all(torch.equal(one[name], other[name]) for name in other)
    assert (run / "log.jsonl").read_text().count("\n") == 2


def test_settings_of_a_step_cannot_change_on_resuming(bars_run: Path) -> None:
    with pytest.raises(OptionError, match=r"batch_size, hidden cannot change.*possible: steps"):
        resume_run(bars_run, {"batch_size": 3, "hidden": 4})


def test_a_new_run_does_not_overwrite_another(bars: Path, bars_run: Path) -> None:
    with pytest.raises(DestinationError, match="--resume"):
        start_run(str(bars), small(steps=1), out=bars_run)


def test_the_mean_image_is_the_mean_of_the_targets() -> None:
    frames, poses = scenes_of(6, 5, 16)
    batches = [batch_of(frames[:4], poses[:4], 3, 0), batch_of(frames[4:], poses[4:], 3, 1)]
    expected = torch.cat([batch.target for batch in batches]).double().mean(0).permute(2, 0, 1) / 255
    torch.testing.assert_close(mean_image(batches), expected.float())


def test_the_nearest_view_is_never_a_masked_one() -> None:
    # Camera 1 equals the query, but may be masked.
    poses = torch.tensor([[[1.0, 0, 0, 0, 1, 0, 1], [0, 0, 0, 0, 1, 0, 1], [0.2, 0, 0, 0, 1, 0, 1]]])
    frames = torch.arange(3.0).view(1, 3, 1, 1, 1).expand(-1, -1, 3, 4, 4)
    query = torch.tensor([[0.0, 0, 0, 0, 1, 0, 1]])
    for mask, expected in (([True, True, True], 1.0), ([True, False, True], 2.0), ([True, False, False], 0.0)):
        found = nearest_view(Context(frames, poses, torch.tensor([mask])), query)
        assert bool((found == expected).all())


def test_the_nearest_view_of_equal_positions_has_the_nearest_direction() -> None:
    turned = torch.tensor([[[0.0, 0, 0, 1, 0, 0, 1], [0, 0, 0, math.sin(0.1), math.cos(0.1), 0, 1]]])
    frames = torch.arange(2.0).view(1, 2, 1, 1, 1).expand(-1, -1, 3, 4, 4)
    found = nearest_view(
        Context(frames, turned, torch.ones(1, 2, dtype=torch.bool)), torch.tensor([[0.0, 0, 0, 0, 1, 0, 1]])
    )
    assert bool((found == 1).all())


def test_a_grid_shows_every_frame_enlarged() -> None:
    frames = torch.zeros(2, 3, 32, 32)
    frames[1, 0] = 1.0
    image = grid("title", [Row("one", frames), Row("two", frames.flip(0), shown=[True, False])])
    colours = {colour for _, colour in image.getcolors(1 << 24) or []}
    assert {(0, 0, 0), (255, 0, 0), (255, 255, 255), (238, 238, 238)} <= colours
    counts = {colour: count for count, colour in image.getcolors(1 << 24) or []}
    assert counts[255, 0, 0] == 2 * 128 * 128


def test_the_commands_train_resume_evaluate_and_sample(bars: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--frame-size", 16, "--hidden", 8, "--canvas", 8, "--representation-channels", 16, "--batch-size", 4]
    options += ["--workers", 0, "--logger", "none", "--device", "cpu", "--no-shared-cores", "--mod", "pool"]
    done = _gqn("train", "--shards", bars, "--preset", "tiny", "--steps", 2, "--out", run, *options)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(run)
    config = read_config(run)
    assert config.model.representation == "pool"
    assert config.model.shared_cores is False
    done = _gqn("train", "--resume", run, "--steps", 3)
    assert done.exit_code == 0, done.output
    assert checkpoint_steps(run)[-1] == 3
    done = _gqn("evaluate", run, "--scenes", 4, "--samples", 2, "--context", "1,3", "--context", 2, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["scenes"] == 4
    assert [at["context"] for at in found["sweep"]] == [1, 2, 3]
    assert json.loads(Path(found["result"]).read_bytes()) == found
    with Image.open(Path(found["result"].replace("result-", "plot-")).with_suffix(".png")) as image:
        assert image.width > 600
    picture = tmp_path / "picture.png"
    done = _gqn("sample", run, "-o", picture, "--scenes", 3, "--context", 2)
    assert done.exit_code == 0, done.output
    with Image.open(picture) as image:
        assert image.width > 3 * 128
        assert image.height > 6 * 128


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["train"], 2, "--shards"),
        (["train", "--resume", "x", "--preset", "tiny"], 2, "--preset"),
        (["train", "--shards", "/nowhere", "--preset", "tinny"], 2, "'paper', 'tiny'"),
        (["train", "--shards", "/nowhere"], 1, "/nowhere"),
        (["train", "--shards", "/nowhere", "--kernel", "4"], 2, "odd"),
        (["train", "--shards", "/nowhere", "--device", "gpu"], 2, "possible: auto, cpu"),
        (["train", "--resume", "/nowhere"], 1, "gqn train"),
        (["evaluate", "/nowhere"], 1, "gqn train"),
        (["evaluate", "/nowhere", "--context", "1,x"], 2, "'x' is not a valid integer"),
        (["evaluate", "/nowhere", "--context", "0"], 2, "x>=1"),
        (["evaluate", "/nowhere", "--index", "/nothing"], 2, "/nothing: missing, expected an index"),
        (["sample", "/nowhere", "-o", "x.png"], 1, "gqn train"),
    ],
)
def test_a_wrong_command_is_an_error_of_one_line(arguments: list[str], status: int, words: str) -> None:
    done = _gqn(*arguments)
    assert done.exit_code == status, done.output
    assert words in done.output
    assert "Traceback" not in done.output


def test_a_picture_with_an_unknown_extension_is_refused(bars_run: Path, tmp_path: Path) -> None:
    done = _gqn("sample", bars_run, "-o", tmp_path / "x.bmp")
    assert done.exit_code == 2
    assert ".bmp, expected one of .png, .jpg" in done.output


def test_help_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys\nfrom gqn_model.cli import main as gqn\n"
        "try: gqn(['train', '--help'], standalone_mode=True)\n"
        "except SystemExit: pass\n"
        "print('heavy:', sorted({'torch', 'numpy', 'numba', 'PIL'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.rstrip().endswith("heavy: []")
    assert all(re.search(f"--{one.name.replace('_', '-')}\\b", out) for one in declarations())
