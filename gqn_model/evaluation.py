"""Evaluating a run on test scenes: what its prior predicts, beside baselines, on an index that is written down.

Definitions, all on predictions clamped to [0, 1]:

- *prior sample*: one frame from the prior; errors are averaged over the samples of a scene, then over scenes.
- *prior mean*: the mean of all samples of a scene, as one prediction. It estimates the mean of the predictive
  distribution, which is the prediction of least squared error.
- *prior, mean latents*: one frame, every latent at the mean of its prior; a cheap stand-in for the prior mean.
- MAE and RMSE on the scale 0..255, RMSE a scene first, then the mean over scenes.
- PSNR is the mean over scenes of the PSNR of each; *PSNR of the mean error* is that of the squared error averaged
  over scenes. They are different figures, and the second is never the larger.

Shapes: B samples, S prior samples, H = W the side of a frame.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from gqn_data import storage
from gqn_data.errors import GQNError, OptionError, RunMismatch
from gqn_model.baselines import mean_image, nearest_view
from gqn_model.batches import check_order, fixed_batches
from gqn_model.inputs import to_device
from gqn_model.likelihood import gaussian_floor, psnr
from gqn_model.model import GQN
from gqn_model.training import load_network

if TYPE_CHECKING:
    from gqn_data.scene_sets import Split

# The deviation at which likelihoods are reported: the paper's at the end of its schedule.
SIGMA = 0.7

_BATCH = 32
_MEAN_OF = 1024


class Figure(NamedTuple):
    """A mean over scenes and its standard error."""

    mean: float
    error: float


class IndexEntry(NamedTuple):
    """One question of an evaluation: numbers of the scene in the split, of its query view and context views."""

    scene: int
    query: int
    context: list[int]


@dataclass(frozen=True, kw_only=True)
class Score:
    """How well one way of predicting does."""

    name: str
    mae: Figure
    rmse: Figure
    psnr: Figure
    psnr_of_mean_error: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        run: the run's folder.
        step: of the checkpoint.
        shards: the dataset.
        split: train or test.
        scenes: scenes measured.
        context: context views of each.
        samples: prior samples of each.
        index: the file that names (scene, query, context) of every question.
        mean_image_of: where the baseline's mean image comes from.
        sigma: deviation at which the likelihood was taken.
        nats_per_dim: -ELBO for a pixel channel.
        excess: -ELBO above the Gaussian floor, for a frame.
        kl: divergence of posterior from prior, for a frame.
        scores: the ways of predicting, the network's first.
    """

    run: str
    step: int
    shards: str
    split: str
    scenes: int
    context: int
    samples: int
    index: str
    mean_image_of: str
    sigma: float
    nats_per_dim: Figure
    excess: Figure
    kl: Figure
    scores: tuple[Score, ...]

    def to_json(self) -> dict[str, Any]:
        """The result as JSON."""
        return {
            **dataclasses.asdict(self),
            **{name: getattr(self, name)._asdict() for name in ("nats_per_dim", "excess", "kl")},
            "scores": [
                {
                    "name": score.name,
                    "psnr_of_mean_error": score.psnr_of_mean_error,
                    **{name: getattr(score, name)._asdict() for name in ("mae", "rmse", "psnr")},
                }
                for score in self.scores
            ],
        }

    def table(self) -> str:
        """The result as people read it."""
        lines = [
            f"{self.run}, step {self.step}: {self.scenes} {self.split} scenes, {self.context} context views, "
            f"{self.samples} prior samples",
            f"at sigma {self.sigma}: {_show(self.nats_per_dim, 5)} nats/dim, excess {_show(self.excess, 2)} nats, "
            f"KL {_show(self.kl, 2)} nats a frame",
            "",
            f"{'':22} {'PSNR (dB)':>14} {'of mean error':>14} {'MAE':>14} {'RMSE':>14}",
        ]
        lines.extend(
            f"{score.name:22} {_show(score.psnr, 2):>14} {score.psnr_of_mean_error:14.2f} "
            f"{_show(score.mae, 2):>14} {_show(score.rmse, 2):>14}"
            for score in self.scores
        )
        lines += [
            "",
            f"prior mean against the better baseline: {self.lead('psnr'):+.2f} dB mean PSNR, "
            f"{self.lead('psnr_of_mean_error'):+.2f} dB PSNR of the mean error",
            "PSNR: the mean over scenes, +- its standard error. Of mean error: of the error averaged over scenes.",
            f"The mean image is of {self.mean_image_of}. The questions: {self.index}",
        ]
        return "\n".join(lines)

    def lead(self, figure: Literal["psnr", "psnr_of_mean_error"]) -> float:
        """By how many dB the prior mean is better than the better baseline; negative where it is worse."""

        def value(score: Score) -> float:
            return score.psnr.mean if figure == "psnr" else score.psnr_of_mean_error

        ours = next(value(score) for score in self.scores if score.name == "prior mean")
        return ours - max(value(score) for score in self.scores if score.name in BASELINES)


