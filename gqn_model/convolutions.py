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
    padding = weight.shape[2] // 2
    narrow = [part.shape[1] < NARROW for part in parts]
    if not any(narrow) or not apart(parts[0]):
        return functional.conv2d(_joined(parts), weight, bias, padding=padding)
    weights = torch.split(weight, [part.shape[1] for part in parts], 1)

    def of(kind: bool) -> tuple[Tensor, Tensor]:
        chosen = [at for at, found in enumerate(narrow) if found is kind]
        return _joined([parts[at] for at in chosen]), _joined([weights[at] for at in chosen])

    sums = _convolve_narrow(*of(True), bias)
    return sums if all(narrow) else sums + functional.conv2d(*of(False), padding=padding)


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


def _convolve_narrow(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of few channels as one product: what a place sees, S k k numbers, times the weights."""
    kernel = weight.shape[2]
    margin = kernel // 2
    seen = functional.pad(x, (margin,) * 4).unfold(2, kernel, 1).unfold(3, kernel, 1)  # (B, S, h, h, k, k)
    seen = seen.permute(0, 2, 3, 1, 4, 5).flatten(3)  # (B, h, h, S k k)
    missing = -seen.shape[3] % _ALIGNED
    weights = functional.pad(weight.flatten(1), (0, missing))
    return functional.linear(functional.pad(seen, (0, missing)), weights, bias).movedim(3, 1)
