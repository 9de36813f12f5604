"""What an evaluation found: as a table for people, as JSON for programs. Computes nothing; imports `metrics`."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

from gqn_model.evaluate.metrics import Figure, Score

BASELINES = ("nearest view", "mean image")

# Under so many scenes figures are not those that papers compare (Tobin et al. 2019 and others take 1000 or more).
ENOUGH = 1000


@dataclass(frozen=True, kw_only=True)
class AtContext:
    """What was found with one number of context views.

    Attributes:
        context: the number, M.
        nats_per_dim: -ELBO for a pixel channel.
        excess: -ELBO above the Gaussian floor, for a frame, in nats.
        kl: divergence of posterior from prior, for a frame, in nats.
        kl_steps: the same, of each generation step.
        scores: the ways of predicting, the network's first.
    """

    context: int
    nats_per_dim: Figure
    excess: Figure
    kl: Figure
    kl_steps: tuple[Figure, ...]
    scores: tuple[Score, ...]

    def score(self, name: str) -> Score:
        """The score of the way of that name."""
        return next(score for score in self.scores if score.name == name)

    def lead(self, figure: Literal["psnr", "psnr_of_mean_error"]) -> float:
        """By how many dB the prior mean is better than the better baseline; negative where it is worse."""
        ours, *others = (getattr(self.score(name), figure).mean for name in ("prior mean", *BASELINES))
        return float(ours - max(others))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of `evaluation.evaluate`.

    Attributes:
        run: the run's folder.
        step: of the checkpoint.
        shards: the dataset.
        scene_set: its set.
        split: train or test.
        scenes: scenes measured, one question about each.
        samples: prior samples of each; as many are the N of "best of N".
        trained_with: the least and largest number of context views that the run was trained with.
        index: the file that names (scene, query, context) of every question.
        questions: characters that tell questions apart; results with the same ones compare.
        mean_image_of: where the baseline's mean image comes from.
        sigma: deviation of a pixel at which the likelihood was taken.
        sweep: what was found with each number of context views, rising.
        result: the file with this result.
    """

    run: str
    step: int
    shards: str
    scene_set: str
    split: str
    scenes: int
    samples: int
    trained_with: tuple[int, int]
    index: str
    questions: str
    mean_image_of: str
    sigma: float
    sweep: tuple[AtContext, ...]
    result: str

    def at(self, context: int) -> AtContext:
        """What was found with that number of context views."""
        return next(found for found in self.sweep if found.context == context)

    def to_json(self) -> dict[str, Any]:
        """The result as JSON; what is no number (the error of a single scene) is null."""
        value = _plain(self)
        assert isinstance(value, dict)  # noqa: S101  a dataclass becomes a table
        return value

    def table(self) -> str:
        """The result as people read it."""
        low, high = self.trained_with
        lines = [
            f"{self.run}, step {self.step}: {self.scenes} {self.split} scenes of {self.scene_set}, "
            f"{self.samples} prior sample{'s' * (self.samples > 1)} of each",
            f"trained with {low} to {high} context views",
        ]
        for found in self.sweep:
            beyond = "" if low <= found.context <= high else ", which it was not trained with"
            lines += ["", f"{found.context} context view{'s' * (found.context > 1)}{beyond}"]
            lines += _block(found, self.sigma)
        lines += [
            "",
            "PSNR, SSIM, MAE, RMSE: of each frame, then the mean over scenes, +- its standard error; MAE and RMSE on",
            "0..255. Of mean error: the PSNR of the squared error averaged over scenes, never the larger of the two.",
            f"Best of {self.samples}: of a scene's samples the one nearest to the truth, which is looked at to choose.",
            f"The mean image is of {self.mean_image_of}.",
            f"The questions ({self.questions}): {self.index}",
        ]
        if self.scenes < ENOUGH:
            lines.append(f"Only {self.scenes} scenes: the field reports figures over {ENOUGH} or more.")
        return "\n".join(lines)


def _block(found: AtContext, sigma: float) -> list[str]:
    lines = [
        f"  at sigma {sigma}: {_show(found.nats_per_dim, 5)} nats/dim, excess {_show(found.excess, 2)} nats, "
        f"KL {_show(found.kl, 2)} nats a frame",
        "  KL of each step: " + " ".join(f"{step.mean:.2f}" for step in found.kl_steps),
        f"  {'':20} {'PSNR (dB)':>14} {'of mean error':>14} {'SSIM':>17} {'MAE':>14} {'RMSE':>14}",
    ]
    lines.extend(
        f"  {score.name:20} {_show(score.psnr, 2):>14} {_show(score.psnr_of_mean_error, 2):>14} "
        f"{_show(score.ssim, 4):>17} {_show(score.mae, 2):>14} {_show(score.rmse, 2):>14}"
        for score in found.scores
    )
    lines.append(
        f"  prior mean against the better baseline: {found.lead('psnr'):+.2f} dB mean PSNR, "
        f"{found.lead('psnr_of_mean_error'):+.2f} dB PSNR of the mean error"
    )
    return lines


def _show(figure: Figure, digits: int) -> str:
    if math.isnan(figure.mean):
        return "-"
    error = "" if math.isnan(figure.error) else f" +-{figure.error:.{digits}f}"
    return f"{figure.mean:.{digits}f}{error}"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Figure):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Score | AtContext | Evaluation):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value
