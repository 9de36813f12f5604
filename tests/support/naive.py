"""The network as drawn in the paper: full-size canvas, concatenated inputs, nothing precomputed. An oracle.

It is independent of `gqn_model`, and reads only the parameters of a network, by name. `plain_parameters` converts them
to the parameters of the plain network, which all other functions read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from gqn_model.config import ModelConfig


def _conv(p: dict[str, Tensor], name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = p[f"{name}.weight"]
    return F.conv2d(x, weight, p[f"{name}.bias"], stride, 0 if stride > 1 else weight.shape[2] // 2)


def _view(p: dict[str, Tensor], c: ModelConfig, frame: Tensor, pose: Tensor) -> Tensor:
    """Compute the representation of one view: frame (1, 3, H, W), pose (P,)."""
    n = "representation."
    if c.representation == "pyramid":
        x = torch.cat([frame, pose[None, :, None, None].expand(1, -1, *frame.shape[2:])], 1)
        x = F.relu(_conv(p, n + "layers.0", x, 2))
        x = F.relu(_conv(p, n + "layers.2", x, 2))
        if x.shape[2] % 2:
            x = F.pad(x, (0, 1, 0, 1))
        x = F.relu(_conv(p, n + "layers.5", x, 2))
        return F.relu(F.conv2d(x, p[n + "layers.7.weight"], p[n + "layers.7.bias"]))
    x = F.relu(_conv(p, n + "enter", frame, 2))
    skip = F.relu(_conv(p, n + "skip_down", x, 2))
    x = F.relu(_conv(p, n + "down_2", F.relu(_conv(p, n + "down_1", x)), 2)) + skip
    x = torch.cat([x, pose[None, :, None, None].expand(1, -1, *x.shape[2:])], 1)
    skip = F.relu(_conv(p, n + "skip_posed", x))
    x = F.relu(_conv(p, n + "posed_2", F.relu(_conv(p, n + "posed_1", x)))) + skip
    x = F.relu(_conv(p, n + "leave", x))
    if c.representation == "pool":
        return x.mean((2, 3), keepdim=True)
    averaged = range(c.representation_channels - c.pooled_channels, c.representation_channels)
    return torch.stack(
        [x[:, k].mean() * torch.ones_like(x[:, k]) if k in averaged else x[:, k] for k in range(x.shape[1])], 1
    )


def _scene(p: dict[str, Tensor], c: ModelConfig, frames: Tensor, poses: Tensor, mask: Tensor) -> Tensor:
    """Sum the representations of each sample, one view at a time."""
    rows = []
    for b in range(len(mask)):
        total: Tensor | None = None
        for k in range(mask.shape[1]):
            if mask[b, k]:
                r = _view(p, c, frames[b, k][None], poses[b, k])
                total = r if total is None else total + r
        rows.append(total)
    return torch.cat(rows).expand(-1, -1, c.frame_size // 4, c.frame_size // 4)


def plain_parameters(p: dict[str, Tensor], c: ModelConfig) -> dict[str, Tensor]:
    """Return the parameters of the plain network: per core a look and one weight of the gates, over [h, x, static]."""
    own = (".moving.", ".static.", "look.")
    plain = {name: value for name, value in p.items() if not any(part in name for part in own)}
    for core in range(1 if c.shared_cores else c.core_steps):
        first = 0 if c.shared_look else core * c.look_channels
        for part in ("weight", "bias"):
            plain[f"look.{core}.{part}"] = p[f"look.{part}"][first : first + c.look_channels]
    for name in ("generation", "inference"):
        for core in range(1 if c.shared_cores else c.core_steps):
            rows = slice(core * 4 * c.hidden, (core + 1) * 4 * c.hidden)
            plain[f"{name}.{core}.weight"] = torch.cat(
                [p[f"{name}.moving.{core}"], p[f"{name}.static.weight"][rows]], 1
            )
            plain[f"{name}.{core}.bias"] = p[f"{name}.static.bias"][rows]
    return plain


def _lstm(
    p: dict[str, Tensor], c: ModelConfig, name: str, x: Tensor, static: Tensor, h: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor]:
    f, i, o, g = _conv(p, name, torch.cat([h, x, static], 1)).split(c.hidden, 1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def _run(
    p: dict[str, Tensor],
    c: ModelConfig,
    context: tuple[Tensor, Tensor, Tensor],
    query: Tensor,
    noise: Tensor,
    target: Tensor | None,
    represent: Callable[[Any], Tensor] | None = None,
) -> tuple[Tensor, list[Tensor]]:
    side, size, batch = c.frame_size // 4, c.frame_size, len(query)
    v = query[:, :, None, None].expand(-1, -1, side, side)
    r = _scene(p, c, *context) if represent is None else represent(context).expand(-1, -1, side, side)
    h_g, c_g, h_e, c_e = (torch.zeros(batch, c.hidden, side, side, dtype=r.dtype, device=r.device) for _ in range(4))
    u = torch.zeros(batch, c.canvas, size, size, dtype=r.dtype, device=r.device)
    kls = []
    for step in range(c.core_steps):
        core = 0 if c.shared_cores else step
        prior = torch.distributions.Normal(*_heads(_conv(p, "prior_head", h_g)))
        z = prior.mean + prior.stddev * noise[step]
        if target is not None:
            x = _conv(p, f"look.{core}", target, 4)
            if c.shared_cores or core:
                down = p[f"canvas.down.{core - (not c.shared_cores)}"]
            else:  # the canvas is still empty, so its weights do not matter
                down = torch.zeros(c.canvas, c.canvas, 4, 4, dtype=r.dtype, device=r.device)
            u_low = F.conv2d(u, down, p[f"canvas.down_bias.{core}"], 4)
            h_e, c_e = _lstm(p, c, f"inference.{core}", torch.cat([h_g, u_low], 1), torch.cat([x, v, r], 1), h_e, c_e)
            posterior = torch.distributions.Normal(*_heads(_conv(p, "posterior_head", h_e)))
            kls.append(torch.distributions.kl_divergence(posterior, prior).sum((1, 2, 3)))
            z = posterior.mean + posterior.stddev * noise[step]
        h_g, c_g = _lstm(p, c, f"generation.{core}", z, torch.cat([v, r], 1), h_g, c_g)
        u = u + F.conv_transpose2d(h_g, p[f"canvas.up.{core}"], stride=4)
    return F.conv2d(u, p["canvas.observe_head.weight"], p["canvas.observe_head.bias"]), kls


def _heads(both: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_variance = both.chunk(2, 1)
    return mean, log_variance.exp().sqrt()


def naive_elbo(
    p: dict[str, Tensor],
    c: ModelConfig,
    context: tuple[Tensor, Tensor, Tensor],
    query: Tensor,
    target: Tensor,
    sigma: float,
    noise: Tensor,
    represent: Callable[[Any], Tensor] | None = None,
) -> Tensor:
    """Compute the ELBO of each sample, (B,). `represent` may replace the plain representation."""
    mean, kls = _run(p, c, context, query, noise, target, represent)
    likelihood = -((target - mean) ** 2) / (2 * sigma**2) - math.log(sigma) - math.log(2 * math.pi) / 2
    return likelihood.sum((1, 2, 3)) - torch.stack(kls).sum(0)


def naive_prediction(
    p: dict[str, Tensor], c: ModelConfig, context: tuple[Tensor, Tensor, Tensor], query: Tensor, noise: Tensor
) -> Tensor:
    """Compute the prediction from the prior, (B, 3, H, W)."""
    return _run(p, c, context, query, noise, None)[0]
