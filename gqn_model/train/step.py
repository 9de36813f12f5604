"""One training step: forward and backward over the rank's share of a batch, then the optimiser.

Memory format, precision, compilation, CUDA graphs and data parallelism are set up once, in `TrainStep`. A step never
waits for the device.

Shapes: B samples of the batch over all ranks; a rank takes B / ranks, split into `accumulate` micro-batches. L
generation steps, T query views of a sample (no axis if there is one).
"""

from __future__ import annotations

import contextlib
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gqn_data.errors import OptionError
from gqn_model.checkpoint.checkpoint import Checkpoint
from gqn_model.config import Config, TrainingConfig
from gqn_model.model.contract import Loss, build_network
from gqn_model.model.inputs import Inputs, select_rows
from gqn_model.train.cuda_graph import CudaGraphStep
from gqn_model.train.distributed import ALONE, Ranks
from gqn_model.train.optimizer import JointOptimizer
from gqn_model.train.schedules import learning_rate_at, sigma_at


class MicroBatch(NamedTuple):
    """Outcome of one micro-batch, on the device.

    Attributes:
        loss: (), what is minimised, averaged over samples.
        frames: (b, 3, H, W) or (b, T, 3, H, W), the predicted frames.
        kl: (b T, L) in nats; L is 0 for a model without a distribution.
        target: of the shape of `frames`.
    """

    loss: Tensor
    frames: Tensor
    kl: Tensor
    target: Tensor


class StepResult(NamedTuple):
    """Outcome of a step, on the device; with CUDA graphs the next step overwrites it.

    Attributes:
        micro_batches: in order.
        loss_floor: the least value of the loss, for GQN in nats at this step's sigma.
        gradient_norm: (), before clipping; None without clipping.
    """

    micro_batches: list[MicroBatch]
    loss_floor: float
    gradient_norm: Tensor | None


