"""Ranks of a training: one process, or the processes that `torchrun` started on one or several machines.

Each rank takes its slice of every batch, so that all ranks together compute what one process would. Rank 0 writes the
run's folder, evaluates and logs; the other ranks need neither the folder nor a shared disk. Methods that wait for a GPU
say so.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from gqn_data.errors import OptionError, RankLost

T = TypeVar("T")

# What torch's errors about lost connections contain.
_CONNECTION_WORDS = ("onnection", "gloo", "NCCL", "ocket", "imed out")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among the ranks of a training.

    Attributes:
        rank: its number, from 0.
        count: number of ranks.
        local: its number on its machine.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def broadcast(self, value: T) -> T:
        """Return rank 0's value on every rank; for plain values and settings."""
        if self.count == 1:
            return value
        box: list[Any] = [value if self.first else None]
        with _raise_rank_lost():
            dist.broadcast_object_list(box, src=0)
        received: T = box[0]
        return received

    def broadcast_(self, tensor: Tensor) -> None:
        """Overwrite a tensor on every rank with rank 0's values."""
        if self.count > 1:
            with _raise_rank_lost():
                dist.broadcast(tensor, src=0)

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the mean of a tensor over ranks as a new tensor; does not wait for a GPU."""
        if self.count == 1:
            return tensor
        total = tensor.clone()
        with _raise_rank_lost():
            dist.all_reduce(total)
        return total / self.count

    def max(self, tensor: Tensor) -> Tensor:
        """Return the elementwise maximum of a tensor over ranks as a new tensor; does not wait for a GPU."""
        if self.count == 1:
            return tensor
        largest = tensor.clone()
        with _raise_rank_lost():
            dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return largest


ALONE = Ranks()


class StopFlag:
    """Stop flag, max-reduced across ranks, so that all stop after the same step.

    Reduced once per step, in the background and on the CPU; several ranks see a value one step late.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._value = torch.zeros(1, dtype=torch.int64)
        self._work: Any = None
        # A separate group: the flag must not mix with gradients and must not need a GPU.
        self._group = dist.new_group(backend="gloo") if ranks.count > 1 else None

    def all_reduce_max(self, value: int) -> int:
        """Return the largest value of any rank: this step's for one rank, the previous step's for several."""
        if self._ranks.count == 1:
            return value
        agreed = self._finish()
        self._value = torch.tensor([value])
        self._work = dist.all_reduce(self._value, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        return agreed

    def close(self) -> None:
        """Wait for the reduction in progress."""
        self._finish()

    def _finish(self) -> int:
        if self._work is not None:
            with _raise_rank_lost():
                self._work.wait()
            self._work = None
        return int(self._value[0])


def current_ranks() -> Ranks:
    """Return this process's rank as `torchrun` set it, or a single rank without `torchrun`.

    Raises:
        OptionError: torchrun's environment variables are not numbers.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if not all(name in os.environ for name in names):
        return ALONE
    try:
        rank, count, local = (int(os.environ[name]) for name in names)
    except ValueError as error:
        raise OptionError(
            f"{', '.join(names)}: {error}, expected numbers; unset them, or start with torchrun"
        ) from error
    return Ranks(rank=rank, count=count, local=local)


@contextlib.contextmanager
def process_group(ranks: Ranks) -> Iterator[None]:
    """Initialise torch's process group inside the block; do nothing for one rank.

    Args:
        ranks: from `current_ranks`.

    Raises:
        RankLost: another rank is gone, or did not start.
    """
    if ranks.count == 1:
        yield
        return
    # Chosen by the hardware, not by the `device` option, which only rank 0 may know yet.
    backend = "gloo"
    if torch.cuda.is_available() and dist.is_nccl_available():
        torch.cuda.set_device(ranks.local % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    with _raise_rank_lost():
        dist.init_process_group(backend)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def connection_errors_as_rank_lost(ranks: Ranks) -> Iterator[None]:
    """Convert torch's connection errors inside the block to RankLost; a lost rank shows when gradients sync."""
    try:
        yield
    except RuntimeError as error:
        if ranks.count > 1 and any(word in str(error) for word in _CONNECTION_WORDS):
            raise rank_lost(error) from error
        raise


@contextlib.contextmanager
def _raise_rank_lost() -> Iterator[None]:
    """Convert any error of a collective operation to RankLost."""
    try:
        yield
    except (RuntimeError, dist.DistError) as error:
        raise rank_lost(error) from error


def rank_lost(error: BaseException) -> RankLost:
    """Return the RankLost for torch's error."""
    reason = str(error).split("\n", 1)[0].split(". ", 1)[0]
    return RankLost(
        f"another rank of this training is gone or cannot be reached ({reason}), so this one ends. "
        "Restart all ranks with --resume; the last checkpoint is kept"
    )
