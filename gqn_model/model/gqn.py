"""The generative query network: representation, the steps, and the evidence lower bound (ELBO).

Follows Eslami et al., Science 360, 2018, supplement, sections 2 to 4. The sums are rearranged where the result is
the same to the last digits (see `network`); a plain version, written as the paper draws it, is the oracle in
`tests/model/naive.py`. No training here, no files but in `GQN.from_run` and `GQN.from_safetensors`.

Shapes: B samples, K slots for context views, L steps, D channels of a state, Z channels of a latent, R channels of
the representation, P numbers of a pose (7 of DeepMind's cameras), H = W the side of a frame, h = w = H/4 the side of
the maps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from gqn_data.errors import OptionError
from gqn_model.config import ModelConfig
from gqn_model.model.convolutions import narrowed
from gqn_model.model.cores import Canvas, ConvLSTM, State
from gqn_model.model.distributions import Gaussian, kl_divergence, log_likelihood
from gqn_model.model.encoders import ENCODERS
from gqn_model.model.inputs import Context, Inputs

# hidden * kernel^2 from which on a CPU is faster with its weights in torch's own order: with the 3200 of `paper` it is,
# with the 576 of `medium` it is not (docs/decisions.md).
LARGE_WEIGHTS = 1500


class Elbo(NamedTuple):
    """The parts of the ELBO of a batch, in nats, float32 or wider.

    Attributes:
        log_likelihood: (B,), of the target given one posterior sample.
        kl: (B, L), posterior from prior, at each step.
        mean: (B, 3, H, W), the frame predicted from the posterior sample.
    """

    log_likelihood: Tensor
    kl: Tensor
    mean: Tensor

    @property
    def value(self) -> Tensor:
        """The ELBO of each sample, (B,)."""
        return self.log_likelihood - self.kl.sum(1)


class GQN(nn.Module):
    """The network.

    Args:
        config: its configuration, with the frame size settled.

    Raises:
        OptionError: the frame size is still open.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if not config.frame_size:
            raise OptionError("frame_size is 0; possible here: multiples of 4 from 8, since no dataset tells it")
        self.config = config
        self.shared = config.shared_cores
        cores = 1 if self.shared else config.core_steps
        hidden, latent, kernel, r = config.hidden, config.latent, config.kernel, config.representation_channels
        pose = config.pose
        self.representation = ENCODERS[config.representation](r, config.frame_size, pose)
        self.side = side = config.frame_size // 4
        self.generation = ConvLSTM(latent, pose + r, hidden, pose=(0, pose), kernel=kernel, cores=cores, side=side)
        self.inference = ConvLSTM(
            hidden + config.canvas, 3 + pose + r, hidden, pose=(3, pose), kernel=kernel, cores=cores, side=side
        )
        self.look = nn.Conv2d(3, 3, 4, 4)
        self.canvas = Canvas(hidden, config.canvas, cores, shared=self.shared)
        self.prior_head = nn.Conv2d(hidden, 2 * latent, kernel, padding=kernel // 2)
        self.posterior_head = nn.Conv2d(hidden, 2 * latent, kernel, padding=kernel // 2)

        if config.core_steps == 1:
            # Nothing is read of a state before the only step: what would read it never learns, and is not to be
            # waited for where gradients of several ranks are joined.
            for weight in (self.prior_head.weight, *self.canvas.down):
                weight.requires_grad_(requires_grad=False)

    @classmethod
    def with_weights(cls, config: ModelConfig, tensors: dict[str, Tensor]) -> Self:
        """The network of a configuration with given weights, on the CPU, ready to predict."""
        model = cls(config)
        model.load_state_dict(tensors)
        return model.eval()

    def to_memory_format(self, device: torch.device) -> Self:
        """This network on a device, its weights in the order that its convolutions run fastest in there.

        Channels last, but for large weights on a CPU, whose gradients would be reordered at every step.
        """
        large = self.config.hidden * self.config.kernel**2 >= LARGE_WEIGHTS
        last = device.type != "cpu" or not large
        self.to(device)
        self.to(memory_format=torch.channels_last if last else torch.contiguous_format)  # type: ignore[call-overload]
        return self

    def compile_parts(self) -> None:
        """Has torch compile what learning spends its time in: a step of each core, and the representation.

        A core is compiled once for all steps: seconds, where the whole network with its steps in a row takes minutes.
        What only predicts runs as it is.
        """
        # What was compiled of other networks counts against the most forms of one function that torch keeps.
        torch.compiler.reset()
        for part in (self.representation, self.generation, self.inference):
            part.compile(fullgraph=True, dynamic=False)

    def represent(self, context: Context) -> Tensor:
        """The representation of scenes: the sum of r over the views of each, (B, R, h, w) or (B, R, 1, 1)."""
        batch, slots = context.mask.shape
        # Not r alone: a number that is none in an empty slot would come back with the gradient, as 0 times NaN.
        frames = torch.where(context.mask[:, :, None, None, None], context.frames, 0.0)
        poses = torch.where(context.mask[:, :, None], context.poses, 0.0)
        r = _as_learned(self.representation)(frames.flatten(0, 1), poses.flatten(0, 1))
        r = r.view(batch, slots, *r.shape[1:])
        return torch.where(context.mask[:, :, None, None, None], r, 0.0).sum(1)

    def forward(self, inputs: Inputs, sigma: float | Tensor, noise: Tensor | None = None) -> Elbo:
        """The ELBO with one posterior sample.

        Args:
            inputs: a batch.
            sigma: deviation of a pixel, in units of a frame in [0, 1].
            noise: standard normal (L, B, Z, h, w); None draws it.
        """
        static = self.encode(inputs.context, inputs.query)
        prepared_g = self.generation.prepare(static)
        prepared_e = self.inference.prepare(static, self.look(inputs.target))
        maps = self.canvas.maps()
        weights_g = [narrowed(weight) for weight in self.generation.moving]
        weights_e, empty = self.canvas.through(list(self.inference.moving), maps, self.side)
        prepared_e = (prepared_e[0] + empty, *prepared_e[1:])
        noise = self.noise(static) if noise is None else noise

        generator: State | None = None
        inferrer: State | None = None
        canvas: Tensor | None = None
        generators, posteriors = [], []
        for step in range(self.config.core_steps):
            core = 0 if self.shared else step
            seen: list[Tensor] = []  # before the first step all is zero
            if generator is not None and canvas is not None:
                seen = [generator.hidden, self.canvas.read(maps, step, canvas)]
            inferrer = self.inference(weights_e[core], inferrer, seen, prepared_e[core])
            posteriors.append(self.posterior_head(inferrer.hidden))
            z = Gaussian.of(posteriors[-1]).draw(noise[step])
            generator = self.generation(weights_g[core], generator, [z], prepared_g[core])
            canvas = self.canvas.add(canvas, generator.hidden)
            generators.append(generator.hidden)
        assert canvas is not None  # noqa: S101  there is at least one step
        mean = self.canvas.observe(canvas)
        # No step of this pass reads a prior; so those of all steps are one convolution, and their divergences one sum.
        priors = [self._prior(None, len(static))]
        if len(generators) > 1:
            priors.append(self._prior(torch.cat(generators[:-1]), len(static)))
        kl = kl_divergence(Gaussian.of(torch.cat(posteriors)), Gaussian.of(torch.cat(priors)))  # (L B,)
        return Elbo(log_likelihood(inputs.target, mean, sigma), kl.view(-1, len(static)).T, mean)

    def predict(self, context: Context, query: Tensor, noise: Tensor | None = None) -> Tensor:
        """The mean of the frame at a query pose, from the prior: (B, 3, H, W).

        Args:
            context: the observed views.
            query: (B, 7).
            noise: standard normal (L, B, Z, h, w); None draws it, zeros take the mean of the prior at each step.
        """
        return self.generate(self.encode(context, query), noise)

    def generate(self, static: Tensor, noise: Tensor | None = None) -> Tensor:
        """`predict` from what `read` gave, so that many samples share one reading of the context."""
        prepared = self.generation.prepare(static)
        noise = self.noise(static) if noise is None else noise
        state: State | None = None
        canvas: Tensor | None = None
        for step in range(self.config.core_steps):
            core = 0 if self.shared else step
            prior = Gaussian.of(self._prior(None if state is None else state.hidden, len(static)))
            z = prior.draw(noise[step])
            state = _as_learned(self.generation)(self.generation.moving[core], state, [z], prepared[core])
            canvas = self.canvas.add(canvas, state.hidden)
        assert canvas is not None  # noqa: S101  there is at least one step
        return self.canvas.observe(canvas)

    @torch.no_grad()
    def sample(self, context: Context, query: Tensor, count: int, seed: int) -> Tensor:
        """Predictions from the prior, (count, B, 3, H, W); torch's own generator is left as it is.

        Args:
            context: the observed views.
            query: (B, 7).
            count: how many for each sample of the batch.
            seed: of the noise.
        """
        generator = torch.Generator(query.device).manual_seed(seed)
        static = self.encode(context, query)
        return torch.stack([self.generate(static, self.noise(static, generator)) for _ in range(count)])

    def encode(self, context: Context, query: Tensor) -> Tensor:
        """What every step reads alike, query pose and representation: (B, P + R, h, w), or (B, P + R, 1, 1)."""
        r = self.represent(context)
        return torch.cat([query[:, :, None, None].expand(-1, -1, *r.shape[2:]), r], 1)

    def noise(self, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise for one sample of every latent, (L, B, Z, h, w); B and type of `like`."""
        shape = (self.config.core_steps, len(like), self.config.latent, self.side, self.side)
        return torch.randn(shape, dtype=like.dtype, device=like.device, generator=generator)

    def _prior(self, hidden: Tensor | None, batch: int) -> Tensor:
        """What the head makes of a state, of any number of samples; None: of the state before the first step."""
        if hidden is not None:
            both: Tensor = self.prior_head(hidden)
            return both
        assert self.prior_head.bias is not None  # noqa: S101  made with one
        # The convolution of zeros is the bias.
        return self.prior_head.bias[None, :, None, None].expand(batch, -1, self.side, self.side)


def _as_learned(part: nn.Module) -> Callable[..., Any]:
    """A part as it was compiled where gradients are asked for, and as it is where not, at no cost of compiling."""
    return part if torch.is_grad_enabled() else part.forward