BASELINES = ("nearest view", "mean image")


def evaluate(
    run: Path,
    shards: str,
    *,
    scenes: int = 1000,
    context: int = 0,
    samples: int = 16,
    split: Split = "test",
    step: int | None = None,
    device: str = "auto",
) -> Evaluation:
    """Measures a run on scenes of a split, and writes index and result into the run's `evaluation/`.

    Args:
        run: the run's folder.
        shards: the dataset.
        scenes: the largest number of scenes; the split may have fewer.
        context: context views of each scene; 0: the largest number that the run was trained with.
        samples: prior samples of each scene.
        split: train or test.
        step: of which checkpoint; None: of the newest.
        device: as in the configuration.

    Raises:
        RunMismatch: the index written down before names other questions than this dataset gives.
    """
    if scenes < 1 or samples < 1 or context < 0:
        raise OptionError(
            f"scenes {scenes}, samples {samples}, context {context}; possible: scenes and samples from 1, "
            "context from 1, or 0 for the run's"
        )
    model, checkpoint, place = load_network(run, step, device)
    config = checkpoint.config
    context = context or config.training.context_max

    average, origin = _mean_image(shards, config, scenes)
    batches = fixed_batches(shards, config, split=split, context=context, batch_size=_BATCH, seed=0)
    check_order(batches, shards, checkpoint.pose_order)
    collected = _Collected()
    try:
        for batch in _first(batches, scenes):
            collected.index += [
                IndexEntry(scene, views[0], views[1:])
                for scene, views in zip(batch.scenes.tolist(), batch.views.tolist(), strict=True)
            ]
            collected.add(model, to_device(batch, place), average.to(place), samples)
    finally:
        batches.close()
    if not collected.index:
        raise RunMismatch(f"{shards}: no scenes in its split {split}; expected at least one")
    # Of the questions, not of the run alone: another dataset or number of scenes has an index of its own.
    index = run / "evaluation" / f"index-{split}-{len(collected.index)}-context-{context}.json"
    _write_index(index, collected.index, batches.fingerprint)
    dims = 3 * config.model.frame_size**2
    losses = collected.cat("loss")
    result = Evaluation(
        run=str(run),
        step=checkpoint.step,
        shards=shards,
        split=split,
        scenes=len(losses),
        context=context,
        samples=samples,
        index=str(index),
        mean_image_of=origin,
        sigma=SIGMA,
        nats_per_dim=_figure(losses / dims),
        excess=_figure(losses - gaussian_floor(dims, SIGMA)),
        kl=_figure(collected.cat("kl")),
        scores=tuple(
            _score(name, collected.cat(f"{name}/mae"), collected.cat(f"{name}/mse"))
            for name in ("prior mean", "prior sample", "prior, mean latents", *BASELINES)
        ),
    )
    storage.write_json(index.with_name(index.name.replace("index-", "result-", 1)), result.to_json())
    return result


