"""A training step as one CUDA graph: captured once, then replayed with new inputs.

A processor takes longer to launch the thousands of small kernels of a step than a GPU takes to run them; a graph is
launched in one call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from gqn_model.model.inputs import Context, Inputs

T = TypeVar("T")

# Eager calls on the capture stream before the capture: libraries initialise, compilers compile and optimisers create
# their state, and a graph must not contain any of that (torch's documentation asks for such a warm-up).
WARM_UP = 3


class CudaGraphStep(Generic[T]):
    """Call `work(inputs, sigma, noise)` on tensors of fixed shapes; after a few calls replay it as a graph.

    The next call overwrites the result.

    Args:
        work: runs the same kernels on every call, never syncs, and branches on no value of a tensor.
    """

    def __init__(self, work: Callable[[Inputs, Tensor, Tensor], T]) -> None:
        self._work = work
        self._calls = 0
        self._static: list[Tensor] = []
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, inputs: Inputs, sigma: Tensor, noise: Tensor) -> T:
        """Run or replay the work."""
        given = [*inputs.context, inputs.query, inputs.target, sigma, noise]
        if not self._static:
            self._static = [tensor.clone() for tensor in given]
        # Eager calls use the graph's tensors as well: other strides would make a compiler compile again.
        for static, new in zip(self._static, given, strict=True):
            static.copy_(new)
        self._calls += 1
        if self._calls <= WARM_UP:
            return self._eager()
        if self._graph is None:
            self._graph = self._capture()
        self._graph.replay()
        return self._result

    def _run(self) -> T:
        *context, query, target, sigma, noise = self._static
        return self._work(Inputs(Context(*context), query, target), sigma, noise)

    def _eager(self) -> T:
        """Run the work on the capture stream; both streams wait, so that neither reuses memory that the other reads."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = self._run()
        torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def _capture(self) -> torch.cuda.CUDAGraph:
        """Return the graph of the work, not run yet."""
        graph = torch.cuda.CUDAGraph()
        # Thread-local: driver calls of the loader's threads do not break the capture.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._result = self._run()
        return graph
