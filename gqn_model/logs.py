"""Where the figures of a training go: the terminal, JSON lines, TensorBoard. An adapter each, and a line in the dict.

Torch is not imported here but in the adapter that needs it. What the figures mean: docs/training.md.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from gqn_data import storage
from gqn_data.errors import NoSpace

if TYPE_CHECKING:
    from PIL.Image import Image

LOG_FILE = "log.jsonl"


@dataclass(frozen=True, kw_only=True)
class Record:
    """The figures of one line: means over the steps since the line before.

    Attributes:
        step: steps done.
        steps: steps of the training in all.
        rate: steps a second.
        wait: share of the time spent waiting for batches, 0 to 1.
        loss: -ELBO in nats a frame.
        excess: what of the loss lies above the Gaussian floor at the sigma of each step, in nats.
        kl: divergence of posterior from prior in nats, summed over the generation steps.
        kl_steps: the same, of each generation step.
        mse: mean squared error of the posterior's prediction, frames in [0, 1].
        psnr: mean over samples of the PSNR of the posterior's prediction in dB.
        prior_sample: mean PSNR of a prior sample on the probe in dB; None where it was not measured.
        prior_mean: the same with the mean of the prior as latent at every step.
        sigma: deviation of a pixel at the last step.
        learning_rate: at the last step.
        left: seconds left at this rate.
    """

    step: int
    steps: int
    rate: float
    wait: float
    loss: float
    excess: float
    kl: float
    kl_steps: tuple[float, ...]
    mse: float
    psnr: float
    prior_sample: float | None
    prior_mean: float | None
    sigma: float
    learning_rate: float
    left: float


class Logger(Protocol):
    """What takes the figures and pictures of a run."""

    def log(self, record: Record) -> None:
        """Takes one line."""

    def picture(self, step: int, image: Image) -> None:
        """Takes a picture of predictions."""

    def close(self) -> None:
        """Writes out what is held back."""


class Terminal:
    """A table on stderr, its head repeated now and then.

    Args:
        stream: where to write; None: stderr.
    """

    HEAD = (
        f"{'step':>9} {'steps/s':>8} {'wait':>5} {'excess':>8} {'KL':>7} {'MSE':>8} {'PSNR':>6} "
        f"{'prior':>6} {'sample':>6} {'sigma':>6} {'lr':>8} {'left':>8}"
    )
    _EVERY = 20

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._lines = 0

    def log(self, record: Record) -> None:
        """Takes one line."""
        if self._lines % self._EVERY == 0:
            print(self.HEAD, file=self._stream)
        self._lines += 1
        prior, sample = (
            f"{'':6}" if value is None else f"{value:6.2f}" for value in (record.prior_mean, record.prior_sample)
        )
        print(
            f"{record.step:9d} {record.rate:8.2f} {record.wait:5.0%} {record.excess:8.2f} {record.kl:7.2f} "
            f"{record.mse:8.5f} {record.psnr:6.2f} {prior} {sample} {record.sigma:6.3f} "
            f"{record.learning_rate:8.2g} {clock(record.left):>8}",
            file=self._stream,
            flush=True,
        )

    def picture(self, step: int, image: Image) -> None:
        """Nothing: a terminal shows no pictures."""

    def close(self) -> None:
        """Nothing is held back."""


class JsonLines:
    """`log.jsonl` in the run's folder, a line a record; pictures are files beside it.

    Args:
        run: the run's folder.
        start: step from which the training goes on; later lines are of steps that are done again, and go.
    """

    def __init__(self, run: Path, start: int) -> None:
        path = run / LOG_FILE
        if path.exists():
            lines = path.read_bytes().splitlines(keepends=True)
            with storage.writing(path) as file:
                file.writelines(line for line in lines if _step_of(line) <= start)
        self._path = path
        self._file = path.open("a")
        self._told = False

    def log(self, record: Record) -> None:
        """Takes one line; where the disk is full it waits for room, and goes first when there is some."""
        with self._unless_full():
            print(json.dumps(asdict(record)), file=self._file, flush=True)

    def picture(self, step: int, image: Image) -> None:
        """Nothing: the picture is a file of the run already."""

    def close(self) -> None:
        """Closes the file."""
        with self._unless_full():
            self._file.close()

    @contextlib.contextmanager
    def _unless_full(self) -> Iterator[None]:
        try:
            with storage.full_disk_told(self._path):
                yield
        except NoSpace as error:
            if not self._told:  # once: hours of training are not to be lost to a line of a log
                sys.stderr.write(f"warning: {error} (training goes on)\n")
            self._told = True


class TensorBoard:
    """Event files in `tensorboard/` of the run's folder.

    Args:
        run: the run's folder.
        start: step from which the training goes on; later events of an earlier try are hidden.
    """

    def __init__(self, run: Path, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(run / "tensorboard", purge_step=start + 1)

    def log(self, record: Record) -> None:
        """Takes one line."""
        for name, value in asdict(record).items():
            if isinstance(value, float):
                self._writer.add_scalar(name, value, record.step)
        for step, value in enumerate(record.kl_steps):
            self._writer.add_scalar(f"kl_steps/{step:02d}", value, record.step)

    def picture(self, step: int, image: Image) -> None:
        """Takes a picture of predictions."""
        import numpy as np

        self._writer.add_image("predictions", np.asarray(image), step, dataformats="HWC")

    def close(self) -> None:
        """Writes out what is held back."""
        self._writer.close()


@dataclass(frozen=True)
class Adapter:
    """A logger that needs a package: the package's name, and how to make the logger of (run, start)."""

    package: str
    make: Callable[[Path, int], Logger]


LOGGERS: dict[str, Adapter] = {"tensorboard": Adapter("tensorboard", TensorBoard)}


def open_loggers(name: str, run: Path, start: int, *, quiet: bool = False) -> list[Logger]:
    """The loggers of a run: terminal and JSON lines always, and of the optional ones those asked for.

    Args:
        name: of an optional logger; `auto` takes all that are installed, `none` none.
        run: the run's folder.
        start: step from which the training goes on.
        quiet: leave the terminal out.
    """
    loggers: list[Logger] = [] if quiet else [Terminal()]
    loggers.append(JsonLines(run, start))
    for key, adapter in LOGGERS.items():
        if name == key or (name == "auto" and importlib.util.find_spec(adapter.package) is not None):
            loggers.append(adapter.make(run, start))
    return loggers


def clock(seconds: float) -> str:
    """A span of time as people read it: `1:05` minutes, `2:01:05` hours, `3d 04h`."""
    whole = round(seconds)
    if whole >= 2 * 86400:
        return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def _step_of(line: bytes) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # a line cut short by a kill
        return float("inf")
