"""What training, evaluation, sampling, checkpoints and export ask of a model.

A model is a class in a file of this folder and a line in `MODELS`. `Network` is the contract of every model: a loss in
training, and a prediction. Its defaults are those of a model that predicts the mean, which needs only `predict`. Others
draw samples. `LatentNetwork` is the contract of models with an ELBO.

Shapes: B samples, T query views of each, N = B T answers, L generation steps, P numbers per pose, H = W frame size.
Without the axis T there is one query view: query (B, P), target (B, 3, H, W).
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from gqn_data.errors import OptionError
from gqn_model.config import ModelConfig
from gqn_model.model.distributions import wide
from gqn_model.model.inputs import Context, Inputs

# Modules are imported on first use. `gqn_model.config.MODEL_NAMES` lists the same names without torch.
MODELS = {"gqn": "gqn_model.model.gqn:GQN", "plane_sweep": "gqn_model.model.plane_sweep:PlaneSweep"}

# Parameters of the largest network that is built: six times the paper's.
MOST_PARAMETERS = 1 << 30


class Loss(NamedTuple):
    """Outcome of a forward pass in training.

    Attributes:
        value: (), what is minimised.
        frames: predicted frames, of the target's shape.
        kl: (N, L), KL divergence of each generation step in nats; L is 0 for a model without a distribution.
    """

    value: Tensor
    frames: Tensor
    kl: Tensor


class Elbo(NamedTuple):
    """Terms of the ELBO of a batch in nats, float32 or wider.

    Attributes:
        log_likelihood: (N,), of the target given one posterior sample.
        kl: (N, L), KL(posterior, prior) of each generation step.
        mean: (N, 3, H, W), the frame predicted from the posterior sample.
    """

    log_likelihood: Tensor
    kl: Tensor
    mean: Tensor

    @property
    def value(self) -> Tensor:
        """ELBO of each sample, (N,)."""
        return self.log_likelihood - self.kl.sum(1)


class Network(nn.Module, ABC):
    """A model: frames of a scene at query poses, predicted from its context views.

    Attributes:
        config: its configuration, with the frame size set.
        latent_steps: L, generation steps with a latent; 0 for a model without a posterior.
        draws_samples: whether it has a distribution, so that `predict` takes noise and `sample` works.
        needs_geometry: whether it reads lens, sign of yaw and depth range, which come from the dataset.
        size_flags: options that make the network smaller, for error messages.
    """

    needs_geometry: ClassVar[bool] = False
    size_flags: ClassVar[str]
    config: ModelConfig
    latent_steps: int = 0
    draws_samples: bool = False

    @abstractmethod
    def predict(self, context: Context, query: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return predicted frames, (B, 3, H, W) for `query` (B, P), (B, T, 3, H, W) for (B, T, P).

        Args:
            context: the observed views.
            query: poses of the targets.
            noise: standard normal (L, N, Z, h, w), of one sample per target; only if the model draws samples.
        """

    def predict_mean(self, context: Context, query: Tensor) -> Tensor:
        """Return one prediction per query without randomness, of the shape of `predict`."""
        return self.predict(context, query)

    def sample(self, context: Context, query: Tensor, count: int, seed: int) -> Tensor:
        """Return samples, (count, B, 3, H, W) or (count, B, T, 3, H, W), without torch's global generator."""
        raise NotImplementedError(f"{type(self).__name__} with this configuration predicts the mean")

    def forward(self, inputs: Inputs, sigma: Tensor, noise: Tensor) -> Any:  # noqa: ARG002  the signature of all models
        """Return what `loss` needs.

        Args:
            inputs: a batch.
            sigma: (), pixel standard deviation, for models with a likelihood.
            noise: rows of `step_noise`, along axis 1.
        """
        return self.predict(inputs.context, inputs.query)

    def loss(self, output: Any, target: Tensor) -> Loss:
        """Return the loss of an output of `forward`: here the mean squared error."""
        error = (wide(output) - wide(target)).square().mean()
        return Loss(error, output, output.new_empty(target.shape[:-3].numel(), 0))

    def loss_floor(self, sigma: float) -> float:  # noqa: ARG002  the signature of all models
        """Return the least value of the loss, reached by predictions without error."""
        return 0.0

    def step_noise(self, seed: int, step: int, count: int, device: torch.device) -> Tensor:  # noqa: ARG002
        """Return the noise of a training step, (L, N, ...); here empty.

        Args:
            seed: of the training.
            step: counted from 0.
            count: N of the batch over all ranks.
            device: device to draw on.
        """
        return torch.empty(0, count, device=device)

    @classmethod
    def is_matrix(cls, name: str, axes: int) -> bool:  # noqa: ARG003  the signature of all models
        """Return whether a parameter is a matrix between hidden features, which Muon can train.

        Args:
            name: of the parameter.
            axes: its number of axes.
        """
        return False

    @classmethod
    def with_weights(cls, config: ModelConfig, tensors: dict[str, Tensor]) -> Self:
        """Return a network with the given weights on the CPU, in evaluation mode."""
        model = cls(config)
        model.load_state_dict(tensors)
        return model.eval()

    def to_memory_format(self, device: torch.device) -> Self:
        """Move the network to a device, in the memory format in which it runs fastest; return it."""
        self.to(device)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    def compile_parts(self) -> None:
        """Compile what pays, for training."""
        torch.compiler.reset()
        self.compile()


class LatentNetwork(Network):
    """A model with a distribution over frames: trained by its ELBO, sampled from its prior.

    Noise is standard normal, (L, N, Z, h, w) with Z latent channels on maps of h = w.
    """

    draws_samples = True

    @abstractmethod
    def forward(self, inputs: Inputs, sigma: float | Tensor, noise: Tensor | None = None) -> Elbo:
        """Return the ELBO with one posterior sample."""

    @abstractmethod
    def encode(self, context: Context, query: Tensor) -> Tensor:
        """Return what all samples of a question share, with N rows."""

    @abstractmethod
    def generate(self, static: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return one prior sample from the output of `encode`, (N, 3, H, W)."""

    @abstractmethod
    def predict(self, context: Context, query: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return one prior sample per query; zeros as noise take the prior's mean at each step."""

    @abstractmethod
    def sample(self, context: Context, query: Tensor, count: int, seed: int) -> Tensor:
        """Return prior samples, (count, B, 3, H, W) or (count, B, T, 3, H, W), without torch's global generator."""


def network_class(name: str) -> type[Network]:
    """Return the class of a model by its name in `MODELS`."""
    module, _, attribute = MODELS[name].partition(":")
    found: type[Network] = getattr(importlib.import_module(module), attribute)
    return found


def build_network(config: ModelConfig) -> Network:
    """Return a new network, with weights from torch's generator.

    Raises:
        OptionError: the frame size is 0, or another fact of the dataset is missing.
    """
    return network_class(config.model)(config)


def meta_network(config: ModelConfig) -> Network:
    """Return a network on the device `meta`, which allocates no parameters.

    Raises:
        OptionError: a fact of the dataset is missing, or the network is too large.
    """
    with torch.device("meta"):
        model = build_network(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    if count > MOST_PARAMETERS:
        raise OptionError(
            f"a network of {count:,} parameters, expected at most {MOST_PARAMETERS:,}; {model.size_flags}"
        )
    return model
