"""One peer in a process of its own: writes its files, checks what it gives, and times it when told to.

`benchmarks.peers` starts it with the interpreter that has the peer, and talks to it by lines of JSON. Started alone it
waits for such lines; there is no need to.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import PEERS
from benchmarks.peers.contract import BATCH, BUFFER, VIEWS, Form, Opened, Peer, PeerBatch
from gqn_data.dataset import Dataset, open_dataset
from gqn_data.schema.cameras import poses_of

_DRAIN = 0.25  # seconds in which a pipeline that stood still gives away what it had made ahead
_CHECKED = 3  # batches
_RESTARTS = 20  # epochs that may begin without a batch of them being counted


class Unlike(Exception):
    """A peer gives something else than the others."""


class Stream:
    """A pipeline's batches, epoch after epoch.

    Args:
        opened: the pipeline.
    """

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._batches: Iterator[PeerBatch] = iter(opened.batches)

    def next(self) -> tuple[PeerBatch, bool]:
        """A batch, and whether a new epoch began with it."""
        batch = next(self._batches, None)
        if batch is not None:
            return batch, False
        self._batches = iter(self._opened.batches)
        return next(self._batches), True

    def drain(self) -> None:
        """Takes what was made while nobody asked."""
        begin, taken = time.perf_counter(), 0
        while taken < self._opened.ahead + 2 or time.perf_counter() - begin < _DRAIN:
            self.next()
            taken += 1

    def rate(self, seconds: float, least: int) -> dict[str, float]:
        """Scenes/s over so many seconds and at least so many batches, and the cores that they kept busy.

        Starting an epoch does not count.
        """
        self.drain()
        wall, busy = time.perf_counter(), processor_seconds()
        counted, passed, restarts = 0, 0.0, 0
        begin = time.perf_counter()
        while counted < least or passed < seconds:
            if self.next()[1]:
                restarts += 1
                if restarts > counted + _RESTARTS:
                    raise Unlike("its epochs are over before they can be timed; give more --scenes")
                self.drain()
                begin = time.perf_counter()
                continue
            now = time.perf_counter()
            passed += now - begin
            begin = now
            counted += 1
        cores = (processor_seconds() - busy) / (time.perf_counter() - wall)
        return {"scenes": counted * BATCH / passed, "cores": cores}


def processor_seconds() -> float:
    """What all processes of this one's session have used so far, as Linux counts it; 0 elsewhere."""
    session, ticks = os.getsid(0), 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def check(stream: Stream, source: Dataset, tolerance: float) -> dict[str, float]:
    """Holds some batches against our own dataset: the mean and the greatest difference of frames, in levels of 255.

    Raises:
        Unlike: a batch is not what every peer is to give.
    """
    fields = source.manifest.layout.camera_fields
    means, most, seen = [], 0, []
    for _ in range(_CHECKED):
        batch = stream.next()[0]
        frames, cameras = np.asarray(batch.frames), np.asarray(batch.cameras)
        scenes, views = np.asarray(batch.scenes).reshape(-1), np.asarray(batch.views)
        expected_shape = (BATCH, VIEWS, *source.layout.frames_shape[1:])
        _expect("frames", (frames.shape, frames.dtype), (expected_shape, np.dtype(np.uint8)))
        _expect("views", (views.shape, scenes.shape), ((BATCH, VIEWS), (BATCH,)))
        _expect("views of a scene", min(len(set(row)) for row in views.tolist()), VIEWS)
        for scene, chosen, given, camera in zip(scenes.tolist(), views.tolist(), frames, cameras):
            raw = source.cameras_of(scene)[chosen]
            _expect("cameras", np.array_equal(camera, raw if len(camera[0]) == len(fields) else poses_of(raw)), True)
            wanted = source[scene].frames[chosen]
            difference = np.abs(given.astype(np.int16) - wanted)
            means.append(float(difference.mean()))
            most = max(most, int(difference.max()))
        seen += [(scene, tuple(chosen)) for scene, chosen in zip(scenes.tolist(), views.tolist())]
    mean = max(means)
    if mean > tolerance:
        raise Unlike(f"frames differ by {mean:.2f} levels (greatest {most}), expected {tolerance} at most")
    if len(source) > 4 * BUFFER:  # small sets are over while a buffer is being filled, and some repeat them into it
        _expect("scenes in an epoch, each once", len({scene for scene, _ in seen}), len(seen))
    order = [scene for scene, _ in seen]
    _expect("scenes in another order than they lie in", order != sorted(order), True)
    _expect("views drawn for each scene", len({chosen for _, chosen in seen}) > BATCH // 2, True)
    return {"mean": mean, "most": most}


def _expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Unlike(f"{what}: found {found}, expected {expected}")


class Session:
    """Answers what the driver asks.

    Args:
        name: of the peer.
        form: of the frames.
        source: our dataset of that form.
        folder: where the peer's own files lie, or are to lie.
    """

    def __init__(self, name: str, form: Form, source: Path, folder: Path) -> None:
        self._peer: Peer = PEERS[name]
        self._form = form
        self._source = open_dataset(source)
        self._folder = folder
        self._streams: dict[int, Stream] = {}
        self.commands: dict[str, Callable[..., Any]] = {
            "versions": self.versions,
            "write": self.write,
            "open": self.open,
            "rate": self.rate,
            "close": self.close,
        }

    def versions(self) -> dict[str, str | None]:
        """The versions of the packages that the peer needs; None for one that is not installed."""
        found: dict[str, str | None] = {}
        for package in self._peer.packages:
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                found[package] = None
        return found

    def write(self) -> None:
        """Writes the peer's files."""
        self._peer.write(self._source, self._folder, self._form)

    def open(self, workers: int) -> dict[str, float]:
        """Starts the pipeline, and checks its first batches."""
        self._streams[workers] = Stream(self._peer.read(self._folder, self._form, workers))
        return check(self._streams[workers], self._source, self._peer.tolerance if self._form == "jpeg" else 0.0)

    def rate(self, workers: int, seconds: float, least: int) -> dict[str, float]:
        """Scenes/s, and cores that were busy."""
        return self._streams[workers].rate(seconds, least)

    def close(self, workers: int) -> None:
        """Ends the pipeline."""
        self._streams.pop(workers, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("form", choices=("jpeg", "raw"))
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    # Libraries print on standard output; answers go out by a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    session = Session(options.peer, options.form, options.source, options.folder)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"answer": session.commands[asked.pop("command")](**asked)}
        except Exception as error:  # noqa: BLE001  whatever a library raises is the peer's result, not the run's end
            lines = [line for line in str(error).splitlines() if line.strip()]  # torch puts a traceback into the text
            answer = {"error": f"{type(error).__name__}: {lines[-1].strip() if lines else ''}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
