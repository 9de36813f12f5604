"""Convolutions of concatenated maps, each part computed in the way that is fastest on its device.

docs/decisions.md says what each way gains and where it does not pay.

Shapes: B samples, S input channels, G output channels, k kernel size (odd), h = w map size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

# Parts with fewer channels are narrow: tensor cores take 64 at a time, and 3 channels next to 128 spoil the alignment
# of both.
NARROW = 32
# Matrix products in bfloat16 are fast if their sizes are multiples of this.
_ALIGNED = 8


def convolves_narrow_separately(tensor: Tensor) -> bool:
    """Return whether narrow parts are convolved separately from wide ones: only on a GPU; on a CPU it costs more."""
    return tensor.is_cuda


def convolve(parts: Sequence[Tensor], weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the zero-padded convolution of the concatenated `parts`, (B, G, h, h).

    Args:
        parts: each (B, _, h, h), in the order of the weight's input channels.
        weight: (G, S, k, k).
        bias: (G,) or None.
    """
    return convolve_each(parts, [weight], [bias])[0]


def convolve_each(
    parts: Sequence[Tensor], weights: Sequence[Tensor], biases: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """Return the convolutions of the same concatenated `parts` with several weights, one after another.

    One convolution with all weights is slower: on a CPU they exceed the caches, and on a GPU splitting the output and
    concatenating its gradients costs more than the larger convolution gains.

    Args:
        parts: each (B, _, h, h), in the order of the weights' input channels.
        weights: (G, S, k, k) each.
        biases: for each weight (G,) or None.
    """
    padding = weights[0].shape[2] // 2
    narrow = [at for at, part in enumerate(parts) if part.shape[1] < NARROW]
    if not narrow or not convolves_narrow_separately(parts[0]):
        x = _concatenate(parts)
        return tuple(functional.conv2d(x, w, b, padding=padding) for w, b in zip(weights, biases, strict=True))
    others = [at for at in range(len(parts)) if at not in narrow]
    patches = _unfold(_concatenate([parts[at] for at in narrow]), 2 * padding + 1)
    wide = _concatenate([parts[at] for at in others]) if others else None
    made = []
    for weight, bias in zip(weights, biases, strict=True):
        cut = torch.split(weight, [part.shape[1] for part in parts], 1)
        of_narrow = _concatenate([cut[at] for at in narrow]).flatten(1)
        of_narrow = functional.pad(of_narrow, (0, patches.shape[3] - of_narrow.shape[1]))
        sums = functional.linear(patches, of_narrow, bias).movedim(3, 1)
        if wide is not None:
            sums = sums + functional.conv2d(wide, _concatenate([cut[at] for at in others]), padding=padding)
        made.append(sums)
    return tuple(made)


def narrowed(tensor: Tensor) -> Tensor:
    """Return the tensor in autocast's dtype: cast once instead of at each use."""
    kind = tensor.device.type
    if tensor.is_meta or not torch.is_autocast_enabled(kind):
        return tensor
    return tensor.to(torch.get_autocast_dtype(kind))


def convolve_constant(vectors: Tensor, weight: Tensor, side: int) -> Tensor:
    """Return the zero-padded convolution of maps that hold one vector at every position.

    A position sees the kernel taps inside the map, so each tap is multiplied once and each position sums its taps.

    Args:
        vectors: (B, S).
        weight: (G, S, k, k), k odd.
        side: h; may be smaller than the kernel.

    Returns:
        (B, G, h, h).
    """
    kernel = weight.shape[2]
    positions = torch.arange(side, device=weight.device)[:, None]
    seen = positions + torch.arange(kernel, device=weight.device) - kernel // 2
    inside = ((seen >= 0) & (seen < side)).to(vectors.dtype)  # (h, k): taps that a row or column sees
    taps = torch.einsum("bs,gsyx->bgyx", vectors, weight)
    return inside @ taps @ inside.T


def _concatenate(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)


def _unfold(x: Tensor, kernel: int) -> Tensor:
    """Unfold few channels into patches, (B, h, h, S k k) zero-padded to a multiple of 8.

    Their convolution is then one matrix product.
    """
    seen = functional.pad(x, (kernel // 2,) * 4).unfold(2, kernel, 1).unfold(3, kernel, 1)  # (B, S, h, h, k, k)
    seen = seen.permute(0, 2, 3, 1, 4, 5).flatten(3)
    return functional.pad(seen, (0, -seen.shape[3] % _ALIGNED))