class TrainStep:
    """A network with its optimiser; calling it takes one step.

    Args:
        config: configuration with the frame size set.
        device: device to compute on.
        ranks: this process and the others of the training.
        checkpoint: state to start from; None draws the weights from the seed. Only rank 0 needs it.

    Attributes:
        model: the network, uncompiled and without its DDP wrapper.

    Raises:
        OptionError: the batch size is not divisible, or the device does not support an option.
    """

    def __init__(
        self, config: Config, device: torch.device, ranks: Ranks = ALONE, checkpoint: Checkpoint | None = None
    ) -> None:
        training = config.training
        check_computing(training, ranks.count, device)
        self.config, self._device, self._ranks = config, device, ranks
        if training.tf32 and device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True
        torch.manual_seed(training.seed)  # every rank draws the same weights
        self.model = build_network(config.model).to_memory_format(device)
        # A CUDA graph reads the learning rate from the device: a Python number would keep its value at capture.
        rate = torch.full((), training.learning_rate, device=device) if training.cuda_graph else None
        self.optimizer = JointOptimizer(self.model, training, rate)
        if ranks.broadcast(checkpoint is not None):
            self._restore(checkpoint)
        if training.compile:
            self.model.compile_parts()
        self._network: nn.Module = self.model
        if ranks.count > 1:
            # torch warns about 1x1 kernels, for which both memory formats are the same.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            self._network = DistributedDataParallel(
                self.model,
                device_ids=[device.index] if device.type == "cuda" else None,
                # With micro-batches torch 2.13 fails or skips gradients (pytorch/pytorch#187732).
                static_graph=training.accumulate == 1,
                gradient_as_bucket_view=True,
            )
        self._compute = CudaGraphStep(self._optimise) if training.cuda_graph else self._optimise

    def _restore(self, checkpoint: Checkpoint | None) -> None:
        """Load weights and optimiser state on rank 0 and broadcast them to the others, whose checkpoint is None."""
        if checkpoint is not None:
            self.model.load_state_dict(checkpoint.model)
        for parameter in self.model.parameters():
            self._ranks.broadcast_(parameter.data)
        if not self._ranks.broadcast(checkpoint is not None and bool(checkpoint.optimizer["state"])):
            return
        # Frozen weights, as in a network of one generation step, are not in the optimiser's state.
        if checkpoint is not None:
            self.optimizer.load_state_dict(checkpoint.optimizer)
        self.optimizer.broadcast(self._ranks.broadcast_, have=checkpoint is not None)

    def optimizer_state(self) -> dict[str, Any]:
        """Return the optimiser's state for a checkpoint, independent of `cuda_graph`; syncs with the device."""
        return self.optimizer.state_dict()

    def __call__(self, step: int, inputs: Inputs) -> StepResult:
        """Take one step.

        Args:
            step: counted from 0.
            inputs: the rank's share of the batch, on the device.
        """
        training = self.config.training
        self.optimizer.set_learning_rate(learning_rate_at(training, step))
        deviation = sigma_at(training, step)
        # A tensor on the device: a Python number would recompile the network at each step of the schedule.
        sigma = torch.full((), deviation, device=self._device)
        own = inputs.query.shape[:-1].numel()  # queries of this rank
        noise = self.model.step_noise(training.seed, step, own * self._ranks.count, self._device)
        noise = noise[:, self._ranks.rank * own : (self._ranks.rank + 1) * own]
        micro_batches, norm = self._compute(inputs, sigma, noise)
        return StepResult(micro_batches, self.model.loss_floor(deviation), norm)

    def _optimise(self, inputs: Inputs, sigma: Tensor, noise: Tensor) -> tuple[list[MicroBatch], Tensor | None]:
        """Run forward, backward and the optimiser: the same kernels for all values, so that it can be captured."""
        training = self.config.training
        count, targets = training.accumulate, inputs.query[0, ..., 0].numel()
        own = len(inputs.query) // count
        done = []
        self.optimizer.zero_grad()
        for number in range(count):
            rows = slice(number * own, (number + 1) * own)
            some = select_rows(inputs, rows) if count > 1 else inputs
            drawn = noise[:, rows.start * targets : rows.stop * targets]
            with self._no_sync(number + 1 < count):
                with torch.autocast(self._device.type, torch.bfloat16, enabled=training.precision == "bf16"):
                    output = self._network(some, sigma, drawn)
                loss: Loss = self.model.loss(output, some.target)
                (loss.value / count).backward()  # type: ignore[no-untyped-call]
            done.append(MicroBatch(loss.value.detach(), loss.frames.detach(), loss.kl.detach(), some.target))
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), training.clip) if training.clip else None
        self.optimizer.step()
        return done, norm

    def _no_sync(self, more: bool) -> contextlib.AbstractContextManager[Any]:
        """Sync gradients only on the last micro-batch."""
        if more and isinstance(self._network, DistributedDataParallel):
            return self._network.no_sync()
        return contextlib.nullcontext()


def check_computing(training: TrainingConfig, ranks: int, device: torch.device) -> None:
    """Raise unless the ranks and the device support the options; called before any file is written.

    Args:
        training: the options.
        ranks: number of ranks.
        device: device of this rank.

    Raises:
        OptionError: the batch size is not divisible by ranks and micro-batches, or steps cannot be captured.
    """
    parts = ranks * training.accumulate
    if training.batch_size % parts:
        raise OptionError(
            f"batch_size is {training.batch_size}, for {ranks} ranks and accumulate {training.accumulate}; "
            f"possible: multiples of {parts}"
        )
    if training.cuda_graph and device.type != "cuda":
        raise OptionError(f"cuda_graph captures steps on a GPU, found {device.type}; pass --no-cuda-graph")
    if training.cuda_graph and training.context_per != "scene":
        raise OptionError("cuda_graph captures batches of one shape, found context_per batch; pass --no-cuda-graph")
    if training.cuda_graph and training.optimizer != "adam":
        raise OptionError(f"cuda_graph captures the steps of adam, found {training.optimizer}; pass --no-cuda-graph")
    if training.cuda_graph and ranks > 1:
        raise OptionError(
            f"cuda_graph captures the steps of one process, found {ranks} ranks; pass --no-cuda-graph, or --compile"
        )
