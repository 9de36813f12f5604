"""Plane sweep and ray transformer: predict a frame from the context's pixels, with known cameras.

Every pixel of a target looks along a ray. The sweep places points on that ray at the depths of D planes and reads the
colours of the two nearest context cameras that see each point. Where their colours agree, a surface is likely. A
U-Net over these colours and a transformer over patches of the context decide per pixel which colour to copy, or to
make one where no camera saw the surface. Colours are copied at full resolution; the U-Net works at half of it.

With `noise`, random numbers scale and shift what the norms give in the U-Net and for a target's tokens, so each draw is
a sample. Two draws per frame train it by an energy score of patches, which is least for the true distribution.

Sources: Collins, "A space-sweep approach to true multi-image matching", CVPR 1996 (plane sweep); Jin et al., LVSM,
arXiv:2410.17242 (tokens of patches and their rays); Zhang et al., "Cameras as Rays", arXiv:2402.14817 (Pluecker rays);
Gneiting and Raftery, JASA 102(477), 2007 (energy score); Alet et al., arXiv:2506.10772 (noise in conditional norms).

Shapes: B samples, K context slots, T targets per sample, H = W frame size, S = H padded to a multiple of the patch,
N = (S / patch)^2 tokens per view, E token features, W channels of the U-Net, D planes, M = 2 D copied colours.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gqn_data.errors import OptionError
from gqn_model.config import ModelConfig
from gqn_model.model.contract import Loss, Network
from gqn_model.model.distributions import wide
from gqn_model.model.inputs import Context, Inputs
from gqn_model.model.noise import step_noise

# Context cameras that the sweep of a target looks at: the nearest ones.
CAMERAS = 3

# Colours are read at the nearest of FINE x FINE interpolated places per pixel: at most 1/8 pixel off, in one gather
# instead of the four of a bilinear lookup.
FINE = 4

# Costs are mostly below 1/4; times this they have the size of the other inputs of the U-Net.
COST_SCALE = 4

# Depths along the axis of a camera below this share of the nearest plane count as behind it.
_AHEAD = 0.05

# Matching cost of a point that one camera sees, and of a point that none sees; colours differ by 0 to 1.
_ONE_SEES, _NONE_SEES = 0.1, 0.3

# Logit of a copy per unit of matching cost, before training.
_TRUST = 20

# Logits per unit of the head's guess at the colour: small weights make a sharp choice.
_SHARPNESS = 10

# Squared error of a frame below which the loss is nearly the squared error: a PSNR of 50 dB.
_SMALL_ERROR = 1e-5

_OCTAVES = 5  # of the Fourier features of rays

# Standard deviation of the scales that noise gives to norms, before training. Samples that hardly differ would have
# hardly any gradient.
_NOISE_SCALE = 0.3

# Frames drawn in one pass, to bound the memory of many samples.
_DRAWN_AT_ONCE = 128

# Scale and shift of what a norm gives, broadcast to it; None for neither.
Modulation = tuple[Tensor, Tensor] | None


class Encoded(NamedTuple):
    """The context, encoded once for any number of targets.

    Attributes:
        poses: (B, K, 7), zeros in empty slots.
        mask: bool (B, K), True for slots that hold a view.
        pixels: (1 + B K (FINE H)^2, 4), rows of red, green, blue from -0.5 to 0.5 and 1; row 0 is zeros: not seen.
        keys: of each block, (B, heads, K N, E / heads).
        values: of each block, as `keys`.
    """

    poses: Tensor
    mask: Tensor
    pixels: Tensor
    keys: list[Tensor]
    values: list[Tensor]


class PlaneSweep(Network):
    """Plane sweep, U-Net and ray transformer.

    Args:
        config: configuration with the frame size and the geometry set.

    Raises:
        OptionError: the frame size or the geometry is missing.
    """

    needs_geometry = True
    size_flags = "lower --dim, --width, --planes or --depth"

    depths: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        _check(config)
        self.config = config
        self.side = -(-config.frame_size // config.patch)  # tokens along a side
        self.size = self.side * config.patch
        patch, width, dim = config.patch, config.width, config.dim
        depths = torch.logspace(math.log10(config.near), math.log10(config.far), config.planes, dtype=torch.float64)
        self.register_buffer("depths", depths.to(torch.get_default_dtype()), persistent=False)
        # U-Net: S / 2 and S / patch pixels a side.
        self.stem = nn.Conv2d(8 * config.planes, width, 2, 2)
        self.down, self.up = _Refine(width), _Refine(width)
        self.to_tokens = nn.Conv2d(width, dim, patch // 2, patch // 2)
        self.from_tokens = nn.Linear(dim, width * (patch // 2) ** 2)
        # Of each of 2 x 2 pixels: logits of the copies and of the made colour, the made colour, a guess at the colour.
        self.parts = [2 * config.planes + 1, 3, 4]
        self.head = nn.Conv2d(width, 4 * sum(self.parts), 1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.trust = nn.Conv2d(config.planes, 2 * config.planes, 1, bias=False)
        with torch.no_grad():
            self.trust.weight[:, :, 0, 0] = torch.eye(config.planes).repeat(2, 1) * (-_TRUST / COST_SCALE)
        # Tokens
        self.see = nn.Linear(3 * patch**2, dim)
        self.camera = nn.Linear(9 + 12 * _OCTAVES, dim)
        self.place = nn.Parameter(torch.randn(self.side**2, dim) * 0.02)
        self.asked = nn.Parameter(torch.randn(dim) * 0.02)
        self._blocks = [_Block(dim, config.heads, config.depth) for _ in range(config.depth)]
        self.blocks = nn.ModuleList(self._blocks)
        self.norm = nn.LayerNorm(dim)
        self.draws_samples = config.noise > 0
        if self.draws_samples:
            # Scales and shifts of two norms per block and of one per stage of the U-Net. Without a bias: noise of zeros
            # changes nothing.
            self._modulated = [dim] * 4 * config.depth + [width] * 4
            self.modulate = nn.Linear(config.noise, sum(self._modulated), bias=False)
            nn.init.normal_(self.modulate.weight, std=_NOISE_SCALE / math.sqrt(config.noise))

    def predict(self, context: Context, query: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the predicted frames in [0, 1], (B, T, 3, H, W), or (B, 3, H, W) for one target.

        Args:
            context: the observed views.
            query: poses of the targets, (B, T, 7), or (B, 7).
            noise: standard normal (1, B T, Z, 1, 1) with the Z numbers of `noise` in the configuration; None takes
                zeros.
        """
        if noise is not None:
            return self.draw(self.encode(context), query, noise)[0]
        if query.dim() == 2:
            return self.render(self.encode(context), query[:, None])[:, 0]
        return self.render(self.encode(context), query)

    def forward(self, inputs: Inputs, sigma: Tensor, noise: Tensor) -> Tensor:  # noqa: ARG002  as of all models
        """Return what `loss` needs: `predict`, or two samples, (2, ...), which share noise over a scene's targets."""
        if not self.draws_samples:
            return self.predict(inputs.context, inputs.query)
        by_scene = noise.view(len(noise), len(inputs.query), -1, *noise.shape[2:])
        noise = by_scene[:, :, :1].expand_as(by_scene).flatten(1, 2)
        return self.draw(self.encode(inputs.context), inputs.query, noise)

    def loss(self, output: Tensor, target: Tensor) -> Loss:
        """Return the root of the mean squared error of each frame, averaged over frames; 0 without an error.

        Unlike its square it weighs frames that are nearly right almost as much as frames that are not, as PSNR does.

        Of two samples return the fair energy score of patches, averaged over them: the mean distance of the samples to
        the target, less half of that between them, where a distance is the root of the mean squared difference.
        """
        frames, empty = output, output.new_empty(target.shape[:-3].numel(), 0)
        if output.dim() == target.dim():
            return Loss(_root((wide(frames) - wide(target)).square().mean((-3, -2, -1))).mean(), frames, empty)
        frames, other = output
        patch, target = self.config.patch, wide(target)
        far = (_distance(wide(frames), target, patch) + _distance(wide(other), target, patch)) / 2
        return Loss((far - _distance(wide(frames), wide(other), patch) / 2).mean(), frames, empty)

    def step_noise(self, seed: int, step: int, count: int, device: torch.device) -> Tensor:
        """Return the noise of two samples, (2, N, Z, 1, 1); empty without noise."""
        if not self.draws_samples:
            return super().step_noise(seed, step, count, device)
        return step_noise(self.config, seed, step, count, device, draws=2)

    @torch.no_grad()
    def sample(self, context: Context, query: Tensor, count: int, seed: int) -> Tensor:
        """Return samples, (count, B, 3, H, W) or (count, B, T, 3, H, W), without torch's global generator.

        A sample has the same noise at all targets of a scene.

        Args:
            context: the observed views.
            query: poses of the targets, (B, 7) or (B, T, 7).
            count: samples per target.
            seed: of the noise.
        """
        if not self.draws_samples:
            return super().sample(context, query, count, seed)
        generator = torch.Generator(query.device).manual_seed(seed)
        shape = (count, len(query), self.config.noise, 1, 1)
        noise = torch.randn(shape, dtype=query.dtype, device=query.device, generator=generator)
        return self.draw(self.encode(context), query, noise.repeat_interleave(query[0, ..., 0].numel(), 1))

    @classmethod
    def is_matrix(cls, name: str, axes: int) -> bool:
        """Return whether a parameter is a matrix of the transformer's blocks."""
        return name.startswith("blocks.") and axes == 2

    def encode(self, context: Context) -> Encoded:
        """Return the context as `render` needs it."""
        mask = context.mask
        # Zeros in place of what empty slots hold: NaN times zero is NaN.
        frames = torch.where(mask[:, :, None, None, None], context.frames - 0.5, 0.0)
        poses = torch.where(mask[:, :, None], context.poses, 0.0)
        missing = self.size - self.config.frame_size
        padded = functional.pad(frames, (0, missing, 0, missing))
        side, patch = self.side, self.config.patch
        patches = padded.reshape(*mask.shape, 3, side, patch, side, patch).permute(0, 1, 3, 5, 4, 6, 2)
        patches = patches.reshape(*mask.shape, side**2, 3 * patch**2)
        x = (self.see(patches) + self._cameras(poses)).flatten(1, 2)  # (B, K N, E)
        bias = self._bias(mask, x.dtype)
        keys, values = [], []
        for block in self._blocks:
            x, key, value = block.observe(x, bias)
            keys.append(key)
            values.append(value)
        return Encoded(poses, mask, pixel_table(frames), keys, values)

    def render(self, encoded: Encoded, query: Tensor) -> Tensor:
        """Return the predicted frames in [0, 1], (B, T, 3, H, W), from the output of `encode`.

        Args:
            encoded: the context.
            query: poses of the targets, (B, T, 7).
        """
        return self._answer(encoded, query)[0]

    def draw(self, encoded: Encoded, query: Tensor, noise: Tensor) -> Tensor:
        """Return a sample of each target for each noise, (S, B, T, 3, H, W), or (S, B, 3, H, W) for one target.

        Args:
            encoded: the context.
            query: poses of the targets, (B, T, 7), or (B, 7).
            noise: standard normal, (S, B T, Z, 1, 1).
        """
        targets = query if query.dim() == 3 else query[:, None]
        noise = noise.reshape(len(noise), *targets.shape[:2], -1).transpose(0, 1)  # (B, S, T, Z)
        parts = torch.split(noise, max(1, _DRAWN_AT_ONCE // targets[..., 0].numel()), 1)
        frames = torch.cat([self._answer(encoded, targets, part)[0] for part in parts], 1)  # (B, S T, 3, H, W)
        frames = frames.view(*noise.shape[:3], *frames.shape[2:]).transpose(0, 1)
        return frames.reshape(-1, *query.shape[:-1], *frames.shape[3:])

    def render_with_depth(self, encoded: Encoded, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return `render`, and the depth of the plane that each pixel copies most of its colour from: (B, T, H, W).

        Depths are along the optical axis, in units of the raw positions, without gradient; NaN where most of the
        colour is made.

        Args:
            encoded: the context.
            query: poses of the targets, (B, T, 7).
        """
        frames, shares = self._answer(encoded, query)
        with torch.no_grad():
            copied = shares[..., :-1].reshape(*shares.shape[:-1], 2, self.config.planes).sum(-2)
            depth = self.depths[copied.argmax(-1)].masked_fill(copied.sum(-1) < shares[..., -1], math.nan)
        return frames, depth

    def _answer(self, encoded: Encoded, query: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return `render`, and the share of each colour in each pixel: (B, T, H, W, 2 D + 1), made ones last.

        With noise (B, S, T, Z) there are S T targets, those of the first noise first.
        """
        batch, targets = query.shape[:2]
        volume = self.sweep(encoded, query)  # (B T, S, S, 2, D, 4)
        coarse = functional.silu(self.stem(volume.flatten(3).permute(0, 3, 1, 2)))  # (B T, W, S / 2, S / 2)
        tokens: list[Modulation] = [None] * (2 * len(self._blocks))
        maps: list[Modulation] = [None, None]
        if noise is not None:
            draws = noise.shape[1]
            volume, coarse = (
                part.view(batch, 1, targets, *part.shape[1:]).expand(-1, draws, *[-1] * part.dim()).flatten(0, 2)
                for part in (volume, coarse)
            )
            query, targets = query.repeat(1, draws, 1), draws * targets
            parts = torch.split(self.modulate(noise.flatten(0, 2)), self._modulated, -1)
            pairs = list(zip(parts[::2], parts[1::2]))
            tokens = [(scale[:, None], shift[:, None]) for scale, shift in pairs[:-2]]
            maps = [(scale[..., None, None], shift[..., None, None]) for scale, shift in pairs[-2:]]
        coarse = self.down(coarse, maps[0])
        x = self.to_tokens(coarse).permute(0, 2, 3, 1).reshape(batch, targets, self.side**2, -1)
        x = x + self._cameras(query) + self.asked
        bias = self._bias(encoded.mask, x.dtype)
        for number, (block, key, value) in enumerate(zip(self._blocks, encoded.keys, encoded.values)):
            x = block.ask(x, key, value, bias, *tokens[2 * number : 2 * number + 2])
        x = self.from_tokens(self.norm(x)).reshape(batch * targets, self.side, self.side, -1).permute(0, 3, 1, 2)
        coarse = self.up(coarse + functional.pixel_shuffle(x, self.config.patch // 2), maps[1])
        out = functional.pixel_shuffle(self.head(functional.silu(coarse)), 2).permute(0, 2, 3, 1)
        prior = self.trust(volume[..., 1, :, 3].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # (B T, S, S, M)
        with torch.autocast(out.device.type, enabled=False):
            colour, shares = self._choose(volume.to(query.dtype, copy=True), prior.to(query.dtype), out.to(query.dtype))
        size = self.config.frame_size
        frames: Tensor = colour[:, :size, :size].permute(0, 3, 1, 2).reshape(batch, targets, 3, size, size) + 0.5
        return frames, shares[:, :size, :size].reshape(batch, targets, size, size, -1)

    def _choose(self, copies: Tensor, prior: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean of the copied colours and of a made one by their shares, (n, S, S, 3), and these.

        Args:
            copies: the volume of `sweep`, which is overwritten.
            prior: logits of the copies from their matching costs, (n, S, S, M).
            out: the head's answer, (n, S, S, 2 D + 8).
        """
        logits, made, guess = torch.split(out, self.parts, -1)
        copies = copies.flatten(3, 4)  # (n, S, S, M, 4)
        with torch.no_grad():
            # Colour and its square: their product with four numbers is a negative squared distance from any colour.
            colours = copies.new_ones(4)
            colours[3:].zero_()
            squares = (copies * copies) @ colours
            copies[..., 3] = squares
        match = (copies @ (_SHARPNESS * guess)[..., None])[..., 0]
        shares = (logits + functional.pad(prior + match, (0, 1))).softmax(-1)
        copied = (shares[..., None, :-1] @ copies)[..., 0, :3]
        colour: Tensor = copied + shares[..., -1:] * (made.contiguous().sigmoid() - 0.5)
        return colour, shares

    def sweep(self, encoded: Encoded, query: Tensor) -> Tensor:
        """Return what the context shows at the points of all planes, for every pixel of the targets.

        No gradient passes through it: colours are copied, so none has to be scattered into frames.

        Args:
            encoded: the context.
            query: poses of the targets, (B, T, 7).

        Returns:
            (B T, S, S, 2, D, 4): red, green and blue from -0.5 to 0.5, of the nearest camera that sees the point and
            of the second nearest; of the nearest twice if only one sees it, zeros if none does. The fourth number is
            for the nearest camera the number of cameras that see the point minus 1; for the second, COST_SCALE times
            the matching cost, the mean absolute difference of the two colours over 3 x 3 pixels.
        """
        with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
            first, second, seen = self._seen_pixels(encoded, query)
            volume = functional.embedding(torch.stack([first, second], 2), encoded.pixels)  # (B T, S S, 2, D, 4)
            mean = volume.new_full((4,), COST_SCALE / 3)
            mean[3:].zero_()
            cost = (volume[:, :, 0] - volume[:, :, 1]).abs_() @ mean
            unseen = volume.new_full((3,), _NONE_SEES * COST_SCALE)
            unseen[1:].fill_(_ONE_SEES * COST_SCALE)
            unseen[2:].zero_()
            cost += functional.embedding(seen, unseen[:, None])[..., 0]
            size, planes = self.size, self.config.planes
            box = volume.new_ones(planes, 1, 3, 3)
            cost = cost.view(-1, size, size, planes).permute(0, 3, 1, 2)
            around = functional.conv2d(box.new_ones(1, 1, size, size), box[:1], padding=1)
            cost = functional.conv2d(cost, box, padding=1, groups=planes).div_(around)
            volume = volume.view(-1, size, size, *volume.shape[2:])
            volume[..., 0, :, 3] = (seen - 1).view(-1, size, size, planes)
            volume[..., 1, :, 3] = cost.permute(0, 2, 3, 1)
            return volume

    def _seen_pixels(self, encoded: Encoded, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return where the two nearest cameras see each point: rows of `encoded.pixels`, and how many see it.

        Returns:
            Three integer (B T, S S, D): the nearest camera's row, 0 if none sees the point; the second nearest's, or
            the nearest's again; the number of cameras, 0, 1 or 2.
        """
        batch, slots = encoded.mask.shape
        places = self.config.frame_size * FINE
        index = torch.int32 if len(encoded.pixels) < 1 << 31 else torch.int64
        own, to = axes(encoded.poses, self.config.yaw_sign), axes(query, self.config.yaw_sign)
        apart = (encoded.poses[:, None, :, :3] - query[:, :, None, :3]).square().sum(-1)
        apart = apart + (own[:, None, :, 0] - to[:, :, None, 0]).square().sum(-1)  # (B, T, K)
        order = apart.masked_fill(~encoded.mask[:, None], math.inf).argsort(dim=-1, stable=True)[..., :CAMERAS]
        sample = torch.arange(batch, device=query.device)[:, None]
        local = self._local_rays(query.dtype, query.device)  # (S S, 3)
        depths = self.depths.to(query.dtype)
        half, nearest = places / 2, _AHEAD * self.config.near
        # Forward, right and up to depth, row times depth and column times depth, in fine pixels from the upper left. No
        # tensor is made of numbers: copying them to a GPU waits for it, and cannot be captured.
        lens = query.new_zeros(3, 3)
        lens[:, 0].fill_(half)
        lens[0, :1].fill_(1)
        lens[1, 2:].fill_(-half / self.tangent)
        lens[2, 1:2].fill_(half / self.tangent)
        first = second = seen = torch.zeros((), dtype=index, device=query.device)
        for near in reversed(range(order.shape[-1])):  # nearer cameras overwrite those further away
            slot = order[..., near]  # (B, T)
            turned = lens @ own[sample, slot]  # (B, T, 3, 3)
            # A point at depth d of the target's pixel p has the coordinates d ray_p + shift in the context's camera:
            # a product with two rows is faster than a product and a sum.
            ray = torch.einsum("btij,btlj,pl->ibtp", turned, to, local).flatten(1, 2)  # (3, B T, S S)
            shift = torch.einsum("btij,btj->ibt", turned, query[..., :3] - encoded.poses[sample, slot, :3]).flatten(1)
            left = torch.stack([ray, torch.ones_like(ray)], -1)
            right = torch.stack([depths.expand(*shift.shape, -1), shift[..., None].expand(-1, -1, len(depths))], 2)
            ahead, row, column = (left[i] @ right[i] for i in range(3))  # (B T, S S, D)
            inside = ahead - nearest  # positive within the frame
            ahead.clamp_(min=nearest)
            row, column = row.div_(ahead), column.div_(ahead)
            inside = torch.minimum(inside, torch.minimum(row, column))
            inside = torch.minimum(inside, places - torch.maximum(row, column))
            here = ((inside > 0) & encoded.mask[sample, slot].view(-1, 1, 1)).to(index)
            view = ((sample * slots + slot) * places**2 + 1).to(index).view(-1, 1, 1)
            pixel = row.to(index).mul_(places).add_(column.to(index)).add_(view)
            second = second + (first - second) * here  # as torch.where, but vectorised on CPUs
            first = first + (pixel - first) * here
            seen = seen + here
        seen = seen.clamp_(max=2)
        return first, torch.where(seen == 1, first, second), seen

    @property
    def tangent(self) -> float:
        """Half the width of a frame at depth 1."""
        return math.tan(math.radians(self.config.field_of_view) / 2)

    def _local_rays(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return points at depth 1 behind each pixel: (S S, 3), forward, right and up of the camera.

        Pixels that pad the frame lie outside of the field of view.
        """
        at = (torch.arange(self.size, dtype=dtype, device=device) + 0.5) * 2 / self.config.frame_size - 1
        down, right = torch.meshgrid(at * self.tangent, at * self.tangent, indexing="ij")
        return torch.stack([torch.ones_like(right), right, -down], -1).view(-1, 3)

    def _cameras(self, poses: Tensor) -> Tensor:
        """Return the part of the tokens that depends on cameras and rays: (B, V, 7) to (B, V, N, E)."""
        patch, side = self.config.patch, self.side
        with torch.autocast(poses.device.type, enabled=False):
            local = self._local_rays(poses.dtype, poses.device).view(side, patch, side, patch, 3).mean((1, 3))
            rays = functional.normalize(local.flatten(0, 1), dim=-1) @ axes(poses, self.config.yaw_sign)  # (B, V, N, 3)
            origin = poses[:, :, None, :3].expand_as(rays)
            line = torch.cat([rays, origin], -1)
            octaves = 2.0 ** torch.arange(_OCTAVES, dtype=poses.dtype, device=poses.device)
            waves = (line[..., None] * octaves).flatten(-2)
            features = torch.cat([line, torch.linalg.cross(origin, rays), waves.sin(), waves.cos()], -1)
        posed: Tensor = self.camera(features) + self.place
        return posed

    def _bias(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """Return what attention adds to the logits of context tokens: (B, 1, 1, K N), a large negative if empty."""
        bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        bias = bias.masked_fill_(~mask, torch.finfo(dtype).min / 4)
        return bias.repeat_interleave(self.side**2, 1)[:, None, None]


class _Refine(nn.Module):
    """Residual pair of convolutions: (n, C, h, w) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.normal_(self.second.weight, std=1e-3)  # begins as the identity

    def forward(self, x: Tensor, change: Modulation = None) -> Tensor:
        refined: Tensor = self.second(functional.silu(self.first(_modulated(self.norm(x), change))))
        return x + refined


class _Block(nn.Module):
    """Transformer block. Context tokens see the context; tokens of a target see the context and their own view.

    Queries and keys are normalised: Dehghani et al., arXiv:2302.05442.
    """

    def __init__(self, dim: int, heads: int, depth: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.norm_query, self.norm_key = nn.LayerNorm(dim // heads), nn.LayerNorm(dim // heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 3 * dim), nn.GELU(approximate="tanh"), nn.Linear(3 * dim, dim))
        for last in (self.out, self.mlp[2]):
            nn.init.normal_(last.weight, std=0.02 / math.sqrt(2 * depth))  # type: ignore[arg-type]

    def observe(self, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the next context tokens (B, K N, E), and keys and values (B, heads, K N, E / heads)."""
        query, key, value = self._project(x)
        seen = (self._logits(query, key) + bias).softmax(-1).to(value.dtype) @ value
        return self._leave(x, seen), key, value

    def ask(
        self, x: Tensor, key: Tensor, value: Tensor, bias: Tensor, change: Modulation, change_mlp: Modulation
    ) -> Tensor:
        """Return the next tokens of the targets (B, T, N, E).

        Attention is written out: on a CPU the gradient of torch's fused kernel is slower in bfloat16.

        Args:
            x: tokens of the targets.
            key: of the context.
            value: of the context.
            bias: of the context.
            change: of the norm before attention.
            change_mlp: of the norm before the MLP.
        """
        batch, targets, tokens, dim = x.shape
        query, own_key, own_value = self._project(x.flatten(0, 1), change)  # (B T, heads, N, E / heads)
        own = self._logits(query, own_key).view(batch, targets, self.heads, tokens, tokens)
        query = query.view(batch, targets, *query.shape[1:]).transpose(1, 2).flatten(2, 3)  # (B, heads, T N, E / heads)
        context = (self._logits(query, key) + bias).view(batch, self.heads, targets, tokens, -1).transpose(1, 2)
        shares = torch.cat([context, own], -1).softmax(-1).to(value.dtype)  # (B, T, heads, N, K N + N)
        seen = shares[..., :-tokens].transpose(1, 2).flatten(2, 3) @ value  # (B, heads, T N, E / heads)
        seen = seen.view(batch, self.heads, targets, tokens, -1).transpose(1, 2).flatten(0, 1)
        seen = seen + shares[..., -tokens:].flatten(0, 1) @ own_value
        return self._leave(x.flatten(0, 1), seen, change_mlp).view(batch, targets, tokens, dim)

    def _project(self, x: Tensor, change: Modulation = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of tokens (n, N, E), each (n, heads, N, E / heads)."""
        normed = _modulated(self.norm(x), change)
        query, key, value = self.qkv(normed).view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.norm_query(query), self.norm_key(key), value

    @staticmethod
    def _logits(query: Tensor, key: Tensor) -> Tensor:
        logits: Tensor = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        return logits

    def _leave(self, x: Tensor, seen: Tensor, change: Modulation = None) -> Tensor:
        """Return tokens (n, N, E) after attention, whose result has the shape (n, heads, N, E / heads)."""
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        after: Tensor = x + self.mlp(_modulated(self.norm_mlp(x), change))
        return after


def _modulated(x: Tensor, change: Modulation) -> Tensor:
    return x if change is None else x * (1 + change[0]) + change[1]


def _distance(frames: Tensor, others: Tensor, patch: int) -> Tensor:
    """Return the root of the mean squared difference of each patch of frames (..., 3, H, W)."""
    squared = (frames - others).square().mean(-3).flatten(0, -3)
    return _root(functional.avg_pool2d(squared, patch, ceil_mode=True))  # patches at the edge may be smaller


def _root(squared: Tensor) -> Tensor:
    """Return the root of squared errors, with finite gradients at 0."""
    return (squared + _SMALL_ERROR).sqrt() - math.sqrt(_SMALL_ERROR)


def axes(poses: Tensor, yaw_sign: int) -> Tensor:
    """Return the directions forward, right and up of cameras as rows: (..., 7) to (..., 3, 3).

    Args:
        poses: x, y, z and sine and cosine of yaw and pitch.
        yaw_sign: 1 if yaw grows counter-clockwise seen from above, -1 if clockwise; the world is right-handed.
    """
    sin_yaw, cos_yaw, sin_pitch, cos_pitch = poses[..., 3:].unbind(-1)
    sin_yaw = yaw_sign * sin_yaw
    forward = torch.stack([cos_yaw * cos_pitch, sin_yaw * cos_pitch, sin_pitch], -1)
    right = torch.stack([sin_yaw, -cos_yaw, torch.zeros_like(sin_yaw)], -1)
    up = torch.stack([-cos_yaw * sin_pitch, -sin_yaw * sin_pitch, cos_pitch], -1)
    return torch.stack([forward, right, up], -2)


def pixel_table(frames: Tensor) -> Tensor:
    """Return frames (B, K, 3, H, W) as `Encoded.pixels`, interpolated linearly FINE times as fine.

    In bfloat16 under autocast: colours of 8 bits lose next to nothing.
    """
    kind = frames.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else frames.dtype
    with torch.no_grad(), torch.autocast(kind, enabled=False):
        size = frames.shape[-1]
        lines = torch.eye(size, dtype=frames.dtype, device=frames.device)[None]
        spread = functional.interpolate(lines, scale_factor=FINE, mode="linear", align_corners=False)[0]
        fine = spread.T @ frames.flatten(0, 1) @ spread  # as bilinear interpolation, but faster on CPUs
        table = torch.empty(1 + fine[:, 0].numel(), 4, dtype=dtype, device=frames.device)
        table[0], table[1:, 3] = 0, 1
        table[1:, :3] = fine.permute(0, 2, 3, 1).reshape(-1, 3)
        return table


def _check(config: ModelConfig) -> None:
    """Raise OptionError unless the network can be built."""
    if not config.frame_size:
        raise OptionError("frame_size is 0, expected a multiple of 4 from 8: a network without a dataset needs it")
    if not (config.field_of_view and config.yaw_sign and config.near and config.far):
        raise OptionError(
            "field_of_view, yaw_sign, near or far is 0, expected the geometry of the dataset; pass --field-of-view, "
            "--yaw-sign, --near and --far, or write it with SceneWriter(field_of_view=, yaw_sign=, depth_range=)"
        )
