"""Evaluation of a run on test scenes: prior predictions next to two baselines, on a stored set of questions.

    from gqn_model.evaluate import evaluate
    result = evaluate("runs/first")                         # the run's dataset, the usual numbers of context views
    result = evaluate("runs/first", context=[1, 3, 5])
    result.at(3).score("prior mean").psnr.mean

Predictions, besides the baselines. A model that predicts the mean has one, *prediction*. A model with a distribution:

- *prior sample*: one frame from the prior; errors are averaged over the samples of a scene, then over scenes.
- *prior mean*: the mean of all samples of a scene. It estimates the mean of the predictive distribution, which has the
  least expected squared error of all predictions.
- *prior, mean latents*: one frame with every latent at the mean of its prior; a cheap approximation of the prior mean.
- *best of N*: the sample closest to the ground truth by squared error (an oracle choice).

Noise is a function of the question. So metrics do not depend on the batch size, the order of the questions or the
workers, except for the rounding of sums.

Shapes: B samples, S prior samples, K slots for context views, L generation steps, Z latent channels, P numbers per
pose, R channels of the representation, H = W frame size, h = w = H/4 map size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gqn_data.counts import as_count
from gqn_data.errors import GQNError, OptionError, RunMismatch
from gqn_data.io import atomic
from gqn_data.io.paths import DatasetPath, local_path, parse_dataset_path
from gqn_data.progress import bar
from gqn_model.checkpoint.checkpoint import Checkpoint, Step
from gqn_model.checkpoint.load import load_run
from gqn_model.checkpoint.pull import local_run
from gqn_model.checkpoint.run_folder import (
    DatasetMatch,
    best_chosen_on_test,
    check_distinct,
    check_encodable,
    check_links,
    match_dataset,
    trained_shards,
)
from gqn_model.config import MOST_SAMPLES, MOST_SCENES, MOST_WORKERS
from gqn_model.data import bounded, check_order, check_same_frames, fixed_batches, one_pass, with_geometry_of
from gqn_model.evaluate.baselines import mean_image, nearest_view
from gqn_model.evaluate.metrics import Errors, Spread, best_of, estimate, frame_errors, sample_spread, score
from gqn_model.evaluate.questions import (
    Questions,
    check_index,
    check_sweep,
    default_sweep,
    make_questions,
    read_index,
    write_index,
)
from gqn_model.evaluate.report import Evaluation, SweepPoint
from gqn_model.model.contract import LatentNetwork, Network
from gqn_model.model.inputs import Context, Inputs, to_device
from gqn_model.model.noise import POSTERIOR, PRIOR, noise_shape, question_noise
from gqn_model.model.plane_sweep import PlaneSweep

if TYPE_CHECKING:
    from gqn_data.loader import Batch, SceneLoader
    from gqn_data.schema.catalog import Split
    from gqn_model.config import Config, ModelConfig

# Pixel standard deviation of reported likelihoods: the paper's at the end of its schedule.
SIGMA = 0.7

SCENES = 1000
SAMPLES = 8

# Map positions generated at a time; a frame of 64x64 has 256. Enough to keep a GPU busy within its memory; on a CPU
# more are not faster.
_POSITIONS = {"cpu": 64 * 256, "cuda": 256 * 256}
_BATCH_SIZE = 32
_MOST_NOISE_BYTES = 4 << 30  # of a batch; the paper's network with 1024 samples of 32 scenes takes 1.2 GB
_MEAN_IMAGE_FRAMES = 1024


def evaluate(
    run: str | Path,
    shards: str | DatasetPath | None = None,
    *,
    context: Sequence[int] | int = (),
    scenes: int | None = None,
    samples: int = SAMPLES,
    split: Split | None = None,
    index: str | Path | None = None,
    step: Step = None,
    device: str = "auto",
    batch_size: int = _BATCH_SIZE,
    workers: int = 0,
    other_set: bool = False,
) -> Evaluation:
    """Evaluate a run on scenes of a split, and write questions and result into its `evaluation/` folder.

    Args:
        run: the run's folder, or `hf://USER/NAME`, which is copied to `runs/USER--NAME`.
        shards: the dataset; None for the dataset of the training. Of endless rendered scenes, as many as
            needed are rendered.
        context: numbers of context views, each with the same questions and nested contexts; empty for those usually
            reported for the set, as far as its scenes have the views.
        scenes: most scenes, from the start of the split; None for 1000, or all of `index`.
        samples: prior samples per scene.
        split: train or test; None for test, or the split of `index`.
        index: questions of another evaluation; None for those of the run, which are created if missing.
        step: checkpoint to use: a step, `best`, or None for the newest.
        device: as in the configuration.
        batch_size: scenes per batch; does not affect the result.
        workers: loader processes, 0 for this one; does not affect the result.
        other_set: allow a dataset of another scene set than in training.

    Raises:
        DestinationError: a folder of the run is a link that leads out of the run.
        CheckpointError: the folder is not a run, or the checkpoint is missing or damaged.
        OptionError: a value is not possible, or the index cannot be read.
        RunMismatch: the dataset does not fit the run or the index, or has another scene set.
    """
    return _answer(
        _prepare(
            run,
            shards,
            context=context,
            scenes=scenes,
            samples=samples,
            split=split,
            index=index,
            step=step,
            device=device,
            batch_size=batch_size,
            workers=workers,
            other_set=other_set,
        )
    )


def evaluate_runs(
    runs: Sequence[str | Path], shards: str | DatasetPath | None = None, **options: Any
) -> tuple[Evaluation, ...]:
    """Evaluate several runs on the same questions, in order; each result lies in its run.

    Args:
        runs: the runs' folders.
        shards: the dataset; None for the dataset of each training.
        options: those of `evaluate`.

    Raises:
        OptionError: `runs` is empty, or one is given twice.
        RunMismatch: the runs would answer different questions, or at different frame sizes.
        GQNError: as `evaluate`.
    """
    paths = [local_run(run) for run in runs]
    check_distinct(paths)
    prepared = [_prepare(run, shards, **options) for run in paths]
    first = prepared[0]
    for one in prepared[1:]:
        if (one.questions.digest, one.sweep) != (first.questions.digest, first.sweep):
            raise RunMismatch(_other_questions(one, first))
    check_same_frames({one.run: one.checkpoint.config for one in prepared}, first.shards)
    return tuple(map(_answer, prepared))


def _other_questions(one: _Prepared, first: _Prepared) -> str:
    if one.questions.fingerprint != first.questions.fingerprint:
        found, expected, remedy = f"dataset {one.shards}", str(first.shards), "one dataset with --shards"
    else:
        found, expected = (f"questions {each.questions.digest} in {each.path}" for each in (one, first))
        remedy = f"--index {first.path}"
    return f"{one.run}: {found}, expected {expected} as for {first.run}; pass {remedy}"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Prepared:
    """An evaluation that is about to compute: its options, checked, and what they name.

    Attributes:
        note: on the geometry, if it differs from the training's.
        path: index of the questions.
    """

    run: Path
    shards: DatasetPath
    model: Network
    checkpoint: Checkpoint
    device: torch.device
    match: DatasetMatch
    note: str
    sweep: tuple[int, ...]
    questions: Questions
    path: Path
    samples: int
    batch_size: int
    workers: int
    step: Step


def _prepare(
    run: str | Path,
    shards: str | DatasetPath | None = None,
    *,
    context: Sequence[int] | int = (),
    scenes: int | None = None,
    samples: int = SAMPLES,
    split: Split | None = None,
    index: str | Path | None = None,
    step: Step = None,
    device: str = "auto",
    batch_size: int = _BATCH_SIZE,
    workers: int = 0,
    other_set: bool = False,
) -> _Prepared:
    """Check the options of `evaluate`, load the network and choose the questions."""
    run = local_run(run)
    check_links(run)
    index = None if index is None else local_path(index, "indexes lie")
    try:
        numbers: list[Any] = list(context)  # type: ignore[arg-type]
    except TypeError:  # one number, of Python, numpy or torch
        numbers = [context][: bool(context)]
    contexts = [as_count("context", number, 1) for number in numbers]
    samples = as_count("samples", samples, 1, MOST_SAMPLES)
    batch_size = as_count("batch_size", batch_size, 1, MOST_SCENES)
    scenes = None if scenes is None else as_count("scenes", scenes, 1)
    workers = as_count("workers", workers, 0, MOST_WORKERS)
    # Check paths and read the index before loading the network: a mistake shows at once.
    check_encodable(run, *([] if index is None else [index]))
    questions = None if index is None else read_index(index)
    if questions is not None and split not in (None, questions.split):
        raise OptionError(f"{index}: questions of the split {questions.split}, expected {split}; omit split or index")
    shards = trained_shards(run) if shards is None else parse_dataset_path(shards)
    check_encodable(shards)
    model, checkpoint, chosen_device = load_run(run, step, device)
    match = match_dataset(shards, checkpoint.scene_set, checkpoint.fingerprint, other_set=other_set)
    model, note = with_geometry_of(model, shards, match)
    shards = bounded(shards, max(SCENES, scenes or 0))  # no smaller number, so that fewer scenes ask the same questions
    sweep, questions, path = _choose_questions(
        run,
        shards,
        checkpoint,
        match,
        contexts=contexts,
        scenes=scenes,
        split=split,
        questions=questions,
        index=index,
    )
    if model.draws_samples:
        _check_noise(model.config, samples, min(batch_size, len(questions)))
    else:
        samples = 0
    return _Prepared(
        run=run,
        shards=shards,
        model=model,
        checkpoint=checkpoint,
        device=chosen_device,
        match=match,
        note=note,
        sweep=sweep,
        questions=questions,
        path=path,
        samples=samples,
        batch_size=batch_size,
        workers=workers,
        step=step,
    )


def _answer(to: _Prepared) -> Evaluation:
    """Answer the questions, and write the result."""
    config, questions, sweep = to.checkpoint.config, to.questions, to.sweep
    average, origin = _mean_image(to.shards, config)
    accumulator = _Accumulator(sweep, to.samples, average.to(to.device))
    batches = one_pass(
        to.shards,
        config,
        split=questions.split,
        samples=questions.samples(sweep[-1]),
        batch_size=min(to.batch_size, len(questions)),
        workers=to.workers,
    )
    try:
        with bar(len(questions) * len(sweep), "question", "evaluating") as progress:
            for batch in batches:
                for done in accumulator.add(to.model, batch, to.device):
                    progress.update(done)
    finally:
        batches.close()
    numbers = "-".join(map(str, sweep))
    of = f"{questions.split}-{len(questions)}-step-{to.checkpoint.step}-context-{numbers}{to.match.suffix}"
    result = Evaluation(
        run=str(to.run),
        model=config.model.model,
        step=to.checkpoint.step,
        chosen_on_test=to.step == "best" and best_chosen_on_test(to.run),
        shards=str(to.shards),
        dataset=to.match,
        geometry=to.note,
        scene_set=questions.scene_set,
        split=questions.split,
        scenes=len(questions),
        samples=to.samples,
        trained_with=(config.training.context_min, config.training.context_max),
        index=str(to.path),
        questions=questions.digest,
        mean_image_of=origin,
        sigma=SIGMA if isinstance(to.model, LatentNetwork) else None,
        sweep=accumulator.sweep_points(3 * config.model.frame_size**2, to.model.loss_floor(SIGMA)),
        result=str(to.run / "evaluation" / f"result-{of}.json"),
    )
    atomic.write_json(Path(result.result), result.to_json())
    return result


def _check_noise(config: ModelConfig, samples: int, scenes: int) -> None:
    """Raise OptionError if the noise of a batch is too large to draw."""
    size = 4 * samples * scenes * math.prod(noise_shape(config))
    if size > _MOST_NOISE_BYTES:
        raise OptionError(
            f"{samples} samples of {scenes} scenes take {atomic.human_bytes(size)} of noise, expected at most "
            f"{atomic.human_bytes(_MOST_NOISE_BYTES)}; lower --samples or --batch-size"
        )


def _choose_questions(
    run: Path,
    shards: DatasetPath,
    checkpoint: Checkpoint,
    match: DatasetMatch,
    *,
    contexts: Sequence[int],
    scenes: int | None,
    split: Split | None,
    questions: Questions | None,
    index: Path | None,
) -> tuple[tuple[int, ...], Questions, Path]:
    """Return the numbers of context views, the questions and their index; write the index if it is missing.

    Args:
        run: the run's folder.
        shards: the dataset.
        checkpoint: checkpoint of the run.
        match: the dataset next to the dataset of the training.
        contexts: numbers of context views; empty for the usual ones.
        scenes: most scenes, or None.
        split: train or test, or None.
        questions: content of `index`, or None.
        index: index of another evaluation, or None.

    Raises:
        OptionError: a number of context views is not possible.
        RunMismatch: the dataset does not fit the run or the index.
    """
    split = questions.split if questions is not None else split or "test"
    dataset = fixed_batches(shards, checkpoint.config, split=split, context=1, batch_size=1, seed=0)
    check_order(dataset, shards, checkpoint.pose_order)
    dataset.close()
    if not dataset.scenes:
        raise RunMismatch(f"{shards}: 0 scenes in the split {split}, expected at least 1")
    sweep = check_sweep(contexts or default_sweep(dataset.scene_set, dataset.views), dataset.views)
    count = min(SCENES if scenes is None else scenes, dataset.scenes)
    # Each number of scenes has a separate index, and so has another dataset.
    path = run / "evaluation" / f"index-{split}-{count}{match.suffix}.json" if index is None else index
    if questions is None and path.exists():
        questions = read_index(path)
    if questions is not None:
        check_index(
            questions,
            path,
            fingerprint=dataset.fingerprint,
            scenes=dataset.scenes,
            views=dataset.views,
            shards=str(shards),
        )
        if sweep[-1] > questions.max_context:
            raise OptionError(
                f"{path}: {questions.max_context} context views per question, expected at least {sweep[-1]}; evaluate "
                "with fewer context views, or with another index"
            )
        return sweep, questions if scenes is None else questions.first(scenes), path
    questions = make_questions(
        scene_set=dataset.scene_set,
        fingerprint=dataset.fingerprint,
        split=split,
        scenes=count,
        views=dataset.views,
        context=sweep[-1],
    )
    write_index(path, questions)
    return sweep, questions, path


class _Accumulator:
    """Collect errors of all questions batch by batch, and the ELBO of a model that has one.

    Args:
        sweep: numbers of context views.
        samples: prior samples S.
        average: the mean image, (3, H, W) on the device.
    """

    def __init__(self, sweep: Sequence[int], samples: int, average: Tensor) -> None:
        self._sweep, self._samples, self._average = sweep, samples, average
        # By number of context views, then by kind of prediction, in the order of the table.
        self._errors: dict[int, dict[str, list[Errors]]] = {context: {} for context in sweep}
        self._loss: dict[int, list[Tensor]] = {context: [] for context in sweep}
        self._kl: dict[int, list[Tensor]] = {context: [] for context in sweep}
        self._spread: dict[int, list[Spread]] = {context: [] for context in sweep}

    def add(self, model: Network, batch: Batch, device: torch.device) -> Iterator[int]:
        """Evaluate a batch with each number of context views; yield the questions answered each time."""
        inputs = to_device(batch, device)
        noise = self._noise(model, batch, device) if model.draws_samples else None
        average = frame_errors(self._average.expand_as(inputs.target), inputs.target)
        for context in self._sweep:
            observed = Context(*(part[:, :context] for part in inputs.context))
            self._evaluate(model, inputs._replace(context=observed), noise, context)
            self._append(context, "mean image", average)
            yield len(batch.scenes)

    def _noise(self, model: Network, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the noise of a batch's questions: of the posterior, (L, B, Z, h, w), and of the prior, (S, L, ...)."""
        pairs = list(zip(batch.scenes.tolist(), batch.views[:, 0].tolist(), strict=True))

        def drawn(count: int, stream: int) -> Tensor:
            noise = [question_noise(model.config, scene, query, count, stream) for scene, query in pairs]
            return torch.stack(noise, 2).to(device)

        return drawn(1, POSTERIOR)[0], drawn(self._samples, PRIOR)

    @torch.inference_mode()
    def _evaluate(self, model: Network, inputs: Inputs, noise: tuple[Tensor, Tensor] | None, context: int) -> None:
        if noise is not None:
            self._add_samples(model, inputs, *noise, context)
        else:
            frames = model.predict_mean(inputs.context, inputs.query)
            self._append(context, "prediction", frame_errors(frames, inputs.target))
        self._append(context, "nearest view", frame_errors(nearest_view(inputs.context, inputs.query), inputs.target))

    def _add_samples(self, model: Network, inputs: Inputs, posterior: Tensor, prior: Tensor, context: int) -> None:
        if isinstance(model, LatentNetwork):
            elbo = model(inputs, SIGMA, posterior)
            self._loss[context].append(-elbo.value.double().cpu())
            self._kl[context].append(elbo.kl.double().cpu())
            static = model.encode(inputs.context, inputs.query)
            samples = prior_samples(model, static, prior)
            mean_latents = model.generate(static, torch.zeros_like(posterior))
        else:
            assert isinstance(model, PlaneSweep)  # noqa: S101  the other model that draws samples
            samples = model.draw(model.encode(inputs.context), inputs.query, prior[:, 0])
            mean_latents = model.predict_mean(inputs.context, inputs.query)
        if self._samples > 1:
            self._spread[context].append(sample_spread(samples, inputs.target))
        errors = frame_errors(samples, inputs.target)
        self._append(context, "prior mean", frame_errors(samples.clamp(0, 1).mean(0), inputs.target))
        self._append(context, "prior sample", errors)
        self._append(context, f"best of {self._samples}", best_of(errors))
        self._append(context, "prior, mean latents", frame_errors(mean_latents, inputs.target))

    def _append(self, context: int, name: str, errors: Errors) -> None:
        self._errors[context].setdefault(name, []).append(errors)

    def sweep_points(self, dims: int, floor: float) -> tuple[SweepPoint, ...]:
        """Return the metrics over all questions.

        Args:
            dims: pixel channels per frame.
            floor: least loss in nats.
        """
        points = []
        for context in self._sweep:
            parts = {name: zip(*errors, strict=True) for name, errors in self._errors[context].items()}
            scores = tuple(score(name, Errors(*(torch.cat(part, -1) for part in each))) for name, each in parts.items())
            point = SweepPoint(context=context, scores=scores)
            if self._loss[context]:
                loss, kl = torch.cat(self._loss[context]), torch.cat(self._kl[context])
                point = replace(
                    point,
                    nats_per_dim=estimate(loss / dims),
                    excess=estimate(loss - floor),
                    kl=estimate(kl.sum(1)),
                    kl_steps=tuple(estimate(step) for step in kl.unbind(1)),
                )
            if self._samples > 1:
                spread = Spread(*map(torch.cat, zip(*self._spread[context], strict=True)))
                point = replace(point, crps=estimate(255 * spread.crps), spread_over_error=spread.over_error)
            points.append(point)
        return tuple(points)


