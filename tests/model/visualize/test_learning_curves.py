"""Plots of learning curves and of evaluations: what is drawn, and what is skipped."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from gqn_data.errors import CheckpointError, OptionError
from gqn_model.checkpoint.run_folder import DatasetMatch
from gqn_model.cli import main as gqn
from gqn_model.evaluate import plot
from gqn_model.evaluate.metrics import Estimate, Score
from gqn_model.evaluate.report import Evaluation, SweepPoint
from gqn_model.visualize import learning_curves


def _line(step: int, **changes: Any) -> dict[str, Any]:
    line = {
        "step": step, "steps": 100, "rate": 3.0, "wait": 0.0, "loss": 50.0, "excess": 40.0 - step / 10, "kl": 2.0,
        "kl_steps": [1.0, 1.0], "mse": 0.02, "psnr": 17.0, "prior_sample": None, "prior_mean": None, "sigma": 0.7,
        "learning_rate": 1e-3, "left": 1.0,
    }  # fmt: skip
    return line | changes


def _run(folder: Path, lines: list[dict[str, Any]], end: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + end)
    return folder


def _gqn(*arguments: object) -> Result:
    return CliRunner().invoke(gqn, [str(argument) for argument in arguments])


def _drawn(axes: Any) -> list[tuple[list[float], list[float]]]:
    """Return the lines with points, without those of the legend."""
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    return [line for line in lines if line[0]]


def test_the_curves_of_two_runs_have_two_colours(tmp_path: Path) -> None:
    one = _run(tmp_path / "one", [_line(10), _line(20, prior_mean=15.0, prior_sample=14.0), _line(30)])
    other = _run(tmp_path / "other", [_line(10, excess=1.0), _line(20, excess=2.0)])
    figure = learning_curves._plot(
        [learning_curves.read_log(one), learning_curves.read_log(other)], learning_curves._names([one, other])
    )
    panels = {axes.get_title(): axes for axes in figure.axes}
    excess = panels["excess over the floor (nats per frame)"]
    assert _drawn(excess) == [([10, 20, 30], [39, 38, 37]), ([10, 20], [1, 2])]
    assert len({line.get_color() for line in excess.lines}) == 2
    assert _drawn(panels["PSNR, unseen scenes (dB)"]) == [([20], [15]), ([20], [14])]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "other"]
    path = tmp_path / "curves.png"
    done = _gqn("plot", one, other, "-o", path)
    assert done.exit_code == 0, done.output
    with Image.open(path) as image:
        assert image.size == (1400, 700)


def test_a_real_run_has_every_curve_in_its_log(bars_run: Path) -> None:
    figure = learning_curves._plot([learning_curves.read_log(bars_run)], ["bars"])
    assert all(_drawn(axes) for axes in figure.axes)


@pytest.mark.parametrize("kind", ["pdf", "svg"])
def test_vector_plots_keep_their_text_and_depend_on_the_log_alone(tmp_path: Path, kind: str) -> None:
    run = _run(tmp_path / "my_run", [_line(10), _line(20)])
    for name in ("one", "other"):
        assert _gqn("plot", run, "-o", tmp_path / f"{name}.{kind}").exit_code == 0
    data = (tmp_path / f"one.{kind}").read_bytes()
    assert data == (tmp_path / f"other.{kind}").read_bytes()
    if kind == "pdf":
        assert data.startswith(b"%PDF")
        assert b"/Type3" not in data
        assert b"CreationDate" not in data
    else:
        assert b"my_run" in data
        assert b"<dc:date>" not in data


def test_missing_fields_bad_values_and_cut_lines_are_skipped(tmp_path: Path) -> None:
    older = {"step": 5, "excess": 3.0}
    lines = [older, _line(10, psnr=None), _line(20, psnr=math.nan, kl="much"), {"note": "no step"}]
    run = _run(tmp_path / "run", lines, end='[1]\n{"step": 30, "exc')
    log = learning_curves.read_log(run)
    assert [line["step"] for line in log] == [5, 10, 20]
    figure = learning_curves._plot([log], ["run"])
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert _drawn(panels["PSNR in training (dB)"]) == []
    assert panels["PSNR in training (dB)"].texts[0].get_text() == "not in the log"
    assert _drawn(panels["KL (nats per frame)"]) == [([10], [2])]


def test_panels_of_the_elbo_are_omitted_if_no_run_has_one(tmp_path: Path) -> None:
    line = _line(10, excess=None, kl=None, kl_steps=[], sigma=None)
    log = learning_curves.read_log(_run(tmp_path / "run", [line]))
    titles = [axes.get_title() for axes in learning_curves._plot([log], ["run"]).axes]
    elbo = {panel.title for panel in learning_curves.PANELS if panel.elbo}
    assert len(elbo) == 3
    assert not elbo & set(titles)
    assert sum(map(bool, titles)) == len(learning_curves.PANELS) - 3
    both = learning_curves._plot([log, learning_curves.read_log(_run(tmp_path / "gqn", [_line(10)]))], ["a", "b"])
    assert elbo < {axes.get_title() for axes in both.axes}


def test_repeated_steps_count_once_and_in_order(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", [_line(10), _line(20, kl=9.0), _line(20, kl=4.0), _line(15)])
    assert [(line["step"], line["kl"]) for line in learning_curves.read_log(run)] == [(10, 2.0), (15, 2.0), (20, 4.0)]


def test_runs_with_equal_names_are_labelled_with_their_paths(tmp_path: Path) -> None:
    one, other = tmp_path / "a" / "run", tmp_path / "b" / "run"
    assert learning_curves._names([one, other, tmp_path / "c"]) == [str(one), str(other), "c"]


def test_plots_that_cannot_be_drawn_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"log\.jsonl"):
        learning_curves.read_log(tmp_path)
    with pytest.raises(CheckpointError, match=r"log\.jsonl: 0 lines"):
        learning_curves.read_log(_run(tmp_path / "new", []))
    run = _run(tmp_path / "run", [_line(1)])
    assert _gqn("plot", "-o", tmp_path / "x.png").exit_code == 2
    assert ".eps, expected one of .png" in _gqn("plot", run, "-o", tmp_path / "x.eps").output
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = _gqn("plot", run, "-o", tmp_path / "x.png")
    assert done.exit_code == 1
    assert "pip install '.[plot]'" in done.output
    with pytest.raises(OptionError, match="runs are none"):
        learning_curves.write_curves([], tmp_path / "x.png")


def _evaluation() -> Evaluation:
    def score(name: str, value: float) -> Score:
        one = Estimate(value, 0.5)
        return Score(name=name, mae=one, rmse=one, psnr=one, psnr_of_mean_error=one, ssim=Estimate(math.nan, math.nan))

    names = ("prior mean", "prior sample", "best of 2", "prior, mean latents", "nearest view", "mean image")
    sweep = tuple(
        SweepPoint(
            context=context,
            nats_per_dim=Estimate(0.6, 0.1),
            excess=Estimate(50.0 / context, 1.0),
            kl=Estimate(5.0, 0.2),
            kl_steps=(Estimate(5.0, 0.2),),
            scores=tuple(score(name, context + index) for index, name in enumerate(names)),
        )
        for context in (1, 3)
    )
    return Evaluation(
        run="runs/x", model="gqn", step=7, shards="s", scene_set="rooms_ring_camera", split="test", scenes=5, samples=2,
        trained_with=(1, 3), index="i", questions="q", mean_image_of="m", sigma=0.7, sweep=sweep, result="r",
        dataset=DatasetMatch(scene_set="s", fingerprint="f", trained_set="s", trained_fingerprint="f"),
    )  # fmt: skip


def test_an_evaluation_is_plotted_with_standard_errors(tmp_path: Path) -> None:
    result = _evaluation()
    figure = plot._plot(result)
    psnr = figure.axes[0]
    bars = {container.get_label(): container for container in psnr.containers}
    assert set(bars) == {score.name for score in result.sweep[0].scores}
    line, _, (error,) = bars["nearest view"]
    assert list(line.get_xdata()) == [1, 3]
    assert list(line.get_ydata()) == [5, 7]
    assert [segment[:, 1].tolist() for segment in error.get_segments()] == [[4.5, 5.5], [6.5, 7.5]]
    assert figure.axes[2].containers == []  # without SSIM: it is NaN
    plot.write_plot(result, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        assert image.width == 1200


def test_a_comparison_has_a_curve_per_run_and_the_baselines_once(tmp_path: Path) -> None:
    result = _evaluation()
    better = tuple(
        replace(point, scores=(replace(point.scores[0], psnr=Estimate(30.0, 0.5)), *point.scores[1:]))
        for point in result.sweep
    )
    figure = plot._comparison([result, replace(result, run="runs/y$_$", sweep=better)])
    curves = {bars.get_label(): list(bars[0].get_ydata()) for bars in figure.axes[0].containers}
    assert curves == {"x": [1, 3], r"y\$_\$": [30, 30], "nearest view": [5, 7], "mean image": [6, 8]}
    plot.write_comparison([result], tmp_path / "one.svg")
    assert b"nearest view" in (tmp_path / "one.svg").read_bytes()


def test_an_infinite_psnr_is_not_plotted() -> None:
    result = _evaluation()
    first = result.sweep[0]
    equal = replace(first.scores[4], psnr=Estimate(math.inf, math.nan))
    result = replace(
        result, sweep=(replace(first, scores=(*first.scores[:4], equal, first.scores[5])), result.sweep[1])
    )
    figure = plot._plot(result)
    bars = {container.get_label(): container for container in figure.axes[0].containers}
    assert list(bars["nearest view"][0].get_xdata()) == [3]
    assert "inf" in result.table()


def test_an_evaluation_without_matplotlib_prints_its_table_and_a_note(
    bars_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = _gqn("evaluate", bars_run, "--scenes", 2, "--samples", 1, "--context", 1)
    assert done.exit_code == 0, done.output
    assert "pip install '.[plot]'" in done.stderr
    assert "prior mean" in done.stdout
