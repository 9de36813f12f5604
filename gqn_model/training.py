"""The training of a network: the steps, what is measured on the way, stopping and going on.

Nothing in a step waits for the device: figures are summed there and read at the lines of the log. A stopped and
resumed training is, on the CPU, bit for bit the training that was not stopped: the state of everything that
decides is in the checkpoint, and nothing else decides. Where runs lie and how they begin is in `runs`.

Shapes: B samples, L steps of generation, H = W the side of a frame.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gqn_data import storage
from gqn_data.errors import LossNotFinite, NoSpace, OptionError, RunMismatch, TrainingStopped
from gqn_data.loader import on_device
from gqn_model.batches import Batches
from gqn_model.checkpoints import (
    Checkpoint,
    checkpoint_steps,
    load_checkpoint,
    pose_order,
    random_states,
    restore_random,
    save_checkpoint,
)
from gqn_model.config import Config
from gqn_model.inputs import Inputs, to_device
from gqn_model.likelihood import gaussian_floor, psnr
from gqn_model.logs import Logger, Record
from gqn_model.model import GQN, Elbo
from gqn_model.schedules import learning_rate_at, sigma_at

if TYPE_CHECKING:
    from gqn_data.loader import Batch


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` is cuda where there is one, else cpu.

    Raises:
        OptionError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    possible = ["auto", "cpu", *(f"cuda:{k}" for k in range(torch.cuda.device_count()))]
    with contextlib.suppress(RuntimeError):
        device = torch.device(name)
        if device.type == "cpu" or (device.type == "cuda" and (device.index or 0) < torch.cuda.device_count()):
            return device
    raise OptionError(f"device is {name!r}; possible here: {', '.join(possible)}")


def load_network(run: Path, step: int | None, device: str) -> tuple[GQN, Checkpoint, torch.device]:
    """The network of a run on a device, ready to predict, with its checkpoint; as many threads as it trained with.

    Args:
        run: the run's folder.
        step: of which checkpoint; None: of the newest.
        device: as in the configuration.

    Raises:
        CheckpointError: the folder is no run, or the checkpoint is absent or damaged.
    """
    place = choose_device(device)
    checkpoint = load_checkpoint(run, step)
    if checkpoint.config.training.threads:
        torch.set_num_threads(checkpoint.config.training.threads)
    model = GQN(checkpoint.config.model)
    model.load_state_dict(checkpoint.model)
    return model.to(place).eval(), checkpoint, place


def train(
    run: Path,
    config: Config,
    batches: Batches,
    *,
    loggers: Sequence[Logger] = (),
    probe: Inputs | None = None,
    checkpoint: Checkpoint | None = None,
) -> GQN:
    """Trains a network and gives it back; leaves checkpoints and pictures in the run's folder.

    Args:
        run: the run's folder, with its `config.json`.
        config: with frame size and context settled.
        batches: the stream of training batches.
        loggers: take the figures.
        probe: test scenes on the device, on which prior predictions are measured and drawn.
        checkpoint: where to go on; None: from the beginning.

    Raises:
        LossNotFinite: the loss is no longer a number; the last good checkpoint stays.
        RunMismatch: the checkpoint is of another dataset.
        TrainingStopped: SIGTERM or Ctrl-C came; a checkpoint of the last step was saved.
    """
    trainer = _Trainer(run, config, batches, loggers=loggers, probe=probe, checkpoint=checkpoint)
    with _Stop() as stop:
        trainer.go(stop)
    return trainer.model


class _Stop:
    """Notes SIGTERM and Ctrl-C, to be acted upon between two steps; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> _Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  the form that signal asks for
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


