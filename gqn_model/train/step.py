"""One step of a training: forward and backward over the rank's share of a batch, and the optimiser.

How a network computes is settled here once: layout in memory, precision, compiling, graphs, ranks. Nothing in a step
waits for the device.

Shapes: B samples of the batch over all ranks, of which a rank has B / ranks, in `accumulate` parts one after another.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gqn_data.errors import OptionError
from gqn_model.config import Config, TrainingConfig
from gqn_model.model.distributions import gaussian_floor
from gqn_model.model.gqn import GQN, Elbo
from gqn_model.model.inputs import Context, Inputs
from gqn_model.model.noise import step_noise
from gqn_model.train.cuda_graph import CudaGraphStep
from gqn_model.train.distributed import ALONE, Ranks
from gqn_model.train.schedules import learning_rate_at, sigma_at

# Takes (step, loss, elbo, target, floor) of each part of a batch, all on the device.
TrainingMetrics = Callable[[int, Tensor, Elbo, Tensor, float], None]


class _Part(NamedTuple):
    """What came of a part of a batch, on the device."""

    loss: Tensor
    elbo: Elbo
    target: Tensor


class Stepper:
    """A network, its optimiser, and how they take a step.

    Args:
        config: with frame size settled.
        device: where to compute.
        ranks: this process among those of the training.

    Raises:
        OptionError: the batch cannot be divided so, or the device cannot compute so.
    """

    def __init__(self, config: Config, device: torch.device, ranks: Ranks = ALONE) -> None:
        training = config.training
        check_computing(training, ranks.count, device)
        self.config, self.device, self.ranks = config, device, ranks
        self._narrow = training.precision == "bf16"
        if training.tf32 and device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True
        torch.manual_seed(training.seed)  # every rank draws the same weights
        self.model = GQN(config.model).to_memory_format(device)
        # In a graph the learning rate is read from the device: a number would be that of the step of the capture.
        self._rate = torch.full((), training.learning_rate, device=device) if training.cuda_graph else None
        self.optimizer = torch.optim.Adam(
            self.model.parameters(),
            lr=training.learning_rate if self._rate is None else self._rate,
            betas=(0.9, 0.999),
            eps=1e-8,
            fused=True,
            capturable=training.cuda_graph,
        )

    def restore(self, model: dict[str, Tensor] | None, optimizer: dict[str, Any] | None) -> None:
        """Takes the state of a checkpoint; among several ranks only the first needs to have one.

        Args:
            model: the network's parameters by name; None on ranks that have none.
            optimizer: the optimiser's state; None there as well.
        """
        if model is not None:
            self.model.load_state_dict(model)
        for parameter in self.model.parameters():
            self.ranks.broadcast_(parameter.data)
        if not self.ranks.broadcast(optimizer is not None and bool(optimizer["state"])):
            return
        # What never learns (a network of one step has such weights) has no state.
        learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if optimizer is not None:
            self.optimizer.load_state_dict(optimizer)
            if self._rate is not None:  # the state brings settings with it, maybe of a training without graphs
                for group in self.optimizer.param_groups:
                    group |= {"lr": self._rate, "capturable": True}
        else:
            for parameter in learning:
                like = torch.zeros_like(parameter)
                # What Adam holds for a parameter, in torch's own names; filled from the first rank below.
                self.optimizer.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=self.device),
                    "exp_avg": like,
                    "exp_avg_sq": torch.zeros_like(like),
                }
        for parameter in learning:
            held = self.optimizer.state[parameter]
            for name in ("step", "exp_avg", "exp_avg_sq"):
                self.ranks.broadcast_(held[name])

    def optimizer_state(self) -> dict[str, Any]:
        """The optimiser's state for a checkpoint, the same in kind however steps are computed; waits for the device."""
        state = self.optimizer.state_dict()
        for group in state["param_groups"]:
            group |= {"lr": float(group["lr"]), "capturable": False}
        return state

    def ready(self) -> None:
        """Compiles and connects the network; called once, after the weights are what they are to be."""
        training = self.config.training
        if training.compile:
            self.model.compile_parts()
        self._network: nn.Module = self.model
        if self.ranks.count > 1:
            # Said of kernels of 1x1, whose two layouts in memory are one and the same.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            self._network = DistributedDataParallel(
                self.model,
                device_ids=[self.device.index] if self.device.type == "cuda" else None,
                # Not with accumulated parts: torch 2.13 then fails or skips gradients (pytorch/pytorch#187732).
                static_graph=training.accumulate == 1,
                gradient_as_bucket_view=True,
            )
        self._compute = CudaGraphStep(self._learn) if training.cuda_graph else self._learn

    def take(self, step: int, inputs: Inputs, meter: TrainingMetrics) -> Tensor | None:
        """Takes one step and gives the norm of the gradient before it was limited, where it is.

        Args:
            step: counted from 0.
            inputs: the rank's share of the batch, on the device.
            meter: takes the figures of each part.
        """
        training = self.config.training
        self._set_rate(learning_rate_at(training, step))
        deviation = sigma_at(training, step)
        floor = gaussian_floor(inputs.target[0].numel(), deviation)
        # A tensor on the device: a number would be compiled into the network, anew for each step of the schedule.
        sigma = torch.full((), deviation, device=self.device)
        own = len(inputs.query)
        noise = step_noise(self.config.model, training.seed, step, own * self.ranks.count, self.device)
        noise = noise[:, self.ranks.rank * own : (self.ranks.rank + 1) * own]
        parts, norm = self._compute(inputs, sigma, noise)
        for part in parts:
            meter(step, part.loss, part.elbo, part.target, floor)
        return norm

    def _set_rate(self, rate: float) -> None:
        if self._rate is not None:
            self._rate.fill_(rate)
            return
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _learn(self, inputs: Inputs, sigma: Tensor, noise: Tensor) -> tuple[list[_Part], Tensor | None]:
        """Forward, backward, the optimiser: a fixed course of work on the device, whatever the numbers are."""
        training = self.config.training
        own, parts = len(inputs.query), training.accumulate
        done = []
        self.optimizer.zero_grad(set_to_none=True)
        for part in range(parts):
            rows = slice(part * own // parts, (part + 1) * own // parts)
            some = _rows(inputs, rows) if parts > 1 else inputs
            with self._quiet(part + 1 < parts):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self._narrow):
                    elbo: Elbo = self._network(some, sigma, noise[:, rows])
                loss = -elbo.value.mean()
                (loss / parts).backward()  # type: ignore[no-untyped-call]
            done.append(_Part(loss.detach(), Elbo(*(part.detach() for part in elbo)), some.target))
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), training.clip) if training.clip else None
        self.optimizer.step()
        return done, norm

    def _quiet(self, more: bool) -> contextlib.AbstractContextManager[Any]:
        """Ranks exchange gradients with the last part of a batch alone."""
        if more and isinstance(self._network, DistributedDataParallel):
            return self._network.no_sync()
        return contextlib.nullcontext()


def check_computing(training: TrainingConfig, ranks: int, device: torch.device) -> None:
    """Returns where a training can be computed so: before anything is written, or another rank waited for.

    Args:
        training: the settings.
        ranks: how many there are.
        device: of this one.

    Raises:
        OptionError: the batch is not divided evenly among ranks and accumulated parts, or steps cannot be captured.
    """
    parts = ranks * training.accumulate
    if training.batch_size % parts:
        raise OptionError(
            f"batch_size is {training.batch_size}, for {ranks} ranks and accumulate {training.accumulate}; "
            f"possible: multiples of {parts}"
        )
    if training.cuda_graph and device.type != "cuda":
        raise OptionError(f"cuda_graph captures steps on a GPU; on {device.type} possible: --no-cuda-graph")
    if training.cuda_graph and ranks > 1:
        raise OptionError(
            f"cuda_graph captures the steps of one process, and there are {ranks}; possible: --no-cuda-graph, --compile"
        )


def _rows(inputs: Inputs, rows: slice) -> Inputs:
    context = Context(*(tensor[rows] for tensor in inputs.context))
    return Inputs(context, inputs.query[rows], inputs.target[rows])
