"""Convolutions of joined maps, each part in the way that its device is fast in; every sum is that of the plain one.

Knows nothing of the network: what is joined, and where from, is in `cores` and `representations`. What each way
brings, and where it does not pay and so is not taken, is in docs/decisions.md.

Shapes: B samples, S channels of an input, G of what comes out, k the side of a kernel (odd), h = w the side of maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

# Parts of fewer channels are narrow: the tensor cores of a GPU take 64 at a time, and a part of 3 beside one of 128
# spoils the alignment of both.
NARROW = 32
# Products of matrices in bfloat16 are fast where their sides are multiples of this.
_ALIGNED = 8


def apart(tensor: Tensor) -> bool:
    """Whether narrow parts are convolved apart from the wide ones there: on a GPU; on a CPU it costs more."""
    return tensor.is_cuda


def convolve(parts: Sequence[Tensor], weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The convolution, padded with zeros, of the joined `parts`: (B, G, h, h).

    Args:
        parts: each (B, _, h, h), in the order in which the weight reads them.
        weight: (G, S, k, k).
        bias: (G,); None: there is none.
    """
    return convolve_each(parts, [weight], [bias])[0]


def convolve_each(
    parts: Sequence[Tensor], weights: Sequence[Tensor], biases: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """The convolutions of the same joined `parts` with several weights, one after another.

    Not as one with all weights: on a CPU they leave the caches, and on a GPU what comes out has to be cut apart, and
    its gradients joined, which costs more than the larger convolution brings.

    Args:
        parts: each (B, _, h, h), in the order in which a weight reads them.
        weights: (G, S, k, k) each.
        biases: of each weight, (G,), or None.
    """
    padding = weights[0].shape[2] // 2
    narrow = [at for at, part in enumerate(parts) if part.shape[1] < NARROW]
    if not narrow or not apart(parts[0]):
        x = _joined(parts)
        return tuple(functional.conv2d(x, w, b, padding=padding) for w, b in zip(weights, biases, strict=True))
    others = [at for at in range(len(parts)) if at not in narrow]
    places = _places(_joined([parts[at] for at in narrow]), 2 * padding + 1)
    wide = _joined([parts[at] for at in others]) if others else None
    made = []
    for weight, bias in zip(weights, biases, strict=True):
        cut = torch.split(weight, [part.shape[1] for part in parts], 1)
        of_narrow = _joined([cut[at] for at in narrow]).flatten(1)
        of_narrow = functional.pad(of_narrow, (0, places.shape[3] - of_narrow.shape[1]))
        sums = functional.linear(places, of_narrow, bias).movedim(3, 1)
        if wide is not None:
            sums = sums + functional.conv2d(wide, _joined([cut[at] for at in others]), padding=padding)
        made.append(sums)
    return tuple(made)


def narrowed(tensor: Tensor) -> Tensor:
    """The tensor in the type that autocast computes in: cast once, where each of many uses would cast it again."""
    kind = tensor.device.type
    if tensor.is_meta or not torch.is_autocast_enabled(kind):
        return tensor
    return tensor.to(torch.get_autocast_dtype(kind))


def convolve_constant(vectors: Tensor, weight: Tensor, side: int) -> Tensor:
    """The convolution, padded with zeros, of maps whose every place holds the same vector.

    A place sees of the kernel what lies inside the map; so each tap is multiplied once, and a place sums its taps.

    Args:
        vectors: (B, S).
        weight: (G, S, k, k), k odd.
        side: h; also one smaller than the kernel.

    Returns:
        (B, G, h, h).
    """
    kernel = weight.shape[2]
    places = torch.arange(side, device=weight.device)[:, None]
    seen = places + torch.arange(kernel, device=weight.device) - kernel // 2
    inside = ((seen >= 0) & (seen < side)).to(vectors.dtype)  # (h, k): which taps a row or column sees
    taps = torch.einsum("bs,gsyx->bgyx", vectors, weight)
    return inside @ taps @ inside.T


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)


def _places(x: Tensor, kernel: int) -> Tensor:
    """What the kernel sees at every place of few channels, (B, h, h, S k k), and zeros up to a multiple of 8.

    So that their convolution is one product of matrices.
    """
    seen = functional.pad(x, (kernel // 2,) * 4).unfold(2, kernel, 1).unfold(3, kernel, 1)  # (B, S, h, h, k, k)
    seen = seen.permute(0, 2, 3, 1, 4, 5).flatten(3)
    return functional.pad(seen, (0, -seen.shape[3] % _ALIGNED))