@torch.inference_mode()
def prior_samples(model: LatentNetwork, static: Tensor, noise: Tensor) -> Tensor:
    """Return predictions from the prior, (S, B, 3, H, W), generated in chunks of samples.

    Args:
        model: the network.
        static: (B, P + R, h, w), the output of `encode`.
        noise: (S, L, B, Z, h, w), standard normal.
    """
    at_once = max(1, _POSITIONS.get(static.device.type, _POSITIONS["cpu"]) // static[:, 0].numel())
    parts = []
    for chunk in torch.split(noise, at_once):
        repeated = static.repeat(len(chunk), 1, 1, 1)
        frames = model.generate(repeated, chunk.transpose(0, 1).flatten(1, 2))
        parts.append(frames.view(len(chunk), len(static), *frames.shape[1:]))
    return torch.cat(parts)


def _mean_image(shards: DatasetPath, config: Config) -> tuple[Tensor, str]:
    """Return the mean of training frames, one per scene, and a description; of test frames without a train split."""
    for split in ("train", "test"):
        try:
            batches = fixed_batches(shards, config, split=split, context=1, batch_size=_BATCH_SIZE, seed=1)
        except GQNError:
            if split == "test":
                raise
            continue
        try:
            count = min(_MEAN_IMAGE_FRAMES, batches.scenes)
            return mean_image(_first(batches, _MEAN_IMAGE_FRAMES)), f"{count} frames of {split}"
        finally:
            batches.close()
    raise AssertionError  # the loop returns or raises


def _first(batches: SceneLoader, scenes: int) -> Iterator[Batch]:
    """Yield batches with the first `scenes` scenes."""
    remaining = scenes
    for batch in batches:
        yield type(batch)(*(part[:remaining] for part in batch))
        remaining -= len(batch.target)
        if remaining <= 0:
            return
