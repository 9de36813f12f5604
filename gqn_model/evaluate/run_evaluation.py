"""Evaluating a run on test scenes: what its prior predicts, beside baselines, on questions that are written down.

    from gqn_model.evaluate.run_evaluation import evaluate
    found = evaluate("runs/first")                        # the dataset it was trained on, the field's sweep for the set
    found = evaluate("runs/first", context=[1, 3, 5])
    found.at(3).score("prior mean").psnr.mean

Ways of predicting, beside the baselines of `evaluating`:

- *prior sample*: one frame from the prior; the errors of a scene's samples are averaged, then those of scenes.
- *prior mean*: the mean of all samples of a scene, as one prediction. It estimates the mean of the predictive
  distribution, which is the prediction of least squared error.
- *prior, mean latents*: one frame, every latent at the mean of its prior; a cheap stand-in for the prior mean.
- *best of N*: of the N samples of a scene the one of least squared error to the truth.

Metrics and the choice of questions are in `evaluating`. Noise is a function of the question: figures depend neither on
the batch size nor on the order of questions nor on who reads them, but for the rounding of sums.

Shapes: B samples, S prior samples, K slots for context views, L steps, Z channels of a latent,
P numbers of a pose, R channels of the representation, H = W the side of a frame, h = w = H/4 that of the maps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gqn_data.errors import GQNError, OptionError, RunMismatch
from gqn_data.io import atomic
from gqn_data.progress import bar
from gqn_model.checkpoint.checkpoint import Checkpoint, Step
from gqn_model.checkpoint.load import load_run
from gqn_model.checkpoint.run_folder import read_facts
from gqn_model.data import check_order, fixed_batches
from gqn_model.evaluate.baselines import mean_image, nearest_view
from gqn_model.evaluate.metrics import Errors, best_of, figure, frame_errors, score
from gqn_model.evaluate.questions import (
    Questions,
    check_index,
    check_sweep,
    default_sweep,
    make_questions,
    read_index,
    write_index,
)
from gqn_model.evaluate.report import BASELINES, AtContext, Evaluation
from gqn_model.model.distributions import gaussian_floor
from gqn_model.model.gqn import GQN
from gqn_model.model.inputs import Context, Inputs, to_device
from gqn_model.model.noise import POSTERIOR, PRIOR, question_noise

if TYPE_CHECKING:
    from gqn_data.loader import Batch, SceneLoader
    from gqn_data.schema.catalog import Split
    from gqn_model.config import Config

# The deviation at which likelihoods are reported: the paper's at the end of its schedule.
SIGMA = 0.7

SCENES = 1000
SAMPLES = 8

# Places of maps generated at a time, 256 of which are a frame of 64x64: enough for the device to be busy, few enough
# for its memory; on a CPU more are not faster.
_PLACES = {"cpu": 64 * 256, "cuda": 256 * 256}
_BATCH = 32
_MEAN_OF = 1024


def evaluate(
    run: str | Path,
    shards: str | None = None,
    *,
    context: Sequence[int] | int = (),
    scenes: int | None = None,
    samples: int = SAMPLES,
    split: Split | None = None,
    index: str | Path | None = None,
    step: Step = None,
    device: str = "auto",
    batch_size: int = _BATCH,
    workers: int = 0,
) -> Evaluation:
    """Measures a run on scenes of a split, and writes questions and result into the run's `evaluation/`.

    Args:
        run: the run's folder.
        shards: the dataset; None: the one that the run was trained on.
        context: numbers of context views to measure with, each on the same questions, contexts nested; empty: those
            that the field tells figures for with this set, as far as its scenes have views.
        scenes: the largest number of scenes, the first of the split, which may have fewer; None: 1000, or all that
            `index` asks about.
        samples: prior samples of each scene.
        split: train or test; None: test, or that of `index`.
        index: a file of questions that an evaluation wrote, to be asked the same; None: the run's own, which is made
            where it does not exist.
        step: of which checkpoint; None: of the newest, `best`: of the best.
        device: as in the configuration.
        batch_size: scenes at a time; changes no figure.
        workers: processes that read and decode; 0: this one. Changes no figure.

    Raises:
        OptionError: a value that is not possible, or an index that cannot be understood.
        RunMismatch: the dataset does not fit the run, or the index asks about another one.
        CheckpointError: the folder is no run, or the checkpoint is absent or damaged.
    """
    run = Path(run)
    asked = [context][: bool(context)] if isinstance(context, int) else list(context)
    if samples < 1 or batch_size < 1 or (scenes is not None and scenes < 1):
        raise OptionError(f"scenes {scenes}, samples {samples}, batch size {batch_size}; possible: each from 1")
    # What was chosen is looked at before anything is computed.
    given = None if index is None else read_index(Path(index))
    if given is not None and split not in (None, given.split):
        raise OptionError(f"{index}: asks about the split {given.split}, not {split}; leave out one of both")
    if shards is None:
        shards = read_facts(run).shards
    model, checkpoint, place = load_run(run, step, device)
    sweep, questions, path = _settled(
        run,
        shards,
        checkpoint,
        asked=asked,
        scenes=scenes,
        split=split,
        given=given,
        index=index,
    )
    average, origin = _mean_image(shards, checkpoint.config)
    collected = _Collected(sweep, samples, average.to(place))
    batches = _asked(shards, checkpoint.config, questions, sweep[-1], batch_size=batch_size, workers=workers)
    try:
        with bar(len(questions) * len(sweep), "question", "evaluating") as progress:
            for batch in batches:
                for asked_with in collected.add(model, batch, place):
                    progress.update(asked_with)
    finally:
        batches.close()
    numbers = "-".join(map(str, sweep))
    name = f"result-{questions.split}-{len(questions)}-step-{checkpoint.step}-context-{numbers}.json"
    training = checkpoint.config.training
    result = Evaluation(
        run=str(run),
        step=checkpoint.step,
        shards=shards,
        scene_set=questions.scene_set,
        split=questions.split,
        scenes=len(questions),
        samples=samples,
        trained_with=(training.context_min, training.context_max),
        index=str(path),
        questions=questions.digest,
        mean_image_of=origin,
        sigma=SIGMA,
        sweep=collected.found(3 * checkpoint.config.model.frame_size**2),
        result=str(run / "evaluation" / name),
    )
    atomic.write_json(Path(result.result), result.to_json())
    return result


def _settled(
    run: Path,
    shards: str,
    checkpoint: Checkpoint,
    *,
    asked: Sequence[int],
    scenes: int | None,
    split: Split | None,
    given: Questions | None,
    index: str | Path | None,
) -> tuple[tuple[int, ...], Questions, Path]:
    """The numbers of context views, the questions, and the file in which they stand."""
    split = given.split if given is not None else split or "test"
    dataset = fixed_batches(shards, checkpoint.config, split=split, context=1, batch_size=1, seed=0)
    check_order(dataset, shards, checkpoint.pose_order)
    dataset.close()
    if not dataset.scenes:
        raise RunMismatch(f"{shards}: no scenes in its split {split}; expected at least one")
    sweep = check_sweep(asked or default_sweep(dataset.scene_set, dataset.views), dataset.views)
    many = min(SCENES if scenes is None else scenes, dataset.scenes)
    # Of the questions, not of the run alone: another number of scenes has an index of its own.
    path = run / "evaluation" / f"index-{split}-{many}.json" if index is None else Path(index)
    if given is None and path.exists():
        given = read_index(path)
    if given is not None:
        check_index(
            given,
            path,
            fingerprint=dataset.fingerprint,
            scenes=dataset.scenes,
            views=dataset.views,
            shards=shards,
        )
        if sweep[-1] > given.most:
            raise OptionError(
                f"{path}: has {given.most} context views of a scene, asked were {sweep[-1]}; ask for fewer, or give "
                "or make another index"
            )
        return sweep, given if scenes is None else given.first(scenes), path
    questions = make_questions(
        scene_set=dataset.scene_set,
        fingerprint=dataset.fingerprint,
        split=split,
        scenes=many,
        views=dataset.views,
        most=sweep[-1],
    )
    write_index(path, questions)
    return sweep, questions, path


def _asked(
    shards: str, config: Config, questions: Questions, context: int, *, batch_size: int, workers: int
) -> SceneLoader:
    """The questions as batches, in their order."""
    from gqn_data.loader import SceneLoader

    return SceneLoader(
        shards,
        split=questions.split,
        samples=questions.samples(context),
        batch_size=min(batch_size, len(questions)),
        workers=workers,
        epochs=1,
        frame_size=config.model.frame_size,
        tail="exact",
        remote="range",  # of each scene a few views, once
        cache=config.training.cache or None,
        cache_gb=config.training.cache_gb or None,
    )


class _Collected:
    """What was found of every question, batch after batch.

    Args:
        sweep: numbers of context views.
        samples: S.
        average: the mean image, (3, H, W) on the device.
    """

    def __init__(self, sweep: Sequence[int], samples: int, average: Tensor) -> None:
        self._sweep, self._samples, self._average = sweep, samples, average
        self._errors: dict[tuple[int, str], list[Errors]] = {}
        self._loss: dict[int, list[Tensor]] = {number: [] for number in sweep}
        self._kl: dict[int, list[Tensor]] = {number: [] for number in sweep}

    @torch.inference_mode()
    def _noise(self, model: GQN, batch: Batch, count: int, stream: int, device: torch.device) -> Tensor:
        """The noise of a batch's questions, (count, L, B, Z, h, w)."""
        asked = zip(batch.scenes.tolist(), batch.views[:, 0].tolist(), strict=True)
        noise = [question_noise(model.config, scene, query, count, stream) for scene, query in asked]
        return torch.stack(noise, 2).to(device)

    def add(self, model: GQN, batch: Batch, device: torch.device) -> Iterator[int]:
        """Takes a batch with each number of context views; gives the questions that were asked each time."""
        everything = to_device(batch, device)
        (posterior,) = self._noise(model, batch, 1, POSTERIOR, device)
        prior = self._noise(model, batch, self._samples, PRIOR, device)
        average = frame_errors(self._average.expand_as(everything.target), everything.target)
        for number in self._sweep:
            context = Context(*(part[:, :number] for part in everything.context))
            self._ask(model, everything._replace(context=context), posterior, prior, number)
            self._put(number, "mean image", average)
            yield len(batch.scenes)

    @torch.inference_mode()
    def _ask(self, model: GQN, inputs: Inputs, posterior: Tensor, prior: Tensor, number: int) -> None:
        elbo = model(inputs, SIGMA, posterior)
        self._loss[number].append(-elbo.value.double().cpu())
        self._kl[number].append(elbo.kl.double().cpu())
        static = model.encode(inputs.context, inputs.query)
        drawn = prior_samples(model, static, prior)
        errors = frame_errors(drawn, inputs.target)
        self._put(number, "prior mean", frame_errors(drawn.clamp(0, 1).mean(0), inputs.target))
        self._put(number, "prior sample", errors)
        self._put(number, f"best of {self._samples}", best_of(errors))
        plain = model.generate(static, torch.zeros_like(posterior))
        self._put(number, "prior, mean latents", frame_errors(plain, inputs.target))
        self._put(number, "nearest view", frame_errors(nearest_view(inputs.context, inputs.query), inputs.target))

    def _put(self, number: int, name: str, errors: Errors) -> None:
        self._errors.setdefault((number, name), []).append(errors)

    def found(self, dims: int) -> tuple[AtContext, ...]:
        """The figures over all questions; `dims` are the pixel channels of a frame."""
        ways = ("prior mean", "prior sample", f"best of {self._samples}", "prior, mean latents", *BASELINES)
        found = []
        for number in self._sweep:
            loss, kl = torch.cat(self._loss[number]), torch.cat(self._kl[number])
            parts = {name: zip(*self._errors[number, name], strict=True) for name in ways}
            found.append(
                AtContext(
                    context=number,
                    nats_per_dim=figure(loss / dims),
                    excess=figure(loss - gaussian_floor(dims, SIGMA)),
                    kl=figure(kl.sum(1)),
                    kl_steps=tuple(figure(step) for step in kl.unbind(1)),
                    scores=tuple(score(name, Errors(*(torch.cat(part, -1) for part in parts[name]))) for name in ways),
                )
            )
        return tuple(found)


