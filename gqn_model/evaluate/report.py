"""The result of an evaluation, as a table to read and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from gqn_model.checkpoint.run_folder import DatasetMatch, run_labels
from gqn_model.evaluate.metrics import Estimate, Score

BASELINES = ("nearest view", "mean image")

# Papers report metrics over at least this number of scenes, for example Tobin et al. 2019.
USUAL_SCENES = 1000


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """Metrics with one number of context views.

    Attributes:
        context: number of context views, M.
        scores: one per kind of prediction, those of the network first, its estimate of the mean before others.
        nats_per_dim: -ELBO per pixel channel, in nats; None for a model without a distribution, as the next ones.
        excess: -ELBO above the Gaussian floor, in nats per frame.
        kl: KL divergence of the posterior from the prior, in nats per frame.
        kl_steps: the same per generation step; empty for a model without a distribution.
        crps: of the samples, on the scale 0..255; None for fewer than two, as the next one.
        spread_over_error: root of the samples' mean variance over the RMSE of their mean.
    """

    context: int
    scores: tuple[Score, ...]
    nats_per_dim: Estimate | None = None
    excess: Estimate | None = None
    kl: Estimate | None = None
    kl_steps: tuple[Estimate, ...] = ()
    crps: Estimate | None = None
    spread_over_error: float | None = None

    def score(self, name: str) -> Score:
        """Return the score of the prediction with that name."""
        return next(score for score in self.scores if score.name == name)

    def lead(self, metric: Literal["psnr", "psnr_of_mean_error"]) -> float:
        """Return the lead of the first score over the better baseline in dB; negative if it is worse."""
        others = (getattr(self.score(name), metric).mean for name in BASELINES)
        return float(getattr(self.scores[0], metric).mean - max(others))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        run: the run's folder.
        model: name of the model.
        step: step of the checkpoint.
        shards: the dataset.
        dataset: its scene set and fingerprint next to the training's.
        scene_set: name of its scene set.
        split: train or test.
        scenes: number of scenes, one question each.
        samples: prior samples per scene, the N of "best of N"; 0 for a model that predicts the mean.
        trained_with: fewest and most context views in training.
        index: the file that lists (scene, query, context) of every question.
        questions: digest of the questions; results with equal digests are comparable.
        mean_image_of: frames that the baseline's mean image averages.
        sigma: pixel standard deviation of the likelihood; None without one.
        sweep: metrics with each number of context views, in rising order.
        result: the file with this result.
        geometry: a note on lens and depth range if they differ from the training's.
        chosen_on_test: whether the checkpoint is `best` of a run that chose it on test scenes.
    """

    run: str
    model: str
    step: int
    shards: str
    dataset: DatasetMatch
    scene_set: str
    split: str
    scenes: int
    samples: int
    trained_with: tuple[int, int]
    index: str
    questions: str
    mean_image_of: str
    sigma: float | None
    sweep: tuple[SweepPoint, ...]
    result: str
    geometry: str = ""
    chosen_on_test: bool = False

    def at(self, context: int) -> SweepPoint:
        """Return the metrics with that number of context views."""
        return next(point for point in self.sweep if point.context == context)

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON; undefined values, such as the standard error of one scene, are null."""
        value = _plain(self)
        assert isinstance(value, dict)  # noqa: S101  a dataclass becomes a dict
        return value

    @property
    def answers(self) -> str:
        """What the model answers with, in words."""
        if not self.samples:
            return "predicts the mean of its answers, draws no samples"
        return f"{self.samples} prior sample{'s' * (self.samples > 1)} per scene"

    def table(self) -> str:
        """Return the result as a table to read."""
        lines = [
            f"{self.run}, {self.model}, step {self.step}: {self.scenes} {self.split} scenes of {self.scene_set}, "
            f"{self.answers}",
            *self.notes(),
        ]
        for point in self.sweep:
            lines += ["", _heading(point.context) + self.mark(point.context)]
            lines += _nats(point, self.sigma)
            lines += [_head()]
            lines += [_row(score.name, score) for score in point.scores]
            lines += [*_spread(point), _lead(point.scores[0].name, point)]
        return "\n".join([*lines, "", *_legend([self])])

    def notes(self) -> list[str]:
        """Return what a reader has to know beside the figures, a line each."""
        low, high = self.trained_with
        notes = [f"trained with {low} to {high} context views"]
        if self.chosen_on_test and self.split == "test":
            notes.append(
                "this checkpoint was chosen on test scenes, so its figures are optimistic; pass another --step"
            )
        if self.dataset.other:
            notes.append(f"another dataset than in training: {self.dataset}")
        if self.geometry:
            notes.append(self.geometry)
        return notes

    def mark(self, context: int) -> str:
        """Return the mark of a number of context views outside the training range; empty inside."""
        low, high = self.trained_with
        return "" if low <= context <= high else ", outside the training range"


def comparison(results: Sequence[Evaluation]) -> str:
    """Return several results about the same questions as one table to read, with the baselines once.

    Args:
        results: from `evaluate_runs`.
    """
    first = results[0]
    labels = run_labels([Path(one.run) for one in results])
    names = [f"{label}, step {one.step}" for label, one in zip(labels, results, strict=True)]
    lines = [f"{len(results)} runs: {first.scenes} {first.split} scenes of {first.scene_set}"]
    for name, one in zip(names, results, strict=True):
        lines += ["", f"{name}: {one.model}, {one.answers}"]
        lines += [f"  {note}" for note in one.notes()]
    kinds = [(name, score.name) for name, one in zip(names, results, strict=True) for score in one.sweep[0].scores]
    width = max(len(f"{name}: {kind}") for name, kind in kinds if kind not in BASELINES)
    for at, point in enumerate(first.sweep):
        lines += ["", _heading(point.context), _head(width)]
        leads = []
        for name, one in zip(names, results, strict=True):
            ours = [score for score in one.sweep[at].scores if score.name not in BASELINES]
            lines += [_row(f"{name}: {score.name}", score, width) for score in ours]
            leads += [f"  {name}: {line.strip()}" for line in _spread(one.sweep[at])]
            leads.append(_lead(f"{name}: {ours[0].name}", one.sweep[at]) + one.mark(point.context))
        lines += [_row(name, point.score(name), width) for name in BASELINES]
        lines += leads
    return "\n".join([*lines, "", *_legend(results)])


def _heading(context: int) -> str:
    return f"{context} context view{'s' * (context > 1)}"


def _head(width: int = 20) -> str:
    return f"  {'':{width}} {'PSNR (dB)':>14} {'of mean error':>14} {'SSIM':>17} {'MAE':>14} {'RMSE':>14}"


def _row(label: str, score: Score, width: int = 20) -> str:
    return (
        f"  {label:{width}} {_show(score.psnr, 2):>14} {_show(score.psnr_of_mean_error, 2):>14} "
        f"{_show(score.ssim, 4):>17} {_show(score.mae, 2):>14} {_show(score.rmse, 2):>14}"
    )


def _lead(label: str, point: SweepPoint) -> str:
    return (
        f"  {label} over the better baseline: {point.lead('psnr'):+.2f} dB mean PSNR, "
        f"{point.lead('psnr_of_mean_error'):+.2f} dB PSNR of the mean error"
    )


def _spread(point: SweepPoint) -> list[str]:
    if point.crps is None or point.spread_over_error is None:
        return []
    return [f"  samples: CRPS {_show(point.crps, 2)}, spread over error {point.spread_over_error:.2f}"]


def _nats(point: SweepPoint, sigma: float | None) -> list[str]:
    if point.nats_per_dim is None or point.excess is None or point.kl is None:
        return []
    return [
        f"  at sigma {sigma}: {_show(point.nats_per_dim, 5)} nats/dim, excess {_show(point.excess, 2)} nats, "
        f"KL {_show(point.kl, 2)} nats per frame",
        "  KL per step: " + " ".join(f"{step.mean:.2f}" for step in point.kl_steps),
    ]


def _legend(results: Sequence[Evaluation]) -> list[str]:
    first = results[0]
    lines = [
        "PSNR, SSIM, MAE, RMSE: per frame, then the mean over scenes +- its standard error; MAE, RMSE on 0..255.",
        "Of mean error: PSNR of the squared error averaged over scenes, never above the mean PSNR.",
    ]
    drawn = sorted({one.samples for one in results if one.samples})
    lines += [f"Best of {count}: the sample closest to the ground truth (an oracle choice)." for count in drawn]
    if drawn:
        lines.append("CRPS: on 0..255; the MAE of a prediction without spread. Spread over error: 1 if calibrated.")
    lines += [
        f"Mean image: the mean of {first.mean_image_of}.",
        f"The questions ({first.questions}): {first.index}",
    ]
    if first.scenes < USUAL_SCENES:
        count = f"{first.scenes} scene{'s' * (first.scenes > 1)}"
        lines.append(f"Only {count}: papers usually report {USUAL_SCENES} or more.")
    return lines


def _show(estimate: Estimate, digits: int) -> str:
    if math.isnan(estimate.mean):
        return "-"
    error = "" if math.isnan(estimate.error) else f" +-{estimate.error:.{digits}f}"
    return f"{estimate.mean:.{digits}f}{error}"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Estimate):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Score | SweepPoint | DatasetMatch | Evaluation):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value
