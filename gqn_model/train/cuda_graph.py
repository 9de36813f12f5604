"""Work on a GPU as one CUDA graph: captured once, replayed with other numbers. What the work is, is the caller's.

Launching the thousands of small kernels of a step takes a processor longer than a GPU takes to run them; a graph is
launched as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from gqn_model.model.inputs import Context, Inputs

T = TypeVar("T")

# Calls before the capture, on its stream: libraries set themselves up, compilers compile and optimisers make their
# state in them, none of which a graph may hold (torch's documentation of CUDA graphs asks for some such).
WARM = 3


class CudaGraphStep(Generic[T]):
    """The same work on (inputs, sigma, noise) of the same shapes, replayed as a graph after some calls.

    What it gives is overwritten by the next call.

    Args:
        work: a fixed course of work on the GPU: it waits for nothing, and no number decides what is done.
    """

    def __init__(self, work: Callable[[Inputs, Tensor, Tensor], T]) -> None:
        self._work = work
        self._calls = 0
        self._held: list[Tensor] = []
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, inputs: Inputs, sigma: Tensor, noise: Tensor) -> T:
        """Does the work, or has it done."""
        given = [*inputs.context, inputs.query, inputs.target, sigma, noise]
        if not self._held:
            self._held = [tensor.clone() for tensor in given]
        # The first calls take the tensors of the graph, too: a compiler makes others for other strides.
        for own, new in zip(self._held, given, strict=True):
            own.copy_(new)
        self._calls += 1
        if self._calls <= WARM:
            return self._as_it_is()
        if self._graph is None:
            self._graph = self._captured()
        self._graph.replay()
        return self._result

    def _on_held(self) -> T:
        *context, query, target, sigma, noise = self._held
        return self._work(Inputs(Context(*context), query, target), sigma, noise)

    def _as_it_is(self) -> T:
        """Each of the two streams waits for the other, so that neither takes memory that the other still reads."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = self._on_held()
        torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def _captured(self) -> torch.cuda.CUDAGraph:
        """The graph of the work, of which nothing is run yet."""
        graph = torch.cuda.CUDAGraph()
        # Of this thread: what those of the loader ask of the driver meanwhile is no part of it.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._result = self._on_held()
        return graph