@torch.inference_mode()
def prior_samples(model: GQN, static: Tensor, noise: Tensor) -> Tensor:
    """Predictions from the prior, (S, B, 3, H, W), many at a time.

    Args:
        model: the network.
        static: (B, P + R, h, w), what `GQN.encode` gave.
        noise: (S, L, B, Z, h, w), standard normal.
    """
    at_once = max(1, _PLACES.get(static.device.type, _PLACES["cpu"]) // static[:, 0].numel())
    parts = []
    for some in torch.split(noise, at_once):
        repeated = static.repeat(len(some), 1, 1, 1)
        frames = model.generate(repeated, some.transpose(0, 1).flatten(1, 2))
        parts.append(frames.view(len(some), len(static), *frames.shape[1:]))
    return torch.cat(parts)


def _mean_image(shards: str, config: Config) -> tuple[Tensor, str]:
    """The mean of training frames, one a scene; of test frames where the dataset has no other."""
    for split in ("train", "test"):
        try:
            batches = fixed_batches(shards, config, split=split, context=1, batch_size=_BATCH, seed=1)
        except GQNError:
            if split == "test":
                raise
            continue
        try:
            return mean_image(_first(batches, _MEAN_OF)), f"{min(_MEAN_OF, batches.scenes)} frames of {split}"
        finally:
            batches.close()
    raise AssertionError  # the loop returns or raises


def _first(batches: SceneLoader, scenes: int) -> Iterator[Batch]:
    """Batches up to that many scenes."""
    left = scenes
    for batch in batches:
        yield type(batch)(*(part[:left] for part in batch))
        left -= len(batch.target)
        if left <= 0:
            return
