"""The recurrent cores of GQN, and the canvas they paint on. No sampling and no loss: those are in `model`.

Shapes: B samples, L steps, C cores (L of them, or 1 that all steps share), D channels of a state, U channels of
the canvas, S channels of the input that stays the same from step to step, h = w = H/4 the side of the maps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gqn_model.initial import draw_gates


class State(NamedTuple):
    """The state of a ConvLSTM; both (B, D, h, w)."""

    hidden: Tensor
    cell: Tensor


class ConvLSTM(nn.Module):
    """C convolutional LSTMs whose gates read [state, moving input, static input].

    A convolution of joined inputs is the sum of the convolutions of its parts. The part that reads the static input
    is computed once, for all cores in one convolution; with a shared core that is L times less work.

    Args:
        moving: channels of the input that changes from step to step, the state not counted.
        static: S.
        hidden: D.
        pose: where in the static input the pose begins, and its numbers.
        kernel: side of the kernels, odd.
        cores: C.
    """

    def __init__(
        self, moving: int, static: int, hidden: int, *, pose: tuple[int, int], kernel: int, cores: int
    ) -> None:
        super().__init__()
        self.cores = cores
        self.padding = kernel // 2
        self.static = nn.Conv2d(static, cores * 4 * hidden, kernel, padding=self.padding)
        shape = (4 * hidden, hidden + moving, kernel, kernel)
        self.moving = nn.ParameterList(nn.Parameter(torch.empty(shape)) for _ in range(cores))
        draw_gates([self.static.weight, *self.moving], self.static.bias, channels=hidden + moving + static, pose=pose)

    def prepare(self, static: Tensor) -> tuple[Tensor, ...]:
        """The share of the static input (B, S, h, w) in the gates of each core: C tensors (B, 4D, h, w)."""
        gates: Tensor = self.static(static)
        return gates.chunk(self.cores, 1)

    def forward(self, core: int, state: State | None, moving: list[Tensor], prepared: Tensor) -> State:
        """The state after one step of core `core`.

        Args:
            core: 0 to C - 1.
            state: the state before; None stands for zeros, which then cost nothing.
            moving: the parts of the changing input, each (B, _, h, w), in order; leading parts that are all zero
                may be left out where `state` is None.
            prepared: what `prepare` gave for this core.
        """
        weight = self.moving[core]
        parts = moving if state is None else [state.hidden, *moving]
        gates = prepared
        if parts:
            x = torch.cat(parts, 1)
            # zeros at the head of the input are left out together with the weights that would read them
            gates = gates + functional.conv2d(x, weight[:, weight.shape[1] - x.shape[1] :], padding=self.padding)
        forget, enter, leave, new = gates.chunk(4, 1)
        cell = torch.sigmoid(enter) * torch.tanh(new)
        if state is not None:
            cell = cell + torch.sigmoid(forget) * state.cell
        return State(torch.sigmoid(leave) * torch.tanh(cell), cell)


class Canvas(nn.Module):
    """The canvas u (B, U, H, W), to which every step adds, which the inference core reads, and which is observed.

    It is never built. With separate cores it is kept folded, (B, 16U, h, w): a transposed convolution k4 s4 is then
    a 1x1 convolution to it, a convolution k4 s4 a 1x1 convolution from it. With a shared core both are linear maps
    of the sum of the states so far, composed into one. Weights keep the shapes of the layers that the paper names.

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
        # With separate cores the first reads an empty canvas: a weight for that would never learn.
        self.first = 0 if shared else 1
        downs = [nn.Conv2d(canvas, canvas, 4, 4) for _ in range(cores)]
        self.up = nn.ParameterList(up.weight for up in ups)  # (D, U, 4, 4)
        self.down = nn.ParameterList(down.weight for down in downs[self.first :])  # (U, U, 4, 4)
        self.down_bias = nn.ParameterList(down.bias for down in downs)
        self.observe_head = nn.Conv2d(canvas, 3, 1)

    def weights(self) -> CanvasWeights:
        """The weights as the steps use them; computed once a pass."""
        ups = [up.flatten(1) for up in self.up]  # (D, 16U)
        downs = [down.flatten(1) for down in self.down]  # (U, 16U)
        biases = list(self.down_bias)
        if self.shared:
            return CanvasWeights([], [(downs[0] @ ups[0].T)[:, :, None, None]], biases)
        return CanvasWeights([w.T[:, :, None, None] for w in ups], [w[:, :, None, None] for w in downs], biases)

    def add(self, weights: CanvasWeights, core: int, canvas: Tensor | None, hidden: Tensor) -> Tensor:
        """The canvas after core `core` added the state `hidden` (B, D, h, w); None stands for an empty one."""
        more = hidden if self.shared else functional.conv2d(hidden, weights.up[core])
        return more if canvas is None else canvas + more

    def read(self, weights: CanvasWeights, core: int, canvas: Tensor | None, like: Tensor) -> Tensor:
        """What the inference core reads of the canvas: (B, U, h, w), the batch and side of `like`."""
        bias = weights.bias[core]
        if canvas is None:
            return bias[None, :, None, None].expand(len(like), -1, *like.shape[2:])
        return functional.conv2d(canvas, weights.down[core - self.first], bias)

    def observe(self, canvas: Tensor) -> Tensor:
        """The mean of the frame that the canvas shows: (B, 3, H, W)."""
        head = self.observe_head.weight[:, :, 0, 0]  # (3, U)
        bias = self.observe_head.bias
        if self.shared:
            return functional.conv_transpose2d(canvas, torch.einsum("duyx,ou->doyx", self.up[0], head), bias, stride=4)
        batch, channels, height, width = canvas.shape
        unfolded = canvas.reshape(batch, channels // 16, 16 * height, width)
        seen = functional.conv2d(
            unfolded, self.observe_head.weight, bias
        )  # one 1x1 for each of the 16 places of a cell
        return functional.pixel_shuffle(seen.reshape(batch, 3 * 16, height, width), 4)


class CanvasWeights(NamedTuple):
    """The weights of the canvas as 1x1 convolutions, a list entry a core."""

    up: list[Tensor]
    down: list[Tensor]
    bias: list[Tensor]
