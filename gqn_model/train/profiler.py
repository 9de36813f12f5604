"""Profile of ten training steps: where the time goes, operator by operator.

Writes `steps-A-B.json.gz`, a Chrome trace for https://ui.perfetto.dev, and `steps-A-B.txt`, a table of the most
expensive operators, into RUN/profile/. Warm-up steps come first, because the first steps load, compile and tune.
Profiling changes no result. In a training loop:

    with Profile(run, device, first=step, last=training.steps, wanted=training.profile) as profile:
        ...                   # at the end of each step:
        profile.step()
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

import torch

from gqn_data.errors import NoSpace
from gqn_data.io import atomic
from gqn_data.progress import message

STEPS = 10
WARM_UP = 10
# Rows of the table.
_ROWS = 40


class Profile:
    """Record `steps` steps after `warm_up` steps; a training that ends earlier leaves the steps recorded so far.

    `torch.profiler.schedule` does not do the same: it warns without a warm-up step, and an error while recording would
    end the training.

    Args:
        run: the run's folder.
        device: device of the training.
        first: steps done before the loop.
        last: step at which the loop ends.
        wanted: False records nothing.
        steps: number of steps to record.
        warm_up: number of steps before them; fewer if the training is too short.

    Attributes:
        written: paths of the trace and the table; None before they are written.
    """

    def __init__(
        self,
        run: Path,
        device: torch.device,
        *,
        first: int,
        last: int,
        wanted: bool = True,
        steps: int = STEPS,
        warm_up: int = WARM_UP,
    ) -> None:
        self._run, self._device, self._done = run, device, first
        self._from = first + max(0, min(warm_up, last - first - steps))
        self._to = self._from + steps
        self._wanted = wanted
        self._profiler: torch.profiler.profile | None = None
        self.written: tuple[Path, Path] | None = None

    def __enter__(self) -> Profile:
        self._begin_if_due()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def step(self) -> None:
        """Mark the end of a step."""
        self._done += 1
        if self._done == self._to:
            self._end()
        self._begin_if_due()

    def _begin_if_due(self) -> None:
        if not self._wanted or self._done != self._from:
            return
        self._wanted = False
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self._device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
            torch.cuda.synchronize(self._device)
        self._profiler = torch.profiler.profile(activities=activities)
        try:
            self._profiler.start()
        except RuntimeError as error:  # another tool uses the device's counters
            self._profiler = None
            message(f"warning: no profile: {error} (training continues)")

    def _end(self) -> None:
        if self._profiler is None:
            return
        profiler, self._profiler = self._profiler, None
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        try:
            profiler.stop()
            if self._done > self._from:
                self._write(profiler)
        except (RuntimeError, NoSpace) as error:
            message(f"warning: no profile: {error} (training continues)")

    def _write(self, profiler: torch.profiler.profile) -> None:
        stem = self._run / "profile" / f"steps-{self._from + 1:08d}-{self._done:08d}"
        by = f"self_{self._device.type}_time_total"
        table = profiler.key_averages().table(sort_by=by, row_limit=_ROWS, max_name_column_width=60)
        with atomic.writing(stem.with_suffix(".txt")) as file:
            count = self._done - self._from
            file.write(
                f"{count} steps on {self._device}, sorted by self time; all times are sums\n\n{table}\n".encode()
            )
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "trace.json"
            profiler.export_chrome_trace(str(plain))
            with (
                atomic.writing(stem.with_suffix(".json.gz")) as file,
                gzip.GzipFile("", "wb", 6, file, mtime=0) as packed,
                plain.open("rb") as trace,
            ):
                shutil.copyfileobj(trace, packed)
        self.written = stem.with_suffix(".json.gz"), stem.with_suffix(".txt")
        message(f"profile of {count} steps: {self.written[0]}, {self.written[1]}")
