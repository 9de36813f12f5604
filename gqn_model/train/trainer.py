"""The course of a training: what is measured on the way, stopping and going on. One step of it is in `course`.

Figures are summed on the device and read at the lines of the log. A stopped and resumed training is, on the CPU,
bit for bit the training that was not stopped: the state of everything that decides is in the checkpoint, and nothing
else decides. Several ranks do together what one would do alone. Where runs lie and how they begin is in `runs`.

Shapes: B samples, L steps of generation, H = W the side of a frame.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gqn_data.errors import LossNotFinite, NoSpace, RunMismatch, TrainingStopped
from gqn_data.io import atomic
from gqn_data.loader import on_device
from gqn_model.checkpoint.best import Score
from gqn_model.checkpoint.checkpoint import (
    Checkpoint,
    Step,
    checkpoint_steps,
    load_checkpoint,
    pose_order,
    save_checkpoint,
)
from gqn_model.config import Config
from gqn_model.data import Batches
from gqn_model.device import choose_device
from gqn_model.loggers import Logger, Record
from gqn_model.model.distributions import psnr
from gqn_model.model.gqn import GQN
from gqn_model.model.inputs import Inputs, to_device
from gqn_model.train.distributed import ALONE, Ranks, StopFlag, rank_lost
from gqn_model.train.metrics import TrainingMetrics
from gqn_model.train.profiler import Profile
from gqn_model.train.schedules import learning_rate_at, sigma_at
from gqn_model.train.step import Stepper
from gqn_model.train.stopping import Stop

if TYPE_CHECKING:
    from gqn_data.loader import Batch


def load_network(run: Path, step: Step, device: str) -> tuple[GQN, Checkpoint, torch.device]:
    """The network of a run on a device, ready to predict, with its checkpoint; as many threads as it trained with.

    Args:
        run: the run's folder.
        step: of which checkpoint, or the best; None: of the newest.
        device: as in the configuration.

    Raises:
        CheckpointError: the folder is no run, or the checkpoint is absent or damaged.
    """
    place = choose_device(device)
    checkpoint = load_checkpoint(run, step)
    if checkpoint.config.training.threads:
        torch.set_num_threads(checkpoint.config.training.threads)
    return GQN.with_weights(checkpoint.config.model, checkpoint.model).to(place), checkpoint, place


def train(
    run: Path,
    config: Config,
    batches: Batches,
    *,
    loggers: Sequence[Logger] = (),
    probe: Inputs | None = None,
    checkpoint: Checkpoint | None = None,
    ranks: Ranks = ALONE,
) -> GQN:
    """Trains a network and gives it back; the first rank leaves checkpoints and pictures in the run's folder.

    Args:
        run: the run's folder, with its `config.json`.
        config: with frame size and context settled.
        batches: the stream of training batches, of each the share of this rank.
        loggers: take the figures, on the first rank.
        probe: test scenes on the device, on which prior predictions are measured and drawn, on the first rank.
        checkpoint: where to go on; None: from the beginning. Only the first rank needs it.
        ranks: this process among those of the training, which are connected (`ranks.process_group`).

    Raises:
        LossNotFinite: the loss is no longer a number; the last good checkpoint stays.
        OptionError: the batch cannot be divided among the ranks, or the device cannot compute as asked.
        RankLost: another rank is gone.
        RunMismatch: the checkpoint is of another dataset.
        TrainingStopped: SIGTERM or Ctrl-C came; a checkpoint of the last step was saved.
    """
    trainer = _Trainer(run, config, batches, loggers=loggers, probe=probe, checkpoint=checkpoint, ranks=ranks)
    try:
        with Stop() as stop:
            trainer.go(stop)
    except RuntimeError as error:
        # A lost connection shows itself wherever gradients are exchanged; alone there is none to lose.
        if ranks.count > 1 and any(word in str(error) for word in _CONNECTION_WORDS):
            raise rank_lost(error) from error
        raise
    return trainer.model


_CONNECTION_WORDS = ("onnection", "gloo", "NCCL", "ocket", "imed out")


class _Trainer:
    def __init__(
        self,
        run: Path,
        config: Config,
        batches: Batches,
        *,
        loggers: Sequence[Logger],
        probe: Inputs | None,
        checkpoint: Checkpoint | None,
        ranks: Ranks,
    ) -> None:
        self.run, self.config, self.batches, self.ranks = run, config, batches, ranks
        self.loggers, self.probe = loggers, probe
        training = config.training
        self.device = choose_device(training.device, ranks.local)
        if training.threads:
            torch.set_num_threads(training.threads)
        self.stepper = Stepper(config, self.device, ranks)
        self.model = self.stepper.model
        self.step = 0
        if ranks.broadcast(checkpoint is not None):
            self._restore(checkpoint)
        self.stepper.ready()
        self.meter = TrainingMetrics(self.device, config.model.core_steps, ranks)
        self.prior: tuple[float, float] | None = None
        self.score: Score | None = None  # of the present step, where there is a line of it

    def _restore(self, checkpoint: Checkpoint | None) -> None:
        """Takes the state of a checkpoint, which only the first rank needs to have."""
        if checkpoint is not None and checkpoint.fingerprint != self.batches.fingerprint:
            raise RunMismatch(
                f"{self.run}: was trained on the dataset {checkpoint.fingerprint[:12]} "
                f"({checkpoint.scene_set}), this one is {self.batches.fingerprint[:12]} "
                f"({self.batches.scene_set}); give the shards that it was trained on"
            )
        known: tuple[int, dict[str, int | str]] = (0, {})
        if checkpoint is None:
            self.stepper.restore(None, None)
        else:
            self.stepper.restore(checkpoint.model, checkpoint.optimizer)
            known = checkpoint.step, checkpoint.loader
        self.step, place = self.ranks.broadcast(known)
        self.batches.load_state_dict(place)

    def go(self, stop: Stop) -> None:
        """Takes steps until all are done."""
        training = self.config.training
        self.model.train()
        agreement = StopFlag(self.ranks)
        stream = on_device(self.batches, self.device)
        self.meter.clear()
        if self.step == 0:
            self._save(last=False)
        wanted = training.profile and self.ranks.first
        with Profile(self.run, self.device, first=self.step, last=training.steps, wanted=wanted) as profile:
            try:
                self._go(stop, agreement, stream, profile)
            except TrainingStopped:
                agreement.close()
                raise
        agreement.close()

    def _go(self, stop: Stop, agreement: StopFlag, stream: Iterator[Batch], profile: Profile) -> None:
        training = self.config.training
        while self.step < training.steps:
            self._take_step(stream)
            profile.step()
            last = self.step == training.steps
            stopped = agreement.all_reduce_max(stop.signal or 0)
            if _due(self.step, training.probe_every, last):
                self._measure_prior()
            if _due(self.step, training.log_every, last):
                self._log()
            if _due(self.step, training.picture_every, last):
                self._draw()
            if _due(self.step, training.checkpoint_every, last or bool(stopped)):
                self._save(last=last or bool(stopped))
            if stopped and not last:
                raise TrainingStopped(
                    f"stopped by {signal.Signals(stopped).name} after step {self.step}, which is saved; "
                    f"`gqn train --resume {self.run}` goes on"
                )

    def _take_step(self, stream: Iterator[Batch]) -> None:
        before = self.batches.waited
        batch = next(stream)
        # Not the time of `next`: where a GPU is behind, whatever asks it for something waits for its work.
        self.meter.waited += self.batches.waited - before
        norm = self.stepper.take(self.step, to_device(batch, self.device), self.meter.add)
        self.meter.end_step(norm)
        self.step += 1
        self.score = None

    def _check(self) -> None:
        bad = self.meter.bad_step()
        if bad is None:
            return
        good = checkpoint_steps(self.run)
        kept = f"the last good checkpoint is of step {good[-1]}" if good else "there is no checkpoint yet"
        raise LossNotFinite(
            f"{self.run}: the loss of step {bad} (counted from 0) is not a number; {kept}. "
            "Try a lower --learning-rate, a longer --warmup-steps or a lower --clip"
        )

    def _log(self) -> None:
        training, meter = self.config.training, self.meter
        meter.all_reduce()
        self._check()
        if not self.ranks.first:
            meter.clear()
            return
        loss, mse, ratio, *kl_steps = meter.means()
        seconds = time.perf_counter() - meter.began
        rate = meter.steps / seconds
        record = Record(
            step=self.step,
            steps=training.steps,
            rate=rate,
            wait=meter.waited / seconds,
            loss=loss,
            excess=loss - meter.floor,
            kl=sum(kl_steps),
            kl_steps=tuple(kl_steps),
            mse=mse,
            psnr=ratio,
            prior_sample=self.prior[0] if self.prior else None,
            prior_mean=self.prior[1] if self.prior else None,
            sigma=sigma_at(training, self.step - 1),
            learning_rate=learning_rate_at(training, self.step - 1),
            left=(training.steps - self.step) / rate,
            gradient_norm=meter.gradient_norm(),
        )
        for logger in self.loggers:
            logger.log(record)
        measured = self.probe is not None and _due(self.step, training.probe_every, self.step == training.steps)
        self.score = Score(prior_psnr=record.prior_mean if measured else None, excess=record.excess, sigma=record.sigma)
        self.prior = None
        meter.clear()

    def _save(self, *, last: bool) -> None:
        if not self.ranks.first:
            return
        self._check()
        parameters = self.model.state_dict()
        if not all(bool(torch.isfinite(value).all()) for value in parameters.values()):
            raise LossNotFinite(
                f"{self.run}: after step {self.step} a weight is not a number, so it is not saved; the last good "
                f"checkpoint is of step {(checkpoint_steps(self.run) or [0])[-1]}. Try a lower --learning-rate"
            )
        state = Checkpoint(
            step=self.step,
            config=self.config,
            model=parameters,
            optimizer=self.stepper.optimizer_state(),
            loader=self.batches.state_dict(),
            fingerprint=self.batches.fingerprint,
            scene_set=self.batches.scene_set,
            pose_order=pose_order(self.batches.pose_fields),
            score=self.score,
        )
        try:
            save_checkpoint(self.run, state, self.config.training.keep)
        except NoSpace as error:
            if last:
                raise
            # A full disk may be emptied; hours of training are not to be lost to it.
            sys.stderr.write(f"warning: {error} (training goes on; the checkpoints before are kept)\n")

    @torch.no_grad()
    def _measure_prior(self) -> None:
        probe = self.probe
        if probe is None:
            return
        drawn = self.model.sample(probe.context, probe.query, 1, seed=0)[0]
        static = self.model.read(probe.context, probe.query)
        mean = self.model.generate(static, torch.zeros_like(self.model.noise(static, torch.Generator(self.device))))
        errors = [((frames.clamp(0, 1) - probe.target) ** 2).mean((1, 2, 3)) for frames in (drawn, mean)]
        self.prior = (float(psnr(errors[0]).mean()), float(psnr(errors[1]).mean()))

    def _draw(self) -> None:
        probe = self.probe
        if probe is None:
            return
        from gqn_model.visualize.prediction_grid import prediction_picture

        image = prediction_picture(self.model, probe, f"{self.batches.scene_set}, after step {self.step}")
        try:
            with atomic.writing(self.run / "pictures" / f"{self.step:08d}.png") as file:
                image.save(file, format="PNG")
        except NoSpace as error:
            sys.stderr.write(f"warning: {error} (training goes on without the picture)\n")
        for logger in self.loggers:
            logger.picture(self.step, image)


def _due(step: int, every: int, last: bool) -> bool:
    return bool(every) and (step % every == 0 or last)
