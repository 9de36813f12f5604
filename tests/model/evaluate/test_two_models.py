"""Two models on one dataset: their evaluation in one table, their pictures, and the geometry of the plane sweep."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from synthetic import SMALL, SMALL_NETWORKS, small

from gqn_data import SceneWriter
from gqn_data.dataset import open_dataset
from gqn_data.errors import OptionError, RunMismatch
from gqn_data.io.pictures import write_figure
from gqn_model import load_model
from gqn_model.checkpoint.checkpoint import checkpoint_steps, read_config
from gqn_model.checkpoint.run_folder import match_dataset
from gqn_model.cli import main as gqn
from gqn_model.config import resolve
from gqn_model.data import training_batches, with_geometry_of
from gqn_model.device import choose_precision
from gqn_model.evaluate.report import BASELINES
from gqn_model.evaluate.run_evaluation import evaluate, evaluate_runs
from gqn_model.model.inputs import Context
from gqn_model.train.run import start_run
from gqn_model.visualize import sample


def _gqn(*arguments: object) -> Result:
    return CliRunner().invoke(gqn, [str(argument) for argument in arguments])


def test_a_model_that_predicts_the_mean_says_so_and_has_no_nats(sweep_run: Path) -> None:
    found = evaluate(sweep_run, context=[1, 2], samples=3)
    assert (found.model, found.samples, found.sigma) == ("plane_sweep", 0, None)
    assert [score.name for score in found.at(1).scores] == ["prediction", *BASELINES]
    point = found.to_json()["sweep"][0]
    assert (point["nats_per_dim"], point["excess"], point["kl"], point["kl_steps"]) == (None, None, None, [])
    table = found.table()
    assert "predicts the mean of its answers, draws no samples" in table
    assert not any(word in table for word in ("nats", "KL", "sigma", "Best of", "prior"))


def test_runs_answer_the_same_questions_in_one_table(bars_run: Path, sweep_run: Path) -> None:
    picture = bars_run.parent / "comparison.pdf"
    done = _gqn("evaluate", bars_run, sweep_run, "--context", "1,3", "--samples", 2, "--plot", picture)
    assert picture.read_bytes().startswith(b"%PDF")
    assert done.exit_code == 0, done.output
    names = [line.split("  ")[1] for line in done.stdout.splitlines() if line.startswith("  ")]
    ours, theirs = (f"{run.name}, step {checkpoint_steps(run)[-1]}: " for run in (bars_run, sweep_run))
    for kind in (f"{ours}prior mean", f"{ours}best of 2", f"{theirs}prediction"):
        assert names.count(kind) == 2
    assert [names.count(name) for name in BASELINES] == [2, 2]
    done = _gqn("evaluate", bars_run, sweep_run, "--context", "1,3", "--samples", 2, "--json")
    both = json.loads(done.stdout)
    assert [one["model"] for one in both] == ["gqn", "plane_sweep"]
    assert len({one["questions"] for one in both}) == 1
    for run, one in zip((bars_run, sweep_run), both, strict=True):
        assert json.loads(Path(one["result"]).read_bytes()) == one
        assert Path(one["result"]).parent == run / "evaluation"
    # The figures of a run do not depend on the others, and the baselines are equal.
    assert evaluate(sweep_run, context=[1, 3]).to_json() == both[1]
    scores = [{score["name"]: score for score in one["sweep"][0]["scores"]} for one in both]
    assert all(scores[0][name] == scores[1][name] for name in BASELINES)


def test_runs_that_would_answer_other_questions_are_refused(
    bars: Path, other_bars: Any, bars_run: Path, sweep_run: Path, tmp_path: Path
) -> None:
    few = evaluate(bars_run, scenes=3, context=[1])
    with pytest.raises(OptionError, match="each once"):
        evaluate_runs([bars_run, bars_run])
    larger = start_run(str(bars), small(steps=1, frame_size=32), out=tmp_path / "larger")
    with pytest.raises(RunMismatch, match=r"frames of 32 pixels, expected frames of 16 pixels"):
        evaluate_runs([sweep_run, larger])
    # Another file at the place of the index: the questions of fewer scenes.
    other = start_run(str(bars), small(steps=1), out=tmp_path / "other")
    (other / "evaluation").mkdir()
    (other / "evaluation" / "index-test-10.json").write_bytes(Path(few.index).read_bytes())
    with pytest.raises(RunMismatch, match=r"questions .* expected .*--index"):
        evaluate_runs([sweep_run, other], context=[1])
    assert not list((other / "evaluation").glob("result-*"))
    trained_elsewhere = start_run(str(other_bars.same_set), small(steps=1), out=tmp_path / "elsewhere")
    words = f"{trained_elsewhere}: dataset {other_bars.same_set}, expected {bars} as for {sweep_run}; pass one dataset"
    with pytest.raises(RunMismatch, match=f"^{re.escape(words)}"):
        evaluate_runs([sweep_run, trained_elsewhere], context=[1])


def test_one_picture_shows_the_predictions_of_both_runs(bars_run: Path, sweep_run: Path, tmp_path: Path) -> None:
    heights = {}
    for name, runs in {"gqn": [bars_run], "sweep": [sweep_run], "both": [bars_run, sweep_run]}.items():
        done = _gqn("sample", *runs, "-o", tmp_path / f"{name}.png", "--scenes", 2, "--context", 2)
        assert done.exit_code == 0, done.output
        with Image.open(tmp_path / f"{name}.png") as image:
            heights[name] = image.height
    assert heights["sweep"] < heights["gqn"] < heights["both"]
    done = _gqn("sample", bars_run, sweep_run, "-o", tmp_path / "walk.gif", "--walk")
    assert (done.exit_code, "--walk shows one run, found 2" in done.output) == (2, True)


def test_a_walk_of_a_model_that_predicts_the_mean_has_one_panel(
    bars_run: Path, sweep_run: Path, tmp_path: Path
) -> None:
    widths = []
    for run in (bars_run, sweep_run):
        done = _gqn("sample", run, "--walk", "--frames", 3, "-o", tmp_path / "walk.gif")
        assert done.exit_code == 0, done.output
        with Image.open(tmp_path / "walk.gif") as image:
            widths.append(image.width)
    assert widths[1] < widths[0]


def test_the_lens_comes_from_the_dataset_unless_it_is_given(bars: Path) -> None:
    geometry = open_dataset(bars).manifest.geometry
    assert geometry is not None
    changes = SMALL | SMALL_NETWORKS["plane_sweep"]
    loader, config = training_batches(bars, resolve("sweep_tiny", (), changes))
    loader.close()
    found = config.model
    assert (found.field_of_view, found.yaw_sign, found.near, found.far) == (
        geometry.field_of_view,
        geometry.yaw_sign,
        *geometry.depth_range,
    )
    loader, config = training_batches(bars, resolve("sweep_tiny", (), {**changes, "far": 9.0}))
    loader.close()
    assert config.model == replace(found, far=9.0)


def _write(folder: Path, fields: tuple[str, ...] | None = None, **geometry: object) -> Path:
    dice = np.random.default_rng(0)
    options = {} if fields is None else {"camera_fields": fields}
    with SceneWriter(folder, **options, **geometry) as writer:  # type: ignore[arg-type]
        for split, count in (("train", 24), ("test", 4)):
            for _ in range(count):
                frames = dice.integers(0, 255, (6, 16, 16, 3), np.uint8)
                cameras = dice.normal(size=(6, len(fields or "12345"))).astype(np.float32)
                writer.add(frames, cameras, split=split)  # type: ignore[arg-type]
    return folder


def test_a_dataset_without_geometry_is_refused_with_the_remedy(tmp_path: Path) -> None:
    unknown = _write(tmp_path / "unknown")
    changes = SMALL | SMALL_NETWORKS["plane_sweep"] | {"context_max": 3}
    with pytest.raises(RunMismatch, match=r"SceneWriter\(.*field_of_view=.*--field-of-view, --yaw-sign, --near, --far"):
        training_batches(unknown, resolve("sweep_tiny", (), changes))
    with pytest.raises(RunMismatch, match=r"pass --yaw-sign, --far"):
        training_batches(unknown, resolve("sweep_tiny", (), {**changes, "field_of_view": 50.0, "near": 0.1}))
    loader, _ = training_batches(unknown, small(model="plane_sweep"))
    loader.close()
    known = _write(tmp_path / "known", field_of_view=40.0, yaw_sign=-1, depth_range=(0.2, 5.0))
    loader, config = training_batches(known, resolve("sweep_tiny", (), changes))
    loader.close()
    assert (config.model.field_of_view, config.model.yaw_sign) == (40.0, -1)


def test_other_cameras_than_deepminds_are_refused_with_the_remedy(tmp_path: Path) -> None:
    other = _write(tmp_path / "other", ("x", "y", "z", "w"))
    with pytest.raises(RunMismatch, match=r"expected x, y, z, .*--model gqn"):
        training_batches(other, small(model="plane_sweep"))


def test_another_dataset_is_predicted_with_its_own_lens(sweep_run: Path, tmp_path: Path) -> None:
    known = _write(tmp_path / "known", field_of_view=40.0, yaw_sign=-1, depth_range=(0.2, 5.0))
    found = evaluate(sweep_run, known, context=[1], other_set=True)
    assert "40 degrees, 0.2 to 5, yaw sign -1; trained with 60 degrees" in found.geometry
    assert found.geometry in found.table()
    unknown = evaluate(sweep_run, _write(tmp_path / "unknown"), context=[1], other_set=True)
    assert "those of the training are used" in unknown.geometry
    assert evaluate(sweep_run, context=[1]).geometry == ""


def test_the_network_for_another_lens_has_the_same_weights(sweep_run: Path, tmp_path: Path) -> None:
    known = _write(tmp_path / "known", field_of_view=40.0, yaw_sign=-1, depth_range=(0.2, 5.0))
    model = load_model(sweep_run)
    match = match_dataset(known, "rooms_ring_camera", "0" * 64, other_set=True)
    turned, _ = with_geometry_of(model, known, match)
    assert turned.config == replace(model.config, field_of_view=40.0, yaw_sign=-1, near=0.2, far=5.0)
    assert all(torch.equal(value, turned.state_dict()[name]) for name, value in model.state_dict().items())
    context = Context(torch.rand(1, 2, 3, 16, 16), torch.randn(1, 2, 7), torch.ones(1, 2, dtype=torch.bool))
    query = torch.randn(1, 7)
    assert not torch.equal(model.predict(context, query), turned.predict(context, query))


def test_the_precision_is_resolved_when_a_run_starts(
    bars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = torch.device("cpu")
    for flags, expected in (({"amx_bf16": True}, "bf16"), ({"avx512_bf16": True}, "float32"), ({}, "float32")):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda flags=flags: flags)
        assert choose_precision("auto", cpu) == expected
        assert choose_precision("float32", cpu) == "float32"
        assert choose_precision("bf16", cpu) == "bf16"
    run = start_run(str(bars), small(steps=1, precision="auto"), out=tmp_path / "run")
    assert read_config(run).training.precision == "float32"


def test_a_figure_for_a_column_has_a_row_per_scene_and_a_cell_per_model(
    bars_run: Path, sweep_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Any] = []

    def write(figure: Any, path: Path) -> None:
        figures.append(figure)
        write_figure(figure, path)

    monkeypatch.setattr(sample, "write_figure", write)
    done = _gqn("sample", bars_run, sweep_run, "-o", tmp_path / "a.pdf", "--scenes", 3, "--context", 2)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    (figure,) = figures
    assert figure.get_figwidth() == pytest.approx(3.3)
    places = [axes.get_position() for axes in figure.axes]
    assert len(places) == 3 * (2 + 1 + 2)  # context, truth, models
    assert len({round(place.y0, 6) for place in places}) == 3
    assert all(0 <= place.x0 < place.x1 <= 1 and 0 <= place.y0 < place.y1 <= 1 for place in places)
    words = [text.get_text() for text in figure.texts]
    assert words[:4] == ["context", "truth", "bars", "sweep"]
    assert sum(word.endswith(" dB") for word in words) == 3 * 2
    done = _gqn("sample", bars_run, "-o", tmp_path / "a.png", "--scenes", 1, "--context", 1, "--layout", "column")
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == 990


def test_layouts_that_cannot_be_written_are_refused(
    bars_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = _gqn("sample", bars_run, "-o", tmp_path / "a.svg", "--layout", "grid")
    assert done.exit_code == 2
    assert "pass --layout column" in done.output
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = _gqn("sample", bars_run, "-o", tmp_path / "a.pdf")
    assert done.exit_code == 1
    assert "pip install '.[plot]'" in done.output
    assert not list(tmp_path.iterdir())


def test_a_plane_sweep_with_noise_is_evaluated_and_drawn_by_its_samples(bars: Path, tmp_path: Path) -> None:
    changes = SMALL | SMALL_NETWORKS["plane_sweep"] | {"noise": 3, "steps": 3, "probe_every": 3, "picture_every": 3}
    run = start_run(str(bars), resolve("sweep_tiny", (), changes), out=tmp_path / "noisy")
    record = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()][-1]
    assert record["prior_sample"] is not None
    found = evaluate(run, context=[1, 2], samples=3)
    kinds = ["prior mean", "prior sample", "best of 3", "prior, mean latents"]
    point = found.at(2)
    assert [score.name for score in point.scores] == [*kinds, *BASELINES]
    assert (found.samples, found.sigma, point.kl, point.nats_per_dim) == (3, None, None, None)
    assert point.crps is not None
    assert 0 < point.crps.mean < point.score("prior sample").mae.mean
    assert point.spread_over_error is not None
    assert 0 < point.spread_over_error < 1
    table = found.table()
    assert "3 prior samples per scene" in table
    assert "samples: CRPS" in table
    # The samples of a question do not depend on its batch.
    assert evaluate(run, context=[1, 2], samples=3, batch_size=1).at(2).score("best of 3").mae.mean == pytest.approx(
        point.score("best of 3").mae.mean, rel=1e-5
    )
    assert evaluate(run, context=[1, 2], samples=1).at(2).crps is None
    widths = []
    for samples in (0, 2):
        done = _gqn("sample", run, "--walk", "--frames", 2, "--samples", samples, "-o", tmp_path / "walk.gif")
        assert done.exit_code == 0, done.output
        with Image.open(tmp_path / "walk.gif") as image:
            widths.append(image.width)
    assert widths[0] < widths[1]
    model = load_model(run)
    assert model.draws_samples
    assert not torch.equal(*model.sample(*_question(model.config.frame_size), 2, seed=0))


def _question(size: int) -> tuple[Context, torch.Tensor]:
    torch.manual_seed(0)
    poses = torch.zeros(1, 2, 7)
    poses[..., 4] = poses[..., 6] = 1
    context = Context(torch.rand(1, 1, 3, size, size), poses[:, :1], torch.ones(1, 1, dtype=torch.bool))
    return context, poses[:, 1]
