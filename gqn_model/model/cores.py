"""The recurrent cores of GQN and the canvas.

The rewrites that make the network fast are here; every sum is the paper's, in another order. docs/decisions.md says
what each rewrite gains and where it does not pay.

Shapes: B samples, L generation steps, C cores (L, or 1 if shared), D state channels, U canvas channels, S channels of
the static input, k kernel size, h = w = H/4 map size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gqn_model.model.convolutions import convolve, convolve_constant, convolve_each, narrowed
from gqn_model.model.distributions import wide
from gqn_model.model.init import draw_gates


class State(NamedTuple):
    """State of a ConvLSTM; both (B, D, h, w)."""

    hidden: Tensor
    cell: Tensor


class ConvLSTM(nn.Module):
    """C convolutional LSTMs whose gates read [state, moving input, static input].

    The convolution of concatenated inputs is the sum of the convolutions of its parts. The part that reads the static
    input is computed once; with a shared core that is L times less work.

    Args:
        moving: channels of the input that changes between steps, without the state.
        static: S.
        hidden: D.
        pose: channel of the static input at which the pose begins, and its numbers.
        kernel: kernel size, odd.
        cores: C.
        side: h.
    """

    def __init__(
        self, moving: int, static: int, hidden: int, *, pose: tuple[int, int], kernel: int, cores: int, side: int
    ) -> None:
        super().__init__()
        self.cores, self.side = cores, side
        self.parts = [pose[1], static - sum(pose)]  # channels of pose and r
        self.static = nn.Conv2d(static, cores * 4 * hidden, kernel, padding=kernel // 2)
        shape = (4 * hidden, hidden + moving, kernel, kernel)
        self.moving = nn.ParameterList(nn.Parameter(torch.empty(shape)) for _ in range(cores))
        draw_gates([self.static.weight, *self.moving], self.static.bias, channels=hidden + moving + static, pose=pose)

    def prepare(self, static: Tensor, frames: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        """Return the static input's share of the gates of each core: C tensors (B, 4D, h, w).

        Args:
            static: pose and r, (B, _, h, w), or (B, _, 1, 1) if constant over the map.
            frames: static input in front of them, (B, _, h, w): none, one for all cores, or one for each.
        """
        weight, bias = self.static.weight, self.static.bias
        assert bias is not None  # noqa: S101  created with a bias
        if static.shape[2] != self.side:
            of_frame, of_static = torch.split(weight, [weight.shape[1] - static.shape[1], static.shape[1]], 1)
            gates = convolve_constant(static[:, :, 0, 0], of_static, self.side) + bias[:, None, None]
            if len(frames) == 1:
                gates = gates + convolve(frames, of_frame)
            shares = gates.chunk(self.cores, 1)
            if len(frames) > 1:
                pairs = zip(frames, of_frame.chunk(self.cores), strict=True)
                shares = tuple(share + convolve([frame], w) for share, (frame, w) in zip(shares, pairs, strict=True))
            return shares
        parts, weights, biases = torch.split(static, self.parts, 1), weight.chunk(self.cores), bias.chunk(self.cores)
        if len(frames) > 1:
            return tuple(convolve([f, *parts], w, b) for f, w, b in zip(frames, weights, biases, strict=True))
        return convolve_each([*frames, *parts], weights, biases)

    def forward(self, weight: Tensor, state: State | None, moving: list[Tensor], prepared: Tensor) -> State:
        """Return the state after one step.

        Args:
            weight: of the core, (4D, D + _, k, k), which reads [state, moving input].
            state: previous state; None stands for zeros and skips their convolution.
            moving: parts of the moving input, each (B, _, h, w), in order; if `state` is None, leading parts that are
                zero may be omitted.
            prepared: output of `prepare` for this core.
        """
        parts = moving if state is None else [state.hidden, *moving]
        gates = prepared
        if parts:
            # Leading zeros are omitted together with the weights that would read them.
            unread = weight.shape[1] - sum(part.shape[1] for part in parts)
            gates = prepared + convolve(parts, weight[:, unread:] if unread else weight)
        forget, enter, leave, new = gates.chunk(4, 1)
        cell = torch.sigmoid(enter) * torch.tanh(new)
        if state is not None:
            cell = cell + torch.sigmoid(forget) * state.cell
        return State(torch.sigmoid(leave) * torch.tanh(cell), cell)


class Canvas(nn.Module):
    """The canvas u (B, U, H, W): steps add to it, the inference core reads it, the frame is observed from it.

    The canvas is never built. Adding, reading and observing are linear, so two of these maps compose into one 1x1
    convolution of the states. A shared core keeps the sum of the states, (B, D, h, w); separate cores, whose maps
    differ, keep all l states so far, (B, l D, h, w). A shared core reads the sum through weights composed once per
    pass. With separate cores composing would multiply the 5x5 convolutions by l, so the canvas is read first. Weights
    keep the shapes of the paper's layers.

    Args:
        hidden: D.
        canvas: U.
        cores: C.
        shared: whether all steps share one core.
    """

    def __init__(self, hidden: int, canvas: int, cores: int, *, shared: bool) -> None:
        super().__init__()
        self.shared = shared
        ups = [nn.ConvTranspose2d(hidden, canvas, 4, 4, bias=False) for _ in range(cores)]
        # With separate cores the first one reads an empty canvas. A weight for that would never get a gradient, for
        # which DDP would have to search.
        first = 0 if shared else 1
        downs = [nn.Conv2d(canvas, canvas, 4, 4) for _ in range(cores)]
        self.up = nn.ParameterList(up.weight for up in ups)  # (D, U, 4, 4)
        self.down = nn.ParameterList(down.weight for down in downs[first:])  # (U, U, 4, 4)
        self.down_bias = nn.ParameterList(down.bias for down in downs)
        self.observe_head = nn.Conv2d(canvas, 3, 1)

    def maps(self) -> list[Tensor]:
        """Return the maps from states to what the inference core reads of the canvas, (U, _) each; once per pass.

        The first is for the canvas after one step; a shared core has one for all steps.
        """
        ups = [up.flatten(1) for up in self.up]  # (D, 16U)
        downs = [down.flatten(1) for down in self.down]  # (U, 16U)
        return [down @ torch.cat(ups[: at + 1]).T for at, down in enumerate(downs)]

    def through(self, weights: Sequence[Tensor], maps: list[Tensor], side: int) -> tuple[list[Tensor], Tensor]:
        """Return the inference core's weights for the output of `read`, and the gates' share of an empty canvas.

        A shared core adds that share at every step, separate cores only at the first.

        Args:
            weights: of the inference core, (4D, _ + U, k, k) each, whose last U input channels are the canvas.
            maps: from `maps`.
            side: h.

        Returns:
            The same number of weights, and a constant (1, 4D, h, w).
        """
        bias = self.down_bias[0]
        constant = convolve_constant(bias[None], weights[0][:, -len(bias) :], side)
        if not self.shared:
            return [narrowed(weight) for weight in weights], constant
        own = weights[0].shape[1] - len(bias)
        before, of_canvas = torch.split(weights[0], [own, len(bias)], 1)
        composed = torch.cat([before, torch.einsum("guyx,ud->gdyx", of_canvas, maps[0])], 1)
        last = weights[0].is_contiguous(memory_format=torch.channels_last)
        composed = composed.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        return [narrowed(composed)], constant

    def add(self, canvas: Tensor | None, hidden: Tensor) -> Tensor:
        """Return the canvas after adding the state `hidden` (B, D, h, w); None stands for an empty canvas."""
        if canvas is None:
            return hidden
        return canvas + hidden if self.shared else torch.cat([canvas, hidden], 1)

    def read(self, maps: list[Tensor], step: int, canvas: Tensor) -> Tensor:
        """Return what a step's inference core reads with the weights of `through`, (B, U or D, h, w)."""
        return (
            canvas if self.shared else functional.conv2d(canvas, maps[step - 1][:, :, None, None], self.down_bias[step])
        )

    def observe(self, canvas: Tensor) -> Tensor:
        """Return the mean of the frame, (B, 3, H, W), in float32 or wider even under autocast."""
        # The device `meta` does not support autocast.
        exact = contextlib.nullcontext() if canvas.is_meta else torch.autocast(canvas.device.type, enabled=False)
        with exact:
            head = self.observe_head.weight[:, :, 0, 0]  # (3, U)
            maps = [torch.einsum("duyx,ou->oyxd", up, head).flatten(0, 2) for up in self.up]  # (3 * 16, D)
            bias = self.observe_head.bias
            assert bias is not None  # noqa: S101  created with a bias
            cells = functional.conv2d(wide(canvas), torch.cat(maps, 1)[:, :, None, None])
            frame: Tensor = functional.pixel_shuffle(cells, 4) + bias[:, None, None]
            return frame