class _Meter:
    """Sums of figures on the device since the last line of the log; reading them is what waits."""

    def __init__(self, device: torch.device, core_steps: int) -> None:
        self._device, self._core_steps = device, core_steps
        # Kept over lines: the first step whose loss was no number, or -1.
        self._bad = torch.full((), -1, dtype=torch.int64, device=device)
        self.clear()

    def clear(self) -> None:
        """Begins anew."""
        self.steps, self.floor, self.waited, self.began = 0, 0.0, 0.0, time.perf_counter()
        self._sums = torch.zeros(3 + self._core_steps, dtype=torch.float64, device=self._device)

    @torch.no_grad()
    def add(self, step: int, loss: Tensor, elbo: Elbo, target: Tensor, floor: float) -> None:
        """Takes a step; reads nothing back."""
        errors = ((elbo.mean.float() - target.float()) ** 2).mean((1, 2, 3))
        figures = torch.stack([loss.detach(), errors.mean(), psnr(errors).mean()])
        self._sums += torch.cat([figures, elbo.kl.detach().mean(0)])
        self._bad = torch.where((self._bad < 0) & ~torch.isfinite(loss.detach()), step, self._bad)
        self.steps += 1
        self.floor += floor

    def bad_step(self) -> int | None:
        """The first step whose loss was no number; waits for the device."""
        bad = int(self._bad.item())
        return None if bad < 0 else bad

    def means(self) -> list[float]:
        """Loss, squared error, PSNR, then the KL of each generation step; waits for the device."""
        return [float(value) for value in (self._sums / max(1, self.steps)).tolist()]


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
    ) -> None:
        self.run, self.config, self.batches = run, config, batches
        self.loggers, self.probe = loggers, probe
        training = config.training
        self.device = choose_device(training.device)
        if training.threads:
            torch.set_num_threads(training.threads)
        torch.manual_seed(training.seed)
        # The layout that convolutions run fastest in, on CPUs and on GPUs with tensor cores alike.
        self.model = GQN(config.model).to(self.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=training.learning_rate, betas=(0.9, 0.999), eps=1e-8, fused=True
        )
        self.step = 0
        if checkpoint is not None:
            self._restore(checkpoint)
        self.meter = _Meter(self.device, config.model.core_steps)
        self.prior: tuple[float, float] | None = None

    def _restore(self, checkpoint: Checkpoint) -> None:
        if checkpoint.fingerprint != self.batches.fingerprint:
            raise RunMismatch(
                f"{self.run}: was trained on the dataset {checkpoint.fingerprint[:12]} "
                f"({checkpoint.scene_set}), this one is {self.batches.fingerprint[:12]} "
                f"({self.batches.scene_set}); give the shards that it was trained on"
            )
        self.model.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.batches.load_state_dict(checkpoint.loader)
        restore_random(checkpoint.random, self.device)
        self.step = checkpoint.step

    def go(self, stop: _Stop) -> None:
        """Takes steps until all are done."""
        training = self.config.training
        self.model.train()
        stream = on_device(self.batches, self.device)
        self.meter.clear()
        if self.step == 0:
            self._save(last=False)
        while self.step < training.steps:
            self._take_step(stream)
            last = self.step == training.steps
            if self.probe is not None and _due(self.step, training.probe_every, last):
                self._measure_prior(self.probe)
            if _due(self.step, training.log_every, last):
                self._log()
            if self.probe is not None and _due(self.step, training.picture_every, last):
                self._draw(self.probe)
            if _due(self.step, training.checkpoint_every, last or stop.signal is not None):
                self._save(last=last or stop.signal is not None)
            if stop.signal is not None and not last:
                name = signal.Signals(stop.signal).name
                raise TrainingStopped(
                    f"stopped by {name} after step {self.step}, which is saved; `gqn train --resume {self.run}` goes on"
                )

    def _take_step(self, stream: Iterator[Batch]) -> None:
        training = self.config.training
        asked = time.perf_counter()
        batch = next(stream)
        self.meter.waited += time.perf_counter() - asked
        inputs = to_device(batch, self.device)
        sigma = sigma_at(training, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(training, self.step)
        elbo: Elbo = self.model(inputs, sigma)
        loss = -elbo.value.mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if training.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), training.clip)
        self.optimizer.step()
        self.meter.add(self.step, loss, elbo, inputs.target, gaussian_floor(inputs.target[0].numel(), sigma))
        self.step += 1

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
        self._check()
        training, meter = self.config.training, self.meter
        loss, mse, ratio, *kl_steps = meter.means()
        seconds = time.perf_counter() - meter.began
        rate = meter.steps / seconds
        record = Record(
            step=self.step,
            steps=training.steps,
            rate=rate,
            wait=meter.waited / seconds,
            loss=loss,
            excess=loss - meter.floor / meter.steps,
            kl=sum(kl_steps),
            kl_steps=tuple(kl_steps),
            mse=mse,
            psnr=ratio,
            prior_sample=self.prior[0] if self.prior else None,
            prior_mean=self.prior[1] if self.prior else None,
            sigma=sigma_at(training, self.step - 1),
            learning_rate=learning_rate_at(training, self.step - 1),
            left=(training.steps - self.step) / rate,
        )
        for logger in self.loggers:
            logger.log(record)
        self.prior = None
        meter.clear()

    def _save(self, *, last: bool) -> None:
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
            optimizer=self.optimizer.state_dict(),
            random=random_states(self.device),
            loader=self.batches.state_dict(),
            fingerprint=self.batches.fingerprint,
            scene_set=self.batches.scene_set,
            pose_order=pose_order(self.batches.pose_fields),
        )
        try:
            save_checkpoint(self.run, state, self.config.training.keep)
        except NoSpace as error:
            if last:
                raise
            # A full disk may be emptied; hours of training are not to be lost to it.
            sys.stderr.write(f"warning: {error} (training goes on; the checkpoints before are kept)\n")

    @torch.no_grad()
    def _measure_prior(self, probe: Inputs) -> None:
        drawn = self.model.sample(probe.context, probe.query, 1, seed=0)[0]
        static = self.model.read(probe.context, probe.query)
        mean = self.model.generate(static, torch.zeros_like(self.model.noise(static, torch.Generator(self.device))))
        errors = [((frames.clamp(0, 1) - probe.target) ** 2).mean((1, 2, 3)) for frames in (drawn, mean)]
        self.prior = (float(psnr(errors[0]).mean()), float(psnr(errors[1]).mean()))

    def _draw(self, probe: Inputs) -> None:
        from gqn_model.pictures import prediction_picture

        image = prediction_picture(self.model, probe, f"{self.batches.scene_set}, after step {self.step}")
        try:
            with storage.writing(self.run / "pictures" / f"{self.step:08d}.png") as file:
                image.save(file, format="PNG")
        except NoSpace as error:
            sys.stderr.write(f"warning: {error} (training goes on without the picture)\n")
        for logger in self.loggers:
            logger.picture(self.step, image)


def _due(step: int, every: int, last: bool) -> bool:
    return bool(every) and (step % every == 0 or last)
