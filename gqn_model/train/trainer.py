"""The training loop. `train` reads from top to bottom; one optimisation step is in `step`, the run's folder in `run`.

Metrics accumulate on the device and sync only when logged. On the CPU a stopped and resumed training equals an
uninterrupted one bit for bit: a checkpoint holds all state that affects a step. All ranks together compute what one
process would.

`model.contract` says what the loop asks of a network. Shapes: B samples, L generation steps, H = W the frame size.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import torch

from gqn_data.errors import LossNotFinite, NoSpace, RunMismatch, TrainingStopped, WorkerLost
from gqn_data.io import atomic
from gqn_data.loader import on_device
from gqn_data.progress import message
from gqn_model.checkpoint.best import Score
from gqn_model.checkpoint.checkpoint import Checkpoint, checkpoint_steps, pose_order, save_checkpoint
from gqn_model.config import Config, TrainingConfig
from gqn_model.data import Batches
from gqn_model.device import choose_device, keep_freed_memory
from gqn_model.loggers import Logger, Record
from gqn_model.model.contract import Network
from gqn_model.model.distributions import psnr
from gqn_model.model.inputs import Inputs, select_rows, to_device
from gqn_model.train.distributed import ALONE, Ranks, StopFlag, connection_errors_as_rank_lost
from gqn_model.train.metrics import TrainingMetrics
from gqn_model.train.profiler import Profile
from gqn_model.train.schedules import learning_rate_at, sigma_at
from gqn_model.train.step import TrainStep
from gqn_model.visualize.prediction_grid import prediction_picture

# SIGHUP does not exist on Windows.
_STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

_PROBE_BATCH = 32  # scenes predicted at a time, to bound memory


class PriorPSNR(NamedTuple):
    """PSNR in dB of predictions of the probe scenes, averaged over scenes.

    Attributes:
        sample: of one prior sample; None for a model without a distribution.
        mean: of `Network.predict_mean`.
    """

    sample: float | None
    mean: float


class StopSignals:
    """Record SIGTERM, Ctrl-C and SIGHUP inside a `with` block; a second Ctrl-C raises KeyboardInterrupt at once.

    SIGHUP comes when the terminal is closed. `nohup` ignores it, and so does this.

    Attributes:
        received: the signal number, 0 before a signal arrives.
    """

    def __init__(self) -> None:
        self.received = 0
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _STOPS:
                if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                    self._handlers[number] = signal.signal(number, self._record)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _record(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  the signature of a signal handler
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number


def train(
    run: Path,
    config: Config,
    batches: Batches,
    *,
    loggers: Sequence[Logger] = (),
    probe: Inputs | None = None,
    checkpoint: Checkpoint | None = None,
    ranks: Ranks = ALONE,
) -> Network:
    """Train a network and return it; rank 0 writes checkpoints and pictures into the run's folder.

    Args:
        run: the run's folder, with its `config.json`.
        config: configuration with the frame size and `context_max` set.
        batches: this rank's share of each training batch.
        loggers: receive the metrics on rank 0.
        probe: scenes outside of the training, on the device, for PSNR and pictures of prior predictions on rank 0. The
            PSNR chooses the best checkpoint.
        checkpoint: where to resume; None starts from step 0. Only rank 0 needs it.
        ranks: this process and the others of the training, inside `distributed.process_group`.

    Raises:
        LossNotFinite: the loss became NaN or infinite; the last good checkpoint stays.
        OptionError: the batch size is not divisible by the ranks, or the device does not support an option.
        RankLost: another rank is gone.
        RunMismatch: the checkpoint belongs to another dataset.
        TrainingStopped: SIGTERM, Ctrl-C or SIGHUP arrived; a checkpoint of the last step was saved.
    """
    training = config.training
    device = choose_device(training.device, ranks.local)
    if device.type == "cpu":
        keep_freed_memory()
    if training.threads:
        torch.set_num_threads(training.threads)
    if checkpoint is not None and checkpoint.fingerprint != batches.fingerprint:
        raise RunMismatch(
            f"{run}: trained on the dataset {checkpoint.fingerprint[:12]} ({checkpoint.scene_set}), found "
            f"{batches.fingerprint[:12]} ({batches.scene_set}); pass --shards with the dataset that it was trained on"
        )

    with connection_errors_as_rank_lost(ranks):
        take_step = TrainStep(config, device, ranks, checkpoint)
        model = take_step.model
        step, position = ranks.broadcast((checkpoint.step, checkpoint.loader) if checkpoint is not None else (0, None))
        if position is not None:
            batches.load_state_dict(position)

        with StopSignals() as signals:
            stop_flag = StopFlag(ranks)
            model.train()
            metrics = TrainingMetrics(device, model.latent_steps, ranks)
            stream = on_device(batches, device)
            prior: PriorPSNR | None = None
            if step == 0 and ranks.first:
                _save(run, _snapshot(0, take_step, batches, None), metrics, training.keep, required=False)

            with Profile(
                run, device, first=step, last=training.steps, wanted=training.profile and ranks.first
            ) as profile:
                while step < training.steps:
                    waited = batches.waited
                    try:
                        batch = next(stream)
                    except WorkerLost:
                        if not signals.received or ranks.count > 1:
                            raise
                        # The signal went to the whole process group, as schedulers send it, and ended the workers.
                        if step not in checkpoint_steps(run):
                            _save(run, _snapshot(step, take_step, batches, None), metrics, training.keep, required=True)
                        raise _stopped(run, step, signals.received) from None
                    # Not the duration of `next`: on a GPU that is behind, any call may block until its work is done.
                    metrics.waited += batches.waited - waited
                    metrics.add(step, take_step(step, to_device(batch, device)))
                    step += 1
                    profile.step()

                    last = step == training.steps
                    stopped = stop_flag.all_reduce_max(signals.received)
                    score: Score | None = None
                    if probe is not None and _due(step, training.probe_every, last):
                        prior = measure_prior(model, probe)
                    if _due(step, training.log_every, last):
                        metrics.all_reduce()
                        _check_losses(run, metrics)
                        if ranks.first:
                            record = _record(training, step, metrics, prior, latent=model.latent_steps > 0)
                            for logger in loggers:
                                logger.log(record)
                            # A score counts only if it was measured at the step of the checkpoint.
                            measured = probe is not None and _due(step, training.probe_every, last)
                            prior_psnr = record.prior_mean if measured else None
                            score = _score(record, metrics, prior_psnr)
                        prior = None
                        metrics.reset()
                    if probe is not None and _due(step, training.picture_every, last):
                        _draw(run, step, model, probe, batches.scene_set, loggers)
                    if ranks.first and _due(step, training.checkpoint_every, last or bool(stopped)):
                        state = _snapshot(step, take_step, batches, score)
                        _save(run, state, metrics, training.keep, required=last or bool(stopped))
                    if stopped and not last:
                        stop_flag.close()
                        raise _stopped(run, step, stopped)
            stop_flag.close()
    return model


def _stopped(run: Path, step: int, number: int) -> TrainingStopped:
    return TrainingStopped(
        f"stopped by {signal.Signals(number).name} after step {step}, which is saved; "
        f"resume with `gqn train --resume {run}`"
    )


def _due(step: int, every: int, last: bool) -> bool:
    return bool(every) and (step % every == 0 or last)


@torch.no_grad()
def measure_prior(model: Network, probe: Inputs) -> PriorPSNR:
    """Return the PSNR of predictions of the probe scenes; syncs with the device."""
    parts = []
    for first in range(0, len(probe.query), _PROBE_BATCH):
        context, query, target = select_rows(probe, slice(first, first + _PROBE_BATCH))
        predictions = [model.predict_mean(context, query)]
        if model.draws_samples:
            predictions.append(model.sample(context, query, 1, seed=0)[0])
        errors = [((frames.clamp(0, 1) - target) ** 2).mean((1, 2, 3)) for frames in predictions]
        parts.append(torch.stack([psnr(error) for error in errors]))
    mean, *samples = torch.cat(parts, 1).mean(1).tolist()
    return PriorPSNR(samples[0] if samples else None, mean)


def _check_losses(run: Path, metrics: TrainingMetrics) -> None:
    """Raise LossNotFinite if a step had a loss of NaN or infinity; syncs with the device."""
    bad = metrics.first_bad_step()
    if bad is None:
        return
    steps = checkpoint_steps(run)
    kept = f"the last good checkpoint is of step {steps[-1]}" if steps else "without a checkpoint so far"
    raise LossNotFinite(
        f"{run}: loss of step {bad} (counted from 0) is NaN or infinite, expected a finite number; {kept}. "
        "Try a lower --learning-rate, a longer --warmup-steps or a lower --clip"
    )


def _record(
    training: TrainingConfig, step: int, metrics: TrainingMetrics, prior: PriorPSNR | None, *, latent: bool
) -> Record:
    """Return the metrics since the last log line, those of an ELBO if `latent`; syncs with the device."""
    means, seconds = metrics.means(), metrics.seconds()
    rate = metrics.steps / seconds
    return Record(
        step=step,
        steps=training.steps,
        rate=rate,
        wait=metrics.waited / seconds,
        loss=means.loss,
        excess=means.loss - metrics.loss_floor if latent else None,
        kl=sum(means.kl_steps) if latent else None,
        kl_steps=means.kl_steps,
        mse=means.mse,
        psnr=means.psnr,
        prior_sample=prior.sample if prior else None,
        prior_mean=prior.mean if prior else None,
        sigma=sigma_at(training, step - 1) if latent else None,
        learning_rate=learning_rate_at(training, step - 1),
        left=(training.steps - step) / rate,
        gradient_norm=metrics.gradient_norm(),
    )


def _score(record: Record, metrics: TrainingMetrics, prior_psnr: float | None) -> Score:
    """Return what chooses the best checkpoint; sigma is 0 for a model without a likelihood."""
    return Score(prior_psnr=prior_psnr, excess=record.loss - metrics.loss_floor, sigma=record.sigma or 0.0)


def _snapshot(step: int, take_step: TrainStep, batches: Batches, score: Score | None) -> Checkpoint:
    """Return the state after `step` steps."""
    return Checkpoint(
        step=step,
        config=take_step.config,
        model=take_step.model.state_dict(),
        optimizer=take_step.optimizer_state(),
        loader=batches.state_dict(),
        fingerprint=batches.fingerprint,
        scene_set=batches.scene_set,
        pose_order=pose_order(batches.pose_fields),
        score=score,
    )


def _save(run: Path, state: Checkpoint, metrics: TrainingMetrics, keep: int, *, required: bool) -> None:
    """Write a checkpoint of finite weights; on a full disk warn, or raise NoSpace if the checkpoint is required."""
    _check_losses(run, metrics)
    if not all(bool(torch.isfinite(value).all()) for value in state.model.values()):
        raise LossNotFinite(
            f"{run}: after step {state.step} a weight is NaN or infinite and is not saved; the last good "
            f"checkpoint is of step {(checkpoint_steps(run) or [0])[-1]}. Try a lower --learning-rate"
        )
    try:
        save_checkpoint(run, state, keep)
    except NoSpace as error:
        if required:
            raise
        # The disk may be emptied later; stopping now would lose hours of training.
        message(f"warning: {error} (training continues; earlier checkpoints are kept)")


def _draw(run: Path, step: int, model: Network, probe: Inputs, scene_set: str, loggers: Sequence[Logger]) -> None:
    """Write a picture of predictions of the probe scenes and pass it to the loggers; on a full disk warn."""
    image = prediction_picture({"": model}, probe, f"{scene_set}, after step {step}")
    try:
        with atomic.writing(run / "pictures" / f"{step:08d}.png") as file:
            image.save(file, format="PNG")
    except NoSpace as error:
        message(f"warning: {error} (training continues without the picture)")
    for logger in loggers:
        logger.picture(step, image)
