"""The result of an evaluation, as a table to read and as JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

from gqn_model.checkpoint.run_folder import DatasetMatch
from gqn_model.evaluate.metrics import Estimate, Score

BASELINES = ("nearest view", "mean image")

# Papers report metrics over at least this number of scenes, for example Tobin et al. 2019.
USUAL_SCENES = 1000


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """Metrics with one number of context views.

    Attributes:
        context: number of context views, M.
        nats_per_dim: -ELBO per pixel channel, in nats.
        excess: -ELBO above the Gaussian floor, in nats per frame.
        kl: KL divergence of the posterior from the prior, in nats per frame.
        kl_steps: the same per generation step.
        scores: one per kind of prediction, those of the network first.
    """

    context: int
    nats_per_dim: Estimate
    excess: Estimate
    kl: Estimate
    kl_steps: tuple[Estimate, ...]
    scores: tuple[Score, ...]

    def score(self, name: str) -> Score:
        """Return the score of the prediction with that name."""
        return next(score for score in self.scores if score.name == name)

    def lead(self, metric: Literal["psnr", "psnr_of_mean_error"]) -> float:
        """Return the lead of the prior mean over the better baseline in dB; negative if it is worse."""
        ours, *others = (getattr(self.score(name), metric).mean for name in ("prior mean", *BASELINES))
        return float(ours - max(others))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        run: the run's folder.
        step: step of the checkpoint.
        shards: the dataset.
        dataset: its scene set and fingerprint next to the training's.
        scene_set: name of its scene set.
        split: train or test.
        scenes: number of scenes, one question each.
        samples: prior samples per scene, the N of "best of N".
        trained_with: fewest and most context views in training.
        index: the file that lists (scene, query, context) of every question.
        questions: digest of the questions; results with equal digests are comparable.
        mean_image_of: frames that the baseline's mean image averages.
        sigma: pixel standard deviation of the likelihood.
        sweep: metrics with each number of context views, in rising order.
        result: the file with this result.
        chosen_on_test: whether the checkpoint is `best` of a run that chose it on test scenes.
    """

    run: str
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
    sigma: float
    sweep: tuple[SweepPoint, ...]
    result: str
    chosen_on_test: bool = False

    def at(self, context: int) -> SweepPoint:
        """Return the metrics with that number of context views."""
        return next(point for point in self.sweep if point.context == context)

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON; undefined values, such as the standard error of one scene, are null."""
        value = _plain(self)
        assert isinstance(value, dict)  # noqa: S101  a dataclass becomes a dict
        return value

    def table(self) -> str:
        """Return the result as a table to read."""
        low, high = self.trained_with
        lines = [
            f"{self.run}, step {self.step}: {self.scenes} {self.split} scenes of {self.scene_set}, "
            f"{self.samples} prior sample{'s' * (self.samples > 1)} per scene",
            f"trained with {low} to {high} context views",
        ]
        if self.chosen_on_test and self.split == "test":
            lines.append(
                "this checkpoint was chosen on test scenes, so its figures are optimistic; pass another --step"
            )
        if self.dataset.other:
            lines.append(f"another dataset than in training: {self.dataset}")
        for point in self.sweep:
            mark = "" if low <= point.context <= high else ", outside the training range"
            lines += ["", f"{point.context} context view{'s' * (point.context > 1)}{mark}"]
            lines += _block(point, self.sigma)
        lines += [
            "",
            "PSNR, SSIM, MAE, RMSE: per frame, then the mean over scenes +- its standard error; MAE, RMSE on 0..255.",
            "Of mean error: PSNR of the squared error averaged over scenes, never above the mean PSNR.",
            f"Best of {self.samples}: the sample closest to the ground truth (an oracle choice).",
            f"Mean image: the mean of {self.mean_image_of}.",
            f"The questions ({self.questions}): {self.index}",
        ]
        if self.scenes < USUAL_SCENES:
            lines.append(
                f"Only {self.scenes} scene{'s' * (self.scenes > 1)}: papers usually report {USUAL_SCENES} or more."
            )
        return "\n".join(lines)


def _block(point: SweepPoint, sigma: float) -> list[str]:
    lines = [
        f"  at sigma {sigma}: {_show(point.nats_per_dim, 5)} nats/dim, excess {_show(point.excess, 2)} nats, "
        f"KL {_show(point.kl, 2)} nats per frame",
        "  KL per step: " + " ".join(f"{step.mean:.2f}" for step in point.kl_steps),
        f"  {'':20} {'PSNR (dB)':>14} {'of mean error':>14} {'SSIM':>17} {'MAE':>14} {'RMSE':>14}",
    ]
    lines.extend(
        f"  {score.name:20} {_show(score.psnr, 2):>14} {_show(score.psnr_of_mean_error, 2):>14} "
        f"{_show(score.ssim, 4):>17} {_show(score.mae, 2):>14} {_show(score.rmse, 2):>14}"
        for score in point.scores
    )
    lines.append(
        f"  prior mean over the better baseline: {point.lead('psnr'):+.2f} dB mean PSNR, "
        f"{point.lead('psnr_of_mean_error'):+.2f} dB PSNR of the mean error"
    )
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
