"""Process of one peer: writes its files, checks its batches, and measures its rate.

`benchmarks.peers` starts it with the peer's interpreter, and exchanges lines of JSON with it on stdin and stdout. It is
not meant to be run by hand.
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

_DRAIN = 0.25  # seconds in which an idle pipeline delivers its prefetched batches
_CHECKED = 3  # batches to check
_RESTARTS = 20  # maximum number of epochs without a timed batch


class PeerMismatch(Exception):
    """A batch of a peer violates the contract."""


class Stream:
    """Batches of a pipeline, epoch after epoch.

    Args:
        opened: pipeline of the peer.
    """

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._batches: Iterator[PeerBatch] = iter(opened.batches)

    def next(self) -> tuple[PeerBatch, bool]:
        """Return the next batch, and whether it starts a new epoch."""
        batch = next(self._batches, None)
        if batch is not None:
            return batch, False
        self._batches = iter(self._opened.batches)
        return next(self._batches), True

    def drain(self) -> None:
        """Discard the batches that were prefetched while the pipeline was idle."""
        begin, taken = time.perf_counter(), 0
        while taken < self._opened.ahead + 2 or time.perf_counter() - begin < _DRAIN:
            self.next()
            taken += 1

    def rate(self, seconds: float, least: int) -> dict[str, float]:
        """Measure scenes/s and busy cores over at least `seconds` and at least `least` batches.

        The start of an epoch is not timed.
        """
        self.drain()
        wall, busy = time.perf_counter(), processor_seconds()
        counted, passed, restarts = 0, 0.0, 0
        begin = time.perf_counter()
        while counted < least or passed < seconds:
            if self.next()[1]:
                restarts += 1
                if restarts > counted + _RESTARTS:
                    raise PeerMismatch("epochs are too short to be timed, expected longer ones; pass more --scenes")
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
    """Return the processor time of all processes in this session, on Linux; 0 elsewhere."""
    session, ticks = os.getsid(0), 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def check(stream: Stream, source: Dataset, tolerance: float) -> dict[str, float]:
    """Compare some batches with our dataset.

    Returns:
        Mean and maximum difference of frames, in levels of 255.

    Raises:
        PeerMismatch: a batch violates the contract.
    """
    fields = source.manifest.layout.camera_fields
    means, largest, seen = [], 0, []
    for _ in range(_CHECKED):
        batch = stream.next()[0]
        frames, cameras = np.asarray(batch.frames), np.asarray(batch.cameras)
        scenes, views = np.asarray(batch.scenes).reshape(-1), np.asarray(batch.views)
        expected_shape = (BATCH, VIEWS, *source.layout.frames_shape[1:])
        _expect("frames", (frames.shape, frames.dtype), (expected_shape, np.dtype(np.uint8)))
        _expect("views", (views.shape, scenes.shape), ((BATCH, VIEWS), (BATCH,)))
        _expect("views of a scene", min(len(set(row)) for row in views.tolist()), VIEWS)
        for scene, chosen, found, camera in zip(scenes.tolist(), views.tolist(), frames, cameras):
            raw = source.cameras_of(scene)[chosen]
            _expect("cameras", np.array_equal(camera, raw if len(camera[0]) == len(fields) else poses_of(raw)), True)
            expected = source[scene].frames[chosen]
            difference = np.abs(found.astype(np.int16) - expected)
            means.append(float(difference.mean()))
            largest = max(largest, int(difference.max()))
        seen += [(scene, tuple(chosen)) for scene, chosen in zip(scenes.tolist(), views.tolist())]
    mean = max(means)
    if mean > tolerance:
        raise PeerMismatch(f"frames differ by {mean:.2f} levels (maximum {largest}), expected at most {tolerance}")
    if len(source) > 4 * BUFFER:  # smaller datasets end while a shuffle buffer fills, and some peers repeat them
        _expect("distinct scenes in an epoch", len({scene for scene, _ in seen}), len(seen))
    order = [scene for scene, _ in seen]
    _expect("scenes in random order", order != sorted(order), True)
    _expect("views drawn per scene", len({chosen for _, chosen in seen}) > BATCH // 2, True)
    return {"mean": mean, "max": largest}


def _expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise PeerMismatch(f"{what}: found {found}, expected {expected}")


class Session:
    """Commands of the driver.

    Args:
        name: name of the peer.
        form: form of the frames.
        source: our dataset in that form.
        folder: folder of the peer's files.
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
        """Return the versions of the packages of the peer; None for a package that is not installed."""
        found: dict[str, str | None] = {}
        for package in self._peer.packages:
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                found[package] = None
        return found

    def write(self) -> None:
        """Write the peer's files."""
        self._peer.write(self._source, self._folder, self._form)

    def open(self, workers: int) -> dict[str, float]:
        """Start the pipeline and check its first batches."""
        self._streams[workers] = Stream(self._peer.read(self._folder, self._form, workers))
        return check(self._streams[workers], self._source, self._peer.tolerance if self._form == "jpeg" else 0.0)

    def rate(self, workers: int, seconds: float, least: int) -> dict[str, float]:
        """Measure scenes/s and busy cores."""
        return self._streams[workers].rate(seconds, least)

    def close(self, workers: int) -> None:
        """Close the pipeline."""
        self._streams.pop(workers, None)


def main() -> None:
    """Execute commands from stdin until it is closed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("form", choices=("jpeg", "raw"))
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    # Libraries print to standard output, so answers use a separate descriptor.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    session = Session(options.peer, options.form, options.source, options.folder)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"answer": session.commands[request.pop("command")](**request)}
        except Exception as error:  # noqa: BLE001  any error of a library is a result of the peer
            lines = [line for line in str(error).splitlines() if line.strip()]  # messages of torch contain a traceback
            answer = {"error": f"{type(error).__name__}: {lines[-1].strip() if lines else ''}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
