"""The processes of one training: one alone, or those that `torchrun` started, on one machine or many.

Every rank takes its slice of each batch, so that all of them together do what one would do alone. Rank 0 writes the
run's folder, measures and logs; the others need neither the folder nor a disk that is shared. Nothing here waits for a
GPU but what its docstring says.
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


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those of the training.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
        local: its number on its machine.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def broadcast(self, value: T) -> T:
        """What the first rank gave, on every rank; plain values and settings."""
        if self.count == 1:
            return value
        box: list[Any] = [value if self.first else None]
        with _losses_told():
            dist.broadcast_object_list(box, src=0)
        told: T = box[0]
        return told

    def broadcast_(self, tensor: Tensor) -> None:
        """Fills a tensor of every rank with what it holds on the first."""
        if self.count > 1:
            with _losses_told():
                dist.broadcast(tensor, src=0)

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of a tensor over the ranks, in a tensor of its own; on a GPU it is not waited for."""
        if self.count == 1:
            return tensor
        total = tensor.clone()
        with _losses_told():
            dist.all_reduce(total)
        return total / self.count

    def most(self, tensor: Tensor) -> Tensor:
        """The largest values of a tensor over the ranks, in a tensor of its own."""
        if self.count == 1:
            return tensor
        largest = tensor.clone()
        with _losses_told():
            dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return largest


ALONE = Ranks()


class StopFlag:
    """A number that each rank may raise, such as a signal that came, and that all act upon after the same step.

    Asked once a step. The ranks tell each other in the background, on the CPU, and know it one step later.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._told = torch.zeros(1, dtype=torch.int64)
        self._work: Any = None
        # Its own group: these must not mix with the gradients', and must not need a GPU.
        self._group = dist.new_group(backend="gloo") if ranks.count > 1 else None

    def all_reduce_max(self, mine: int) -> int:
        """The largest number of any rank: alone, of now; among several, of the step before."""
        if self._ranks.count == 1:
            return mine
        agreed = self._finish()
        self._told = torch.tensor([mine])
        self._work = dist.all_reduce(self._told, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        return agreed

    def close(self) -> None:
        """Waits for what is under way."""
        self._finish()

    def _finish(self) -> int:
        if self._work is not None:
            with _losses_told():
                self._work.wait()
            self._work = None
        return int(self._told[0])


def current_ranks() -> Ranks:
    """This process among those that `torchrun` started; alone where it started none.

    Raises:
        OptionError: the variables that torchrun sets are no numbers.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if not all(name in os.environ for name in names):
        return ALONE
    try:
        rank, count, local = (int(os.environ[name]) for name in names)
    except ValueError as error:
        raise OptionError(f"{', '.join(names)} are no numbers ({error}); unset them, or start by torchrun") from error
    return Ranks(rank=rank, count=count, local=local)


@contextlib.contextmanager
def process_group(ranks: Ranks) -> Iterator[None]:
    """Holds the connection of the ranks; nothing where there is one.

    Args:
        ranks: from `current_ranks`.

    Raises:
        RankLost: another rank is gone, or never came.
    """
    if ranks.count == 1:
        yield
        return
    # By what the machines have, not by the device that was chosen, which ranks may not know yet.
    backend = "gloo"
    if torch.cuda.is_available() and dist.is_nccl_available():
        torch.cuda.set_device(ranks.local % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    with _losses_told():
        dist.init_process_group(backend)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _losses_told() -> Iterator[None]:
    """Turns torch's errors about a connection into one that tells what to do."""
    try:
        yield
    except (RuntimeError, dist.DistError) as error:
        raise rank_lost(error) from error


def rank_lost(error: BaseException) -> RankLost:
    """The error that says a rank is gone."""
    reason = str(error).split("\n", 1)[0].split(". ", 1)[0]
    return RankLost(
        f"another rank of this training is gone, or cannot be reached ({reason}); this one ends, too. "
        "Start all again with --resume: what the last checkpoint holds is kept"
    )