class _Collected:
    """Errors of every scene, by name: (B,) for figures, (S, B) for samples, batch after batch."""

    def __init__(self) -> None:
        self.index: list[IndexEntry] = []
        self._parts: dict[str, list[Tensor]] = {}

    @torch.no_grad()
    def add(self, model: GQN, inputs: Any, average: Tensor, samples: int) -> None:
        """Takes a batch; noise is seeded by the first scene's place in the index, not by what ran before."""
        seed = len(self.index)
        static = model.read(inputs.context, inputs.query)
        noise = model.noise(static, torch.Generator(static.device).manual_seed(seed))
        elbo = model(inputs, SIGMA, noise)
        self._put("loss", -elbo.value)
        self._put("kl", elbo.kl.sum(1))
        drawn = model.sample(inputs.context, inputs.query, samples, seed + 1).clamp(0, 1)
        ways = {
            "prior sample": drawn,
            "prior mean": drawn.mean(0),
            "prior, mean latents": model.generate(static, torch.zeros_like(noise)).clamp(0, 1),
            "nearest view": nearest_view(inputs.context, inputs.query),
            "mean image": average.expand_as(inputs.target),
        }
        for name, frames in ways.items():
            off = frames.double() - inputs.target
            self._put(f"{name}/mae", off.abs().mean((-3, -2, -1)))
            self._put(f"{name}/mse", off.square().mean((-3, -2, -1)))

    def cat(self, name: str) -> Tensor:
        """All values of a name, scenes last."""
        return torch.cat(self._parts[name], -1)

    def _put(self, name: str, values: Tensor) -> None:
        self._parts.setdefault(name, []).append(values.double().cpu())


def _score(name: str, mae: Tensor, mse: Tensor) -> Score:
    return Score(
        name=name,
        mae=_figure(255 * mae),
        rmse=_figure(255 * mse.sqrt()),
        psnr=_figure(psnr(mse)),
        psnr_of_mean_error=float(psnr(mse.mean())),
    )


def _figure(values: Tensor) -> Figure:
    """Mean over scenes (the last dimension); samples of a scene are averaged first: they are not independent."""
    by_scene = values if values.dim() == 1 else values.mean(0)
    error = float(by_scene.std()) / math.sqrt(len(by_scene)) if len(by_scene) > 1 else math.nan
    return Figure(float(by_scene.mean()), error)


def _first(batches: Any, scenes: int) -> Iterator[Any]:
    """Batches up to that many scenes."""
    left = scenes
    for batch in batches:
        yield type(batch)(*(part[:left] for part in batch))
        left -= len(batch.target)
        if left <= 0:
            return


def _mean_image(shards: str, config: Any, scenes: int) -> tuple[Tensor, str]:
    """The mean of training frames, one a scene; of test frames where the dataset has no other."""
    context = config.training.context_min
    for split in ("train", "test"):
        try:
            batches = fixed_batches(shards, config, split=split, context=context, batch_size=_BATCH, seed=1)
        except GQNError:
            if split == "test":
                raise
            continue
        try:
            wanted = max(scenes, _MEAN_OF)
            return mean_image(_first(batches, wanted)), f"{min(wanted, batches.scenes)} frames of {split}"
        finally:
            batches.close()
    raise AssertionError  # the loop returns or raises


def _write_index(path: Path, index: list[IndexEntry], fingerprint: str) -> None:
    """Writes the index down, or holds it against the one written down before."""
    value = {"fingerprint": fingerprint, "entries": [entry._asdict() for entry in index]}
    if path.exists():
        if json.loads(path.read_bytes()) != value:
            raise RunMismatch(
                f"{path}: names other questions than this dataset gives; figures would not compare. "
                "Give the shards of that evaluation, or move the file away"
            )
        return
    storage.write_json(path, value)


def _show(figure: Figure, digits: int) -> str:
    return f"{figure.mean:.{digits}f} +-{figure.error:.{digits}f}"
