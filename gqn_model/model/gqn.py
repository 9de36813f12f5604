"""The generative query network: encoder, generation steps and evidence lower bound (ELBO).

Follows Eslami et al., Science 360, 2018, supplement, sections 2 to 4. Sums are reordered where the result is equal up
to rounding (see `cores`); `tests/support/naive.py` holds the plain version of the paper, the oracle of the tests.

The inference cores read the target through the look, a 4x4 convolution. As in torch-gqn, each core has its own look
unless cores are shared.

Shapes: B samples, T query views of each (no axis if there is one), N = B T, K context slots, L generation steps, D
state channels, Z latent channels, R channels of the representation, P numbers per pose (7 for DeepMind's cameras),
H = W frame size, h = w = H/4 map size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from gqn_data.errors import OptionError
from gqn_model.config import ModelConfig
from gqn_model.model.contract import Elbo, LatentNetwork, Loss
from gqn_model.model.convolutions import narrowed
from gqn_model.model.cores import Canvas, ConvLSTM, State
from gqn_model.model.distributions import Gaussian, gaussian_floor, kl_divergence, log_likelihood
from gqn_model.model.encoders import ENCODERS
from gqn_model.model.inputs import Context, Inputs
from gqn_model.model.noise import step_noise

# Value of hidden * kernel^2 from which contiguous weights are faster on a CPU: true for 3200 (`paper`), false for 576
# (`medium`). See docs/decisions.md.
LARGE_WEIGHTS = 1500


class GQN(LatentNetwork):
    """Generative query network.

    Args:
        config: configuration with the frame size set.

    Raises:
        OptionError: the frame size is 0.
    """

    size_flags = "lower --hidden, --canvas, --representation-channels, --core-steps or --kernel, or pass --shared-cores"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if not config.frame_size:
            raise OptionError("frame_size is 0, expected a multiple of 4 from 8: a network without a dataset needs it")
        self.config = config
        self.latent_steps = config.core_steps
        self.shared = config.shared_cores
        cores = 1 if self.shared else config.core_steps
        hidden, latent, kernel, r = config.hidden, config.latent, config.kernel, config.representation_channels
        pose = config.pose
        self.representation = ENCODERS[config.representation](r, config.frame_size, pose)
        self.side = side = config.frame_size // 4
        self.generation = ConvLSTM(latent, pose + r, hidden, pose=(0, pose), kernel=kernel, cores=cores, side=side)
        seen, self.looks = config.look_channels, 1 if config.shared_look else cores
        self.inference = ConvLSTM(
            hidden + config.canvas, seen + pose + r, hidden, pose=(seen, pose), kernel=kernel, cores=cores, side=side
        )
        self.look = nn.Conv2d(3, self.looks * seen, 4, 4)  # one convolution for the looks of all cores
        self.canvas = Canvas(hidden, config.canvas, cores, shared=self.shared)
        self.prior_head = nn.Conv2d(hidden, 2 * latent, kernel, padding=kernel // 2)
        self.posterior_head = nn.Conv2d(hidden, 2 * latent, kernel, padding=kernel // 2)

        if config.core_steps == 1:
            # These weights read the state before the only step, which is zero. They never get a gradient, for which
            # DDP would wait.
            for weight in (self.prior_head.weight, *self.canvas.down):
                weight.requires_grad_(requires_grad=False)

    def to_memory_format(self, device: torch.device) -> Self:
        """Move the network to a device, in the memory format in which its convolutions run fastest; return it.

        Channels last, except for large weights on a CPU: their gradients would be reordered at every step.
        """
        large = self.config.hidden * self.config.kernel**2 >= LARGE_WEIGHTS
        last = device.type != "cpu" or not large
        self.to(device)
        self.to(memory_format=torch.channels_last if last else torch.contiguous_format)  # type: ignore[call-overload]
        return self

    def compile_parts(self) -> None:
        """Compile only the cores and the encoder: seconds, not minutes.

        A core is compiled once for all generation steps. Without gradients the modules run eagerly.
        """
        # Functions compiled for other networks count towards torch's limit of variants per function.
        torch.compiler.reset()
        for part in (self.representation, self.generation, self.inference):
            part.compile(fullgraph=True, dynamic=False)

    def represent(self, context: Context) -> Tensor:
        """Return the scene representation, the sum of r over context views: (B, R, h, w) or (B, R, 1, 1)."""
        batch, slots = context.mask.shape
        # Mask the inputs as well as r: a NaN in an empty slot would enter the gradient as 0 * NaN.
        frames = torch.where(context.mask[:, :, None, None, None], context.frames, 0.0)
        poses = torch.where(context.mask[:, :, None], context.poses, 0.0)
        r = _compiled_if_training(self.representation)(frames.flatten(0, 1), poses.flatten(0, 1))
        r = r.view(batch, slots, *r.shape[1:])
        return torch.where(context.mask[:, :, None, None, None], r, 0.0).sum(1)

    def forward(self, inputs: Inputs, sigma: float | Tensor, noise: Tensor | None = None) -> Elbo:
        """Return the ELBO with one posterior sample.

        Args:
            inputs: a batch.
            sigma: pixel standard deviation, for frames in [0, 1].
            noise: standard normal (L, N, Z, h, w); None draws it.
        """
        static = self.encode(inputs.context, inputs.query)
        target = inputs.target.flatten(0, -4)  # (N, 3, H, W)
        prepared_g = self.generation.prepare(static)
        prepared_e = self.inference.prepare(static, self.look(target).chunk(self.looks, 1))
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
            seen: list[Tensor] = []  # state and canvas are zero before the first step
            if generator is not None and canvas is not None:
                seen = [generator.hidden, self.canvas.read(maps, step, canvas)]
            inferrer = self.inference(weights_e[core], inferrer, seen, prepared_e[core])
            posteriors.append(self.posterior_head(inferrer.hidden))
            z = Gaussian.of(posteriors[-1]).draw(noise[step])
            generator = self.generation(weights_g[core], generator, [z], prepared_g[core])
            canvas = self.canvas.add(canvas, generator.hidden)
            generators.append(generator.hidden)
        assert canvas is not None  # noqa: S101  core_steps is at least 1
        mean = self.canvas.observe(canvas)
        # No step of this pass reads a prior, so the priors of all steps are one convolution and the KL one call.
        priors = [self._prior(None, len(static))]
        if len(generators) > 1:
            priors.append(self._prior(torch.cat(generators[:-1]), len(static)))
        kl = kl_divergence(Gaussian.of(torch.cat(posteriors)), Gaussian.of(torch.cat(priors)))  # (L B,)
        return Elbo(log_likelihood(target, mean, sigma), kl.view(-1, len(static)).T, mean)

    def loss(self, output: Elbo, target: Tensor) -> Loss:
        """Return the negative ELBO in nats per frame."""
        return Loss(-output.value.mean(), output.mean.view(target.shape), output.kl)

    def loss_floor(self, sigma: float) -> float:
        """Return the Gaussian floor in nats."""
        return gaussian_floor(3 * self.config.frame_size**2, sigma)

    def step_noise(self, seed: int, step: int, count: int, device: torch.device) -> Tensor:
        """Return standard normal noise, (L, N, Z, h, w)."""
        return step_noise(self.config, seed, step, count, device)

    def predict(self, context: Context, query: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the mean of frames at query poses from the prior, (B, 3, H, W) or (B, T, 3, H, W).

        Args:
            context: the observed views.
            query: (B, P) or (B, T, P); the context is encoded once for all T.
            noise: standard normal (L, N, Z, h, w); None draws it, zeros take the prior's mean at each step.
        """
        frames = self.generate(self.encode(context, query), noise)
        return frames.reshape(*query.shape[:-1], *frames.shape[1:])

    def predict_mean(self, context: Context, query: Tensor) -> Tensor:
        """Return `predict` with every latent at the mean of its prior."""
        static = self.encode(context, query)
        mean = self.generate(static, torch.zeros((), device=static.device).expand(self._noise_shape(len(static))))
        return mean.reshape(*query.shape[:-1], *mean.shape[1:])

    def generate(self, static: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return `predict` from the output of `encode`, so that many samples share one encoding of the context."""
        prepared = self.generation.prepare(static)
        noise = self.noise(static) if noise is None else noise
        state: State | None = None
        canvas: Tensor | None = None
        for step in range(self.config.core_steps):
            core = 0 if self.shared else step
            prior = Gaussian.of(self._prior(None if state is None else state.hidden, len(static)))
            z = prior.draw(noise[step])
            state = _compiled_if_training(self.generation)(self.generation.moving[core], state, [z], prepared[core])
            canvas = self.canvas.add(canvas, state.hidden)
        assert canvas is not None  # noqa: S101  core_steps is at least 1
        return self.canvas.observe(canvas)

    @torch.no_grad()
    def sample(self, context: Context, query: Tensor, count: int, seed: int) -> Tensor:
        """Return predictions from the prior, (count, B, 3, H, W), without touching torch's global generator.

        Args:
            context: the observed views.
            query: (B, P) or (B, T, P); with T query views the result is (count, B, T, 3, H, W).
            count: predictions per sample of the batch.
            seed: of the noise.
        """
        generator = torch.Generator(query.device).manual_seed(seed)
        static = self.encode(context, query)
        drawn = torch.stack([self.generate(static, self.noise(static, generator)) for _ in range(count)])
        return drawn.reshape(count, *query.shape[:-1], *drawn.shape[2:])

    def encode(self, context: Context, query: Tensor) -> Tensor:
        """Return the input shared by all steps, query pose and representation: (N, P + R, h, w) or (N, P + R, 1, 1)."""
        r = self.represent(context)
        if query.dim() == 3:
            r, query = r.repeat_interleave(query.shape[1], 0), query.flatten(0, 1)
        if pooled := self.config.pooled_channels:
            # Convolutions of size 3 carry what one cell knows over a few cells only; a mean reaches all of them.
            local, wide = r[:, :-pooled], r[:, -pooled:].mean((2, 3), keepdim=True).expand(-1, -1, *r.shape[2:])
            r = torch.cat([local, wide], 1)
        return torch.cat([query[:, :, None, None].expand(-1, -1, *r.shape[2:]), r], 1)

    def noise(self, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return standard normal noise for one sample of every latent, (L, N, Z, h, w); N and dtype of `like`."""
        return torch.randn(self._noise_shape(len(like)), dtype=like.dtype, device=like.device, generator=generator)

    def _noise_shape(self, count: int) -> tuple[int, ...]:
        return self.config.core_steps, count, self.config.latent, self.side, self.side

    def _prior(self, hidden: Tensor | None, batch: int) -> Tensor:
        """Return the prior head's output for a state; None stands for the zero state before the first step."""
        if hidden is not None:
            both: Tensor = self.prior_head(hidden)
            return both
        assert self.prior_head.bias is not None  # noqa: S101  created with a bias
        # The convolution of zeros is the bias.
        return self.prior_head.bias[None, :, None, None].expand(batch, -1, self.side, self.side)


def _compiled_if_training(part: nn.Module) -> Callable[..., Any]:
    """Return the compiled module when training, its eager forward otherwise."""
    return part if torch.is_grad_enabled() else part.forward
